"""A host's own metric in every form of a submission: what it says is what the project's own metric says."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foldcraft.common import allowed_code
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.data import competition as tables
from foldcraft.data.competition import Competition
from foldcraft.metrics import scores
from foldcraft.metrics.bootstrap import bootstrap_scores

pytestmark = pytest.mark.integration

ROWS = 24
RNG = np.random.default_rng(5)
POOLED_R2 = """
import numpy as np

def score(solution, submission):
    assert list(solution.columns) == ["sample_id", "target"] == list(submission.columns)
    names = solution["sample_id"].str.split("__").str[1]
    assert (solution["sample_id"] == submission["sample_id"]).all()
    assert solution["sample_id"].iloc[1] == "0__" + names.iloc[1]
    weights, y, p = names.map({"dry": 0.5, "wet": 0.2}).to_numpy(), solution["target"], submission["target"]
    mean = (weights * y).sum() / weights.sum()
    return 1 - (weights * (y - p) ** 2).sum() / (weights * (y - mean) ** 2).sum()
"""
MAP5 = """
def score(solution, submission):
    total = 0.0
    for true, said in zip(solution["predictions"], submission["predictions"]):
        words = said.split(" ")
        assert len(words) == 5
        total += 1 / (1 + words.index(str(true))) if str(true) in words else 0
    return total / len(solution)
"""
SAMPLE_F1 = """
def score(solution, submission, row_id_column_name):
    assert row_id_column_name == "image"
    pairs = [(set(a.split()), set(b.split())) for a, b in zip(solution["tags"], submission["tags"])]
    return sum(2 * len(a & b) / (len(a) + len(b)) for a, b in pairs) / len(pairs)
"""
AUC = """
def score(solution, submission):
    true, said = solution["target"].to_numpy() == 1, submission["target"].to_numpy()
    wins = [(a > b) + 0.5 * (a == b) for a in said[true] for b in said[~true]]
    return sum(wins) / len(wins)
"""
KL = """
import numpy as np

def score(solution, submission):
    names = ["b_vote", "a_vote", "c_vote"]
    assert list(solution.columns) == ["id", *names] == list(submission.columns)
    p, q = solution[names].to_numpy(), submission[names].to_numpy()
    return float(np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / q), 0).sum(1).mean())
"""
LONG_RECALL = """
def score(solution, submission):
    solution["of"] = solution["row_id"].str.rpartition("_")[2]
    means = {}
    for name, true in solution.groupby("of")["target"]:
        said = submission.loc[true.index, "target"]
        met = sorted(set(true) | set(said))
        means[name] = sum((said[true == k] == k).mean() if (true == k).any() else 0 for k in met) / len(met)
    return (2 * means["root"] + means["vowel"]) / 3
"""
LONG_LOG_LOSS = """
import numpy as np

def score(solution, submission):
    y, p = solution["p"].to_numpy(), submission["p"].to_numpy()
    return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())
"""
ACCURACY = """
def score(solution, submission):
    return float((solution["label"] == submission["label"]).mean())
