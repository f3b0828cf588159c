"""Images of every kind, decoded once to square bytes and kept in a memory-mapped file that all processes share."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from foldcraft.common import checksums, fingerprint, local_copy
from foldcraft.common.checked_array import DamagedRows, RowFile, RowWriter, read_usable
from foldcraft.common.errors import FoldcraftError, counted, said_by, shorten
from foldcraft.common.files import cannot_write, locked, remove_leftovers, temporary_beside
from foldcraft.data.images.image_reading import bands, decode, has_bands_left_out
from foldcraft.data.images.sources import MadeSource, Source, files_of, is_there

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MAY_HAVE_BANDS = (".tif", ".tiff", ".jp2", ".j2k", ".jpf", ".jpx")  # beside colours and opacity
DRAFT = 1024  # a JPEG is decoded no smaller than this, whatever is built from it
UNREADABLE = "unreadable.json"
GONE = "no such file"
LONGEST_LINE, LONGEST_NAME, LONGEST_REASON = 290, 45, 90  # characters of a message, of an image's name, of a reason
FORMAT = 2  # raise it when the pixels of a cache would come out differently
Progress = Callable[[int], object]


@dataclass(frozen=True)
class ImageSpec:
    """How an image becomes the square that the cache holds.

    Attributes:
        side: side of the square in pixels.
        resize: "squash", "pad" or "crop".
        interpolation: a key of `INTERPOLATIONS`.
        max_value: value of an image of more than 8 bits that becomes white.
        min_value: the one that becomes black.
        channels: of the square; of other than three, all bands of an image.
    """

    side: int
    resize: str = "squash"
    interpolation: str = "bicubic"
    max_value: float = 65535
    min_value: float = 0
    channels: int = 3


def square(source: Source, spec: ImageSpec) -> np.ndarray:
    """The image of a row as the cache holds it, uint8 (side, side, channels).

    Raises:
        UnreadableImage: as `image_reading.decode`.
    """
    return make_square(_decoded(source, _look(spec)), spec)


def squares(source: Source, specs: Iterable[ImageSpec]) -> Iterator[tuple[ImageSpec, np.ndarray]]:
    """The same for several specs, with one decode for all that decode alike.

    Raises:
        OSError, ValueError, MemoryError: the image cannot be read.
    """
    groups: dict[tuple[float, int | None, float, int], list[ImageSpec]] = {}
    for spec in specs:
        groups.setdefault(_look(spec), []).append(spec)
    for look, alike in groups.items():
        image = _decoded(source, look)
        yield from ((spec, make_square(image, spec)) for spec in alike)


def _look(spec: ImageSpec) -> tuple[float, int | None, float, int]:
    """What decoding depends on: white, the least side, black, channels."""
    return spec.max_value, DRAFT if 2 * spec.side <= DRAFT else None, spec.min_value, spec.channels


def _decoded(source: Source, look: tuple[float, int | None, float, int]) -> Image.Image | np.ndarray:
    white, at_least, black, channels = look
    return decode(source, white, at_least, black) if channels == 3 else bands(source, channels, white, black)


def make_square(image: Image.Image | np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Resize an RGB image, or bytes (H, W, C), to uint8 (side, side, C) by the policy of `spec`."""
    if isinstance(image, np.ndarray):
        channels = [Image.fromarray(np.ascontiguousarray(channel)) for channel in np.moveaxis(image, 2, 0)]
        return np.stack([make_square(channel, spec) for channel in channels], axis=2)
    size, resample = (spec.side, spec.side), INTERPOLATIONS[spec.interpolation]
    if spec.resize == "squash":
        square = image.resize(size, resample)
    elif spec.resize == "pad":
        square = _padded(image, spec.side, resample)
    else:
        square = ImageOps.fit(image, size, resample)
    return np.asarray(square)


