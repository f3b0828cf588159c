"""From probabilities to answers: rules fitted on out-of-fold predictions for what the metric rewards.

A rule gives log-probabilities whose largest is the answer. Rules of few numbers, held towards doing nothing: on some
hundred rows a threshold a class fits the noise of those very rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import log_softmax

from foldcraft.common.fingerprint import seed_from
from foldcraft.metrics.bootstrap import bootstrap_labels
from foldcraft.metrics.calibration import MOST_ROWS
from foldcraft.metrics.scores import Metric

DRAWS = 50  # bootstrap draws that a score is averaged over
STRENGTHS = np.linspace(0, 1.5, 31)  # of the prior's adjustment
ENOUGH_ROWS, ENOUGH_UNITS = 8_000, 200  # in all, or of each class, from which on one number a class can be fitted
BAGS, ROUNDS = 10, 2
BIASES = np.linspace(-1, 1, 17)  # steps of one class's bias, nats
RIDGE = 1e-3  # score that a bias of one nat must earn


class Rule(ABC):
    """What is done to log-probabilities (N, K) before the largest is taken."""

    name: ClassVar[str]

    @abstractmethod
    def apply(self, log_probs: np.ndarray) -> np.ndarray:
        """Normalised log-probabilities (N, K) whose largest is the answer."""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Argmax(Rule):
    """The likeliest class: the best there is for accuracy and log-loss, and what every other rule has to beat."""

    name: ClassVar[str] = "argmax"

    def apply(self, log_probs: np.ndarray) -> np.ndarray:
        return log_probs


@dataclass(frozen=True)
class ClassBias(Rule):
    """A number added to the log-probability of each class, `shift` (K,)."""

    name: ClassVar[str] = "bias a class"
    shift: tuple[float, ...]

    def apply(self, log_probs: np.ndarray) -> np.ndarray:
        return log_softmax(log_probs + np.array(self.shift), axis=1)


@dataclass(frozen=True)
class PriorAdjustment(ClassBias):
    """The share `tau` of the classes' log-frequencies is taken out (logit adjustment, arXiv 2007.07314)."""

    name: ClassVar[str] = "prior adjustment"
    tau: float = 0.0

    def __str__(self) -> str:
        return f"{self.name} {self.tau:.2f}"


@dataclass(frozen=True)
class Threshold(ClassBias):
    """The second of two classes is the answer from a probability of `threshold` on."""

    name: ClassVar[str] = "threshold"
    threshold: float = 0.5

    def __str__(self) -> str:
        return f"{self.name} {self.threshold:.3f}"


@dataclass(frozen=True)
class MinExpectedCost(Rule):
    """The class whose expected squared distance to the truth is least: for quadratic weighted kappa."""

    name: ClassVar[str] = "least expected distance"

    def apply(self, log_probs: np.ndarray) -> np.ndarray:
        place = np.arange(log_probs.shape[1])
        return log_softmax(-np.exp(log_probs) @ ((place[:, None] - place) ** 2), axis=1)


def fit(log_probs: np.ndarray, truth: np.ndarray, units: np.ndarray, metric: Metric) -> Rule:
    """The rule that the metric asks for, as strong as the rows bear.

    Args:
        log_probs: (N, K), of rows that nothing before was fitted on.
        truth: class indices (N,).
        units: what may be drawn independently of each other (N,).
    """
    some = slice(None, None, max(1, -(-len(truth) // MOST_ROWS)))
    rows = (log_probs[some], truth[some], units[some])
    if metric.name == "f1":
        return _threshold(*rows, metric)
    if metric.name == "qwk":
        return MinExpectedCost()
    if metric.name in ("macro_f1", "balanced_accuracy"):
        return _biases(*rows, metric) if _is_enough(truth, units) else _prior_adjustment(*rows, metric)
    return Argmax()


def _is_enough(truth: np.ndarray, units: np.ndarray) -> bool:
    fewest = min(len(np.unique(units[truth == k])) for k in np.unique(truth))
    return len(np.unique(units)) >= ENOUGH_ROWS or fewest >= ENOUGH_UNITS


def _prior_adjustment(log_probs: np.ndarray, truth: np.ndarray, units: np.ndarray, metric: Metric) -> Rule:
    prior = np.log(np.bincount(truth, minlength=log_probs.shape[1]).clip(1) / len(truth))
    labels = [(log_probs - tau * prior).argmax(1) for tau in STRENGTHS]
    tau = STRENGTHS[_gentlest(labels, range(len(labels)), log_probs.shape[1], truth, units, metric)]
    return PriorAdjustment(tuple((-tau * prior).tolist()), float(tau)) if tau else Argmax()


def _threshold(log_probs: np.ndarray, truth: np.ndarray, units: np.ndarray, metric: Metric) -> Rule:
    odds = log_probs[:, 1] - log_probs[:, 0]
    cuts = np.unique([0.0, *np.quantile(odds, np.linspace(0.01, 0.99, 99))])
    labels = [(odds >= cut).astype(np.int64) for cut in cuts]
    gentle = np.argsort(np.abs(cuts), kind="stable")
    cut = cuts[_gentlest(labels, gentle, 2, truth, units, metric)]
    return Threshold((0.0, float(-cut)), float(1 / (1 + np.exp(-cut)))) if cut else Argmax()


def _gentlest(
    labels: Sequence[np.ndarray],
    order: Sequence[int],
    classes: int,
    truth: np.ndarray,
    units: np.ndarray,
    metric: Metric,
) -> int:
    """The first, in `order`, that is not really worse than the best: less than one standard error of the difference.

    Scores are means over bootstrap draws, which smooths what single rows would make jump.
    """
    drawn = bootstrap_labels(truth, labels, classes, units, DRAWS)
    scores = metric.sign * np.concatenate([metric.of_confusion(counts) for counts in drawn], axis=1)
    best = int(scores.mean(1).argmax())
    behind = scores[best] - scores
    return next(int(k) for k in order if behind[k].mean() <= behind[k].std())


def _biases(log_probs: np.ndarray, truth: np.ndarray, units: np.ndarray, metric: Metric) -> Rule:
    """A bias a class by coordinate ascent, averaged over bags of units."""
    names, unit = np.unique(units, return_inverse=True)
    found = np.zeros((BAGS, log_probs.shape[1]))
    for bag in range(BAGS):
        drawn = np.random.default_rng(seed_from("bias", bag)).poisson(1.0, len(names))[unit]
        found[bag] = _climb(log_probs, truth, drawn.astype(np.float64), metric)
    shift = found.mean(0) - found.mean()
    return ClassBias(tuple(shift.tolist())) if np.abs(shift).max() > 0 else Argmax()


def _climb(log_probs: np.ndarray, truth: np.ndarray, weights: np.ndarray, metric: Metric) -> np.ndarray:
    classes = log_probs.shape[1]
    bias = np.zeros(classes)
    for _ in range(ROUNDS):
        for k in range(classes):
            others = log_probs + bias
            others[:, k] = -np.inf
            label, height = others.argmax(1), others.max(1) - log_probs[:, k]
            said = np.where(height < BIASES[:, None], k, label)  # (B, N)
            counts = [np.bincount(truth * classes + one, weights, classes**2) for one in said]
            scores = metric.sign * metric.of_confusion(np.reshape(counts, (-1, classes, classes)))
            bias[k] = BIASES[(scores - RIDGE * BIASES**2).argmax()]
    return bias
