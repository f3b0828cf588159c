"""Each form of a submission: inferred, filled whatever the order of the predictions, read back, spoiled, refused."""

import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import DATA, Outcome, real_data
from hypothesis import given
from hypothesis import strategies as st

from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.data import competition as tables
from foldcraft.data.competition import Competition
from foldcraft.data.submission_forms.form import Form
from foldcraft.data.submission_forms.forms import Lists
from foldcraft.submission import form_inference

pytestmark = pytest.mark.integration

IDS = ["t2", "t10", "t1", "07"]
LABELS = {"columns": ["scab", "rust"], "kind": "multilabel"}
LISTS = {"column": "label", "kind": "multilabel", "separator": " "}
VALUES = {"columns": ["mass", "area"], "kind": "regression", "range": [0, 10]}
HEADS = {"columns": ["root", "vowel"], "kind": "multioutput"}
SOFT = {"columns": "*_vote", "kind": "soft"}


@dataclass(frozen=True)
class Case:
    """A competition of tables: training columns, the sample's answer columns, predictions, and what is written."""

    train: dict[str, list[object]]
    sample: dict[str, object]
    names: dict[str, object]
    predicted: list[list[float]]
    written: dict[str, list[object]]
    said: str
    long: str = ""  # what stands between ids and names

    def open(self, folder: Path) -> Competition:
        rows = len(next(iter(self.train.values())))
        pd.DataFrame({"id": [f"a{k}" for k in range(rows)], **self.train}).to_csv(folder / "train.csv", index=False)
        pd.DataFrame({"id": sorted(IDS), "age": 7}).to_csv(folder / "test.csv", index=False)
        ids = [f"{row}{self.long}{name}" for row in IDS for name in self.parts] if self.long else IDS
        pd.DataFrame({"id": ids, **self.sample}).to_csv(folder / "sample_submission.csv", index=False)
        for name in ("train", "test"):
            (folder / f"{name}.png").touch()
        images = {"image": "train.png", "test_image": "test.png"}
        about = {"name": "drawn", "folder": folder, **images, **self.names}
        return tables.read(
            Config.model_validate({"experiment": "x", "competition": about, "backbone": {"name": "test_resnet"}})
        )

    @property
    def parts(self) -> list[str]:
        return list(self.names["target"]["columns"])  # type: ignore[index]


def odds(*rows: list[float]) -> list[list[float]]:
    return [[float(np.log(p / (1 - p))) for p in row] for row in rows]


def logs(*rows: list[float]) -> list[list[float]]:
    return np.log(rows).tolist()


