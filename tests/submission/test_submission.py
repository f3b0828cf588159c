"""The submission: made on the sample, checked as the host would, never overwritten."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from foldcraft.common.errors import FoldcraftError
from foldcraft.data.competition import Competition
from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.single import SingleLabel
from foldcraft.metrics import scores
from foldcraft.submission import build

TEST = ["b", "a", "10", "07", "7"]
CLASSES = ("bar", "cross", "dot")


def competition(sample: pd.DataFrame, metric: str = "accuracy", classes: tuple[str, ...] = CLASSES) -> Competition:
    nothing = np.array([], dtype=str)
    return Competition(
        name="shapes",
        metric=scores.get(metric),
        target=SingleLabel.of("label", Classes(classes), np.array([], dtype=np.int64)),
        train_ids=nothing,
        groups=None,
        train_paths=(),
        test_ids=np.array(sorted(TEST)),
        test_paths=(),
        sample=sample,
        id_column="id",
    )


def labels_sample() -> pd.DataFrame:
    return pd.DataFrame({"label": "bar", "id": TEST})  # the id need not come first


def predicted(classes: int = 3) -> np.ndarray:
    """Of the rows of `TEST`, in that order."""
    return log_softmax(np.random.default_rng(0).normal(0, 2, (len(TEST), classes)), axis=1)


def test_labels_stand_beside_the_samples_ids() -> None:
    wanted = [CLASSES[best] for best in predicted().argmax(1)]
    assert len(set(wanted)) > 1
    order = [3, 0, 4, 2, 1]
    data = competition(labels_sample())
    made = build.make(data, np.array(TEST)[order], predicted()[order])
    build.check(made, data)
    pd.testing.assert_frame_equal(made, labels_sample().assign(label=wanted))


def test_each_class_finds_its_column() -> None:
    sample = pd.DataFrame({"dot": "0.3", "id": TEST, "bar": "0.3", "cross": "0.4"})
    for metric in ("log_loss", "accuracy"):  # the sample decides, whatever the metric wants
        data = competition(sample, metric)
        made = build.make(data, np.array(TEST), predicted())
        build.check(made, data)
        assert list(made.columns) == ["dot", "id", "bar", "cross"]
        assert made["id"].tolist() == TEST
        np.testing.assert_allclose(made[list(CLASSES)].to_numpy(float), np.exp(predicted()))


def test_one_column_of_two_classes_is_the_probability_of_the_second() -> None:
    sample = pd.DataFrame({"id": TEST, "score": "0.5"})
    data = competition(sample, "roc_auc", ("no", "yes"))
    made = build.make(data, np.array(TEST), predicted(2))
    build.check(made, data)
    np.testing.assert_allclose(made["score"].to_numpy(float), np.exp(predicted(2)[:, 1]))
    asked_for_labels = build.make(competition(sample, "accuracy", ("no", "yes")), np.array(TEST), predicted(2))
    assert set(asked_for_labels["score"]) == {"no", "yes"}


@pytest.mark.parametrize(
    ("column", "place", "said"),
    [
        ("defect", 0, "column 'defect' holds the probability of 'defect'"),
        ("OK", 1, "column 'OK' holds the probability of 'ok'"),
        ("p_defect", 0, "column 'p_defect' holds the probability of 'defect'"),
    ],
)
def test_a_column_that_is_named_after_a_class_gets_its_probability(column: str, place: int, said: str) -> None:
    data = competition(pd.DataFrame({"id": TEST, column: "0.5"}), "roc_auc", ("defect", "ok"))
    made = build.make(data, np.array(TEST), predicted(2))
    np.testing.assert_allclose(made[column].to_numpy(float), np.exp(predicted(2)[:, place]))
    assert said in build.meaning(data)


@pytest.mark.parametrize(
    ("sample", "metric"),
    [
        (pd.DataFrame({"id": TEST, "remark": "bar", "comment": "-"}), "accuracy"),
        (pd.DataFrame({"id": TEST, "bar": "0.5", "dot": "0.5"}), "log_loss"),
        (pd.DataFrame({"id": TEST, "score": "0.5"}), "log_loss"),
    ],
)
def test_a_sample_that_is_not_understood_is_refused(sample: pd.DataFrame, metric: str) -> None:
    with pytest.raises(FoldcraftError, match="sample submission: columns"):
        build.make(competition(sample, metric), np.array(TEST), predicted())


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["b", "a", "10", "07"], r"1 ids without prediction \(7\)"),
        ([*TEST, "new"], r"1 too many \(new\)"),
        ([*TEST, "a"], "1 doubled"),
        (["b", "a", "10", "7", "7"], r"1 ids without prediction \(07\).*1 doubled"),
    ],
)
def test_other_ids_than_the_samples_are_refused(ids: list[str], said: str) -> None:
    some = predicted()[np.arange(len(ids)) % len(TEST)]
    with pytest.raises(FoldcraftError, match=said):
        build.make(competition(labels_sample()), np.array(ids), some)


@pytest.mark.parametrize("bad", [np.nan, 0.5, np.inf])
def test_predictions_that_are_no_probabilities_are_refused(bad: float) -> None:
    broken = predicted()
    broken[2, 1] = bad
    with pytest.raises(FoldcraftError, match="NaN or do not sum to one"):
        build.make(competition(labels_sample()), np.array(TEST), broken)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda frame: frame[["id", "label"]], "columns"),
        (lambda frame: frame.iloc[::-1], "ids"),
        (lambda frame: frame.iloc[:-1], "ids"),
        (lambda frame: frame.assign(id=["b", "a", "10", "7", "7"]), "ids"),
        (lambda frame: frame.assign(label=["bar", None, "dot", "dot", "bar"]), "empty"),
        (lambda frame: frame.assign(label=["bar", "", "dot", "dot", "bar"]), "empty"),
        (lambda frame: frame.assign(label=["bar", "Bar", "dot", "dot", "bar"]), "unknown labels: Bar"),
    ],
)
def test_a_spoiled_submission_is_seen(spoil, said: str) -> None:
    data = competition(labels_sample())
    good = build.make(data, np.array(TEST), predicted())
    build.check(good, data)
    with pytest.raises(FoldcraftError, match=said):
        build.check(spoil(good), data)


def test_spoiled_probabilities_are_seen() -> None:
    data = competition(pd.DataFrame({"id": TEST, "bar": "0", "cross": "0", "dot": "1"}), "log_loss")
    good = build.make(data, np.array(TEST), predicted())
    with pytest.raises(FoldcraftError, match="sum to one"):
        build.check(good.assign(dot=good["dot"] + 0.1), data)
    with pytest.raises(FoldcraftError, match="empty"):
        build.check(good.assign(dot=np.nan), data)


@given(order=st.permutations(range(len(TEST))))
def test_the_order_of_predictions_does_not_matter(order: list[int]) -> None:
    sample = pd.DataFrame({"id": TEST, "bar": "0", "cross": "0", "dot": "1"})
    for data in (competition(labels_sample()), competition(sample, "log_loss")):
        wanted = build.make(data, np.array(TEST), predicted())
        made = build.make(data, np.array(TEST)[order], predicted()[order])
        assert made.to_csv(index=False) == wanted.to_csv(index=False)


def frame(label: str = "bar") -> pd.DataFrame:
    return pd.DataFrame({"id": TEST, "label": label})


def test_an_earlier_submission_is_never_overwritten(tmp_path: Path) -> None:
    names = ("experiments", "weights", "nested", "nested_low", "nested_high", "optimistic", "rows")
    entry = {"competition": "shapes", "metric": "accuracy", **dict.fromkeys(names, "")}
    written = [build.write(frame(label), tmp_path, "mine", entry) for label in ("bar", "dot", "bar", "cross")]
    assert [one.path.name for one in written] == ["mine.csv", "mine-2.csv", "mine.csv", "mine-3.csv"]
    assert [one.is_new for one in written] == [True, True, False, True]
    for one, label in zip(written, ("bar", "dot", "bar", "cross"), strict=True):
        assert pd.read_csv(one.path)["label"].unique().tolist() == [label]
    assert written[0].path.read_bytes() == b"id,label\nb,bar\na,bar\n10,bar\n07,bar\n7,bar\n"
