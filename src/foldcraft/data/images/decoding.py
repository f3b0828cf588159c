"""One image file of any kind as upright 8-bit RGB; values of more than 8 bits by one scale for a whole data set."""

import io
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from foldcraft.common.errors import FoldcraftError, shorten
from foldcraft.data.images import array_files, tiff_headers, tiff_pages
from foldcraft.data.images.image_kinds import KINDS
from foldcraft.data.images.optional import extra

MOST_PIXELS = 200_000_000  # an image with more is reduced while it is read
MOST_MEMORY = 2 << 30  # bytes that the decoded pixels of one image may take on the way; more is refused by its header
MANY_PIXELS = 20_000_000  # images with more are decoded one at a time, for the sake of memory
PIECE = 1 << 20  # values that are scaled at once
BRIGHTEST = 65535  # value of a deep image that becomes white where nothing is known of its data set

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112
NEEDED_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # those of a PNG that its pixels depend on
END_OF_JPEG = b"\xff\xd9"

Image.MAX_IMAGE_PIXELS = None  # what an image needs is looked at here
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\b")
_one_large = threading.Lock()
T = TypeVar("T")


class UnreadableImage(ValueError):
    """An image that cannot be decoded; says why."""


@dataclass(frozen=True)
class Deep:
    """An image of more than 8 bits a value.

    Attributes:
        values: (H, W), (H, W, 3) or more bands, as they are stored.
        alpha: opacity (H, W), 0 to 1, where the file says that it has one.
        orientation: how it is still to be turned, as EXIF has it.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    orientation: int = 1


def decode(
    source: Path | bytes, max_value: float = BRIGHTEST, at_least: int | None = None, min_value: float = 0.0
) -> Image.Image:
    """The first frame of an image file, or of the bytes of one, as upright 8-bit RGB.

    Grey becomes three equal channels, transparent pixels white, values of more than 8 bits are scaled so that
    `min_value` becomes black and `max_value` white. A JPEG may be decoded at a smaller scale as long as both sides
    stay `at_least` so long; one of more than `MOST_PIXELS` is.

    Raises:
        UnreadableImage: the file is no image, is damaged, or needs more than `MOST_MEMORY`.
    """

    def read(image: Image.Image | None, source: Path | bytes) -> Image.Image:
        deep = _deep(image, source)
        if deep is not None:
            return _flattened(deep, min_value, max_value)
        if image is None:
            raise ValueError("not an image of a known kind")
        return _plain(image, at_least)

    return _read(source, read)


def picture(values: np.ndarray, max_value: float = BRIGHTEST, min_value: float = 0.0) -> Image.Image:
    """Values (H, W) or (H, W, C) as 8-bit RGB: of other than three bands the first three, of two the first."""
    return _flattened(Deep(values), min_value, max_value)


def scaled(values: np.ndarray, max_value: float, min_value: float) -> np.ndarray:
    """Values as bytes, whatever their shape; bytes stay as they are."""
    return values if values.dtype == np.uint8 else _bytes(values, max_value, min_value)


def bands(source: Path | bytes, wanted: int) -> np.ndarray:
    """All bands of an image file, or of the bytes of one, upright, as they are stored (H, W, C).

    Of an image without more bands than grey, colours and opacity, those that are `wanted`: 1 (grey), 2 (grey and
    opacity), 3 or 4 (colours and opacity).

    Raises:
        UnreadableImage: as `decode`.
    """

    def read(image: Image.Image | None, source: Path | bytes) -> np.ndarray:
        is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile) or image is None
        if is_tiff and (found := _bands_of_tiff(source, wanted)) is not None:
            return found
        deep = _deep(image, source)
        if deep is not None:
            return _turned(_with_alpha(deep, wanted), deep.orientation)
        if image is None:
            raise ValueError("not an image of a known kind")
        mode = {1: "L", 2: "LA", 4: "RGBA"}.get(wanted, "RGB")
        if mode == "RGB":
            return np.asarray(_plain(image, None))
        upright = _upright(image, True)
        if "A" in mode and not upright.has_transparency_data:
            return np.asarray(upright.convert("RGB"))  # one band too few, which is told
        return np.asarray(upright.convert("RGBA").convert(mode) if mode == "LA" else upright.convert(mode))

    found = _read(source, read)
    return found[..., None] if found.ndim == 2 else found


def _bands_of_tiff(source: Path | bytes | Deep, wanted: int) -> np.ndarray | None:
    """Bands of a TIFF that has more than grey, colours and opacity, or pages that are; None for any other."""
    if isinstance(source, Deep):
        return None
    if tiff_headers.leaves_out(tiff_headers.tags_of(source)):
        return tiff_pages.read(source, MOST_PIXELS, MOST_MEMORY)
    found = tiff_pages.stacked(source, MOST_MEMORY) if wanted > 1 else None
    return found if found is not None and found.shape[2] == wanted else None


def _with_alpha(deep: Deep, wanted: int) -> np.ndarray:
    values = deep.values
    if values.ndim == 3 and values.shape[2] == 3 and wanted == 1:
        return values @ np.array([0.299, 0.587, 0.114])
    if deep.alpha is None or wanted not in (2, 4):
        return np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 and wanted == 3 else values
    whole = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1
    opacity = (deep.alpha * whole).astype(values.dtype)
    return np.dstack([values, opacity])


def _turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """As `TURNS` has it, of values (H, W, ...)."""
    swapped = values.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else values
    up_down, left_right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return swapped[:: -1 if up_down else 1, :: -1 if left_right else 1]


def channels_of(path: Path) -> int:
    """How many channels a file's image has for a net; asked of the header.

    Raises:
        Exception: of any kind, where it is no image.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy" and array_files.kind_of(path) == "npy":
        return array_files.channels_of_npy(path)
    if suffix not in (".tif", ".tiff"):
        return 3
    if tiff_headers.start_of(path, 4) in tiff_headers.BIG_TIFF_STARTS:
        return tiff_pages.channels_of(path)
    tags = tiff_headers.tags_of(path)
    return tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1) if tiff_headers.leaves_out(tags) else 3


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an upright image, from its header; those of what `decode` makes of it may be smaller.

    Raises:
        UnreadableImage: it is none.
    """

    def read(image: Image.Image | None, source: Path | bytes) -> tuple[int, int]:
        if image is None:
            return decode(path).size
        turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        return image.size[::-1] if turned else image.size

    return _read(path, read)


def deep_values(source: Path | bytes) -> np.ndarray | None:
    """The values (H, W) or (H, W, C) of an image of more than 8 bits; None for any other.

    Raises:
        UnreadableImage: as `decode`.
    """

    def read(image: Image.Image | None, source: Path | bytes) -> np.ndarray | None:
        deep = _deep(image, source)
        return None if deep is None or deep.values.dtype == np.uint8 else deep.values

    return _read(source, read)


def has_bands_left_out(path: Path) -> bool:
    """Are there bands of which the file does not say that they are colours or opacity? Asked of its header.

    Raises:
        Exception: of any kind, where it is no image.
    """
    if array_files.kind_of(path):
        return False
    try:
        with Image.open(path, formats=KINDS) as image:
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                return tiff_headers.leaves_out(image.tag_v2)
            return "A" in image.getbands() and not _declares_alpha(image)
    except UnidentifiedImageError:
        return tiff_headers.start_of(path, 4) not in tiff_headers.BIG_TIFF_STARTS and tiff_headers.leaves_out(
            tiff_headers.tags_of(path)
        )


def is_deep(path: Path) -> bool:
    """Has it more than 8 bits a value? Asked of its header.

    Raises:
        Exception: of any kind, where it is no image.
    """
    if array_files.kind_of(path):
        return deep_values(path) is not None
    try:
        with Image.open(path, formats=KINDS) as image:
            return _is_deep_grey(image) or _is_deep_colour(image, path)
    except UnidentifiedImageError:
        return bool(tiff_headers.tags_of(path))


def _read(source: Path | bytes, read: Callable[[Image.Image | None, Any], T]) -> T:
    """What `read` makes of a file, or else of the same picture without what is odd about the file."""
    try:
        return _open(source, read)
    except FoldcraftError:  # a package is missing, whatever the file
        raise
    except Exception as error:  # decoders of damaged files raise errors of every kind
        try:
            if (whole := _mended(source)) is not None:
                return _open(whole, read)
        except Exception:
            pass
        reason = shorten(" ".join(str(error).split()), 120) or type(error).__name__
        raise UnreadableImage(reason) from error


def _open(source: Path | bytes, read: Callable[[Image.Image | None, Any], T]) -> T:
    if kind := array_files.kind_of(source):
        return read(None, Deep(array_files.read(source, kind, MOST_PIXELS, MOST_MEMORY)))
    try:
        opened = Image.open(_stream(source), formats=KINDS)
    except UnidentifiedImageError:  # of TIFFs OpenCV reads some more: floats in colour, 64 bits, two bands
        if (coloured := tiff_headers.as_colours(source)) is not None:
            return _open(coloured, read)
        if tiff_headers.is_for_pages(source):
            return read(None, Deep(tiff_pages.read(source, MOST_PIXELS, MOST_MEMORY)))
        with _alone_if_large(_pixels_of_tiff(source)):
            return read(None, source)
    with opened as image:
        if not all(image.size):
            raise ValueError("an image without pixels")
        if isinstance(image, TiffImagePlugin.TiffImageFile) and _needed(image) > MOST_MEMORY:
            with _one_large:
                return read(None, Deep(tiff_pages.read(source, MOST_PIXELS, MOST_MEMORY)))
        _check_memory(image)
        with _alone_if_large(image.width * image.height):
            return read(image, source)


def _stream(source: Path | bytes) -> Any:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _alone_if_large(pixels: int) -> AbstractContextManager[object]:
    return _one_large if pixels > MANY_PIXELS else nullcontext()


def _needed(image: Image.Image) -> int:
    """Bytes that decoding takes on the way."""
    pixels, bands = image.width * image.height, len(image.getbands())
    if image.format == "JPEG":  # decoded at a smaller scale; a progressive one keeps all its coefficients before
        return pixels * 2 * bands if image.info.get("progressive") else pixels // 64
    if image.format == "JPEG2000":
        return pixels * 4 // 4 ** _halvings(pixels)
    wide = any(";16" in str(tile) for tile in image.tile)
    return pixels * (2 * bands if wide else 1 if bands == 1 and image.mode not in ("I", "F") else 4)


def _check_memory(image: Image.Image) -> None:
    """See that decoding needs no more memory than it may have."""
    if (needed := _needed(image)) > MOST_MEMORY:
        raise ValueError(
            f"{image.width} x {image.height} pixels need {needed / 2**30:.1f} GB, and no more than "
            f"{MOST_MEMORY / 2**30:.0f} are taken: save it smaller, or as a baseline JPEG"
        )


def _halvings(pixels: int) -> int:
    """How often both sides are halved so that no more than `MOST_PIXELS` are left."""
    return max(0, math.ceil(math.log(pixels / MOST_PIXELS, 4)))


def _plain(image: Image.Image, at_least: int | None) -> Image.Image:
    """An image of 8 bits a value."""
    pixels = image.width * image.height
    if image.format == "JPEG2000" and pixels > MOST_PIXELS:
        image.reduce = _halvings(pixels)
    elif image.format == "JPEG" and pixels > MOST_PIXELS:
        wanted = min(image.width // at_least, image.height // at_least) if at_least else 1
        times = max(2 ** min(3, _halvings(pixels)), wanted)
        image.draft("RGB", (image.width // times, image.height // times))
    elif at_least is not None:
        image.draft("RGB", (at_least, at_least))
    has_alpha = _declares_alpha(image)
    return _to_rgb(_upright(image, has_alpha), has_alpha)


def _upright(image: Image.Image, has_alpha: bool) -> Image.Image:
    image.load()
    image = _reduced(image, has_alpha)
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF data that are garbage say nothing of how it was held
        return image


def _reduced(image: Image.Image, has_alpha: bool = False) -> Image.Image:
    """At most `MOST_PIXELS` of it, as RGB where there were more; strip by strip, so that it is never held twice."""
    times = math.ceil(math.sqrt(image.width * image.height / MOST_PIXELS))
    if times == 1:
        return image
    made = Image.new("RGB", (-(-image.width // times), -(-image.height // times)))
    for top in range(0, image.height, 64 * times):
        strip = image.crop((0, top, image.width, min(image.height, top + 64 * times)))
        made.paste(_to_rgb(strip, has_alpha).reduce(times), (0, top // times))
    made.info = {key: value for key, value in image.info.items() if key == "exif"}
    return made


def _to_rgb(image: Image.Image, has_alpha: bool) -> Image.Image:
    if "A" in image.getbands() and not has_alpha:
        bands = image.split()
        return Image.merge("RGB", bands[:3] if len(bands) > 3 else bands[:1] * 3)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _declares_alpha(image: Image.Image) -> bool:
    """Does the file, just opened, say that its last band is opacity? It may be infrared, or depth, as well."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return tiff_headers.extra_is_alpha(image.tag_v2)
    if image.format == "JPEG2000" and image.filename:
        return b"cdef" in tiff_headers.start_of(Path(image.filename), 1 << 16)
    return True


