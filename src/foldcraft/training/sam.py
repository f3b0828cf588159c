"""Sharpness-aware minimisation (SAM, arXiv 2010.01412): the gradient is taken where the loss is highest nearby."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm


@contextmanager
def sam_perturbation(model: nn.Module, radius: float) -> Iterator[None]:
    """Inside, the weights stand `radius` further along their gradient, with the gradient cleared; then they return.

    The gradient that is taken inside stays for the optimizer. BatchNorm uses the batch's statistics there as well but
    does not remember them: those of the displaced weights are not those of the net, and a step counts once.

    A gradient scaled for 16 bits needs no care, since only its direction matters. One that overflowed makes the
    displaced weights and the second gradient no numbers; the scaler sees that and leaves the step out.
    """
    moved = [parameter for parameter in model.parameters() if parameter.grad is not None]
    before = [parameter.detach().clone() for parameter in moved]
    gradients = [parameter.grad for parameter in moved]
    with torch.no_grad():
        step = radius / (get_total_norm(gradients) + 1e-12)
        torch._foreach_add_(moved, torch._foreach_mul(gradients, step))
    for parameter in moved:
        parameter.grad = None
    try:
        with _statistics_kept(model):
            yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(moved, before)


@contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    """BatchNorm layers in training mode leave their running statistics as they are."""
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.training and module.track_running_stats:
                stack.callback(setattr, module, "track_running_stats", True)
                module.track_running_stats = False
        yield
