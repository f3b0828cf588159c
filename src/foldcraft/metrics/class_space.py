"""Log-probabilities of classes, of one label or of several side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from foldcraft.metrics import calibration
from foldcraft.metrics.calibration import MOST_ROWS
from foldcraft.metrics.logits import log_softmax, logsumexp, softmax
from foldcraft.metrics.space import TINY, Cells, Link, Part, Space, weighted

if TYPE_CHECKING:
    import torch


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
        counts = weighted(self.matrix(truth), weights).sum(0)
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

    def drawn(self, predicted: np.ndarray, errors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Of shares, whose errors have a column a class, the shares themselves."""
        if not self.widths and errors.shape[1] == self.width:
            return np.exp(predicted)
        said = np.stack([_drawn_classes(predicted[:, own], rng) for own in self.slices], axis=1)
        return said if self.widths else said[:, 0]

    def expected_loss(self, predicted: np.ndarray, likely: np.ndarray) -> float:
        return -float((np.exp(likely) * predicted).sum(1).mean()) / len(self.slices)

    def mixed(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return logsumexp(members, axis=0, b=np.reshape(weights, (-1, *(1,) * (members.ndim - 1))))

    def mixed_runs(self, predicted: np.ndarray, starts: np.ndarray) -> np.ndarray:
        counts = np.diff([*starts, predicted.shape[1]])
        return np.logaddexp.reduceat(predicted, starts, axis=1) - np.log(counts)[:, None]

    def cells(self, predicted: np.ndarray, truth: np.ndarray) -> Cells:
        if truth.ndim == 1:
            rows = np.arange(len(truth))
            return Cells(np.exp(predicted[rows, truth]), rows, np.ones(len(truth)))
        shares = np.nan_to_num(self.matrix(truth))
        rows, columns = np.nonzero(shares)
        return Cells(np.exp(predicted[rows, columns]), rows, shares[rows, columns].astype(np.float64))

    def of_shares(self, shares: np.ndarray) -> np.ndarray:
        return self.normalised(np.log(shares))

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


def _drawn_classes(log_probs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A class of each row (n,) by log-probabilities (n, K)."""
    return (log_probs + rng.gumbel(size=log_probs.shape)).argmax(1)


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
