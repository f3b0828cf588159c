"""Scores of several labels a row, each of one class: `truth` is (N, H), class indices, -1 where not known.

`predicted` are the probabilities of the heads side by side, `widths` classes a head. Each head is scored by itself, on
the rows where its label is known; the score is the mean over the heads. `weights` of rows are (N, R), scores (R,).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from foldcraft.metrics import class_scores
from foldcraft.metrics.sums import mean_over, ratio, surprise


def _heads(
    truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray, widths: Sequence[int]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Truth, probabilities and weights of each head, where its label is known."""
    if truth.shape[1] != len(widths) or predicted.shape[1] != sum(widths):
        raise ValueError(f"widths {tuple(widths)} do not fit {truth.shape[1]} labels, {predicted.shape[1]} outputs")
    for head, part in enumerate(np.split(predicted, np.cumsum(widths)[:-1], axis=1)):
        known = truth[:, head] >= 0
        yield truth[known, head], part[known], weights[known]


def _of_labels(
    score: Callable[[np.ndarray], np.ndarray],
    truth: np.ndarray,
    predicted: np.ndarray,
    weights: np.ndarray,
    widths: Sequence[int],
    importance: np.ndarray | None = None,
) -> np.ndarray:
    """The mean over the heads of a score of counts."""
    from scipy.sparse import csr_array  # a packed blend, which scores nothing, does without

    parts, rows = [], []
    for own, probabilities, w in _heads(truth, predicted, weights, widths):
        classes = probabilities.shape[1]
        cell = own * classes + probabilities.argmax(1)
        places = csr_array((np.ones(len(own)), (cell, np.arange(len(own)))), shape=(classes**2, len(own)))
        parts.append(score((places @ w).T.reshape(-1, classes, classes)))
        rows.append(w.sum(0))
    return mean_over(np.array(parts), np.array(rows) > 0, importance)


mean_accuracy = partial(_of_labels, class_scores.accuracy)
macro_recall = partial(_of_labels, class_scores.macro_recall)
macro_f1 = partial(_of_labels, class_scores.macro_f1)


def log_loss(
    truth: np.ndarray,
    predicted: np.ndarray,
    weights: np.ndarray,
    widths: Sequence[int],
    importance: np.ndarray | None = None,
) -> np.ndarray:
    parts, rows = [], []
    for own, probabilities, w in _heads(truth, predicted, weights, widths):
        rows.append(w.sum(0))
        parts.append(ratio(surprise(probabilities[np.arange(len(own)), own]) @ w, rows[-1]))
    return mean_over(np.array(parts), np.array(rows) > 0, importance)
