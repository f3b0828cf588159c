"""Ridge heads from the products of rows, for data with fewer rows than features.

Features enter through the products of rows with each other alone, so nets, sizes and blocks are added up one by one,
all folds and strengths are solved from one matrix, and no more than one part's features are ever held in 32 bits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from foldcraft.models.linear_heads import Heads, Scaling, solved


@dataclass
class Products:
    """Products of standardised rows, summed over the parts that were added.

    Attributes:
        learned: of the rows that are learned from with each other (R, R).
        judged: of the rows that are judged with those (N, R).
    """

    learned: torch.Tensor
    judged: torch.Tensor

    @classmethod
    def none(cls, learned: int, judged: int) -> "Products":
        """Of no features yet, for so many rows."""
        return cls(torch.zeros(learned, learned), torch.zeros(judged, learned))

    def add(self, learned: torch.Tensor, judged: torch.Tensor) -> None:
        """Add some features (R, D) and (N, D), standardised."""
        self.learned.addmm_(learned, learned.T)
        self.judged.addmm_(judged, learned.T)


@dataclass(frozen=True)
class Fit:
    """Ridge regressions on some of the rows, one a strength.

    Attributes:
        dual: coefficients of the rows (L, R, K), summing to 0 over the rows that were learned from.
        intercept: mean of the targets (L, 1, K).
        centre: product of the mean row with every row (R,).
    """

    dual: torch.Tensor
    intercept: torch.Tensor
    centre: torch.Tensor

    def only(self, strengths: np.ndarray) -> "Fit":
        """Each of its K columns at a strength of its own (K,), by their places."""
        places, columns = torch.from_numpy(strengths), torch.arange(len(strengths))
        dual = self.dual[places, :, columns].T.contiguous()
        return Fit(dual[None], self.intercept[places, 0, columns][None, None], self.centre)

    def scores(self, judged: torch.Tensor) -> torch.Tensor:
        """(N, R) products of rows with those learned from, to (L, N, K)."""
        return (judged - self.centre) @ self.dual + self.intercept


def fit(
    products: torch.Tensor,
    rows: torch.Tensor,
    targets: torch.Tensor,
    strengths: Sequence[float],
    weights: torch.Tensor | None = None,
) -> Fit:
    """Ridge regression on some rows, the mean over rows of squared errors plus `strength * |W|^2`, intercept free.

    Args:
        products: of all rows with each other (R, R).
        rows: indices (n,) of those that are learned from.
        targets: float (R, K).
        weights: how much each of `rows` counts beside the others (n,); left out: all alike.
    """
    count = len(rows)
    share = torch.full((count,), 1 / count) if weights is None else weights / weights.sum()
    inner = products[rows][:, rows]
    centre = inner @ share
    intercept = share @ targets[rows]
    root = share.sqrt()[:, None]
    matrix = (inner - centre[:, None] - centre + share @ centre).mul_(root).mul_(root.T)
    pull = root * (targets[rows] - intercept)
    dual = torch.stack([root * solved(matrix, strength, pull) for strength in strengths])
    dual -= share[:, None] * dual.sum(1, keepdim=True)
    whole = torch.zeros(len(strengths), len(products), targets.shape[1])
    whole[:, rows] = dual
    spread = torch.zeros(len(products))
    spread[rows] = share
    return Fit(whole, intercept.expand(len(strengths), 1, -1), products @ spread)


def side_by_side(parts: Sequence[tuple[np.ndarray, Fit]]) -> Fit:
    """One fit of all columns from fits of some columns each, which were learned from different rows."""
    order = np.argsort(np.concatenate([columns for columns, _ in parts]))
    dual = torch.cat([part.dual for _, part in parts], dim=2)[:, :, order]
    own = [part.intercept - (part.centre @ part.dual)[:, None] for _, part in parts]
    return Fit(dual, torch.cat(own, dim=2)[:, :, order], torch.zeros(dual.shape[1]))


def heads(chosen: Sequence[Fit], parts: Iterable[tuple[torch.Tensor, Scaling]]) -> list[Heads]:
    """The weights behind some fits of one strength each, for features as they come.

    Args:
        parts: of each, in order, the rows learned from as they were added (R, D), and how they were standardised.
    """
    dual = torch.cat([fitted.dual[0] for fitted in chosen], dim=1)
    bias = torch.cat([fitted.intercept[0, 0] - fitted.centre @ fitted.dual[0] for fitted in chosen])
    weights = []
    for rows, scaling in parts:
        weight = (rows.T @ dual).mul_(scaling.scale[:, None])
        bias = bias - scaling.mean @ weight
        weights.append(weight.T)
    whole = torch.cat(weights, dim=1).reshape(len(chosen), 1, -1, sum(part.shape[1] for part in weights))
    return [Heads(weight, own) for weight, own in zip(whole, bias.reshape(len(chosen), 1, -1), strict=True)]