THREE = logs([0.7, 0.2, 0.1], [0.1, 0.45, 0.45], [0.2, 0.2, 0.6], [0.3, 0.3, 0.4])
TWO = logs([0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.4, 0.6])
PAIR = odds([0.9, 0.2], [0.1, 0.3], [0.6, 0.7], [0.2, 0.1])
ABC = {"label": ["a", "b", "c", "a"]}
CASES = {
    "labels": Case(
        ABC,
        {"age": 7, "label": "a"},
        {"metric": "accuracy"},
        THREE,
        {"age": ["7"] * 4, "label": ["a", "b", "c", "c"]},
        "column 'label' holds labels; age left as in the sample",
    ),
    "numbers that the sample writes otherwise": Case(
        {"label": ["0.0", "1.0", "2.0", "0.0"]},
        {"label": "1"},
        {"metric": "accuracy"},
        THREE,
        {"label": ["0.0", "1.0", "2.0", "2.0"]},
        "column 'label' holds labels as the training table writes them: '1.0', the sample has '1'",
    ),
    "one answer beside the test table's columns": Case(
        ABC,
        {"age": 7, "answer": "?"},
        {"metric": "accuracy"},
        THREE,
        {"age": ["7"] * 4, "answer": ["a", "b", "c", "c"]},
        "column 'answer' holds labels",
    ),
    "a column a class, with a suffix and other capitals": Case(
        ABC,
        {"B_vote": 0.3, "a_vote": 0.3, "C_vote": 0.4},
        {"metric": "log_loss"},
        THREE,
        {"B_vote": [0.2, 0.45, 0.2, 0.3], "a_vote": [0.7, 0.1, 0.2, 0.3], "C_vote": [0.1, 0.45, 0.6, 0.4]},
        "columns a_vote, B_vote, C_vote hold probabilities, 'a_vote' that of 'a' and so on",
    ),
    "one of two classes that is named": Case(
        {"label": ["REAL", "FAKE", "FAKE", "REAL"]},
        {"target": 0.5},
        {"metric": "log_loss", "submission": {"positive": "FAKE"}},
        TWO,
        {"target": [0.9, 0.2, 0.5, 0.4]},
        "column 'target' holds the probability of 'FAKE'",
    ),
    "0 and 1": Case(
        {"label": [0, 1, 1, 0]},
        {"target": 0.5},
        {"metric": "roc_auc"},
        TWO,
        {"target": [0.1, 0.8, 0.5, 0.6]},
        "column 'target' holds the probability of '1'",
    ),
    "soft": Case(
        {"x_vote": [1, 2, 0], "y_vote": [3, 0, 1], "z_vote": [1, 1, 1]},
        {"y": 0.3, "x": 0.3, "z": 0.3},
        {"target": SOFT, "metric": "kl"},
        THREE,
        {"y": [0.2, 0.45, 0.2, 0.3], "x": [0.7, 0.1, 0.2, 0.3], "z": [0.1, 0.45, 0.6, 0.4]},
        "hold probabilities, 'x' that of 'x_vote' and so on",
    ),
    "0 or 1 a label": Case(
        {"scab": [0, 1, 1], "rust": [1, 0, 1]},
        {"rust": 0, "scab": 0},
        {"target": LABELS, "metric": "macro_f1"},
        PAIR,
        {"rust": ["0", "0", "1", "0"], "scab": ["1", "0", "1", "0"]},
        "columns scab, rust hold 0 or 1",
    ),
    "a probability a label": Case(
        {"scab": [0, 1, 1], "rust": [1, 0, 1]},
        {"rust": 0.5, "scab": 0.5},
        {"target": LABELS, "metric": "mean_auc"},
        PAIR,
        {"rust": [0.2, 0.3, 0.7, 0.1], "scab": [0.9, 0.1, 0.6, 0.2]},
        "columns scab, rust hold probabilities",
    ),
    "lists": Case(
        {"label": ["scab", "rust", "rust scab"]},
        {"label": "rust"},
        {"target": LISTS, "metric": "sample_f1"},
        [*(row[::-1] for row in PAIR[:3]), [-1.0, -1.0]],
        {"label": ["scab", "rust", "rust scab", "rust"]},
        "column 'label' holds lists of labels, separated by ' ', never empty",
    ),
    "lists that may be empty": Case(
        {"label": ["scab", "rust", "rust scab", ""]},
        {"label": "rust"},
        {"target": LISTS, "metric": "sample_f1", "submission": {"separator": "|"}},
        [row[::-1] for row in PAIR],
        {"label": ["scab", "", "rust|scab", ""]},
        "separated by '|', perhaps empty",
    ),
    "values": Case(
        {"mass": [1.5, 2, 9], "area": [1, 2, 3]},
        {"area": 0.0, "mass": 0.0},
        {"target": VALUES, "metric": "rmse"},
        [[1.25, -3], [10.5, 2], [1e-9, 4], [3, 10]],
        {"area": [0, 2, 4, 10], "mass": [1.25, 10, 1e-9, 3]},
        "columns mass, area hold values",
    ),
    "several labels": Case(
        {"root": ["r1", "r2", "r1"], "vowel": [0, 1, 2]},
        {"vowel": 0, "root": "r1"},
        {"target": HEADS, "metric": "macro_recall"},
        [[*two, *three] for two, three in zip(TWO, THREE, strict=True)],
        {"vowel": ["0", "1", "2", "2"], "root": ["r1", "r2", "r1", "r2"]},
        "columns root, vowel hold labels",
    ),
    "long values": Case(
        {"mass": [1.5, 2, 9], "area": [1, 2, 3]},
        {"target": 0.0},
        {"target": VALUES, "metric": "rmse"},
        [[1.25, -3], [10.5, 2], [5, 4], [3, 10]],
        {"target": [1.25, 0, 10, 2, 5, 4, 3, 10]},
        "column 'target' holds values; a row for each {@id}__{@target}",
        long="__",
    ),
    "long labels": Case(
        {"root": ["r1", "r2", "r1"], "vowel": [0, 1, 2]},
        {"target": 0},
        {"target": HEADS, "metric": "macro_recall"},
        [[*two, *three] for two, three in zip(TWO, THREE, strict=True)],
        {"target": ["r1", "0", "r2", "1", "r1", "2", "r2", "2"]},
        "column 'target' holds labels; a row for each {@id}_{@target}",
        long="_",
    ),
    "long probabilities": Case(
        {"x_vote": [1, 2, 0], "y_vote": [3, 0, 1], "z_vote": [1, 1, 1]},
        {"p": 0.3},
        {"target": {**SOFT, "columns": ["x_vote", "y_vote", "z_vote"]}, "metric": "kl"},
        THREE,
        {"p": np.exp(THREE).ravel().tolist()},
        "column 'p' holds probabilities; a row for each {@id}-{@target}",
        long="-",
    ),
    "the likeliest": Case(
        ABC,
        {"predictions": "c b"},
        {"metric": {"name": "map_at_k", "k": 2}, "submission": {"unknown": "new"}},
        THREE,
        {"predictions": ["a b", "b new", "c a", "c new"]},
        "column 'predictions' holds the 2 likeliest labels, separated by ' ', 'new' second where none is above .5",
    ),
}


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Competition, Form]:
    one = CASES[request.param]
    data = one.open(tmp_path_factory.mktemp("form"))
    return one, data, form_inference.tried(data).files[0].form


