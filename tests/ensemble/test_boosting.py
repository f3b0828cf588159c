"""The boosted member: it finds what metadata tell, not from labels it is judged by, and is kept where it gains."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax
from tables import class_space

from foldcraft.data.metadata import Metadata
from foldcraft.ensemble import boosting, nested
from foldcraft.ensemble.boosting import Booster, Judged
from foldcraft.ensemble.nested import BlendMember, Labels
from foldcraft.metrics.scores import get
from foldcraft.metrics.spaces import ClassSpace, LabelSpace, Space, ValueSpace

ROWS, CLASSES, FOLDS = 240, 3, 4
RNG = np.random.default_rng(0)
CLASS = RNG.integers(0, CLASSES, ROWS)
FOLD, UNITS = np.arange(ROWS) % FOLDS, np.arange(ROWS).astype(str)
SPACE = class_space(CLASSES)
TRUTH = Labels(CLASS, FOLD, UNITS, get("accuracy"), SPACE)


def beside(classes: np.ndarray, seed: int = 1) -> Metadata:
    """A number that tells the third class by lying within a band, and a place that tells the other two apart."""
    rng = np.random.default_rng(seed)
    number = np.where(classes == 2, rng.uniform(4, 6, len(classes)), rng.choice([2.0, 8.0], len(classes)))
    place = np.where(classes == 2, rng.choice(["n", "s"], len(classes)), np.array(["n", "s", "s"])[classes])
    number[::17], place[::19] = np.nan, ""
    return Metadata(("number",), ("place",), number[:, None], place[:, None].astype(str))


def image(signal: float, seed: int = 2) -> BlendMember:
    evidence = np.random.default_rng(seed).normal(0, 1, (ROWS, CLASSES))
    evidence[np.arange(ROWS), CLASS] += signal
    return BlendMember("image", ("identity", "hflip"), np.stack([log_softmax(evidence, axis=1)] * 2))


def judged(metadata: Metadata, truth: Labels = TRUTH, member: BlendMember | None = None) -> Judged:
    members = [member or image(0.6)]
    return boosting.judge(members, truth, None, Booster.both(metadata, members, truth))


def test_what_metadata_tell_is_found_and_used() -> None:
    found = judged(beside(CLASS))
    alone = boosting.judge([image(0.6)], TRUTH, None, ()).selection
    assert len(found.boosters) == 2
    assert found.selection.chosen.score.value > 0.85 > alone.chosen.score.value + 0.1
    assert [one.name for one in found.selection.members] == ["image", "boosted", "boosted with members"]
    assert found.selection.words[-1].startswith("boosted trees on number, place gain +0.")
    assert found.selection.words[-1].endswith(", and are used")
    # New rows, of the same kind.
    tests = np.random.default_rng(7).integers(0, CLASSES, 50)
    asked = BlendMember("image", ("identity", "hflip"), np.full((2, 50, CLASSES), -np.log(CLASSES)))
    said = [booster.of_tests(beside(tests, 8), [asked]) for booster in found.boosters]
    answers = found.selection.chosen.plan.apply([asked, *said])
    assert np.mean(answers.argmax(1) == tests) > 0.75


@pytest.mark.slow
def test_noise_is_not_used_or_does_not_harm() -> None:
    alone = boosting.judge([image(1.2)], TRUTH, None, ()).selection
    for seed in range(3):
        noise = beside(np.random.default_rng(seed).integers(0, CLASSES, ROWS), seed)
        found = judged(noise, member=image(1.2))
        assert found.selection.chosen.score.value > alone.chosen.score.value - 0.03
        assert "gain" in found.selection.words[-1]


@pytest.mark.slow
def test_a_hair_is_no_gain() -> None:
    """Metadata that tell nothing leave trees nothing but chance."""
    for seed in range(3):
        found = judged(beside(np.random.default_rng(seed).permutation(CLASS), seed), member=image(2.0, seed))
        assert not found.boosters
        assert found.selection.words[-1].endswith(", and are not used")


def test_a_folds_labels_have_no_say_in_what_it_is_judged_by() -> None:
    moved = np.where(FOLD == 0, (CLASS + 1) % CLASSES, CLASS)
    member, metadata = image(0.6), beside(CLASS)
    honest, lied_to = (
        nested.judge([member, *(one.member for one in Booster.both(metadata, [member], truth))], truth).candidates
        for truth in (TRUTH, replace(TRUTH, targets=moved))
    )
    pairs = list(zip(honest, lied_to, strict=True))
    for a, b in pairs:
        np.testing.assert_array_equal(a.nested[FOLD == 0], b.nested[FOLD == 0])
    assert any(np.abs(a.nested[FOLD != 0] - b.nested[FOLD != 0]).max() > 0.01 for a, b in pairs)


def test_it_is_the_same_every_time() -> None:
    rng = np.random.default_rng(3)
    classes = rng.integers(0, CLASSES, 2000)
    fold, units = np.arange(2000) % 5, np.arange(2000).astype(str)
    truth = Labels(classes, fold, units, get("accuracy"), SPACE)
    member = BlendMember("image", ("identity",), log_softmax(rng.normal(0, 1, (1, 2000, CLASSES)), axis=2))
    _, stacked = Booster.both(beside(classes), [member], truth)
    first = stacked.member.predicted
    _, some = Booster.both(beside(classes), [member], truth)
    np.testing.assert_array_equal(some._said_without([0], fold == 0), first[0][fold == 0])


def kinds() -> dict[str, tuple[Space, np.ndarray, str, str]]:
    """Space, truth that the metadata tell, metric and kind."""
    labels = np.stack([CLASS == 0, CLASS == 2], axis=1).astype(float)
    labels[5, 0] = np.nan
    values = (10.0 * CLASS + RNG.normal(0, 1, ROWS))[:, None]
    values[7] = np.nan
    heads = np.stack([CLASS, (CLASS == 2).astype(int)], axis=1)
    heads[9, 1] = -1
    names = ("a", "b", "c", "no", "yes")
    return {
        "labels": (LabelSpace(("first", "third")), labels, "macro_f1", "multilabel"),
        "values": (ValueSpace.of(("size",), values), values, "rmse", "regression"),
        "heads": (ClassSpace(names, (3, 2)), heads, "mean_accuracy", "multioutput"),
    }


@pytest.mark.parametrize("kind", list(kinds()))
def test_every_kind_of_target_has_trees_of_its_own(kind: str) -> None:
    space, truth, metric, called = kinds()[kind]
    metric = get(metric, called, space.names, getattr(space, "widths", ()))
    labels = Labels(truth, FOLD, UNITS, metric, space)
    member = BlendMember("image", ("identity",), np.tile(space.baseline(truth), (1, ROWS, 1)))
    for booster in Booster.both(beside(CLASS), [member], labels):
        found = booster.member.predicted[0]
        assert found.shape == (ROWS, space.width)
        assert space.loss(found, truth) < 0.5 * space.loss(member.predicted[0], truth)


def test_it_takes_three_folds() -> None:
    two = replace(TRUTH, fold=FOLD % 2)
    found = judged(beside(CLASS), two)
    assert found.boosters == ()
    assert found.selection.words[-1].endswith("are not tried: that takes 3 finished folds, and there are 2")


def test_a_class_that_is_missing_in_some_folds_has_a_small_probability() -> None:
    rare = np.where(CLASS == 2, 0, CLASS)
    rare[0] = 2
    truth = replace(TRUTH, targets=rare)
    said = Booster.both(beside(CLASS), [image(0.6)], truth)[1].member.predicted[0]
    assert np.isfinite(said).all()
    np.testing.assert_allclose(np.exp(said).sum(1), 1)
