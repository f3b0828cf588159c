"""Scores of one label a row: `truth` are class indices (N,), `probabilities` are (N, K), `weights` of rows (N, R).

What is decided by labels alone takes counts (..., K, K), truth by prediction, perhaps fractional, and gives (...).
"""

import numpy as np

from foldcraft.metrics.sums import mean_over, ratio, surprise

ROUNDING = 1e-12  # of a difference of squares, relative to them


def confusion(truth: np.ndarray, probabilities: np.ndarray, row_weights: np.ndarray | None = None) -> np.ndarray:
    """How often each class (row) was taken for each (column) by argmax, (K, K)."""
    classes = probabilities.shape[1]
    cells = np.bincount(truth * classes + probabilities.argmax(1), row_weights, minlength=classes**2)
    return cells.reshape(classes, classes)


def class_scores(counts: np.ndarray, unseen: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of each class, (..., K) each, from counts (..., K, K); 0 where a class is not met.

    Args:
        unseen: so many more errors of each class, (..., K), as rows that it is given or as rows that it lacks.
    """
    hits, true, said = _margins(counts)
    return ratio(hits, said + unseen), ratio(hits, true + unseen), ratio(2 * hits, true + said + unseen)


def _margins(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each class (..., K): rows rightly given it, rows that are of it, rows given it."""
    return np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """Over the classes that are met in truth or prediction."""
    hits, true, said = _margins(counts)
    return ratio(ratio(2 * hits, true + said).sum(-1), (true + said > 0).sum(-1))


def weighted_f1(counts: np.ndarray) -> np.ndarray:
    hits, true, said = _margins(counts)
    return ratio((ratio(2 * hits, true + said) * true).sum(-1), true.sum(-1))


def f1(counts: np.ndarray) -> np.ndarray:
    """Of the second of two classes."""
    _check_two("f1", counts.shape[-1])
    return class_scores(counts)[2][..., 1]


def _check_two(name: str, classes: int) -> None:
    if classes != 2:
        raise ValueError(f"{name} is made for 2 classes, not {classes}")


def accuracy(counts: np.ndarray) -> np.ndarray:
    hits, true, _ = _margins(counts)
    return ratio(hits.sum(-1), true.sum(-1))


def balanced_accuracy(counts: np.ndarray) -> np.ndarray:
    """Over the classes that are met in truth."""
    hits, true, _ = _margins(counts)
    return ratio(ratio(hits, true).sum(-1), (true > 0).sum(-1))


def macro_recall(counts: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """Over the classes that are met in truth or prediction, as scikit-learn has it: one that is only said has 0."""
    hits, true, said = _margins(counts)
    shares = (true + said > 0) * (1.0 if importance is None else importance)
    return ratio((ratio(hits, true) * shares).sum(-1), shares.sum(-1))


def qwk(counts: np.ndarray) -> np.ndarray:
    """Cohen's kappa with squared distances between class indices; 1 where all is of one class and said to be."""
    return _kappa(counts, _distance(counts) ** 2)


def cohen_kappa(counts: np.ndarray) -> np.ndarray:
    """Cohen's kappa, all mistakes alike; 1 where all is of one class and said to be."""
    return _kappa(counts, np.minimum(np.abs(_distance(counts)), 1))


def _distance(counts: np.ndarray) -> np.ndarray:
    place = np.arange(counts.shape[-1])
    return place[:, None] - place


def _kappa(counts: np.ndarray, cost: np.ndarray) -> np.ndarray:
    _, true, said = _margins(counts)
    met = (counts * cost).sum((-2, -1)) * true.sum(-1)
    by_chance = np.einsum("...i,ij,...j->...", true, cost, said)
    return 1 - ratio(met, by_chance)


def mcc(counts: np.ndarray) -> np.ndarray:
    """Matthews correlation of two or more classes; 0 where truth or prediction knows one class only."""
    hits, true, said = _margins(counts)
    total = true.sum(-1)
    spread = [total**2 - (side**2).sum(-1) for side in (true, said)]
    spread = [np.where(each > ROUNDING * total**2, each, 0) for each in spread]
    return ratio(hits.sum(-1) * total - (true * said).sum(-1), np.sqrt(spread[0] * spread[1]))


def ordinal_mae(counts: np.ndarray) -> np.ndarray:
    """Mean distance of class indices."""
    return ratio((counts * np.abs(_distance(counts))).sum((-2, -1)), counts.sum((-2, -1)), np.nan)


def log_loss(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return ratio(surprise(probabilities[np.arange(len(truth)), truth]) @ weights, weights.sum(0), np.nan)


def weighted_log_loss(
    truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, importance: np.ndarray | None = None
) -> np.ndarray:
    """Each class's mean log-loss, and of these the mean over the classes that are met in truth."""
    classes = np.arange(probabilities.shape[1])
    own = (truth == classes[:, None]).astype(np.float64)
    rows = own @ weights
    lost = (own * surprise(probabilities[np.arange(len(truth)), truth])) @ weights
    return mean_over(ratio(lost, rows), rows > 0, importance)


def top_k_accuracy(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, k: int) -> np.ndarray:
    """The share of rows whose class is among the k likeliest."""
    return ratio((_place(truth, probabilities) < k) @ weights, weights.sum(0), np.nan)


def map_at_k(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, k: int) -> np.ndarray:
    """Mean of 1 / place of the class among the k likeliest, 0 where it is none of them."""
    place = _place(truth, probabilities)
    return ratio(np.where(place < k, 1 / (place + 1), 0) @ weights, weights.sum(0), np.nan)


def _place(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How many classes come before the true one, the likeliest first and of equals the first one, as argmax has it."""
    own = probabilities[np.arange(len(truth)), truth][:, None]
    earlier = np.arange(probabilities.shape[1]) < truth[:, None]
    return ((probabilities > own) | ((probabilities == own) & earlier)).sum(1)


def pf1(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """F1 of the second of two classes, with probabilities instead of answers."""
    _check_two("pf1", probabilities.shape[1])
    sure = np.clip(probabilities[:, 1], 0, 1)
    own = (truth == 1).astype(np.float64)
    return ratio(2 * ((sure * own) @ weights), (sure + own) @ weights)


def soft_log_loss(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Cross-entropy with distributions (N, K) for truth."""
    return ratio((truth * surprise(probabilities)).sum(1) @ weights, weights.sum(0), np.nan)


def kl(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean Kullback-Leibler divergence of distributions (N, K) from what was predicted."""
    apart = truth * (surprise(probabilities) - surprise(truth))
    return ratio(apart.sum(1) @ weights, weights.sum(0), np.nan)
