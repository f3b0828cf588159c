"""The audit on other targets than one label: each label by itself, values by their residuals, copies by the truth."""

from pathlib import Path

import kinds_ground
import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from foldcraft.common import config_file
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.data.host_files.tables import read_tables
from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.several import MultiLabel, MultiOutput, Regression, Soft
from foldcraft.data.targets.single import Ordinal
from foldcraft.data.targets.target import Target
from foldcraft.study.audit import label_errors, label_issues, leaks, run

pytestmark = pytest.mark.integration

ROWS = 400
IDS = np.array([f"{row:03d}" for row in range(ROWS)])
GRADES = Classes(("0", "1", "2"))


def sure(truth: np.ndarray, seed: int = 0) -> np.ndarray:
    """Log-probabilities (N, 3) of models that are mostly right."""
    scores = np.random.default_rng(seed).normal(0, 1, (len(truth), 3))
    scores[np.arange(len(truth)), truth] += 5
    return scores - np.log(np.exp(scores).sum(1, keepdims=True))


def doubted(target: Target, predicted: np.ndarray) -> pd.DataFrame:
    return label_errors.doubts(target, predicted, IDS).table


def test_each_label_of_many_is_doubted_by_itself() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (ROWS, 2)).astype(float)
    predicted = logit(np.where(truth == 1, 0.9, 0.1)) + rng.normal(0, 0.5, truth.shape)
    truth[7, 1] = 1 - truth[7, 1]
    truth[3, 0] = np.nan  # what is not known cannot be wrong
    predicted[3, 0] = 9
    found = doubted(MultiLabel.of(("rust", "miner"), ("rust", "miner"), truth, ""), predicted)
    assert found.iloc[0][["id", "target"]].tolist() == ["007", "miner"]
    said = int(truth[7, 1])
    assert found.iloc[0][["label", "suggested"]].tolist() == [str(said), str(1 - said)]
    assert "003" not in set(found.loc[found["target"] == "rust", "id"])


def test_each_head_is_doubted_by_itself() -> None:
    truth = np.random.default_rng(0).integers(0, 3, (ROWS, 2))
    predicted = np.concatenate([sure(truth[:, 0]), sure(truth[:, 1], 1)], axis=1)
    truth[11, 1] = (truth[11, 1] + 1) % 3
    truth[5, 0] = -1
    found = doubted(MultiOutput.of(("root", "vowel"), (GRADES, GRADES), truth), predicted)
    assert found.iloc[0][["id", "target", "label"]].tolist() == ["011", "vowel", str(truth[11, 1])]
    assert "005" not in set(found.loc[found["target"] == "root", "id"])


def test_a_value_far_from_what_models_say_is_doubted_however_wrong_they_are_on_the_whole() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(50, 20, (ROWS, 1))
    predicted = truth + 10 + rng.normal(0, 2, truth.shape)  # ten too much everywhere
    truth[9] += 30
    truth[10] = np.nan
    found = label_errors.doubts(Regression.of(("count",), truth), predicted, IDS)
    assert found.table["id"].tolist() == ["009"]
    assert float(found.table["score"][0]) == pytest.approx(-30 / 2, rel=0.25), "robust standard deviations"
    assert found.judged == ROWS - 1
    assert "1 of 399 values are more than 4 robust" in label_errors.find(found, "a probe")[0].sentence


def test_grades_that_are_furthest_off_come_first() -> None:
    truth = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [150, 100, 150]))
    predicted = sure(truth)
    near, far = np.flatnonzero(truth == 1)[0], np.flatnonzero(truth == 2)[0]
    predicted[near], predicted[far] = np.log([0.005, 0.99, 0.005]), np.log([0.01, 0.01, 0.98])
    truth[near], truth[far] = 0, 0
    found = doubted(Ordinal.of("grade", GRADES, truth), predicted)
    assert found["id"][0] == IDS[far], "one grade off is surer, two grades off is worse"
    assert IDS[near] in set(found["id"])
    assert "target" not in found


