"""The one door to the image of a row, whatever it is made of: a picture of three channels, or all of its bands."""

from pathlib import Path

import numpy as np
from PIL import Image

from foldcraft.common.errors import FoldcraftError, counted, shorten
from foldcraft.data.images import array_files, decoding, tiff_pages
from foldcraft.data.images.decoding import BRIGHTEST, UnreadableImage
from foldcraft.data.images.sources import (
    Channels,
    CutOut,
    GoneSource,
    Hdf5Item,
    MadeSource,
    Source,
    TableRow,
    TiffLevel,
    Tile,
)


def decode(
    source: Source, max_value: float = BRIGHTEST, at_least: int | None = None, min_value: float = 0.0
) -> Image.Image:
    """The image of a row as upright 8-bit RGB, as `decoding.decode` has it; of many bands the first three.

    Raises:
        UnreadableImage: it is no image, is damaged, needs too much memory, or is not of the size it should be.
        FoldcraftError: the package that reads it is not installed.
    """
    if isinstance(source, Path):
        return decoding.decode(source, max_value, at_least, min_value)
    if isinstance(source, CutOut | Tile):
        whole = decode(source.of, max_value, None, min_value)
        return whole.crop(_place(source, whole.size))
    content = _content(source)
    if isinstance(content, bytes):
        return decoding.decode(content, max_value, at_least, min_value)
    return decoding.picture(content, max_value, min_value)


def bands(source: Source, wanted: int, max_value: float = BRIGHTEST, min_value: float = 0.0) -> np.ndarray:
    """The image of a row as bytes (H, W, `wanted`): all bands of it, scaled as `decode` does.

    Raises:
        UnreadableImage: as `decode`; it has another number of bands.
    """
    values = _bands(source, wanted)
    if values.shape[2] != wanted:
        has = counted(values.shape[2], "band")
        raise UnreadableImage(f"it has {has}, and images.channels is {wanted}")
    return np.ascontiguousarray(decoding.scaled(values, max_value, min_value))


def _bands(source: Source, wanted: int) -> np.ndarray:
    """All bands as they are stored (H, W, C)."""
    if isinstance(source, CutOut | Tile):
        whole = _bands(source.of, wanted)
        left, top, right, bottom = _place(source, (whole.shape[1], whole.shape[0]))
        return whole[top:bottom, left:right]
    content = source if isinstance(source, Path) else _content(source)
    found = content if isinstance(content, np.ndarray) else decoding.bands(content, wanted)
    decoding.check_values(found)
    return found[..., None] if found.ndim == 2 else found


def deep_values(source: Source) -> np.ndarray | None:
    """The values (H, W) or (H, W, C) of an image of more than 8 bits; None for any other."""
    if isinstance(source, Path):
        return decoding.deep_values(source)
    if isinstance(source, CutOut | Tile):
        return deep_values(source.of)
    content = _content(source)
    if isinstance(content, bytes):
        return decoding.deep_values(content)
    return None if content.dtype == np.uint8 else content


def is_deep(source: Source) -> bool:
    """Has it more than 8 bits a value?

    Raises:
        Exception: of any kind, where it is no image.
    """
    if isinstance(source, Path):
        return decoding.is_deep(source)
    if isinstance(source, CutOut | Tile):
        return is_deep(source.of)
    if isinstance(source, Channels):
        return any(map(decoding.is_deep, source.of))
    return deep_values(source) is not None


def has_bands_left_out(source: Source) -> bool:
    """Are there bands of which the file does not say that they are colours or opacity?

    Raises:
        Exception: of any kind, where it is no image.
    """
    return decoding.has_bands_left_out(source) if isinstance(source, Path) else False


def channels_of(source: Source) -> int:
    """How many channels an image has for a net: three, but for one of bands that are neither grey nor colours.

    Raises:
        Exception: of any kind, where it is no image.
    """
    if isinstance(source, CutOut | Tile):
        return channels_of(source.of)
    if isinstance(source, Channels):
        return len(source.of)
    if isinstance(source, Path | TiffLevel):
        return decoding.channels_of(source if isinstance(source, Path) else source.path)
    content = _content(source)
    return 3 if isinstance(content, bytes) or content.ndim == 2 else content.shape[2]


def _place(source: CutOut | Tile, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a part of an image; of one that was reduced while it was read, as much less."""
    width, height = decoding.size_of(source.of) if isinstance(source.of, Path) else size
    try:
        left, top, right, bottom = source.within(width, height)
    except ValueError as error:
        raise UnreadableImage(str(error)) from None
    if (width, height) == size:
        return left, top, right, bottom
    across, down = size[0] / width, size[1] / height
    left, top = min(int(left * across), size[0] - 1), min(int(top * down), size[1] - 1)
    return left, top, max(left + 1, round(right * across)), max(top + 1, round(bottom * down))


def _content(source: MadeSource) -> np.ndarray | bytes:
    """What there is to read of an image: pixels (H, W) or (H, W, C) as they are stored, or the bytes of a file."""
    most = (decoding.MOST_PIXELS, decoding.MOST_MEMORY)
    if isinstance(source, GoneSource):
        raise UnreadableImage("it is not there")
    try:
        if isinstance(source, TableRow):
            return source.pixels
        if isinstance(source, Channels):
            return _stacked(source)
        if isinstance(source, Hdf5Item):
            return array_files.hdf5_item(source.path, source.key, *most)
        if isinstance(source, TiffLevel):
            return tiff_pages.read(source.path, *most, source.level)
    except (FoldcraftError, UnreadableImage):
        raise
    except Exception as error:  # readers of damaged files raise errors of every kind
        reason = shorten(" ".join(str(error).split()), 120) or type(error).__name__
        raise UnreadableImage(reason) from error
    raise TypeError(type(source))


def _stacked(source: Channels) -> np.ndarray:
    """The grey files of an image, side by side (H, W, C).

    Raises:
        UnreadableImage: they are of different sizes or depths, or one is in colour.
    """
    found = [decoding.bands(path, 3) for path in source.of]
    for path, channel in zip(source.of, found, strict=True):
        if not (channel == channel[..., :1]).all():
            raise UnreadableImage(f"{path.name} is in colour, and a channel is grey")
        if channel.shape[:2] != found[0].shape[:2]:
            sizes = [f"{one.shape[1]} x {one.shape[0]}" for one in (found[0], channel)]
            raise UnreadableImage(f"{source.of[0].name} has {sizes[0]} pixels and {path.name} {sizes[1]}")
        if channel.dtype != found[0].dtype:
            raise UnreadableImage(f"{source.of[0].name} and {path.name} have different bits a value")
    return np.concatenate([channel[..., :1] for channel in found], axis=2)
