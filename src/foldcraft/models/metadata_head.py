"""A net whose head sees metadata beside the pooled features of the image.

One linear layer on both side by side is the sum of one on each, so the net keeps its own head, its names and its
layers, and what the second layer says of metadata is added to its logits. That holds for any net of any library.
"""

from functools import cache
from typing import Any

import torch
from torch import nn

NAME = "metadata"  # of the second layer among the net's modules
WIDEST = 100_000


class MetadataHead(nn.Module):
    """One linear layer on encoded metadata (B, d), some of which are dropped in training."""

    def __init__(self, width: int, outputs: int, drop: float) -> None:
        super().__init__()
        self.drop, self.linear = nn.Dropout(drop), nn.Linear(width, outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, beside: torch.Tensor) -> torch.Tensor:
        return self.linear(self.drop(beside))


def attach(net: nn.Module, width: int, outputs: int, drop: float) -> nn.Module:
    """Let a net take metadata as a second argument, in place; without one, 0 is what it is told in all columns.

    Raises:
        ValueError: no width that metadata have.
    """
    if not 0 < width <= WIDEST:
        raise ValueError(f"metadata of {width} columns")
    net.add_module(NAME, MetadataHead(width, outputs, drop))
    net.__class__ = _joined(type(net))
    return net


def takes_metadata(net: nn.Module) -> bool:
    """Has `attach` been at it?"""
    return isinstance(getattr(net, NAME, None), MetadataHead)


@cache
def _joined(kind: type[nn.Module]) -> type[nn.Module]:
    """The same kind of net with another argument; its name stays, as others ask for it."""

    def forward(self: Any, images: torch.Tensor, beside: torch.Tensor | None = None) -> torch.Tensor:
        head = self.metadata
        if beside is None:  # so that the net itself, its size and its speed can be looked at
            beside = images.new_zeros(len(images), head.linear.in_features)
        return kind.forward(self, images) + head(beside)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
