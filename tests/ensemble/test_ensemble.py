"""Ways to blend: what they find, and what must not make a difference to them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from tables import class_space

from foldcraft.ensemble.methods import (
    METHODS,
    Best,
    Combination,
    Greedy,
    Method,
    RankMean,
    Stacking,
    WeightedMean,
    quality_shares,
)
from foldcraft.metrics.calibration import MOST_ROWS, calibrated, fit_temperature, log_loss
from foldcraft.metrics.scores import get
from foldcraft.metrics.spaces import LabelSpace

ROWS, CLASSES = 240, 3
SPACE = class_space(CLASSES)
TRUTH = np.random.default_rng(0).integers(0, CLASSES, ROWS)
UNITS = np.array([f"unit{row // 2}" for row in range(ROWS)])
WAYS = [Best(), WeightedMean(), RankMean(), Greedy(), Stacking()]
each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)


def member(signal: float, seed: int, loudness: float = 1.0, rows: int = ROWS, truth: np.ndarray = TRUTH) -> np.ndarray:
    """Noisy evidence for the true classes, spoken with too much or too little confidence."""
    evidence = np.random.default_rng(seed).normal(0, 1, (rows, CLASSES))
    evidence[np.arange(rows), truth] += signal
    return log_softmax(evidence * loudness, axis=1)


SHY, LOUD, WEAK = member(2, seed=1, loudness=0.4), member(2, seed=2, loudness=5), member(0.7, seed=3)
THREE = [SHY, LOUD, WEAK]
NOISE = member(0, seed=9)


def fitted(way: Method, members: list[np.ndarray]) -> tuple[Combination, np.ndarray]:
    found = way.fit(members, TRUTH, UNITS, SPACE)
    return found, found.apply(members)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    rng = np.random.default_rng(0)
    honest = log_softmax(rng.normal(0, 2, (2 * MOST_ROWS, 4)), axis=1)
    truth = (honest + rng.gumbel(size=honest.shape)).argmax(1)  # drawn with these very probabilities
    assert fit_temperature(honest * temperature, truth) == pytest.approx(temperature, rel=0.05)


def test_mean_ranks_of_labels_keep_their_order_however_many_members_there_are() -> None:
    space, truth = LabelSpace(("p", "q")), np.array([[0.0, 1], [1, 0], [1, 1], [0, 0]])
    odds = np.array([[-2.0, 3], [1, -1], [2, 2], [-1, -3]])
    blend = RankMean().fit([odds] * 3, truth, np.arange(4), space).apply([odds] * 3)
    assert np.isfinite(blend).all()
    assert (blend.argsort(0) == odds.argsort(0)).all()


@each_way
def test_a_blend_is_normalised_and_no_worse_than_its_calibrated_members(way: Method) -> None:
    found, blend = fitted(way, THREE)
    np.testing.assert_allclose(np.exp(blend).sum(1), 1)
    assert sum(found.shares) == pytest.approx(1)
    best = min(log_loss(calibrated(one, TRUTH), TRUTH) for one in THREE)
    assert log_loss(blend, TRUTH) < best + (1e-7 if way.name == "best single" else -0.01)


def test_what_is_said_too_loudly_counts_no_more_for_it() -> None:
    quiet = [SHY, calibrated(LOUD, TRUTH), WEAK]
    for way in WAYS:
        np.testing.assert_allclose(fitted(way, THREE)[1], fitted(way, quiet)[1], atol=1e-3)


def test_weights_follow_what_members_know() -> None:
    for way in (WeightedMean(), Greedy(), Stacking()):
        shares = fitted(way, THREE)[0].shares
        assert shares[2] < 0.75 * min(shares[:2]), way.name


def test_a_member_of_twice_the_least_loss_counts_a_fiftieth_in_the_weighted_mean() -> None:
    losses = np.array([[0.2, 0.4, np.nan], [0.6, 0.6, 0.6], [0.3, 0.3, 0.3]])
    np.testing.assert_allclose(quality_shares(losses), np.array([1, np.exp(-4), 1]) / (2 + np.exp(-4)))
    np.testing.assert_allclose(quality_shares(np.zeros((2, 3))), [0.5, 0.5])


def test_members_that_err_differently_are_surer_together() -> None:
    for way in (WeightedMean(), Greedy(), Stacking()):
        blend = fitted(way, THREE)[1]
        assert fit_temperature(blend, TRUTH) == pytest.approx(1, abs=0.01), way.name


def test_the_stacker_is_held_to_the_weighted_mean_by_few_rows() -> None:
    few = slice(0, 24)
    loose, usual, held, mean = (
        np.array(way.fit([one[few] for one in THREE], TRUTH[few], UNITS[few], SPACE).shares)
        for way in (Stacking(0), Stacking(), Stacking(1e6), WeightedMean())
    )
    far = [np.abs(shares - mean).max() for shares in (held, usual, loose)]
    assert far[0] < 0.001 < far[1] < far[2]


@given(data=st.data())
@settings(max_examples=8)
def test_order_of_rows_members_and_classes_makes_no_difference(data: st.DataObject) -> None:
    rows = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(ROWS)
    order = data.draw(st.permutations(range(3)))
    classes = np.array(data.draw(st.permutations(range(CLASSES))))
    moved = [THREE[k][rows][:, classes] for k in order]
    truth = np.argsort(classes)[TRUTH[rows]]
    for way in WAYS:
        found, blend = fitted(way, THREE)
        other = way.fit(moved, truth, UNITS[rows], SPACE)
        np.testing.assert_allclose([other.shares[order.index(k)] for k in range(3)], found.shares, atol=1e-4)
        np.testing.assert_allclose(other.apply(moved), blend[rows][:, classes], atol=1e-4)


@each_way
def test_a_copy_of_a_member_makes_no_difference(way: Method) -> None:
    alone, blend = fitted(way, THREE)
    found, with_copy = fitted(way, [LOUD.copy(), *THREE])
    np.testing.assert_allclose(with_copy, blend)
    assert found.shares[0] + found.shares[2] == pytest.approx(alone.shares[1])


@each_way
@pytest.mark.parametrize("seed", range(5))
def test_a_member_that_knows_nothing_gets_no_weight(way: Method, seed: int) -> None:
    useless = member(0, seed=100 + seed, loudness=2)
    found, blend = fitted(way, [useless, *THREE])
    assert found.shares[0] == 0
    np.testing.assert_allclose(blend, fitted(way, THREE)[1])
    assert fitted(way, [useless, NOISE])[0].given == 2, "where nobody knows anything, one of them is kept"


def test_members_are_weighed_by_units_not_by_rows() -> None:
    """A member that is right on one photo of sixty faces has been right once."""
    truth = np.concatenate([np.zeros(60, int), TRUTH[:80]])
    lucky = log_softmax(np.zeros((140, CLASSES)), axis=1)
    lucky[:60] = log_softmax([3.0, 0, 0])
    one_photo = np.array(["photo"] * 60 + [f"u{k}" for k in range(80)])
    others = member(2, seed=4, rows=140, truth=truth)
    assert WeightedMean().fit([lucky, others], truth, one_photo, SPACE).shares[0] == 0
    assert WeightedMean().fit([lucky, others], truth, np.arange(140).astype(str), SPACE).shares[0] > 0


def test_rank_mean_looks_at_order_alone() -> None:
    truth = (TRUTH == 0).astype(int)
    rng = np.random.default_rng(5)
    odds = [2 * truth + rng.normal(0, 1, ROWS), 2 * truth + rng.normal(0, 1, ROWS)]
    both = [log_softmax(np.stack([-one, one], 1), axis=1) for one in odds]
    warped = log_softmax(np.stack([-odds[0], np.where(odds[0] > 0, odds[0] ** 3, odds[0])], 1), axis=1)
    way = RankMean()
    auc = get("roc_auc")
    found = way.fit(both, truth, UNITS, class_space(2))
    blend = found.apply(both)
    other = way.fit([warped, both[1]], truth, UNITS, class_space(2)).apply([warped, both[1]])
    np.testing.assert_allclose(other, blend, atol=1e-9)
    assert auc(truth, np.exp(blend)) > max(auc(truth, np.exp(one)) for one in both)
    np.testing.assert_allclose(found.apply([one[:7] for one in both]), blend[:7], err_msg="rows do not sway each other")


def test_ranks_become_probabilities_where_one_class_is_rare() -> None:
    """Losses, forecasts and mixtures of a blend take what it says at its word."""
    rng = np.random.default_rng(6)
    truth = (np.arange(2000) % 50 == 0).astype(int)
    odds = [3 * truth + rng.normal(0, 1, 2000) - 6 for _ in range(2)]
    both = [log_softmax(np.stack([-one, one], 1) / 2, axis=1) for one in odds]
    blend = RankMean().fit(both, truth, np.arange(2000), class_space(2)).apply(both)
    mean = WeightedMean().fit(both, truth, np.arange(2000), class_space(2)).apply(both)
    assert np.exp(blend[:, 1]).mean() == pytest.approx(0.02, abs=0.002)
    assert log_loss(blend, truth) < 1.1 * log_loss(mean, truth)
    labels = LabelSpace(("rare",))
    alone = RankMean().fit([one[:, None] for one in odds], truth[:, None].astype(float), np.arange(2000), labels)
    said = 1 / (1 + np.exp(-alone.apply([one[:, None] for one in odds])))
    assert said.mean() == pytest.approx(0.02, abs=0.002)


def test_very_many_rows_are_combined_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [fitted(way, THREE)[1] for way in WAYS]
    monkeypatch.setattr("foldcraft.ensemble.methods.CHUNK", 50)
    for way, blend in zip(WAYS, whole, strict=True):
        np.testing.assert_allclose(fitted(way, THREE)[1], blend)


def test_every_way_can_be_asked_for_by_name() -> None:
    assert {way.name for way in WAYS} == set(METHODS)