@given(order=st.permutations(range(len(IDS))))
def test_the_file_read_back_gives_the_answers(case: tuple[Case, Competition, Form], order: list[int]) -> None:
    one, data, form = case
    frame = form.fill(np.array(IDS)[order], np.array(one.predicted)[order])
    form.check(frame)
    read = pd.read_csv(io.StringIO(frame.to_csv(index=False)), dtype=str, keep_default_na=False)
    assert list(read.columns) == list(data.sample.columns)
    assert read["id"].tolist() == data.sample["id"].tolist()
    for column, wanted in one.written.items():
        if isinstance(wanted[0], str):
            assert read[column].tolist() == wanted
        else:
            np.testing.assert_allclose(read[column].astype(float), wanted, atol=1e-12)


def test_the_form_is_told_and_checked(case: tuple[Case, Competition, Form]) -> None:
    one, _, form = case
    assert one.said in form.describe()
    good = form.fill(np.array(IDS), np.array(one.predicted))
    column = next(iter(form.columns.values()))
    for bad in ("inf", "strange", "", None):
        if bad == "" and isinstance(form, Lists) and form.gaps:
            continue
        with pytest.raises(FoldcraftError):
            form.check(good.assign(**{column: [bad, *good[column].tolist()[1:]]}))
    with pytest.raises(FoldcraftError, match="ids are not"):
        form.check(good.iloc[::-1])


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("labels", {"train": {**ABC, "age": 7}, "names": {"sample": "test.csv"}}, "columns age: looked for a column"),
        (
            "values",
            {"sample": {"mass": 0.0, "age": 7}},
            "columns mass, age: looked for a column for each of mass, area",
        ),
        (
            "values",
            {"sample": {"area": 0, "mass": 0}, "names": {"submission": {"form": "top_k"}}},
            "top_k cannot stand",
        ),
        (
            "0 and 1",
            {"train": {"label": ["x", "y", "x"]}},
            "probability of 'x' or of 'y'; which is not said; set .*=x, or",
        ),
        ("0 and 1", {"names": {"submission": {"positive": "2"}}}, "'2' is no class"),
        ("labels", {"names": {"submission": {"k": 3}}}, r"submission\.k: does not go with this form"),
        ("the likeliest", {"train": {"label": ["a", "b 2", "c"]}}, "label 'b 2' holds the separator"),
        ("the likeliest", {"names": {"submission": {"unknown": "a"}}}, "'a' is a class"),
        ("0 and 1", {"names": {"metric": "pf1", "submission": {"positive": "0"}}}, "pf1 judges '1'"),
        (
            "labels",
            {"sample": {"label": "a", "a_p": 0, "b_p": 0, "c_p": 0}},
            "column 'label' for a label and columns for",
        ),
        ("long values", {"long": "_", "names": {"submission": {"row": "{@id}-{@target}"}}}, "8 are not in it"),
        ("values", {"names": {"submission": {"form": "long"}}}, "its ids are those of the test rows"),
    ],
)
def test_what_is_not_understood_is_refused(name: str, changes: dict, said: str, tmp_path: Path) -> None:
    names = CASES[name].names | changes.get("names", {})
    one = replace(CASES[name], **(changes | {"names": names}))
    with pytest.raises(FoldcraftError, match=said) as error:
        form_inference.tried(one.open(tmp_path))
    assert len(str(error.value)) < 300


