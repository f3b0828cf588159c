"""Where a fold's training starts: the pretrained net as the config wants it, with its closed-form head (LP-FT).

Fine-tuning from a random head first tears at the pretrained layers; from the solved head it keeps what they know
(LP-FT, arXiv 2202.10054).
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import nn

from foldcraft import backbones, finetune, fingerprint, hardware, probe
from foldcraft.audience import Audience
from foldcraft.backbones import Blueprint
from foldcraft.config import Config, ProbeConfig
from foldcraft.errors import FoldcraftError
from foldcraft.featurestore import FrozenNet, Wanted, gather
from foldcraft.forward import Preparation
from foldcraft.images import ImageStore
from foldcraft.loader import PlainImages
from foldcraft.probe import Probe, Rows
from foldcraft.rundir import features_folder
from foldcraft.workspace import Workspace

# The head that fine-tuning starts from points the right way and is small. One that predicts as well as it can is large,
# above all where the frozen features hardly vary: the first steps of the backbone become great leaps of
# its logits, and what the net knew is lost (docs/experiments.md).
START_STRENGTH = 1.0
START_SMOOTHING = 0.95  # its logits are of the size that this much label smoothing asks for


@dataclass(frozen=True)
class StartingPoint:
    """A net as its training finds it, and the images it is for."""

    model: nn.Module
    blueprint: Blueprint
    config: Config
    train: ImageStore
    test: ImageStore

    @cached_property
    def frozen(self) -> FrozenNet:
        """A copy of the net for its features."""
        return FrozenNet.of(self.model, self.blueprint, self.config)


def build(work: Workspace, audience: Audience) -> StartingPoint:
    """The net that the config asks for, its images, and its BatchNorm statistics as the config wants them.

    Raises:
        FoldcraftError: all that `backbones.build` and `Workspace.open_images` raise.
    """
    model, blueprint = fresh_net(work.config, len(work.competition.classes))
    train, test = work.open_images([work.image_spec(blueprint)], audience)[0]
    if work.config.finetune.batchnorm == "adapted":
        _adapt(work, model, blueprint, train, audience)
    return StartingPoint(model, blueprint, work.config, train, test)


def fresh_net(config: Config, classes: int) -> tuple[nn.Module, Blueprint]:
    """The net that the config names; what is random in it depends on the seed alone.

    Raises:
        FoldcraftError: all that `backbones.build` and `backbones.check_forward` raise.
    """
    torch.manual_seed(fingerprint.seed_from(config.seed, "head"))
    model, blueprint = backbones.build(config.backbone, classes, config.images.size)
    backbones.check_forward(model, classes, config.images.size)
    return model, blueprint


def _adapt(work: Workspace, model: nn.Module, blueprint: Blueprint, store: ImageStore, audience: Audience) -> None:
    """Measure BatchNorm's statistics on all training images; labels play no part in it, so folds may share them."""
    chosen = hardware.for_features(work.config.train, finetune.is_transformer(model))
    prepare, images = Preparation.of(blueprint, chosen), PlainImages(store, work.config.images)
    with audience.progress("adapting BatchNorm to the images", len(store)) as advance:

        def batches() -> Iterator[torch.Tensor]:
            for some in np.array_split(np.arange(len(store)), max(1, round(len(store) / 64))):
                yield prepare(images.__getitems__(some))
                advance(len(some))

        finetune.adapt_batchnorm(model.to(chosen.device), batches())
    model.cpu()  # where all that looks at the net expects it


def copy_of(start: StartingPoint, work: Workspace) -> StartingPoint:
    """The same with a net of its own; what is drawn for it from here on (LoRA's start) depends on the seed alone."""
    torch.manual_seed(fingerprint.seed_from(work.config.seed, "start"))
    return replace(start, model=copy.deepcopy(start.model))


def solve_probe(
    work: Workspace,
    start: StartingPoint,
    settings: ProbeConfig,
    audience: Audience,
    imbalance: str = "none",
    smoothing: float = 0.0,
) -> Probe:
    """The closed-form heads of all folds on the net's frozen features; a second call for the same ones costs nothing.

    Raises:
        FoldcraftError: the net gives no features of its stages; no such stage; no closed form for the loss.
    """
    net = start.frozen
    learned = [*(settings.views or ["identity"]), *(f"draw{k}" for k in range(settings.augmented))]
    folder = features_folder(work.config)
    is_whole = work.config.finetune.mode == "linear_probe"
    # What such a probe predicts later is looked at in the same pass over the images.
    views = dict.fromkeys([*learned, "identity", *(work.config.tta.views if is_whole else [])])
    wanted = [Wanted(net, "train", start.train, view) for view in views]
    key = [str(item.file(folder)) for item in wanted]
    key += [work.competition.fingerprint, work.folds.fingerprint, settings.model_dump(), imbalance]
    digest = fingerprint.of_values([*key, learned, smoothing])
    if digest not in _solved:
        found = dict(zip([item.view for item in wanted], gather(wanted, folder, audience), strict=True))
        rows = Rows(
            net.stages,
            [found[view] for view in learned],
            found["identity"],
            work.competition.targets,
            work.folds.fold,
            len(work.competition.classes),
        )
        _solved.clear()  # the folds of one experiment share it; the next experiment has its own
        _solved[digest] = probe.solve(rows, settings, imbalance, smoothing)
    return _solved[digest]


_solved: dict[str, Probe] = {}


def features_of(work: Workspace, start: StartingPoint, audience: Audience) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frozen features (N, D) of the training and of the test images, one array a TTA view."""
    net = start.frozen
    views = work.config.tta.views
    wanted = [Wanted(net, "train", start.train, view) for view in views]
    wanted += [Wanted(net, "test", start.test, view) for view in views]
    found = gather(wanted, features_folder(work.config), audience)
    return found[: len(views)], found[len(views) :]


def set_probe_head(work: Workspace, start: StartingPoint, fold: int, audience: Audience) -> bool:
    """Put the fold's closed-form head in place of the random one; False where the config does not want it.

    Raises:
        FoldcraftError: the net's head is of another form.
    """
    if work.config.finetune.head_init != "probe":
        return False
    classifier = _classifier(start.model)
    if classifier is None:
        raise FoldcraftError(
            f"the head of {work.config.backbone.name} is not one linear layer",
            "finetune.head_init",
            "use finetune.head_init=random",
        )
    # Plain images alone: a direction to start in is not worth a second pass over the images.
    settings = {"solver": "ridge", "stages": "last", "stage_weights": {}, "strengths": [START_STRENGTH]}
    last = work.config.probe.model_copy(update={**settings, "views": ["identity"], "augmented": 0})
    # Balanced: so strong a regularisation leaves little but the intercept, and with it the most frequent class.
    head = solve_probe(work, start, last, audience, "weighted", START_SMOOTHING).folds[fold].head
    with torch.no_grad():
        classifier.weight.copy_(head.weight[0])
        classifier.bias.copy_(head.bias[0])
    return True


def _classifier(model: nn.Module) -> nn.Linear | None:
    names = backbones.head_names(model)
    module = model.get_submodule(names[0]) if len(names) == 1 else None
    return module if isinstance(module, nn.Linear) and module.bias is not None else None
