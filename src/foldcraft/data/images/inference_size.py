"""From a cached image to the size that a net sees, as inference does it."""

from functools import cache
from types import ModuleType

import numpy as np
from PIL import Image

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
    """(H, W, C) to (size, size, C), by the area of pixels.

    OpenCV takes no more than four channels here, and forgets that there is one. Where it is not installed, as on a
    machine that a packed blend is read on, Pillow does the same; values may be one level of 255 apart.
    """
    cv2 = _opencv()
    if cv2 is None:
        channels = [Image.fromarray(np.ascontiguousarray(channel)) for channel in np.moveaxis(image, 2, 0)]
        return np.stack([np.asarray(one.resize((size, size), Image.Resampling.BOX)) for one in channels], axis=2)
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
