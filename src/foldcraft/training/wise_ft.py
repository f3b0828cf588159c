"""A point between the start of a training and its end (WiSE-FT, arXiv 2109.01903), chosen on held-out rows."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from foldcraft.common.fingerprint import seed_from
from foldcraft.data.targets.target import Target
from foldcraft.predictions.inference import InferenceModel, predict

POINTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # share of the end

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Interpolated:
    """The chosen point.

    Attributes:
        share: of the end of the training; 1 is the end itself, 0 the start.
        oof: log-probabilities (V, N, K) of the held-out rows; each half's at the point that the other half chose, so
            that no row has a say in its own.
        losses: log-loss of each point on all held-out rows, each after its own temperature.
    """

    weights: State
    share: float
    oof: np.ndarray
    losses: dict[float, float]


def between(start: State, end: State, share: float) -> State:
    """Weights on the straight line between two of one net; counters stay those of the end."""
    return {
        name: torch.lerp(start[name].to(value.device), value, share) if value.is_floating_point() else value
        for name, value in end.items()
    }


def choose_point(
    start: State,
    end: State,
    model: nn.Module,
    member: InferenceModel,
    rows: np.ndarray,
    target: Target,
    units: np.ndarray,
) -> Interpolated:
    """Try `POINTS` on the held-out rows.

    Args:
        model: a plain net that takes the weights.
        member: how its images are seen; its model is replaced.
        rows: held-out rows (N,), with their `target` and the groups `units` they belong to.
    """
    predicted = np.stack([_predict(between(start, end, share), model, member, rows) for share in POINTS])
    half = np.array([seed_from("half", str(unit)) % 2 for unit in units])
    oof = np.empty_like(predicted[0])
    for side in (0, 1):
        judges = half != side if (half != side).any() else half == side
        best = int(np.argmin(_losses(predicted[:, :, judges], target.at(judges))))
        oof[:, half == side] = predicted[best, :, half == side].swapaxes(0, 1)
    losses = _losses(predicted, target)
    best = int(np.argmin(losses))
    share = POINTS[best]
    return Interpolated(between(start, end, share), share, oof, dict(zip(POINTS, losses, strict=True)))


def _predict(weights: State, model: nn.Module, member: InferenceModel, rows: np.ndarray) -> np.ndarray:
    net = copy.deepcopy(model)
    net.load_state_dict(weights)
    placed = member.hardware.place(net.eval())
    return predict([replace(member, model=placed)], rows)[0]


def _losses(predicted: np.ndarray, target: Target) -> Sequence[float]:
    """The loss of each point's mean over the views, (P, V, N, K), after its own temperature."""
    space, truth = target.space, target.truth
    return [space.loss(space.calibrated(point.mean(0), truth), truth) for point in predicted]
