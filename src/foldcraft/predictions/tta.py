"""Test-time augmentation: views of an image by name; torch is not needed to read the names.

A view is one of `FIXED`, a zoom (`scale1.15`), or several joined by + (`hflip+scale1.15`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from foldcraft.common.errors import FoldcraftError, suggest

if TYPE_CHECKING:
    import torch

    View = Callable[[torch.Tensor], torch.Tensor]

SCALE = re.compile(r"scale(\d+(?:\.\d+)?)")
FIXED: dict[str, View] = {
    "identity": lambda images: images,
    "hflip": lambda images: images.flip(3),
    "vflip": lambda images: images.flip(2),
    "rot90": lambda images: images.rot90(1, (2, 3)),
    "rot180": lambda images: images.rot90(2, (2, 3)),
    "rot270": lambda images: images.rot90(3, (2, 3)),
}


def steps(name: str, where: str = "tta.views") -> list[str | float]:
    """The steps of the view of that name, in order: one of `FIXED`, or the factor of a scale, 0.5 to 2.

    Raises:
        FoldcraftError: no such view.
    """
    return [_step(part, where) for part in name.split("+")]


def _step(name: str, where: str) -> str | float:
    if name in FIXED:
        return name
    match = SCALE.fullmatch(name)
    if match and 0.5 <= float(match[1]) <= 2:
        return float(match[1])
    hint = "scales go from scale0.5 to scale2" if match else suggest(name, [*FIXED, "scale1.15"])
    raise FoldcraftError(f"no view {name!r}", where, hint)


def view(name: str, where: str = "tta.views") -> View:
    """The view of that name, from (B, C, H, W) to the same shape.

    `scale1.15` looks at the image magnified by 1.15 and cut to its centre, `scale0.9` at the whole image made smaller
    on a border of mirrored pixels; `+` joins views.

    Raises:
        FoldcraftError: no such view.
    """
    named = steps(name, where)
    looks = [FIXED[step] if isinstance(step, str) else partial(_scale, factor=step) for step in named]

    def look(images: torch.Tensor) -> torch.Tensor:
        for change in looks:
            images = change(images)
        return images

    return look


def mirrored(name: str) -> str:
    """The name of a view's mirror image."""
    if name in ("identity", "hflip"):
        return "hflip" if name == "identity" else "identity"
    return name.removesuffix("+hflip") if name.endswith("+hflip") else f"{name}+hflip"


def _scale(images: torch.Tensor, factor: float) -> torch.Tensor:
    from torch.nn import functional as F

    size = images.shape[-1]
    side = max(2, round(size * factor))
    scaled = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    if side >= size:
        start = (side - size) // 2
        return scaled[..., start : start + size, start : start + size]
    before = (size - side) // 2
    after = size - side - before
    return F.pad(scaled, (before, after, before, after), mode="reflect")
