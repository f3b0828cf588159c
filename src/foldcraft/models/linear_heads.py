"""Heads on frozen features, solved to the optimum, for every regularisation strength at once.

The features are standardised and each stage is given its share of their total variance, so that strengths mean the
same for every backbone: a row has squared length one on average. Both losses are a mean over rows plus
`strength / 2 * |W|^2`; the intercept is free. Sources: ridge on one-hot labels and multinomial logistic regression as
in scikit-learn (`C = 1 / (rows * strength)`); the fixed curvature bound that preconditions the latter is Boehning's
(Ann. Inst. Statist. Math. 44, 1992).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

SMALLEST_STD = 1e-4  # features that hardly vary are left as they are; fp16 noise would be blown up
SMALLEST_STRENGTH = 1e-7  # beside rows of length one in 32 bits
MOST_STEPS = 300
TOLERANCE = 1e-5  # largest entry of the gradient, relative to a row's share


@dataclass(frozen=True)
class Heads:
    """One linear head a strength, for features as they come.

    Attributes:
        weight: float32 (L, K, D).
        bias: float32 (L, K).
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def only(self, strengths: np.ndarray) -> "Heads":
        """One head: each of its K rows as it is at a strength of its own (K,), by their places."""
        places, rows = torch.from_numpy(strengths), torch.arange(len(strengths))
        return Heads(self.weight[places, rows][None], self.bias[places, rows][None])

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """(N, D) to (L, N, K)."""
        return torch.einsum("nd,lkd->lnk", features, self.weight) + self.bias[:, None]


def shares(widths: Sequence[int], weights: Sequence[float]) -> torch.Tensor:
    """How strongly each column counts (D,), so that a stage counts by its weight however wide it is; 1 in all."""
    total = float(sum(w * w for w in weights)) ** 0.5
    return torch.cat([torch.full((width,), w / total / width**0.5) for width, w in zip(widths, weights, strict=True)])


