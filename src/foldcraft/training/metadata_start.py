"""How a net that is fine-tuned begins to see metadata: by a closed-form head on them alone, beside its own head."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from foldcraft.data.metadata import Encoder
from foldcraft.models import metadata_head
from foldcraft.models.backbones import Blueprint
from foldcraft.models.stage_features import Stage
from foldcraft.predictions import linear_probe
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.linear_probe import Rows


def add_head(experiment: Experiment, net: nn.Module, fold: int) -> None:
    """Let the fold's net see metadata, if there are any, by a closed-form head that is solved on them alone.

    It starts as good as it can be: what it looks at does not change in training, so nothing is lost by that.
    """
    encoder, data = experiment.encoder(fold), experiment.competition
    if encoder is None:
        return
    nothing, target = np.zeros((len(data.train_ids), 1), np.float32), data.target
    rows = Rows((Stage("nothing", 1),), [nothing], nothing, target.learned, experiment.folds.fold, target.learned_space)
    rows = replace(rows, weights=data.weights, beside=experiment.beside, shares=(1.0,))
    settings = experiment.config.probe.model_copy(update={"solver": "ridge", "stages": "all", "stage_weights": {}})
    solved = linear_probe.solve(rows, settings, _closed(experiment.config.train.imbalance, experiment))
    head, linear = solved.folds[fold].head, joined(net, experiment, encoder).metadata.linear
    with torch.no_grad():
        linear.weight.copy_(head.weight[0, :, -encoder.width :])
        linear.bias.copy_(head.bias[0])


def _closed(imbalance: str, experiment: Experiment) -> str:
    """What is done about rare classes by a closed-form head beside a net with that setting."""
    one_index = experiment.competition.target.learned.ndim == 1
    return imbalance if one_index and imbalance != "focal" else "none"


def joined(net: nn.Module, experiment: Experiment, encoder: Encoder) -> nn.Module:
    """The net, which from now on takes metadata too."""
    drop = experiment.competition.metadata.drop
    return metadata_head.attach(net, encoder.width, experiment.competition.target.outputs, drop)


def described(blueprint: Blueprint, experiment: Experiment, fold: int) -> Blueprint:
    """The blueprint of a fold's net, with what it makes of metadata."""
    encoder = experiment.encoder(fold)
    if encoder is None:
        return blueprint
    about = {"width": encoder.width, "drop": experiment.competition.metadata.drop, "encoder": encoder.to_plain()}
    return replace(blueprint, metadata=about)
