"""Groups of rows that must stay in one fold, joined where they share a file or a copy."""

from collections.abc import Hashable, Sequence

import numpy as np

from foldcraft.data.sources import Source


def with_shared_files(groups: np.ndarray | None, ids: np.ndarray, paths: Sequence[Source]) -> np.ndarray | None:
    """The groups (N,) with all rows of one file in one of them; as they are where each row has a file of its own.

    Of the names of groups, or of ids where there are no groups, the one that sorts first stays.
    """
    return groups if len(set(paths)) == len(paths) else joined_groups(ids if groups is None else groups, paths)


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
