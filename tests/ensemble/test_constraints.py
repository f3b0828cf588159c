"""Constraints: what they say, the answers that obey, and whether a blend uses them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Outcome
from tables import class_space

from foldcraft.common import config_file
from foldcraft.common.callbacks import Callback
from foldcraft.common.errors import FoldcraftError
from foldcraft.ensemble import blend, constraints
from foldcraft.ensemble.nested import BlendMember, BlendSelection, Labels, judge
from foldcraft.metrics.scores import get
from foldcraft.metrics.spaces import LabelSpace, Space, ValueSpace
from foldcraft.predictions.finished import open_finished

RNG = np.random.default_rng(0)
VALUES = ValueSpace(("a", "b", "total"), np.zeros(3), np.array([1.0, 2.0, 2.0]))
LABELS = LabelSpace(("none", "cat", "dog", "animal"))


def test_values_move_to_the_nearest_that_obey() -> None:
    rule = constraints.read(["total = a + b"], VALUES)
    assert rule.apply(np.array([[1.0, 2.0, 3.0]])).tolist() == [[1, 2, 3]]
    # 9 too much on the right; the columns' squared scales are 1, 4, 4, so they give 1, 4 and 4 of it
    np.testing.assert_allclose(rule.apply(np.array([[5.0, 10.0, 6.0]])), [[4, 6, 10]])
    two = constraints.read(["total = 2*(a + 1) - 0.5*b", '"b" = 4'], VALUES)
    said = two.apply(RNG.normal(size=(5, 3)))
    np.testing.assert_allclose(said[:, 1], 4)
    np.testing.assert_allclose(said[:, 2], 2 * said[:, 0])
    twice = constraints.read(["total = a + b", "a = total - b"], VALUES)  # the same in other words
    np.testing.assert_allclose(twice.apply(np.array([[5.0, 10.0, 6.0]])), [[4, 6, 10]])


def test_of_labels_that_do_not_go_together_the_less_sure_gives_way() -> None:
    rule = constraints.read(["none excludes all", "cat implies animal", "dog implies animal"], LABELS)
    given = np.array(
        [
            [2.0, 1.0, -1.0, 0.5],  # none is surest
            [1.0, 2.0, 0.5, 3.0],  # it is not
            [-3.0, 2.0, -1.0, -1.0],  # a cat, so an animal
            [-3.0, 1.0, -1.0, -2.0],  # no animal, so no cat
            [-1.0, -1.0, -1.0, -1.0],
        ]
    )
    said = rule.apply(given)
    assert (said > 0).astype(int).tolist() == [[1, 0, 0, 0], [0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert (said[1, 1:] == given[1, 1:]).all()
    assert (said[4] == given[4]).all()
    many = (rule.apply(RNG.normal(size=(500, 4))) > 0).astype(int)
    assert not (many[:, 0] & many[:, 1:].max(1)).any()
    assert (many[:, 3] >= many[:, 1:3].max(1)).all()


@pytest.mark.parametrize(
    ("texts", "space", "says"),
    [
        (["total = a + c"], VALUES, "no column or label 'c'"),
        (["totl = a + b"], VALUES, "did you mean 'total'?"),
        (["total = a * b"], VALUES, "not linear"),
        (["total = a / b"], VALUES, "'/ b' is not understood"),
        (["total = (a + b"], VALUES, "not closed"),
        (["total = a +"], VALUES, "is missing"),
        (["total = a b"], VALUES, "left over"),
        (["total"], VALUES, "no equation"),
        (["total = total"], VALUES, "says nothing"),
        (["total = a + b", "total = a + b + 1"], VALUES, "contradict each other"),
        (["none excludes catt"], LABELS, "did you mean 'cat'?"),
        (["none forbids cat"], LABELS, "is not understood"),
        (["cat excludes cat"], LABELS, "on both sides"),
        (["cat implies animal", "animal excludes cat"], LABELS, "contradict each other: with 'cat'"),
        (["a = b"], class_space(2), "are for values"),
    ],
)
def test_what_is_no_constraint_is_told_in_a_line(texts: list[str], space: Space, says: str) -> None:
    with pytest.raises(FoldcraftError) as error:
        constraints.read(texts, space)
    assert says in str(error.value)
    assert "competition.constraints" in str(error.value)
    assert len(str(error.value)) < 300


def judged(said: str, truth: np.ndarray, predicted: np.ndarray, space: Space, metric: str) -> BlendSelection:
    rows = len(truth)
    kind = "regression" if space.form == "values" else "multilabel"
    known = constraints.read([said], space)
    fold, units = np.arange(rows) % 5, np.arange(rows).astype(str)
    labels = Labels(truth, fold, units, get(metric, kind, space.names), space, None, known)
    return judge([BlendMember("one", ("identity",), predicted[None])], labels)


def test_a_sum_that_holds_is_used_and_one_that_does_not_is_not() -> None:
    parts = RNG.normal((3, 5), 1, size=(200, 2))
    truth = np.column_stack([parts, parts.sum(1)])
    space = ValueSpace.of(("a", "b", "total"), truth)
    predicted = truth + RNG.normal(size=truth.shape) * 0.5
    helped = judged("total = a + b", truth, predicted, space, "rmse")
    assert helped.chosen.name.endswith("constraints")
    answers = helped.chosen.plan.apply([BlendMember("one", ("identity",), predicted[None])])
    np.testing.assert_allclose(answers[:, 2], answers[:, 0] + answers[:, 1])
    assert helped.chosen.score.value < helped.members[0].score.value
    assert helped.chosen.optimistic == pytest.approx(np.sqrt(((answers - truth) ** 2).mean(0)).mean())
    assert "constraints move 200 of 200 rows, gain 0" in helped.words[-1]
    wrong = judged("total = a - b", truth, predicted, space, "rmse")
    assert not wrong.chosen.name.endswith("constraints")
    assert "are not used" in wrong.words[-1]


def test_labels_that_exclude_each_other_are_used_where_that_helps() -> None:
    sick = (RNG.random((300, 2)) < 0.4).astype(float)
    truth = np.column_stack([(sick.sum(1) == 0).astype(float), sick])
    predicted = 3 * (truth - 0.5) + RNG.normal(size=truth.shape) * [1.5, 0.4, 0.4]
    space = LabelSpace(("none", "mild", "severe"))
    helped = judged("none excludes all", truth, predicted, space, "accuracy")
    assert helped.chosen.name.endswith("constraints")
    assert helped.chosen.score.value > helped.members[0].score.value
    wrong = judged("mild excludes severe", truth, predicted, space, "accuracy")
    assert not wrong.chosen.name.endswith("constraints")


def test_a_blend_reads_the_constraints_of_the_config(shapes: Path, command: Callable[..., Outcome]) -> None:
    folder = Path("input/shapes")
    for name in ("train.csv", "sample_submission.csv"):
        table = pd.read_csv(folder / name)
        table["bars"] = table["label"].isin(["bar", "cross"]).astype(float)
        table["dots"] = (table["label"] == "dot") * 2.0
        table["total"] = table["bars"] + table["dots"]
        table.drop(columns="label").to_csv(folder / name, index=False)
    words = "{columns: [bars, dots, total], kind: regression}, constraints: [total = bars + dots]"
    text = shapes.read_text().replace("metric: accuracy", f"metric: rmse, target: {words}")
    shapes.write_text(text.replace("epochs: 2", "epochs: 1"))
    done = command("train", "--config", shapes, "--fold", "all")
    assert done.code == 0, done.err
    members = open_finished([config_file.load(shapes)])
    blend.complete(members, Callback())
    assert "constraints move 48 of 48 rows" in blend.combine(members).selection.words[-1]
    refused = command("infer", "--config", shapes, "competition.constraints=[total = bars + dot]")
    assert refused.code == 2
    assert "did you mean 'dots'?" in refused.err
