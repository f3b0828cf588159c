"""Closed-form heads: the optimum that scikit-learn finds, for every strength, whatever the shape of the features."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, Ridge

from foldcraft.common.config import ProbeConfig
from foldcraft.models import linear_heads
from foldcraft.models.linear_heads import Scaling

CLASSES = 3
STRENGTHS = ProbeConfig().strengths
WIDTHS, SHARES = (10, 14), (1.0, 3.0)


def data(rows: int, width: int = sum(WIDTHS), seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of very different sizes, far from zero, two of them constant; classes that overlap."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, CLASSES, rows)
    centres = rng.normal(0, 0.8, (CLASSES, width))
    features = (rng.normal(0, 1, (rows, width)) + centres[targets]) * np.exp(rng.normal(0, 1, width)) + 3
    features[:, [0, width - 1]] = (7.0, 0.0)
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(targets)


def onehot(targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(targets).float()


def probabilities(logits: np.ndarray) -> np.ndarray:
    return softmax(logits, axis=1)


@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
@pytest.mark.parametrize(("rows", "widths"), [(120, WIDTHS), (40, (20, 44))], ids=["tall", "wide"])
@pytest.mark.parametrize("solver", ["ridge", "logistic"])
def test_heads_are_those_of_scikit_learn(solver: str, rows: int, widths: tuple[int, int], weighted: bool) -> None:
    features, targets = data(rows, sum(widths))
    counts = torch.rand(rows, generator=torch.Generator().manual_seed(0)) + 0.2 if weighted else None
    scaling = Scaling.of(features, widths, SHARES)
    found = linear_heads.fit(features, onehot(targets), STRENGTHS, solver, scaling, counts).logits(features).numpy()

    scaled, classes = scaling(features).double().numpy(), targets.numpy()
    counts = (counts / counts.mean()).double().numpy() if weighted else None
    for strength, logits in zip(STRENGTHS, found, strict=True):
        if solver == "ridge":
            one = Ridge(alpha=rows * strength).fit(scaled, np.eye(CLASSES)[classes], sample_weight=counts)
            np.testing.assert_allclose(logits, one.predict(scaled), atol=1e-3)
        else:
            one = LogisticRegression(C=1 / (rows * strength), tol=1e-10, max_iter=20_000)
            expected = one.fit(scaled, classes, sample_weight=counts).predict_proba(scaled)
            np.testing.assert_allclose(probabilities(logits), expected, atol=1e-3)


def test_a_row_has_squared_length_one_and_each_stage_its_share() -> None:
    features, _ = data(200)
    varied = features[:, 1:-1]  # without the constant columns

    scaled = Scaling.of(varied, (9, 13), SHARES)(varied)

    assert float(scaled.square().sum(1).mean()) == pytest.approx(1, abs=1e-4)
    first, second = scaled[:, :9].square().sum(1).mean(), scaled[:, 9:].square().sum(1).mean()
    assert float(second / first) == pytest.approx((SHARES[1] / SHARES[0]) ** 2, rel=1e-4)


@pytest.mark.parametrize("solver", ["ridge", "logistic"])
def test_constant_features_count_for_nothing(solver: str) -> None:
    features, targets = data(60)
    fitted = linear_heads.fit(features, onehot(targets), [1e-3], solver, Scaling.of(features, WIDTHS, SHARES))
    assert fitted.weight[..., [0, -1]].abs().max() == 0
    assert fitted.weight.isfinite().all()

    nothing = torch.full((60, 4), 2.0)
    fitted = linear_heads.fit(nothing, onehot(targets), [1e-3], solver, Scaling.of(nothing, (4,), (1.0,)))
    shares = torch.bincount(targets) / 60
    guessed = fitted.logits(nothing)[0, 0]
    np.testing.assert_allclose(guessed if solver == "ridge" else guessed.softmax(0), shares, atol=1e-3)


@pytest.mark.parametrize("solver", ["ridge", "logistic"])
def test_a_weight_of_two_is_a_row_that_comes_twice(solver: str) -> None:
    features, targets = data(60)
    scaling = Scaling.of(features, WIDTHS, SHARES)
    twice = torch.ones(60)
    twice[:20] = 2
    weighted = linear_heads.fit(features, onehot(targets), [1e-2], solver, scaling, twice)
    doubled = torch.cat([torch.arange(20), torch.arange(60)])
    repeated = linear_heads.fit(features[doubled], onehot(targets[doubled]), [1e-2], solver, scaling)
    np.testing.assert_allclose(weighted.logits(features), repeated.logits(features), atol=1e-3)


def test_features_of_which_most_say_the_same_have_heads_too() -> None:
    """Hundreds of constant features and three that are not: 32-bit eigenvalues do not converge there."""
    rng = np.random.default_rng(0)
    features = (0.02 * rng.normal(0, 1, (900, 3)) @ rng.normal(0, 1, (3, 832))).astype(np.float32)
    features[:, ::2] = 0
    targets = torch.from_numpy((features.sum(1) > 0).astype(np.int64))
    given = torch.from_numpy(features)
    found = linear_heads.fit(given, onehot(targets), [1e-4], "ridge", Scaling.of(given, [832], [1.0])).logits(given)[0]
    assert (found.argmax(1) == targets).float().mean() > 0.9


@pytest.mark.parametrize("width", [20, 200])
def test_next_to_no_regularisation_is_no_regularisation(width: int) -> None:
    features, targets = data(100, width)
    scaling = Scaling.of(features, [width], [1.0])
    found = linear_heads.fit(features, onehot(targets), [1e-15], "ridge", scaling).logits(features)[0].numpy()
    scaled = np.c_[np.ones(100), scaling(features).double()]
    expected = scaled @ np.linalg.lstsq(scaled, np.eye(CLASSES)[targets], rcond=1e-9)[0]
    np.testing.assert_allclose(found, expected, atol=2e-3)
