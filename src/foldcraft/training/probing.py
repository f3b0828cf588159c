"""A fold of a linear probe: its closed-form head on frozen features."""

import time
from dataclasses import replace

import numpy as np

from foldcraft.common.callbacks import Callback
from foldcraft.common.paths import FoldFolder
from foldcraft.models import finetune, hardware
from foldcraft.models.stage_features import FeaturePool, ProbeNet
from foldcraft.predictions.experiment import Experiment
from foldcraft.training import initialization
from foldcraft.training.fold_result import Outcome
from foldcraft.training.initialization import InitialModel


def solve(experiment: Experiment, folder: FoldFolder, start: InitialModel, callback: Callback) -> Outcome:
    """A linear probe: the fold's closed-form head on frozen features; nothing is trained, nothing can be resumed."""
    config, began = experiment.config, time.perf_counter()
    chosen = hardware.for_features(config.machine, finetune.is_transformer(start.model))
    about = {"hardware": str(chosen), "why": "closed-form head on frozen features"}
    callback.fold_started(config, folder, {**about, "weights": start.describe_weights()})
    solved = initialization.solve_probe(experiment, start, config.probe, callback, config.train.imbalance)
    head = solved.folds[folder.fold]
    pool = FeaturePool([net.model for net in start.nets], start.parts)
    target = experiment.competition.target
    net = ProbeNet(pool, solved.stages, target.outputs)
    net.set_head(head.head)
    train, test = initialization.features_of(experiment, start, callback)
    held_out = experiment.folds.valid_rows(folder.fold)
    own = [[part[held_out] for part in view] for view in train]
    return Outcome(
        weights=net.state_dict(),
        blueprint=replace(
            start.blueprint,
            stages=tuple(solved.stages),
            size=config.images.size,
            sizes=tuple(config.probe_sizes),
            mirror=config.probe.mirror is True,
            others=tuple(net.blueprint for net in start.others),
        ),
        hardware=chosen,
        train=start.train,
        images=start.test,
        epochs=0,
        seconds=time.perf_counter() - began,
        oof=_in_terms_of_the_image(experiment, target.predictions(solved.outputs(folder.fold, own)).numpy()),
        test=_in_terms_of_the_image(experiment, target.predictions(solved.outputs(folder.fold, test)).numpy()),
        about={"probe": {"strength": head.strength, "stages": solved.stages}},
    )


def _in_terms_of_the_image(experiment: Experiment, predicted: np.ndarray) -> np.ndarray:
    """Predictions (V, N, W) of the TTA views, where a flip changes the label."""
    views = experiment.config.tta.views
    return np.stack([experiment.swaps.restored(view, one) for view, one in zip(views, predicted, strict=True)])
