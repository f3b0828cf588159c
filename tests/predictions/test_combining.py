"""Predictions of images become those of answers: each way by hand, in any order of rows, chosen nested."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax, logit, softmax
from tables import class_space, competition

from foldcraft.common.errors import FoldcraftError
from foldcraft.data.host_files.answers import Answering
from foldcraft.ensemble.nested import BlendMember, Labels, judge
from foldcraft.metrics.bootstrap import bootstrap_scores
from foldcraft.metrics.scores import get
from foldcraft.metrics.spaces import ClassSpace, LabelSpace, Space, ValueSpace
from foldcraft.predictions import answers
from foldcraft.predictions.answers import WAYS, combine
from foldcraft.predictions.oof import OOF, common_rows
from foldcraft.predictions.store import Origin, Predictions

TWO, THREE, LABELS = class_space(2), class_space(3), LabelSpace(("a", "b"))
VALUES = ValueSpace(("u", "v"), np.zeros(2), np.ones(2))
OF_ROW = np.array([0, 1, 0, 0])  # images 0, 2 and 3 are of one answer


def of(given: list[list[float]], space: Space) -> np.ndarray:
    """One view of what a metric is given."""
    return space.unscored(np.array(given))[None]


P2 = [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]]
P3 = [[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]]
L = [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]]
V = [[10.0, -1.0], [3.0, 4.0], [20.0, -2.0], [60.0, 5.0]]
BY_HAND = [
    (TWO, P2, "mean", [0.6, 0.4]),
    (TWO, P2, "max", [0.2, 0.8]),  # the image that is surest of the second, the positive class
    (TWO, P2, "top_k_mean", [0.45, 0.55]),
    (THREE, P3, "mean", [0.8 / 3, 1.1 / 3, 1.1 / 3]),
    (THREE, P3, "max", [0.5 / 1.7, 0.6 / 1.7, 0.6 / 1.7]),
    (THREE, P3, "top_k_mean", [0.35 / 1.25, 0.45 / 1.25, 0.45 / 1.25]),
    (LABELS, L, "mean", [0.6, 0.4]),
    (LABELS, L, "max", [0.9, 0.8]),
    (LABELS, L, "top_k_mean", [0.8, 0.55]),
    (VALUES, V, "mean", [30.0, 2 / 3]),
    (VALUES, V, "log_mean", [30.0, 2 / 3]),
    (VALUES, V, "max", [60.0, 5.0]),
    (VALUES, V, "top_k_mean", [40.0, 2.0]),
]


@pytest.mark.parametrize(("space", "images", "how", "wanted"), BY_HAND)
def test_each_way_is_what_it_is_by_hand(space: Space, images: list[list[float]], how: str, wanted: list[float]) -> None:
    said = space.scored(combine(space, of(images, space), OF_ROW, how, k=2))[0]
    np.testing.assert_allclose(said, [wanted, images[1]], atol=1e-12)


def test_log_mean_is_that_of_what_is_stored() -> None:
    said = combine(THREE, of(P3, THREE), OF_ROW, "log_mean")[0, 0]
    np.testing.assert_allclose(said, log_softmax(np.log(np.array(P3)[[0, 2, 3]]).mean(0)), atol=1e-12)
    said = combine(LABELS, of(L, LABELS), OF_ROW, "log_mean")[0, 0]
    np.testing.assert_allclose(said, logit(np.array(L)[[0, 2, 3]]).mean(0), atol=1e-12)


def test_the_positive_class_is_the_one_that_is_looked_for() -> None:
    said = np.exp(combine(TWO, of(P2, TWO), OF_ROW, "max", positive=0))[0]
    np.testing.assert_allclose(said[0], [0.9, 0.1])


def test_sure_log_odds_stay_what_they_are() -> None:
    odds = np.array([[[45.0, -45.0], [45.0, -45.0]]])
    for how in WAYS:
        np.testing.assert_allclose(combine(LABELS, odds, np.array([0, 0]), how), [[[45.0, -45.0]]])


SPACES = [TWO, THREE, ClassSpace(("a=x", "a=y", "b=p", "b=q", "b=r"), (2, 3)), LABELS, VALUES]


@settings(max_examples=40)
@given(st.sampled_from(SPACES), st.sampled_from(WAYS), st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_order_does_not_matter_and_what_comes_out_is_a_prediction(space: Space, how: str, seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    of_row = np.concatenate([np.arange(4), rng.integers(0, 4, 6)])
    images = space.normalised(rng.normal(0, 3, (2, 10, space.width)))
    said, order = combine(space, images, of_row, how, k), rng.permutation(10)
    np.testing.assert_allclose(combine(space, images[:, order], of_row[order], how, k), said, atol=1e-9)
    assert said.shape == (2, 4, space.width)
    assert space.is_valid(said)
    for answer in range(4):  # each by itself, and none by the images of others
        own = images[:, of_row == answer]
        np.testing.assert_allclose(
            combine(space, own, np.zeros(own.shape[1], int), how, k)[:, 0], said[:, answer], atol=1e-9
        )


def test_one_image_each_is_what_is_stored_to_the_last_bit() -> None:
    images = log_softmax(np.random.default_rng(0).normal(size=(2, 5, 3)), axis=2).astype(np.float32)
    for how in WAYS:
        np.testing.assert_array_equal(combine(THREE, images, np.arange(5), how), images)


def little(how: str = "mean", groups: list[str] | None = None) -> tuple[np.ndarray, object]:
    """Six images of three answers, in an order of their own."""
    data = competition(["no", "yes", "no", "yes", "yes", "yes"], groups)
    made = Answering(
        np.array(["A", "B", "C"]), np.array(["T", "U"]), np.array([0, 1, 0, 1, 2, 2]), np.array([0, 1, 0]), how
    )
    data = replace(data, answering=made, train_paths=tuple("abcdef"), test_ids=np.array(["x", "y", "z"]))
    return replace(data, test_paths=tuple("xyz"), groups=made.joined(data.groups))


def test_the_competition_of_answers_has_one_row_an_answer() -> None:
    data = little(groups=["g", "h", "g", "h", "h", "h"])
    assert data.answers.train_ids.tolist() == ["A", "B", "C"]
    assert data.answers.targets.tolist() == [0, 1, 1]
    assert data.answers.units.tolist() == ["g", "h", "h"]
    assert data.answers.train_paths == ("a", "b", "e")
    assert data.answers.test_ids.tolist() == ["T", "U"]
    assert data.counted() == "3 answers of 6 images"
    assert little().answers.groups is None
    assert little().groups.tolist() == ["A", "B", "A", "B", "C", "C"]


def test_an_answer_is_drawn_with_its_group() -> None:
    """What makes a score uncertain are the groups of answers: with one of them alone nothing varies."""
    data = little(groups=["g"] * 6).answers
    said = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]])
    drawn = bootstrap_scores(get("accuracy"), data.targets, [said], data.units, 50)
    np.testing.assert_allclose(drawn, 2 / 3)
    apart = bootstrap_scores(get("accuracy"), little().answers.targets, [said], little().answers.units, 50)
    assert set((3 * apart.ravel()).round(6)) == {0, 1, 2, 3}


def test_a_score_is_of_answers() -> None:
    said = np.log(np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.4, 0.6], [0.9, 0.1], [0.3, 0.7]]))
    assert answers.score(little(), said) == pytest.approx(2 / 3)  # A .55, B .35, C .60 of no; an image: 4 of 6
    assert answers.score(little("max"), said) == pytest.approx(2 / 3)  # A is now wrong, C right
    assert answers.score(little(), said[[1, 3]], np.array([1, 3])) == 1.0


def test_a_fold_that_lacks_an_image_is_refused() -> None:
    answers.check_whole(little(), np.array([0, 2]), "here")
    with pytest.raises(FoldcraftError, match="some of the images of an answer without the others: B"):
        answers.check_whole(little(), np.array([0, 1, 2]), "here")


def test_answers_of_other_images_have_no_rows_in_common() -> None:
    origin = Origin("e", -1, ("no", "yes"), "d", "f", "w")
    both = []
    for data in (little().answers, replace(little(), answering=None)):
        rows = np.arange(len(data.train_ids))
        both.append(OOF(data, rows, rows, ("identity",), np.zeros((1, len(rows), 2)), origin))
    assert common_rows([both[0], both[0]]).tolist() == [0, 1, 2]
    with pytest.raises(FoldcraftError, match="make answers of other images"):
        common_rows(both)


def test_an_image_that_cannot_be_read_counts_where_it_is_alone() -> None:
    origin = Origin("e", -1, ("no", "yes"), "d", "f", "w")
    said = np.log(np.array([[[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]])).astype(np.float32)
    found = Predictions(np.array(["x", "y", "z"]), ("identity",), said, origin, baseline=("x", "y"))
    made = answers.of_test(little(), found)
    np.testing.assert_allclose(np.exp(made.predicted[0]), [[0.3, 0.7], [0.8, 0.2]], rtol=1e-6)
    assert (made.ids.tolist(), made.baseline) == (["T", "U"], ("U",))


def test_ways_that_would_be_the_same_are_not_tried() -> None:
    assert answers.ways_of(little("auto").answering, THREE) == ("mean", "log_mean", "max")  # of two images at the most
    assert answers.ways_of(replace(little("auto").answering, k=1), VALUES) == ("mean", "max")
    assert answers.ways_of(little("max").answering, THREE) == ("max",)


def sick_and_well(rows: int, images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Answers of which the sick ones show it in a single image; log-probabilities (1, images * rows, 2)."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, rows)
    odds = rng.normal(-2, 1, (rows, images))
    odds[truth == 1, rng.integers(0, images, rows)[truth == 1]] += 4
    yes = expit(odds.ravel())
    return truth, np.log(np.stack([1 - yes, yes], axis=1))[None]


@pytest.mark.parametrize("metric", ["roc_auc", "macro_f1"])
def test_auto_takes_the_way_that_suits_and_no_fold_has_a_say_in_its_own(metric: str) -> None:
    truth, said = sick_and_well(200, 8, 0)
    of_row = np.repeat(np.arange(200), 8)
    by_way = [combine(TWO, said, of_row, way, k=3) for way in WAYS]
    names = answers.view_names(("identity",), WAYS)
    member = BlendMember("m", names, np.concatenate(by_way), len(WAYS))
    fold, units = np.arange(200) % 4, np.arange(200).astype(str)
    labels = Labels(truth, fold, units, get(metric), TWO)
    selection = judge([member], labels)
    used = dict(zip(names, selection.chosen.plan.views[0], strict=True))
    assert {name for name, weight in used.items() if weight} <= {"identity (max)", "identity (top_k_mean)"}
    alone = judge([BlendMember("m", ("identity",), by_way[0])], labels)
    assert selection.chosen.score.value > alone.chosen.score.value + 0.02
    moved = truth.copy()
    moved[fold == 0] = 1 - moved[fold == 0]
    lied_to = judge([member], replace(labels, targets=moved))
    for a, b in zip(selection.candidates, lied_to.candidates, strict=True):
        np.testing.assert_array_equal(a.nested[fold == 0], b.nested[fold == 0])


def test_views_are_chosen_within_a_way() -> None:
    """A second view that helps is used in the way that is taken, with the image as it is, and nowhere else."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 300)
    own = np.eye(3)[truth]
    views = [np.log(softmax(1.2 * own + rng.normal(0, 1, (300, 3)), axis=1)) for _ in range(2)]
    noise = [np.log(softmax(rng.normal(0, 1, (300, 3)), axis=1)) for _ in range(2)]
    names = answers.view_names(("identity", "hflip"), ("mean", "max"))
    assert names == ("identity", "hflip", "identity (max)", "hflip (max)")
    labels = Labels(truth, np.arange(300) % 3, np.arange(300).astype(str), get("log_loss"), THREE)
    selection = judge([BlendMember("m", names, np.stack([*noise, *views]), 2)], labels)
    assert selection.chosen.plan.views == ((0.0, 0.0, 0.5, 0.5),)
