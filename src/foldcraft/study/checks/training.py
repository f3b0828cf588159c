"""Does a training step do what it should?"""

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from foldcraft.common.config import Config
from foldcraft.metrics.spaces import Space
from foldcraft.models import finetune
from foldcraft.models.inputs import forward
from foldcraft.study.checks.result import CheckResult, not_applicable, verdict
from foldcraft.study.checks.subject import Subject
from foldcraft.training.losses import FOCUS
from foldcraft.training.trainer import Trainer

NOTHING_TRAINED = "a linear probe is solved in closed form; nothing is trained by steps"
BATCHES = 4  # that the first loss is the mean of
CLOSE = 0.2  # a first loss may be off by this share
SAME_NORM = 0.02
FEW_IMAGES = 8


def one_batch(subject: Subject) -> CheckResult:
    """One batch, without augmentation and noise, is learned by heart."""
    if not subject.trains:
        return not_applicable(NOTHING_TRAINED)
    losses, wanted = subject.by_heart.losses, subject.by_heart.wanted
    count = len(subject.by_heart.trainer.task.train_rows)
    number = f"loss {losses[0]:.2f} to {losses[-1]:.3f} on {count} images in {len(losses)} steps (wanted: {wanted:.2f})"
    hint = "raise optim.lr, or look for labels, gradients or layers that do not reach the loss (check.py --show net)"
    return verdict(losses[-1] <= wanted, number, hint, first=losses[0], last=losses[-1], steps=len(losses))


def first_loss(subject: Subject) -> CheckResult:
    """The loss at the start is that of guessing, or less where the head starts from a probe."""
    if not subject.trains:
        return not_applicable(NOTHING_TRAINED)
    trainer = subject.trainer(
        subject.as_is, train={"batch": min(32, subject.config.train.batch)}, machine={"workers": 0}
    )
    finetune.train_mode(trainer.bare_model, trainer.config.finetune)
    measured, guessed = [], []
    target, rows = trainer.task.target, trainer.task.train_rows
    with torch.no_grad():
        for _, batch in zip(range(BATCHES), trainer.loader, strict=False):
            logits = forward(trainer.model, trainer.inputs_of(trainer.prepare(batch.images), batch.rows))
            measured.append(float(trainer.loss(logits, batch.targets.to(logits.device))))
            guessed.append(guessing(trainer.config, target.learned_space, target.learned[rows], batch.targets.numpy()))
    loss, guess = float(np.mean(measured)), float(np.mean(guessed))
    beside, values = _without_images(target.learned_space, target.learned[rows])
    from_probe = trainer.config.finetune.head_init == "probe"
    sound = loss <= 1.05 * guess if from_probe else abs(loss - guess) <= CLOSE * guess
    wanted = f"at most {guess:.3f}, head from a probe" if from_probe else f"{guess:.3f} ± {CLOSE:.0%}"
    number = f"loss {loss:.3f} (wanted: {wanted}; {beside})"
    hint = "let the head start near zero (see backbones.build), and give the loss raw logits"
    if from_probe and trainer.config.finetune.batchnorm == "train":
        hint = "the head was solved with BatchNorm's kept statistics: finetune.batchnorm=frozen, or head_init=random"
    return verdict(sound, number, hint, loss=loss, guess=guess, **values)


def _without_images(space: Space, truth: np.ndarray) -> tuple[str, dict[str, float]]:
    """What is known of training rows without their images, in words and as numbers."""
    if space.form == "classes" and truth.ndim == 1:
        counts = np.bincount(truth, minlength=space.width)
        share = counts[counts > 0] / counts.sum()
        prior, uniform = float(-(share * np.log(share)).sum()), float(np.log(space.width))
        return f"log K {uniform:.3f}, class prior {prior:.3f}", {"log_classes": uniform, "prior": prior}
    prior = space.loss(np.broadcast_to(space.baseline(truth), (len(truth), space.width)), truth)
    return f"without images {prior:.3f}", {"prior": prior}


def guessing(config: Config, space: Space, truth: np.ndarray, targets: np.ndarray) -> float:
    """Loss of a net whose outputs are all zero; counted apart from the loss itself.

    Args:
        truth: of the training rows, as `space` has it.
        targets: of a batch: class indices (B,), or a matrix (B, W), NaN where it is not known.
    """
    if space.form == "values":
        return _mean_of_known(targets.astype(np.float64) ** 2)
    if space.form == "labels":
        cells = np.where(np.isnan(targets), np.nan, np.log(2))
        if config.train.imbalance == "weighted":
            odds = np.maximum((truth == 0).sum(0), 1) / np.maximum((truth == 1).sum(0), 1)
            smoothing = config.regularize.label_smoothing
            cells = cells * (1 + (odds - 1) * (targets * (1 - smoothing) + smoothing / 2))
        return _mean_of_known(cells)
    counts = np.nan_to_num(space.matrix(truth)).sum(0)
    if targets.ndim == 1:
        return _guessed_class(config, counts, targets)
    each = []
    for own in space.slices:
        known = ~np.isnan(targets[:, own]).any(1)
        rows = [_guessed_class(config, counts[own], row) for row in targets[known, own][:, None]]
        cells = np.full(len(targets), np.nan)
        cells[known] = rows
        each.append(cells)
    return _mean_of_known(np.stack(each, axis=1))


