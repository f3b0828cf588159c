"""One scale for a whole data set of images of more than 8 bits, found by looking at their values."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foldcraft.common import checksums
from foldcraft.common.errors import FoldcraftError, counted
from foldcraft.data.images.decoding import BRIGHTEST, UnreadableImage
from foldcraft.data.images.image_reading import deep_values, is_deep
from foldcraft.data.images.sources import Source, key_of, stamp_of

FORMAT = 2  # raise it when a look would come out differently
INDEX = "depth.json"
MOST_LOOKS = 1000  # deep images whose values are looked at, spread over all of them
MOST_VALUES = 1 << 22  # of one image
TYPICAL = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)  # largest values of 8, 10, 12, 14 and 16 bits, and of shares
MIXED = 50.0  # a largest value beside which images that end at 1 are not just dark
SLACK = 1.02  # of a largest value: what resampling adds to it
PLAIN = (b"\xff\xd8", b"GIF8", b"BM", b"RIFF")  # how files of 8 bits a value begin


@dataclass(frozen=True)
class Look:
    """Between which values an image lies, but for one in a thousand at either end.

    Attributes:
        has_gaps: are some of its values no finite numbers?
    """

    low: float
    high: float
    is_float: bool
    has_gaps: bool = False


@dataclass(frozen=True)
class Scale:
    """What becomes black and what white in the deep images of a data set.

    Attributes:
        words: how it was found, in one line.
    """

    black: float
    white: float
    words: str


def find_scale(
    paths: Iterable[Source], folder: Path, black: float | None = None, white: float | None = None
) -> Scale | None:
    """The scale of those images among `paths` that have more than 8 bits a value; None where there are none.

    What was seen is remembered in `folder`, so that a file is looked at again only when it has changed.

    Args:
        black, white: of the scale, where they are given.

    Raises:
        FoldcraftError: what is given is not below what was found.
    """
    index_file = folder / INDEX
    known = _remembered(index_file)
    seen = {path: stamp_of(path) for path in dict.fromkeys(paths)}
    new = [path for path, stamp in seen.items() if stamp and known.get(key_of(path), [])[:3] != stamp]
    known |= {key_of(path): [*seen[path], _is_deep(path)] for path in new}
    deep = [path for path, stamp in seen.items() if stamp and known[key_of(path)][3]]
    chosen = [deep[place] for place in np.linspace(0, len(deep) - 1, min(len(deep), MOST_LOOKS)).astype(int)]
    unseen = [path for path in chosen if len(known[key_of(path)]) == 4]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, look in zip(unseen, pool.map(_look, unseen), strict=True):
            known[key_of(path)].append(list(astuple(look)) if look else None)
    if unseen or (new and folder.is_dir()):  # plain images alone are no reason to make a folder
        with suppress(FoldcraftError):  # a folder that may not be written to; it is looked at again next time
            checksums.write_json(index_file, {"format": FORMAT, "images": known})
    looks = [Look(*found) for path in chosen if (found := known[key_of(path)][4])]
    return _scale(looks, len(deep), len(seen), black, white) if looks else None


def _remembered(index_file: Path) -> dict[str, list[Any]]:
    try:
        index = checksums.read_json(index_file)
        return dict(index["images"]) if index["format"] == FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _is_deep(path: Source) -> bool:
    """Has the image more than 8 bits a value? Of the usual kinds the first bytes tell; one that is none has not."""
    try:
        if not isinstance(path, Path):
            return is_deep(path)
        with open(path, "rb") as stream:
            start = stream.read(32)
        if start.startswith(PLAIN):
            return False
        if start.startswith(b"\x89PNG"):
            return start[24:25] == b"\x10"
        return is_deep(path)
    except Exception:  # whatever is wrong with it is told when it is decoded
        return False


def _look(path: Source) -> Look | None:
    try:
        values = deep_values(path)
    except (UnreadableImage, OSError, MemoryError):
        return None
    return None if values is None else look_at(values)


def look_at(values: np.ndarray) -> Look | None:
    """Between which values an image lies; None where it has none that are numbers."""
    step = int(np.ceil(np.sqrt(max(1, values.size / MOST_VALUES))))
    flat = values[::step, ::step].ravel()
    known = np.isfinite(flat)
    has_gaps, flat = not known.all(), flat[known]
    if not flat.size:
        return None
    apart = min(max(2, flat.size // 1000), flat.size // 100)  # of an image of a hundred values none
    ordered = np.partition(flat, [apart, flat.size - 1 - apart])
    low, high = ordered[apart], ordered[flat.size - 1 - apart]
    return Look(float(low), float(high), np.issubdtype(values.dtype, np.floating), has_gaps)


def _scale(looks: Sequence[Look], count: int, of: int, own_black: float | None, own_white: float | None) -> Scale:
    low, high = min(look.low for look in looks), max(look.high for look in looks)
    black, white = bounds(low, high)
    if own_white is not None:
        black, white = min(black, 0.0), own_white
    black = black if own_black is None else own_black
    check(black, white)
    words = (
        f"{counted(count, 'image')} {'has' if count == 1 else 'have'} more than 8 bits a value, from {low:g} to "
        f"{high:g}: {black:g} becomes black, {white:g} white in all of them; images.min_value and images.max_value set "
        "other bounds"
    )
    tops = [max((look.high for look in looks if look.is_float is kind), default=None) for kind in (True, False)]
    if None not in tops and bounds(0, tops[0])[1] != bounds(0, tops[1])[1]:
        words += f"; warning: floats end at {tops[0]:g} and whole numbers at {tops[1]:g}, write them alike"
    shares = sum(look.is_float and look.high <= SLACK for look in looks)
    if shares and high > MIXED:
        words += f"; warning: {shares} of those looked at end at 1 and others at {high:g}, write them alike"
    if gaps := sum(look.has_gaps for look in looks):
        words += f"; warning: {gaps} of those looked at have values that are NaN, which become black, or infinite"
    if plain := of - count:
        words += f"; {counted(plain, 'other')} {'has' if plain == 1 else 'have'} 8 bits, and 255 for white"
    return Scale(black, white, words)


def check(black: float, white: float) -> None:
    """See that black is below white.

    Raises:
        FoldcraftError: it is not, and images would be turned over, or be of one colour.
    """
    if black >= white:
        what = f"{black:g} becomes black, and is not below {white:g}, which becomes white"
        raise FoldcraftError(what, "images.min_value", "mend it, or set images.max_value")


def bounds(low: float, high: float) -> tuple[float, float]:
    """What becomes black and what white where all values lie between `low` and `high`.

    Values from zero up fill the range that their white is typical of, so that other images of the same source are
    scaled alike; negative ones, and such as are far from zero, have only their own range.
    """
    if high <= low:
        return 0.0, _white(high)
    if low < -(SLACK - 1) * max(high, 0.0):
        return (-1.0, 1.0) if -SLACK <= low < -0.5 and high <= SLACK else (_short(low), _short(high))
    return (_short(low), _short(high)) if low > high / 2 else (0.0, _white(high))


def _white(high: float) -> float:
    for typical in TYPICAL:
        if high <= SLACK * typical:
            return typical if high > typical / 4.1 else _short(high) if high > 0 else float(BRIGHTEST)
    return _short(high)


def _short(value: float) -> float:
    return float(f"{value:.6g}")
