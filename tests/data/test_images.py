"""Images: every kind of file decodes to upright RGB, squares by each policy, and the cache that processes share."""

import multiprocessing
import os
import pickle
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import flipped
from PIL import Image

from foldcraft.common.errors import FoldcraftError
from foldcraft.data.images import bit_depth, decoding, image_cache, image_reading, image_stats
from foldcraft.data.images.decoding import UnreadableImage
from foldcraft.data.images.image_cache import ImageSpec, ImageStore, decode, make_square, open_stores
from foldcraft.predictions import experiment

WIDTH, HEIGHT = 48, 32


def scene() -> np.ndarray:
    """A smooth colour picture without symmetry, uint8 (32, 48, 3)."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 5, y * 7, 255 - x * 2 - y * 3], axis=-1).astype(np.uint8)


def grey_of(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).convert("L"))


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return np.rint(rgb * share + 255 * (1 - share))


def half_clear() -> np.ndarray:
    """Alpha that is 0 left, 128 in the middle, 255 right."""
    return np.repeat(np.array([0, 128, 255], np.uint8), WIDTH // 3)[None].repeat(HEIGHT, axis=0)


def difference(path: Path, expected: np.ndarray, max_value: float = 65535) -> float:
    """Largest difference of the decoded file from (H, W) or (H, W, 3) pixels, its shape checked first."""
    image = decode(path, max_value)
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=-1)
    pixels = np.asarray(image)
    assert image.mode == "RGB"
    assert pixels.shape == expected.shape
    return float(np.abs(pixels.astype(float) - expected.astype(float)).max())


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.png", {}, 0),
        ("a.bmp", {}, 0),
        ("a.tif", {}, 0),
        ("a.tif", {"compression": "tiff_lzw"}, 0),
        ("a.webp", {"lossless": True}, 0),
        ("a.jpg", {"quality": 95, "subsampling": 0}, 8),
        ("a.webp", {"quality": 95}, 24),
    ],
)
def test_colour_in_each_format(tmp_path: Path, name: str, options: dict, tolerance: int):
    Image.fromarray(scene()).save(tmp_path / name, **options)
    assert difference(tmp_path / name, scene()) <= tolerance


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.jpg"])
def test_grey_becomes_three_equal_channels(tmp_path: Path, name: str):
    grey = grey_of(scene())
    Image.fromarray(grey).save(tmp_path / name)
    assert difference(tmp_path / name, grey) <= (6 if name == "a.jpg" else 0)


def test_one_bit(tmp_path: Path):
    bits = scene()[..., 0] > 100
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "1"
    assert difference(tmp_path / "a.png", bits * 255) == 0


def test_palette(tmp_path: Path):
    picture = Image.fromarray(scene()).quantize(64)
    picture.save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "P"
    assert difference(tmp_path / "a.png", np.asarray(picture.convert("RGB"))) == 0


def test_transparent_palette_entry_becomes_white(tmp_path: Path):
    picture = Image.fromarray(scene()).quantize(16)
    clear = int(np.asarray(picture)[0, 0])
    picture.save(tmp_path / "a.png", transparency=clear)
    expected = np.asarray(picture.convert("RGB")).copy()
    expected[np.asarray(picture) == clear] = 255
    assert Image.open(tmp_path / "a.png").mode == "P"
    assert difference(tmp_path / "a.png", expected) == 0


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_transparent_colour_becomes_white(tmp_path: Path, name: str):
    rgba = np.dstack([scene(), half_clear()])
    Image.fromarray(rgba).save(tmp_path / name, **({"lossless": True, "exact": True} if name == "a.webp" else {}))
    assert difference(tmp_path / name, on_white(scene(), half_clear())) <= 1


def test_transparent_grey_becomes_white(tmp_path: Path):
    grey = grey_of(scene())
    Image.merge("LA", [Image.fromarray(grey), Image.fromarray(half_clear())]).save(tmp_path / "a.png")
    expected = on_white(np.repeat(grey[..., None], 3, axis=-1), half_clear())
    assert Image.open(tmp_path / "a.png").mode == "LA"
    assert difference(tmp_path / "a.png", expected) <= 1


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk(tmp_path: Path, name: str):
    Image.fromarray(scene()).convert("CMYK").save(tmp_path / name, **({"quality": 95} if name == "a.jpg" else {}))
    assert Image.open(tmp_path / name).mode == "CMYK"
    assert difference(tmp_path / name, scene()) <= (24 if name == "a.jpg" else 2)


@pytest.mark.parametrize("brightest", [65535, 4095])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_scaled_by_the_brightest_value(tmp_path: Path, name: str, channels: int, brightest: int):
    """12-bit data in a 16-bit file fills the range too, in grey as in colour."""
    rgb = scene() if channels == 3 else grey_of(scene())
    deep = np.rint(rgb * (brightest / 255)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / name), deep[..., ::-1] if channels == 3 else deep)
    assert difference(tmp_path / name, rgb, brightest) <= 1


def test_transparent_sixteen_bit_colour_becomes_white(tmp_path: Path):
    deep = np.dstack([scene()[..., ::-1], half_clear()]).astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "a.png"), deep)
    assert difference(tmp_path / "a.png", on_white(scene(), half_clear())) <= 1


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_a_fourth_band_is_opacity_only_where_the_file_says_so(tmp_path: Path, kind: type):
    """OpenCV writes TIFFs of four bands without saying what the fourth is; it may be infrared."""
    times = {np.uint8: 1, np.uint16: 257, np.float32: 1}[kind]
    bands = (np.dstack([scene()[..., ::-1], half_clear()]).astype(np.float64) * times).astype(kind)
    cv2.imwrite(str(tmp_path / "a.tif"), bands)
    assert difference(tmp_path / "a.tif", scene(), 255 * times) == 0
    assert decoding.has_bands_left_out(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_a_tiff_says_what_its_fourth_band_is(tmp_path: Path, kind: type, extra: int):
    """0: nothing is said; 1: opacity that the colours are multiplied by already; 2: opacity."""
    share = half_clear()[..., None] / 255 if extra == 1 else 1
    bands = np.dstack([np.rint(scene().astype(float) * share), half_clear()]) * (257 if kind is np.uint16 else 1)
    write_tiff(tmp_path / "a.tif", bands.astype(kind), extra)
    expected = on_white(scene(), half_clear()) if extra else scene()
    assert difference(tmp_path / "a.tif", expected) <= 2


def write_tiff(path: Path, values: np.ndarray, extra: int) -> None:
    """Four bands (H, W, 4), of which the last is what `extra` says."""
    height, width, bands = values.shape
    data, bits = values.tobytes(), 8 * values.itemsize
    entries, beside = [], b""
    start = 8 + 2 + 12 * 11 + 4
    for tag, kind, found in [
        *[(256, "I", [width]), (257, "I", [height]), (258, "H", [bits] * bands), (259, "H", [1]), (262, "H", [2])],
        *[(273, "I", [start + 16]), (277, "H", [bands]), (278, "I", [height]), (279, "I", [len(data)])],
        *[(338, "H", [extra]), (339, "H", [1] * bands)],
    ]:
        raw = struct.pack(f"<{len(found)}{kind}", *found)
        if len(raw) > 4:
            beside, raw = beside + raw, struct.pack("<I", start + len(beside))
        entries.append(struct.pack("<HHI", tag, {"H": 3, "I": 4}[kind], len(found)) + raw.ljust(4, b"\0"))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, 11) + b"".join(entries) + b"\0" * 4 + beside + data)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGB", "L"])
def test_twelve_bits_in_a_sixteen_bit_file_are_scaled_with_and_without_opacity(tmp_path: Path, mode: str):
    rgb, alpha = (scene(), half_clear()) if "RGB" in mode else (grey_of(scene())[..., None], half_clear())
    deep = np.rint(rgb * (4095 / 255)).astype(np.uint16)
    write_png(tmp_path / "a.png", np.dstack([deep, alpha.astype(np.uint16) * 257]) if "A" in mode else deep)
    expected = np.repeat(rgb, 3, axis=-1) if rgb.shape[-1] == 1 else rgb
    expected = on_white(expected, alpha) if "A" in mode else expected
    assert difference(tmp_path / "a.png", expected, 4095) <= 1


def write_png(path: Path, values: np.ndarray) -> None:
    """16 bits in one to four bands (H, W, bands); Pillow writes none of them but grey, OpenCV no grey with opacity."""
    height, width, bands = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")
    )


def chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("name", ["a.png", "a.ppm", "a.pgm", "a.jp2"])
def test_twelve_bits_are_scaled_in_every_kind_of_file(tmp_path: Path, name: str):
    """Of a PPM and a JPEG 2000 Pillow keeps but the high byte of 16 bits, whatever the data fill."""
    rgb = np.asarray(Image.fromarray(scene()).resize((96, 64)))
    rgb = grey_of(rgb) if name == "a.pgm" else rgb
    deep = np.rint(rgb * (4095 / 255)).astype(np.uint16)
    cv2.imwrite(
        str(tmp_path / name),
        deep[..., ::-1] if deep.ndim == 3 else deep,
        [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000],
    )
    assert difference(tmp_path / name, rgb, 4095) <= 2


@pytest.mark.parametrize(
    ("kind", "low", "high"), [(np.float32, 0, 255), (np.int16, -1000, 3000), (np.float32, -1, 1), (np.float64, 0, 1)]
)
@pytest.mark.parametrize("bands", [1, 3])
def test_floats_and_negative_values_are_scaled_between_two_bounds(
    tmp_path: Path, kind: type, low: int, high: int, bands: int
):
    rgb = grey_of(scene()) if bands == 1 else scene()
    values = (low + rgb / 255 * (high - low)).astype(kind)
    cv2.imwrite(str(tmp_path / "a.tif"), values if bands == 1 else values[..., ::-1])
    assert (
        np.abs(
            np.asarray(decode(tmp_path / "a.tif", high, None, low))[..., 0]
            - (rgb if bands == 1 else rgb[..., 0]).astype(float)
        ).max()
        <= 1
    )


@pytest.mark.parametrize("orientation", [6, 7])
def test_a_deep_image_is_turned_upright_as_any_other(tmp_path: Path, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = Image.fromarray(scene()).transpose(
        {6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE}[orientation]
    )
    write_png(tmp_path / "a.png", np.asarray(turned).astype(np.uint16) * 257)
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:33] + chunk(b"eXIf", exif.tobytes()[6:]) + data[33:])
    assert difference(tmp_path / "a.png", scene()) == 0


# One scale for all deep images


@pytest.mark.parametrize(
    ("low", "high", "black", "white"),
    [
        (0, 4012, 0, 4095),
        (12, 60000, 0, 65535),
        (0, 255, 0, 255),
        (0, 0.98, 0, 1),
        (-0.001, 1.0001, 0, 1),
        (0, 1100, 0, 4095),
        (0, 20, 0, 20),
        (0, 0.004, 0, 0.004),
        (-1024, 3071, -1024, 3071),
        (-0.99, 0.97, -1, 1),
        (-60, -10, -60, -10),
        (29000, 31000, 29000, 31000),
        (0, 0, 0, 65535),
        (0, 1e6, 0, 1e6),
    ],
)
def test_bounds_that_values_are_typical_of(low: float, high: float, black: float, white: float):
    assert bit_depth.bounds(low, high) == (black, white)


def test_the_scale_is_that_of_all_images_but_for_single_pixels(tmp_path: Path):
    """One pixel beyond the others changes nothing, and NaN is no value."""
    dark, bright = (np.random.default_rng(0).uniform(0, top, (32, 32)).astype(np.float32) for top in (0.2, 1))
    bright[3, 3], dark[4, 4] = 1.4, np.nan
    paths = [tmp_path / "dark.tif", tmp_path / "bright.tif", *write_scenes(tmp_path / "plain", 2)]
    for path, values in zip(paths, (dark, bright), strict=False):
        Image.fromarray(values).save(path)
    found = bit_depth.find_scale(paths, tmp_path / "cache")
    assert found
    assert (found.black, found.white) == (0, 1)
    assert "2 images have more than 8 bits" in found.words
    assert "; warning: 1 of those looked at have values that are NaN, which become black" in found.words
    assert found.words.endswith("; 2 others have 8 bits, and 255 for white")
    assert len(found.words) < 300
    assert bit_depth.find_scale(paths, tmp_path / "cache") == found
    assert bit_depth.find_scale(paths[2:], tmp_path / "cache") is None


def test_a_bound_that_is_given_is_the_scale_s_and_below_the_other(tmp_path: Path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.linspace(-80, 40, 256, dtype=np.float32).reshape(16, 16)).save(path)
    found = bit_depth.find_scale([path], tmp_path / "cache", black=-20)
    assert found
    assert found.black == -20
    assert ": -20 becomes black, " in found.words
    given = bit_depth.find_scale([path], tmp_path / "cache", white=10)
    assert given
    assert (given.black < -70, given.white) == (True, 10)
    with pytest.raises(FoldcraftError, match=r"images\.min_value: 100 becomes black, and is not below 39"):
        bit_depth.find_scale([path], tmp_path / "cache", black=100)


@pytest.mark.parametrize("hole", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["a.npy", "a.tif"])
def test_an_image_without_a_number_is_none(tmp_path: Path, name: str, hole: float):
    values = np.full((8, 8), hole, np.float32)
    np.save(tmp_path / name, values) if name == "a.npy" else Image.fromarray(values).save(tmp_path / name)
    for look in (decode, lambda path: image_reading.bands(path, 3)):
        with pytest.raises(UnreadableImage, match="none of its values is a finite number"):
            look(tmp_path / name)


@pytest.mark.parametrize(("black", "white", "grey"), [(-1000, 0, 128), (-2000, 0, 191), (0, 1000, 0)])
def test_a_cache_holds_its_scale(tmp_path: Path, black: int, white: int, grey: int):
    cv2.imwrite(str(tmp_path / "a.tif"), np.full((8, 8), -500, np.int16))
    specs = [ImageSpec(8), ImageSpec(8, max_value=white, min_value=black)]
    assert (open_stores([tmp_path / "a.tif"], specs, tmp_path, "train")[1][0] == grey).all()


def test_caches_of_plain_images_are_named_as_ever():
    assert image_cache._key(["a"], ImageSpec(16)) == "4eac6a6c4f86be73"


# Odd files that are whole


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("lacking", [1, 2])
def test_a_jpeg_that_lacks_its_end_marker_alone_is_whole(tmp_path: Path, progressive: bool, lacking: int):
    Image.fromarray(scene()).save(tmp_path / "a.jpg", quality=95, progressive=progressive)
    whole, data = np.asarray(decode(tmp_path / "a.jpg")), (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[:-lacking])
    assert np.array_equal(np.asarray(decode(tmp_path / "a.jpg")), whole)
    for lacking_pixels in (12, len(data) // 4):
        (tmp_path / "a.jpg").write_bytes(data[:-lacking_pixels])
        with pytest.raises(UnreadableImage, match="truncated"):
            decode(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "extra", [chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * (2 << 20))), chunk(b"tEXt", b"a\0b")[:-1] + b"x"]
)
def test_what_a_png_says_beside_its_pixels_may_be_long_or_damaged(tmp_path: Path, extra: bytes):
    Image.fromarray(scene()).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:33] + extra + data[33:])
    assert difference(tmp_path / "a.png", scene()) == 0


@pytest.mark.parametrize(("name", "mode"), [("a.jpg", "RGB"), ("a.png", "P"), ("a.tif", "L"), ("a.png", "RGBA")])
def test_an_image_of_too_many_pixels_is_reduced_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mode: str
):
    large = Image.fromarray(scene()).resize((960, 640))
    large.convert(mode).save(tmp_path / name)
    monkeypatch.setattr(decoding, "MOST_PIXELS", 200_000)
    small = decode(tmp_path / name)
    assert small.size == (480, 320)
    expected = large.convert(mode).convert("RGB").resize((480, 320), Image.Resampling.BOX)
    again = np.asarray(small).astype(float) - np.asarray(expected)
    assert np.abs(again).mean() < 8
    monkeypatch.setattr(decoding, "MOST_MEMORY", 100_000)
    if name == "a.tif":
        assert max(decode(tmp_path / name).size) < 480
    elif name != "a.jpg":
        with pytest.raises(UnreadableImage, match=r"960 x 640 pixels need .* save it smaller"):
            decode(tmp_path / name)


def test_brighter_than_the_brightest_value_is_white(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((HEIGHT, WIDTH), 5000, np.uint16))
    assert difference(tmp_path / "a.png", np.full((HEIGHT, WIDTH), 255), 4095) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int):
    """Each of the eight ways a camera may be held gives the same upright picture."""
    turn = Image.Transpose
    stored_as = {
        1: None,
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_90,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_270,
    }[orientation]
    upright = Image.fromarray(scene())
    stored = upright if stored_as is None else upright.transpose(stored_as)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", quality=95, subsampling=0, exif=exif)
    assert difference(tmp_path / "a.jpg", scene()) <= 8


def test_first_frame_of_a_gif(tmp_path: Path):
    first, second = (Image.fromarray(pixels).quantize(64) for pixels in (scene(), scene()[::-1].copy()))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert Image.open(tmp_path / "a.gif").n_frames == 2
    assert difference(tmp_path / "a.gif", np.asarray(first.convert("RGB"))) <= 1


def test_a_large_jpeg_may_be_decoded_smaller_but_never_below_what_is_asked(tmp_path: Path):
    Image.fromarray(scene()).resize((960, 640)).save(tmp_path / "a.jpg", quality=95)
    small = decode(tmp_path / "a.jpg", at_least=100)
    assert 100 <= min(small.size) < 640
    again = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(float)
    assert np.abs(again - scene()).mean() < 3


def test_squash_keeps_the_whole_image():
    square = make_square(Image.fromarray(scene()), ImageSpec(32, "squash"))
    expected = np.asarray(Image.fromarray(scene()).resize((32, 32), Image.Resampling.BICUBIC))
    assert square.dtype == np.uint8
    assert np.array_equal(square, expected)


def test_pad_keeps_the_aspect_between_black_bars():
    square = make_square(Image.new("RGB", (48, 32), "white"), ImageSpec(24, "pad"))
    assert square.shape == (24, 24, 3)
    assert (square[:4] == 0).all()
    assert (square[4:20] == 255).all()
    assert (square[20:] == 0).all()


@pytest.mark.parametrize("size", [(1, 700), (700, 1)])
def test_of_a_thin_image_one_line_is_left_between_the_bars(size: tuple[int, int]):
    square = make_square(Image.new("RGB", size, "white"), ImageSpec(32, "pad"))
    lit = square[..., 0] == 255
    assert lit.sum() == 32
    assert lit.any(1 if size[0] == 1 else 0).all()
    assert (square[~lit] == 0).all()


def test_crop_keeps_the_centre():
    """Of a wide image with red ends and a blue centre as wide as it is high, only the blue is left."""
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, :16, 0] = wide[:, 48:, 0] = wide[:, 16:48, 2] = 255
    square = make_square(Image.fromarray(wide), ImageSpec(32, "crop"))
    assert np.array_equal(square, wide[:, 16:48])


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
def test_interpolation_is_the_spec_s(resize: str):
    results = {
        name: make_square(Image.fromarray(scene()[::2, ::3].copy()), ImageSpec(40, resize, name)).tobytes()
        for name in image_cache.INTERPOLATIONS
    }
    assert len(set(results.values())) == len(image_cache.INTERPOLATIONS)


# The cache


def write_scenes(folder: Path, count: int = 6) -> list[Path]:
    """`count` different pictures, all of the same number of bytes."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.bmp" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(np.roll(scene(), 5 * number, axis=1)).save(path)
    return paths


