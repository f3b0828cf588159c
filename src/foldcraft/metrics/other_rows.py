"""What so many other rows of the same kind would score: how far that lies from the score of the rows that there are."""

from dataclasses import dataclass

import numpy as np

from foldcraft.common.errors import FoldcraftError
from foldcraft.metrics.bootstrap import bootstrap_confusions, bootstrap_scores
from foldcraft.metrics.intervals import LEVEL, REPEATS, with_unseen_errors
from foldcraft.metrics.metric import Metric

MOST_TIMES = 10  # as many groups as there are; more would hardly vary any more


@dataclass(frozen=True)
class Spread:
    """Of the scores of draws of other rows.

    Attributes:
        shift: of their mean against that of draws of as many rows as there are: macro F1 of few rows is lower.
        below, above: how far the ends of 95 % of them lie from their mean, 0 or more.
    """

    shift: float
    below: float
    above: float


def spread(
    metric: Metric,
    truth: np.ndarray,
    predicted: np.ndarray,
    groups: np.ndarray,
    rows: int,
    row_weights: np.ndarray | None = None,
    seed: int = 0,
) -> Spread:
    """How the score of so many other rows varies, by draws of whole groups with replacement.

    Args:
        truth, predicted: as the metric takes them, of the N rows that there are.
        groups: group of each row (N,).
        rows: how many other rows there are.
        row_weights: how much each row counts (N,); left out: all alike.
    """
    count = len(np.unique(groups))
    drawn = int(np.clip(round(rows * count / len(groups)), 1, MOST_TIMES * count))
    about = (metric, truth, predicted, groups, row_weights)
    as_many = _scores(*about, count, seed)
    try:
        others = _scores(*about, drawn, seed + 1)
    except FoldcraftError:
        if metric.draws is None:
            raise
        # A host's own code cannot score so few rows; then the error of a mean, which shrinks with the root of them.
        others = as_many.mean() + (as_many - as_many.mean()) * np.sqrt(count / drawn)
    mean = others.mean()
    low, high = np.quantile(others, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Spread(float(mean - as_many.mean()), float(max(mean - low, 0)), float(max(high - mean, 0)))


def _scores(
    metric: Metric,
    truth: np.ndarray,
    predicted: np.ndarray,
    groups: np.ndarray,
    row_weights: np.ndarray | None,
    drawn: int,
    seed: int,
) -> np.ndarray:
    """Scores (R,) of draws of so many groups, with errors that were not seen where the metric counts errors."""
    if not metric.of_confusion:
        return bootstrap_scores(metric, truth, [predicted], groups, REPEATS, seed, row_weights, drawn)[0]
    chunks = bootstrap_confusions(truth, [predicted], groups, REPEATS, seed, row_weights, drawn)
    counts = np.concatenate([each[0] for each in chunks])
    share = drawn / len(np.unique(groups))
    return metric.of_confusion(with_unseen_errors(counts, truth, groups, seed, row_weights, share))
