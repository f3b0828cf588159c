"""Groups of rows that must stay in one fold, joined where they share a file or a copy."""

from collections.abc import Collection, Hashable, Sequence

import numpy as np

from foldcraft.data.images.sources import Source


def with_shared_files(groups: np.ndarray | None, ids: np.ndarray, paths: Sequence[Source]) -> np.ndarray | None:
    """The groups (N,) with all rows of one file in one of them; as they are where each row has a file of its own.

    Of the names of groups, or of ids where there are no groups, the one that sorts first stays.
    """
    return groups if len(set(paths)) == len(paths) else joined_groups(ids if groups is None else groups, paths)


def joined(columns: Sequence[np.ndarray], none: Collection[str]) -> np.ndarray:
    """Groups (N,) of rows that are alike in all columns; "" where one of several says that there is none."""
    if len(columns) == 1:
        return columns[0]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    lacking = [any(cell.strip().casefold() in none for cell in row) for row in zip(*columns, strict=True)]
    return np.array(["" if gone else " / ".join(row) for row, gone in zip(rows, lacking, strict=True)], dtype=str)


def joined_groups(names: np.ndarray, keys: Sequence[Hashable | None]) -> np.ndarray:
    """Groups (N,) of which all that have rows of the same key are one; it bears the name that sorts first.

    Args:
        keys: one a row; None joins nothing.
    """
    parent = dict(zip(names.tolist(), names.tolist(), strict=True))

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    first: dict[Hashable, str] = {}
    for name, key in zip(names.tolist(), keys, strict=True):
        if key is not None:
            both = sorted((root(first.setdefault(key, name)), root(name)))
            parent[both[1]] = both[0]
    return np.array([root(name) for name in names.tolist()])
