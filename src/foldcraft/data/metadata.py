"""Columns of the tables that say something of a row beside its image: read and checked, and encoded for heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from foldcraft.common import fingerprint
from foldcraft.common.config import MetadataConfig
from foldcraft.common.errors import FoldcraftError, counted, listing, shorten, suggest

PLACE = "competition.metadata"
NOTHING = frozenset(("", "nan", "na", "n/a", "<na>", "#n/a", "null", "none"))
FEW = 5  # rows; a category of fewer is not told apart from others as rare
LARGEST = 1e15  # a number beyond it is a slip, and its square too much for 32 bits
STEADY = 1e-9  # standard deviation, relative to the size of the numbers, of a column that says nothing


@dataclass(frozen=True)
class Metadata:
    """Metadata of some rows, as they are written.

    Attributes:
        numeric, category: names of the columns.
        numbers: float64 (N, A), NaN where missing.
        words: (N, C), "" where missing.
        drop: share of them that a net does not see in a step of training.
    """

    numeric: tuple[str, ...]
    category: tuple[str, ...]
    numbers: np.ndarray
    words: np.ndarray
    drop: float = 0.0

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def names(self) -> tuple[str, ...]:
        """All columns; one may be a number and a category."""
        return tuple(dict.fromkeys([*self.numeric, *self.category]))

    def at(self, rows: np.ndarray) -> Metadata:
        """Those of some rows, by their places (M,)."""
        return replace(self, numbers=self.numbers[rows], words=self.words[rows])

    def only(self, kept: np.ndarray) -> Metadata:
        """Those of the rows that a mask (N,) keeps."""
        return self.at(np.flatnonzero(kept))

    @property
    def identity(self) -> list[object]:
        """What trained folds depend on."""
        return ["metadata", list(self.numeric), list(self.category), self.drop, self.content]

    @cached_property
    def content(self) -> str:
        """Digest of all cells."""
        numbers = fingerprint.of_bytes(np.ascontiguousarray(self.numbers, dtype="<f8").tobytes())
        return fingerprint.of_values([numbers, fingerprint.of_rows(map(tuple, self.words.tolist()))])

    def strange(self, learned: Metadata) -> list[str]:
        """What these rows have that those which are learned from have not, a line a column."""
        said = []
        for name, own, known in zip(self.numeric, self.numbers.T, learned.numbers.T, strict=True):
            low, high = (np.nanmin(known), np.nanmax(known)) if not np.isnan(known).all() else (np.nan, np.nan)
            if beyond := int(((own < low) | (own > high)).sum()):
                rows = counted(beyond, "test row")
                said.append(f"{name} lies outside of {low:g} to {high:g}, as training rows have it, in {rows}")
        for name, own, known in zip(self.category, self.words.T, learned.words.T, strict=True):
            if unmet := sorted(set(own.tolist()) - set(known.tolist())):
                said.append(f"{name} is something that no training row has: {listing([one[:30] for one in unmet], 5)}")
        return said

    def describe(self) -> str:
        """Which there are, and how much is missing, in a line."""
        missing = dict(zip(self.numeric, np.isnan(self.numbers).sum(0).tolist(), strict=True))
        missing |= dict(zip(self.category, (self.words == "").sum(0).tolist(), strict=True))
        said = [f"{name} ({missing[name]} missing)" if missing[name] else name for name in self.names]
        return f"{counted(len(said), 'column')} of metadata beside the image: {listing(said, 8)}"


def read(wanted: MetadataConfig, table: pd.DataFrame, path: Path) -> Metadata:
    """The metadata of a table of text.

    Raises:
        FoldcraftError: a column is missing; a cell that is neither empty nor a number in a numeric column.
    """
    for name in wanted.names:
        if name not in table.columns:
            hint = f"{suggest(name, list(map(str, table.columns)))}; metadata must be in the training and test tables"
            raise FoldcraftError(f"no column {shorten(name, 60)!r} of metadata", path, hint)
    numbers = [_numbers(table[name], path) for name in wanted.numeric]
    words = [_words(table[name]) for name in wanted.category]
    return Metadata(
        tuple(wanted.numeric),
        tuple(wanted.category),
        np.stack(numbers, axis=1) if numbers else np.empty((len(table), 0)),
        np.stack(words, axis=1) if words else np.empty((len(table), 0), dtype=str),
        wanted.drop,
    )


def _words(column: pd.Series) -> np.ndarray:
    cells = [str(cell).strip() for cell in column.fillna("").tolist()]
    return np.array(["" if cell.casefold() in NOTHING else cell for cell in cells], dtype=str)


def _numbers(column: pd.Series, path: Path) -> np.ndarray:
    words = _words(column)
    values = pd.to_numeric(pd.Series(words), errors="coerce").to_numpy(dtype=np.float64)
    large = np.abs(values) > LARGEST
    if (wrong := (~np.isfinite(values) | large) & (words != "")).any():
        row = int(np.flatnonzero(wrong)[0])
        where = f"{counted(int(wrong.sum()), 'line')}, first {row + 2}: {shorten(str(words[row]), 40)!r}"
        said = f"is beyond {LARGEST:g}" if np.isfinite(values[row]) else "is no number"
        what = f"column {shorten(str(column.name), 60)!r} {said} in {where}"
        raise FoldcraftError(what, path, f"mend or empty the cells, or name it under {PLACE}.category")
    return values


@dataclass(frozen=True)
class Encoder:
    """From metadata to numbers that a linear head makes something of; fitted on the rows that a fold learns from.

    A numeric column is standardised; missing cells become its mean, with a flag of their own where there were any. A
    category is a column of 0 and 1; those of fewer than `FEW` rows share one with all that was never met, if there were
    any. What is missing is a category like others.

    Attributes:
        mean, scale: of each numeric column; a number x enters as (x - mean) * scale.
        flagged: places of the numeric columns that have a flag.
        known: of each category column, the words that have a column of their own.
        rare: places of the category columns that have one for what is rare.
    """

    numeric: tuple[str, ...]
    category: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    flagged: tuple[int, ...]
    known: tuple[tuple[str, ...], ...]
    rare: tuple[int, ...]

    @classmethod
    def fit(cls, learned: Metadata) -> Encoder:
        """From the rows that are learned from."""
        numbers = [_standard(column[~np.isnan(column)]) for column in learned.numbers.T]
        missing, known, rare = np.isnan(learned.numbers), [], []
        for place, column in enumerate(learned.words.T):
            names, counts = np.unique(column, return_counts=True)
            known.append(tuple(names[counts >= FEW].tolist()))
            rare += [place] if (counts < FEW).any() else []
        return cls(
            learned.numeric,
            learned.category,
            tuple(mean for mean, _ in numbers),
            tuple(scale for _, scale in numbers),
            tuple(np.flatnonzero(missing.any(0) & ~missing.all(0)).tolist()),
            tuple(known),
            tuple(rare),
        )

    @property
    def names(self) -> list[str]:
        """What the numbers are, in order."""
        flags = [f"{self.numeric[place]} is missing" for place in self.flagged]
        words = [
            f"{name} = {word or 'missing'}"
            for name, known in zip(self.category, self.known, strict=True)
            for word in known
        ]
        return [*self.numeric, *flags, *words, *(f"{self.category[place]} is rare" for place in self.rare)]

    @property
    def width(self) -> int:
        """How many numbers a row has."""
        return len(self.numeric) + len(self.flagged) + sum(map(len, self.known)) + len(self.rare)

    def __call__(self, metadata: Metadata) -> np.ndarray:
        """float32 (N, width)."""
        numbers = (metadata.numbers - np.array(self.mean)) * np.array(self.scale)
        columns = [np.nan_to_num(numbers), np.isnan(metadata.numbers)[:, list(self.flagged)]]
        for place, known in enumerate(self.known):
            columns.append(metadata.words[:, place][:, None] == np.array(known, dtype=str))
        for place in self.rare:
            columns.append(~np.isin(metadata.words[:, [place]], self.known[place]))
        return np.concatenate([column.astype(np.float32) for column in columns], axis=1)

    def to_plain(self) -> dict[str, Any]:
        """As plain values, for the description of a net."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Encoder:
        """The opposite of `to_plain`, also of what has been through JSON."""
        made = cls(**{name: _tuples(value) for name, value in values.items()})
        lengths = {len(made.numeric): (made.mean, made.scale), len(made.category): (made.known,)}
        if any(len(part) != length for length, parts in lengths.items() for part in parts):
            raise ValueError("an encoder of metadata that does not fit itself")
        return made


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list | tuple) else value


