"""What predictions are: probabilities of classes, of labels by themselves, or values; pooled, softened and judged.

Predictions are stored in the form in which their mean is the right pool: log-probabilities, log-odds, values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.special import expit, log_softmax, logsumexp, softmax

from foldcraft.metrics import calibration
from foldcraft.metrics.calibration import MOST_ROWS

if TYPE_CHECKING:
    import torch

TINY = 1e-300
NEWTON_STEPS = 25
STEEPEST = 50.0  # slope of a label's scores; beyond it a label is told apart without an error
SLOPES = (0.05, 20.0)  # by which values may be stretched about their mean


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
    def cells(self, predicted: np.ndarray, truth: np.ndarray) -> Cells:
        """What a mixture of members mixes, cell by cell of what is known: probabilities of the truth, or errors."""

    @abstractmethod
    def loss_of_sum(self, total: np.ndarray, count: int, weights: np.ndarray) -> float:
        """The loss of the mean of `count` members whose cells (C,) sum to `total`, each cell by its weight (C,)."""

    @abstractmethod
    def natural(self, predicted: np.ndarray) -> np.ndarray:
        """Predictions (..., W) in the units in which weighted sums of them are made."""

    @abstractmethod
    def loss_of_natural(self, combined: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
        """The mean loss of weighted sums (N, W) of `natural` predictions, and its slope (N, W)."""

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
        return [Part(own, only(self, [own.start]), rows, truth[rows, own]) for own, rows in columns]

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


@dataclass(frozen=True)
class ClassSpace(Space):
    """Log-probabilities of classes, of one label or of several side by side.

    Truth is a class index a row (N,), or a distribution (N, W); of several labels an index each (N, H), -1 where it is
    not known.

    Attributes:
        widths: how many classes each of several labels has; () for one label.
    """

    form: ClassVar[str] = "classes"
    widths: tuple[int, ...] = ()

    @property
    def slices(self) -> list[slice]:
        """The columns of each label."""
        ends = np.cumsum([0, *(self.widths or (self.width,))]).tolist()
        return [slice(*pair) for pair in pairwise(ends)]

    def names_of(self, columns: slice) -> list[str]:
        """The classes of one label, without the label's name before them."""
        names = list(self.names[columns])
        return [name.partition("=")[2] for name in names] if self.widths else names

    def _labels(self, predicted: np.ndarray, truth: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of each label: log-probabilities (n, K) and truth (n,) or (n, K) of the rows of which it is known, a mask."""
        if not self.widths:
            yield predicted, truth, np.ones(len(truth), dtype=bool)
            return
        for columns, own in zip(self.slices, truth.T, strict=True):
            known = own >= 0
            yield predicted[..., columns][known], own[known], known

    def normalised(self, predicted: np.ndarray) -> np.ndarray:
        if not self.widths:
            return log_softmax(predicted, axis=-1)
        return np.concatenate([log_softmax(predicted[..., columns], axis=-1) for columns in self.slices], axis=-1)

    def scored(self, predicted: np.ndarray) -> np.ndarray:
        return np.exp(predicted)

    def losses(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        if not self.widths:
            return _cross_entropy(predicted, truth)
        total, count = np.zeros(len(truth)), np.zeros(len(truth))
        for own, true, known in self._labels(predicted, truth):
            total[known] += _cross_entropy(own, true)
            count += known
        return np.divide(total, count, out=np.full(len(truth), np.nan), where=count > 0)

    def at_temperature(self, predicted: np.ndarray, temperature: float) -> np.ndarray:
        return self.normalised(np.asarray(predicted, np.float64) / temperature)

    def fit_temperature(self, predicted: np.ndarray, truth: np.ndarray, smoothing: float | None = None) -> float:
        if not self.widths and truth.ndim == 1:
            return calibration.fit_temperature(predicted, truth, smoothing)
        some = slice(None, None, max(1, -(-len(truth) // MOST_ROWS)))
        parts = [(own, true) for own, true, known in self._labels(predicted[some], truth[some]) if known.any()]

        def loss(log_temperature: float) -> float:
            return sum(_smoothed_loss(own / np.exp(log_temperature), true, smoothing) for own, true in parts)

        return calibration.best_temperature(loss)

    def baseline(self, truth: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        counts = _weighted(self.matrix(truth), weights).sum(0)
        shares = [np.maximum(counts[own], 0.5) for own in self.slices]
        return np.concatenate([np.log(share / share.sum()) for share in shares])

    def matrix(self, truth: np.ndarray) -> np.ndarray:
        if truth.ndim == 2 and not self.widths:
            return truth.astype(np.float32)
        found = np.full((len(truth), self.width), np.nan, np.float32)
        for columns, own in zip(self.slices, truth.T if truth.ndim > 1 else [truth], strict=True):
            known = own >= 0
            found[known, columns] = np.eye(columns.stop - columns.start, dtype=np.float32)[own[known]]
        return found

    def fit_link(self, scores: np.ndarray, truth: np.ndarray, smoothing: float | None) -> Link:
        places, factors = np.zeros(self.width, np.int64), np.ones(self.width, np.float32)
        labels = truth.T if self.widths else [truth]
        for columns, own in zip(self.slices, labels, strict=True):
            known = own >= 0 if self.widths else np.ones(len(own), dtype=bool)
            space = ClassSpace(self.names[columns])
            scaled = [one[known][:, columns] for one in scores]
            by_strength = [1 / space.fit_temperature(one, own[known], smoothing) for one in scaled]
            losses = [
                space.loss(log_softmax(one * factor, axis=1), own[known])
                for one, factor in zip(scaled, by_strength, strict=True)
            ]
            best = int(np.argmin(losses))
            places[columns], factors[columns] = best, by_strength[best]
        return Link(places, factors, np.zeros(self.width, np.float32))

    def mixed(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return logsumexp(members, axis=0, b=np.reshape(weights, (-1, *(1,) * (members.ndim - 1))))

    def cells(self, predicted: np.ndarray, truth: np.ndarray) -> Cells:
        if truth.ndim == 1:
            rows = np.arange(len(truth))
            return Cells(np.exp(predicted[rows, truth]), rows, np.ones(len(truth)))
        shares = np.nan_to_num(self.matrix(truth))
        rows, columns = np.nonzero(shares)
        return Cells(np.exp(predicted[rows, columns]), rows, shares[rows, columns].astype(np.float64))

    def loss_of_sum(self, total: np.ndarray, count: int, weights: np.ndarray) -> float:
        return _log_loss_of_sum(total, count, weights)

    def of_shares(self, shares: np.ndarray) -> np.ndarray:
        return self.normalised(np.log(shares))

    def natural(self, predicted: np.ndarray) -> np.ndarray:
        return predicted

    def loss_of_natural(self, combined: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
        log_probs, wanted = self.normalised(combined), self.matrix(truth)
        known = ~np.isnan(wanted)
        share = known / np.maximum(known.sum(0, keepdims=True), 1) / len(self.slices)
        wanted = np.nan_to_num(wanted)
        return -float((share * wanted * log_probs).sum()), share * (np.exp(log_probs) - wanted)

    def as_targets(self, predicted: np.ndarray, temperature: float, hard: bool) -> np.ndarray:
        parts = [predicted[:, own] for own in self.slices]
        if hard:
            said = [np.eye(one.shape[1], dtype=np.float32)[one.argmax(1)] for one in parts]
        else:
            said = [softmax(one / np.float32(temperature), axis=1).astype(np.float32) for one in parts]
        return np.concatenate(said, axis=1)

    def sureness(self, predicted: np.ndarray) -> np.ndarray:
        return np.min([np.exp(predicted[:, own].max(1)) for own in self.slices], axis=0)

    def of_outputs(self, outputs: torch.Tensor) -> torch.Tensor:
        if not self.widths:
            return outputs.log_softmax(-1)
        whole = outputs.clone()
        for columns in self.slices:
            whole[..., columns] = outputs[..., columns].log_softmax(-1)
        return whole

    def is_valid(self, predicted: np.ndarray) -> bool:
        sums = np.stack([logsumexp(predicted[..., columns], axis=-1) for columns in self.slices])
        return bool(np.all(np.abs(sums) < 1e-3))

    def there(self, truth: np.ndarray) -> np.ndarray:
        """Of shares the largest."""
        matrix = self.matrix(truth)
        return matrix == (1 if self.widths or truth.ndim == 1 else matrix.max(1, keepdims=True))

    def least_loss(self, truth: np.ndarray) -> float:
        """The entropy of shares."""
        return 0.0 if self.widths or truth.ndim == 1 else self.loss(np.log(np.maximum(truth, TINY)), truth)

    def parts(self, truth: np.ndarray) -> list[Part]:
        """Each label."""
        if not self.widths:
            return [Part(slice(0, self.width), self, np.arange(len(truth)), truth)]
        known = [np.flatnonzero(own >= 0) for own in truth.T]
        each = enumerate(zip(self.slices, known, strict=True))
        return [Part(own, ClassSpace(self.names[own]), rows, truth[rows, k]) for k, (own, rows) in each]

    def answered(self, predicted: np.ndarray) -> np.ndarray:
        if not self.widths:
            return predicted.argmax(1)
        return np.stack([predicted[:, own].argmax(1) for own in self.slices], axis=1)

    def unscored(self, scored: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(scored, TINY))

    def sure_and_right(self, predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = [(np.exp(own.max(1)), own.argmax(1) == true) for own, true, _ in self._labels(predicted, truth)]
        return np.concatenate([sure for sure, _ in parts]), np.concatenate([right for _, right in parts])

    def errors(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        if truth.ndim == 2 and not self.widths:
            return np.exp(predicted) - truth
        said = self.answered(predicted).reshape(len(truth), -1)
        true = truth.reshape(said.shape)
        return np.where(true < 0, np.nan, said != true)

    def spoke(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        shown, rows = np.zeros((len(truth), self.width)), np.arange(len(truth))
        if truth.ndim == 2 and not self.widths:
            shown[rows, self.errors(predicted, truth).argmax(1)] = 1  # the class that is given too much
            return shown
        said, losses = self.answered(predicted).reshape(len(truth), -1), np.zeros((len(truth), len(self.slices)))
        if self.widths:
            for head, (columns, true) in enumerate(zip(self.slices, truth.T, strict=True)):
                own = -predicted[rows, columns.start + np.maximum(true, 0)]
                losses[:, head] = np.where(true < 0, -1, own)
        head = losses.argmax(1)
        shown[rows, np.array([own.start for own in self.slices])[head] + said[rows, head]] = 1
        return shown

    def reordered(self, truth: np.ndarray, order: np.ndarray) -> np.ndarray:
        if truth.ndim == 1:
            return np.argsort(order)[truth]
        if not self.widths:
            return truth[:, order]
        parts = [self.matrix(truth)[:, order[own]] for own in self.slices]  # NaN where not known
        return np.stack([np.where(np.isnan(p[:, 0]), -1, np.nan_to_num(p).argmax(1)) for p in parts], axis=1)

    def ranked(self, predicted: np.ndarray, k: int) -> np.ndarray:
        """The k likeliest classes (N, k) of one label, the likeliest first; of equals the first in order."""
        return np.argsort(-predicted, axis=1, kind="stable")[:, :k]


@dataclass(frozen=True)
class LabelSpace(Space):
    """Log-odds of labels, each by itself. Truth is 0, 1 or NaN, not known (N, W)."""

    form: ClassVar[str] = "labels"
    by_default: ClassVar[str] = "each label that is likelier than not"

    def normalised(self, predicted: np.ndarray) -> np.ndarray:
        return predicted

    def scored(self, predicted: np.ndarray) -> np.ndarray:
        return expit(predicted)

    def losses(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return _known_mean(np.logaddexp(0, predicted) - truth * predicted)

    def at_temperature(self, predicted: np.ndarray, temperature: float) -> np.ndarray:
        return np.asarray(predicted, np.float64) / temperature

    def fit_temperature(self, predicted: np.ndarray, truth: np.ndarray, smoothing: float | None = None) -> float:
        some = slice(None, None, max(1, -(-len(truth) // MOST_ROWS)))
        odds, wanted = np.asarray(predicted[some], np.float64), _smoothed(truth[some], smoothing)

        def loss(log_temperature: float) -> float:
            scaled = odds / np.exp(log_temperature)
            return float(np.nanmean(np.logaddexp(0, scaled) - wanted * scaled))

        return calibration.best_temperature(loss)

    def baseline(self, truth: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        known = ~np.isnan(truth)
        yes = _weighted(np.nan_to_num(truth), weights).sum(0) + 0.5
        no = _weighted(known & (truth == 0), weights).sum(0) + 0.5
        return np.log(yes / no)

    def matrix(self, truth: np.ndarray) -> np.ndarray:
        return truth.astype(np.float32)

    def fit_link(self, scores: np.ndarray, truth: np.ndarray, smoothing: float | None) -> Link:
        wanted = _smoothed(truth, smoothing)
        slope, shift = _logistic_lines(np.asarray(scores, np.float64), wanted)
        odds = scores * slope[:, None] + shift[:, None]
        losses = np.nanmean(np.logaddexp(0, odds) - wanted * odds, axis=1)
        best = losses.argmin(0)  # the strength of each label
        every = np.arange(self.width)
        return Link(best, slope[best, every].astype(np.float32), shift[best, every].astype(np.float32))

    def mixed(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        yes, no = (np.tensordot(weights, expit(sign * members), axes=1).clip(TINY) for sign in (1, -1))
        return np.log(yes) - np.log(no)

    def cells(self, predicted: np.ndarray, truth: np.ndarray) -> Cells:
        rows, columns = np.nonzero(~np.isnan(truth))
        sign = 2 * truth[rows, columns] - 1
        return Cells(expit(sign * predicted[rows, columns]), rows, np.ones(len(rows)))

    def loss_of_sum(self, total: np.ndarray, count: int, weights: np.ndarray) -> float:
        return _log_loss_of_sum(total, count, weights)

    def of_shares(self, shares: np.ndarray) -> np.ndarray:
        return np.log(shares) - np.log1p(-shares)

    def natural(self, predicted: np.ndarray) -> np.ndarray:
        return predicted

    def loss_of_natural(self, combined: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
        known, wanted = ~np.isnan(truth), np.nan_to_num(truth)
        share = known / max(known.sum(), 1)
        value = (share * (np.logaddexp(0, combined) - wanted * combined)).sum()
        return float(value), share * (expit(combined) - wanted)

    def as_targets(self, predicted: np.ndarray, temperature: float, hard: bool) -> np.ndarray:
        return (predicted > 0 if hard else expit(predicted / temperature)).astype(np.float32)

    def sureness(self, predicted: np.ndarray) -> np.ndarray:
        return expit(np.abs(predicted)).min(1)

    def of_outputs(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs

    def answered(self, predicted: np.ndarray) -> np.ndarray:
        return (predicted > 0).astype(np.float64)

    def unscored(self, scored: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(scored, TINY)) - np.log(np.maximum(1 - scored, TINY))

    def sure_and_right(self, predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        known = ~np.isnan(truth)
        return expit(predicted[known]), truth[known] == 1

    def errors(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(truth), np.nan, self.answered(predicted) != truth)

    def spoke(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        losses = np.logaddexp(0, predicted) - truth * predicted
        return _signs_at(np.where(np.isnan(losses), -1, losses), predicted > 0)


@dataclass(frozen=True)
class ValueSpace(Space):
    """Values in their own units. Truth is values (N, W), NaN where not known.

    Attributes:
        centre, scale: mean and standard deviation of each column over the training rows; heads learn in these units.
    """

    form: ClassVar[str] = "values"
    loss_name: ClassVar[str] = "squared error"
    by_default: ClassVar[str] = "the values as they are"
    centre: np.ndarray = field(default_factory=lambda: np.zeros(0), compare=False)
    scale: np.ndarray = field(default_factory=lambda: np.zeros(0), compare=False)

    def normalised(self, predicted: np.ndarray) -> np.ndarray:
        return predicted

    def scored(self, predicted: np.ndarray) -> np.ndarray:
        return predicted

    def losses(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return _known_mean(((predicted - truth) / self.scale) ** 2)

    def at_temperature(self, predicted: np.ndarray, temperature: float) -> np.ndarray:
        """Values nearer to their mean (above 1), or further from it."""
        return self.centre + (np.asarray(predicted, np.float64) - self.centre) / temperature

    def fit_temperature(self, predicted: np.ndarray, truth: np.ndarray, smoothing: float | None = None) -> float:
        """By least squares over all columns in units of their scale."""
        given, wanted = (predicted - self.centre) / self.scale, (truth - self.centre) / self.scale
        slope = np.nansum(given * wanted) / max(np.nansum(np.where(np.isnan(wanted), 0, given**2)), 1e-12)
        return float(1 / np.clip(slope, *SLOPES))

    def baseline(self, truth: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        known = _weighted(~np.isnan(truth), weights)
        return (known * np.nan_to_num(truth)).sum(0) / np.maximum(known.sum(0), 1e-12)

    def matrix(self, truth: np.ndarray) -> np.ndarray:
        return ((truth - self.centre) / self.scale).astype(np.float32)

    def fit_link(self, scores: np.ndarray, truth: np.ndarray, smoothing: float | None) -> Link:
        """Scores are in units of the scale; with `smoothing` they are taken as they come."""
        wanted, known = np.nan_to_num(self.matrix(truth)), ~np.isnan(truth)
        given = np.where(known, np.asarray(scores, np.float64), 0)
        slope = np.ones((len(scores), self.width))
        if smoothing is None:
            slope = (given * wanted).sum(1) / np.maximum((given**2).sum(1), 1e-12)
        slope = np.clip(slope, *SLOPES)
        best = (((given * slope[:, None] - wanted) ** 2) * known).sum(1).argmin(0)
        every = np.arange(self.width)
        return Link(best, slope[best, every].astype(np.float32), np.zeros(self.width, np.float32))

    def mixed(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.tensordot(weights, members, axes=1)

    def cells(self, predicted: np.ndarray, truth: np.ndarray) -> Cells:
        rows, columns = np.nonzero(~np.isnan(truth))
        errors = ((predicted - truth) / self.scale)[rows, columns]
        return Cells(errors, rows, np.ones(len(rows)))

    def loss_of_sum(self, total: np.ndarray, count: int, weights: np.ndarray) -> float:
        return float(weights @ (total / count) ** 2)

    def of_shares(self, shares: np.ndarray) -> np.ndarray:
        raise NotImplementedError("ranks say nothing of the size of values")

    def natural(self, predicted: np.ndarray) -> np.ndarray:
        return (predicted - self.centre) / self.scale

    def loss_of_natural(self, combined: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
        wanted = (truth - self.centre) / self.scale
        known = ~np.isnan(wanted)
        share = known / max(known.sum(), 1)
        error = np.where(known, combined - wanted, 0)
        return float((share * error**2).sum()), 2 * share * error

    def as_targets(self, predicted: np.ndarray, temperature: float, hard: bool) -> np.ndarray:
        """The values in units of their scale; values are neither hard nor soft."""
        return self.matrix(predicted)

    def sureness(self, predicted: np.ndarray) -> np.ndarray:
        return np.ones(len(predicted))

    def of_outputs(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs * outputs.new_tensor(self.scale) + outputs.new_tensor(self.centre)

    def there(self, truth: np.ndarray) -> np.ndarray:
        return ~np.isnan(truth)

    def far(self, a: np.ndarray, b: np.ndarray) -> float:
        return float(np.abs((a - b) / self.scale).max())

    def answered(self, predicted: np.ndarray) -> np.ndarray:
        return predicted

    def unscored(self, scored: np.ndarray) -> np.ndarray:
        return scored

    def errors(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Differences in units of the scale."""
        return (predicted - truth) / self.scale

    def spoke(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """1 where a value is too high, -1 where it is too low."""
        errors = self.errors(predicted, truth)
        return _signs_at(np.nan_to_num(np.abs(errors), nan=-1), errors > 0)

    @classmethod
    def of(cls, names: Sequence[str], truth: np.ndarray) -> ValueSpace:
        """With the units of some training rows (N, W); a column that does not vary has a scale of 1."""
        scale = np.nanstd(truth, axis=0)
        return cls(tuple(names), np.nanmean(truth, axis=0), np.where(scale > 0, scale, 1.0))


def of_form(form: str, names: Sequence[str], widths: Sequence[int] = ()) -> Space:
    """The space of that form; of values without their units, which pooling does not need."""
    if form == ClassSpace.form:
        return ClassSpace(tuple(names), tuple(widths))
    return {space.form: space for space in (LabelSpace, ValueSpace)}[form](tuple(names))


def only(space: Space, columns: Sequence[int]) -> Space:
    """The space of some columns alone; of classes, of all of one label's."""
    names = tuple(space.names[k] for k in columns)
    if isinstance(space, ValueSpace):
        return replace(space, names=names, centre=space.centre[list(columns)], scale=space.scale[list(columns)])
    return type(space)(names)


def _signs_at(losses: np.ndarray, is_up: np.ndarray) -> np.ndarray:
    """1 or -1 (N, W) in the column of each row that costs most, else 0."""
    shown, rows, worst = np.zeros(losses.shape), np.arange(len(losses)), losses.argmax(1)
    shown[rows, worst] = np.where(is_up[rows, worst], 1, -1)
    return shown


def _log_loss_of_sum(total: np.ndarray, count: int, weights: np.ndarray) -> float:
    return float(-(weights @ np.log(np.maximum(total, TINY))) + weights.sum() * np.log(count))


def _cross_entropy(log_probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Of each row (n,), from log-probabilities (n, K) and class indices (n,) or distributions (n, K)."""
    if truth.ndim == 1:
        return -log_probs[np.arange(len(truth)), truth]
    return -(truth * log_probs).sum(1)


def _smoothed_loss(scores: np.ndarray, truth: np.ndarray, smoothing: float | None) -> float:
    log_probs = log_softmax(np.asarray(scores, np.float64), axis=1)
    rows, classes = log_probs.shape
    spread = classes / (rows + classes) if smoothing is None else smoothing
    return float((1 - spread) * _cross_entropy(log_probs, truth).mean() - spread * log_probs.mean())


def _smoothed(truth: np.ndarray, smoothing: float | None) -> np.ndarray:
    """0 and 1 a little nearer to each other: each is taken to have been met once more than it was (Platt's targets)."""
    spread = 2 / (len(truth) + 2) if smoothing is None else smoothing
    return truth * (1 - spread) + spread / 2


def _known_mean(cells: np.ndarray) -> np.ndarray:
    """Mean of each row (N,) over its cells that are numbers (N, W); NaN where none is."""
    known = ~np.isnan(cells)
    count = known.sum(1)
    return np.divide(np.where(known, cells, 0).sum(1), count, out=np.full(len(cells), np.nan), where=count > 0)


def _weighted(cells: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Cells (N, W) as often as their row counts, 0 where they are not known."""
    known = np.nan_to_num(np.asarray(cells, np.float64))
    return known if weights is None else known * weights[:, None]


def _logistic_lines(scores: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept (L, W) of a logistic regression of each label on each score alone, by Newton's method.

    Args:
        scores: (L, N, W).
        wanted: between 0 and 1, NaN where not known (N, W).
    """
    known = ~np.isnan(wanted)
    count = np.maximum(known.sum(0), 1)
    mean = np.where(known, scores, 0).sum(1) / count
    centred = np.where(known, scores - mean[:, None], 0)
    spread = np.sqrt((centred**2).sum(1) / count).clip(1e-6)
    x, y = centred / spread[:, None], np.nan_to_num(wanted)
    share = (y * known).sum(0) / count
    slope = np.zeros(mean.shape)
    shift = np.broadcast_to(np.log(share / (1 - share)), mean.shape).copy()
    for _ in range(NEWTON_STEPS):
        p = expit(x * slope[:, None] + shift[:, None])
        error, curve = (p - y) * known, np.maximum(p * (1 - p), 1e-6) * known
        a, b, c = (curve * x**2).sum(1) + 1e-3, (curve * x).sum(1), curve.sum(1) + 1e-6
        g, h = (error * x).sum(1) + 1e-3 * slope, error.sum(1)
        determinant = np.maximum(a * c - b**2, 1e-9)
        slope = np.clip(slope - np.clip((c * g - b * h) / determinant, -2, 2), 0, STEEPEST)
        shift = shift - np.clip((a * h - b * g) / determinant, -2, 2)
    return slope / spread, shift - slope * mean / spread
