"""Logits and probabilities without overflow; in NumPy alone, for a packed blend answers where SciPy may be missing."""

import numpy as np


def log_softmax(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Logarithms of what `softmax` gives, shaped as `values`."""
    shifted = values - _largest(values, axis)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def softmax(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Probabilities that sum to one along an axis, shaped as `values`."""
    raised = np.exp(values - _largest(values, axis))
    return raised / raised.sum(axis=axis, keepdims=True)


def logsumexp(values: np.ndarray, axis: int, b: np.ndarray | None = None) -> np.ndarray:
    """Logarithm of the sum of exponentials along an axis, each times `b` where that is given; none below zero."""
    largest = _largest(values, axis)
    raised = np.exp(values - largest)
    with np.errstate(divide="ignore"):
        return np.log((raised if b is None else raised * b).sum(axis=axis)) + largest.squeeze(axis)


def expit(values: np.ndarray) -> np.ndarray:
    """The logistic function, shaped as `values`."""
    return np.exp(-np.logaddexp(0, -np.asarray(values)))


def _largest(values: np.ndarray, axis: int) -> np.ndarray:
    """Along an axis, which stays; 0 where that is not finite."""
    found = np.max(values, axis=axis, keepdims=True)
    return np.where(np.isfinite(found), found, np.zeros_like(found))
