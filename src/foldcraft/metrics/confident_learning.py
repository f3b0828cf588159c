"""Confident learning (Northcutt, Jiang, Chuang, arXiv 1911.00068): which class a row is confidently taken for."""

import numpy as np


def confident_classes(probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows reach the threshold of a class, a mask (N,), and the likeliest of those classes (N,).

    A class's threshold is the mean probability that its own rows give it.

    Args:
        probabilities: out-of-fold (N, K).
        targets: class indices (N,) as given.
    """
    own = probabilities[np.arange(len(targets)), targets]
    classes = range(probabilities.shape[1])
    # A class without rows can be nobody's true class.
    thresholds = np.array([own[targets == k].mean() if (targets == k).any() else np.inf for k in classes])
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    return reached.max(1) > 0, reached.argmax(1)
