"""More than one number a row: labels that are each there or not, labels that are each scored, votes, values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from foldcraft.common.errors import listing
from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.single import SingleLabel, side_by_side
from foldcraft.data.targets.target import Target, text_of
from foldcraft.metrics.spaces import ClassSpace, LabelSpace, ValueSpace

BINS = 10  # of values, in which folds get equal shares
FEWEST = 5  # rows of a bin
MOST_SAID = 8  # labels or columns of one row, in words


@dataclass(frozen=True)
class MultiLabel(Target):
    """Labels, each there or not; truth is 0, 1 or NaN (N, L).

    Attributes:
        separator: between the labels of one cell, where they are written in one column; "" where each has a column.
    """

    kind: ClassVar[str] = "multilabel"
    part: ClassVar[str] = "label"
    separator: str = ""

    @classmethod
    def of(cls, columns: tuple[str, ...], names: tuple[str, ...], truth: np.ndarray, separator: str) -> MultiLabel:
        """From 0, 1, NaN (N, L)."""
        return cls(columns, LabelSpace(names), truth, separator)

    @cached_property
    def strata(self) -> np.ndarray:
        """The labels (N, L); what is not known counts as not there."""
        return np.nan_to_num(self.truth).astype(np.int64)

    def answers(self, predicted: np.ndarray) -> Mapping[str, list[str]]:
        """Lists of labels in one column, or 0 and 1 a column."""
        if not self.separator:
            said = self.there(predicted)
            return {name: said[:, k].astype(int).astype(str).tolist() for k, name in enumerate(self.space.names)}
        names = np.array(self.space.names)
        return {self.columns[0]: [self.separator.join(names[row].tolist()) for row in self.there(predicted)]}

    @property
    def vocabulary(self) -> Mapping[str, Classes]:
        return {name: Classes(("0", "1")) for name in self.space.names}

    def there(self, predicted: np.ndarray, at_least_one: bool = False) -> np.ndarray:
        """Which labels a row has (M, L); `at_least_one`: the likeliest where there is none, of equals the first."""
        said = predicted > 0
        if at_least_one:
            without = np.flatnonzero(~said.any(1))
            said[without, predicted[without].argmax(1)] = True
        return said

    @property
    def separable(self) -> tuple[str, ...]:
        return self.space.names

    def only(self, names: Sequence[str]) -> tuple[Target, np.ndarray]:
        own = np.array([self.space.names.index(name) for name in names])
        if len(own) == self.space.width:  # lists of them as well
            return self, own
        return MultiLabel.of(tuple(names), tuple(names), self.truth[:, own], ""), own

    def in_words(self, values: np.ndarray) -> list[str]:
        def of_row(row: list[float]) -> str:
            pairs = zip(self.space.names, row, strict=True)
            there = [f"{name}?" if value != value else name for name, value in pairs if value != 0]
            return listing(there, MOST_SAID) if there else "none"

        return [of_row(row) for row in values.tolist()]


@dataclass(frozen=True)
class Soft(Target):
    """A distribution over classes, from votes; truth is (N, K), rows sum to one."""

    kind: ClassVar[str] = "soft"
    is_right_or_wrong: ClassVar[bool] = False

    @classmethod
    def of(cls, columns: tuple[str, ...], truth: np.ndarray) -> Soft:
        """From distributions (N, K)."""
        return cls(columns, ClassSpace(columns), truth)

    @cached_property
    def strata(self) -> np.ndarray:
        """The class with the most votes (N,)."""
        return self.truth.argmax(1)

    def answers(self, predicted: np.ndarray) -> Mapping[str, list[str]]:
        return {name: text_of(np.exp(predicted[:, k])) for k, name in enumerate(self.columns)}

    def answered(self, predicted: np.ndarray) -> np.ndarray:
        return self.space.scored(predicted)

    @property
    def loss_name(self) -> str:
        return "KL"

    def row_losses(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Kullback-Leibler divergence from the prediction: votes that disagree cannot be met without a log-loss."""
        return self.space.losses(predicted, truth) - self.space.losses(self.space.unscored(truth), truth)

    def in_words(self, values: np.ndarray) -> list[str]:
        """The classes with the largest shares."""
        most = np.argsort(-values, axis=1, kind="stable")[:, :3].tolist()
        pairs = zip(values.tolist(), most, strict=True)
        return [", ".join(f"{self.columns[k]} {row[k]:.0%}" for k in places if row[k] > 0) for row, places in pairs]


