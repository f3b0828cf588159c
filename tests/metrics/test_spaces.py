"""Spaces of predictions: what is pooled, tempered and judged, beside a second way of working it out."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from tables import class_space

from foldcraft.metrics.spaces import ClassSpace, LabelSpace, Space, ValueSpace

ROWS = 80
RNG = np.random.default_rng(0)
TWO = ClassSpace(("a=0", "a=1", "b=0", "b=1", "b=2"), (2, 3))
LABELS = LabelSpace(("x", "y", "z"))
VALUES = ValueSpace(("u", "v"), np.array([1.0, -2.0]), np.array([2.0, 0.5]))


def truth_of(space: Space, rng: np.random.Generator = RNG) -> np.ndarray:
    """Of every form, with gaps where there may be some."""
    if space is TWO:
        truth = np.column_stack([rng.integers(0, 2, ROWS), rng.integers(0, 3, ROWS)])
        return np.where(rng.random(truth.shape) < 0.2, -1, truth)
    if isinstance(space, ClassSpace):
        return rng.integers(0, space.width, ROWS)
    truth = rng.integers(0, 2, (ROWS, space.width)).astype(float)
    if isinstance(space, ValueSpace):
        truth = space.centre + space.scale * rng.normal(0, 1, (ROWS, 2))
    truth[rng.random(truth.shape) < 0.2] = np.nan
    return truth


def predicted_by(space: Space, truth: np.ndarray, seed: int, signal: float = 1.5) -> np.ndarray:
    """Evidence for the truth, with noise."""
    noise = np.random.default_rng(seed).normal(0, 1, (ROWS, space.width))
    matrix = np.nan_to_num(space.matrix(truth), nan=0.5)
    if isinstance(space, ValueSpace):
        return space.centre + space.scale * (np.nan_to_num(space.matrix(truth)) + 0.5 * noise)
    return space.normalised(noise + signal * (2 * matrix - 1))


SPACES = [class_space(4), TWO, LABELS, VALUES]
each_space = pytest.mark.parametrize("space", SPACES, ids=["one label", "two labels", "labels", "values"])


@each_space
def test_what_is_not_known_has_no_loss_and_no_say(space: Space) -> None:
    truth = truth_of(space)
    predicted = predicted_by(space, truth, 1)
    losses = space.losses(predicted, truth)
    if truth.ndim > 1:
        known = truth >= 0 if space is TWO else ~np.isnan(truth)
        assert np.isnan(losses).tolist() == (~known.any(1)).tolist()
        moved = predicted.copy()
        moved[~known.any(1)] += 5
        assert space.loss(space.normalised(moved), truth) == pytest.approx(space.loss(predicted, truth))
        assert space.fit_temperature(space.normalised(moved), truth) == pytest.approx(
            space.fit_temperature(predicted, truth)
        )


def test_losses_are_those_of_another_way() -> None:
    truth, one = truth_of(TWO), class_space(4)
    predicted = predicted_by(TWO, truth, 2)
    for row in range(ROWS):
        parts = [-predicted[row, own.start + k] for own, k in zip(TWO.slices, truth[row], strict=True) if k >= 0]
        assert TWO.losses(predicted, truth)[row] == pytest.approx(np.mean(parts) if parts else np.nan, nan_ok=True)
    labels = truth_of(LABELS)
    odds = predicted_by(LABELS, labels, 3)
    known = ~np.isnan(labels[:, 0])
    first = LabelSpace(("x",))
    assert first.loss(odds[:, :1], labels[:, :1]) == pytest.approx(log_loss(labels[known, 0], expit(odds[known, 0])))
    shares = RNG.dirichlet(np.ones(4), ROWS)
    said = predicted_by(one, truth_of(one), 4)
    assert one.loss(said, shares) == pytest.approx(-(shares * said).sum(1).mean())


@each_space
def test_a_known_temperature_is_undone(space: Space) -> None:
    truth = truth_of(space)
    predicted = predicted_by(space, truth, 5)
    fitted = space.fit_temperature(predicted, truth)
    for factor in (0.4, 2.5):
        sharper = space.at_temperature(predicted, factor)
        assert space.fit_temperature(sharper, truth) * factor == pytest.approx(fitted, rel=1e-3)
    best = minimize_scalar(lambda t: space.loss(space.at_temperature(predicted, t), truth), bounds=(0.05, 20)).x
    bare = space.fit_temperature(predicted, truth, None if space is VALUES else 0.0)
    assert bare == pytest.approx(best, rel=0.1)  # rows with gaps weigh a little otherwise there
    assert fitted >= bare * 0.99, "held a little to being less sure"


@each_space
def test_members_are_pooled_alike_in_any_order_and_a_member_alone_is_itself(space: Space) -> None:
    truth = truth_of(space)
    members = np.stack([predicted_by(space, truth, seed) for seed in (6, 7, 8)])
    np.testing.assert_allclose(space.pooled(members[:1]), members[0], atol=1e-12)
    np.testing.assert_allclose(space.pooled(members), space.pooled(members[::-1]), atol=1e-12)
    np.testing.assert_allclose(space.pooled(members, (1.0, 0.0, 0.0)), members[0], atol=1e-12)
    mixed = space.mixed(members, np.full(3, 1 / 3))
    np.testing.assert_allclose(space.scored(mixed), space.scored(members).mean(0), atol=1e-9)
    assert space.is_valid(space.pooled(members))
    broken = members[0].copy()
    broken[3, 1] = np.nan
    assert not space.is_valid(broken)


@each_space
def test_the_loss_of_a_sum_is_the_loss_of_the_mixture(space: Space) -> None:
    truth = truth_of(space)
    members = np.stack([predicted_by(space, truth, seed) for seed in (9, 10)])
    cells = [space.cells(one, truth) for one in members]
    total = sum(each.values for each in cells)
    mixture = space.cells(space.mixed(members, np.full(2, 0.5)), truth)
    expected = space.loss_of_sum(mixture.values, 1, mixture.weights)
    assert space.loss_of_sum(total, 2, cells[0].weights) == pytest.approx(expected)


@each_space
def test_the_slope_of_a_weighted_sum_is_that_of_its_loss(space: Space) -> None:
    truth = truth_of(space)
    combined = 0.7 * space.natural(predicted_by(space, truth, 11))
    _, slope = space.loss_of_natural(combined, truth)
    for row, column in ((0, 0), (5, 1), (17, space.width - 1)):
        moved = combined.copy()
        moved[row, column] += 1e-5
        rise = (space.loss_of_natural(moved, truth)[0] - space.loss_of_natural(combined, truth)[0]) / 1e-5
        assert slope[row, column] == pytest.approx(rise, abs=1e-6)


@each_space
def test_the_baseline_is_the_best_constant(space: Space) -> None:
    truth = truth_of(space)
    constant = np.tile(space.baseline(truth), (ROWS, 1))
    best = space.loss(constant, truth)
    rng = np.random.default_rng(12)
    for _ in range(20):
        other = space.normalised(constant + rng.normal(0, 0.3, space.width))
        assert space.loss(other, truth) >= best - 2e-3, "but for half a row that an absent class is given"
    twice = np.r_[np.arange(ROWS), np.arange(20)]
    weights = np.where(np.arange(ROWS) < 20, 2.0, 1.0)
    np.testing.assert_allclose(space.baseline(truth, weights), space.baseline(truth[twice]), atol=0.02)


@each_space
def test_torch_makes_of_outputs_what_numpy_makes_of_them(space: Space) -> None:
    outputs = RNG.normal(0, 2, (ROWS, space.width))
    made = space.of_outputs(torch.from_numpy(outputs)).numpy()
    wanted = outputs * space.scale + space.centre if isinstance(space, ValueSpace) else space.normalised(outputs)
    np.testing.assert_allclose(made, wanted, atol=1e-12)


def test_labels_get_the_line_of_a_logistic_regression() -> None:
    truth = truth_of(LABELS)
    scores = np.stack([0.3 * predicted_by(LABELS, truth, seed) + 1 for seed in (13, 14)])
    link = LABELS.fit_link(scores, truth, smoothing=0.0)
    for k in range(3):
        known = ~np.isnan(truth[:, k])
        fitted = LogisticRegression(C=1e6).fit(scores[link.strength[k], known, k, None], truth[known, k])
        assert link.factor[k] == pytest.approx(float(fitted.coef_[0, 0]), rel=0.01)
        assert link.shift[k] == pytest.approx(float(fitted.intercept_[0]), rel=0.02, abs=0.01)


def test_values_are_stretched_by_least_squares() -> None:
    truth = truth_of(VALUES)
    scores = 0.25 * VALUES.natural(predicted_by(VALUES, truth, 15))[None]
    link = VALUES.fit_link(scores, truth, None)
    for k in range(2):
        known = ~np.isnan(truth[:, k])
        wanted = VALUES.natural(truth)[known, k]
        assert link.factor[k] == pytest.approx(
            (scores[0, known, k] @ wanted) / (scores[0, known, k] ** 2).sum(), rel=1e-4
        )


def test_a_label_that_is_told_without_an_error_stays_finite() -> None:
    truth = np.repeat([[0.0], [1.0]], 20, axis=0)
    link = LabelSpace(("x",)).fit_link(np.array([truth * 0.9]), truth, None)
    odds = truth * 0.9 * link.factor + link.shift
    assert np.isfinite(odds).all()
    assert (odds[truth == 1] > 2).all()
    assert (odds[truth == 0] < -2).all()


def test_several_labels_take_the_strength_that_suits_each() -> None:
    truth = np.column_stack([np.arange(ROWS) % 2, np.arange(ROWS) % 3])
    good, bad = TWO.matrix(truth), RNG.normal(0, 1, (ROWS, 5))
    scores = np.stack([np.hstack([good[:, :2], bad[:, 2:]]), np.hstack([bad[:, :2], good[:, 2:]])])
    assert TWO.fit_link(scores, truth, None).strength.tolist() == [0, 0, 1, 1, 1]


def test_log_softmax_is_taken_label_by_label() -> None:
    raw = RNG.normal(0, 1, (6, 5))
    np.testing.assert_allclose(TWO.normalised(raw)[:, 2:], log_softmax(raw[:, 2:], axis=1))
