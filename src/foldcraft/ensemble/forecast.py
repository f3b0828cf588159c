"""What the leaderboard will say of a blend: its hidden score, forecast with a 95 % interval.

The nested score says what one fold model each scores on rows that it has not seen. The hidden score is that of the mean
of all fold models (`averaging`), on other rows, of which there are more or fewer (`metrics.other_rows`). Both the rows
that were judged and those that will be are a draw, so both vary; neither side of the interval is as wide as the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foldcraft.ensemble.averaging import Averaging, averaging
from foldcraft.ensemble.nested import BlendMember, BlendSelection, Labels
from foldcraft.ensemble.shift import Shift
from foldcraft.metrics.metric import Metric
from foldcraft.metrics.other_rows import Spread, spread

DOUBT = 0.5  # of the gain of averaging: its error as a share of it


@dataclass(frozen=True)
class Forecast:
    """A forecast of the hidden score, and what it is made of.

    Attributes:
        value, low, high: with the ends of the 95 % interval.
        rows: of the test set, or its answers.
        nested: score of the blend, the mean over folds where the order of rows counts.
        averaging: what averaging fold models gains.
        spread: of the score of so many test rows.
        shift: what the audit says of the test set; None: nothing.
    """

    value: float
    low: float
    high: float
    rows: int
    nested: float
    averaging: Averaging
    spread: Spread
    shift: Shift | None = None

    def __str__(self) -> str:
        ends = f"{self.low:.4f} to {self.high:.4f}"
        return f"{self.value:.4f} ({ends}, 95 %, {self.rows} test rows)"

    @property
    def words(self) -> list[str]:
        """What it is made of, a line each."""
        parts = [f"nested score {self.nested:.4f}"]
        if self.averaging.models > 1:
            parts.append(f"{self.averaging.gain:+.4f} by averaging {self.averaging.models} fold models")
        parts.append(f"{self.spread.shift:+.4f} by the number of test rows")
        return [", ".join(parts), *([self.shift.words] if self.shift else [])]


def forecast(
    selection: BlendSelection,
    truth: Labels,
    mean: Sequence[BlendMember],
    by_fold: Sequence[Sequence[BlendMember]],
    rows: int,
    shift: Shift | None = None,
) -> Forecast:
    """What a blend will score on the test set.

    Args:
        truth: of the out-of-fold rows that the blend was judged by.
        mean: what the means of the members' fold models say of test rows.
        by_fold: what the members' models of each fold say of the same rows.
        rows: how many test rows there are.
    """
    chosen, metric = selection.chosen, truth.metric
    nested, score = truth.fold_wise_score(chosen.nested), chosen.score
    gained = averaging(selection, truth, mean, by_fold)
    scored = truth.space.scored(chosen.nested)
    others = spread(metric, truth.targets, scored, truth.units, max(rows, 1), truth.weights)
    value = nested + gained.gain + others.shift
    doubt = DOUBT * gained.gain
    low = value - np.sqrt((score.value - score.low) ** 2 + others.below**2 + doubt**2)
    high = value + np.sqrt((score.high - score.value) ** 2 + others.above**2 + doubt**2)
    if shift is not None:
        low, high = _widened(low, high, shift, truth, nested)
    value, low, high = (float(np.clip(one, *metric.bounds)) for one in (value, low, high))
    return Forecast(value, low, high, rows, nested, gained, others, shift)


def _widened(low: float, high: float, shift: Shift, truth: Labels, nested: float) -> tuple[float, float]:
    """The worse end as if rows unlike all training rows were answered without their image."""
    blind = np.broadcast_to(truth.space.baseline(truth.targets, truth.weights), (len(truth.targets), truth.space.width))
    loss = shift.share * _lost(truth.metric, nested, truth.score(blind))
    return (low - loss, high) if truth.metric.greater_is_better else (low, high + loss)


def _lost(metric: Metric, nested: float, blind: float) -> float:
    """How much worse answers without an image are; 0 where they are not, or have no score."""
    return max(metric.sign * (nested - blind), 0.0) if blind == blind else 0.0
