"""What a metric is: a score that knows its direction, and what it is to be given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from foldcraft.metrics.class_scores import confusion

Wants = Literal["labels", "probabilities", "values", "ranks"]
OfConfusion = Callable[[np.ndarray], np.ndarray]
OfWeights = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Metric:
    """A score of predictions against the truth; what both are says the kind of target.

    | kind | truth | predicted |
    |---|---|---|
    | single, ordinal | class indices (N,) | probabilities (N, K) |
    | soft | distributions (N, K) | probabilities (N, K) |
    | multilabel | 0, 1 or NaN, not known (N, L) | probabilities (N, L), each by itself |
    | regression | values (N, T), NaN not known | values (N, T) |
    | multioutput | class indices (N, H), -1 not known | probabilities of the heads side by side |

    `greater_is_better` is the one place where the direction is written. A metric has one of two forms, each of which
    scores many weightings of the rows at once. A score is NaN where nothing is known that it could judge.

    Attributes:
        kinds: of targets that it scores.
        wants: what the competition takes; ranks: some labels a row, the likeliest first.
        of_confusion: of one label a row: from counts (..., K, K), truth by prediction, perhaps fractional, to (...).
        of_weights: from truth, predicted and weights of rows (N, R) to scores (R,).
        classes: number of classes it is made for; None: any.
        bounds: the lowest and the highest score that there is.
        by_order: does it look at the order of rows only, as an area under a curve does? What comes from different folds
            need not be on one scale, and averages of ranks suit it.
        options: what was chosen of it, in words; "" for nothing.
        draws: most draws of a bootstrap, where a score takes long; None: any number.
        code: digest of the file of a host's own metric; "" for the others.
        notes: what there is to say of it, a line each.
    """

    name: str
    greater_is_better: bool
    kinds: tuple[str, ...]
    wants: Wants
    of_confusion: OfConfusion | None = None
    of_weights: OfWeights | None = None
    classes: int | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    by_order: bool = False
    options: str = ""
    draws: int | None = None
    code: str = ""
    notes: tuple[str, ...] = ()

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.greater_is_better else -1

    @property
    def title(self) -> str:
        """Its name and what was chosen of it, as people read it."""
        return f"{self.name} ({self.options})" if self.options else self.name

    def __call__(self, truth: np.ndarray, predicted: np.ndarray, row_weights: np.ndarray | None = None) -> float:
        """The score; where the metric wants labels they are taken from the probabilities.

        Args:
            row_weights: how much each row counts (N,); left out: all alike.
        """
        if self.of_confusion:
            return float(self.of_confusion(confusion(truth, predicted, row_weights)))
        weights = np.ones(len(truth)) if row_weights is None else np.asarray(row_weights, np.float64)
        return float(self.of_weights(truth, predicted, weights[:, None])[0])

    def better(self, a: float, b: float) -> bool:
        """Is score `a` better than score `b`?"""
        return a > b if self.greater_is_better else a < b
