"""Values in their own units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from foldcraft.metrics.space import Cells, Link, Space, known_mean, signs_at, weighted

if TYPE_CHECKING:
    import torch

SLOPES = (0.05, 20.0)  # by which values may be stretched about their mean


@dataclass(frozen=True)
class ValueSpace(Space):
    """Values in their own units. Truth is values (N, W), NaN where not known.

    Attributes:
        centre, scale: mean and standard deviation of each column over the training rows; heads learn in these units.
    """

    form: ClassVar[str] = "values"
    loss_name: ClassVar[str] = "squared error"
    by_default: ClassVar[str] = "the values as they are"
    centre: np.ndarray = field(default_factory=lambda: np.zeros(0), compare=False)
    scale: np.ndarray = field(default_factory=lambda: np.zeros(0), compare=False)

    def only(self, columns: Sequence[int]) -> ValueSpace:
        """The space of some columns alone."""
        names, own = tuple(self.names[k] for k in columns), list(columns)
        return replace(self, names=names, centre=self.centre[own], scale=self.scale[own])

    def normalised(self, predicted: np.ndarray) -> np.ndarray:
        return predicted

    def scored(self, predicted: np.ndarray) -> np.ndarray:
        return predicted

    def losses(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return known_mean(((predicted - truth) / self.scale) ** 2)

    def at_temperature(self, predicted: np.ndarray, temperature: float) -> np.ndarray:
        """Values nearer to their mean (above 1), or further from it."""
        return self.centre + (np.asarray(predicted, np.float64) - self.centre) / temperature

    def fit_temperature(self, predicted: np.ndarray, truth: np.ndarray, smoothing: float | None = None) -> float:
        """By least squares over all columns in units of their scale."""
        given, wanted = (predicted - self.centre) / self.scale, (truth - self.centre) / self.scale
        slope = np.nansum(given * wanted) / max(np.nansum(np.where(np.isnan(wanted), 0, given**2)), 1e-12)
        return float(1 / np.clip(slope, *SLOPES))

    def baseline(self, truth: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        known = weighted(~np.isnan(truth), weights)
        return (known * np.nan_to_num(truth)).sum(0) / np.maximum(known.sum(0), 1e-12)

    def matrix(self, truth: np.ndarray) -> np.ndarray:
        return ((truth - self.centre) / self.scale).astype(np.float32)

    def fit_link(self, scores: np.ndarray, truth: np.ndarray, smoothing: float | None) -> Link:
        """Scores are in units of the scale; with `smoothing` they are taken as they come."""
        wanted, known = np.nan_to_num(self.matrix(truth)), ~np.isnan(truth)
        given = np.where(known, np.asarray(scores, np.float64), 0)
        slope = np.ones((len(scores), self.width))
        if smoothing is None:
            slope = (given * wanted).sum(1) / np.maximum((given**2).sum(1), 1e-12)
        slope = np.clip(slope, *SLOPES)
        best = (((given * slope[:, None] - wanted) ** 2) * known).sum(1).argmin(0)
        every = np.arange(self.width)
        return Link(best, slope[best, every].astype(np.float32), np.zeros(self.width, np.float32))

    def drawn(self, predicted: np.ndarray, errors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """As far off as known rows are; whole rows of errors, for columns err together. NaN where these are NaN."""
        return predicted - errors[rng.integers(len(errors), size=len(predicted))] * self.scale

    def expected_loss(self, predicted: np.ndarray, likely: np.ndarray) -> float:
        return float((((predicted - likely) / self.scale) ** 2).mean())

    def mixed(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.tensordot(weights, members, axes=1)

    def mixed_runs(self, predicted: np.ndarray, starts: np.ndarray) -> np.ndarray:
        counts = np.diff([*starts, predicted.shape[1]])
        return np.add.reduceat(predicted, starts, axis=1) / counts[:, None]

    def cells(self, predicted: np.ndarray, truth: np.ndarray) -> Cells:
        rows, columns = np.nonzero(~np.isnan(truth))
        errors = ((predicted - truth) / self.scale)[rows, columns]
        return Cells(errors, rows, np.ones(len(rows)))

    def loss_of_sum(self, total: np.ndarray, count: int, weights: np.ndarray) -> float:
        return float(weights @ (total / count) ** 2)

    def of_shares(self, shares: np.ndarray) -> np.ndarray:
        raise NotImplementedError("ranks say nothing of the size of values")

    def natural(self, predicted: np.ndarray) -> np.ndarray:
        return (predicted - self.centre) / self.scale

    def loss_of_natural(self, combined: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
        wanted = (truth - self.centre) / self.scale
        known = ~np.isnan(wanted)
        share = known / max(known.sum(), 1)
        error = np.where(known, combined - wanted, 0)
        return float((share * error**2).sum()), 2 * share * error

    def as_targets(self, predicted: np.ndarray, temperature: float, hard: bool) -> np.ndarray:
        """The values in units of their scale; values are neither hard nor soft."""
        return self.matrix(predicted)

    def sureness(self, predicted: np.ndarray) -> np.ndarray:
        return np.ones(len(predicted))

    def of_outputs(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs * outputs.new_tensor(self.scale) + outputs.new_tensor(self.centre)

    def of_array(self, outputs: np.ndarray) -> np.ndarray:
        return outputs * np.asarray(self.scale) + np.asarray(self.centre)

    def there(self, truth: np.ndarray) -> np.ndarray:
        return ~np.isnan(truth)

    def far(self, a: np.ndarray, b: np.ndarray) -> float:
        return float(np.abs((a - b) / self.scale).max())

    def answered(self, predicted: np.ndarray) -> np.ndarray:
        return predicted

    def unscored(self, scored: np.ndarray) -> np.ndarray:
        return scored

    def errors(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Differences in units of the scale."""
        return (predicted - truth) / self.scale

    def spoke(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """1 where a value is too high, -1 where it is too low."""
        errors = self.errors(predicted, truth)
        return signs_at(np.nan_to_num(np.abs(errors), nan=-1), errors > 0)

    @classmethod
    def of(cls, names: Sequence[str], truth: np.ndarray) -> ValueSpace:
        """With the units of some training rows (N, W); a column that does not vary has a scale of 1."""
        scale = np.nanstd(truth, axis=0)
        return cls(tuple(names), np.nanmean(truth, axis=0), np.where(scale > 0, scale, 1.0))