# More than 8 bits


def _is_deep_grey(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _is_deep_colour(image: Image.Image, source: Path | bytes) -> bool:
    """Of such colours Pillow keeps the high byte only; and of the values of a PPM what its header's maximum leaves."""
    if image.format == "JPEG2000":
        return len(image.getbands()) > 1 and _bits_of_jpeg2000(source) > 8
    if image.format == "PPM":
        said = [tile.args for tile in image.tile if isinstance(tile.args, tuple) and len(tile.args) == 2]
        return any(maximum > 255 for _, maximum in said)
    return image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(tile.args) for tile in image.tile)


def _bits_of_jpeg2000(source: Path | bytes) -> int:
    """Bits of the first component, as the SIZ marker of the code stream has it; 8 where there is none to be seen."""
    start = tiff_headers.start_of(source, 1 << 16)
    place = start.find(b"\xff\x4f\xff\x51")
    return (start[place + 42] & 127) + 1 if 0 <= place < len(start) - 42 else 8


def _deep(image: Image.Image | None, source: Path | bytes | Deep) -> Deep | None:
    """The values of an image of more than 8 bits; None for any other. No image: one that Pillow does not know."""
    if isinstance(source, Deep):
        return source
    if image is None:
        tags = tiff_headers.tags_of(source)
        deep = _by_opencv(source, tiff_headers.extra_is_alpha(tags), 1, tiff_headers.is_multiplied(tags))
        if deep and deep.values.dtype == np.uint8 and max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (8,))) > 8:
            raise ValueError("a TIFF with bands of more than 8 bits that are neither grey nor RGB; write it as one")
        return deep
    if _is_deep_colour(image, source):
        has_alpha = _declares_alpha(image)
        if image.format != "JPEG2000":
            image.load()  # tells of a truncated file
        turn = image.getexif().get(ORIENTATION, 1) if image.format == "PNG" else 1  # others OpenCV turns itself
        multiplied = isinstance(image, TiffImagePlugin.TiffImageFile) and tiff_headers.is_multiplied(image.tag_v2)
        return _by_opencv(source, has_alpha, turn, multiplied)
    if not _is_deep_grey(image):
        return None
    image.load()
    turn = image.getexif().get(ORIENTATION, 1)
    return Deep(np.asarray(image), None, turn)


