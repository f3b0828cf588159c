"""Metrics that know their direction and what they want to be given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from foldcraft.common.errors import FoldcraftError, suggest


@dataclass(frozen=True)
class Metric:
    """A score of class probabilities (N, K) against class indices (N,).

    `greater_is_better` is the one place where the direction is written. A metric has one of two forms, each of which
    scores many weightings of the rows at once:

    Attributes:
        of_confusion: of labels: from counts (..., K, K), truth by prediction, perhaps fractional, to scores (...).
        of_weights: of probabilities: from truth (N,), probabilities (N, K) and weights of rows (N, R) to scores (R,).
        classes: number of classes it is made for; None: any.
        bounds: the lowest and the highest score that there is.
    """

    name: str
    greater_is_better: bool
    of_confusion: Callable[[np.ndarray], np.ndarray] | None = None
    of_weights: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    classes: int | None = None
    bounds: tuple[float, float] = (0.0, 1.0)

    @property
    def wants(self) -> Literal["labels", "probabilities"]:
        """What the competition takes."""
        return "labels" if self.of_confusion else "probabilities"

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.greater_is_better else -1

    def __call__(self, truth: np.ndarray, probabilities: np.ndarray) -> float:
        """The score; labels are taken by argmax where the metric wants labels."""
        if self.of_confusion:
            return float(self.of_confusion(confusion(truth, probabilities)))
        return float(self.of_weights(truth, probabilities, np.ones((len(truth), 1)))[0])

    def better(self, a: float, b: float) -> bool:
        """Is score `a` better than score `b`?"""
        return a > b if self.greater_is_better else a < b


def confusion(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How often each class (row) was taken for each (column) by argmax, (K, K)."""
    classes = probabilities.shape[1]
    cells = np.bincount(truth * classes + probabilities.argmax(1), minlength=classes**2)
    return cells.reshape(classes, classes)


def class_scores(counts: np.ndarray, unseen: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of each class, (..., K) each, from counts (..., K, K); 0 where a class is not met.

    Args:
        unseen: so many more errors of each class, (..., K), as rows that it is given or as rows that it lacks.
    """
    hits, true, said = _margins(counts)
    return _ratio(hits, said + unseen), _ratio(hits, true + unseen), _ratio(2 * hits, true + said + unseen)


def _margins(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each class (..., K): rows rightly given it, rows that are of it, rows given it."""
    return np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)


def _ratio(over: np.ndarray, under: np.ndarray, empty: float = 0.0) -> np.ndarray:
    """`over / under`, and `empty` where nothing is divided by nothing."""
    return np.divide(over, under, out=np.full(np.shape(under), empty), where=under != 0)


def _macro_f1(counts: np.ndarray) -> np.ndarray:
    """Over the classes that are met in truth or prediction."""
    hits, true, said = _margins(counts)
    return _ratio(_ratio(2 * hits, true + said).sum(-1), (true + said > 0).sum(-1))


def _weighted_f1(counts: np.ndarray) -> np.ndarray:
    hits, true, said = _margins(counts)
    return _ratio((_ratio(2 * hits, true + said) * true).sum(-1), true.sum(-1))


def _f1(counts: np.ndarray) -> np.ndarray:
    """Of the second of two classes."""
    if counts.shape[-1] != 2:
        raise ValueError(f"f1 is made for 2 classes, not {counts.shape[-1]}")
    return class_scores(counts)[2][..., 1]


def _accuracy(counts: np.ndarray) -> np.ndarray:
    hits, true, _ = _margins(counts)
    return _ratio(hits.sum(-1), true.sum(-1))


def _balanced_accuracy(counts: np.ndarray) -> np.ndarray:
    """Over the classes that are met in truth."""
    hits, true, _ = _margins(counts)
    return _ratio(_ratio(hits, true).sum(-1), (true > 0).sum(-1))


def _qwk(counts: np.ndarray) -> np.ndarray:
    """Cohen's kappa with squared distances between class indices; 1 where all is of one class and said to be."""
    _, true, said = _margins(counts)
    place = np.arange(counts.shape[-1])
    distance = (place[:, None] - place) ** 2
    met = (counts * distance).sum((-2, -1)) * true.sum(-1)
    by_chance = np.einsum("...i,ij,...j->...", true, distance, said)
    return 1 - _ratio(met, by_chance)


def _log_loss(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    picked = probabilities[np.arange(len(truth)), truth]
    return -np.log(np.clip(picked, 1e-15, 1.0)) @ weights / weights.sum(0)


def _roc_auc(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean one-vs-rest area over the classes that have both kinds of rows; 0.5 where none has."""
    areas, asked = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    for k, score in enumerate(probabilities.T):
        order = np.argsort(score)
        level = np.flatnonzero(np.diff(score[order], prepend=np.nan))  # equal scores are one step of the curve
        own = np.where((truth[order] == k)[:, None], weights[order], 0)
        inside = np.add.reduceat(own, level)
        outside = np.add.reduceat(weights[order] - own, level)
        pairs = inside.sum(0) * outside.sum(0)
        areas += _ratio((inside * (outside.cumsum(0) - outside / 2)).sum(0), pairs)
        asked += pairs > 0
    return _ratio(areas, asked, empty=0.5)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("macro_f1", True, _macro_f1),
        Metric("weighted_f1", True, _weighted_f1),
        Metric("f1", True, _f1, classes=2),
        Metric("accuracy", True, _accuracy),
        Metric("balanced_accuracy", True, _balanced_accuracy),
        Metric("qwk", True, _qwk, bounds=(-1.0, 1.0)),
        Metric("log_loss", False, of_weights=_log_loss, bounds=(0.0, np.inf)),
        Metric("roc_auc", True, of_weights=_roc_auc),
    )
}


def get(name: str) -> Metric:
    """The metric of that name.

    Raises:
        FoldcraftError: there is none.
    """
    if name not in METRICS:
        raise FoldcraftError(f"unknown metric {name!r}", "competition.metric", suggest(name, list(METRICS)))
    return METRICS[name]