def test_votes_are_doubted_by_the_class_with_the_most() -> None:
    truth = np.random.default_rng(0).integers(0, 3, ROWS)
    predicted, shares = sure(truth), np.eye(3)[truth] * 0.8 + 0.2 / 3
    predicted[4], shares[4] = np.log(np.eye(3)[truth[4]] * 0.97 + 0.01), np.roll(shares[4], 1)
    found = doubted(Soft.of(("a", "b", "c"), shares), predicted)
    assert found.iloc[0][["id", "suggested"]].tolist() == ["004", "abc"[truth[4]]]


def test_rare_sets_of_labels_are_one_question_and_values_are_asked_by_their_bins() -> None:
    truth = np.zeros((60, 2))
    truth[:30, 0], truth[28:, 1] = 1, 1  # two rows have both
    asked = leaks.question(MultiLabel.of(("a", "b"), ("a", "b"), truth, ""))
    assert sorted(np.unique(asked, return_counts=True)[1].tolist()) == [2, 28, 30]
    values = np.arange(100.0)[:, None]
    assert np.unique(leaks.question(Regression.of(("x",), values)), return_counts=True)[1].tolist() == [10] * 10


@pytest.fixture
def planted(workplace: Path) -> pd.DataFrame:
    """The drawn competition with groups, and a copy whose truth is another in every kind; its training rows."""
    folder = Path("input/kinds")
    kinds_ground.write(folder, rows=60)
    rows = pd.read_csv(folder / "train.csv", dtype=str)
    (folder / "train/020.png").write_bytes((folder / "train/010.png").read_bytes())
    rows.loc[20, rows.columns[1:]] = rows.loc[10, rows.columns[1:]]
    rows.loc[20, ["width", "left", "grade", "label"]] = ["66", *("0" if rows.loc[10, "left"] == "1" else "1"), "1", "x"]
    rows.loc[20, "grade"] = "0" if rows.loc[10, "grade"] == "2" else "2"
    rows["group"] = [f"g{row // 2}" for row in range(60)]
    rows.to_csv(folder / "train.csv", index=False)
    return rows


def settings_of(shape: str) -> Config:
    return config_file.load(kinds_ground.config(shape, competition={"group": "group"}))


def test_the_table_of_labels_counts_what_there_is(planted: pd.DataFrame) -> None:
    def counts(shape: str) -> dict[str, int]:
        found = label_issues.table(read_tables(settings_of(shape)))
        return dict(zip(found["label"], found["rows"], strict=True))

    assert counts("multilabel") == {name: (planted[name] == "1").sum() for name in ("bar", "bright", "left")}
    assert counts("regression") == {"level": 60, "width": 60}
    grades = {f"grade={name}": count for name, count in planted["grade"].value_counts().items()}
    assert counts("multioutput") == {**grades, **{f"form={n}": c for n, c in planted["form"].value_counts().items()}}
    assert sum(counts("soft").values()) >= 60


def test_groups_of_many_values_are_no_finding_and_label_sets_are_told_in_words(planted: pd.DataFrame) -> None:
    def mixed(shape: str) -> pd.DataFrame:
        return label_issues.mixed_groups(read_tables(settings_of(shape)))

    assert mixed("regression").empty
    assert "bar, bright" in " ".join(mixed("multilabel")["labels"])


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["heads", "ordinal", "multilabel", "regression", "multioutput"])
def test_copies_with_another_truth_are_found_and_nothing_is_left_out(
    planted: pd.DataFrame, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaks, "TREES", 4)
    monkeypatch.setattr(leaks, "REPEATS", 3)
    if shape == "heads":
        planted.loc[20, ["form", "tone"]] = ["ring", "odd"]
        planted.to_csv("input/kinds/train.csv", index=False)
    settings = settings_of(shape)
    found = run.run(settings, read_tables(settings), Callback())
    copies = next(finding for finding in found.findings if finding.name == "copies_with_other_labels")
    assert {shown.id for strip in copies.image_rows for shown in strip} == {"010", "020"}
    assert found.skipped == []
    assert {"leaks.csv", "label_errors.csv", "duplicates.csv"} <= set(found.csvs)
