"""Log-odds of labels, each there or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from foldcraft.metrics import calibration
from foldcraft.metrics.calibration import MOST_ROWS
from foldcraft.metrics.logits import expit
from foldcraft.metrics.space import TINY, Cells, Link, Space, known_mean, signs_at, weighted

if TYPE_CHECKING:
    import torch

NEWTON_STEPS = 25
STEEPEST = 50.0  # slope of a label's scores; beyond it a label is told apart without an error


@dataclass(frozen=True)
class LabelSpace(Space):
    """Log-odds of labels, each by itself. Truth is 0, 1 or NaN, not known (N, W)."""

    form: ClassVar[str] = "labels"
    by_default: ClassVar[str] = "each label that is likelier than not"

    def normalised(self, predicted: np.ndarray) -> np.ndarray:
        return predicted

    def scored(self, predicted: np.ndarray) -> np.ndarray:
        return expit(predicted)

    def losses(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return known_mean(np.logaddexp(0, predicted) - truth * predicted)

    def at_temperature(self, predicted: np.ndarray, temperature: float) -> np.ndarray:
        return np.asarray(predicted, np.float64) / temperature

    def fit_temperature(self, predicted: np.ndarray, truth: np.ndarray, smoothing: float | None = None) -> float:
        some = slice(None, None, max(1, -(-len(truth) // MOST_ROWS)))
        odds, wanted = np.asarray(predicted[some], np.float64), _smoothed(truth[some], smoothing)

        def loss(log_temperature: float) -> float:
            scaled = odds / np.exp(log_temperature)
            return float(np.nanmean(np.logaddexp(0, scaled) - wanted * scaled))

        return calibration.best_temperature(loss)

    def baseline(self, truth: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        known = ~np.isnan(truth)
        yes = weighted(np.nan_to_num(truth), weights).sum(0) + 0.5
        no = weighted(known & (truth == 0), weights).sum(0) + 0.5
        return np.log(yes / no)

    def matrix(self, truth: np.ndarray) -> np.ndarray:
        return truth.astype(np.float32)

    def fit_link(self, scores: np.ndarray, truth: np.ndarray, smoothing: float | None) -> Link:
        wanted = _smoothed(truth, smoothing)
        slope, shift = _logistic_lines(np.asarray(scores, np.float64), wanted)
        odds = scores * slope[:, None] + shift[:, None]
        losses = np.nanmean(np.logaddexp(0, odds) - wanted * odds, axis=1)
        best = losses.argmin(0)  # the strength of each label
        every = np.arange(self.width)
        return Link(best, slope[best, every].astype(np.float32), shift[best, every].astype(np.float32))

    def drawn(self, predicted: np.ndarray, errors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return (rng.random(predicted.shape) < expit(predicted)).astype(np.float64)

    def expected_loss(self, predicted: np.ndarray, likely: np.ndarray) -> float:
        return float((np.logaddexp(0, predicted) - expit(likely) * predicted).mean())

    def mixed(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        yes, no = (np.tensordot(weights, expit(sign * members), axes=1).clip(TINY) for sign in (1, -1))
        return np.log(yes) - np.log(no)

    def mixed_runs(self, predicted: np.ndarray, starts: np.ndarray) -> np.ndarray:
        yes, no = (np.logaddexp.reduceat(-np.logaddexp(0, -odds), starts, axis=1) for odds in (predicted, -predicted))
        return yes - no

    def cells(self, predicted: np.ndarray, truth: np.ndarray) -> Cells:
        rows, columns = np.nonzero(~np.isnan(truth))
        sign = 2 * truth[rows, columns] - 1
        return Cells(expit(sign * predicted[rows, columns]), rows, np.ones(len(rows)))

    def of_shares(self, shares: np.ndarray) -> np.ndarray:
        return np.log(shares) - np.log1p(-shares)

    def loss_of_natural(self, combined: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
        known, wanted = ~np.isnan(truth), np.nan_to_num(truth)
        share = known / max(known.sum(), 1)
        value = (share * (np.logaddexp(0, combined) - wanted * combined)).sum()
        return float(value), share * (expit(combined) - wanted)

    def as_targets(self, predicted: np.ndarray, temperature: float, hard: bool) -> np.ndarray:
        return (predicted > 0 if hard else expit(predicted / temperature)).astype(np.float32)

    def sureness(self, predicted: np.ndarray) -> np.ndarray:
        return expit(np.abs(predicted)).min(1)

    def of_outputs(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs

    def answered(self, predicted: np.ndarray) -> np.ndarray:
        return (predicted > 0).astype(np.float64)

    def unscored(self, scored: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(scored, TINY)) - np.log(np.maximum(1 - scored, TINY))

    def sure_and_right(self, predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        known = ~np.isnan(truth)
        return expit(predicted[known]), truth[known] == 1

    def errors(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(truth), np.nan, self.answered(predicted) != truth)

    def spoke(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        losses = np.logaddexp(0, predicted) - truth * predicted
        return signs_at(np.where(np.isnan(losses), -1, losses), predicted > 0)


def _smoothed(truth: np.ndarray, smoothing: float | None) -> np.ndarray:
    """0 and 1 a little nearer to each other: each is taken to have been met once more than it was (Platt's targets)."""
    spread = 2 / (len(truth) + 2) if smoothing is None else smoothing
    return truth * (1 - spread) + spread / 2


def _logistic_lines(scores: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept (L, W) of a logistic regression of each label on each score alone, by Newton's method.

    Args:
        scores: (L, N, W).
        wanted: between 0 and 1, NaN where not known (N, W).
    """
    known = ~np.isnan(wanted)
    count = np.maximum(known.sum(0), 1)
    mean = np.where(known, scores, 0).sum(1) / count
    centred = np.where(known, scores - mean[:, None], 0)
    spread = np.sqrt((centred**2).sum(1) / count).clip(1e-6)
    x, y = centred / spread[:, None], np.nan_to_num(wanted)
    share = (y * known).sum(0) / count
    slope = np.zeros(mean.shape)
    shift = np.broadcast_to(np.log(share / (1 - share)), mean.shape).copy()
    for _ in range(NEWTON_STEPS):
        p = expit(x * slope[:, None] + shift[:, None])
        error, curve = (p - y) * known, np.maximum(p * (1 - p), 1e-6) * known
        a, b, c = (curve * x**2).sum(1) + 1e-3, (curve * x).sum(1), curve.sum(1) + 1e-6
        g, h = (error * x).sum(1) + 1e-3 * slope, error.sum(1)
        determinant = np.maximum(a * c - b**2, 1e-9)
        slope = np.clip(slope - np.clip((c * g - b * h) / determinant, -2, 2), 0, STEEPEST)
        shift = shift - np.clip((a * h - b * g) / determinant, -2, 2)
    return slope / spread, shift - slope * mean / spread
