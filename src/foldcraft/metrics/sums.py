"""Ratios and means under many weightings of the rows at once."""

import numpy as np

LEAST = 1e-15  # a probability of which a logarithm is taken, as hosts clip it


def ratio(over: np.ndarray, under: np.ndarray, empty: float = 0.0) -> np.ndarray:
    """`over / under`, and `empty` where nothing is divided by nothing."""
    shape = np.broadcast_shapes(np.shape(over), np.shape(under))
    return np.divide(over, under, out=np.full(shape, float(empty)), where=np.not_equal(under, 0))


def mean_over(
    parts: np.ndarray, counted: np.ndarray, importance: np.ndarray | None, empty: float = np.nan
) -> np.ndarray:
    """Means (R,) of the scores of labels, columns or heads (C, R) over those that count; `empty` where none does.

    Args:
        counted: which of them have a score (C, R).
        importance: their weights (C,); None: all alike.
    """
    shares = counted * (np.ones(len(parts)) if importance is None else importance)[:, None]
    return ratio((np.where(counted, parts, 0) * shares).sum(0), shares.sum(0), empty)


def surprise(probabilities: np.ndarray) -> np.ndarray:
    """The negative logarithm, no more than 34.5: a sure mistake costs much but not all."""
    return -np.log(np.clip(probabilities, LEAST, 1.0))
