"""Which test-time views of an image to average, chosen on out-of-fold predictions of all of them.

Greedy policy search on the log-loss (arXiv 2002.09103), held on a short leash: the image as it is keeps half of the
weight at the least, for a mean gain of test-time augmentation hides many right answers that became wrong (2011.11156).
"""

from collections.abc import Callable, Sequence

import numpy as np

from foldcraft.metrics.spaces import Space

IDENTITY = "identity"
MOST = 4  # views that are averaged


def choose(
    views: Sequence[str],
    predicted: np.ndarray,
    truth: np.ndarray,
    space: Space,
    ways: int = 1,
    cost: Callable[[np.ndarray], float] | None = None,
) -> tuple[float, ...]:
    """A weight for each view; those that are not used get zero.

    Where images are combined to answers in several ways, the views of one of them are used: of the one that costs
    least, of equals the first.

    Args:
        views: of the first way, then of the next, and so on.
        predicted: (V * ways, N, K), in the space.
        cost: of calibrated predictions (N, K); left out: their loss.
    """
    if ways == 1:
        return choose_views(views, predicted, truth, space)
    count = len(views) // ways
    every = []
    for way in range(ways):
        own = slice(way * count, (way + 1) * count)
        weights = np.zeros(len(views))
        weights[own] = choose_views(views[:count], predicted[own], truth, space)
        every.append(weights)
    cost = cost or (lambda found: space.loss(found, truth))
    costs = [cost(space.calibrated(average(predicted, weights, space), truth)) for weights in every]
    return tuple(every[int(np.argsort(costs, kind="stable")[0])].tolist())


def choose_views(views: Sequence[str], predicted: np.ndarray, truth: np.ndarray, space: Space) -> tuple[float, ...]:
    """A weight for each view; those that are not used get zero.

    Starts from the image as it is and takes the view that lowers the calibrated loss most, while one does. The
    others share what the image as it is leaves them evenly.

    Args:
        predicted: (V, N, K), in the space.
        truth: of the rows, as the space has it.
    """
    taken = [first(views)]
    best = _loss(_weights(taken, len(views)), predicted, truth, space)
    while len(taken) < min(MOST, len(views)):
        left = [k for k in range(len(views)) if k not in taken]
        losses = {k: _loss(_weights([*taken, k], len(views)), predicted, truth, space) for k in left}
        found = min(losses, key=lambda k: losses[k])
        if losses[found] >= best:
            break
        best = losses[found]
        taken.append(found)
    return tuple(_weights(taken, len(views)).tolist())


def first(views: Sequence[str]) -> int:
    """The place of the image as it is."""
    return views.index(IDENTITY) if IDENTITY in views else 0


def only_first(views: Sequence[str]) -> tuple[float, ...]:
    """Weights with which the image as it is stands alone."""
    return tuple(_weights([first(views)], len(views)).tolist())


def average(predicted: np.ndarray, weights: Sequence[float], space: Space) -> np.ndarray:
    """Predictions (N, K) from those (V, N, K) of the views, by weights (V,)."""
    used = np.flatnonzero(weights)
    return space.pooled(predicted[used], np.array(weights)[used])


def _weights(taken: Sequence[int], count: int) -> np.ndarray:
    weights = np.zeros(count)
    weights[list(taken)] = 0.5 / max(1, len(taken) - 1)
    weights[taken[0]] = 0.5 if len(taken) > 1 else 1.0
    return weights


def _loss(weights: np.ndarray, predicted: np.ndarray, truth: np.ndarray, space: Space) -> float:
    return space.loss(space.calibrated(average(predicted, weights, space), truth), truth)
