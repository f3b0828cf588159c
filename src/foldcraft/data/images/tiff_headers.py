"""What the header of a TIFF says, and the one that Pillow or OpenCV read in its place."""

import io
import struct
from pathlib import Path
from typing import Any

from PIL import TiffImagePlugin

EXTRA_SAMPLES = 338
COLOURS = {2: 3, 5: 4, 6: 3, 8: 3}  # of a TIFF that is RGB, CMYK, YCbCr or Lab
TIFF_STARTS, BIG_TIFF_STARTS = (b"II*\0", b"MM\0*"), (b"II+\0", b"MM\0+")


def leaves_out(tags: Any) -> bool:
    colours = COLOURS.get(tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION), 1)
    return tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1) > colours + extra_is_alpha(tags)


def extra_is_alpha(tags: Any) -> bool:
    return bool({1, 2} & set(_extra_samples(tags)))


def is_multiplied(tags: Any) -> bool:
    """Are the colours multiplied by the opacity already?"""
    return 1 in _extra_samples(tags)


def _extra_samples(tags: Any) -> tuple[int, ...]:
    extra = tags.get(EXTRA_SAMPLES, ())
    return extra if isinstance(extra, tuple) else (extra,)


def tags_of(source: Path | bytes) -> Any:
    """What the header says of a TIFF that Pillow cannot decode.

    Raises:
        ValueError: it is no TIFF, or ends within its header.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as stream:
        if (start := stream.read(8))[:4] not in TIFF_STARTS:
            raise ValueError("not an image of a known kind")
        tags: Any = TiffImagePlugin.ImageFileDirectory_v2(start)
        stream.seek(tags.next)
        (count,) = struct.unpack(f"{'<' if start.startswith(b'II') else '>'}H", stream.read(2).ljust(2, b"\xff"))
        if len(stream.read(12 * count)) < 12 * count:
            raise ValueError("a TIFF that ends within its header")
        stream.seek(tags.next)
        tags.load(stream)
        return tags


def is_for_pages(source: Path | bytes) -> bool:
    """Is it a TIFF that OpenCV reads no better: of more than four bands, or of the kind for more than 4 GB?"""
    if (start := start_of(source, 4)) in BIG_TIFF_STARTS:
        return True
    return start in TIFF_STARTS and tags_of(source).get(TiffImagePlugin.SAMPLESPERPIXEL, 1) > 4


def as_colours(source: Path | bytes) -> bytes | None:
    """A TIFF of three or four bands that calls itself grey, as satellite images do, with its first three as RGB.

    None for anything else. OpenCV would read the first band alone.
    """
    if start_of(source, 4) in BIG_TIFF_STARTS:
        return None
    tags = tags_of(source)
    bands, kind = (
        tags.get(tag, 1) for tag in (TiffImagePlugin.SAMPLESPERPIXEL, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
    )
    if bands not in (3, 4) or kind != 1:
        return None
    data = bytearray(source if isinstance(source, bytes) else source.read_bytes())
    order = "<" if data[:2] == b"II" else ">"
    (first,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, first)
    for place in range(first + 2, first + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from(f"{order}H", data, place)
        if tag == TiffImagePlugin.PHOTOMETRIC_INTERPRETATION:
            struct.pack_into(f"{order}HHIHH", data, place, tag, 3, 1, 2, 0)
        elif tag == EXTRA_SAMPLES and not (bands == 4 and extra_is_alpha(tags)):
            struct.pack_into(f"{order}HHIHH", data, place, tag, 3, 1, 0, 0)
    return bytes(data)


def start_of(source: Path | bytes, length: int) -> bytes:
    if isinstance(source, bytes):
        return source[:length]
    with open(source, "rb") as stream:
        return stream.read(length)