@dataclass(frozen=True)
class Regression(Target):
    """Values; truth is (N, T), NaN where not known.

    Attributes:
        low, high: between which answers lie.
    """

    kind: ClassVar[str] = "regression"
    is_right_or_wrong: ClassVar[bool] = False
    part: ClassVar[str] = "column"
    low: float = -np.inf
    high: float = np.inf

    @classmethod
    def of(cls, columns: tuple[str, ...], truth: np.ndarray, low: float = -np.inf, high: float = np.inf) -> Regression:
        """From values (N, T)."""
        return cls(columns, ValueSpace.of(columns, truth), truth, low, high)

    @property
    def separable(self) -> tuple[str, ...]:
        return self.columns

    def only(self, names: Sequence[str]) -> tuple[Target, np.ndarray]:
        own = np.array([self.columns.index(name) for name in names])
        return replace(self, columns=tuple(names), space=self.space.only(own.tolist()), truth=self.truth[:, own]), own

    @property
    def of_totals(self) -> list[str]:
        """What `totals` are of."""
        return [f"{name}, mean" for name in self.columns]

    def totals(self, rows: np.ndarray) -> list[object]:
        """The mean of each column in some rows."""
        return [f"{mean:.4g}" for mean in np.nanmean(self.truth[rows], axis=0)]

    @property
    def identity(self) -> list[object]:
        space = self.space
        return [*super().identity, space.centre.tolist(), space.scale.tolist()]

    @cached_property
    def strata(self) -> np.ndarray:
        """Bins of about equally many rows (N,), by the mean of the columns in units of their scale."""
        units = np.nan_to_num((self.truth - self.space.centre) / self.space.scale)
        mean = units.mean(1)
        bins = max(1, min(BINS, len(mean) // FEWEST))
        cuts = np.unique(np.quantile(mean, np.linspace(0, 1, bins + 1)[1:-1]))
        return np.searchsorted(cuts, mean, side="right")

    def answers(self, predicted: np.ndarray) -> Mapping[str, list[str]]:
        clipped = np.clip(predicted, self.low, self.high)
        return {name: text_of(clipped[:, k]) for k, name in enumerate(self.columns)}

    def answered(self, predicted: np.ndarray) -> np.ndarray:
        return np.clip(predicted, self.low, self.high)

    def in_words(self, values: np.ndarray) -> list[str]:
        cells = [["?" if value != value else f"{value:.4g}" for value in row] for row in values.tolist()]
        if len(self.columns) == 1:
            return [row[0] for row in cells]
        return [listing([f"{n} {c}" for n, c in zip(self.columns, row, strict=True)], MOST_SAID) for row in cells]


@dataclass(frozen=True)
class MultiOutput(Target):
    """Several labels, each scored; truth is class indices (N, H), -1 where not known.

    Attributes:
        head_classes: of each column.
    """

    kind: ClassVar[str] = "multioutput"
    part: ClassVar[str] = "head"
    head_classes: tuple[Classes, ...] = ()

    @classmethod
    def of(cls, columns: tuple[str, ...], classes: tuple[Classes, ...], truth: np.ndarray) -> MultiOutput:
        """From class indices (N, H)."""
        return cls(columns, side_by_side(columns, classes), truth, classes)

    @property
    def heads(self) -> tuple[str, ...]:
        return self.columns

    @cached_property
    def strata(self) -> np.ndarray:
        """All classes of all labels (N, W) as 0 and 1."""
        return np.nan_to_num(self.space.matrix(self.truth)).astype(np.int64)

    def answers(self, predicted: np.ndarray) -> Mapping[str, list[str]]:
        parts = zip(self.columns, self.space.slices, self.head_classes, strict=True)
        # of each label the likeliest class
        return {name: classes.decode(predicted[:, own].argmax(1)) for name, own, classes in parts}

    @property
    def separable(self) -> tuple[str, ...]:
        return self.columns

    def only(self, names: Sequence[str]) -> tuple[Target, np.ndarray]:
        heads = [self.columns.index(name) for name in names]
        own = np.concatenate([np.arange(self.space.width)[self.space.slices[head]] for head in heads])
        if len(heads) == 1:
            return SingleLabel.of(names[0], self.head_classes[heads[0]], self.truth[:, heads[0]]), own
        classes = tuple(self.head_classes[head] for head in heads)
        return MultiOutput.of(tuple(names), classes, self.truth[:, heads]), own

    def in_words(self, values: np.ndarray) -> list[str]:
        def of_row(row: list[int]) -> str:
            heads = zip(self.columns, self.head_classes, row, strict=True)
            return listing([f"{name} {'?' if k < 0 else classes.names[k]}" for name, classes, k in heads], MOST_SAID)

        return [of_row(row) for row in values.tolist()]

    @property
    def vocabulary(self) -> Mapping[str, Classes]:
        return dict(zip(self.columns, self.head_classes, strict=True))
