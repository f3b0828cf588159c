"""What the fuzz tests are made of: how many inputs, the limits that each must keep, and ways to damage a file.

`FOLDCRAFT_FUZZ` says how many inputs all of them draw together; the short form draws the same ones every time.
"""

import io
import os
import resource
import signal
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image

from foldcraft.common.errors import FoldcraftError

T = TypeVar("T")
SHORT = 300
TOTAL = int(os.environ.get("FOLDCRAFT_FUZZ", SHORT))
SECONDS = 10.0  # of computing that one input may take
WAITING = 60.0  # seconds that it may take altogether, on a busy machine
MEMORY = 3 << 30  # bytes that one input may take beyond what the process has


def inputs(share: float) -> settings:
    """The share that a test has of all inputs."""
    return settings(
        max_examples=max(4, round(TOTAL * share)),
        derandomize=TOTAL <= SHORT,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


class Hung(BaseException):
    """Not an Exception, so that no `except Exception` takes it for a damaged file."""


def _hung(*_: object) -> None:
    raise Hung(f"took longer than {SECONDS:.0f} s")


@contextmanager
def limits() -> Iterator[None]:
    """Time and memory are bounded inside."""
    lines = Path("/proc/self/status").read_text().splitlines()
    in_use = int(next(line for line in lines if line.startswith("VmData")).split()[1]) << 10
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    clocks = {signal.SIGPROF: (signal.ITIMER_PROF, SECONDS), signal.SIGALRM: (signal.ITIMER_REAL, WAITING)}
    before = {number: signal.signal(number, _hung) for number in clocks}
    resource.setrlimit(resource.RLIMIT_DATA, (in_use + MEMORY, hard))
    for clock, seconds in clocks.values():
        signal.setitimer(clock, seconds)
    try:
        yield
    finally:
        for number, (clock, _) in clocks.items():
            signal.setitimer(clock, 0)
            signal.signal(number, before[number])
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def attempt(act: Callable[[], T]) -> T | None:
    """What `act` gives, or None where it tells of a mistake in one line; anything else fails the test."""
    try:
        with limits(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return act()
    except FoldcraftError as error:
        one_line(str(error))
        return None


def one_line(text: str) -> None:
    """Short enough to read, and nothing in it that a terminal obeys."""
    assert text.strip()
    assert len(text.splitlines()) == 1
    assert text.isprintable()
    assert len(text) < 5000


# Damage

_EDGES = [
    b"\0",
    b"\xff",
    b"\x7f",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
]


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with up to four things done to it that happen to files, or that somebody does on purpose."""
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(0, len(data))))
        end = min(len(data), place + draw(st.integers(1, 64)))
        how = draw(st.sampled_from(["cut", "flip", "edge", "insert", "repeat", "drop"]))
        if how == "cut":
            data = data[:place]
        elif how == "flip" and place < len(data):
            data = data[:place] + bytes([data[place] ^ (1 << draw(st.integers(0, 7)))]) + data[place + 1 :]
        elif how == "edge":
            edge = draw(st.sampled_from(_EDGES))
            data = data[:place] + edge + data[place + len(edge) :]
        elif how == "insert":
            data = data[:place] + draw(st.binary(min_size=1, max_size=64)) + data[place:]
        elif how == "repeat":
            data = data[:end] + data[place:end] * draw(st.integers(1, 4)) + data[end:]
        else:
            data = data[:place] + data[end:]
    return data


def json_values() -> st.SearchStrategy[Any]:
    """Anything that JSON can hold, and some things that only Python's reader takes."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from(["", "digits", 10**18, -1, 10**400, "9" * 5000, "\x1b[31m", "../..", float("inf")]),
    )
    return st.recursive(
        leaves, lambda one: st.lists(one, max_size=4) | st.dictionaries(st.text(max_size=8), one, max_size=4)
    )


# Drawn in place of what is too long to be printed when a test fails.
DEEP, MILLION = "<deep>", "<million>"


def spelled_out(text: str) -> str:
    """The text with those words replaced by what they stand for."""
    return text.replace(DEEP, "[" * 100_000).replace(MILLION, "x" * 1_000_000)


# Images


def _pixels(mode: str) -> Image.Image:
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (13, 17, 3), np.uint8))
    if mode in ("I;16", "I;16B"):
        return Image.fromarray(rng.integers(0, 65536, (13, 17)).astype(np.uint16))
    if mode in ("I", "F"):
        return colour.convert("L").convert(mode)
    return colour.convert(mode)


def _saved(mode: str, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    _pixels(mode).save(stream, kind, **options)
    return stream.getvalue()


def _frames(kind: str, **options: Any) -> bytes:
    return _saved("RGB", kind, save_all=True, append_images=[_pixels("RGB").rotate(90), _pixels("L")], **options)


def _by_opencv(suffix: str, dtype: type, channels: int) -> bytes:
    top = 1 if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).max
    values = np.random.default_rng(0).random((13, 17, channels)) * top
    return cv2.imencode(suffix, values.astype(dtype))[1].tobytes()


