"""One way from cached pixels to logits, shared by training, validation and inference."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from foldcraft.models.backbones import Blueprint
from foldcraft.models.hardware import Hardware
from foldcraft.models.inputs import Inputs, forward


@dataclass(frozen=True)
class Preparation:
    """uint8 (B, size, size, C) on the CPU to normalised float32 (B, C, size, size) on the device.

    Pixels travel as bytes and become floats where the net is. Equal preparations give equal tensors.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: str
    memory_format: str

    @classmethod
    def of(cls, blueprint: Blueprint, hardware: Hardware) -> "Preparation":
        """The preparation that the weights want, on that hardware."""
        return cls(blueprint.mean, blueprint.std, hardware.device, hardware.memory_format)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        floats = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()  # channels_last as it stands
        normalised = floats.sub_(_in_bytes(self.mean, self.device)).div_(_in_bytes(self.std, self.device))
        return normalised if self.memory_format == "channels_last" else normalised.contiguous()


@cache
def _in_bytes(values: tuple[float, ...], device: str) -> torch.Tensor:
    """A value of each channel, for pixels up to 255, (1, C, 1, 1); sent once, as the device must be waited for."""
    with torch.inference_mode(False):  # training uses it too
        return torch.tensor(values, device=device).view(1, -1, 1, 1) * 255


@torch.inference_mode()
def predictions(
    model: nn.Module, inputs: Inputs, hardware: Hardware, of_outputs: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Predictions float32 (B, W) of some rows; the model must be in evaluation mode.

    Args:
        of_outputs: makes predictions of what the net puts out, as `Target.predictions` does.
    """
    with hardware.autocast():
        return of_outputs(forward(model, inputs))
