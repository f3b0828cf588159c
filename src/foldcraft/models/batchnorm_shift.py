"""How far the images are from those of the pretraining, as the statistics of BatchNorm tell it."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from foldcraft.models.inputs import Inputs, forward


@torch.no_grad()
def batchnorm_distance(net: nn.Module, batches: Iterable[Inputs]) -> float | None:
    """Distance of the images' statistics to the kept ones; None for a net without BatchNorm.

    For every channel, the Kullback-Leibler divergence of the normal distribution with the images' mean and variance
    from that with the running ones, in nats; the median over a layer's channels, then over the layers. 0 means
    that the net sees what it was trained on.

    Args:
        net: in evaluation mode.
        batches: what enters the net.
    """
    sums: dict[str, list[torch.Tensor]] = {}
    layers = {name: module for name, module in net.named_modules() if isinstance(module, _BatchNorm)}
    handles = [module.register_forward_pre_hook(_collect(sums, name, module)) for name, module in layers.items()]
    try:
        for inputs in batches:
            forward(net, inputs)
    finally:
        for handle in handles:
            handle.remove()
    distances = [_divergence(layers[name], *sums[name]).median() for name in sums]
    return float(torch.stack(distances).median()) if distances else None


def _collect(
    sums: dict[str, list[torch.Tensor]], name: str, layer: _BatchNorm
) -> Callable[[nn.Module, tuple[torch.Tensor]], None]:
    """Adds up count, sum and sum of squares of each channel, less the kept mean: so 32 bits are enough for an image."""

    def hook(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        values = inputs[0] - layer.running_mean.view(1, -1, *[1] * (inputs[0].ndim - 2))
        places = [axis for axis in range(values.ndim) if axis != 1]
        count = values.numel() / values.shape[1]
        new = [torch.tensor(count).double()]
        new += [count * moment.mean(places).double() for moment in (values, values.square())]
        sums[name] = [a + b for a, b in zip(sums[name], new, strict=True)] if name in sums else new

    return hook


def _divergence(layer: _BatchNorm, count: torch.Tensor, total: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    offset = total / count
    variance = (squares / count - offset.square()).clamp_min(0)
    kept = layer.running_var.double() + layer.eps
    ratio = (variance + layer.eps) / kept
    return 0.5 * (offset.square() / kept + ratio - 1 - ratio.log())
