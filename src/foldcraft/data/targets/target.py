"""What is predicted: the truth of the training rows, and all that depends on its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from foldcraft.data.targets.classes import Classes
from foldcraft.metrics.spaces import Space

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Target:
    """One kind of target.

    Attributes:
        columns: of the training table that it is read from.
        space: the form of stored predictions.
        truth: of the training rows, as `space` has it (N,) or (N, ·).
    """

    kind: ClassVar[str]
    part: ClassVar[str] = "class"  # what one of `heads` is called
    is_right_or_wrong: ClassVar[bool] = True  # an answer is one of both, rather than near the truth or far from it
    columns: tuple[str, ...]
    space: Space
    truth: np.ndarray

    @property
    def classes(self) -> Classes:
        """Names of the columns of stored predictions; of a single label its classes."""
        return Classes(self.space.names)

    @property
    def heads(self) -> tuple[str, ...]:
        """What a mean of scores is taken over by the metric: classes, labels, columns."""
        return self.space.names

    @property
    def learned_space(self) -> Space:
        """The form of what nets and probes put out, where it is another than that of stored predictions."""
        return self.space

    @property
    def learned(self) -> np.ndarray:
        """The truth in `learned_space`."""
        return self.truth

    @property
    def outputs(self) -> int:
        """Number of outputs that a net has."""
        return self.learned_space.width

    def from_learned(self, predicted: np.ndarray) -> np.ndarray:
        """Stored predictions (..., W) from predictions in `learned_space`."""
        return predicted

    def to_learned(self, targets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Targets in `learned_space` from those that `space.matrix` and `as_targets` give, float32 (n, outputs).

        Args:
            targets: float32 (n, W).
            rows: which training rows they are of (n,); -1 where of none.
        """
        return targets

    def predictions(self, outputs: torch.Tensor) -> torch.Tensor:
        """Stored predictions (..., W) from what a net puts out (..., outputs)."""
        return self.learned_space.of_outputs(outputs)

    def of_array(self, outputs: np.ndarray) -> np.ndarray:
        """The same of an array, where there is no torch; in 64 bits."""
        return self.from_learned(self.learned_space.of_array(outputs.astype(np.float64)))

    @cached_property
    def strata(self) -> np.ndarray:
        """What folds should hold in equal shares: a number a row (N,), or several of 0 and 1 (N, L)."""
        return self.truth

    @property
    def most_frequent(self) -> int:
        """Rows of the largest stratum; with fewer than folds nothing can be stratified."""
        strata = self.strata
        return int(strata.sum(0).max() if strata.ndim > 1 else np.bincount(strata).max())

    @property
    def of_totals(self) -> list[str]:
        """What `totals` are of."""
        return list(self.space.names)

    def totals(self, rows: np.ndarray) -> list[object]:
        """How much of each class or label some rows have."""
        return np.nan_to_num(self.space.matrix(self.truth[rows])).sum(0).astype(np.int64).tolist()

    @property
    def written(self) -> list[str]:
        """The truth of each row as text; the fingerprint of the data is made from it."""
        cells = self.truth.reshape(len(self.truth), -1).tolist()
        return [" ".join(f"{cell:.12g}" for cell in row) for row in cells]

    @property
    def identity(self) -> list[object]:
        """What training depends on beside the truth; of a single label nothing."""
        return [self.kind, list(self.space.names)]

    def baseline(self, rows: np.ndarray | None = None) -> np.ndarray:
        """What is known of a row without its image (W,), from some training rows or all."""
        return self.space.baseline(self.truth if rows is None else self.truth[rows])

    def answers(self, predicted: np.ndarray) -> Mapping[str, list[str]]:
        """Answers in words or numbers, by column, from predictions (M, W) after the decision rule."""
        raise NotImplementedError

    def at(self, rows: np.ndarray) -> Target:
        """The same for some training rows."""
        return replace(self, truth=self.truth[rows])

    @property
    def separable(self) -> tuple[str, ...]:
        """Those of `heads` that a file may ask for without the others."""
        return ()

    def only(self, names: Sequence[str]) -> tuple[Target, np.ndarray]:
        """The same of some of `separable` alone, and which columns of predictions these are."""
        return self, np.arange(self.space.width)

    def with_truth(self, truth: np.ndarray) -> Target:
        """The same with another truth."""
        return replace(self, truth=truth)

    def reordered(self, order: np.ndarray) -> Target:
        """The same with the truth of column `order[k]` (W,) in the place of k."""
        return self.with_truth(self.space.reordered(self.truth, order))

    @property
    def is_ordered(self) -> bool:
        """Are the classes grades, so that answers are nearer to the truth or further from it?"""
        return False

    def answered(self, predicted: np.ndarray) -> np.ndarray:
        """What predictions (N, W) say, as the truth is written, (N,) or (N, ·)."""
        return self.space.answered(predicted)

    @property
    def loss_name(self) -> str:
        """What `row_losses` are called."""
        return self.space.loss_name

    def row_losses(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """How bad predictions (N, W) of some rows are (N,), 0 at the best; NaN where nothing is known."""
        return self.space.losses(predicted, truth)

    def in_words(self, values: np.ndarray) -> list[str]:
        """A truth or an answer a row (N,), in words; "?" for what is not known."""
        raise NotImplementedError

    @property
    def stratum(self) -> np.ndarray:
        """One number a row (N,): the class, the bin of values, or the set of labels."""
        strata = self.strata
        return strata if strata.ndim == 1 else np.unique(strata, axis=0, return_inverse=True)[1].ravel()

    def outputs_behind(self, columns: np.ndarray) -> np.ndarray:
        """How much each output of a net counts (N, outputs), from what the columns of its predictions do (N, W)."""
        return columns

    @property
    def vocabulary(self) -> Mapping[str, Classes]:
        """The words that an answer may be, by column; of numbers none."""
        return {}


def text_of(values: Sequence[float]) -> list[str]:
    """Numbers as a submission has them."""
    return [f"{value:.8g}" for value in values]