def test_a_sample_that_cannot_be_filled_is_told_before_anything_is_trained(
    shapes: Path, command: Callable[..., Outcome]
) -> None:
    sample = Path("input/shapes/sample_submission.csv")
    table = pd.read_csv(sample)
    assert "submission" not in command("split", "--config", shapes).out, "it goes without saying"
    Path("folds/shapes.csv").unlink()
    table.rename(columns={"label": "bar"}).assign(dot=0.5).to_csv(sample, index=False)
    for name, *words in (("split",), ("train", "--fold", "0")):
        done = command(name, "--config", shapes, *words)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "columns bar, dot" in done.err
    assert not Path("folds/shapes.csv").exists()


REAL = {
    "coffee4": ({"target": {"columns": ["miner", "rust", "phoma", "cercospora"], "kind": "multilabel"}}, "mean_auc"),
    "coffeeheads": ({"target": {"columns": ["stress", "severity"], "kind": "multioutput"}}, "mean_accuracy"),
    "bccdcount": ({"target": {"columns": ["RBC", "WBC", "Platelets"], "kind": "regression"}}, "rmse"),
}


def opened(folder: Path, **names: object) -> Competition:
    about = {"name": "real", "folder": folder, "follow_links": True, "image": "train.csv", "test_image": "train.csv"}
    settings = {"experiment": "x", "competition": about | names, "backbone": {"name": "test_resnet"}}
    return tables.read(Config.model_validate(settings))


