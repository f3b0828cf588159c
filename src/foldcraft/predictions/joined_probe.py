"""Closed-form heads on features with metadata beside them: how much these count is chosen with the strength.

The squared length of a row is one on average, and metadata have some share of it. A share of 0 is the images alone, of
1 the metadata alone. All shares are solved with all strengths, side by side, and what is best on rows that a head has
not seen is used.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from foldcraft.models import linear_heads
from foldcraft.models.kernel_ridge import Fit
from foldcraft.models.linear_heads import Heads, Scaling

SHARES = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)  # of equals the first is used


@dataclass(frozen=True)
class Beside:
    """Metadata of rows as one fold's head sees them.

    Attributes:
        rows: encoded float32 (N, D).
        scale: that makes their squared length one on average.
        shares: that are tried.
    """

    rows: torch.Tensor
    scale: float
    shares: Sequence[float] = SHARES

    @classmethod
    def of(cls, encoded: np.ndarray, learned: np.ndarray, shares: Sequence[float] = SHARES) -> "Beside":
        """From encoded metadata (N, D), scaled by the rows that are learned from (n,)."""
        spread = float(encoded[learned].astype(np.float64).var(0).sum())
        return cls(torch.from_numpy(encoded), spread**-0.5 if spread > 0 else 0.0, shares)

    @property
    def width(self) -> int:
        return self.rows.shape[1]

    def at(self, rows: np.ndarray) -> torch.Tensor:
        """Of some rows (n, D), scaled."""
        return self.rows[torch.from_numpy(rows)] * self.scale


@dataclass(frozen=True)
class JoinedFit:
    """Ridge regressions for every share and strength, one share's strengths after those of another.

    Attributes:
        whole: with products of rows, of which `centre` is taken out already.
        shares: of metadata, one a regression (S * L,).
        beside: of the rows that were learned from (R, D), scaled.
        scale: as it was.
    """

    whole: Fit
    shares: torch.Tensor
    beside: torch.Tensor
    scale: float

    def of_images(self, chosen: np.ndarray) -> Fit:
        """What is for the features alone, each column (W,) at its choice."""
        picked = self.whole.only(chosen)
        share = self.shares[torch.from_numpy(chosen)]
        return Fit(picked.dual * (1 - share), picked.intercept, picked.centre)

    def with_beside(self, head: Heads, chosen: np.ndarray) -> Heads:
        """The head of the features, and the columns of metadata after them."""
        share = self.shares[torch.from_numpy(chosen)]
        weight = (self.beside.T @ self.whole.only(chosen).dual[0]) * share * self.scale
        return Heads(torch.cat([head.weight, weight.T[None]], dim=2), head.bias)


def dual(
    beside: Beside,
    places: np.ndarray,
    judged_rows: np.ndarray,
    products: torch.Tensor,
    judged: torch.Tensor,
    solve: Callable[[torch.Tensor], Fit],
) -> tuple[JoinedFit, np.ndarray]:
    """Ridge regressions from products of rows, and the scores (S * L, n, W) of the rows that are judged.

    Args:
        places: of all that is learned from, the row that each is a copy of (R,).
        judged_rows: places of the rows that are judged (n,).
        products: of the features of all that is learned from (R, R).
        judged: products of the judged rows' features with those (n, R).
        solve: the regressions for some products.
    """
    own, asked = beside.at(places), beside.at(judged_rows)
    fits, scores = [], []
    for share in beside.shares:
        mixed = products if not share else torch.addmm(products, own, own.T, beta=1 - share, alpha=share)
        fits.append(solve(mixed))
        seen = judged if not share else torch.addmm(judged, asked, own.T, beta=1 - share, alpha=share)
        scores.append(fits[-1].scores(seen).numpy())
    bias = torch.cat([fit.intercept - (fit.centre @ fit.dual)[:, None] for fit in fits])
    whole = Fit(torch.cat([fit.dual for fit in fits]), bias, torch.zeros(len(products)))
    shares = torch.tensor(beside.shares).repeat_interleave(len(fits[0].dual))
    return JoinedFit(whole, shares, own, beside.scale), np.concatenate(scores)


def primal(
    features: torch.Tensor,
    own: torch.Tensor,
    targets: torch.Tensor,
    strengths: Sequence[float],
    solver: str,
    scaling: Scaling,
    beside: Beside,
    weights: torch.Tensor | None,
) -> Heads:
    """Heads on features (n, D) with metadata (n, d), encoded, after them, of every share and strength."""
    whole = torch.cat([features, own], dim=1)
    nothing, ones = torch.zeros(beside.width), torch.ones(beside.width)
    found = []
    for share in beside.shares:
        scale = torch.cat([scaling.scale * (1 - share) ** 0.5, ones * beside.scale * share**0.5])
        joined = Scaling(torch.cat([scaling.mean, nothing]), scale)
        found.append(linear_heads.fit(whole, targets, strengths, solver, joined, weights))
    return Heads(torch.cat([head.weight for head in found]), torch.cat([head.bias for head in found]))
