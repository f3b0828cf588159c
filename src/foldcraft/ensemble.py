"""From the predictions of several experiments to one: calibrated, averaged in log space, scored honestly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from foldcraft.errors import FoldcraftError
from foldcraft.predictions import Predictions, check_same, log_mean


@dataclass(frozen=True)
class Blend:
    """The mean of calibrated members.

    Attributes:
        ids: OOF rows that every member has predicted (N,).
        oof: log-probabilities of these rows (N, K); the temperatures a row was treated with were fitted on other folds.
        temperatures: of each member, fitted on all rows; they are for the test predictions.
    """

    ids: np.ndarray
    oof: np.ndarray
    temperatures: tuple[float, ...]

    def apply(self, members: Sequence[np.ndarray]) -> np.ndarray:
        """Log-probabilities (N, K) from those of each member (N, K)."""
        return _mean_of(members, self.temperatures)


def fit_temperature(log_probs: np.ndarray, truth: np.ndarray) -> float:
    """The temperature that minimises the log-loss (temperature scaling, arXiv 1706.04599)."""

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(log_probs / np.exp(log_temperature), axis=1)
        return float(-scaled[np.arange(len(truth)), truth].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


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
        fitted = [fit_temperature(log_probs[others], targets[others]) for log_probs in aligned]
        oof[folds == fold] = _mean_of([log_probs[folds == fold] for log_probs in aligned], fitted)
    return Blend(ids, oof, tuple(fit_temperature(log_probs, targets) for log_probs in aligned))


def _mean_of(members: Sequence[np.ndarray], temperatures: Sequence[float]) -> np.ndarray:
    scaled = [log_softmax(log_probs / t, axis=1) for log_probs, t in zip(members, temperatures, strict=True)]
    return log_mean(np.stack(scaled))


def rows_of(member: Predictions, ids: np.ndarray) -> np.ndarray:
    """Log-probabilities of the rows `ids`, in that order, (N, K)."""
    place = {row: number for number, row in enumerate(member.ids.tolist())}
    return member.log_probs[0][[place[row] for row in ids.tolist()]].astype(np.float64)
