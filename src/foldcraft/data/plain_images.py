"""Images as inference sees them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from foldcraft.common.config import ImagesConfig
from foldcraft.data.images.image_cache import ImageStore
from foldcraft.data.images.inference_size import resize_for_inference


@dataclass(frozen=True)
class PlainImages(Dataset[torch.Tensor]):
    """Images as inference sees them, uint8 (B, size, size, 3)."""

    store: ImageStore
    images: ImagesConfig

    @property
    def key(self) -> tuple:
        """Equal for equal images."""
        return (self.store.path, self.images.size, self.images.resize)

    def at(self, rows: Sequence[int]) -> torch.Tensor:
        """Images of these rows."""
        return torch.from_numpy(np.stack([resize_for_inference(self.store[row], self.images) for row in rows]))
