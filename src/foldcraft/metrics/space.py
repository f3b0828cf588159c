"""The form of predictions: what is asked of it, whatever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    import torch

TINY = 1e-300


@dataclass(frozen=True)
class Link:
    """How the scores of closed-form heads become predictions: `scores * factor + shift`, a column each.

    Attributes:
        strength: place of the regularisation strength that each column is taken at (W,).
        factor, shift: float32 (W,).
    """

    strength: np.ndarray
    factor: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class Cells:
    """What is known of some rows, one by one.

    Attributes:
        values: probabilities of the truth, or errors (C,).
        rows: which row each is of (C,).
        weights: how much each counts (C,).
    """

    values: np.ndarray
    rows: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Part:
    """What is judged by itself: one of several labels or values, or all there is.

    Attributes:
        columns: of predictions.
        rows: places of the rows of which it is known (n,).
        truth: of these rows, as `space` has it.
    """

    columns: slice
    space: Space
    rows: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Space(ABC):
    """The form of predictions (..., W).

    Attributes:
        names: of the W columns.
        loss_name: what the proper loss is called.
        by_default: what an answer is where no decision rule was fitted.
    """

    form: ClassVar[str]
    loss_name: ClassVar[str] = "log-loss"
    by_default: ClassVar[str] = "the likeliest class"
    names: tuple[str, ...]

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.names)

    @abstractmethod
    def normalised(self, predicted: np.ndarray) -> np.ndarray:
        """The same (..., W) as a prediction should be: classes sum to one."""

    @abstractmethod
    def scored(self, predicted: np.ndarray) -> np.ndarray:
        """What a metric is given (..., W): probabilities, or values."""

    @abstractmethod
    def losses(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """The proper loss of each row (N,), the mean over what is known of it; NaN where nothing is."""

    @abstractmethod
    def at_temperature(self, predicted: np.ndarray, temperature: float) -> np.ndarray:
        """Predictions (..., W) made less sure (above 1) or surer (below 1)."""

    @abstractmethod
    def fit_temperature(self, predicted: np.ndarray, truth: np.ndarray, smoothing: float | None = None) -> float:
        """The temperature with the least loss; `smoothing` as in `calibration.fit_temperature`."""

    @abstractmethod
    def baseline(self, truth: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """What is known of a row without its image (W,), from training rows."""

    @abstractmethod
    def matrix(self, truth: np.ndarray) -> np.ndarray:
        """The truth as numbers that heads learn, float32 (N, W); NaN where it is not known."""

    @abstractmethod
    def fit_link(self, scores: np.ndarray, truth: np.ndarray, smoothing: float | None) -> Link:
        """The best of several heads, and what makes predictions of its scores.

        Args:
            scores: of heads that regress on `matrix`, one a strength (L, N, W), of rows that they have not seen.
        """

    @abstractmethod
    def of_outputs(self, outputs: torch.Tensor) -> torch.Tensor:
        """Predictions (..., W) of what a net puts out."""

    def of_array(self, outputs: np.ndarray) -> np.ndarray:
        """The same of an array, where there is no torch."""
        return self.normalised(outputs)

    @abstractmethod
    def as_targets(self, predicted: np.ndarray, temperature: float, hard: bool) -> np.ndarray:
        """Predictions (N, W) as something to learn from, as `matrix` has it: at a temperature, or the likeliest."""

    @abstractmethod
    def sureness(self, predicted: np.ndarray) -> np.ndarray:
        """Probability of the likeliest answer of each row (N,), of its least sure label."""

    @abstractmethod
    def mixed(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The weighted arithmetic mean of probabilities, or of values, of M members (M, ..., W)."""

    @abstractmethod
    def mixed_runs(self, predicted: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """As `mixed`, evenly, of each run of rows of (V, N, W) that begins at one of `starts` (A,): (V, A, W)."""

    @abstractmethod
    def cells(self, predicted: np.ndarray, truth: np.ndarray) -> Cells:
        """What a mixture of members mixes, cell by cell of what is known: probabilities of the truth, or errors."""

    def loss_of_sum(self, total: np.ndarray, count: int, weights: np.ndarray) -> float:
        """The loss of the mean of `count` members whose cells (C,) sum to `total`, each cell by its weight (C,)."""
        return float(-(weights @ np.log(np.maximum(total, TINY))) + weights.sum() * np.log(count))

    def natural(self, predicted: np.ndarray) -> np.ndarray:
        """Predictions (..., W) in the units in which weighted sums of them are made."""
        return predicted

    @abstractmethod
    def loss_of_natural(self, combined: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
        """The mean loss of weighted sums (N, W) of `natural` predictions, and its slope (N, W)."""

    @abstractmethod
    def drawn(self, predicted: np.ndarray, errors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A truth (N,) or (N, ·) of rows that is as likely as predictions (N, W) say, taken at their word.

        Args:
            errors: `errors` of rows whose truth is known (n, ·); values say nothing of how far off they are.
        """

    @abstractmethod
    def expected_loss(self, predicted: np.ndarray, likely: np.ndarray) -> float:
        """Mean proper loss of predictions (N, W), were the truth as likely as others (N, W) say, or those values."""

    def pooled(self, members: np.ndarray, weights: Sequence[float] | None = None) -> np.ndarray:
        """The mean of the predictions (M, ..., W) of M members, normalised; by weights that sum to one, or even."""
        if weights is None:
            return self.normalised(members.mean(0, dtype=np.float64))
        return self.normalised(np.tensordot(np.asarray(weights), members.astype(np.float64), axes=1))

    def mean_truth(self, truth: np.ndarray) -> np.ndarray:
        """Mean of what is known of the truth (W,), as `matrix` has it."""
        return np.nanmean(self.matrix(truth).astype(np.float64), axis=0)

    @abstractmethod
    def of_shares(self, shares: np.ndarray) -> np.ndarray:
        """Predictions from numbers between 0 and 1 (N, W), such as ranks."""

    def loss(self, predicted: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Mean proper loss of the rows of which something is known; `weights` (N,) say how much each counts."""
        losses = self.losses(predicted, truth)
        known = ~np.isnan(losses)
        if weights is None:
            return float((losses if known.all() else losses[known]).mean())
        return float(np.average(losses[known], weights=weights[known]))

    def calibrated(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Predictions (N, W) at the temperature that suits them best."""
        return self.at_temperature(predicted, self.fit_temperature(predicted, truth))

    def is_valid(self, predicted: np.ndarray) -> bool:
        """Are these numbers, and probabilities that sum to one where they should?"""
        return bool(np.isfinite(self.scored(predicted)).all())

    def least_loss(self, truth: np.ndarray) -> float:
        """The loss of the best predictions that there can be."""
        return 0.0

    def parts(self, truth: np.ndarray) -> list[Part]:
        """What is judged by itself, where several things are: a column each."""
        known = ~np.isnan(truth)
        columns = [(slice(k, k + 1), np.flatnonzero(known[:, k])) for k in range(self.width)]
        return [Part(own, self.only([own.start]), rows, truth[rows, own]) for own, rows in columns]

    def only(self, columns: Sequence[int]) -> Space:
        """The space of some columns alone."""
        return replace(self, names=tuple(self.names[k] for k in columns))

    def there(self, truth: np.ndarray) -> np.ndarray:
        """Which classes or labels each row has, or which values are known of it, a mask (N, W)."""
        return self.matrix(truth) == 1

    def far(self, a: np.ndarray, b: np.ndarray) -> float:
        """How far predictions lie apart at the most: in probability, or in units of the values' scale."""
        return float(np.abs(self.scored(a) - self.scored(b)).max())

    @abstractmethod
    def answered(self, predicted: np.ndarray) -> np.ndarray:
        """What predictions (N, W) say, in the form of the truth: (N,) or (N, ·)."""

    def sure_and_right(self, predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (M,) that were given, and whether what they are of is true (M,): answers, or labels of rows."""
        raise NotImplementedError("there are no probabilities of what is true or not")

    @abstractmethod
    def unscored(self, scored: np.ndarray) -> np.ndarray:
        """Predictions (..., W) from what a metric is given."""

    @abstractmethod
    def errors(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """What is wrong (N, ·), cell by cell of the truth: 1 or 0, or a difference; NaN where that is not known."""

    def spoke(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Which columns (N, W) speak for each answer, of several for the one that costs most; -1: against it."""
        raise NotImplementedError

    def reordered(self, truth: np.ndarray, order: np.ndarray) -> np.ndarray:
        """The truth with that of column `order[k]` (W,) in the place of k."""
        return truth[:, order]


def signs_at(losses: np.ndarray, is_up: np.ndarray) -> np.ndarray:
    """1 or -1 (N, W) in the column of each row that costs most, else 0."""
    shown, rows, worst = np.zeros(losses.shape), np.arange(len(losses)), losses.argmax(1)
    shown[rows, worst] = np.where(is_up[rows, worst], 1, -1)
    return shown


def known_mean(cells: np.ndarray) -> np.ndarray:
    """Mean of each row (N,) over its cells that are numbers (N, W); NaN where none is."""
    known = ~np.isnan(cells)
    count = known.sum(1)
    return np.divide(np.where(known, cells, 0).sum(1), count, out=np.full(len(cells), np.nan), where=count > 0)


def weighted(cells: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Cells (N, W) as often as their row counts, 0 where they are not known."""
    known = np.nan_to_num(np.asarray(cells, np.float64))
    return known if weights is None else known * weights[:, None]
