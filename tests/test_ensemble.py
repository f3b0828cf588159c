"""The blend: members are weighted by folds other than the one they are judged on, and summed in log space."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from foldcraft.ensemble import blend, fit_temperature, fit_weights, rows_of
from foldcraft.errors import FoldcraftError
from foldcraft.predictions import Origin, Predictions

ROWS, CLASSES, FOLDS = 90, 3, 3
IDS = np.array([f"{row:03d}.png" for row in range(ROWS)])
TARGETS = np.random.default_rng(0).integers(0, CLASSES, ROWS)
TRUTH = dict(zip(IDS.tolist(), TARGETS.tolist(), strict=True))
FOLD_OF = {name: row % FOLDS for row, name in enumerate(IDS.tolist())}


def member(name: str, strength: float, seed: int) -> Predictions:
    """Noisy evidence for the true classes, spoken with too much or too little confidence."""
    evidence = np.random.default_rng(seed).normal(0, 1, (ROWS, CLASSES))
    evidence[np.arange(ROWS), TARGETS] += 1.5
    log_probs = log_softmax(evidence * strength, axis=1).astype(np.float32)[None]
    return Predictions(IDS, ("mean",), log_probs, Origin(name, -1, ("a", "b", "c"), "data", "folds", name))


SHY, LOUD = member("shy", 0.4, seed=1), member("loud", 6, seed=2)


def log_loss(log_probs: np.ndarray, targets: np.ndarray) -> float:
    return float(-log_probs[np.arange(len(targets)), targets].mean())


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    rng = np.random.default_rng(0)
    honest = log_softmax(rng.normal(0, 2, (20000, 4)), axis=1)
    truth = (honest + rng.gumbel(size=honest.shape)).argmax(1)  # drawn with these very probabilities
    assert fit_temperature(honest * temperature, truth) == pytest.approx(temperature, rel=0.05)


def test_a_temperature_never_makes_the_loss_worse() -> None:
    for some in (SHY, LOUD):
        log_probs = some.log_probs[0]
        temperature = fit_temperature(log_probs, TARGETS)
        assert log_loss(log_softmax(log_probs / temperature, axis=1), TARGETS) < log_loss(log_probs, TARGETS)


def test_a_blend_of_one_is_the_member_at_its_temperature() -> None:
    alone = blend([LOUD], TRUTH, FOLD_OF)
    assert alone.ids.tolist() == IDS.tolist()
    temperature = 1 / alone.weights[0]
    assert temperature > 2
    assert alone.shares == (1,)
    wanted = log_softmax(LOUD.log_probs[0] / temperature, axis=1)
    np.testing.assert_allclose(alone.apply([LOUD.log_probs[0]]), wanted, atol=1e-5)
    for fold in range(FOLDS):
        own = np.array([FOLD_OF[name] == fold for name in IDS])
        fitted = fit_temperature(LOUD.log_probs[0][~own], TARGETS[~own])
        np.testing.assert_allclose(alone.oof[own], log_softmax(LOUD.log_probs[0][own] / fitted, axis=1), atol=1e-4)


def test_members_are_summed_in_log_space_by_weights_that_calibrate() -> None:
    both = blend([SHY, LOUD], TRUTH, FOLD_OF)
    product = np.exp(sum(weight * some.log_probs[0] for some, weight in zip((SHY, LOUD), both.weights, strict=True)))
    given_tests = both.apply([SHY.log_probs[0], LOUD.log_probs[0]])
    np.testing.assert_allclose(np.exp(given_tests), product / product.sum(1, keepdims=True), atol=1e-5)
    assert both.weights[0] > 3 * both.weights[1], "what is said too softly counts more, what is said too loudly less"
    assert log_loss(both.oof, TARGETS) < min(log_loss(some.log_probs[0], TARGETS) for some in (SHY, LOUD))


def test_a_member_that_knows_nothing_gets_hardly_any_weight() -> None:
    noise = log_softmax(np.random.default_rng(9).normal(0, 1, (ROWS, CLASSES)), axis=1)
    strong = [some.log_probs[0] for some in (SHY, LOUD)]
    with_noise = fit_weights([*strong, noise], TARGETS)
    assert min(with_noise) >= 0
    assert with_noise[2] < 0.2 * with_noise[0]
    pooled = log_softmax(np.tensordot(with_noise, np.stack([*strong, noise]), axes=1), axis=1)
    equal = log_softmax(
        np.mean([log_softmax(m / fit_temperature(m, TARGETS), axis=1) for m in [*strong, noise]], 0), axis=1
    )
    assert log_loss(pooled, TARGETS) < log_loss(equal, TARGETS)


def test_a_fold_is_judged_with_weights_fitted_on_the_others() -> None:
    """With all labels of one fold wrong, its own OOF output stays; that of every other fold does not."""
    broken = {name: (label + (FOLD_OF[name] == 0)) % CLASSES for name, label in TRUTH.items()}
    honest, lied_to = blend([SHY, LOUD], TRUTH, FOLD_OF), blend([SHY, LOUD], broken, FOLD_OF)
    own = np.array([FOLD_OF[name] == 0 for name in IDS])
    np.testing.assert_array_equal(honest.oof[own], lied_to.oof[own])
    assert np.abs(honest.oof[~own] - lied_to.oof[~own]).max(axis=1).min() > 0.01
    assert not np.allclose(honest.weights, lied_to.weights, rtol=0.05)


@given(data=st.data())
@settings(deadline=None, max_examples=10)
def test_the_order_of_members_and_rows_does_not_matter(data: st.DataObject) -> None:
    third = member("third", 1.5, seed=3)
    wanted = blend([SHY, LOUD, third], TRUTH, FOLD_OF)
    shuffled = []
    for some in data.draw(st.permutations([SHY, LOUD, third])):
        order = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(ROWS)
        shuffled.append(replace(some, ids=some.ids[order], log_probs=some.log_probs[:, order]))
    other = blend(shuffled, TRUTH, FOLD_OF)
    place = {name: row for row, name in enumerate(other.ids.tolist())}
    np.testing.assert_allclose(other.oof[[place[name] for name in IDS.tolist()]], wanted.oof, atol=1e-2)
    weights = dict(zip([some.origin.experiment for some in shuffled], other.weights, strict=True))
    np.testing.assert_allclose([weights[name] for name in ("shy", "loud", "third")], wanted.weights, rtol=1e-2)


def test_only_rows_that_all_have_predicted_are_judged() -> None:
    rows = np.arange(20, ROWS)[::-1]
    part = replace(SHY, ids=SHY.ids[rows], log_probs=SHY.log_probs[:, rows])
    both = blend([LOUD, part], TRUTH, FOLD_OF)
    assert both.ids.tolist() == IDS[20:].tolist()
    np.testing.assert_array_equal(rows_of(part, both.ids), SHY.log_probs[0][20:])
    with pytest.raises(FoldcraftError, match="no row is predicted by all of loud, shy"):
        blend([replace(LOUD, ids=IDS[:20], log_probs=LOUD.log_probs[:, :20]), part], TRUTH, FOLD_OF)


def test_a_single_trained_fold_can_be_blended() -> None:
    own = np.array([FOLD_OF[name] == 1 for name in IDS])
    parts = [replace(some, ids=IDS[own], log_probs=some.log_probs[:, own]) for some in (SHY, LOUD)]
    assert np.isfinite(blend(parts, TRUTH, FOLD_OF).oof).all()


@pytest.mark.parametrize("what", ["data", "folds", "classes"])
def test_members_made_for_something_else_are_refused(what: str) -> None:
    strange = replace(LOUD, origin=replace(LOUD.origin, **{what: ("c", "b", "a") if what == "classes" else "other"}))
    with pytest.raises(FoldcraftError, match=f"shy .*loud .*different {what}"):
        blend([SHY, strange], TRUTH, FOLD_OF)