@pytest.mark.parametrize("name", list(REAL))
def test_samples_of_real_data_are_understood(name: str) -> None:
    names, metric = REAL[name]
    data = opened(real_data(name), metric=metric, **names)
    form = form_inference.tried(data).files[0].form
    assert list(form.columns) == names["target"]["columns"]
    assert form.left == []


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Competitions in miniature with the files that their hosts hand out."""
    maker = DATA.parent / "formats" / "make.py"
    if not maker.is_file():
        pytest.skip(f"no maker of competitions at {maker}")
    folder = tmp_path_factory.mktemp("formats")
    subprocess.run(
        [sys.executable, maker, folder, *HOSTS, "csiro", "bengali"], check=True, capture_output=True, timeout=200
    )
    return folder


HOSTS = {
    "ranzcr": (
        {"id": "StudyInstanceUID", "target": {"columns": "* - *", "kind": "multilabel"}, "metric": "mean_auc"},
        "hold probabilities",
    ),
    "pp2020": (
        {
            "id": "image_id",
            "target": {"columns": ["healthy", "multiple_diseases", "rust", "scab"], "kind": "multilabel"},
            "metric": "mean_auc",
        },
        "columns healthy, multiple_diseases, rust, scab hold probabilities",
    ),
    "pp2021": (
        {
            "id": "image",
            "target": {"column": "labels", "kind": "multilabel", "separator": " "},
            "metric": "sample_f1",
        },
        "column 'labels' holds lists of labels, separated by ' ', never empty",
    ),
    "happywhale": (
        {"id": "image", "target": "individual_id", "metric": {"name": "map_at_k", "k": 5}},
        "column 'predictions' holds the 5 likeliest labels",
    ),
    "isic2020": (
        {"id": "image_name", "target": "target", "metric": "roc_auc"},
        "column 'target' holds the probability of '1'",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(HOSTS))
def test_samples_of_hosts_are_understood(name: str, formats: Path) -> None:
    names, said = HOSTS[name]
    folder = formats / name
    test = "test.csv" if (folder / "test.csv").is_file() else "sample_submission.csv"
    assert said in form_inference.tried(opened(folder, test=test, **names)).files[0].form.describe()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "target", "metric", "said"),
    [
        ("csiro", {"kind": "regression"}, "r2", "column 'target' holds values; a row for each {@id}__{@target}"),
        (
            "bengali",
            {"kind": "multioutput"},
            "macro_recall",
            "holds labels; a row for each {@id}_{@target}; column 'row_id'",
        ),
    ],
)
def test_long_samples_of_hosts_are_understood(
    name: str, target: dict, metric: str, said: str, formats: Path, tmp_path: Path
) -> None:
    """The sample as the host gives it; the other tables, which are long too, made wide."""
    train, test = (pd.read_csv(formats / name / f"{part}.csv", dtype=str) for part in ("train", "test"))
    if name == "csiro":
        train, test = (part.assign(image_id=part["sample_id"].str.split("__").str[0]) for part in (train, test))
        train = train.pivot(index="image_id", columns="target_name", values="target").reset_index()
        columns = [column for column in train if column != "image_id"]
    else:
        columns = ["grapheme_root", "vowel_diacritic", "consonant_diacritic"]
    train.to_csv(tmp_path / "train.csv", index=False)
    test[["image_id"]].drop_duplicates().to_csv(tmp_path / "test.csv", index=False)
    (tmp_path / "sample_submission.csv").write_bytes((formats / name / "sample_submission.csv").read_bytes())
    data = opened(tmp_path, id="image_id", target={"columns": columns, **target}, metric=metric)
    assert said in form_inference.tried(data).files[0].form.describe()


def test_a_long_submission_comes_out_of_the_commands(shapes: Path, command: Callable[..., Outcome]) -> None:
    folder = Path("input/shapes")
    train = pd.read_csv(folder / "train.csv")
    train.assign(wide=train["label"] != "dot", high=train["label"].map({"bar": 0, "dot": 1, "cross": 2})).to_csv(
        folder / "train.csv", index=False
    )
    ids = pd.read_csv(folder / "test.csv")["id"].tolist()
    rows = [f"{row}_{name}" for name in ("high", "wide") for row in ids]
    pd.DataFrame({"row_id": rows, "target": 0}).to_csv(folder / "sample_submission.csv", index=False)
    target = "competition.target={columns: [wide, high], kind: multioutput}"
    words = ["--config", shapes, target, "competition.metric=macro_recall", "train.epochs=1"]
    said = "column 'target' holds labels; a row for each {@id}_{@target}; column 'row_id' the ids"
    trained = command("train", *words, "--fold", "all")
    assert trained.code == 0, trained.err
    assert f"submission: {said}" in trained.out
    done = command("infer", *words)
    assert done.code == 0, done.err
    assert said in done.out
    written = pd.read_csv("submissions/shapes_tiny.csv", dtype=str)
    assert written["row_id"].tolist() == rows
    assert set(written["target"][: len(ids)]) <= {"0", "1", "2"}
    assert set(written["target"][len(ids) :]) <= {"True", "False"}
