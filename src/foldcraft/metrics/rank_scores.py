"""Scores that look at the order of rows only: areas under curves, average precision, correlation of ranks.

Equal predictions are one step of a curve, and share their rank. `weights` of rows are (N, R), scores (R,).
"""

import numpy as np

from foldcraft.metrics.sums import mean_over, ratio


def _steps(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows from the lowest score to the highest, and where in them a new score begins."""
    order = np.argsort(score)
    return order, np.flatnonzero(np.diff(score[order], prepend=np.nan))


def _step_sums(own: np.ndarray, score: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (S, R) of rows of a kind, `own` (N,), and of all others at each score, the lowest first."""
    order, level = _steps(score)
    mine = np.where(own[order][:, None], weights[order], 0)
    inside = np.add.reduceat(mine, level)
    return inside, np.add.reduceat(weights[order] - mine, level)


def _area(own: np.ndarray, score: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The area under the curve, and which weightings (R,) have both kinds of rows."""
    inside, outside = _step_sums(own, score, weights)
    pairs = inside.sum(0) * outside.sum(0)
    return ratio((inside * (outside.cumsum(0) - outside / 2)).sum(0), pairs), pairs > 0


def roc_auc(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean one-vs-rest area over the classes that have both kinds of rows; 0.5 where none has."""
    areas, asked = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    for k, score in enumerate(probabilities.T):
        area, has_both = _area(truth == k, score, weights)
        areas += area
        asked += has_both
    return ratio(areas, asked, empty=0.5)


def partial_auc(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, min_tpr: float) -> np.ndarray:
    """The area between a true positive rate and the curve, of the second of two classes: 1 - min_tpr at the best.

    Counted from the lowest score on: the share of negative rows passed, over the share of positive rows passed, up to
    1 - min_tpr of these. Where one kind of rows lacks, what guessing has: half the square of that.
    """
    if probabilities.shape[1] != 2:
        raise ValueError(f"partial_auc is made for 2 classes, not {probabilities.shape[1]}")
    inside, outside = _step_sums(truth == 1, probabilities[:, 1], weights)
    most = 1 - min_tpr
    missed, spared = ratio(inside, inside.sum(0)), ratio(outside, outside.sum(0))
    left = np.clip(most - (missed.cumsum(0) - missed), 0, missed)  # of a step, up to the limit
    area = (left * (spared.cumsum(0) - spared + spared * ratio(left, missed) / 2)).sum(0)
    return np.where(inside.sum(0) * outside.sum(0) > 0, area, most**2 / 2)


def mean_auc(
    truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray, importance: np.ndarray | None = None
) -> np.ndarray:
    """Mean area over the labels that have both kinds of rows; 0.5 where none has. Truth is (N, L), NaN not known."""
    found = [_area(own == 1, score, w) for own, score, w in _known(truth, predicted, weights)]
    return mean_over(*map(np.array, zip(*found, strict=True)), importance, empty=0.5)


def mean_average_precision(
    truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray, importance: np.ndarray | None = None
) -> np.ndarray:
    """Mean of average precision over the labels that any row has. Truth is (N, L), NaN not known."""
    parts, counted = [], []
    for own, score, w in _known(truth, predicted, weights):
        inside, outside = (each[::-1] for each in _step_sums(own == 1, score, w))
        hits = inside.cumsum(0)
        precision = ratio(hits, hits + outside.cumsum(0))
        parts.append(ratio((inside * precision).sum(0), inside.sum(0)))
        counted.append(inside.sum(0) > 0)
    return mean_over(np.array(parts), np.array(counted), importance)


def spearman(
    truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray, importance: np.ndarray | None = None
) -> np.ndarray:
    """Mean rank correlation over the columns whose truth varies; 0 where none does. Truth is (N, T), NaN not known."""
    parts, counted = [], []
    for own, values, w in _known(truth, predicted, weights):
        true, said = _ranks(own, w), _ranks(values, w)
        spread = [(w * side**2).sum(0) for side in (true, said)]
        parts.append(ratio((w * true * said).sum(0), np.sqrt(spread[0] * spread[1])))
        counted.append(spread[0] > 0)
    return mean_over(np.array(parts), np.array(counted), importance, empty=0.0)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ranks (N, R) as if rows were repeated as often as they weigh, around their mean; exactly 0 for equal values."""
    order, level = _steps(values)
    mass = np.add.reduceat(weights[order], level)
    middle = mass.cumsum(0) - mass / 2 - mass.sum(0) / 2
    middle[:, (mass > 0).sum(0) < 2] = 0
    ranks = np.empty(weights.shape)
    ranks[order] = np.repeat(middle, np.diff(level, append=len(values)), axis=0)
    return ranks


def _known(
    truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Truth, prediction and weights of the rows of each column where the truth is known."""
    rows = [~np.isnan(column) for column in truth.T]
    return [(truth[known, k], predicted[known, k], weights[known]) for k, known in enumerate(rows)]