def _by_opencv(source: Path | bytes, has_alpha: bool, orientation: int, multiplied: bool) -> Deep | None:
    data = np.frombuffer(source, np.uint8) if isinstance(source, bytes) else np.fromfile(source, np.uint8)
    cv2 = extra("cv2")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is wrong with a file is told once, by us
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if pixels is None:
        return None
    if pixels.ndim == 2:
        return Deep(pixels, None, orientation)
    alpha = None
    if pixels.shape[2] == 4 and has_alpha:
        whole = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1
        alpha = pixels[..., 3] / np.float32(whole)
    colours = pixels[..., 2::-1] if pixels.shape[2] >= 3 else pixels[..., 0]
    if alpha is not None and multiplied:
        colours = colours / np.maximum(alpha, 1 / 65535)[..., None]
    return Deep(colours, alpha, orientation)


def _pixels_of_tiff(source: Path | bytes) -> int:
    """How many pixels a TIFF's header promises. Of what Pillow cannot decode, OpenCV gets nothing else to see.

    Raises:
        ValueError: it is no TIFF, or has too many.
    """
    tags = tiff_headers.tags_of(source)
    pixels = int(tags[TiffImagePlugin.IMAGEWIDTH]) * int(tags[TiffImagePlugin.IMAGELENGTH])
    if not 0 < pixels <= MOST_PIXELS:
        raise ValueError(f"{pixels} pixels, and no more than {MOST_PIXELS} of such a TIFF are decoded")
    return pixels