def _mean_of_known(cells: np.ndarray) -> float:
    """The mean over rows of the means of what is known of each (B, W); a row of which nothing is counts as 0."""
    known = ~np.isnan(cells)
    return float((np.nan_to_num(cells).sum(1) / known.sum(1).clip(1)).mean())


def _guessed_class(config: Config, counts: np.ndarray, targets: np.ndarray) -> float:
    """For one label, of class indices (B,) or shares (B, K); `counts` are the training rows of each class (K,)."""
    shares = np.eye(len(counts))[targets] if targets.ndim == 1 else targets
    share = np.maximum(counts, 1) / np.maximum(counts, 1).sum()
    uniform = float(np.log(len(counts)))
    imbalance, smoothing = config.train.imbalance, config.regularize.label_smoothing
    if imbalance == "weighted":
        weights = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return uniform * float((shares @ weights).mean())
    if imbalance == "focal":
        return uniform * (1 - 1 / len(counts)) ** FOCUS
    if imbalance == "logit_adjusted":
        own = -(shares @ np.log(share)).mean()
        return float((1 - smoothing) * own - smoothing * np.log(share).mean())
    return uniform


def gradients_zeroed(subject: Subject) -> CheckResult:
    """Two steps that change nothing have the same gradient."""
    if not subject.trains:
        return not_applicable(NOTHING_TRAINED)
    batch = min(FEW_IMAGES, subject.config.train.batch)
    trainer = subject.trainer(
        subject.as_is,
        subject.some_rows(batch),
        train={"batch": batch},
        optim={"clip": 0.0, "ema": False, "swa": 0.0},
        machine={"workers": 0},
    )
    finetune.unfreeze_for_epoch(trainer.bare_model, trainer.config.finetune, trainer.config.finetune.unfreeze_epochs)
    finetune.train_mode(trainer.bare_model, trainer.config.finetune)
    norms = _norms_standing_still(trainer)
    ratio = norms[1] / norms[0] if norms[0] > 0 else float("nan")
    number = (
        f"gradient norm {norms[0]:.4g}, then {norms[1]:.4g} with a learning rate of 0: ratio {ratio:.3f} (wanted: 1)"
    )
    hint = "call optimizer.zero_grad() after each step"
    return verdict(abs(ratio - 1) <= SAME_NORM, number, hint, ratio=ratio)


def _norms_standing_still(trainer: Trainer) -> list[float]:
    """Gradient norms that the optimizer finds in two steps on one batch, the learning rate being zero."""
    norms: list[float] = []

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.stack([grad.double().norm() for grad in grads]).norm()) if grads else 0.0)
        for group in optimizer.param_groups:
            group["lr"] = 0.0

    hook = trainer.optimizer.optimizer.register_step_pre_hook(look)
    batch = next(iter(trainer.loader))
    for _ in range(2):
        torch.manual_seed(0)  # the same dropout
        trainer.step(batch._replace(images=batch.images.clone()), 0)
    hook.remove()
    return norms


def modes(subject: Subject) -> CheckResult:
    """Training mode in a step, evaluation mode when judged."""
    if not subject.trains:
        return not_applicable(NOTHING_TRAINED)
    calls = subject.short_run.modes
    asleep = sum(1 for is_step, on in calls if is_step and "" not in on)
    awake = sum(1 for is_step, on in calls if not is_step and on)
    steps = sum(1 for is_step, _ in calls if is_step)
    number = (
        f"{steps} steps, {asleep} not in training mode; {len(calls) - steps} judgements, {awake} not in evaluation mode"
    )
    hint = "call finetune.train_mode before an epoch's steps, and model.eval() before judging"
    sound = bool(steps) and steps < len(calls) and not asleep and not awake
    return verdict(sound, number, hint, asleep=asleep, awake=awake)


def statistics(subject: Subject) -> CheckResult:
    """BatchNorm's statistics stay where the config freezes them, and follow the batches where it does not."""
    if not subject.trains:
        return not_applicable(NOTHING_TRAINED)
    trainer = subject.trainer(subject.as_is, machine={"workers": 0})
    norms = {name: m for name, m in trainer.bare_model.named_modules() if isinstance(m, _BatchNorm)}
    if not norms:
        return not_applicable("the net has no BatchNorm")
    wanted, short = trainer.config.finetune, subject.short_run
    follow = wanted.batchnorm == "train" and wanted.mode in ("full", "norm")
    free = {n for n, m in norms.items() if follow and all(p.requires_grad for p in m.parameters())}
    leaked, stuck = short.moved - free, free - short.moved if not wanted.unfreeze_epochs else frozenset()
    number = f"{len(norms)} BatchNorms, {len(norms) - len(free)} to be frozen: {len(leaked)} of them moved"
    number += f"; {len(stuck)} of {len(free)} to follow the batches did not" if free else ""
    hint = "call finetune.train_mode after every model.train()"
    return verdict(not leaked and not stuck, number, hint, moved=len(leaked), stuck=len(stuck))
