"""Test-time augmentation: views of an image by name."""

from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F

from foldcraft.common import view_names

View = Callable[[torch.Tensor], torch.Tensor]

FIXED: dict[str, View] = {
    "identity": lambda images: images,
    "hflip": lambda images: images.flip(3),
    "vflip": lambda images: images.flip(2),
    "rot90": lambda images: images.rot90(1, (2, 3)),
    "rot180": lambda images: images.rot90(2, (2, 3)),
    "rot270": lambda images: images.rot90(3, (2, 3)),
}


def view(name: str, where: str = "tta.views") -> View:
    """The view of that name, from (B, C, H, W) to the same shape.

    `scale1.15` looks at the image magnified by 1.15 and cut to its centre, `scale0.9` at the whole image made smaller
    on a border of mirrored pixels; `+` joins views.

    Raises:
        FoldcraftError: no such view.
    """
    named = view_names.steps(name, where)
    steps = [FIXED[step] if isinstance(step, str) else partial(_scale, factor=step) for step in named]

    def look(images: torch.Tensor) -> torch.Tensor:
        for step in steps:
            images = step(images)
        return images

    return look


def mirrored(name: str) -> str:
    """The name of a view's mirror image."""
    if name in ("identity", "hflip"):
        return "hflip" if name == "identity" else "identity"
    return name.removesuffix("+hflip") if name.endswith("+hflip") else f"{name}+hflip"


def _scale(images: torch.Tensor, factor: float) -> torch.Tensor:
    size = images.shape[-1]
    side = max(2, round(size * factor))
    scaled = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    if side >= size:
        start = (side - size) // 2
        return scaled[..., start : start + size, start : start + size]
    before = (size - side) // 2
    after = size - side - before
    return F.pad(scaled, (before, after, before, after), mode="reflect")
