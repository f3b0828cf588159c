"""Hooks that listen to one forward pass of a net."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from foldcraft.models.inputs import channels_of


def listen(net: nn.Module, size: int, handles: Sequence[RemovableHandle]) -> None:
    """Send one black image of that size through the net, without gradients, and remove the hooks, whatever happens."""
    try:
        with torch.no_grad():
            net(torch.zeros(1, channels_of(net), size, size, device=next(net.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
