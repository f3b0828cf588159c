"""What enters a net, and the one way to ask a net."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn


@dataclass(frozen=True)
class Inputs:
    """All that a net is told of B rows, on its device.

    Attributes:
        images: prepared, float32 (B, C, size, size).
        beside: metadata, encoded float32 (B, d); None: the net takes none, or 0 in all columns.
    """

    images: torch.Tensor
    beside: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def with_images(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Inputs":
        """The same rows with their images changed."""
        return replace(self, images=change(self.images))

    def split(self, parts: int) -> "list[Inputs]":
        """So many parts of about the same size, in order."""
        of_parts = [None] * parts if self.beside is None else self.beside.tensor_split(parts)
        return [Inputs(*both) for both in zip(self.images.tensor_split(parts), of_parts, strict=True)]

    def twice(self) -> "Inputs":
        """All rows, and all of them again (2 B)."""
        beside = None if self.beside is None else torch.cat([self.beside, self.beside])
        return Inputs(torch.cat([self.images, self.images]), beside)


def channels_of(net: nn.Module) -> int:
    """How many channels a net takes, as its first convolution has it."""
    stems = (module for module in net.modules() if isinstance(module, nn.Conv2d) and module.groups == 1)
    return next((stem.in_channels for stem in stems), 3)


def forward(net: nn.Module, inputs: Inputs) -> torch.Tensor:
    """What the net says of the rows, float32 (B, ·): logits, or features of a net without a classifier."""
    if inputs.beside is None:
        return net(inputs.images).float()
    return net(inputs.images, inputs.beside).float()
