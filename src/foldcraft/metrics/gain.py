"""How much better one of two is on the same rows, and how sure that is."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from foldcraft.metrics.bootstrap import bootstrap_scores
from foldcraft.metrics.metric import Metric

REALLY = 2.0  # standard errors above which a difference is taken for more than chance
HARDLY = 0.01  # what is below it, with all its uncertainty, is hardly worth the trouble


@dataclass(frozen=True)
class Gain:
    """A difference of two scores, or log-losses, on the same rows; positive is better.

    Attributes:
        error: its standard error.
    """

    value: float
    error: float

    def __iter__(self) -> Iterator[float]:
        """So that both can be taken at once: value, error = gain."""
        return iter((self.value, self.error))

    @property
    def is_real(self) -> bool:
        """Is it more than two standard errors above 0?"""
        return self.value > REALLY * self.error

    @property
    def is_real_loss(self) -> bool:
        """Is it more than two standard errors below 0?"""
        return self.value < -REALLY * self.error

    @property
    def is_small(self) -> bool:
        """Can it hardly be more than one hundredth?"""
        return self.value + REALLY * self.error < HARDLY


def gain_in_score(
    metric: Metric,
    truth: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    groups: np.ndarray,
    repeats: int = 200,
    seed: int = 0,
    row_weights: np.ndarray | None = None,
) -> Gain:
    """How much better `a` is than `b`, whatever the metric's direction; the error by a bootstrap over whole groups.

    Args:
        truth: as the metric takes it.
        a, b: what two models predict.
        groups: of the rows (N,).
        row_weights: how much each row counts (N,); left out: all alike.
    """
    drawn = bootstrap_scores(metric, truth, [a, b], groups, repeats, seed, row_weights)
    better = metric.sign * (metric(truth, a, row_weights) - metric(truth, b, row_weights))
    return Gain(better, float(np.std(drawn[0] - drawn[1])))


def gain_in_log_loss(truth: np.ndarray, a: np.ndarray, b: np.ndarray, groups: np.ndarray) -> Gain:
    """How much lower the log-loss of `a` is than that of `b`; the error over whole groups.

    Args:
        truth: class indices (N,).
        a, b: log-probabilities (N, K) of two models.
        groups: of the rows (N,).
    """
    rows = np.arange(len(truth))
    gains = a[rows, truth] - b[rows, truth]
    _, group = np.unique(groups, return_inverse=True)
    sums = np.bincount(group, gains - gains.mean())
    return Gain(float(gains.mean()), float(np.sqrt((sums**2).sum()) / len(truth)))