def _png(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG whose header promises more (or less) than its data hold."""
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _png_bomb(side: int) -> bytes:
    """A whole PNG of one colour: small on disk, large in memory."""
    stream = io.BytesIO()
    Image.new("1", (side, side)).save(stream, "PNG", optimize=False)
    return stream.getvalue()


def _text_bomb() -> bytes:
    """A PNG with a comment that unpacks to 64 MB."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("comment", "a" * (64 << 20), zip=True)
    return _saved("RGB", "PNG", pnginfo=info)


def _gif(width: int, height: int) -> bytes:
    data = bytearray(_saved("P", "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def _bmp(width: int, height: int) -> bytes:
    data = bytearray(_saved("RGB", "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def _tiff(width: int, height: int, bits: int = 16) -> bytes:
    """A TIFF of 16-bit colour that Pillow does not know, with a header that promises that size."""
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, bits),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 200),
    ]
    tags += [(277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, 1000)]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + body + b"\0\0\0\0").ljust(2000, b"\x55")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n"


@cache
def images() -> dict[str, bytes]:
    """Image files of every kind, by name."""
    made: dict[str, Callable[[], bytes]] = {
        **{
            f"png {mode}": (lambda mode=mode: _saved(mode, "PNG"))
            for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
        },
        "png palette with transparency": lambda: _saved("P", "PNG", transparency=bytes(range(256))),
        "png one transparent colour": lambda: _saved("RGB", "PNG", transparency=(1, 2, 3)),
        "png animated": lambda: _frames("PNG"),
        "png 16 bits": lambda: _by_opencv(".png", np.uint16, 3),
        "png 16 bits alpha": lambda: _by_opencv(".png", np.uint16, 4),
        **{f"jpeg {mode}": (lambda mode=mode: _saved(mode, "JPEG")) for mode in ("L", "RGB", "CMYK", "YCbCr")},
        "jpeg progressive": lambda: _saved("RGB", "JPEG", progressive=True),
        "jpeg turned": lambda: _saved(
            "RGB", "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
        ),
        "jpeg garbage exif": lambda: _saved("RGB", "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(range(256))),
        "jpeg endless exif": lambda: _saved("RGB", "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 900),
        "mpo": lambda: _frames("MPO"),
        "gif": lambda: _saved("P", "GIF"),
        "gif animated": lambda: _frames("GIF"),
        **{
            f"tiff {mode}": (lambda mode=mode: _saved(mode, "TIFF"))
            for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F")
        },
        **{
            f"tiff {how}": (lambda how=how: _saved("RGB", "TIFF", compression=how))
            for how in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
        },
        "tiff fax": lambda: _saved("1", "TIFF", compression="group4"),
        "tiff frames": lambda: _frames("TIFF"),
        "tiff 16 bits": lambda: _by_opencv(".tiff", np.uint16, 3),
        "tiff float": lambda: _by_opencv(".tiff", np.float32, 3),
        "tiff signed": lambda: _by_opencv(".tiff", np.int16, 1),
        "tiff four bands": lambda: _by_opencv(".tiff", np.uint8, 4),
        "tiff double": lambda: _by_opencv(".tiff", np.float64, 1),
        **{f"bmp {mode}": (lambda mode=mode: _saved(mode, "BMP")) for mode in ("1", "L", "P", "RGB", "RGBA")},
        "webp": lambda: _saved("RGB", "WEBP"),
        "webp lossless alpha": lambda: _saved("RGBA", "WEBP", lossless=True),
        "webp animated": lambda: _frames("WEBP"),
        **{
            kind: (lambda kind=kind: _saved("RGB", kind))
            for kind in ("PPM", "TGA", "ICO", "JPEG2000", "PCX", "SGI", "DDS", "AVIF", "PDF", "EPS", "IM")
        },
        "pgm 16 bits": lambda: _saved("I;16", "PPM"),
        **{f"opencv {suffix}": (lambda suffix=suffix: _by_opencv(suffix, np.uint8, 3)) for suffix in (".ras", ".ppm")},
        "opencv hdr": lambda: _by_opencv(".hdr", np.float32, 3),
        "opencv pfm": lambda: _by_opencv(".pfm", np.float32, 3),
        "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "html": lambda: b"<!DOCTYPE html><html><body>404</body></html>",
        "postscript": lambda: POSTSCRIPT,
        "empty": lambda: b"",
        "zip": lambda: b"PK\x03\x04" + bytes(100),
        "lfs pointer": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
        "png 0 wide": lambda: _png(0, 5),
        "png huge": lambda: _png(60_000, 60_000),
        "png huge 16 bits": lambda: _png(60_000, 60_000, 16),
        "png largest": lambda: _png(2**31 - 1, 2**31 - 1),
        "png long": lambda: _png(2**31 - 1, 1, 1, 0),
        "png bomb": lambda: _png_bomb(18_000),
        "png text bomb": _text_bomb,
        "gif 0 wide": lambda: _gif(0, 0),
        "gif huge": lambda: _gif(65535, 65535),
        "bmp negative": lambda: _bmp(-5, -5),
        "bmp huge": lambda: _bmp(2**31 - 1, 2**31 - 1),
        "bmp wide": lambda: _bmp(200_000, 1),
        "tiff huge 16 bits": lambda: _tiff(30_000, 30_000),
        "tiff 0 wide": lambda: _tiff(0, 10),
        "thin": lambda: _thin((1, 60_000)),
        "flat": lambda: _thin((60_000, 1)),
    }
    return {name: make() for name, make in made.items()}


def _thin(size: tuple[int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("L", size).save(stream, "PNG")
    return stream.getvalue()


SUFFIXES = [".jpg", ".png", ".tif", ".bmp", ".webp", ".gif"]


def write(path: Path, data: bytes | str) -> Path:
    """Write a file with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(spelled_out(data).encode() if isinstance(data, str) else data)
    return path
