"""A host's own metric, run in a process of its own: its values, its mistakes in a line, and who may run it."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Outcome

from foldcraft.common import allowed_code, config_file
from foldcraft.common.config import CompetitionConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data.host_files import host_answers
from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.several import MultiLabel, MultiOutput, Regression
from foldcraft.data.targets.single import SingleLabel
from foldcraft.data.targets.target import Target
from foldcraft.metrics.bootstrap import bootstrap_scores
from foldcraft.metrics.metric import Metric
from foldcraft.metrics.scores import get

pytestmark = pytest.mark.integration

ACCURACY = """
import os

def score(solution, submission, row_id_column_name):
    print("looking")
    assert not [name for name in os.environ if name.startswith(("WANDB_", "KAGGLE_"))]
    del solution[row_id_column_name]
    del submission[row_id_column_name]
    return float((solution.label == submission.label).mean())
"""


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(allowed_code.MARK, "1")
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    monkeypatch.setenv("WANDB_MODE", "offline")


def host(folder: Path, target: Target, columns: list[str], text: str = ACCURACY, cell: object = "a", **more) -> Metric:
    (folder / "metric.py").write_text(text)
    spec = {"code": "metric.py:score", "greater_is_better": True, **more}
    sample = pd.DataFrame({"id": ["x"], **{column: [cell] for column in columns}})
    return host_answers.metric_of(CompetitionConfig(name="little", metric=spec), target, folder, sample)


def labels(rows: int = 40) -> tuple[SingleLabel, np.ndarray]:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(3), rows)
    return SingleLabel.of("label", Classes(("a", "b", "c")), rng.integers(0, 3, rows)), shares


def test_the_hosts_accuracy_and_its_draws_are_those_of_the_projects_own(allowed: None, tmp_path: Path) -> None:
    target, shares = labels()
    metric, own = host(tmp_path, target, ["label"]), get("accuracy")
    assert metric(target.truth, shares) == pytest.approx(own(target.truth, shares))
    groups = np.arange(40) // 2
    drawn = bootstrap_scores(metric, target.truth, [shares], groups)
    # the same units by the same seed, which is drawn in one piece here and there
    assert drawn == pytest.approx(bootstrap_scores(own, target.truth, [shares], groups, repeats=50))


TABLES = """
import json

def of(table):
    return table.astype(object).where(table.notna(), None).to_dict("list")

def score(solution, submission):
    with open("{file}", "w") as out:
        out.write("|".join(json.dumps(of(table)) for table in (solution, submission)))
    return 1.5
