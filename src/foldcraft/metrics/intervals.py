"""How sure a score is: a bootstrap interval over whole groups that also holds for few groups, few errors, many classes.

The plain percentile interval misses in three ways on the data that this project is for. Of 500 rows without an error
it says [1, 1]. With a handful of groups in a class it is too narrow. And macro F1 of few rows is too low on average,
once in the sample and once more in each draw. docs/experiments.md has the coverage of both, simulated.
"""

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from foldcraft.metrics.bootstrap import bootstrap_confusions, bootstrap_scores
from foldcraft.metrics.scores import Metric

LEVEL = 0.95
REPEATS = 500  # draws
MOST_SHIFTED = 0.99  # of all draws on one side of the score: then it is no matter of a shift any more


def bootstrap_interval(
    metric: Metric,
    truth: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    repeats: int = REPEATS,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of the metric; what is drawn is said in `bootstrap_scores`.

    Bias-corrected percentiles (Efron and Tibshirani 1993, section 14.3), expanded for few groups (Hesterberg 2015,
    arXiv 1411.5279, section 5.2), and, where the metric counts errors, a lower end that allows for those that were not
    seen yet: half an error, as in Jeffreys' interval of a proportion.

    Args:
        truth: class indices (N,).
        probabilities: (N, K).
        groups: group of each row (N,).
    """
    score = metric(truth, probabilities)
    if metric.of_confusion:
        counts = np.concatenate([c[0] for c in bootstrap_confusions(truth, [probabilities], groups, repeats, seed)])
        drawn = metric.of_confusion(counts)
        unseen = metric.of_confusion(_with_unseen_errors(counts, truth, groups, seed))
    else:
        drawn = unseen = bootstrap_scores(metric, truth, [probabilities], groups, repeats, seed)[0]
    lower, upper = _percentiles(drawn, score, _degrees_of_freedom(truth, groups))
    low = min(np.quantile(drawn, lower), np.quantile(unseen, lower), score)
    return float(low), float(max(np.quantile(drawn, upper), score))


def _percentiles(drawn: np.ndarray, score: float, freedom: float) -> np.ndarray:
    below = ((drawn < score).mean() + (drawn <= score).mean()) / 2
    shift = ndtri(np.clip(below, 1 - MOST_SHIFTED, MOST_SHIFTED))
    reach = np.sqrt((freedom + 1) / freedom) * stdtrit(freedom, (1 + LEVEL) / 2)
    return ndtr([2 * shift - reach, 2 * shift + reach])


def _degrees_of_freedom(truth: np.ndarray, groups: np.ndarray) -> float:
    """Satterthwaite's, of a mean over classes: a rare class counts as much as the others, and is known worst."""
    pairs = np.unique(np.stack([truth, np.unique(groups, return_inverse=True)[1]]), axis=1)
    units = np.maximum(np.unique(pairs[0], return_counts=True)[1], 2)
    return float((1 / units).sum() ** 2 / (1 / units**2 / (units - 1)).sum())


def _with_unseen_errors(counts: np.ndarray, truth: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Confusion matrices (R, K, K) of the draws with about half a group more of rows, all of them wrong."""
    repeats, classes, _ = counts.shape
    rng = np.random.default_rng([seed, 1])
    true = np.repeat(np.arange(classes), np.bincount(truth, minlength=classes))[rng.integers(len(truth), size=repeats)]
    said = (true + rng.integers(1, classes, size=repeats)) % classes
    more = np.zeros_like(counts)
    more[np.arange(repeats), true, said] = unseen_errors(repeats, groups, rng)
    return counts + more


def unseen_errors(size: int | tuple[int, ...], groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How many rows may be wrong that were not seen: half a group in the mean, as in Jeffreys' prior."""
    return rng.gamma(0.5, size=size) * len(groups) / len(np.unique(groups))
