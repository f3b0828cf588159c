"""Where in an image a net saw what made it say a class: Grad-CAM (Selvaraju et al., arXiv 1610.02391)."""

import os
from collections.abc import Sequence
from tempfile import gettempdir

import numpy as np
import torch
from torch import nn

from foldcraft.common.errors import FoldcraftError
from foldcraft.models.inputs import Inputs, forward
from foldcraft.models.stage_features import ProbeNet

os.environ.setdefault("MPLCONFIGDIR", os.path.join(gettempdir(), "foldcraft-matplotlib"))  # the library imports it

BATCH = 16
LEAST = 4  # places a side: of a small image the last maps are a single place


def grad_cam(model: nn.Module, images: torch.Tensor, asked: Sequence[int] | np.ndarray) -> np.ndarray:
    """Maps float32 (B, H, W) from 0 to 1: how much each place spoke for the output asked for.

    Args:
        model: of timm or torchvision, or a linear probe on one; in evaluation mode.
        images: prepared, on the model's device (B, 3, H, W).
        asked: of each image, the output that is asked about; or how much each output counts (B, outputs).

    Raises:
        FoldcraftError: the net has no map of its image.
    """
    from pytorch_grad_cam import GradCAM

    if isinstance(model, ProbeNet):  # of several nets and sizes one is asked, the first at the largest
        parts = model.features.parts
        model = model.alone(max((k for k, part in enumerate(parts) if not part.net), key=lambda k: parts[k].size))
    net = model.features.nets[0] if isinstance(model, ProbeNet) else model
    layer, as_map = last_map(net, model, images[:1])
    maps = []
    with GradCAM(model, [layer], as_map) as cam, torch.enable_grad():
        for first in range(0, len(images), BATCH):
            some = images[first : first + BATCH].detach().requires_grad_()
            maps.append(cam(some, [_Outputs(one) for one in asked[first : first + BATCH]]))
    return np.nan_to_num(np.concatenate(maps)).astype(np.float32)


class _Outputs:
    """What is asked of the outputs of one image (outputs,): one of them, or a weighted sum."""

    def __init__(self, asked: int | np.ndarray) -> None:
        self.asked = asked

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        if np.ndim(self.asked) == 0:
            return outputs[..., int(self.asked)]
        return (outputs * outputs.new_tensor(self.asked)).sum(-1)


def last_map(net: nn.Module, model: nn.Module, image: torch.Tensor) -> tuple[nn.Module, "AsMap"]:
    """The last module whose output is still a map that the classifier hears of, and how that is read.

    timm's nets say which modules end a stage; of others the last module that gives a map is taken. Maps of fewer than
    `LEAST` places a side are passed over. Behind the last
    block of a net that listens to its class token alone, the other tokens are heard of no more: there the block before
    is taken.

    Args:
        net: the net itself.
        model: what holds it; called once.
        image: prepared (1, 3, H, W).

    Raises:
        FoldcraftError: there is none.
    """
    shapes = _output_shapes(net, model, image)
    named = [stage["module"] for stage in getattr(net, "feature_info", None) or [] if isinstance(stage, dict)]
    names = [name for name in named if name in shapes] or _torchvision_ends(shapes)
    if names and _hears_one_token(net, shapes[names[-1]]):
        names.pop()
    found = {name: as_map for name in names if (as_map := AsMap.of(net, shapes[name], image))}
    if not found:
        raise FoldcraftError(f"{type(net).__name__} has no map of its image", "Grad-CAM")
    fine = [name for name, as_map in found.items() if as_map.side(shapes[name]) >= LEAST] or list(found)[:1]
    return net.get_submodule(fine[-1]), found[fine[-1]]


def _output_shapes(net: nn.Module, model: nn.Module, image: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Shape of what each module gave last, in the order of the calls."""
    shapes: dict[str, tuple[int, ...]] = {}

    def remember(name: str) -> object:
        def hook(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                shapes.pop(name, None)
                shapes[name] = tuple(output.shape)

        return hook

    handles = [module.register_forward_hook(remember(name)) for name, module in net.named_modules() if name]
    try:
        with torch.no_grad():
            forward(model, Inputs(image))
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _torchvision_ends(shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Modules that may be the last with a map: a transformer's layers, else all that give one of more than a place."""
    layers = [name for name in shapes if name.rpartition(".")[2].startswith("encoder_layer_")]
    return layers or [name for name, shape in shapes.items() if len(shape) == 4 and min(sorted(shape)[1:]) > 1]


def _hears_one_token(net: nn.Module, shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and getattr(net, "global_pool", "token") == "token"


class AsMap:
    """From what a module gives to a map (B, C, H, W): of tokens (B, T, C), of (B, H, W, C), or as it is."""

    def __init__(self, prefix: int = 0, grid: tuple[int, int] | None = None, channels_last: bool = False) -> None:
        self.prefix, self.grid, self.channels_last = prefix, grid, channels_last

    @classmethod
    def of(cls, net: nn.Module, shape: tuple[int, ...], image: torch.Tensor) -> "AsMap | None":
        """How outputs of that shape (1, ...) are read; None where they are no map of the image (1, 3, H, W)."""
        if len(shape) == 4:
            # Sides shrink by the same factor, so a map of a square image has two equal sides beside its channels.
            ratio = image.shape[2] * shape[2] == image.shape[3] * shape[1]
            first = image.shape[2] * shape[3] == image.shape[3] * shape[2]
            return cls(channels_last=ratio and not first) if ratio or first else None
        if len(shape) != 3:
            return None
        grid = getattr(getattr(net, "patch_embed", None), "grid_size", None) or _square(shape[1])
        prefix = shape[1] - grid[0] * grid[1]
        return cls(prefix, tuple(grid)) if prefix >= 0 else None

    def side(self, shape: tuple[int, ...]) -> int:
        """Places on the shorter side of outputs of that shape."""
        return min(self.grid or (shape[1:3] if self.channels_last else shape[2:4]))

    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        if self.grid:
            tokens = output[:, self.prefix :].transpose(1, 2)
            return tokens.reshape(*tokens.shape[:2], *self.grid)
        return output.permute(0, 3, 1, 2) if self.channels_last else output


def _square(tokens: int) -> tuple[int, int]:
    """The largest square grid of so many tokens; what is left over comes before it."""
    side = int(tokens**0.5)
    return side, side
