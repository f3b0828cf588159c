"""From a cached image to the size that a net sees, as inference does it."""

from functools import cache
from types import ModuleType

import numpy as np

from foldcraft.common.config import ImagesConfig


def resize_for_inference(image: np.ndarray, images: ImagesConfig) -> np.ndarray:
    """What inference sees of a cached image: uint8 (side, side, C) to (size, size, C), by the resizing policy."""
    side, size = image.shape[0], images.size
    if side == size:
        return image
    if images.resize != "crop":
        return resized(image, size)
    start = (side - size) // 2
    return image[start : start + size, start : start + size]


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W, C) made smaller, to (size, size, C), by the area of pixels.

    OpenCV takes no more than four channels here, and forgets that there is one. Where it is not installed, as on a
    machine that a packed blend is read on, NumPy does the same; a value may be one of 255 apart.
    """
    cv2 = _opencv()
    if cv2 is None:
        down, across = (_areas(side, size) for side in image.shape[:2])
        return np.rint(np.einsum("ab,bcd,ec->aed", down, image, across, optimize=True)).astype(np.uint8)
    parts = [image[..., first : first + 4] for first in range(0, image.shape[2], 4)]
    made = [cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA) for part in parts]
    return (
        np.concatenate([part.reshape(size, size, -1) for part in made], axis=2)
        if len(parts) > 1
        else (made[0].reshape(size, size, -1))
    )


@cache
def _opencv() -> ModuleType | None:
    try:
        import cv2
    except ImportError:
        return None
    return cv2


@cache
def _areas(before: int, after: int) -> np.ndarray:
    """The share that each old pixel has of each new one, float32 (after, before)."""
    edges = np.linspace(0, before, after + 1)
    starts, ends = np.maximum(edges[:-1, None], np.arange(before)), np.minimum(edges[1:, None], np.arange(before) + 1)
    return (np.maximum(0, ends - starts) * after / before).astype(np.float32)
