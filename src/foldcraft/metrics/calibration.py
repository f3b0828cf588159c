"""How sure predictions are, made to fit how often they are right: temperature scaling, and the log-loss it serves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from foldcraft.metrics.logits import log_softmax

MOST_ROWS = 50_000  # that one number is fitted on; more would not move it by a thousandth


def log_loss(log_probs: np.ndarray, truth: np.ndarray) -> float:
    """Mean negative log-probability of the true classes."""
    return -float(log_probs[np.arange(len(truth)), truth].mean())


def fit_temperature(log_probs: np.ndarray, truth: np.ndarray, smoothing: float | None = None) -> float:
    """The temperature that minimises the log-loss (temperature scaling, arXiv 1706.04599).

    Without smoothing, rows that are all right would call for probabilities of 0 and 1, and the first row that is not
    would cost without bound. So each class is taken to have been met once more than it was, as in Platt scaling.

    Args:
        log_probs: (N, K); of very many rows, some spread evenly over all are looked at.
        truth: class indices (N,).
        smoothing: share of the truth's probability that is spread evenly over the classes; left out: K / (N + K).
    """
    some = slice(None, None, max(1, -(-len(truth) // MOST_ROWS)))
    log_probs, truth = np.asarray(log_probs[some], np.float64), truth[some]
    rows, classes = log_probs.shape
    smoothing = classes / (rows + classes) if smoothing is None else smoothing

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(log_probs / np.exp(log_temperature), axis=1)
        own = scaled[np.arange(len(truth)), truth].mean()
        return float(-(1 - smoothing) * own - smoothing * scaled.mean())

    return best_temperature(loss)


def best_temperature(loss: Callable[[float], float]) -> float:
    """The temperature whose logarithm, between -3 and 3, has the least loss."""
    from scipy.optimize import minimize_scalar  # takes half a second, and who reads tables needs none of it

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def at_temperature(log_probs: np.ndarray, temperature: float) -> np.ndarray:
    """Log-probabilities (N, K) made less sure (above 1) or surer (below 1)."""
    return log_softmax(np.asarray(log_probs, np.float64) / temperature, axis=1)


def calibrated(log_probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Log-probabilities (N, K) at the temperature that suits them best."""
    return at_temperature(log_probs, fit_temperature(log_probs, truth))


def fit_class_bias(log_probs: np.ndarray, truth: np.ndarray, held: float) -> np.ndarray:
    """What is to be added to the log-probability of each class (K,), so that the log-loss is least; its mean is 0.

    Args:
        log_probs: (N, K).
        truth: class indices (N,).
        held: how strongly it is held to 0, in rows; the fewer rows there are, the less is added.
    """
    from scipy.optimize import minimize  # as above

    hits = np.bincount(truth, minlength=log_probs.shape[1])

    def loss(bias: np.ndarray) -> tuple[float, np.ndarray]:
        likely = log_softmax(log_probs + bias, axis=1)
        value = -likely[np.arange(len(truth)), truth].sum() + held * (bias**2).sum() / 2
        return value / len(truth), (np.exp(likely).sum(0) - hits + held * bias) / len(truth)

    return np.asarray(minimize(loss, np.zeros(len(hits)), jac=True, method="L-BFGS-B").x)


@dataclass(frozen=True)
class Bin:
    """Predictions that are about equally sure.

    Attributes:
        sure: mean probability of the answers.
        right: share of them that is right, with its 95 % interval (Wilson) from `low` to `high`.
    """

    rows: int
    sure: float
    right: float
    low: float
    high: float


def reliability(log_probs: np.ndarray, truth: np.ndarray, bins: int = 10) -> list[Bin]:
    """How sure answers are beside how often they are right, in bins of equally many rows, the least sure first.

    Args:
        log_probs: (N, K).
        truth: class indices (N,).
    """
    return reliability_of(np.exp(log_probs.max(1)), log_probs.argmax(1) == truth, bins)


def reliability_of(sure: np.ndarray, right: np.ndarray, bins: int = 10) -> list[Bin]:
    """The same from probabilities (M,) and whether what they are of came true (M,)."""
    from scipy.stats import binomtest  # takes a second, and who reads tables needs none of it

    parts = np.array_split(np.argsort(sure, kind="stable"), min(bins, len(sure)))
    found = []
    for rows in parts:
        hits = int(right[rows].sum())
        interval = binomtest(hits, len(rows)).proportion_ci(method="wilson")
        found.append(Bin(len(rows), float(sure[rows].mean()), hits / len(rows), interval.low, interval.high))
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: the mean distance of sureness to the share that is right, bins weighted by rows."""
    return sum(one.rows * abs(one.sure - one.right) for one in bins) / sum(one.rows for one in bins)