def _standard(known: np.ndarray) -> tuple[float, float]:
    """Mean of the known numbers and one over their standard deviation; 0 of a column that does not vary."""
    if not len(known):
        return 0.0, 0.0
    mean, std = float(known.mean()), float(known.std())
    return mean, 1 / std if std > STEADY * max(1.0, abs(mean)) else 0.0


def codes(metadata: Metadata, learned: Metadata, most: int = 200) -> np.ndarray:
    """Numbers and categories as numbers (N, A + C), NaN for what is missing, unknown or rare among those learned from.

    Args:
        most: categories a column, the most frequent.
    """
    columns: list[np.ndarray] = [metadata.numbers]
    for own, known in zip(metadata.words.T, learned.words.T, strict=True):
        names, counts = np.unique(known[known != ""], return_counts=True)
        frequent = names[np.argsort(-counts, kind="stable")][: min(most, int((counts >= FEW).sum()))]
        code = {name: float(place) for place, name in enumerate(frequent.tolist())}
        columns.append(np.array([code.get(word, np.nan) for word in own.tolist()])[:, None])
    return np.concatenate(columns, axis=1)


def both(names: MetadataConfig | None, tables: Sequence[pd.DataFrame], paths: Sequence[Path]) -> Sequence[Any]:
    """The metadata of the training and of the test table; None where none are asked for."""
    if names is None:
        return (None, None)
    return tuple(read(names, table, path) for table, path in zip(tables, paths, strict=True))
