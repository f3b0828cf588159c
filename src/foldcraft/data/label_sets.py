"""Folds of rows with several labels each: iterative stratification that keeps groups whole."""

import numpy as np


def iterative_folds(labels: np.ndarray, units: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The fold of each row (N,), int64: every fold gets its share of every label, units stay whole.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011), with whole units in place of rows: the
    label with the fewest rows left is dealt first, its largest units before the others, each to the fold that lacks
    most of that label, of equals to the one that lacks most rows.

    Args:
        labels: 0 and 1 (N, L).
        units: what must stay in one fold (N,): the group of each row, or its id.
    """
    names, unit = np.unique(units, return_inverse=True)
    rng = np.random.default_rng(seed)
    wants = np.zeros((len(names), labels.shape[1] + 1))  # rows of each label in a unit; last, all rows
    np.add.at(wants, unit, np.column_stack([labels, np.ones(len(labels))]))
    wants = wants[:, wants.any(0)]
    lacks = np.tile(wants.sum(0) / count, (count, 1))
    fold_of = np.full(len(names), -1)
    while (left := np.flatnonzero(fold_of < 0)).size:
        remaining = wants[left].sum(0)
        label = int(np.where(remaining > 0, remaining, np.inf).argmin())
        own = rng.permutation(left[wants[left, label] > 0])
        for one in own[np.argsort(-wants[own, label], kind="stable")]:
            fold_of[one] = _neediest(lacks, label, rng)
            lacks[fold_of[one]] -= wants[one]
    return fold_of[unit]


def _neediest(lacks: np.ndarray, label: int, rng: np.random.Generator) -> int:
    """The fold that lacks most of a label; of equals the one that lacks most rows, then any."""
    best = np.flatnonzero(lacks[:, label] >= lacks[:, label].max() - 1e-9)
    best = best[lacks[best, -1] >= lacks[best, -1].max() - 1e-9]
    return int(rng.choice(best))
