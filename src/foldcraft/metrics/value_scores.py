"""Scores of values: `truth` is (N, T), NaN where it is not known and left out; `predicted` is (N, T).

`weights` of rows are (N, R), scores (R,); `importance` are the weights of the columns (T,). A column of which nothing
is known is left out of the mean over columns.
"""

import numpy as np

from foldcraft.common.errors import FoldcraftError
from foldcraft.metrics.sums import mean_over, ratio

ROUNDING = 1e-12  # of a sum of squares: what is less is a constant column


def _errors(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The errors (N, T), 0 where the truth is not known, and the weight (T, R) of the rows where it is."""
    known = ~np.isnan(truth)
    return np.where(known, predicted - truth, 0), known.T @ weights


def rmse(
    truth: np.ndarray,
    predicted: np.ndarray,
    weights: np.ndarray,
    importance: np.ndarray | None = None,
    pooled: bool = False,
) -> np.ndarray:
    """Mean over the columns of the root mean squared error of each; pooled: that of all cells together."""
    errors, rows = _errors(truth, predicted, weights)
    squares = (errors**2).T @ weights
    if pooled:
        shares = _shares(truth, importance)
        return np.sqrt(ratio(shares @ squares, shares @ rows, np.nan))
    return mean_over(np.sqrt(ratio(squares, rows)), rows > 0, importance)


def _shares(truth: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    return np.ones(truth.shape[1]) if importance is None else importance


def mae(
    truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray, importance: np.ndarray | None = None
) -> np.ndarray:
    errors, rows = _errors(truth, predicted, weights)
    return mean_over(ratio(np.abs(errors).T @ weights, rows), rows > 0, importance)


def rmsle(
    truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray, importance: np.ndarray | None = None
) -> np.ndarray:
    """Root mean squared error of log(1 + value); a prediction below 0 counts as 0."""
    if (truth < 0).any():
        raise FoldcraftError(
            f"rmsle takes no values below 0, and {np.nanmin(truth):g} is among the true ones",
            "competition.metric",
            "another metric, such as rmse or mae, takes them",
        )
    return rmse(np.log1p(truth), np.log1p(np.maximum(predicted, 0)), weights, importance)


def r2(
    truth: np.ndarray,
    predicted: np.ndarray,
    weights: np.ndarray,
    importance: np.ndarray | None = None,
    pooled: bool = False,
) -> np.ndarray:
    """Mean over the columns of 1 - squared errors / squared distances to the column's mean.

    Pooled: one of all cells, around the mean of all, each column by its weight. Of a constant truth it is 1 where all
    is right, else 0.
    """
    errors, rows = _errors(truth, predicted, weights)
    left = (errors**2).T @ weights
    centred = _centred(truth, pooled)
    sums, squares = centred.T @ weights, (centred**2).T @ weights
    if pooled:
        shares = _shares(truth, importance)
        left, rows, sums, squares = (shares @ each for each in (left, rows, sums, squares))
    spread = _spread(rows, sums, squares)
    found = np.where(spread > 0, 1 - ratio(left, spread), left == 0)
    return np.where(rows > 0, found, np.nan) if pooled else mean_over(found, rows > 0, importance)


def _centred(values: np.ndarray, pooled: bool = False) -> np.ndarray:
    """Less their mean, of each column or of all: squares of large numbers would drown what they differ by; NaN is 0."""
    known = ~np.isnan(values)
    filled = np.where(known, values, 0)
    axis = None if pooled else 0
    return np.where(known, filled - ratio(filled.sum(axis), known.sum(axis)), 0)


def _spread(rows: np.ndarray, sums: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Squared distances to the mean, from sums; exactly 0 where all values are the same."""
    spread = squares - ratio(sums**2, rows)
    return np.where(spread > ROUNDING * squares, spread, 0)


def pearson(
    truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray, importance: np.ndarray | None = None
) -> np.ndarray:
    """Mean correlation over the columns whose truth varies; 0 where none does, or all that is predicted is the same."""
    rows = (~np.isnan(truth)).T @ weights
    true, said = _centred(truth), _centred(np.where(np.isnan(truth), np.nan, predicted))
    sums = [side.T @ weights for side in (true, said)]
    spread = [_spread(rows, total, (side**2).T @ weights) for side, total in zip((true, said), sums, strict=True)]
    together = (true * said).T @ weights - ratio(sums[0] * sums[1], rows)
    found = np.clip(ratio(together, np.sqrt(spread[0] * spread[1])), -1, 1)
    return mean_over(found, spread[0] > 0, importance, empty=0.0)


def rmse_over_std(
    truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray, importance: np.ndarray | None = None
) -> np.ndarray:
    """Mean over the columns whose truth varies of RMSE / standard deviation of the truth."""
    errors, rows = _errors(truth, predicted, weights)
    centred = _centred(truth)
    spread = _spread(rows, centred.T @ weights, (centred**2).T @ weights)
    return mean_over(np.sqrt(ratio((errors**2).T @ weights, spread)), spread > 0, importance)
