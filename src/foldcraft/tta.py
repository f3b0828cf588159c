"""Test-time augmentation: views of an image by name."""

import re
from collections.abc import Callable

import torch
from torch.nn import functional as F

from foldcraft.errors import FoldcraftError, suggest

View = Callable[[torch.Tensor], torch.Tensor]

FIXED: dict[str, View] = {
    "identity": lambda images: images,
    "hflip": lambda images: images.flip(3),
    "vflip": lambda images: images.flip(2),
    "rot90": lambda images: images.rot90(1, (2, 3)),
    "rot180": lambda images: images.rot90(2, (2, 3)),
    "rot270": lambda images: images.rot90(3, (2, 3)),
}
SCALE = re.compile(r"scale(\d+(?:\.\d+)?)")


def view(name: str, where: str = "tta.views") -> View:
    """The view of that name, from (B, C, H, W) to the same shape.

    `scale1.15` looks at the image magnified by 1.15 and cut to its centre, `scale0.9` at the whole image made smaller
    on a border of mirrored pixels; `+` joins views.

    Raises:
        FoldcraftError: no such view.
    """
    steps = [_step(part, where) for part in name.split("+")]

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


def _step(name: str, where: str) -> View:
    if name in FIXED:
        return FIXED[name]
    match = SCALE.fullmatch(name)
    if match and 0.5 <= float(match[1]) <= 2:
        return lambda images: _scale(images, float(match[1]))
    mend = "scales go from scale0.5 to scale2" if match else suggest(name, [*FIXED, "scale1.15"])
    raise FoldcraftError(f"no view {name!r}", where, mend)


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
