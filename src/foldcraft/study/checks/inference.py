"""Does inference see and say what training did?"""

from dataclasses import replace

import numpy as np
import torch
import torchvision.models as tv
from timm.data import resolve_data_config
from torch import nn

from foldcraft.models.hardware import Hardware
from foldcraft.models.inputs import Inputs
from foldcraft.predictions.inference import InferenceModel, predict, sweep
from foldcraft.study.checks.result import CheckResult, not_applicable, verdict
from foldcraft.study.checks.subject import Subject

SOME = 16
SAME = 1e-3  # share of the way between two images that the order of sums alone may make
LOSS_APART = {"32-true": 1e-4, "bf16-mixed": 0.03, "16-mixed": 0.01}
CONSTANTS_APART = 1e-4  # of normalised pixels


def repeatable(subject: Subject) -> CheckResult:
    """Asked twice, the saved net says the same, bit for bit."""
    rows = subject.some_rows(SOME)
    first, second = (predict([subject.saved], rows)[0] for _ in range(2))
    scored = subject.competition.space.scored
    apart = float(np.abs(scored(first) - scored(second)).max())
    number = f"predictions differ by {apart:.2g} between two times (wanted: 0)"
    hint = "put the net into evaluation mode (model.eval()) where it is loaded"
    return verdict(np.array_equal(first, second), number, hint, apart=apart)


def alone(subject: Subject) -> CheckResult:
    """An image alone is answered as it is in a batch."""
    rows = subject.some_rows(SOME)
    together = predict([subject.saved], rows)[0]
    singly = np.concatenate([predict([subject.saved], rows[k : k + 1])[0] for k in range(len(rows))], axis=1)
    apart = float(np.abs(together - singly).max() / np.ptp(together, axis=1).max())  # of how far images lie apart
    number = (
        f"alone and in a batch of {len(rows)}: apart by {apart:.2g} of the range of answers (wanted: below {SAME:g})"
    )
    hint = "put the net into evaluation mode (model.eval()) where it is loaded; see that no layer mixes the batch"
    return verdict(apart < SAME, number, hint, apart=apart)


def judged_alike(subject: Subject) -> CheckResult:
    """The saved file predicts what training validated."""
    short = subject.short_run
    truth = subject.competition.targets[subject.experiment.folds.valid_rows(0)]
    again = subject.competition.space.loss(short.predicted.predicted[0], truth)
    apart = abs(again - short.validated)
    bound = LOSS_APART[short.model.hardware.precision] if subject.trains else 0.02
    number = f"loss {short.validated:.5f} in training, {again:.5f} from the saved file (wanted: within {bound:g})"
    hint = "see that validation and inference use the same weights, pixels and normalisation"
    return verdict(apart <= bound, number, hint, apart=apart)


def preprocessing(subject: Subject) -> CheckResult:
    """Without augmentation the net sees in training, bit for bit, what it sees in inference."""
    if not subject.trains:
        return not_applicable("a linear probe learns from what inference sees")
    rows = subject.some_rows(SOME)
    trainer = subject.trainer(subject.plain, rows, train={"batch": 8}, machine={"workers": 0})
    learned = {}
    for batch in trainer.loader:
        learned |= dict(zip(batch.rows.tolist(), trainer.prepare(batch.images).cpu(), strict=True))
    apart = 0.0
    for row, wanted in zip(rows.tolist(), _inferred(subject, rows), strict=True):
        if row in learned:
            apart = max(apart, float((learned[row] - wanted).abs().max()))
    number = f"pixels of {len(learned)} images differ by {apart:.3g} between training and inference (wanted: 0)"
    hint = "let both go through preprocessing.Preparation with the same Blueprint, and the same resizing"
    return verdict(apart == 0, number, hint, apart=apart)


def _inferred(subject: Subject, rows: np.ndarray) -> torch.Tensor:
    """What enters the net in inference, float32 (N, 3, size, size)."""

    def as_seen(_: nn.Module, inputs: Inputs, __: Hardware) -> torch.Tensor:
        return inputs.images.clone()

    member: InferenceModel = replace(subject.fresh, output=as_seen)
    return torch.cat([seen[0][0] for _, seen in sweep([member], rows)])


def constants(subject: Subject) -> CheckResult:
    """Mean and std are those of the weights, channels and places stay where they are."""
    model, blueprint = subject.as_is.start.model, subject.blueprint
    if blueprint.source == "timm":
        known = resolve_data_config(pretrained_cfg=model.pretrained_cfg)
        mean, std = known["mean"], known["std"]
    else:
        transforms = tv.get_model_weights(blueprint.arch).DEFAULT.transforms()
        mean, std = transforms.mean, transforms.std
    if (channels := subject.config.images.bands) != 3:
        mean, std = ([np.mean(values)] * channels for values in (mean, std))
    raw = subject.fresh.images.at(subject.some_rows(2))
    trainer = subject.trainer(subject.as_is, machine={"workers": 0}) if subject.trains else None
    prepare = trainer.prepare if trainer else subject.fresh.preparation
    wanted = ((raw.numpy() / 255 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)
    apart = float(np.abs(prepare(raw).cpu().numpy() - wanted).max())
    shown = ", ".join(f"{value:.3f}" for value in (*mean, *std))
    number = f"pixels are off by {apart:.2g} from (x / 255 - mean) / std with the weights' own {shown}"
    hint = "take mean and std from the weights' pretrained_cfg (backbones.build)"
    return verdict(apart < CONSTANTS_APART, number, hint, apart=apart)
