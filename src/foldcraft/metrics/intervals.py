"""How sure a score is: a bootstrap interval over whole groups that also holds for few groups, few errors, many classes.

The plain percentile interval misses in three ways on the data that this project is for. Of 500 rows without an error
it says [1, 1]. With a handful of groups in a class it is too narrow. And macro F1 of few rows is too low on average,
once in the sample and once more in each draw. docs/experiments.md has the coverage of both, simulated.
"""

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from foldcraft.metrics.bootstrap import bootstrap_confusions, bootstrap_scores
from foldcraft.metrics.metric import Metric

LEVEL = 0.95
REPEATS = 500  # draws
MOST_SHIFTED = 0.99  # of all draws on one side of the score: then it is no matter of a shift any more


def bootstrap_interval(
    metric: Metric,
    truth: np.ndarray,
    predicted: np.ndarray,
    groups: np.ndarray,
    repeats: int = REPEATS,
    seed: int = 0,
    row_weights: np.ndarray | None = None,
) -> tuple[float, float]:
    """95 % interval of the metric; what is drawn is said in `bootstrap_scores`.

    Bias-corrected percentiles (Efron and Tibshirani 1993, section 14.3), expanded for few groups (Hesterberg 2015,
    arXiv 1411.5279, section 5.2), and, where the metric counts errors, a worse end that allows for those that were not
    seen yet: half an error, as in Jeffreys' interval of a proportion. NaN where there is no score.

    Args:
        truth, predicted: as the metric takes them.
        groups: group of each row (N,).
        row_weights: how much each row counts (N,); left out: all alike.
    """
    score = metric(truth, predicted, row_weights)
    if metric.of_confusion:
        chunks = bootstrap_confusions(truth, [predicted], groups, repeats, seed, row_weights)
        counts = np.concatenate([each[0] for each in chunks])
        drawn = metric.of_confusion(counts)
        unseen = metric.of_confusion(with_unseen_errors(counts, truth, groups, seed, row_weights))
    else:
        drawn = unseen = bootstrap_scores(metric, truth, [predicted], groups, repeats, seed, row_weights)[0]
    drawn, unseen = (np.where(np.isnan(each), score, each) for each in (drawn, unseen))  # as `bootstrap_scores` has it
    lower, upper = _percentiles(drawn, score, _degrees_of_freedom(metric, truth, groups))
    low, high = min(np.quantile(drawn, lower), score), max(np.quantile(drawn, upper), score)
    if metric.greater_is_better:
        return float(min(low, np.quantile(unseen, lower))), float(high)
    return float(low), float(max(high, np.quantile(unseen, upper)))


def _percentiles(drawn: np.ndarray, score: float, freedom: float) -> np.ndarray:
    below = ((drawn < score).mean() + (drawn <= score).mean()) / 2
    shift = ndtri(np.clip(below, 1 - MOST_SHIFTED, MOST_SHIFTED))
    reach = np.sqrt((freedom + 1) / freedom) * stdtrit(freedom, (1 + LEVEL) / 2)
    return ndtr([2 * shift - reach, 2 * shift + reach])


def _degrees_of_freedom(metric: Metric, truth: np.ndarray, groups: np.ndarray) -> float:
    """Satterthwaite's, of a mean over classes: a rare class counts as much as the others, and is known worst."""
    part, row = _parts(metric, truth)
    if not len(part):
        part, row = np.zeros(len(truth), np.int64), np.arange(len(truth))
    pairs = np.unique(np.stack([part, np.unique(groups, return_inverse=True)[1][row]]), axis=1)
    units = np.maximum(np.unique(pairs[0], return_counts=True)[1], 2)
    return float((1 / units).sum() ** 2 / (1 / units**2 / (units - 1)).sum())


def _parts(metric: Metric, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a mean is taken over, and its rows: class and row, label and row that has it, column and row known."""
    if truth.ndim == 1:
        return truth, np.arange(len(truth))
    if "multilabel" in metric.kinds:
        return np.nonzero(truth.T == 1)
    if "regression" in metric.kinds:
        return np.nonzero(~np.isnan(truth.T))
    if "multioutput" in metric.kinds:
        head, row = np.nonzero(truth.T >= 0)
        return head * (truth.max() + 1) + truth[row, head], row
    return np.zeros(len(truth), np.int64), np.arange(len(truth))


def with_unseen_errors(
    counts: np.ndarray,
    truth: np.ndarray,
    groups: np.ndarray,
    seed: int,
    row_weights: np.ndarray | None = None,
    share: float | None = None,
) -> np.ndarray:
    """Confusion matrices (R, K, K) of the draws with about half a group more of rows, all of them wrong.

    Args:
        share: how many rows other draws hold for each row that there is; their errors are whole rows, met by chance.
            None: the rows themselves are drawn.
    """
    repeats, classes, _ = counts.shape
    rng = np.random.default_rng([seed, 1])
    rows = np.argsort(truth, kind="stable")[rng.integers(len(truth), size=repeats)]
    true = truth[rows]
    said = (true + rng.integers(1, classes, size=repeats)) % classes
    more = np.zeros_like(counts)
    weight = 1.0 if row_weights is None else row_weights[rows]
    missed = unseen_errors(repeats, groups, rng)
    missed = missed if share is None else rng.poisson(missed * share)
    more[np.arange(repeats), true, said] = missed * weight
    return counts + more


def unseen_errors(size: int | tuple[int, ...], groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How many rows may be wrong that were not seen: half a group in the mean, as in Jeffreys' prior."""
    return rng.gamma(0.5, size=size) * len(groups) / len(np.unique(groups))
