"""How sure a score is: the same score of many draws of whole groups with replacement."""

from collections.abc import Iterator, Sequence

import numpy as np

from foldcraft.metrics.metric import Metric

CELLS = 2**18  # numbers in the largest array of a chunk of draws: fits into a cache


def bootstrap_scores(
    metric: Metric,
    truth: np.ndarray,
    predicted: Sequence[np.ndarray],
    groups: np.ndarray,
    repeats: int = 500,
    seed: int = 0,
    row_weights: np.ndarray | None = None,
    drawn: int | None = None,
) -> np.ndarray:
    """Scores (P, repeats) of several predictions on the same draws of whole groups with replacement.

    Rows of one group (photos of one person) are not independent, so a bootstrap over rows would be too sure of itself.
    Draws depend on the groups' names and the seed only, not on the order of the rows. One that holds nothing to be
    scored (no row in which a label is known) has the score of all rows.

    Args:
        truth, predicted: as the metric takes them; `predicted` of each of the P.
        groups: group of each row (N,); rows of their own group give the ordinary bootstrap.
        row_weights: how much each row counts (N,); left out: all alike.
        repeats: `metric.draws` where that is less.
        drawn: how many groups a draw holds; left out: as many as there are.
    """
    if metric.of_confusion:
        chunks = bootstrap_confusions(truth, predicted, groups, repeats, seed, row_weights, drawn)
        scores = np.concatenate([metric.of_confusion(counts) for counts in chunks], axis=1)
    else:
        repeats = min(repeats, metric.draws or repeats)
        groups, unit = np.unique(groups, return_inverse=True)
        weight = 1.0 if row_weights is None else row_weights[:, None]
        scores = np.concatenate(
            [
                [metric.of_weights(truth, each, counts[unit] * weight) for each in predicted]
                for counts in _draws(len(groups), repeats, seed, CELLS // len(truth), drawn)
            ],
            axis=1,
        )
    for own, each in zip(scores, predicted, strict=True):
        if np.isnan(own).any():
            own[np.isnan(own)] = metric(truth, each, row_weights)
    return scores


def bootstrap_confusions(
    truth: np.ndarray,
    predicted: Sequence[np.ndarray],
    groups: np.ndarray,
    repeats: int = 500,
    seed: int = 0,
    row_weights: np.ndarray | None = None,
    drawn: int | None = None,
) -> Iterator[np.ndarray]:
    """The confusion matrices behind `bootstrap_scores`, (P, R, K, K) at a time; all R sum to `repeats`."""
    labels = [probabilities.argmax(1) for probabilities in predicted]
    return bootstrap_labels(truth, labels, predicted[0].shape[1], groups, repeats, seed, row_weights, drawn)


def bootstrap_labels(
    truth: np.ndarray,
    labels: Sequence[np.ndarray],
    classes: int,
    groups: np.ndarray,
    repeats: int = 500,
    seed: int = 0,
    row_weights: np.ndarray | None = None,
    drawn: int | None = None,
) -> Iterator[np.ndarray]:
    """`bootstrap_confusions` of class indices (N,) instead of probabilities."""
    from scipy.sparse import csr_array  # a packed blend, which scores nothing, does without

    groups, unit = np.unique(groups, return_inverse=True)
    ones = np.ones(len(truth)) if row_weights is None else np.asarray(row_weights, np.float64)
    by_unit = [
        csr_array((ones, (truth * classes + said, unit)), shape=(classes**2, len(groups)))
        for said in labels  # equal places are summed
    ]
    most = CELLS // max(len(groups), len(labels) * classes**2)
    for counts in _draws(len(groups), repeats, seed, most, drawn):
        yield np.stack([(each @ counts).T.reshape(-1, classes, classes) for each in by_unit])


def _draws(units: int, repeats: int, seed: int, most: int, drawn: int | None = None) -> Iterator[np.ndarray]:
    """How often each unit is drawn in so many draws with replacement, (units, R); R is at most `most`.

    Args:
        drawn: left out: as many as there are units.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, repeats, max(1, most)):
        size = min(max(1, most), repeats - start)
        chosen = rng.integers(units, size=(size, drawn or units))
        places = chosen * size + np.arange(size)[:, None]
        yield np.bincount(places.ravel(), minlength=units * size).reshape(units, size).astype(np.float64)