def no_leftovers(folder: Path) -> bool:
    return not list(folder.rglob("*.tmp-*"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that is decoded from now on."""
    seen: list[Path] = []

    def watched(path: Path, *args: object) -> Image.Image:
        seen.append(path)
        return decode(path, *args)

    monkeypatch.setattr(image_cache, "decode", watched)
    return seen


def test_two_specs_share_one_decode_and_the_second_call_needs_none(tmp_path: Path, decoded: list[Path]):
    paths, cache, progress = write_scenes(tmp_path / "in"), tmp_path / "cache", []
    specs = [ImageSpec(16), ImageSpec(24, "pad")]
    stores = open_stores(paths, specs, cache, "train", progress.append)
    assert sorted(decoded) == paths
    assert sum(progress) == len(paths)
    for spec, store in zip(specs, stores, strict=True):
        expected = np.stack([make_square(decode(path), spec) for path in paths])
        assert np.array_equal(store.pixels, expected)
        assert store.path.parent == cache
    assert no_leftovers(tmp_path)

    decoded.clear()
    again = open_stores(paths, specs[::-1], cache, "train", progress.append)
    assert decoded == []
    assert sum(progress) == len(paths)
    assert [store.path for store in again] == [store.path for store in stores[::-1]]


def test_a_changed_image_gives_a_new_cache(tmp_path: Path, decoded: list[Path]):
    """The new content is found though the file has the same size and name; the old cache is left as it was."""
    paths, cache = write_scenes(tmp_path / "in"), tmp_path / "cache"
    before = open_stores(paths, [ImageSpec(16)], cache, "train")[0]
    size = paths[2].stat().st_size
    Image.fromarray(scene()[::-1].copy()).save(paths[2])
    os.utime(paths[2], ns=(time.time_ns(), time.time_ns() + 1_000_000))
    assert paths[2].stat().st_size == size

    after = open_stores(paths, [ImageSpec(16)], cache, "train")[0]
    assert after.path != before.path
    assert np.array_equal(after.pixels[2], make_square(decode(paths[2]), ImageSpec(16)))
    assert np.array_equal(after.pixels[[0, 1, 3, 4, 5]], before.pixels[[0, 1, 3, 4, 5]])
    assert not np.array_equal(after.pixels[2], before.pixels[2])


def test_images_that_are_only_touched_keep_their_cache(tmp_path: Path, decoded: list[Path]):
    paths, cache = write_scenes(tmp_path / "in"), tmp_path / "cache"
    before = open_stores(paths, [ImageSpec(16)], cache, "train")[0]
    decoded.clear()
    for path in paths:
        os.utime(path, ns=(1, 1))
    assert open_stores(paths, [ImageSpec(16)], cache, "train")[0].path == before.path
    assert decoded == []


@pytest.mark.parametrize(
    "specs",
    [[ImageSpec(16, max_value=65535), ImageSpec(16, max_value=4095)], [ImageSpec(16), ImageSpec(256)]],
    ids=["max_value", "side"],
)
def test_specs_built_together_hold_what_each_holds_alone(tmp_path: Path, specs: list[ImageSpec]):
    """A cache is named after image and spec, so its pixels may depend on nothing else."""
    deep, large = tmp_path / "deep.png", tmp_path / "large.jpg"
    cv2.imwrite(str(deep), np.rint(grey_of(scene()) * (4095 / 255)).astype(np.uint16))
    noise = np.random.default_rng(0).integers(0, 256, (512, 768, 3), dtype=np.uint8)
    Image.fromarray(noise).save(large, quality=95)
    together = open_stores([deep, large], specs, tmp_path / "together", "train")
    for spec, store in zip(specs, together, strict=True):
        alone = open_stores([deep, large], [spec], tmp_path / "alone", "train")[0]
        assert alone.path.name == store.path.name
        assert np.array_equal(alone.pixels[0], store.pixels[0])
        assert np.array_equal(alone.pixels[1], store.pixels[1])


def test_unreadable_images_are_all_named_and_leave_nothing_behind(tmp_path: Path):
    paths, cache = write_scenes(tmp_path / "in"), tmp_path / "cache"
    paths[1].write_bytes(paths[1].read_bytes()[: paths[1].stat().st_size // 2])
    paths[4].write_text("this is no picture")
    with pytest.raises(FoldcraftError, match="2 images cannot be read") as error:
        open_stores(paths, [ImageSpec(16)], cache, "train")
    for path in (paths[1], paths[4]):
        assert f"{path.parent.name}/{path.name} (" in str(error.value)
    assert len(str(error.value)) < 300
    assert no_leftovers(tmp_path)
    assert not list(cache.glob("*.npy"))


def test_many_unreadable_images_are_told_in_a_line():
    boxes = [
        (f"input/a/{row}.png [40, 0, 5, 5]", "the box lies outside the image of 40 x 40 pixels") for row in range(44)
    ]
    said = str(image_cache.UnreadableImages(boxes))
    assert said.startswith("44 images cannot be read: input/a/0.png [40, 0, 5, 5], input/a/1.png [40, 0, 5, 5]")
    assert "(the box lies outside the image of 40 x 40 pixels) and 40 more; " in said
    assert said.endswith("; src/audit.py lists them all")
    assert len(said) < 300
    one = str(image_cache.UnreadableImages([("x" * 400, "y" * 400)], experiment.MENDS["train", "test"]))
    assert len(one) < 300
    assert "and" not in one.split(";")[0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"garbage",
        lambda whole: whole[:-100],
        lambda whole: flipped(whole, 60),
        lambda whole: flipped(whole, len(whole) - 30),
        lambda whole: whole[: 128 + 6 * 16 * 16 * 3],
    ],
    ids=["empty", "garbage", "cut", "a bit of the header", "a bit of a checksum", "of an earlier version"],
)
def test_a_cache_that_is_not_whole_is_made_again(tmp_path: Path, damage: Callable[[bytes], bytes]):
    paths, cache, said = write_scenes(tmp_path / "in"), tmp_path / "cache", []
    path = open_stores(paths, [ImageSpec(16)], cache, "train")[0].path
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(whole))
    for _ in range(2):
        assert open_stores(paths, [ImageSpec(16)], cache, "train", say=said.append)[0].path == path
        assert path.read_bytes() == whole
    (line,) = said
    assert f"{path}: damaged image cache" in line
    assert "made again" in line


def test_a_changed_row_is_named_when_it_is_looked_at(tmp_path: Path):
    """A bit of the fourth image: the others are still given out, that one never."""
    paths, cache = write_scenes(tmp_path / "in"), tmp_path / "cache"
    path = open_stores(paths, [ImageSpec(16)], cache, "train")[0].path
    path.write_bytes(flipped(path.read_bytes(), 128 + 3 * 16 * 16 * 3 + 5))
    store = open_stores(paths, [ImageSpec(16)], cache, "train")[0]
    for one in (store, pickle.loads(pickle.dumps(store))):
        assert np.array_equal(one[2], make_square(decode(paths[2]), ImageSpec(16)))
        for _ in range(2):
            with pytest.raises(FoldcraftError, match=r"damaged image cache: row 3 .*delete it") as error:
                one[3]
        assert str(path) in str(error.value)
    path.unlink()
    again = open_stores(paths, [ImageSpec(16)], cache, "train")[0]
    assert np.array_equal(again[3], make_square(decode(paths[3]), ImageSpec(16)))


def test_an_image_of_the_same_size_and_time_is_noticed(tmp_path: Path):
    paths, cache = write_scenes(tmp_path / "in"), tmp_path / "cache"
    before = open_stores(paths, [ImageSpec(16)], cache, "train")[0]
    stat = paths[2].stat()
    Image.fromarray(scene()[::-1].copy()).save(paths[2])
    os.utime(paths[2], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert paths[2].stat().st_size == stat.st_size
    assert open_stores(paths, [ImageSpec(16)], cache, "train")[0].path != before.path


def test_a_pickled_store_maps_the_file_again(tmp_path: Path):
    """What goes to a worker process is a path, not pixels."""
    store = open_stores(write_scenes(tmp_path / "in"), [ImageSpec(64)], tmp_path / "cache", "train")[0]
    parcel = pickle.dumps(store)
    copy: ImageStore = pickle.loads(parcel)
    assert len(parcel) < 1000 < store.pixels.nbytes
    assert isinstance(copy.pixels, np.memmap)
    assert copy.path == store.path
    assert len(copy) == len(store)
    assert np.array_equal(copy.pixels, store.pixels)
    with pytest.raises(ValueError, match="read-only"):
        copy.pixels[0] = 0


def build_slowly(paths: Sequence[Path], folder: Path, meet: Callable[[], object]) -> tuple[int, Path, bytes]:
    """In a process of its own: images decoded here, the cache's path, its pixels."""
    quick, here = image_cache.decode, []

    def slow(path: Path, *args: object) -> Image.Image:
        time.sleep(0.02)
        here.append(path)
        return quick(path, *args)

    image_cache.decode = slow
    meet()
    store = open_stores(paths, [ImageSpec(32)], folder, "train")[0]
    return len(here), store.path, store.pixels.tobytes()


def _child(paths: Sequence[Path], folder: Path, barrier, results) -> None:
    results.put(build_slowly(paths, folder, lambda: barrier.wait(60)))


@pytest.mark.integration
def test_two_processes_at_once_build_one_cache(tmp_path: Path):
    """The second waits for the first and decodes nothing itself."""
    paths, cache = write_scenes(tmp_path / "in", 20), tmp_path / "cache"
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    children = [context.Process(target=_child, args=(paths, cache, barrier, results)) for _ in range(2)]
    for child in children:
        child.start()
    outcomes = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
    expected = np.stack([make_square(decode(path), ImageSpec(32)) for path in paths]).tobytes()
    assert [child.exitcode for child in children] == [0, 0]
    assert sorted(decoded for decoded, _, _ in outcomes) == [0, len(paths)]
    assert {path for _, path, _ in outcomes} == set(cache.glob("*.npy"))
    assert all(pixels == expected for _, _, pixels in outcomes)
    assert no_leftovers(tmp_path)


def grey_tiff(bands: np.ndarray, extra: int | None) -> bytes:
    """A TIFF of several bands (H, W, B) that calls itself grey, as satellite images do; `extra`: its ExtraSamples."""
    height, width, count = bands.shape
    bits = 8 * bands.dtype.itemsize
    tags = [(256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * count), (259, 3, [1]), (262, 3, [1])]
    tags += [(273, 4, [0]), (277, 3, [count]), (278, 4, [height]), (279, 4, [bands.nbytes])]
    tags += [(338, 3, [extra] * (count - 1))] if extra is not None else []
    size = {3: 2, 4: 4}
    behind = sum(len(values) * size[kind] for _, kind, values in tags if len(values) * size[kind] > 4)
    place = 8 + 2 + 12 * len(tags) + 4
    body, more = b"", b""
    for tag, kind, values in tags:
        values = [place + behind] if tag == 273 else values
        data = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(data) > 4:
            data, more = struct.pack("<I", place + len(more)), more + data
        body += struct.pack("<HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4) + more + bands.tobytes()


@pytest.mark.parametrize("extra", [None, 0])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_of_bands_that_call_themselves_grey_the_first_three_are_colours(tmp_path: Path, kind: type, extra: int | None):
    bands = np.broadcast_to(np.array([200, 50, 100, 7], kind), (6, 5, 4))
    path = tmp_path / "bands.tif"
    path.write_bytes(grey_tiff(np.ascontiguousarray(bands), extra))
    assert decoding.decode(path, 255).getpixel((0, 0)) == (200, 50, 100)
    facts = image_stats.look(path)
    assert facts["bands_left_out"], "infrared is told of"
    assert not facts["problem"]


def test_floats_that_end_at_one_beside_others_are_told(tmp_path: Path):
    for number, top in enumerate((1.0, 234.0, 1.0)):
        values = np.linspace(0, top, 400, dtype=np.float32).reshape(20, 20)
        Image.fromarray(values).save(tmp_path / f"{number}.tif")
    found = bit_depth.find_scale(sorted(tmp_path.glob("*.tif")), tmp_path)
    assert found is not None
    assert "warning: 2 of those looked at end at 1 and others at 23" in found.words
    assert len(found.words) < 300
