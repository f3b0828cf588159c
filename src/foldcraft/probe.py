"""Closed-form heads of all folds on frozen features; the strength of each fold's is chosen on the other folds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import log_softmax

from foldcraft import heads
from foldcraft.calibration import fit_temperature, log_loss
from foldcraft.config import ProbeConfig
from foldcraft.errors import FoldcraftError, suggest
from foldcraft.features import Stage, choose_stages, columns_of
from foldcraft.heads import Heads, Scaling


@dataclass(frozen=True)
class Rows:
    """What a probe learns from and is judged on.

    Attributes:
        stages: of the features' columns.
        learned: features (N, D) of the training images, one array a view or augmented copy.
        plain: features (N, D) of the same images as they are.
        targets: class indices (N,).
        fold: of each row (N,).
        usable: rows that may be learned from (N,), a mask; left out: all. Every row is judged.
    """

    stages: tuple[Stage, ...]
    learned: Sequence[np.ndarray]
    plain: np.ndarray
    targets: np.ndarray
    fold: np.ndarray
    classes: int
    usable: np.ndarray | None = None

    def learns_from(self, fold: int) -> np.ndarray:
        """The rows that a fold's head may learn from, a mask."""
        return (self.fold != fold) if self.usable is None else (self.fold != fold) & self.usable


@dataclass(frozen=True)
class FoldHead:
    """The head of one fold.

    Attributes:
        head: for the columns of the chosen stages.
        strength: of its regularisation.
    """

    head: Heads
    strength: float


@dataclass(frozen=True)
class Probe:
    """A linear probe.

    Attributes:
        stages: names of the stages it sees.
        columns: of the features.
        folds: the head of each fold.
        log_probs: float32 (N, K) of every plain row by the head of its own fold, which never saw it.
    """

    stages: list[str]
    columns: np.ndarray
    folds: list[FoldHead]
    log_probs: np.ndarray

    def predict(self, fold: int, features: Sequence[np.ndarray]) -> np.ndarray:
        """Log-probabilities float32 (V, N, K) by one fold's head, of features (N, D) a view."""
        every = np.arange(len(features[0]))
        logits = [self.folds[fold].head.logits(_chosen(view, every, self.columns))[0] for view in features]
        return torch.stack(logits).log_softmax(2).numpy()


def solve(rows: Rows, config: ProbeConfig, imbalance: str = "none", smoothing: float = 0.0) -> Probe:
    """Solve all folds.

    Augmented copies and views of an image are rows of their own in training, in the fold of their image; a fold's rows
    are predicted by the head that saw none of them, and the strength of that head is chosen by the log-loss of the
    other folds' plain rows, each predicted by its own fold's head. Those heads have seen the fold's rows, so a label
    has that much say in how strong its own head is and how sure, never in which way it points.

    Args:
        smoothing: label smoothing of the loss that the size of the logits is fitted to. Without it a head that makes no
            mistake has no finite size, which is harmless where it predicts and ruinous where a training starts from it.

    Raises:
        FoldcraftError: no such stage; a way of treating rare classes that has no closed form.
    """
    if imbalance == "focal":
        raise FoldcraftError(
            "focal loss has no closed-form head", "train.imbalance", "use weighted or logit_adjusted, or none"
        )
    stages = choose_stages(rows.stages, config.stages)
    _check_weights(config, stages, [stage.name for stage in rows.stages])
    columns = columns_of(rows.stages, stages).numpy()
    solved = [_solve_fold(rows, columns, stages, config, imbalance, fold) for fold in range(rows.fold.max() + 1)]
    log_probs = np.empty((len(rows.targets), rows.classes), np.float32)
    folds = []
    for fold, (fitted, logits) in enumerate(solved):
        others = [other for other in range(len(solved)) if other != fold]
        truth = np.concatenate([rows.targets[rows.fold == other] for other in others])
        logits_of_others = np.concatenate([solved[other][1] for other in others], axis=1)
        best, factor = _best_strength(logits_of_others, truth, smoothing)
        shift = _log_prior(rows, fold) if imbalance == "logit_adjusted" else np.zeros(rows.classes, np.float32)
        log_probs[rows.fold == fold] = log_softmax(logits[best] * factor - shift, axis=1)
        head = Heads(fitted.weight[[best]] * factor, fitted.bias[[best]] * factor - torch.from_numpy(shift))
        folds.append(FoldHead(head, config.strengths[best]))
    return Probe(stages, columns, folds, log_probs)


def _check_weights(config: ProbeConfig, stages: Sequence[str], known: Sequence[str]) -> None:
    for name in config.stage_weights:
        if name not in known:
            raise FoldcraftError(f"no stage {name!r}", "probe.stage_weights", suggest(name, known))
    if not any(config.stage_weights.get(name, 1.0) for name in stages):
        raise FoldcraftError("no stage counts", "probe.stage_weights", "give at least one a weight above nought")


def _log_prior(rows: Rows, fold: int) -> np.ndarray:
    """Log of the share of each class in what a fold learns from; the intercept is free, so it can be taken out last."""
    learned = rows.targets[rows.learns_from(fold)]
    return np.log(np.bincount(learned, minlength=rows.classes).clip(1) / len(learned)).astype(np.float32)


def _best_strength(logits: np.ndarray, truth: np.ndarray, smoothing: float) -> tuple[int, float]:
    """Which strength's logits (L, N, K) have the least log-loss once they are scaled, and that scale.

    Scaled, because what a strength does to the size of the logits says nothing of what it does to their order; ridge
    scores, which lie between nought and one, become logits by it.
    """
    factors = [1 / fit_temperature(one, truth, smoothing) for one in logits]
    scaled = [log_softmax(one * factor, axis=1) for one, factor in zip(logits, factors, strict=True)]
    losses = [log_loss(one, truth) for one in scaled]
    best = int(np.argmin(losses))
    return best, factors[best]


def _solve_fold(
    rows: Rows, columns: np.ndarray, stages: Sequence[str], config: ProbeConfig, imbalance: str, fold: int
) -> tuple[Heads, np.ndarray]:
    """Heads of all strengths, learned without a fold, and their logits (L, n, K) of the fold's rows."""
    train, valid = rows.learns_from(fold), rows.fold == fold
    features = torch.cat([_chosen(view, train, columns) for view in rows.learned])
    targets = torch.from_numpy(rows.targets[train]).repeat(len(rows.learned))
    widths = [stage.width for stage in rows.stages if stage.name in stages]
    scaling = Scaling.of(features, widths, [config.stage_weights.get(name, 1.0) for name in stages])
    weights = _row_weights(targets, rows.classes) if imbalance in ("weighted", "sampler") else None
    fitted = heads.fit(features, targets, rows.classes, config.strengths, config.solver, scaling, weights)
    return fitted, fitted.logits(_chosen(rows.plain, valid, columns)).numpy()


def _chosen(features: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> torch.Tensor:
    picked = np.arange(len(rows))[rows]  # a mask or indices
    if len(columns) == features.shape[1]:
        return torch.from_numpy(features[picked].astype(np.float32))
    return torch.from_numpy(features[np.ix_(picked, columns)].astype(np.float32))


def _row_weights(targets: torch.Tensor, classes: int) -> torch.Tensor:
    """Weights with which every class counts the same."""
    return 1 / torch.bincount(targets, minlength=classes).clamp_min(1).float()[targets]
