"""Where a fold's training starts: the pretrained net as the config wants it, with its closed-form head (LP-FT).

Fine-tuning from a random head first tears at the pretrained layers; from the solved head it keeps what they know
(LP-FT, arXiv 2202.10054).
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from foldcraft.common import fingerprint
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config, ProbeConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.paths import features_folder
from foldcraft.data.augment import flips_of
from foldcraft.data.images.image_cache import ImageStore
from foldcraft.data.loader import draw_seed
from foldcraft.data.plain_images import PlainImages
from foldcraft.data.targets.target import Target
from foldcraft.models import backbones, finetune, hardware
from foldcraft.models.backbones import Blueprint
from foldcraft.models.inputs import Inputs
from foldcraft.models.preprocessing import Preparation
from foldcraft.models.stage_features import FeaturePool, Part, parts_of, stages_of
from foldcraft.predictions import linear_probe, tta
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.feature_cache import FeatureRequest, FrozenNet, load_or_compute
from foldcraft.predictions.linear_probe import Probe, Rows

# The head that fine-tuning starts from points the right way and is small. One that predicts as well as it can is large,
# above all where the frozen features hardly vary: the first steps of the backbone become great leaps of
# its logits, and what the net knew is lost (docs/experiments.md).
START_STRENGTH = 1.0
START_SMOOTHING = 0.95  # its logits are of the size that this much label smoothing asks for


@dataclass(frozen=True)
class SourceNet:
    """A pretrained net as the config wants it.

    Attributes:
        config: with this net as its backbone.
    """

    model: nn.Module
    blueprint: Blueprint
    config: Config

    def frozen(self, size: int) -> FrozenNet:
        """A copy of the net for its features of images of that size."""
        return FrozenNet.of(self.model, self.blueprint, self.config, size)


@dataclass(frozen=True)
class InitialModel:
    """A net as its training finds it, and the images it is for.

    Attributes:
        others: further nets whose features a linear probe sees.
    """

    model: nn.Module
    blueprint: Blueprint
    config: Config
    train: ImageStore
    test: ImageStore
    others: tuple[SourceNet, ...] = ()

    @property
    def nets(self) -> list[SourceNet]:
        """All nets, that of `backbone.name` first."""
        return [SourceNet(self.model, self.blueprint, self.config), *self.others]

    def describe_weights(self) -> str:
        """Where the weights of each net come from."""
        return "; ".join(backbones.describe_weights(net.config.backbone, net.blueprint) for net in self.nets)

    @cached_property
    def frozen(self) -> FrozenNet:
        """A copy of the net for its features."""
        return self.nets[0].frozen(self.config.images.size)

    @cached_property
    def pool(self) -> list[FrozenNet]:
        """Copies of all nets at all sizes that a linear probe sees, net by net."""
        return [net.frozen(size) for net in self.nets for size in self.config.probe_sizes]

    @cached_property
    def features(self) -> FeaturePool:
        """The nets themselves, without their classifiers, as a linear probe sees through them."""
        return FeaturePool([net.model for net in self.nets], self.parts)

    @property
    def parts(self) -> list[Part]:
        """What the nets of `pool` are."""
        blueprints = [net.blueprint for net in self.nets]
        return parts_of(blueprints, self.config.probe_sizes, self.config.probe.mirror is True)


def build(experiment: Experiment, callback: Callback) -> InitialModel:
    """The nets that the config asks for, their images, and their BatchNorm statistics as the config wants them.

    Raises:
        FoldcraftError: all that `backbones.build` and `Experiment.open_images` raise.
    """
    outputs = experiment.competition.target.outputs
    configs = [experiment.config, *(config_for(experiment.config, name) for name in experiment.config.probe_nets)]
    nets = [SourceNet(*fresh_net(config, outputs), config) for config in configs]
    first, *others = nets
    train, test = experiment.open_images([experiment.image_spec(first.blueprint)], callback)[0]
    if experiment.config.finetune.batchnorm == "adapted":
        for net in nets:
            _adapt(experiment, net.model, net.blueprint, train, callback)
    return InitialModel(first.model, first.blueprint, experiment.config, train, test, tuple(others))


def of_folds(experiment: Experiment, callback: Callback) -> InitialModel:
    """As `build`; a linear probe, which leaves its nets as they are, has it for all of its folds."""
    if not experiment.config.is_probe:
        return build(experiment, callback)
    if not (_built and _built[0][0] is experiment):
        _built[:] = [(experiment, build(experiment, callback))]
    return _built[0][1]


_built: list[tuple[Experiment, InitialModel]] = []


def config_for(config: Config, name: str) -> Config:
    """The config with another backbone, as its weights come."""
    backbone = type(config.backbone)(name=name, weights=config.backbone.weights)
    return config.model_copy(update={"backbone": backbone})


def fresh_net(config: Config, outputs: int) -> tuple[nn.Module, Blueprint]:
    """The net that the config names; what is random in it depends on the seed alone.

    Raises:
        FoldcraftError: all that `backbones.build` and `backbones.check_forward` raise.
    """
    torch.manual_seed(fingerprint.seed_from(config.seed, "head"))
    sizes = config.probe_sizes if config.is_probe else [config.images.size]
    model, blueprint = backbones.build(
        config.backbone, outputs, config.images.size, len(sizes) > 1, config.images.bands
    )
    for size in sizes:
        backbones.check_forward(model, outputs, size)
    return model, blueprint


def _adapt(
    experiment: Experiment, model: nn.Module, blueprint: Blueprint, store: ImageStore, callback: Callback
) -> None:
    """Measure BatchNorm's statistics on all training images; labels play no part in it, so folds may share them."""
    chosen = hardware.for_features(experiment.config.machine, finetune.is_transformer(model))
    prepare, images = Preparation.of(blueprint, chosen), PlainImages(store, experiment.config.images)
    with callback.progress("adapting BatchNorm to the images", len(store)) as advance:

        def batches() -> Iterator[Inputs]:
            for some in np.array_split(np.arange(len(store)), max(1, round(len(store) / 64))):
                yield Inputs(prepare(images.at(some)))
                advance(len(some))

        finetune.adapt_batchnorm(model.to(chosen.device), batches())
    model.cpu()  # where all that looks at the net expects it


