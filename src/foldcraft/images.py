"""Images of every kind, decoded once to square uint8 RGB and kept in a memory-mapped file that all processes share."""

import os
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from foldcraft import fingerprint, sealed
from foldcraft.errors import FoldcraftError, listing, shorten
from foldcraft.files import cannot_read, cannot_write, locked, remove_leftovers
from foldcraft.rowfile import DamagedRows, RowFile, RowWriter

MOST_PIXELS = 200_000_000  # of an image; a file that promises more (a decompression bomb) is refused by its header
MANY_PIXELS = 20_000_000  # images with more are decoded one at a time, for the sake of memory
PIECE = 1 << 20  # values that are scaled at once
# Pillow knows many more, some of them through other programs (PostScript through Ghostscript).
KINDS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000")

Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Pillow warns above, and raises at twice as many
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
_one_large = threading.Lock()
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong with a file is told once, by us

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
DRAFT = 1024  # a JPEG is decoded no smaller than this, whatever is built from it
FORMAT = 2  # raise it when the pixels of a cache would come out differently
Progress = Callable[[int], object]


@dataclass(frozen=True)
class ImageSpec:
    """How an image becomes the square that the cache holds.

    Attributes:
        side: side of the square in pixels.
        resize: "squash", "pad" or "crop".
        interpolation: a key of `INTERPOLATIONS`.
        max_value: value of a 16-bit image that becomes white.
    """

    side: int
    resize: str = "squash"
    interpolation: str = "bicubic"
    max_value: float = 65535


def decode(path: Path, max_value: float = 65535, at_least: int | None = None) -> Image.Image:
    """The first frame of an image file as upright 8-bit RGB.

    Grey becomes three equal channels, transparent pixels white, 16-bit values are scaled by `max_value`.
    A JPEG may be decoded at a smaller scale as long as both sides stay `at_least` so long.

    Raises:
        UnreadableImage: the file is no image, is damaged, or has more than `MOST_PIXELS`.
    """
    try:
        return _decode(path, max_value, at_least)
    except Exception as error:  # decoders of damaged files raise errors of every kind
        reason = shorten(" ".join(str(error).split()), 120) or type(error).__name__
        raise UnreadableImage(reason) from error


def _decode(path: Path, max_value: float, at_least: int | None) -> Image.Image:
    try:
        opened = Image.open(path, formats=KINDS)
    except UnidentifiedImageError:
        with _alone_if_large(_pixels_of_tiff(path)):
            if image := _deep_colour(path, max_value):
                return image
        raise
    with opened as image:
        if not all(image.size):
            raise ValueError("an image without pixels")
        with _alone_if_large(image.width * image.height):
            if image.mode == "RGB" and any(";16" in str(tile.args) for tile in image.tile):
                image.load()  # tells of a truncated file
                return _deep_colour(path, max_value) or image.convert("RGB")
            if at_least is not None:
                image.draft("RGB", (at_least, at_least))
            return _to_rgb(_upright(image), max_value)


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF data that are garbage say nothing of how it was held
        return image


def _alone_if_large(pixels: int) -> AbstractContextManager[object]:
    return _one_large if pixels > MANY_PIXELS else nullcontext()


def _pixels_of_tiff(path: Path) -> int:
    """How many pixels a TIFF's header promises. Of what Pillow cannot decode, OpenCV gets nothing else to see.

    Raises:
        ValueError: it is no TIFF, or has too many.
    """
    with open(path, "rb") as stream:
        if (start := stream.read(8))[:4] not in (b"II*\0", b"MM\0*"):
            raise ValueError("not an image of a known kind")
        tags: Any = TiffImagePlugin.ImageFileDirectory_v2(start)
        stream.seek(tags.next)
        tags.load(stream)
    pixels = int(tags[TiffImagePlugin.IMAGEWIDTH]) * int(tags[TiffImagePlugin.IMAGELENGTH])
    if not 0 < pixels <= MOST_PIXELS:
        raise ValueError(f"{pixels} pixels, and no more than {MOST_PIXELS} are decoded")
    return pixels


def _deep_colour(path: Path, max_value: float) -> Image.Image | None:
    """16-bit colour, of which Pillow keeps the high byte only; None for anything else."""
    data = np.fromfile(path, np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR) if data.size else None
    return _scaled(pixels[..., ::-1], max_value) if pixels is not None and pixels.dtype == np.uint16 else None