def _padded(image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    """The whole image between black bars; of one that is too thin for the square a line of one pixel is left."""
    long, short = max(image.size), min(image.size)
    if round(short / long * side):
        return ImageOps.pad(image, (side, side), resample, color="black" if image.mode == "RGB" else 0)
    line = image.resize((side, 1) if image.width == long else (1, side), resample)
    square = Image.new(image.mode, (side, side))
    square.paste(line, ((side - line.width) // 2, (side - line.height) // 2))
    return square


class UnreadableImages(FoldcraftError):
    """Images that cannot be decoded; as many are named as a line has room for.

    Attributes:
        problems: what each is called, and the reason.
    """

    def __init__(self, problems: Sequence[tuple[str, str]], hint: str = "mend the files or drop their rows") -> None:
        self.problems = list(problems)
        what = f"{counted(len(problems), 'image')} cannot be read: "
        shown, more = _shown(problems, LONGEST_LINE - len(what) - len(hint))
        super().__init__(what + shown, hint=f"{hint}; src/audit.py lists them all" if more else hint)


def _shown(problems: Sequence[tuple[str, str]], room: int) -> tuple[str, int]:
    """The first of some images, those of one reason side by side, in so many characters; how many are left out."""
    by_reason: dict[str, list[str]] = {}
    said, spared = "", len(" and 123,456 more; src/audit.py lists them all")
    for left, (name, reason) in zip(range(len(problems), 0, -1), problems, strict=True):
        named = by_reason.setdefault(shorten(reason, LONGEST_REASON), [])
        named.append(name if len(name) <= LONGEST_NAME else f"…{name[-LONGEST_NAME:]}")
        longer = ", ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())
        if said and len(longer) > room - (spared if left > 1 else 0):
            return f"{said} and {left:,} more", left
        said = longer
    return said, 0


@dataclass(frozen=True)
class ImageStore:
    """Decoded images: `store[row]` is uint8 (side, side, C).

    Attributes:
        pixels: all of them (N, side, side, C), unchecked; a read-only map of a file.
        rows: the same with a checksum a row; left out: rows are taken as they are.
        unreadable: rows whose image could not be read, and why; they are black.
    """

    pixels: np.ndarray
    path: Path
    rows: RowFile | None = None
    unreadable: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> "ImageStore":
        """The store that a file holds.

        Raises:
            DamagedRows, OSError: it holds none.
        """
        rows = RowFile(path)
        return cls(rows.array, path, rows)

    def nearest(self, cache: Path | None, say: Callable[[str], object]) -> "ImageStore":
        """The same images, from the machine's own disk where they fit there."""
        path = local_copy.nearest(self.path, cache, say)
        return self if path == self.path else replace(ImageStore.of(path), unreadable=self.unreadable)

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
            hint = "delete it and run the same command again, which makes it anew"
            raise FoldcraftError(f"damaged image cache: {said_by(error)}", self.path, hint) from None

    def __getstate__(self) -> tuple[Path, bool]:
        return (self.path, self.rows is not None)  # a worker process maps the file itself; no pixel is copied to it

    def __setstate__(self, state: tuple[Path, bool]) -> None:
        path, checked = state
        mine = ImageStore.of(path) if checked else ImageStore(np.lib.format.open_memmap(path, mode="r"), path)
        for name in ("pixels", "path", "rows", "unreadable"):
            object.__setattr__(self, name, getattr(mine, name))


def open_stores(
    paths: Sequence[Source],
    specs: Sequence[ImageSpec],
    folder: Path,
    name: str,
    progress: Progress = lambda done: None,
    say: Callable[[str], object] = lambda text: None,
    spare: bool = False,
    cache: Path | None = None,
) -> list[ImageStore]:
    """Decoded images of `paths`, one store a spec; what is not in `folder` yet is built, with one decode an image.

    The file is named after the content of the images, so a changed image leads to a new file, and every experiment
    with the same spec shares one. Processes that come at the same time wait for the first. A file that is cut, or has
    no checksums, is made again; a row that has changed is found when it is looked at.

    Args:
        name: first part of the files' names, for people ("train", "test").
        progress: called with 1 after each decoded image.
        say: told of a file that is made again.
        spare: rows whose image cannot be read are black, and noted in the stores.
        cache: folder on a disk of this machine for copies, as `local_copy.nearest` has it.

    Raises:
        FoldcraftError: images that cannot be read, unless they are spared; a full disk.
    """
    wanted = _Wanted(paths, tuple(dict.fromkeys(specs)), folder, name, _content(paths, folder, spare), spare)
    stores = wanted.stores(lambda text: None)
    if None in stores.values():
        with locked(folder / f"{name}.lock"):
            stores = wanted.stores(say)
            if missing := [spec for spec, store in stores.items() if store is None]:
                wanted.build(missing, progress)
                stores = wanted.stores(say)
    near = {spec: store and store.nearest(cache, say) for spec, store in stores.items()}
    return [store for store in (near[spec] for spec in specs) if store is not None]


@dataclass(frozen=True)
class _Wanted:
    """Images of a competition's part, and the stores that there are to be of them.

    Attributes:
        content: digest of each file.
        spare: are images that cannot be read allowed?
    """

    paths: Sequence[Source]
    specs: tuple[ImageSpec, ...]
    folder: Path
    name: str
    content: list[str]
    spare: bool

    def stores(self, say: Callable[[str], object]) -> dict[ImageSpec, ImageStore | None]:
        """The stores that are there."""
        unreadable = self._unreadable()
        found = {spec: _open(self._target(spec, unreadable), len(self.paths), spec, say) for spec in self.specs}
        return {spec: store and replace(store, unreadable=unreadable) for spec, store in found.items()}

    def build(self, specs: Sequence[ImageSpec], progress: Progress) -> None:
        """Make those that are not, with one decode an image; note the images that could not be read."""
        before = self._unreadable()
        targets = {spec: self._target(spec, before) for spec in specs}
        problems = _build(self.paths, targets, progress, self.spare, lambda spec, found: self._target(spec, found))
        if problems != before:
            kept = {self.content[row]: reason for row, reason in problems.items() if self.content[row] != GONE}
            known = _known_unreadable(self.folder) | kept
            checksums.write_json(self.folder / UNREADABLE, {"format": FORMAT, "images": known})

    def _unreadable(self) -> dict[int, str]:
        if not self.spare:
            return {}
        known = _known_unreadable(self.folder) | {GONE: "it is not there"}
        return {row: known[digest] for row, digest in enumerate(self.content) if digest in known}

    def _target(self, spec: ImageSpec, unreadable: Iterable[int]) -> Path:
        """Named after what is in it: where an image could not be read, nothing is."""
        rows = set(unreadable)
        content = [UNREADABLE if row in rows else digest for row, digest in enumerate(self.content)]
        return self.folder / f"{self.name}-{spec.side}-{spec.resize}-{_key(content, spec)}.npy"


def _known_unreadable(folder: Path) -> dict[str, str]:
    """Why images could not be read, by their digests."""
    try:
        known = checksums.read_json(folder / UNREADABLE)
        return dict(known["images"]) if known["format"] == FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _open(
    path: Path, count: int, spec: ImageSpec, say: Callable[[str], object] = lambda text: None
) -> ImageStore | None:
    """The store of a file; None where there is none, or none that can be used."""
    shape = (count, spec.side, spec.side, spec.channels)

    def is_right(store: ImageStore) -> bool:
        return store.pixels.shape == shape and store.pixels.dtype == np.uint8

    def tell(reason: str) -> None:
        say(f"{path}: damaged image cache ({reason}); it is made again")

    return read_usable(path, ImageStore.of, is_right, "holds other images", tell)


def _key(content: Sequence[str], spec: ImageSpec) -> str:
    look = asdict(spec)
    if not spec.min_value:  # said as before there was one, so that caches stay valid
        del look["min_value"]
    if spec.channels == 3:
        del look["channels"]
    return fingerprint.of_values([FORMAT, list(content), look])


def content_of(paths: Sequence[Source], folder: Path, spare: bool = False) -> str:
    """Digest of what the files hold, in their order, whatever they are called; `folder` is that of the caches.

    Of a file that is gone it is what is remembered; "" where nothing is and `spare` does not allow for it.
    """
    content = _content(paths, folder, spare)
    return fingerprint.of_values(content) if None not in content else ""


def _content(paths: Sequence[Source], folder: Path, spare: bool = False) -> list[str | None]:
    """Digest of what each image is made of; that of a file is remembered with its size and times, so that it is read
    again only when it has changed.

    Args:
        spare: a file that is not there has a word in place of its digest; else what is remembered of it, or None.
    """
    index_file = folder / "content.json"
    index = _remembered(index_file)
    known: dict[Path, str | None] = {}
    changed = False
    for path in dict.fromkeys(file for source in paths for file in files_of(source)):
        if not path.is_file():
            entry = index.get(os.path.abspath(path))
            known[path] = GONE if spare else _digest(entry) if entry else None
            continue
        stat = path.stat()
        # ctime is nobody's to set: an image replaced by one of the same size and time is noticed by it.
        key, stamp = os.path.abspath(path), [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        entry, odd = index.get(key, []), path.suffix.lower() in MAY_HAVE_BANDS
        if entry[:3] != stamp or odd != (len(entry) == 5):
            index[key] = [*stamp, fingerprint.of_file(path)]
            index[key] += [_leaves_bands_out(path)] if odd else []
            changed = True
        known[path] = _digest(index[key])
    if changed:
        checksums.write_json(index_file, index)
    return [known[source] if isinstance(source, Path) else _digest_of(source, known) for source in paths]


def _digest_of(source: MadeSource, known: Mapping[Path, str | None]) -> str | None:
    """That of what is made of files with known digests; what stands for one that is gone stands for all of it."""
    lacking = [known[path] for path in source.files if known[path] in (None, GONE)]
    return lacking[0] if lacking else source.digest(lambda path: known[path] or "")


def _digest(entry: Sequence[Any]) -> str:
    return entry[3] + ("-bands" if entry[4:] == [True] else "")


def _remembered(index_file: Path) -> dict[str, list[Any]]:
    try:
        index = checksums.read_json(index_file)
    except (OSError, ValueError):
        return {}
    return {key: entry for key, entry in index.items() if isinstance(entry, list) and len(entry) in (4, 5)}


def _leaves_bands_out(path: Path) -> bool:
    """Are there bands that are no opacity? Caches that show them as such lie about, and may not be taken."""
    with suppress(Exception):  # what is wrong with a file is told when it is decoded
        return has_bands_left_out(path)
    return False


def _build(
    paths: Sequence[Source],
    targets: dict[ImageSpec, Path],
    progress: Progress,
    spare: bool,
    name: Callable[[ImageSpec, Iterable[int]], Path],
) -> dict[int, str]:
    """Decode every image once and write it to all targets; they appear only when all are whole.

    Args:
        name: of the file of a spec where some rows could not be read.

    Returns:
        Those rows, and why.
    """
    temporary: dict[ImageSpec, Path] = {}
    writers: dict[ImageSpec, RowWriter] = {}
    try:
        for spec, target in targets.items():
            remove_leftovers(target.parent, target.name)
            temporary[spec] = temporary_beside(target)
            writers[spec] = RowWriter(temporary[spec], np.uint8, (len(paths), spec.side, spec.side, spec.channels))
        problems = _decode_all(paths, writers, progress, spare)
        for spec in targets:
            writers[spec].close()
            os.replace(temporary[spec], name(spec, problems))
        return problems
    except OSError as error:
        raise cannot_write(error.filename2 or next(iter(targets.values())).parent, error) from error
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def _decode_all(
    paths: Sequence[Source], writers: dict[ImageSpec, RowWriter], progress: Progress, spare: bool
) -> dict[int, str]:
    """Write every image to all writers; rows whose image cannot be read, and why."""

    def work(row: int) -> str | None:
        try:
            for spec, made in squares(paths[row], writers):
                writers[spec].put(row, made)
        except (OSError, ValueError, MemoryError) as error:
            return str(error) if is_there(paths[row]) else "it is not there"
        return None

    problems = {}
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # Pillow decodes without the interpreter's lock
        for row, problem in enumerate(pool.map(work, range(len(paths)))):
            if problem:
                problems[row] = problem
            progress(1)
    if problems and (not spare or len(problems) == len(paths)):
        raise UnreadableImages([(str(paths[row]), reason) for row, reason in problems.items()])
    for row in problems:
        for spec, writer in writers.items():
            writer.put(row, np.zeros((spec.side, spec.side, spec.channels), np.uint8))
    return problems
