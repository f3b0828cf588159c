"""A fold of a linear probe: its closed-form head on frozen features."""

import time
from dataclasses import replace

import numpy as np

from foldcraft.common.callbacks import Callback
from foldcraft.common.paths import FoldFolder
from foldcraft.models import finetune, hardware
from foldcraft.models.stage_features import ProbeNet
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.linear_probe import Probe
from foldcraft.training import initialization, metadata_start
from foldcraft.training.fold_result import Outcome
from foldcraft.training.initialization import InitialModel


def solve(experiment: Experiment, folder: FoldFolder, start: InitialModel, callback: Callback) -> Outcome:
    """A linear probe: the fold's closed-form head on frozen features; nothing is trained, nothing can be resumed."""
    config, began = experiment.config, time.perf_counter()
    chosen = hardware.for_features(config.machine, finetune.is_transformer(start.model))
    about = {"hardware": str(chosen), "why": "closed-form head on frozen features"}
    callback.fold_started(config, folder, {**about, "weights": start.describe_weights()})
    solved = initialization.solve_probe(experiment, start, config.probe, callback, config.train.imbalance)
    head, encoder = solved.folds[folder.fold], experiment.encoder(folder.fold)
    net = ProbeNet(
        start.features, solved.stages, experiment.competition.target.outputs, encoder.width if encoder else 0
    )
    net.set_head(head.head)
    if encoder:
        callback.note(f"fold {folder.fold}: {_said(head.share)}")
    oof, test = _predictions(experiment, start, solved, folder.fold, callback)
    return Outcome(
        weights=net.state_dict(),
        blueprint=replace(
            metadata_start.described(start.blueprint, experiment, folder.fold),
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
        oof=oof,
        test=test,
        about={
            "probe": {
                "strength": head.strength,
                "stages": solved.stages,
                **({"metadata_share": head.share} if encoder else {}),
            }
        },
    )


def _predictions(
    experiment: Experiment, start: InitialModel, solved: Probe, fold: int, callback: Callback
) -> list[np.ndarray]:
    """Of the fold's held-out rows and of the test set (V, N, W)."""
    train, test = initialization.features_of(experiment, start, callback)
    data, encoder, held_out = experiment.competition, experiment.encoder(fold), experiment.folds.valid_rows(fold)
    own = [[part[held_out] for part in view] for view in train]
    beside = [encoder(data.metadata.at(held_out)), encoder(data.test_metadata)] if encoder else [None, None]
    outputs = [solved.outputs(fold, views, some) for views, some in zip((own, test), beside, strict=True)]
    return [_in_terms_of_the_image(experiment, data.target.predictions(some).numpy()) for some in outputs]


def _said(share: float) -> str:
    """What became of metadata, in words."""
    if not share:
        return "metadata gain nothing on the other folds, and are not used"
    return "metadata alone are used" if share == 1 else f"metadata are {share:.0%} of what the head sees"


def _in_terms_of_the_image(experiment: Experiment, predicted: np.ndarray) -> np.ndarray:
    """Predictions (V, N, W) of the TTA views, where a flip changes the label."""
    views = experiment.config.tta.views
    return np.stack([experiment.swaps.restored(view, one) for view, one in zip(views, predicted, strict=True)])
