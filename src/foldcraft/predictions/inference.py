"""Several models, several views, one decode an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from foldcraft.data.label_swap import Swaps
from foldcraft.data.plain_images import PlainImages
from foldcraft.models.hardware import Hardware
from foldcraft.models.inputs import Inputs
from foldcraft.models.preprocessing import Preparation
from foldcraft.predictions import tta

if TYPE_CHECKING:
    from foldcraft.data.loader import DrawnImages

BATCH = 64
Progress = Callable[[int], object]


@dataclass(frozen=True)
class InferenceModel:
    """A model and how it wants its images.

    Attributes:
        model: in evaluation mode, on the hardware's device.
        images: what it looks at.
        views: names of the views.
        output: from model, what enters it for B rows, and hardware to what is wanted of it, (B, ·).
        swaps: what flips do to the columns of it; what is stored and pooled is in terms of the image as it is.
        beside: metadata of all rows that `images` has, encoded float32 (N, d); None: the model takes none.
    """

    model: nn.Module
    preparation: Preparation
    hardware: Hardware
    images: PlainImages | DrawnImages
    views: tuple[str, ...]
    output: Callable[[nn.Module, Inputs, Hardware], torch.Tensor]
    swaps: Swaps = field(default_factory=Swaps)
    beside: np.ndarray | None = None


def predict(
    members: Sequence[InferenceModel], rows: np.ndarray, progress: Progress = lambda done: None
) -> list[np.ndarray]:
    """Predictions float32 (V, N, W) of each member.

    Args:
        rows: rows of the stores (N,).
        progress: called with the number of images after each batch.
    """
    batches = [results for _, results in sweep(members, rows, progress)]
    return [torch.cat([batch[k] for batch in batches], dim=1).numpy() for k in range(len(members))]


def sweep(
    members: Sequence[InferenceModel],
    rows: np.ndarray,
    progress: Progress = lambda done: None,
    batch: int | None = None,
) -> Iterator[tuple[slice, list[torch.Tensor]]]:
    """What each member makes of one batch of rows after another: places in `rows`, and (V, B, ·) for each member.

    An image is read once for all members that look at the same ones, prepared once for all that share a
    normalisation, and turned into a view once for all that look at it that way.
    """
    begun = chain(_begun(members, rows, batch or BATCH), [None])
    for (places, looks), _ in pairwise(begun):  # the device has been told of the next batch before it is waited for
        yield places, [look.cpu() for look in looks]
        progress(places.stop - places.start)


def _begun(
    members: Sequence[InferenceModel], rows: np.ndarray, batch: int
) -> Iterator[tuple[slice, list[torch.Tensor]]]:
    for first in range(0, len(rows), batch):
        places = slice(first, min(first + batch, len(rows)))
        yield places, _looks(members, rows[places])


def _looks(members: Sequence[InferenceModel], rows: np.ndarray) -> list[torch.Tensor]:
    """What each member makes of one batch of rows (V, B, ·), left on its device."""
    seen = _SharedViews(rows)
    return [torch.stack([_look(member, name, seen.of(member, name)) for name in member.views]) for member in members]


def _look(member: InferenceModel, view: str, inputs: Inputs) -> torch.Tensor:
    return member.swaps.restored(view, member.output(member.model, inputs, member.hardware))


class _SharedViews:
    """The views of one batch of rows, each made when first asked for."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.made: dict[tuple, torch.Tensor] = {}

    def of(self, member: InferenceModel, view: str) -> Inputs:
        raw = member.images.key
        prepared = (*raw, member.preparation)
        self._make(raw, lambda: member.images.at(self.rows))
        self._make(prepared, lambda: member.preparation(self.made[raw]))
        images = self._make((*prepared, view), lambda: self._look(self.made[prepared], view, member.hardware))
        if member.beside is None:
            return Inputs(images)
        return Inputs(images, torch.from_numpy(member.beside[self.rows]).to(images.device))

    def _look(self, images: torch.Tensor, view: str, hardware: Hardware) -> torch.Tensor:
        return tta.view(view)(images).contiguous(memory_format=hardware.torch_memory_format)

    def _make(self, key: tuple, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]
