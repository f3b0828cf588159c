"""What is predicted, read from a table: each kind, what it refuses, and the way from outputs to answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from foldcraft.common.config import CompetitionConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data.targets import reading
from foldcraft.data.targets.reading import ReadTarget
from foldcraft.data.targets.target import Target

TABLE = {
    "id": ["0", "1", "2", "3", "4", "5"],
    "label": ["b", "a", "c", "a", "b", "c"],
    "grade": ["10", "2", "0", "2", "10", "0"],
    "tags": ["scab rust", "", "rust", "scab", "rust", "scab rust"],
    "x": ["1", "0", "", "1", "0", "0"],
    "y": ["0", "1", "1", "0.0", "True", "0"],
    "u": ["1.5", "-2", "", "4", "0.5", "3"],
    "v": ["10", "20", "30", "40", "50", "60"],
    "mask": ["on", "off", "on", "off", "on", "on"],
    "age": ["old", "old", "young", "old", "old", "young"],
    "a_vote": ["3", "0", "1", "2", "0", "1"],
    "b_vote": ["1", "2", "1", "0", "4", "0"],
}


def read(target: object, metric: object = "accuracy", **columns: list[str]) -> ReadTarget:
    names = CompetitionConfig(name="x", target=target, metric=metric)
    return reading.read(names, pd.DataFrame(TABLE | columns, dtype=str), Path("train.csv"))


def of(target: object, metric: object = "accuracy") -> Target:
    return read(target, metric).target


def answers(target: Target, predicted: list[list[float]]) -> dict[str, list[str]]:
    return dict(target.answers(np.array(predicted)))


def test_grades_that_are_numbers_are_in_order_and_others_as_they_are_given() -> None:
    assert of({"column": "grade", "kind": "ordinal"}).classes.names == ("0", "2", "10")
    named = of({"column": "label", "kind": "ordinal", "order": ["c", "a", "b"]})
    assert named.truth.tolist() == [2, 1, 0, 1, 2, 0]


def test_cumulative_grades_are_learned_above_each_and_predicted_as_grades() -> None:
    target = of({"column": "grade", "kind": "ordinal", "cumulative": True})
    assert target.outputs == 2
    assert target.learned[:3].tolist() == [[1, 1], [1, 0], [0, 0]]
    for odds in ([3.0, -2.0], [-2.0, 3.0]):  # cuts that cross are set in order
        probabilities = np.exp(target.from_learned(np.array([odds]))[0])
        assert probabilities.sum() == pytest.approx(1)
        np.testing.assert_allclose(target.predictions(torch.tensor([odds])).exp()[0], probabilities, atol=1e-5)
    assert np.exp(target.from_learned(np.array([[3.0, -2.0]])))[0, 1] == pytest.approx(0.9526 - 0.1192, abs=1e-3)


def test_lists_of_labels_are_columns_of_0_and_1() -> None:
    target = of({"column": "tags", "kind": "multilabel", "separator": " "}, "micro_f1")
    assert target.space.names == ("rust", "scab")
    assert target.truth.tolist() == [[1, 1], [0, 0], [1, 0], [0, 1], [1, 0], [1, 1]]
    assert answers(target, [[1, -1], [-1, -1], [2, 3]]) == {"tags": ["rust", "", "rust scab"]}


def test_an_empty_cell_of_several_labels_is_not_known() -> None:
    target = of({"columns": ["x", "y"], "kind": "multilabel"}, "macro_f1")
    np.testing.assert_array_equal(target.truth[:, 0], [1, 0, np.nan, 1, 0, 0])
    assert target.truth[:, 1].tolist() == [0, 1, 1, 0, 1, 0]
    assert answers(target, [[1, -1]]) == {"x": ["1"], "y": ["0"]}


def test_values_keep_their_units_and_answers_their_range() -> None:
    target = of({"columns": ["u", "v"], "range": [-2, 100]}, "rmse")
    assert target.kind == "regression", "rmse is made for values"
    np.testing.assert_allclose(target.baseline(), [1.4, 35])
    assert answers(target, [[-7.0, 12.5]]) == {"u": ["-2"], "v": ["12.5"]}
    outputs = torch.zeros(1, 2)
    np.testing.assert_allclose(target.predictions(outputs)[0], [1.4, 35], atol=1e-5)


def test_votes_are_shares_with_a_prior_and_weigh_rows() -> None:
    found = read({"columns": "*_vote", "kind": "soft", "prior": 0.5, "weight_by_votes": True}, "kl")
    assert found.target.columns == ("a_vote", "b_vote")
    np.testing.assert_allclose(found.target.truth[0], [3.5 / 5, 1.5 / 5])
    np.testing.assert_allclose(found.weights, np.array([4, 2, 2, 2, 4, 1]) / 2.5)


def test_several_labels_are_scored_each() -> None:
    target = of({"columns": ["mask", "grade"], "kind": "multioutput"}, "mean_accuracy")
    assert target.space.names == ("mask=off", "mask=on", "grade=0", "grade=2", "grade=10")
    assert target.truth[0].tolist() == [1, 2]
    assert answers(target, [[0, -1, -2, 0, -1]]) == {"mask": ["off"], "grade": ["2"]}


def test_heads_are_joined_over_the_labels_that_there_are() -> None:
    labels = ["0", "1", "2", "1", "0", "2"]
    target = read({"column": "label", "heads": ["mask", "age"]}, label=labels).target
    assert target.outputs == 4
    assert target.learned.tolist()[:3] == [[1, 0], [0, 0], [1, 1]]
    outputs = np.log([[0.3, 0.7, 0.6, 0.4]])  # off, on; old, young
    joined = np.array([0.7 * 0.6, 0.3 * 0.6, 0.7 * 0.4])
    wanted = joined / joined.sum()
    np.testing.assert_allclose(np.exp(target.from_learned(outputs))[0], wanted)
    np.testing.assert_allclose(target.predictions(torch.from_numpy(outputs)).exp()[0], wanted)


def test_auxiliary_columns_are_learned_and_not_predicted() -> None:
    target = of({"column": "label", "auxiliary": ["mask"]})
    assert target.outputs == 5
    assert target.learned.tolist()[0] == [1, 1]
    assert target.predictions(torch.zeros(2, 5)).shape == (2, 3)
    assert target.at(np.array([2, 3])).learned.tolist() == [[2, 1], [0, 0]]


@pytest.mark.parametrize(
    ("target", "metric", "message"),
    [
        ("v", "accuracy", None),
        ({"column": "label", "columns": ["x"]}, "accuracy", "either a column or columns"),
        ({"columns": "*_nothing", "kind": "soft"}, "kl", r"no column is like '\*_nothing'"),
        ({"columns": ["x", "y"]}, "macro_f1", "it is not said of what kind"),
        ({"column": "label", "kind": "ordinal"}, "qwk", "competition.order: grades need an order"),
        ({"column": "tags", "kind": "multilabel"}, "micro_f1", "no separator"),
        ({"columns": ["x", "label"], "kind": "multilabel"}, "macro_f1", "'label' are not 0 or 1.*line 2: 'b'"),
        ({"columns": ["u", "label"], "kind": "regression"}, "rmse", "'label' are not a number.*line 2: 'b'"),
        ({"column": "v", "kind": "regression", "range": [0, 45]}, "rmse", "2 values lie outside 0 to 45.*line 6"),
        ({"column": "label", "kind": "single", "range": [0, 1]}, "accuracy", "goes with kind regression, not single"),
        ({"columns": ["u", "a_vote"], "kind": "soft"}, "kl", "missing or negative in line 3"),
        ({"column": "label", "heads": ["mask"]}, "accuracy", "do not tell all labels apart"),
        ({"column": "mask", "heads": ["label"]}, "accuracy", "do not fix the label"),
        ({"column": "label", "kind": "multioutput"}, "mean_accuracy", "several columns"),
        ({"columns": ["label", "mask"], "kind": "single"}, "accuracy", "read from one"),
        ({"columns": [], "kind": "regression"}, "rmse", "names no column"),
        ({"columns": ["u", "u"], "kind": "regression"}, "rmse", "one of them twice"),
        ({"column": "v", "kind": "regression", "range": [5, 0]}, "rmse", "5 is not below 0"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(target: object, metric: str, message: str | None) -> None:
    if message is None:
        assert read(target, metric).target.kind == "single", "six numbers may be classes"
        return
    with pytest.raises(FoldcraftError, match=message) as error:
        read(target, metric)
    assert len(str(error.value)) < 300


MANY: dict[str, Callable[[int], Any]] = {
    "numbers": lambda k: f"{k / 7:.3f}",
    "lists": lambda k: ["a", "b", "a b"][k % 3],
}


@pytest.mark.parametrize(
    ("cells", "message"), [("numbers", "look like values"), ("lists", "looks like several labels")]
)
def test_what_looks_like_another_kind_is_asked_for(cells: str, message: str) -> None:
    table = pd.DataFrame({"id": range(200), "label": [MANY[cells](k) for k in range(200)]}, dtype=str)
    with pytest.raises(FoldcraftError, match=message):
        reading.read(CompetitionConfig(name="x"), table, Path("train.csv"))
    reading.read(CompetitionConfig(name="x", target={"column": "label", "kind": "single"}), table, Path("train.csv"))


def test_what_teachers_say_of_a_label_becomes_what_its_net_learns() -> None:
    said = np.array([[0.5, 0.2, 0.3]], np.float32)
    none = np.array([-1])
    grades = of({"column": "grade", "kind": "ordinal"})
    np.testing.assert_allclose(grades.to_learned(said, none), [[0.5, 0.3]], atol=1e-6)
    np.testing.assert_allclose(grades.to_learned(grades.space.matrix(grades.truth), none), grades.learned)
    labels = ["0", "1", "2", "1", "0", "2"]  # on and old, off and old, on and young
    heads = read({"column": "label", "heads": ["mask", "age"]}, label=labels).target
    np.testing.assert_allclose(heads.to_learned(said, none), [[0.2, 0.8, 0.7, 0.3]], atol=1e-6)
    more = of({"column": "label", "auxiliary": ["mask"]})
    np.testing.assert_array_equal(more.to_learned(said, none), [[*said[0], np.nan, np.nan]])
    np.testing.assert_array_equal(more.to_learned(said, np.array([1])), [[*said[0], 1, 0]])
