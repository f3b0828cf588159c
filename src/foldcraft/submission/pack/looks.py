"""Views of prepared images in NumPy alone, as `predictions.tta` makes them in torch."""

from functools import cache

import numpy as np

from foldcraft.predictions import tta


def look(images: np.ndarray, name: str) -> np.ndarray:
    """The view of that name of square images float32 (B, C, S, S), to the same shape.

    Raises:
        FoldcraftError: no such view.
    """
    for step in tta.steps(name):
        images = _scaled(images, step) if isinstance(step, float) else _turned(images, step)
    return np.ascontiguousarray(images)


def _turned(images: np.ndarray, step: str) -> np.ndarray:
    if step == "identity":
        return images
    if step in ("hflip", "vflip"):
        return np.flip(images, 3 if step == "hflip" else 2)
    return np.rot90(images, int(step.removeprefix("rot")) // 90, (2, 3))


def _scaled(images: np.ndarray, factor: float) -> np.ndarray:
    size = images.shape[-1]
    side = max(2, round(size * factor))
    matrix = weights(size, side)
    scaled = matrix @ images @ matrix.T
    if side >= size:
        start = (side - size) // 2
        return scaled[..., start : start + size, start : start + size]
    before = (size - side) // 2
    after = size - side - before
    return np.pad(scaled, ((0, 0), (0, 0), (before, after), (before, after)), mode="reflect")


@cache
def weights(before: int, after: int) -> np.ndarray:
    """What each old pixel counts in each new one, float32 (after, before): bilinear, with antialiasing.

    A new pixel is the mean of the old ones under a triangle as wide as two new pixels, at the least two old ones.
    """
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale
    distance = np.abs(np.arange(before) + 0.5 - centres[:, None]) / max(scale, 1.0)
    triangle = np.maximum(0.0, 1.0 - distance)
    return (triangle / triangle.sum(1, keepdims=True)).astype(np.float32)
