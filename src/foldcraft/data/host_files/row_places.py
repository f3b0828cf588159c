"""Columns that are always there: the number of a row, and the file that it is where rows come from files."""

from collections.abc import Collection

import numpy as np
import pandas as pd

FILE, STEM, FOLDER, ROW = "file", "stem", "folder", "row"
OF_FILES = (FILE, STEM, FOLDER)
NAMES = (*OF_FILES, ROW)  # a host's column of that name wins
TILE = "_tile"  # of an image that is read in tiles, its number
NEVER_HIDDEN = tuple(f"_{name}" for name in NAMES)


def with_places(frame: pd.DataFrame, own: Collection[str]) -> pd.DataFrame:
    """The rows with what is always known of them: their number and, where they are files, their file.

    Args:
        own: the host's columns, which win over those of the same name.
    """
    frame = frame.reset_index(drop=True)
    numbers = pd.Series(np.arange(1, len(frame) + 1), dtype="int64").astype(str)
    known = {ROW: numbers, **{name: frame[f"_{name}"] for name in OF_FILES if f"_{name}" in frame.columns}}
    plain = {name: cells for name, cells in known.items() if name not in own}
    return frame.assign(**plain, **{f"_{name}": cells for name, cells in known.items()})


def told(frame: pd.DataFrame) -> list[str]:
    """Columns that a message lists: those of the host, and of the files that rows are."""
    return [str(name) for name in frame.columns if name not in (*NEVER_HIDDEN, ROW, TILE)]
