"""Labels, heads and columns by themselves: what a target of several of them is good at, and what not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foldcraft.metrics import scores
from foldcraft.metrics.intervals import bootstrap_interval
from foldcraft.metrics.metric import Metric
from foldcraft.metrics.spaces import ClassSpace, Space


@dataclass(frozen=True)
class Measure:
    """How one part is scored.

    Attributes:
        name: as a table has it.
        needs_both: it says something only where the truth takes more than one value.
    """

    name: str
    metric: Metric
    needs_both: bool = False


@dataclass(frozen=True)
class Part:
    """A label, a head or a column.

    Attributes:
        rows: places of the rows where its truth is known (n,).
        columns: of the predictions.
        truth: of these rows, as its measures take it.
        measures: that suit it; the one that is nearest to the competition's metric first.
    """

    name: str
    rows: np.ndarray
    columns: slice
    truth: np.ndarray
    measures: tuple[Measure, ...]

    def given(self, scored: np.ndarray) -> np.ndarray:
        """Its own columns and rows of what a metric takes (N, W)."""
        return scored[self.rows][:, self.columns]

    def suits(self, measure: Measure) -> bool:
        """Does the measure say anything of these rows?"""
        return len(self.rows) > 0 and not (measure.needs_both and len(np.unique(self.truth)) < 2)

    def score(self, measure: Measure, scored: np.ndarray) -> float:
        """By one of its measures, of all that was predicted (N, W); NaN where that says nothing."""
        return measure.metric(self.truth, self.given(scored)) if self.suits(measure) else np.nan

    def interval(self, measure: Measure, scored: np.ndarray, units: np.ndarray) -> tuple[float, float]:
        """95 % interval of the score, by a bootstrap of whole groups (N,)."""
        if not self.suits(measure):
            return np.nan, np.nan
        return bootstrap_interval(measure.metric, self.truth, self.given(scored), units[self.rows], repeats=200)


def _mean_error(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return ((predicted - truth).mean(1) @ weights) / weights.sum(0)


BIAS = Measure("mean error", Metric("mean error", False, ("regression",), "values", of_weights=_mean_error))
OF_LABELS = (
    ("average precision", "mean_average_precision", True),
    ("AUC", "mean_auc", True),
    ("F1", "macro_f1", False),
)
OF_HEADS = (("accuracy", "accuracy", False), ("macro F1", "macro_f1", False))
OF_VALUES = (("RMSE", "rmse", False), ("MAE", "mae", False), ("R2", "r2", True), ("correlation", "pearson", True))
OF_SHARES = (("MAE", "mae", False), ("correlation", "pearson", True))


def _measures(table: Sequence[tuple[str, str, bool]], kind: str, metric: Metric | None) -> tuple[Measure, ...]:
    found = [Measure(name, scores.get(key, kind), needs_both) for name, key, needs_both in table]
    same = [one for one in found if metric is not None and one.metric.name == metric.name]
    return (*same, *(one for one in found if one not in same))


def parts_of(space: Space, truth: np.ndarray, names: Sequence[str], metric: Metric | None = None) -> list[Part]:
    """The parts that are scored by themselves; none of one label a row, which has classes.

    Args:
        truth: as the space has it.
        names: of the labels, heads, columns, or classes that votes are for.
        metric: the competition's.
    """
    if truth.ndim == 1:
        return []
    if isinstance(space, ClassSpace) and space.widths:
        measures, parts = _measures(OF_HEADS, "single", metric), []
        for name, columns, own in zip(names, space.slices, truth.T, strict=True):
            rows = np.flatnonzero(own >= 0)
            parts.append(Part(name, rows, columns, own[rows], measures))
        return parts
    if space.form == "labels":
        measures = _measures(OF_LABELS, "multilabel", metric)
    else:
        measures = (*_measures(OF_VALUES if space.form == "values" else OF_SHARES, "regression", metric), BIAS)
    known = [np.flatnonzero(~np.isnan(own)) for own in truth.T]
    return [
        Part(name, rows, slice(k, k + 1), truth[rows, k : k + 1], measures)
        for k, (name, rows) in enumerate(zip(names, known, strict=True))
    ]