def _to_rgb(image: Image.Image, max_value: float) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.float32)
        return _scaled(values, 1.0 if image.mode == "F" and values.max() <= 1 else max_value).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _scaled(values: np.ndarray, max_value: float) -> Image.Image:
    """Values (H, W, ...) as bytes, in pieces: whole, a large image would be held several times as float64."""
    scaled = np.empty(values.shape, np.uint8)
    rows = max(1, PIECE // max(1, values[0].size))
    for first in range(0, len(values), rows):
        piece = slice(first, first + rows)
        finite = np.nan_to_num(values[piece] * (255.0 / max_value), nan=0.0)
        scaled[piece] = np.clip(np.rint(finite), 0, 255)
    return Image.fromarray(scaled)


def make_square(image: Image.Image, spec: ImageSpec) -> np.ndarray:
    """Resize an RGB image to uint8 (side, side, 3) by the policy of `spec`."""
    size, resample = (spec.side, spec.side), INTERPOLATIONS[spec.interpolation]
    if spec.resize == "squash":
        square = image.resize(size, resample)
    elif spec.resize == "pad":
        square = ImageOps.pad(image, size, resample, color="black")
    else:
        square = ImageOps.fit(image, size, resample)
    return np.asarray(square)


class UnreadableImage(ValueError):
    """An image that cannot be decoded; says why."""


class UnreadableImages(FoldcraftError):
    """Images that cannot be decoded.

    Attributes:
        problems: each with its path and the reason.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        what = f"{len(problems)} images cannot be read: {listing(self.problems, 1000)}"
        super().__init__(what, mend="mend the files or drop their rows")


@dataclass(frozen=True)
class ImageStore:
    """Decoded images: `store[row]` is uint8 (side, side, 3).

    Attributes:
        pixels: all of them (N, side, side, 3), unchecked; a read-only map of a file.
        rows: the same with a checksum a row; left out: rows are taken as they are.
    """

    pixels: np.ndarray
    path: Path
    rows: RowFile | None = None

    @classmethod
    def of(cls, path: Path) -> "ImageStore":
        """The store that a file holds.

        Raises:
            DamagedRows, OSError: it holds none.
        """
        rows = RowFile(path)
        return cls(rows.array, path, rows)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> np.ndarray:
        """One image, checked when a process looks at it for the first time.

        Raises:
            FoldcraftError: it has changed since it was decoded.
        """
        if self.rows is None:
            return self.pixels[row]
        try:
            return self.rows[row]
        except DamagedRows as error:
            mend = "delete it and run the same command again, which makes it anew"
            raise FoldcraftError(f"damaged image cache: {error}", self.path, mend) from None

    def __getstate__(self) -> tuple[Path, bool]:
        return (self.path, self.rows is not None)  # a worker process maps the file itself; no pixel is copied to it

    def __setstate__(self, state: tuple[Path, bool]) -> None:
        path, checked = state
        mine = ImageStore.of(path) if checked else ImageStore(np.lib.format.open_memmap(path, mode="r"), path)
        for name in ("pixels", "path", "rows"):
            object.__setattr__(self, name, getattr(mine, name))


def open_stores(
    paths: Sequence[Path],
    specs: Sequence[ImageSpec],
    folder: Path,
    name: str,
    progress: Progress = lambda done: None,
    say: Callable[[str], object] = lambda text: None,
) -> list[ImageStore]:
    """Decoded images of `paths`, one store a spec; what is not in `folder` yet is built, with one decode an image.

    The file is named after the content of the images, so a changed image leads to a new file, and every experiment
    with the same spec shares one. Processes that come at the same time wait for the first. A file that is cut, or has
    no checksums, is made again; a row that has changed is found when it is looked at.

    Args:
        name: first part of the files' names, for people ("train", "test").
        progress: called with 1 after each decoded image.
        say: told of a file that is made again.

    Raises:
        FoldcraftError: images that cannot be read, all of them named; a full disk.
    """
    content = _content(paths, folder)
    targets = {spec: folder / f"{name}-{spec.side}-{spec.resize}-{_key(content, spec)}.npy" for spec in specs}
    stores = {spec: _open(targets[spec], len(paths), spec) for spec in specs}
    if None in stores.values():
        with locked(folder / f"{name}.lock"):
            stores = {spec: store or _open(targets[spec], len(paths), spec, say) for spec, store in stores.items()}
            if missing := {spec: targets[spec] for spec, store in stores.items() if store is None}:
                _build(paths, missing, progress)
                stores |= {spec: ImageStore.of(target) for spec, target in missing.items()}
    return [store for store in (stores[spec] for spec in specs) if store is not None]


def _open(
    path: Path, count: int, spec: ImageSpec, say: Callable[[str], object] = lambda text: None
) -> ImageStore | None:
    """The store of a file; None where there is none, or none that can be used."""
    if not path.is_file():
        return None
    try:
        store = ImageStore.of(path)
        if store.pixels.shape == (count, spec.side, spec.side, 3) and store.pixels.dtype == np.uint8:
            return store
        reason = "holds other images"
    except DamagedRows as error:
        reason = str(error)
    except OSError as error:
        raise cannot_read(path, error) from error
    say(f"{path}: damaged image cache ({reason}); it is made again")
    return None


def _key(content: Sequence[str], spec: ImageSpec) -> str:
    return fingerprint.of_values([FORMAT, list(content), asdict(spec)])


def content_of(paths: Sequence[Path], folder: Path) -> str:
    """Digest of what the files hold, in their order, whatever they are called; `folder` is that of the caches."""
    return fingerprint.of_values(_content(paths, folder))


def _content(paths: Sequence[Path], folder: Path) -> list[str]:
    """Digest of each file, remembered with its size and times so that a file is read again only when it has changed."""
    index_file = folder / "content.json"
    index = _remembered(index_file)
    digests, changed = [], False
    for path in paths:
        stat = path.stat()
        # ctime is nobody's to set: an image replaced by one of the same size and time is noticed by it.
        key, stamp = os.path.abspath(path), [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        if index.get(key, [])[:-1] != stamp:
            index[key] = [*stamp, fingerprint.of_file(path)]
            changed = True
        digests.append(index[key][-1])
    if changed:
        sealed.write_json(index_file, index)
    return digests


def _remembered(index_file: Path) -> dict[str, list[Any]]:
    try:
        index = sealed.read_json(index_file)
    except (OSError, ValueError):
        return {}
    return {key: entry for key, entry in index.items() if isinstance(entry, list) and len(entry) == 4}


def _build(paths: Sequence[Path], targets: dict[ImageSpec, Path], progress: Progress) -> None:
    """Decode every image once and write it to all targets; they appear only when all are whole."""
    temporary: dict[ImageSpec, Path] = {}
    writers: dict[ImageSpec, RowWriter] = {}
    try:
        for spec, target in targets.items():
            remove_leftovers(target.parent, target.name)
            temporary[spec] = target.with_name(f"{target.name}.tmp-{os.getpid()}")
            writers[spec] = RowWriter(temporary[spec], np.uint8, (len(paths), spec.side, spec.side, 3))
        _decode_all(paths, writers, progress)
        for spec, target in targets.items():
            writers[spec].close()
            os.replace(temporary[spec], target)
    except OSError as error:
        raise cannot_write(error.filename2 or next(iter(targets.values())).parent, error) from error
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def _decode_all(paths: Sequence[Path], writers: dict[ImageSpec, RowWriter], progress: Progress) -> None:
    groups: dict[tuple[float, int | None], list[ImageSpec]] = {}
    for spec in writers:
        groups.setdefault((spec.max_value, DRAFT if 2 * spec.side <= DRAFT else None), []).append(spec)

    def work(row: int) -> str | None:
        try:
            for (max_value, at_least), specs in groups.items():
                image = decode(paths[row], max_value, at_least)
                for spec in specs:
                    writers[spec].put(row, make_square(image, spec))
        except (OSError, ValueError, MemoryError) as error:
            return f"{paths[row]} ({error})"
        return None

    problems = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # Pillow decodes without the interpreter's lock
        for problem in pool.map(work, range(len(paths))):
            if problem:
                problems.append(problem)
            progress(1)
    if problems:
        raise UnreadableImages(problems)
