"""From the predictions of several experiments to one: a weighted sum in log space, scored honestly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax

from foldcraft.errors import FoldcraftError
from foldcraft.predictions import Predictions, check_same

HELD = 1.0


@dataclass(frozen=True)
class Blend:
    """A weighted sum of the members' log-probabilities (a logarithmic opinion pool).

    Attributes:
        ids: OOF rows that every member has predicted (N,).
        oof: log-probabilities of these rows (N, K); the weights a row was treated with were fitted on other folds.
        weights: of each member, fitted on all rows; they are for the test predictions.
    """

    ids: np.ndarray
    oof: np.ndarray
    weights: tuple[float, ...]

    def apply(self, members: Sequence[np.ndarray]) -> np.ndarray:
        """Log-probabilities (N, K) from those of each member (N, K)."""
        return _pooled(members, self.weights)

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights, scaled to sum to one; what they lack to it themselves is calibration."""
        return tuple(weight / sum(self.weights) for weight in self.weights)


def fit_temperature(log_probs: np.ndarray, truth: np.ndarray, smoothing: float = 0.0) -> float:
    """The temperature that minimises the log-loss (temperature scaling, arXiv 1706.04599).

    Args:
        smoothing: share of the truth's probability that is spread evenly over the classes.
    """

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(log_probs / np.exp(log_temperature), axis=1)
        own = scaled[np.arange(len(truth)), truth].mean()
        return float(-(1 - smoothing) * own - smoothing * scaled.mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def calibrated(log_probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Log-probabilities (N, K) at the temperature that suits them best."""
    return log_softmax(log_probs / fit_temperature(log_probs, truth), axis=1)


def log_loss(log_probs: np.ndarray, truth: np.ndarray) -> float:
    """Mean negative log-probability of the true classes."""
    return -float(log_probs[np.arange(len(truth)), truth].mean())


def blend(members: Sequence[Predictions], truth: dict[str, int], fold_of: dict[str, int]) -> Blend:
    """Blend experiments' OOF predictions on the rows that all of them have.

    Args:
        members: one `join_folds` an experiment.
        truth: class index of each training id.
        fold_of: fold of each training id.

    Raises:
        FoldcraftError: members were made for other data, folds or classes, or have no row in common.
    """
    for member in members[1:]:
        check_same(members[0], member)
    common = set.intersection(*(set(member.ids.tolist()) for member in members))
    ids = np.array([row for row in members[0].ids.tolist() if row in common])
    if not len(ids):
        names = ", ".join(member.origin.experiment for member in members)
        raise FoldcraftError(f"no row is predicted by all of {names}", mend="train the same folds of each")
    aligned = [rows_of(member, ids) for member in members]
    targets = np.array([truth[row] for row in ids.tolist()])
    folds = np.array([fold_of[row] for row in ids.tolist()])
    oof = np.empty_like(aligned[0])
    for fold in np.unique(folds):
        others = folds != fold if len(np.unique(folds)) > 1 else folds == fold
        fitted = fit_weights([log_probs[others] for log_probs in aligned], targets[others])
        oof[folds == fold] = _pooled([log_probs[folds == fold] for log_probs in aligned], fitted)
    return Blend(ids, oof, tuple(fit_weights(aligned, targets)))


def fit_weights(members: Sequence[np.ndarray], truth: np.ndarray) -> list[float]:
    """Weights, none below nought, that minimise the log-loss of the weighted sum of log-probabilities (N, K).

    As many numbers as there are temperatures in a mean of calibrated members, and that mean is where they start and
    what they are held to, as strongly as `HELD` rows would hold them: few rows say little about unequal shares.
    """
    start = np.array([1 / (len(members) * fit_temperature(member, truth)) for member in members])
    if len(members) == 1:
        return start.tolist()
    stack, rows = np.stack(members), np.arange(len(truth))

    def loss(relative: np.ndarray) -> tuple[float, np.ndarray]:
        log_probs = log_softmax(np.tensordot(relative * start, stack, axes=1), axis=1)
        expected = (np.exp(log_probs)[None] * stack).sum(2).mean(1)
        slope = (expected - stack[:, rows, truth].mean(1)) * start
        held = HELD / len(truth)
        value = -log_probs[rows, truth].mean() + held * ((relative - 1) ** 2).sum() / 2
        return float(value), slope + held * (relative - 1)

    found = minimize(loss, np.ones(len(members)), jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(members))
    return (found.x * start).tolist()


def _pooled(members: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    return log_softmax(np.tensordot(weights, np.stack(members), axes=1), axis=1)


def rows_of(member: Predictions, ids: np.ndarray) -> np.ndarray:
    """Log-probabilities of the rows `ids`, in that order, (N, K)."""
    place = {row: number for number, row in enumerate(member.ids.tolist())}
    return member.log_probs[0][[place[row] for row in ids.tolist()]].astype(np.float64)