def copy_of(start: InitialModel, experiment: Experiment) -> InitialModel:
    """The same with a net of its own; what is drawn for it from here on (LoRA's start) depends on the seed alone."""
    torch.manual_seed(fingerprint.seed_from(experiment.config.seed, "start"))
    return replace(start, model=copy.deepcopy(start.model))


def solve_probe(
    experiment: Experiment,
    start: InitialModel,
    settings: ProbeConfig,
    callback: Callback,
    imbalance: str = "none",
    smoothing: float | None = None,
) -> Probe:
    """The closed-form heads of all folds on the net's frozen features; a second call for the same ones costs nothing.

    Raises:
        FoldcraftError: the net gives no features of its stages; no such stage; no closed form for the loss.
    """
    is_whole = experiment.config.is_probe
    seen = _Features(experiment, start.pool, start.parts, callback) if is_whole else _plain(experiment, start, callback)
    views = settings.views or ["identity"]
    learned = [
        *views,
        *(f"draw{k}" for k in range(linear_probe.copies(settings, len(experiment.competition.targets), len(views)))),
    ]
    # What such a probe predicts later is looked at in the same pass over the images.
    views = list(dict.fromkeys([*learned, "identity", *(experiment.config.tta.views if is_whole else [])]))
    wanted = seen.wanted("train", start.train, views)
    key = [str(item.file(seen.folder)) for item in wanted]
    data = experiment.competition
    key += [experiment.config.augment.swaps] if experiment.config.augment.swaps else []
    key += [data.fingerprint, data.learned_identity, experiment.folds.fingerprint, settings.model_dump(), imbalance]
    digest = fingerprint.of_values([*key, learned, smoothing])
    if digest not in _solved:
        found = dict(zip(views, seen.of("train", start.train, views), strict=True))
        rows = Rows(
            stages_of([net.stages for net in seen.nets], seen.parts),
            [found[view] for view in learned],
            found["identity"],
            experiment.competition.target.learned,
            experiment.folds.fold,
            experiment.competition.target.learned_space,
            weights=experiment.competition.weights,
            of_views=_truth_of_views(experiment, learned),
            beside=experiment.beside if is_whole else None,
        )
        _solved.clear()  # the folds of one experiment share it; the next experiment has its own
        _solved[digest] = linear_probe.solve(rows, settings, imbalance, smoothing)
    return _solved[digest]


_solved: dict[str, Probe] = {}


def _truth_of_views(experiment: Experiment, views: Sequence[str]) -> list[np.ndarray] | None:
    """What each view of the training images shows, where a flip changes the label."""
    if not experiment.swaps.orders:
        return None
    return [target_of_view(experiment, view).learned for view in views]


