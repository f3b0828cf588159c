"""Low-rank changes of frozen weights (LoRA, arXiv 2106.09685)."""

import math
import re
from collections.abc import Collection, Iterator

import torch
from torch import nn
from torch.nn.utils import parametrize

from foldcraft.common.errors import FoldcraftError

SCALE = 2.0  # alpha / r of the paper, with alpha twice the rank, whatever the rank

# What a parameter inside a parametrization is called; group 1 is the tensor that it belongs to.
_PART = re.compile(r"\bparametrizations\.(\w+)\..*$")


class LowRank(nn.Module):
    """A weight plus `SCALE` times B A; B starts at zero, so the net starts as what it was.

    Args:
        weight: a matrix (out, in), or the kernel (out, in, 1, 1) of a pointwise convolution.
        rank: of the change; capped at the smaller side of the weight.
    """

    def __init__(self, weight: torch.Tensor, rank: int) -> None:
        super().__init__()
        outer, inner = weight.flatten(1).shape
        rank = min(rank, outer, inner)
        self.A = nn.Parameter(weight.new_empty(rank, inner))
        self.B = nn.Parameter(weight.new_zeros(outer, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as the paper's authors do in their own code

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The changed weight, shaped as `weight`."""
        return weight + SCALE * (self.B @ self.A).view(weight.shape)


def insert(model: nn.Module, rank: int, spared: Collection[str]) -> None:
    """Put a low-rank change on every target, in place; a target that has one keeps it.

    Args:
        rank: of each change, capped at the smaller side of its weight.
        spared: names of modules to leave as they are.

    Raises:
        FoldcraftError: no target is left.
    """
    found = [(module, tensor) for name, module, tensor in targets(model) if name not in spared]
    if not found:
        raise FoldcraftError(
            "LoRA finds neither attention or MLP Linears nor pointwise convolutions in what is trained of this "
            f"{type(model).__name__}",
            "finetune.mode",
            "use finetune.mode=norm or full",
        )
    for module, tensor in found:
        if not parametrize.is_parametrized(module, tensor):
            parametrize.register_parametrization(module, tensor, LowRank(getattr(module, tensor), rank))


def targets(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Name of a module, the module, and which of its tensors can take a low-rank change.

    They are the weights of Linears (attention and MLP of transformers), the common weight of q, k and v in torch's own
    attention, and the kernels of pointwise convolutions, which are the Linears of a CNN.
    """
    for name, module in model.named_modules():
        pointwise = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
        if isinstance(module, nn.Linear) or pointwise:
            yield name, module, "weight"
        elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            yield name, module, "in_proj_weight"


def changes(model: nn.Module) -> set[str]:
    """Names of the parameters of all low-rank changes."""
    return {
        f"{name}.{parameter}"
        for name, module in model.named_modules()
        if isinstance(module, LowRank)
        for parameter, _ in module.named_parameters()
    }


def plain_names(model: nn.Module) -> dict[str, str]:
    """Name of each parameter, and of the tensor it belongs to in the net without LoRA, in that net's own order."""
    # torch lists a weight with a change after the bias; without one it would be the first of its module's tensors.
    first = {name: _PART.sub(r"\1", name) for name, _ in model.named_parameters()}
    owners = {name: place for place, (name, _) in enumerate(model.named_modules())}
    place = {name: (owners[owner(plain)], name == plain) for name, plain in first.items()}
    return {name: first[name] for name in sorted(first, key=place.__getitem__)}


def owner(plain: str) -> str:
    """Name of the module that holds the parameter of that name."""
    return plain.rpartition(".")[0]


def plain_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of the net without LoRA that computes the same; the model itself is left as it is."""
    state = {name: value for name, value in model.state_dict().items() if not _PART.search(name)}
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            with torch.no_grad():
                state |= {f"{name}.{tensor}": getattr(module, tensor) for tensor in module.parametrizations}
    return state
