"""Classes: the labels in their order, stored once, and their numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from foldcraft.common.errors import FoldcraftError, listing

NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,9})?\s*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Classes:
    """The labels of a competition in order; a label's place is its class index."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, labels: Sequence[str]) -> "Classes":
        """The classes that occur in `labels`: numbers by value, where all are numbers, else words by alphabet."""
        found = sorted(set(labels))
        return cls(tuple(sorted(found, key=Decimal) if are_numbers(found) else found))

    @property
    def are_by_alphabet(self) -> bool:
        """Is this the order that their letters alone would give?"""
        return list(self.names) == sorted(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, labels: Sequence[str]) -> np.ndarray:
        """Class indices of `labels`, int64 (N,).

        Raises:
            FoldcraftError: a label is none of the classes.
        """
        index = {name: number for number, name in enumerate(self.names)}
        if unknown := sorted(set(labels) - set(index)):
            raise FoldcraftError(f"unknown labels: {listing(unknown)}", hint=f"known: {listing(self.names)}")
        return np.array([index[label] for label in labels], dtype=np.int64)

    def decode(self, indices: np.ndarray) -> list[str]:
        """Labels of class indices (N,)."""
        return [self.names[index] for index in indices]


def are_numbers(labels: Sequence[str]) -> bool:
    """Does every label look like a number?"""
    return all(NUMBER.fullmatch(label) for label in labels)