"""


@dataclass(frozen=True)
class Case:
    """Training columns, the sample, the host's code, and the project's metric that says the same."""

    train: dict[str, list[object]]
    sample: dict[str, object]
    code: str
    own: object
    names: dict[str, object]
    wants: str
    long: str = ""
    upward: bool = True
    key: str = "id"
    host: dict[str, object] = field(default_factory=dict)

    def open(self, folder: Path) -> Competition:
        rows = len(next(iter(self.train.values())))
        pd.DataFrame({"id": [f"a{k}" for k in range(rows)], **self.train}).to_csv(folder / "train.csv", index=False)
        test = [f"t{k}" for k in range(5)]
        pd.DataFrame({"id": test}).to_csv(folder / "test.csv", index=False)
        parts = self.names["target"]["columns"] if self.long else [""]  # type: ignore[index]
        ids = [f"{row}{self.long}{part}" for row in test for part in parts]
        pd.DataFrame({self.key: ids, **self.sample}).to_csv(folder / "sample_submission.csv", index=False)
        for name in ("train", "test"):
            (folder / f"{name}.png").touch()
        (folder / "metric.py").write_text(self.code)
        metric = {"code": "metric.py:score", "greater_is_better": self.upward, **self.host}
        about = {"name": "drawn", "folder": folder, "image": "train.png", "test_image": "test.png", "metric": metric}
        whole = {"experiment": "x", "competition": about | self.names, "backbone": {"name": "test_resnet"}}
        return tables.read(Config.model_validate(whole))


def drawn(*words: object) -> list[object]:
    """Each of some words, and rows of any of them."""
    return [*words, *RNG.choice(np.array(words, dtype=object), ROWS - len(words)).tolist()]


VALUES = {"target": {"columns": ["dry", "wet"], "kind": "regression"}}
HEADS = {"target": {"columns": ["root", "vowel"], "kind": "multioutput"}}
LABELS = {"columns": ["scab", "rust"], "kind": "multilabel"}
CASES = {
    "long values": Case(
        {"dry": RNG.normal(10, 3, ROWS).tolist(), "wet": RNG.normal(2, 1, ROWS).tolist()},
        {"target": 0.0},
        POOLED_R2,
        {"name": "r2", "pooled": True, "weights": {"dry": 0.5, "wet": 0.2}},
        VALUES,
        "values",
        long="__",
        key="sample_id",
    ),
    "long labels": Case(
        {"root": drawn("r1", "r2", "r3"), "vowel": drawn(0, 1)},
        {"target": 0},
        LONG_RECALL,
        {"name": "macro_recall", "weights": {"root": 2}},
        HEADS,
        "labels",
        long="_",
        key="row_id",
    ),
    "long probabilities": Case(
        {"scab": drawn(0, 1), "rust": drawn(1, 0)},
        {"p": 0.5},
        LONG_LOG_LOSS,
        "log_loss",
        {"target": LABELS},
        "probabilities",
        long="__",
        upward=False,
    ),
    "the likeliest": Case(
        {"label": drawn(*range(7))},
        {"predictions": "6 1 2 3 4"},
        MAP5,
        {"name": "map_at_k", "k": 5},
        {"submission": {"form": "top_k", "k": 5}},
        "ranks",
    ),
    "the likeliest, as the sample shows": Case(
        {"label": drawn(*"abcdefg")},
        {"predictions": "g b c d e"},
        MAP5,
        {"name": "map_at_k", "k": 5},
        {},
        "ranks",
    ),
    "lists": Case(
        {"labels": drawn("scab rust", "rust", "scab", "rot")},
        {"tags": "rust"},
        SAMPLE_F1,
        "sample_f1",
        {"target": {"column": "labels", "kind": "multilabel", "separator": " "}},
        "labels",
        key="image",
    ),
    "positive": Case(
        {"label": drawn("FAKE", "REAL")},
        {"target": 0.5},
        AUC,
        "roc_auc",
        {"submission": {"positive": "FAKE"}},
        "probabilities",
    ),
    "votes": Case(
        {"a": drawn(3, 1, 0), "b": drawn(1, 2, 0), "c": drawn(1, 0, 2)},
        {"b_vote": 0.3, "a_vote": 0.3, "c_vote": 0.4},
        KL,
        "kl",
        {"target": {"columns": ["a", "b", "c"], "kind": "soft"}},
        "probabilities",
        upward=False,
    ),
    "auxiliary columns beside several labels": Case(
        {"root": drawn("r1", "r2", "r3"), "vowel": drawn(0, 1), "beside": drawn("x", "y")},
        {"target": 0},
        LONG_RECALL,
        {"name": "macro_recall", "weights": {"root": 2}},
        {"target": {**HEADS["target"], "auxiliary": ["beside"]}},
        "labels",
        long="_",
        key="row_id",
    ),
    "heads that fix the label": Case(
        {"label": [0, 1, 2, 3] * 6, "wide": [0, 0, 1, 1] * 6, "high": [0, 1, 0, 1] * 6},
        {"label": 3},
        ACCURACY,
        "accuracy",
        {"target": {"column": "label", "heads": ["wide", "high"]}},
        "labels",
    ),
    "ids of another name, a column that is no answer": Case(
        {"label": drawn(1, 2, 10)},
        {"Usage": "Public", "label": 2},
        ACCURACY,
        "accuracy",
        {},
        "labels",
        key="ImageId",
    ),
}


@pytest.mark.parametrize("name", list(CASES))
def test_it_is_given_what_a_submission_holds(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(allowed_code.MARK, "1")
    one = CASES[name]
    data = one.open(tmp_path)
    assert data.metric.wants == one.wants
    rng = np.random.default_rng(0)
    space = data.space
    odds = rng.normal(size=(ROWS, space.width)) * 2
    scored = space.scored(space.normalised(odds))
    own = scores.get(one.own, data.target.kind, data.target.heads, getattr(space, "widths", ()))  # type: ignore[arg-type]
    assert data.metric(data.targets, scored) == pytest.approx(own(data.targets, scored), abs=1e-9)
    units = np.arange(ROWS) // 2
    drawn = bootstrap_scores(data.metric, data.targets, [scored], units)
    assert drawn == pytest.approx(bootstrap_scores(own, data.targets, [scored], units, repeats=50), abs=1e-9)


def test_what_the_code_takes_and_the_sample_does_not_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(allowed_code.MARK, "1")
    one = CASES["votes"]
    with pytest.raises(FoldcraftError, match="wants is labels, and columns a_vote, b_vote, c_vote hold prob") as error:
        Case(**{**vars(one), "host": {"wants": "labels"}}).open(tmp_path)
    assert len(str(error.value)) < 300
