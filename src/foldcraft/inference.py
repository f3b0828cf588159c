"""Several models, several views, one decode an image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from foldcraft import tta
from foldcraft.config import ImagesConfig
from foldcraft.forward import Preparation, log_probabilities
from foldcraft.hardware import Hardware
from foldcraft.images import ImageStore
from foldcraft.loader import PlainImages

BATCH = 64


@dataclass(frozen=True)
class Member:
    """A trained model and how it wants its images.

    Attributes:
        model: in evaluation mode, on the hardware's device.
        store: images that it is to predict.
        views: names of the views.
    """

    model: nn.Module
    preparation: Preparation
    hardware: Hardware
    store: ImageStore
    images: ImagesConfig
    views: tuple[str, ...]


def predict(
    members: Sequence[Member], rows: np.ndarray, progress: Callable[[int], object] = lambda done: None
) -> list[np.ndarray]:
    """Log-probabilities float32 (V, N, K) of each member.

    An image is read once for all members that share a store and a size, prepared once for all that share a
    normalisation, and turned into a view once for all that look at it that way.

    Args:
        rows: rows of the stores (N,).
        progress: called with the number of images after each batch.
    """
    results: list[list[torch.Tensor]] = [[] for _ in members]
    for first in range(0, len(rows), BATCH):
        some = rows[first : first + BATCH]
        seen = _SharedViews(some)
        for member, result in zip(members, results, strict=True):
            log_probs = [
                log_probabilities(member.model, seen.of(member, name), member.hardware) for name in member.views
            ]
            result.append(torch.stack(log_probs))
        progress(len(some))
    return [torch.cat(result, dim=1).cpu().numpy() for result in results]


class _SharedViews:
    """The views of one batch of rows, each made when first asked for."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.made: dict[tuple, torch.Tensor] = {}

    def of(self, member: Member, view: str) -> torch.Tensor:
        raw = (member.store.path, member.images.size, member.images.resize)
        prepared = (*raw, member.preparation)
        self._make(raw, lambda: PlainImages(member.store, member.images).__getitems__(self.rows))
        self._make(prepared, lambda: member.preparation(self.made[raw]))
        return self._make((*prepared, view), lambda: self._look(self.made[prepared], view, member.hardware))

    def _look(self, images: torch.Tensor, view: str, hardware: Hardware) -> torch.Tensor:
        return tta.view(view)(images).contiguous(memory_format=hardware.torch_memory_format)

    def _make(self, key: tuple, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]
