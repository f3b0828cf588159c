"""All bands of a TIFF, a level of one that holds its image several times, and huge ones piece by piece."""

import io
import math
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from foldcraft.common.errors import counted
from foldcraft.data.images.optional import extra

UNDECODED = "run `pip install imagecodecs`, for its pieces are packed as {}"
UNPACKED = 1
ALONE = (UNPACKED, 8, 32946)  # not packed, and two names of deflate
MOST_PAGES = 64  # of a band each


def read(source: Path | bytes, most_pixels: int, most_bytes: int, level: int | None = None) -> np.ndarray:
    """Pixels (H, W) or (H, W, C), all bands of them.

    Of an image that needs more than it may, without a `level`, the largest level that does not is taken, else means
    of squares of pixels.

    Raises:
        FoldcraftError: tifffile is not installed.
        Exception: of any kind, where it is no TIFF, or has no such level.
    """
    with extra("tifffile").TiffFile(io.BytesIO(source) if isinstance(source, bytes) else source) as tiff:
        levels = [one.keyframe for one in tiff.series[0].levels]
        if level is not None and level >= len(levels):
            raise ValueError(f"it has {counted(len(levels), 'level')}, from 0 on, and no level {level}")
        fitting = [page for page in levels if _times(page, most_pixels, most_bytes) == 1]
        page = levels[level] if level is not None else (fitting or levels)[0]
        return _pixels(page, _times(page, most_pixels, most_bytes))


def channels_of(path: Path) -> int:
    """How many channels it has for a net: three where all bands are grey, colours or opacity."""
    with extra("tifffile").TiffFile(path) as tiff:
        page = tiff.pages[0]
        colours = 3 if page.photometric in (2, 6) else 1
        opacity = any(kind in (1, 2) for kind in page.extrasamples)
        return page.samplesperpixel if page.samplesperpixel > colours + opacity else 3


def stacked(source: Path | bytes, most_bytes: int) -> np.ndarray | None:
    """Pages of one grey band each, all alike, as bands (H, W, C); None where the TIFF is none of these."""
    with extra("tifffile").TiffFile(io.BytesIO(source) if isinstance(source, bytes) else source) as tiff:
        pages = tiff.pages
        if not 1 < len(pages) <= MOST_PAGES or any(page.shape != pages[0].shape or page.ndim != 2 for page in pages):
            return None
        if pages[0].nbytes * len(pages) > most_bytes:
            return None
        return np.stack([_pixels(page, 1) for page in pages], axis=2)


def _times(page: Any, most_pixels: int, most_bytes: int) -> int:
    """By how much both sides must be made smaller."""
    pixels, bands = page.imagelength * page.imagewidth, page.samplesperpixel
    if pixels <= most_pixels and pixels * bands * page.dtype.itemsize <= most_bytes:
        return 1
    as_sums = 8 * bands  # bytes of a pixel while means are taken
    return math.ceil(math.sqrt(max(pixels / most_pixels, pixels * as_sums / most_bytes)))