"""


def seen(tmp_path: Path, target: Target, columns: list[str], given: np.ndarray, **more) -> tuple[dict, dict]:
    """The tables that a metric is given."""
    file = tmp_path / "seen.json"
    metric = host(tmp_path, target, columns, TABLES.replace("{file}", str(file)), **more)
    assert metric(target.truth, given) == 1.5
    solution, submission = (json.loads(text) for text in file.read_text().split("|"))
    assert solution.pop("id") == submission.pop("id") == [str(k) for k in range(len(given))]
    return solution, submission


def test_tables_are_in_the_form_of_the_sample(allowed: None, tmp_path: Path) -> None:
    two = SingleLabel.of("label", Classes(("no", "yes")), np.array([1, 0]))
    shares = np.array([[0.25, 0.75], [0.5, 0.5]])
    assert seen(tmp_path, two, ["label"], shares, cell="0.5") == ({"label": [1, 0]}, {"label": [0.75, 0.5]})
    assert seen(tmp_path, two, ["yes", "no"], shares)[1] == {"yes": [0.75, 0.5], "no": [0.25, 0.5]}
    grades = SingleLabel.of("label", Classes(("3", "10")), np.array([1, 0]))
    assert seen(tmp_path, grades, ["label"], shares, cell="10") == ({"label": [10, 3]}, {"label": [10, 3]})
    many = MultiLabel.of(("tags",), ("cat", "dog"), np.array([[1.0, 1.0], [0.0, 1.0]]), "|")
    said = np.array([[0.2, 0.9], [0.6, 0.7]])
    lists = seen(tmp_path, replace(many, separator=" "), ["tags"], said)
    assert lists == ({"tags": ["cat dog", "dog"]}, {"tags": ["dog", "cat dog"]})
    values = Regression.of(("dry", "wet"), np.array([[1.0, np.nan], [3.0, 4.0], [5.0, 6.0]]))
    said = np.array([[1.5, 2.0], [3.5, 4.0], [5.0, 6.25]])
    solution, submission = seen(tmp_path, values, ["wet", "dry"], said)
    assert solution == {"wet": [None, 4, 6], "dry": [1, 3, 5]}
    assert submission == {"wet": [2, 4, 6.25], "dry": [1.5, 3.5, 5]}
    pair = (Classes(("a", "b")), Classes(("0", "1", "2")))
    heads = MultiOutput.of(("x", "y"), pair, np.array([[0, 2], [1, -1]]))
    shares = np.array([[0.4, 0.6, 0.1, 0.2, 0.7], [0.9, 0.1, 0.5, 0.3, 0.2]])
    solution, submission = seen(tmp_path, heads, ["x", "y"], shares)
    assert solution == {"x": ["a", "b"], "y": [2, None]}
    assert submission == {"x": ["b", "a"], "y": [2, 0]}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise ValueError('odd\\nrows')", "ValueError: odd rows"),
        ("return float('nan')", "returns nan"),
        ("return 'good'", "a str is returned"),
        ("return None", "TypeError"),
        ("import os; os._exit(3)", "process has ended"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import time; time.sleep(60)", "is not done after 1 seconds"),
    ],
)
def test_a_metric_that_gives_no_score_is_told_in_a_line(allowed: None, tmp_path: Path, body: str, says: str) -> None:
    target, shares = labels(6)
    metric = host(tmp_path, target, ["label"], f"def score(solution, submission):\n    {body}\n", seconds=1)
    with pytest.raises(FoldcraftError) as error:
        metric(target.truth, shares)
    assert says in str(error.value)
    assert "metric.py:score" in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"code": "metric.py:other"}, "has no function 'other'"),
        ({"code": "there.py:score"}, "no file 'there.py'"),
        ({"code": "../metric.py:score"}, "leaves the folder"),
        ({"code": "/tmp/metric.py:score"}, "leaves the folder"),
        ({"code": "link.py:score"}, "behind a link"),
        ({"code": "metric.py"}, "is not FILE.py:FUNCTION"),
        ({"greater_is_better": "yes"}, "true or false"),
        ({"seconds": 0}, "seconds"),
        ({"second": 3}, "did you mean 'seconds'?"),
    ],
)
def test_a_setting_that_names_no_metric_is_told_in_a_line(allowed: None, tmp_path: Path, spec: dict, says: str) -> None:
    target, shares = labels(6)
    folder = tmp_path / "input"
    folder.mkdir()
    (tmp_path / "elsewhere.py").write_text(ACCURACY)
    os.symlink(tmp_path / "elsewhere.py", folder / "link.py")
    with pytest.raises(FoldcraftError) as error:
        host(folder, target, ["label"], **spec)(target.truth, shares)
    assert says in str(error.value)
    assert len(str(error.value)) < 300


def test_code_runs_only_where_the_command_line_says_so(
    shapes: Path, command: Callable[..., Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    (shapes.parent / "metric.py").write_text(ACCURACY)  # beside the config
    plain = config_file.load(shapes).training_fingerprint()
    setting = "{code: 'metric.py:score', greater_is_better: true}"
    shapes.write_text(shapes.read_text().replace("metric: accuracy", f"metric: {setting}"))
    refused = command("train", "--config", shapes, "--fold", "0")
    assert refused.code == 2
    assert "--allow-code" in refused.err
    assert len(refused.err.splitlines()) == 1
    done = command("train", "--config", shapes, "--fold", "0", "--allow-code", "train.epochs=1")
    assert done.code == 0, done.err
    assert "intervals are of 50 draws" in done.out
    assert "prints, which is not shown: looking" in caplog.text
    manifest = json.loads(next(Path("runs/shapes/tiny/fold0").glob("manifest.json")).read_text())
    manifest = manifest.get("content", manifest)
    assert manifest["metric"] == "metric.py:score"
    assert len(manifest["metric_code"]) > 8
    config = config_file.load(shapes)
    assert config.training_fingerprint() == plain
    asked = command("infer", "--config", shapes, "--allow-code", "train.epochs=1")
    assert asked.code == 0, asked.err
    assert "metric.py:score" in asked.out
    assert "intervals are of 50 draws" in asked.out + done.out
