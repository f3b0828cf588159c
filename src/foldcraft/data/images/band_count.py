"""How many channels the images of a competition have; all must have as many."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from foldcraft.common.errors import FoldcraftError, counted, listing, shorten
from foldcraft.data.images.sources import CutOut, Hdf5Item, Source, Tile, is_there, name_in

MAY_HAVE_OTHERS = (".tif", ".tiff", ".npy")  # of plain files; all others have three
MOST_ITEMS = 1000  # of HDF5 that are looked at, spread over all of them, as each must be read
OF_FILES = (1, 2, 4)  # channels beside three that may be asked for of files of grey, colours and opacity
SHOWN = 40  # characters of an image's name in a message


def find_channels(images: Sequence[Source], folder: Path) -> int:
    """How many channels all of them have.

    Raises:
        FoldcraftError: some have others than most; a package that reads them is not installed.
    """
    plain = [source for source in images if isinstance(source, Path)]
    items = [source for source in images if _is_item(source)]
    asked = [source for source in images if _may_have_others(source) and not _is_item(source)]
    asked += [items[place] for place in np.linspace(0, len(items) - 1, min(len(items), MOST_ITEMS)).astype(int)]
    if not asked:
        return 3
    from foldcraft.data.images.image_reading import (
        channels_of,  # beside what decodes images, which most do not need here
    )

    def look(source: Source) -> int | None:
        with suppress(OSError, ValueError, KeyError, SyntaxError, TypeError):  # told when it is decoded
            return channels_of(source) if is_there(source) else None
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(look, asked))
    by_count: dict[int, list[Source]] = {3: [source for source in plain if not _may_have_others(source)]}
    for source, count in zip(asked, found, strict=True):
        if count is not None:
            by_count.setdefault(count, []).append(source)
    return _agreed({count: there for count, there in by_count.items() if there}, folder)


def check_channels(wanted: int, images: Sequence[Source], folder: Path) -> None:
    """See that images can be had with so many channels.

    Raises:
        FoldcraftError: they cannot.
    """
    if wanted == 3:
        return
    found = find_channels(images, folder)
    if found == 3 and wanted not in OF_FILES:
        hint = "set 1 (grey), 2 (grey and opacity), 3, or 4 (colours and opacity)"
        raise FoldcraftError(f"images are grey or in colour, and have no {wanted} channels", "images.channels", hint)
    if found not in (3, wanted):
        raise FoldcraftError(
            f"images have {found} channels, not {wanted}", "images.channels", f"set {found}, 3 or auto"
        )


def _is_item(source: Source) -> bool:
    """An item of HDF5, or a part of one?"""
    return isinstance(source.of if isinstance(source, CutOut | Tile) else source, Hdf5Item)


def _may_have_others(source: Source) -> bool:
    return not isinstance(source, Path) or source.suffix.lower() in MAY_HAVE_OTHERS


def _agreed(by_count: Mapping[int, Sequence[Source]], folder: Path) -> int:
    if not by_count:
        return 3
    most = max(by_count, key=lambda count: (len(by_count[count]), count == 3))
    others = {count: there for count, there in by_count.items() if count != most}
    if others:
        count, some = next(iter(others.items()))
        named = listing([shorten(name_in(source, folder), SHOWN) for source in some], 3)
        have, has = (f"{counted(n, 'image')} {'has' if n == 1 else 'have'}" for n in (len(by_count[most]), len(some)))
        what = f"{have} {counted(most, 'channel')}, and {has} {count}: {named}"
        raise FoldcraftError(what, "images.channels", "mend the files, or set 3 to use the first three of each")
    return most