def _pixels(page: Any, times: int) -> np.ndarray:
    if page.imagedepth != 1 or page.dtype is None:
        raise ValueError("a TIFF of a volume, or of values of no usual size")
    height, width, bands = page.imagelength, page.imagewidth, page.samplesperpixel
    held = min(sum(page.databytecounts), page.parent.filehandle.size)
    if page.compression == UNPACKED and held < page.nbytes:
        raise ValueError(f"{width} x {height} pixels are {page.nbytes:,} bytes, and the file holds {held:,}")
    shape = (-(-height // times), -(-width // times), bands)
    made = np.zeros(shape, page.dtype if times == 1 else np.float64 if page.dtype.itemsize > 4 else np.float32)
    for top, left, band, piece in _pieces(page):
        own = piece[: height - top, : width - left]
        of_bands = slice(None) if own.shape[2] == bands else slice(band, band + own.shape[2])
        if times == 1:
            made[top : top + own.shape[0], left : left + own.shape[1], of_bands] = own
        else:
            _add(made[..., of_bands], own, top, left, times)
    if times > 1:
        made /= np.outer(_counts(height, times), _counts(width, times))[..., None]
        made = (np.rint(made) if page.dtype.kind in "iu" else made).astype(page.dtype)
    if page.photometric == 0 and page.dtype.kind == "u":  # white is zero
        made = np.iinfo(page.dtype).max - made
    if page.photometric == 3:
        made = (page.colormap[:, made[..., 0]] >> 8).astype(np.uint8).transpose(1, 2, 0)
    return made[..., 0] if made.shape[2] == 1 else made


def _counts(length: int, times: int) -> np.ndarray:
    """How many pixels each mean is of, along a side."""
    return np.minimum(times, length - times * np.arange(-(-length // times)))


def _add(sums: np.ndarray, piece: np.ndarray, top: int, left: int, times: int) -> None:
    """Add a piece, whose corner lies there, to the sums of the squares that it has a part in."""
    place, added = [], piece.astype(sums.dtype)
    for axis, first in ((0, top), (1, left)):
        squares = (first + np.arange(piece.shape[axis])) // times
        added = np.add.reduceat(added, np.flatnonzero(np.diff(squares, prepend=-1)), axis=axis)
        place.append(slice(squares[0], squares[-1] + 1))
    sums[tuple(place)] += added


def _pieces(page: Any) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Top, left, first band and pixels (h, w, c) of each tile or strip."""
    if _is_decoded(page):
        for piece, (band, _, top, left, _), _ in page.segments(maxworkers=1):
            if piece is not None:
                yield top, left, band, piece[0]
        return
    tall, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    down, across = -(-page.imagelength // tall), -(-page.imagewidth // wide)
    handle = page.parent.filehandle
    for number, (offset, length) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        band, place = divmod(number, down * across)
        top, left = place // across * tall, place % across * wide
        if length:
            handle.seek(offset)
            rows = tall if page.is_tiled else min(tall, page.imagelength - top)
            yield top, left, band, _by_pillow(page, handle.read(length), wide, rows)


def _is_decoded(page: Any) -> bool:
    """Does tifffile unpack the pieces? Most ways of packing it leaves to a package that is seldom there."""
    return page.compression in ALONE or find_spec("imagecodecs") is not None


def _by_pillow(page: Any, data: bytes, width: int, height: int) -> np.ndarray:
    """A tile or strip, unpacked as a TIFF of its own."""
    separate = page.planarconfig == 2
    bands = 1 if separate else page.samplesperpixel
    tags: dict[int, tuple[str, tuple[int, ...]]] = {
        256: ("I", (width,)),
        257: ("I", (height,)),
        258: ("H", (page.bitspersample,) * bands),
        259: ("H", (int(page.compression),)),
        262: ("H", (1 if separate or page.photometric in (0, 3) else int(page.photometric),)),
        273: ("I", (0,)),
        277: ("H", (bands,)),
        278: ("I", (height,)),
        279: ("I", (len(data),)),
        284: ("H", (1,)),
        317: ("H", (int(page.predictor),)),
        339: ("H", (int(page.sampleformat),) * bands),
    }
    if extras := () if separate else tuple(map(int, page.extrasamples)):
        tags[338] = ("H", extras)
    if page.jpegtables:
        tags[347] = ("B", tuple(page.jpegtables))
    if "YCbCrSubSampling" in page.tags:
        tags[530] = ("H", tuple(page.tags["YCbCrSubSampling"].value))
    try:
        with Image.open(io.BytesIO(_tiff(page.parent.byteorder, tags, data)), formats=["TIFF"]) as image:
            pixels = np.asarray(image.convert("RGB") if image.mode == "YCbCr" else image)
    except Exception:
        raise ValueError(UNDECODED.format(page.compression.name)) from None
    if pixels.dtype == bool or pixels.dtype.itemsize != page.dtype.itemsize:
        raise ValueError(UNDECODED.format(page.compression.name))
    return pixels.reshape(height, width, -1)


def _tiff(order: str, tags: dict[int, tuple[str, tuple[int, ...]]], data: bytes) -> bytes:
    """A file of one piece."""
    codes = {"B": 7, "H": 3, "I": 4}
    after = 8 + 2 + 12 * len(tags) + 4
    behind, entries = b"", b""
    lengths = {tag: struct.calcsize(f"{order}{len(values)}{code}") for tag, (code, values) in tags.items()}
    start = after + sum(length + length % 2 for length in lengths.values() if length > 4)
    for tag, (code, values) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{code}", *((start,) if tag == 273 else values))
        if len(packed) > 4:
            place = after + len(behind)
            behind += packed + b"\0" * (len(packed) % 2)
            packed = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, codes[code], len(values)) + packed.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8) + struct.pack(f"{order}H", len(tags))
    return head + entries + b"\0\0\0\0" + behind + data
