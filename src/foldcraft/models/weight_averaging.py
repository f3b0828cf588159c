"""Stochastic weight averaging (SWA, arXiv 1803.05407): the even mean of the weights of the last epochs."""

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from foldcraft.common.config import FinetuneConfig
from foldcraft.models import finetune
from foldcraft.models.hardware import Hardware
from foldcraft.models.inputs import Inputs


def averaged(model: nn.Module) -> AveragedModel:
    """A copy of `model` that becomes the mean of what `update_parameters` is called with; `.module` is the net."""
    return AveragedModel(model).eval()


def measure_statistics(model: nn.Module, config: FinetuneConfig, batches: Iterable[Inputs], hardware: Hardware) -> None:
    """Measure the statistics of BatchNorm anew, where the training measures them at all.

    The mean of several nets' weights has activations that none of them had, so their statistics do not fit it. The
    images are seen as at inference: nothing is dropped.

    Args:
        model: left in evaluation mode.
        batches: what enters the net; each counts the same, so they should be of one size.
    """
    finetune.train_mode(model, config)
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    model.eval()
    if layers:
        with hardware.autocast():
            finetune.measure(model, layers, batches)