def check_values(values: np.ndarray) -> None:
    """See that some of them are numbers.

    Raises:
        UnreadableImage: all are NaN or infinite.
    """
    if values.dtype.kind == "f" and not any(np.isfinite(row).any() for row in values):
        raise UnreadableImage("none of its values is a finite number")


def _flattened(deep: Deep, min_value: float, max_value: float) -> Image.Image:
    values = deep.values
    check_values(values)
    if values.ndim == 3 and values.shape[2] != 3:
        values = values[..., :3] if values.shape[2] > 3 else values[..., 0]
    black, white = (0, 255) if values.dtype == np.uint8 else (min_value, max_value)
    image = Image.fromarray(_bytes(values, white, black)).convert("RGB")
    if deep.alpha is not None:
        opacity = Image.fromarray(np.rint(255 * np.clip(deep.alpha, 0, 1)).astype(np.uint8))
        image = Image.composite(image, Image.new("RGB", image.size, "white"), opacity)
    if deep.orientation in TURNS:
        image = image.transpose(TURNS[deep.orientation])
    return _reduced(image)


def _bytes(values: np.ndarray, max_value: float, min_value: float = 0.0) -> np.ndarray:
    """Values (H, W, ...) as bytes, in pieces: whole, a large image would be held several times as float64."""
    scaled = np.empty(values.shape, np.uint8)
    rows = max(1, PIECE // max(1, values[0].size))
    for first in range(0, len(values), rows):
        piece = slice(first, first + rows)
        shifted = values[piece].astype(np.float64) - min_value
        finite = np.nan_to_num(shifted * (255.0 / (max_value - min_value)), nan=0.0)
        scaled[piece] = np.clip(np.rint(finite), 0, 255)
    return scaled


# Files that are whole, and refused all the same


def _mended(source: Path | bytes) -> bytes | None:
    """The same picture in a file that Pillow reads; None where nothing can be done."""
    data = source if isinstance(source, bytes) else source.read_bytes()
    if data.startswith(b"\xff\xd8"):
        return _ended(data)
    return _bare_png(data) if data.startswith(b"\x89PNG\r\n\x1a\n") else None


def _ended(data: bytes) -> bytes | None:
    """A JPEG that lacks nothing but its end marker. Where pixels are lacking too, more bytes change what it shows."""
    cut = data.removesuffix(b"\xff")
    ended, longer = cut + END_OF_JPEG, cut + 64 * b"\x55\xaa" + END_OF_JPEG
    with (
        Image.open(io.BytesIO(ended), formats=["JPEG"]) as one,
        Image.open(io.BytesIO(longer), formats=["JPEG"]) as two,
    ):
        if one.width * one.height > MOST_PIXELS:
            return None
        with _alone_if_large(one.width * one.height):
            return ended if np.array_equal(np.asarray(one), np.asarray(two)) else None


def _bare_png(data: bytes) -> bytes | None:
    """A PNG without the chunks that its pixels do not depend on: texts and profiles may be damaged, or very long."""
    kept, place = [data[:8]], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        name, chunk = data[place + 4 : place + 8], data[place : place + 12 + length]
        if name in NEEDED_CHUNKS or (name == b"eXIf" and chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))):
            kept.append(chunk)
        place += 12 + length
    bare = b"".join(kept)
    return bare if len(bare) < len(data) else None