def target_of_view(experiment: Experiment, view: str) -> Target:
    """What a view or an augmented copy of the training images shows: a flip may change the label."""
    swaps, target = experiment.swaps, experiment.competition.target
    if not view.startswith("draw"):
        order = swaps.of_view(view)
        return target if order is None else target.reordered(np.argsort(order))
    seeds = [draw_seed(int(view.removeprefix("draw")), row) for row in range(len(target.truth))]
    drawn = [flips_of(experiment.config.augment, seed) for seed in seeds]
    truth = target.truth.copy()
    for flips in swaps.drawn():
        rows = [row for row, own in enumerate(drawn) if own == flips]
        truth[rows] = swaps.target(target, flips).truth[rows]
    return target.with_truth(truth)


def features_of(
    experiment: Experiment, start: InitialModel, callback: Callback
) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
    """Frozen features of the training and of the test images: for each TTA view, (N, D) of each part of the pool."""
    seen = _Features(experiment, start.pool, start.parts, callback)
    views = experiment.config.tta.views
    return seen.of("train", start.train, views), seen.of("test", start.test, views)


@dataclass(frozen=True)
class _Features:
    """Features of some nets, with those of the mirror image averaged in where that is wanted."""

    experiment: Experiment
    nets: Sequence[FrozenNet]
    parts: Sequence[Part]
    callback: Callback

    @property
    def folder(self) -> Path:
        return features_folder(self.experiment.config)

    def wanted(self, part: str, store: ImageStore, views: Sequence[str]) -> list[FeatureRequest]:
        """Everything that goes into the features of some views, once."""
        named = [(k, name) for view in views for k in range(len(self.nets)) for name in self._looks(k, view)]
        return [FeatureRequest(self.nets[k], part, store, name) for k, name in dict.fromkeys(named)]

    def of(self, part: str, store: ImageStore, views: Sequence[str]) -> list[list[np.ndarray]]:
        """For each view, (N, D) of each net."""
        wanted = self.wanted(part, store, views)
        found = load_or_compute(wanted, self.folder, self.callback)
        kept = {(id(item.net), item.view): array for item, array in zip(wanted, found, strict=True)}
        return [
            [_mean([kept[id(net), name] for name in self._looks(k, view)]) for k, net in enumerate(self.nets)]
            for view in views
        ]

    def _looks(self, place: int, view: str) -> list[str]:
        """The views that one net looks at for one; an augmented copy may be mirrored already."""
        is_mirrored = self.parts[place].mirror and not view.startswith("draw")
        return [view, tta.mirrored(view)] if is_mirrored else [view]


def _plain(experiment: Experiment, start: InitialModel, callback: Callback) -> _Features:
    """The backbone alone, as it sees images in training."""
    return _Features(
        experiment, [start.frozen], parts_of([start.blueprint], [start.config.images.size], False), callback
    )


def _mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.mean(arrays, axis=0, dtype=np.float32).astype(np.float16)


def set_probe_head(experiment: Experiment, start: InitialModel, fold: int, callback: Callback) -> bool:
    """Put the fold's closed-form head in place of the random one; False where the config does not want it.

    Raises:
        FoldcraftError: the net's head is of another form.
    """
    if experiment.config.finetune.head_init != "probe":
        return False
    classifier = _classifier(start.model)
    if classifier is None:
        raise FoldcraftError(
            f"the head of {experiment.config.backbone.name} is not one linear layer",
            "finetune.head_init",
            "use finetune.head_init=random",
        )
    # Plain images alone: a direction to start in is not worth a second pass over the images.
    settings = {"solver": "ridge", "stages": "last", "stage_weights": {}, "strengths": [START_STRENGTH]}
    last = experiment.config.probe.model_copy(
        update={**settings, "views": ["identity"], "augmented": 0, "mirror": False}
    )
    # Balanced: so strong a regularisation leaves little but the intercept, and with it the most frequent class.
    head = solve_probe(experiment, start, last, callback, "weighted", START_SMOOTHING).folds[fold].head
    with torch.no_grad():
        classifier.weight.copy_(head.weight[0])
        classifier.bias.copy_(head.bias[0])
    return True


def _classifier(model: nn.Module) -> nn.Linear | None:
    names = backbones.head_names(model)
    module = model.get_submodule(names[0]) if len(names) == 1 else None
    return module if isinstance(module, nn.Linear) and module.bias is not None else None
