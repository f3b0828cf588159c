"""Labels, heads and columns by themselves, beside scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, mean_absolute_error, r2_score, roc_auc_score

from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.several import MultiLabel, MultiOutput, Regression, Soft
from foldcraft.data.targets.single import HeadsLabel, Ordinal, SingleLabel, WithAuxiliary
from foldcraft.metrics import scores, significance
from foldcraft.metrics.parts import BIAS, parts_of
from foldcraft.metrics.significance import ScoredRows
from foldcraft.metrics.spaces import ClassSpace, LabelSpace, Space, ValueSpace

AB = Classes(("a", "b"))
ABC = Classes(("a", "b", "c"))


def rows_of(
    space: Space, metric: str, kind: str, truth: np.ndarray, *predicted: np.ndarray, **more: object
) -> ScoredRows:
    names = ("x", "y") if getattr(space, "widths", ()) else space.names
    return ScoredRows(
        names=tuple(f"e{k}" for k in range(len(predicted))),
        metric=scores.get(metric, kind, names, getattr(space, "widths", ())),
        space=space,
        classes=names,
        truth=truth,
        units=np.arange(len(truth)).astype(str),
        fold=np.arange(len(truth)) % 2,
        predicted=predicted,
        **more,
    )


def test_labels_by_themselves() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (200, 2)).astype(float)
    truth[:20, 1] = np.nan
    given = [np.clip(np.nan_to_num(truth) * lift + rng.random((200, 2)) * 0.8, 0, 1) for lift in (0.1, 0.5)]
    answers = rows_of(LabelSpace(("p", "q")), "mean_auc", "multilabel", truth, *given)
    ((p, q),) = significance.by_part(answers, repeats=100)
    known = ~np.isnan(truth[:, 1])

    assert (p.name, p.rows, q.rows) == ("p", 200, 180)
    assert next(iter(q.measures)) == "AUC", "what is nearest to the metric"
    own = [(truth[known, 1], each[known, 1]) for each in given]
    assert q.measures["AUC"] == pytest.approx([roc_auc_score(*pair) for pair in own])
    assert q.measures["average precision"] == pytest.approx([average_precision_score(*pair) for pair in own])
    assert q.measures["F1"] == pytest.approx([f1_score(true, said > 0.5) for true, said in own])
    assert q.gain == pytest.approx(q.measures["AUC"][1] - q.measures["AUC"][0])
    assert 0 < q.low < q.gain < q.high


def test_values_by_themselves_and_less_is_better() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(50, 20, (150, 1))
    given = [truth + rng.normal(2, spread, truth.shape) for spread in (9, 5)]
    answers = rows_of(ValueSpace.of(("v",), truth), "mae", "regression", truth, *given)
    ((v,),) = significance.by_part(answers, repeats=100)

    assert v.measures["MAE"] == pytest.approx([mean_absolute_error(truth, each) for each in given])
    assert v.measures["R2"] == pytest.approx([r2_score(truth, each) for each in given])
    assert v.measures["mean error"] == pytest.approx([float((each - truth).mean()) for each in given])
    assert v.gain == pytest.approx(v.measures["MAE"][0] - v.measures["MAE"][1]), "positive is better"
    assert v.low > 0


def test_what_says_nothing_is_not_a_number() -> None:
    space, truth = LabelSpace(("p", "q")), np.array([[1.0, 0], [1, 1], [1, np.nan]])
    p, q = parts_of(space, truth, space.names)
    auc = next(one for one in p.measures if one.name == "AUC")
    assert np.isnan(p.score(auc, np.full((3, 2), 0.5))), "a label that all rows have"
    assert q.score(auc, np.array([[0, 0.1], [0, 0.9], [0, 0.5]])) == 1
    assert parts_of(ClassSpace(("a", "b")), np.array([0, 1]), ("a", "b")) == []
    low, high = q.interval(BIAS, np.array([[0, 1.0], [0, 1.0], [0, 0.0]]), np.arange(3))
    assert low <= 0.5 <= high


def test_answers_that_differ_are_counted_label_by_label() -> None:
    space = ClassSpace(("x=a", "x=b", "y=a", "y=b", "y=c"), (2, 3))
    truth = np.array([[0, 2], [1, -1], [1, 0]])
    said = [np.array([[0, 2], [0, 1], [0, 1]]), np.array([[1, 2], [1, 2], [1, 2]])]
    given = [np.concatenate([np.eye(2)[s[:, 0]], np.eye(3)[s[:, 1]]], axis=1) * 0.8 + 0.1 for s in said]
    found = significance.compare(rows_of(space, "mean_accuracy", "multioutput", truth, *given), repeats=20).others[0]
    # x: three differ, e0 is right in the first, e1 in the others; y: of two that are known one differs, both are wrong
    assert (found.apart, found.baseline_right, found.right) == (4, 1, 2)


def test_weights_of_rows_count_in_a_comparison() -> None:
    truth, weights = np.array([0, 0, 1, 1]), np.array([1.0, 1, 1, 5])
    given = [np.eye(2)[[0, 0, 1, 0]], np.eye(2)[[1, 1, 1, 1]]]
    answers = rows_of(ClassSpace(("a", "b")), "accuracy", "single", truth, *given, weights=weights)
    found = significance.compare(answers, repeats=20)
    assert (found.baseline, found.others[0].score) == (3 / 8, 6 / 8)


def test_correlation_of_errors_of_other_kinds() -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(0, 1, (300, 2)) * [1, 100]
    space = ValueSpace.of(("u", "v"), truth)
    shared = rng.normal(0, 1, truth.shape)
    given = [truth + (shared + rng.normal(0, 1, truth.shape)) * space.scale + [5, 0] for _ in range(2)]
    residuals = [(each - truth) / space.scale for each in given]
    centred = [(each - each.mean(0)).ravel() for each in residuals]
    found = significance.error_correlation(space, truth, given)
    assert found[0, 1] == pytest.approx(np.corrcoef(centred)[0, 1])
    assert 0.4 < found[0, 1] < 0.6

    labels = (rng.random((300, 2)) < 0.5).astype(float)
    odds = [np.where(rng.random(labels.shape) < 0.8, 1, -1) * np.where(labels == 1, 1.0, -1.0) for _ in range(2)]
    labels[0, 0] = np.nan
    wrong = [np.where(np.isnan(labels), np.nan, (each > 0) != labels) for each in odds]
    cells = [(each - np.nanmean(each, axis=0))[~np.isnan(labels)] for each in wrong]
    found = significance.error_correlation(LabelSpace(("p", "q")), labels, odds)
    assert found[0, 1] == pytest.approx(np.corrcoef(cells)[0, 1])


def test_what_is_asked_of_a_net_about_an_answer() -> None:
    """Each output that speaks for the answer, or for that part of it which costs most."""
    grades = Ordinal.of("g", ABC, np.array([0, 1, 2]))
    cumulative = Ordinal(grades.columns, grades.space, grades.truth, True)
    columns = grades.space.spoke(np.log(np.eye(3)[[1, 2, 2]] * 0.9 + 0.03), grades.truth)
    assert columns.tolist() == np.eye(3)[[1, 2, 2]].tolist()
    assert cumulative.outputs_behind(columns).tolist() == [[1, -1], [1, 1], [1, 1]]

    label = SingleLabel.of("l", ABC, np.array([0, 1, 2]))
    parts = np.array([[0, 0], [0, 1], [1, 1]])
    joined = HeadsLabel(label.columns, label.space, label.truth, ("h", "i"), (AB, AB), parts)
    assert joined.outputs_behind(np.eye(3)).tolist() == [[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 1]]
    more = WithAuxiliary.of(label, ("h",), (AB,), np.zeros((3, 1), int))
    assert more.outputs_behind(np.eye(3)).tolist() == np.pad(np.eye(3), ((0, 0), (0, 2))).tolist()

    several = MultiLabel.of(("p", "q"), ("p", "q"), np.array([[1.0, 1], [0, np.nan]]), "")
    odds = np.array([[0.5, -2.0], [3.0, 9.0]])
    assert several.space.spoke(odds, several.truth).tolist() == [[0, -1], [1, 0]], "the label that costs most"
    values = Regression.of(("u", "v"), np.array([[0.0, 0], [2, 200]]))
    assert values.space.spoke(np.array([[0.0, -50], [5, 210]]), values.truth).tolist() == [[0, -1], [1, 0]]
    both = MultiOutput.of(("x", "y"), (AB, ABC), np.array([[0, 2], [1, -1]]))
    given = np.log([[0.9, 0.1, 0.2, 0.7, 0.1], [0.8, 0.2, 0.1, 0.1, 0.8]])
    assert both.space.spoke(given, both.truth).tolist() == [[0, 0, 0, 1, 0], [1, 0, 0, 0, 0]]


def test_truth_and_answers_in_words() -> None:
    several = MultiLabel.of(("p", "q"), ("p", "q"), np.array([[1.0, np.nan], [0, 0]]), "")
    assert several.in_words(several.truth) == ["p, q?", "none"]
    assert several.in_words(several.answered(np.array([[2.0, 1.0]]))) == ["p, q"]
    both = MultiOutput.of(("x", "y"), (AB, ABC), np.array([[0, 2], [1, -1]]))
    assert both.in_words(both.truth) == ["x a, y c", "x b, y ?"]
    values = Regression.of(("u", "v"), np.array([[0.0, np.nan], [2, 200]]), low=0)
    assert values.in_words(values.truth) == ["u 0, v ?", "u 2, v 200"]
    assert values.in_words(values.answered(np.array([[-3.0, 1.23456]]))) == ["u 0, v 1.235"]
    votes = Soft.of(("a", "b"), np.array([[0.75, 0.25], [0, 1]]))
    assert votes.in_words(votes.truth) == ["a 75%, b 25%", "b 100%"]
    perfect = votes.space.unscored(votes.truth)
    assert votes.row_losses(perfect, votes.truth) == pytest.approx([0, 0])
    assert votes.row_losses(np.log([[0.5, 0.5]] * 2), votes.truth)[0] == pytest.approx(
        0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    )
