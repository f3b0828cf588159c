"""Flips that change the label: what is left in an image is right in its mirror image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from foldcraft.common.config import AugmentConfig
from foldcraft.common.errors import FoldcraftError, shorten, suggest
from foldcraft.data.targets.target import Target
from foldcraft.metrics.spaces import ClassSpace, ValueSpace

if TYPE_CHECKING:
    import torch

Columns = TypeVar("Columns", np.ndarray, "torch.Tensor")
STEPS = {"hflip": ("hflip",), "vflip": ("vflip",), "rot180": ("hflip", "vflip")}  # what a step of a view flips
Flips = tuple[str, ...]


@dataclass(frozen=True)
class Swaps:
    """What flips do to the columns of predictions.

    Attributes:
        orders: of each flip that changes them, the column that takes the place of each (W,).
    """

    orders: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, config: AugmentConfig, target: Target) -> Swaps:
        """Those that the settings name.

        Raises:
            FoldcraftError: a class, label or column that is not there; two that cannot be swapped.
        """
        return cls({flip: _order(swap, target, f"augment.{flip}.swap") for flip, swap in config.swaps.items()})

    def order(self, flips: Sequence[str]) -> np.ndarray | None:
        """Columns in the place of each (W,) after some flips, one after the other; None where all stay."""
        orders = [self.orders[flip] for flip in flips if flip in self.orders]
        if not orders:
            return None
        whole = orders[0]
        for order in orders[1:]:
            whole = order[whole]
        return whole

    def of_view(self, view: str) -> np.ndarray | None:
        """The same of a view by its name."""
        return self.order([flip for step in view.split("+") for flip in STEPS.get(step, ())])

    def restored(self, view: str, predicted: Columns) -> Columns:
        """Predictions (..., W) of a view in terms of the image as it is."""
        order = self.of_view(view)
        return predicted if order is None else predicted[..., order]

    def drawn(self) -> list[Flips]:
        """All that may happen to an image and changes its label."""
        return [flips for count in range(1, len(self.orders) + 1) for flips in combinations(self.orders, count)]

    def target(self, target: Target, flips: Sequence[str]) -> Target:
        """What the rows are after some flips."""
        order = self.order(flips)
        return target if order is None else target.reordered(_inverse(order))

    def matrix(self, target: Target, matrix: np.ndarray, flips: Sequence[str]) -> np.ndarray:
        """The same of targets as `Space.matrix` has them (N, W)."""
        order = self.order(flips)
        if order is None:
            return matrix
        order, space = _inverse(order), target.space
        if not isinstance(space, ValueSpace):
            return matrix[:, order]
        values = (matrix * space.scale + space.centre)[:, order]
        return ((values - space.centre) / space.scale).astype(matrix.dtype)


def _inverse(order: np.ndarray) -> np.ndarray:
    """Two swaps one after the other need not be undone by the same two."""
    return np.argsort(order)


def _order(swap: Mapping[str, str], target: Target, where: str) -> np.ndarray:
    order = np.arange(target.space.width)
    for pair in swap.items():
        first, second = _places(pair, target, where)
        order[first], order[second] = second, first
    return order


def _places(pair: tuple[str, str], target: Target, where: str) -> tuple[list[int], list[int]]:
    """Columns of both sides: a class, label or column each, or the classes of two of several labels."""
    space, names = target.space, list(target.space.names)
    widths = space.widths if isinstance(space, ClassSpace) else ()
    if widths and set(pair) <= set(target.columns):
        parts = [space.slices[target.columns.index(name)] for name in pair]
        if space.names_of(parts[0]) != space.names_of(parts[1]):
            raise FoldcraftError(f"{pair[0]} and {pair[1]} have other classes", where, "swap classes, as side=left")
        return tuple(list(range(part.start, part.stop)) for part in parts)
    heads = [""] if not widths else ["", *(f"{column}=" for column in target.columns)]
    found = [(a, b) for head in heads for a, b in [(head + pair[0], head + pair[1])] if a in names and b in names]
    if len(found) > 1:
        raise FoldcraftError(f"{pair[0]!r} is a class of several labels", where, f"write {found[0][0]}: {found[0][1]}")
    if not found:
        known = [*names, *(target.columns if widths else ()), *(name.partition("=")[2] for name in names if widths)]
        lacking = [name for name in pair if name not in known] or list(pair)
        what = f"no class, label or column {shorten(lacking[0], 60)!r} to swap"
        raise FoldcraftError(what, where, suggest(lacking[0], known))
    places = [names.index(name) for name in found[0]]
    if widths and len({name.partition("=")[0] for name in found[0]}) > 1:
        raise FoldcraftError(f"{pair[0]} and {pair[1]} are of two labels", where, "swap classes of one, or both labels")
    return [places[0]], [places[1]]
