"""Scores of several labels a row, each there or not: `truth` is (N, L) of 0, 1 and NaN, which is not known.

`predicted` are probabilities (N, L), each by itself; a label is said where its own is above one half. What is not known
is left out. `weights` of rows are (N, R), scores (R,).
"""

import numpy as np

from foldcraft.metrics.sums import mean_over, ratio, surprise


def _labels(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is known, true and said, as numbers (N, L); what is not known is neither true nor said."""
    known = ~np.isnan(truth)
    return known.astype(np.float64), (truth == 1).astype(np.float64), ((predicted > 0.5) & known).astype(np.float64)


def macro_f1(
    truth: np.ndarray,
    predicted: np.ndarray,
    weights: np.ndarray,
    importance: np.ndarray | None = None,
    zero_division: float = 0,
) -> np.ndarray:
    """Mean of the labels' F1; `zero_division` is that of a label that is neither true nor said in any row."""
    known, true, said = _labels(truth, predicted)
    each = ratio(2 * ((true * said).T @ weights), (true + said).T @ weights, zero_division)
    return mean_over(each, known.T @ weights > 0, importance)


def micro_f1(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray, zero_division: float = 0) -> np.ndarray:
    """F1 of all cells together."""
    known, true, said = _labels(truth, predicted)
    found = ratio(2 * ((true * said).sum(1) @ weights), (true + said).sum(1) @ weights, zero_division)
    return np.where(known.sum(1) @ weights > 0, found, np.nan)


def sample_f1(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray, zero_division: float = 0) -> np.ndarray:
    """Mean of the rows' F1; `zero_division` is that of a row without any label, true or said."""
    known, true, said = _labels(truth, predicted)
    each = ratio(2 * (true * said).sum(1), (true + said).sum(1), zero_division)
    return _mean_of_rows(each, known, weights)


def accuracy(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The share of rows with all known labels right."""
    known, true, said = _labels(truth, predicted)
    return _mean_of_rows((true == said).all(1), known, weights)


def _mean_of_rows(each: np.ndarray, known: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Over the rows of which anything is known."""
    judged = known.any(1)
    return ratio((each * judged) @ weights, judged @ weights, np.nan)


def log_loss(
    truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray, importance: np.ndarray | None = None
) -> np.ndarray:
    """Mean over the labels of the log-loss of each."""
    known = ~np.isnan(truth)
    lost = np.where(truth == 1, surprise(predicted), surprise(1 - predicted)) * known
    rows = known.T @ weights
    return mean_over(ratio(lost.T @ weights, rows), rows > 0, importance)


def lwlrap(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Label-weighted label-ranking average precision.

    For every true label of a row, the share of true ones among the labels of that row that are as likely or likelier;
    of these the mean over all true labels of all rows.
    """
    known, true, _ = _labels(truth, predicted)
    precision = np.zeros(len(truth))
    for k in range(truth.shape[1]):
        before = (predicted >= predicted[:, [k]]) * known
        precision += true[:, k] * ratio((before * true).sum(1), before.sum(1))
    return ratio(precision @ weights, true.sum(1) @ weights, np.nan)
