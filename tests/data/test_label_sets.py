"""Folds of rows with several labels: every label in its share, groups whole."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from foldcraft.data.label_sets import iterative_folds


def uneven(fold: np.ndarray, labels: np.ndarray, count: int) -> float:
    """Mean distance of a fold's number of rows with a label to its share."""
    there = np.stack([labels[fold == k].sum(0) for k in range(count)])
    return float(np.abs(there - labels.sum(0) / count).mean())


def drawn(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rare and frequent labels, some together more often than by chance, and groups of one to four rows."""
    rng = np.random.default_rng(seed)
    common = rng.random((rows, 1)) < 0.3
    labels = (rng.random((rows, 6)) < [0.5, 0.3, 0.1, 0.05, 0.02, 0.2]) | (common & (np.arange(6) < 2))
    return labels.astype(np.int64), np.repeat(np.arange(rows), rng.integers(1, 5, rows))[:rows]


@settings(max_examples=30)
@given(rows=st.integers(6, 120), count=st.integers(2, 5), seed=st.integers(0, 99))
def test_every_row_is_in_a_fold_and_groups_stay_whole(rows: int, count: int, seed: int) -> None:
    labels, groups = drawn(rows, seed)
    fold = iterative_folds(labels, groups, count, seed)
    assert set(fold.tolist()) <= set(range(count))
    assert all(len(set(fold[groups == group])) == 1 for group in np.unique(groups))
    np.testing.assert_array_equal(fold, iterative_folds(labels, groups, count, seed))


def test_labels_are_spread_far_more_evenly_than_at_random() -> None:
    ours, random = [], []
    for seed in range(10):
        labels, groups = drawn(600, seed)
        ours.append(uneven(iterative_folds(labels, groups, 5, seed), labels, 5))
        random.append(uneven(np.random.default_rng(seed).integers(0, 5, 600)[groups], labels, 5))
    assert np.mean(ours) < 0.35 * np.mean(random)


def test_the_order_of_rows_changes_no_more_than_their_order() -> None:
    labels, groups = drawn(80, 3)
    order = np.random.default_rng(0).permutation(80)
    np.testing.assert_array_equal(
        iterative_folds(labels[order], groups[order], 4, 0), iterative_folds(labels, groups, 4, 0)[order]
    )
