"""Metrics that know their direction and what they want to be given."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import rankdata
from sklearn import metrics as sk

from foldcraft.errors import FoldcraftError, suggest


@dataclass(frozen=True)
class Metric:
    """A score of class probabilities (N, K) against class indices (N,).

    `wants` says whether the competition takes labels or probabilities; `greater_is_better` is the one place where the
    direction is written.
    """

    name: str
    wants: Literal["labels", "probabilities"]
    greater_is_better: bool
    compute: Callable[[np.ndarray, np.ndarray], float]

    def __call__(self, truth: np.ndarray, probabilities: np.ndarray) -> float:
        """The score; labels are taken by argmax where the metric wants labels."""
        given = probabilities.argmax(1) if self.wants == "labels" else probabilities
        return float(self.compute(truth, given))

    def better(self, a: float, b: float) -> bool:
        """Is score `a` better than score `b`?"""
        return a > b if self.greater_is_better else a < b


def _macro_f1(truth: np.ndarray, labels: np.ndarray) -> float:
    return sk.f1_score(truth, labels, average="macro", zero_division=0)


def _weighted_f1(truth: np.ndarray, labels: np.ndarray) -> float:
    return sk.f1_score(truth, labels, average="weighted", zero_division=0)


def _qwk(truth: np.ndarray, labels: np.ndarray) -> float:
    if np.array_equal(truth, labels):
        return 1.0  # where there is one class only, the formula is 0 / 0
    return sk.cohen_kappa_score(truth, labels, weights="quadratic")


def _balanced_accuracy(truth: np.ndarray, labels: np.ndarray) -> float:
    hits = truth == labels
    return float(np.mean([hits[truth == k].mean() for k in np.unique(truth)]))


def _log_loss(truth: np.ndarray, probabilities: np.ndarray) -> float:
    picked = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.clip(picked, 1e-15, 1.0)).mean())


def _roc_auc(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean one-vs-rest area over the classes that have both kinds of rows.

    By ranks (Mann and Whitney's U), because a bootstrap asks for it hundreds of times.
    """
    counts = np.bincount(truth, minlength=probabilities.shape[1])
    asked = (counts > 0) & (counts < len(truth))
    own = np.eye(probabilities.shape[1], dtype=bool)[truth]
    ranks = np.where(own, rankdata(probabilities, axis=0), 0).sum(0)
    above = ranks - counts * (counts + 1) / 2
    return float(np.mean(above[asked] / (counts * (len(truth) - counts))[asked])) if asked.any() else 0.5


METRICS = {
    metric.name: metric
    for metric in (
        Metric("macro_f1", "labels", True, _macro_f1),
        Metric("weighted_f1", "labels", True, _weighted_f1),
        Metric("accuracy", "labels", True, lambda truth, labels: float((truth == labels).mean())),
        Metric("balanced_accuracy", "labels", True, _balanced_accuracy),
        Metric("qwk", "labels", True, _qwk),
        Metric("log_loss", "probabilities", False, _log_loss),
        Metric("roc_auc", "probabilities", True, _roc_auc),
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


def bootstrap_interval(
    metric: Metric,
    truth: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    repeats: int = 500,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of the metric, drawing whole groups with replacement.

    Rows of one group (photos of one person) are not independent, so a bootstrap over rows would be too sure of itself.

    Args:
        truth: class indices (N,).
        probabilities: (N, K).
        groups: group of each row (N,); rows of their own group give the ordinary bootstrap.
    """
    scores = [metric(truth[rows], probabilities[rows]) for rows in _draws(groups, repeats, seed)]
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)


def paired_difference(
    metric: Metric,
    truth: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    groups: np.ndarray,
    repeats: int = 200,
    seed: int = 0,
) -> tuple[float, float]:
    """How much better `a` is than `b` on the same rows, and the standard error of that, by a bootstrap over groups.

    Positive means that `a` is better, whatever the metric's direction.

    Args:
        truth: class indices (N,).
        a, b: probabilities (N, K) of two models.
    """
    sign = 1 if metric.greater_is_better else -1
    drawn = [metric(truth[rows], a[rows]) - metric(truth[rows], b[rows]) for rows in _draws(groups, repeats, seed)]
    return sign * (metric(truth, a) - metric(truth, b)), float(np.std(drawn))


def _draws(groups: np.ndarray, repeats: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of as many groups as there are, drawn with replacement, again and again."""
    rng = np.random.default_rng(seed)
    _, number = np.unique(groups, return_inverse=True)
    order = np.argsort(number, kind="stable")
    rows_of = np.split(order, np.cumsum(np.bincount(number))[:-1])
    for _ in range(repeats):
        drawn = rng.integers(len(rows_of), size=len(rows_of))
        yield np.concatenate([rows_of[group] for group in drawn])