@dataclass(frozen=True)
class Scaling:
    """Standardisation of the features, with the share of each stage.

    Attributes:
        mean, scale: (D,); a feature x enters as (x - mean) * scale.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, features: torch.Tensor, widths: Sequence[int], weights: Sequence[float]) -> "Scaling":
        """From training features (N, D) of stages that are `widths` wide and count by `weights`."""
        return cls.by(features, shares(widths, weights))

    @classmethod
    def by(cls, features: torch.Tensor, factor: torch.Tensor) -> "Scaling":
        """From training features (N, D), the columns of which count by `factor` (D,)."""
        std, mean = torch.std_mean(features, dim=0, correction=0)
        steady = std < SMALLEST_STD
        return cls(mean, torch.where(steady, 0.0, factor / std.clamp_min(SMALLEST_STD)))

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        scaled = features - self.mean
        return scaled.mul_(self.scale)

    def undone(self, weight: torch.Tensor, bias: torch.Tensor) -> Heads:
        """Heads (L, D, K), (L, K) on scaled features as heads on features as they come."""
        raw = (weight * self.scale[:, None]).transpose(1, 2)
        return Heads(raw.contiguous(), bias - raw @ self.mean)


def fit(
    features: torch.Tensor,
    targets: torch.Tensor,
    strengths: Sequence[float],
    solver: str,
    scaling: Scaling,
    row_weights: torch.Tensor | None = None,
) -> Heads:
    """The best head for each strength.

    Args:
        features: float32 (N, D).
        targets: what is regressed on float32 (N, K): one-hot labels, distributions, values.
        solver: "ridge" or "logistic", which takes distributions.
        row_weights: how much each row counts beside the others (N,); left out: all alike.
    """
    scaled = scaling(features)  # the one copy of the features that is held here: they may be large
    uneven = None if row_weights is None else row_weights / row_weights.mean()
    # Taken out so that the intercept is free and stands apart from the rest.
    centre = (scaled if uneven is None else uneven[:, None] * scaled).mean(0)
    rows = scaled.sub_(centre)
    if solver == "ridge":
        weight, bias = _ridge(rows, targets, uneven, strengths)
    else:
        basis = _Basis.of(rows, uneven)
        weights = torch.ones(len(rows)) if uneven is None else uneven
        rotated, bias = _logistic(basis, targets, weights, torch.tensor(strengths, dtype=torch.float32))
        weight = basis.vectors @ rotated
    return scaling.undone(weight, bias - torch.einsum("d,ldk->lk", centre, weight))


Solution = tuple[torch.Tensor, torch.Tensor]  # weights (L, D or R, K), intercepts (L, K)


def _ridge(
    rows: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None, strengths: Sequence[float]
) -> Solution:
    """From the products of features.

    A Cholesky factor for each of eight strengths takes a third to three quarters of the time of the principal axes,
    which would serve them all (docs/experiments.md).
    """
    count = len(rows)
    mean = (targets if weights is None else weights[:, None] * targets).mean(0)
    pull = targets - mean
    if weights is not None:
        root = weights.sqrt()[:, None]
        rows, pull = rows * root, pull * root
    products, wanted = rows.T @ rows / count, rows.T @ pull / count
    weight = torch.stack([solved(products, strength, wanted) for strength in strengths])
    return weight, mean.expand(len(strengths), -1).clone()


def solved(products: torch.Tensor, strength: float, wanted: torch.Tensor) -> torch.Tensor:
    """(products + strength)^-1 @ wanted; a strength that is lost among rounding errors is raised above them."""
    while True:
        shifted = products.clone()
        shifted.diagonal().add_(strength)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        if not failed or strength > 1:  # no number above one would help: something is no number
            return torch.cholesky_solve(wanted, factor)
        strength = max(10 * strength, SMALLEST_STRENGTH)


@dataclass(frozen=True)
class _Basis:
    """Principal axes of the rows.

    Attributes:
        vectors: (D, R).
        variances: of the (weighted) rows along each axis (R,).
        rows: the centred rows they are of (N, D).
    """

    vectors: torch.Tensor
    variances: torch.Tensor
    rows: torch.Tensor

    @classmethod
    def of(cls, rows: torch.Tensor, weights: torch.Tensor | None) -> "_Basis":
        count, width = rows.shape
        heavy = rows if weights is None else rows * weights.sqrt()[:, None]
        if width <= count:
            variances, vectors = _axes(heavy.T @ heavy / count)
        else:
            variances, left = _axes(heavy @ heavy.T / count)
            kept = variances > variances[-1] * 1e-7
            variances, left = variances[kept], left[:, kept]
            vectors = heavy.T @ left / (variances * count).sqrt()
        return cls(vectors, variances.clamp_min(0), rows)


def _axes(covariance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues (D,), ascending, and eigenvectors (D, D) of a symmetric matrix."""
    try:
        return torch.linalg.eigh(covariance)
    except torch.linalg.LinAlgError:  # where hundreds of features do not vary, 32 bits do not always converge
        values, vectors = torch.linalg.eigh(covariance.double())
        return values.float(), vectors.float()


def _logistic(basis: _Basis, onehot: torch.Tensor, weights: torch.Tensor, strengths: torch.Tensor) -> Solution:
    """All strengths side by side by L-BFGS, in coordinates in which the curvature is at most one everywhere."""
    count, classes = onehot.shape
    prior = (weights[:, None] * onehot).mean(0).clamp_min(1e-6).log()
    stretch = (0.5 * basis.variances[None] + strengths[:, None]).rsqrt()[..., None]  # (L, R, 1)
    free = torch.zeros(len(strengths), len(basis.variances) + 1, classes, requires_grad=True)
    share = weights[:, None] / count
    rows = basis.rows @ basis.vectors

    def unpack() -> Solution:
        return free[:, :-1] * stretch, free[:, -1] + prior

    def gradient() -> torch.Tensor:
        with torch.no_grad():
            weight, bias = unpack()
            # logistic heads are of one label; others are refused before
            log_probs = (rows @ weight + bias[:, None]).log_softmax(2)
            loss = -(share * onehot * log_probs).sum() + (strengths[:, None, None] * weight.square()).sum() / 2
            residual = share * (log_probs.exp() - onehot)
            slope = rows.T @ residual + strengths[:, None, None] * weight
            free.grad = torch.cat([slope * stretch, residual.sum(1, keepdim=True)], dim=1)
        return loss

    lbfgs = torch.optim.LBFGS(
        [free],
        max_iter=MOST_STEPS,
        history_size=20,
        tolerance_grad=TOLERANCE,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )
    lbfgs.step(gradient)
    with torch.no_grad():
        return unpack()
