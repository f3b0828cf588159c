"""Classes: the sorted labels, stored once, and their numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foldcraft.errors import FoldcraftError, listing


@dataclass(frozen=True)
class Classes:
    """The labels of a competition in sorted order; a label's place is its class index."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, labels: Sequence[str]) -> "Classes":
        """The classes that occur in `labels`."""
        return cls(tuple(sorted(set(labels))))

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        """Class indices of `labels`, int64 (N,).

        Raises:
            FoldcraftError: a label is none of the classes.
        """
        index = {name: number for number, name in enumerate(self.names)}
        if unknown := sorted(set(labels) - set(index)):
            raise FoldcraftError(f"unknown labels: {listing(unknown)}", mend=f"known: {listing(self.names)}")
        return np.array([index[label] for label in labels], dtype=np.int64)

    def decode(self, indices: np.ndarray) -> list[str]:
        """Labels of class indices (N,)."""
        return [self.names[index] for index in indices]
