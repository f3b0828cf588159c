"""A mistake is told before the heavy libraries are imported. What is counted is modules, not seconds."""

import json
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from conftest import CONFIG, ROOT, write_competition

from foldcraft.common import config_file

HEAVY = ("torch", "torchvision", "timm", "albumentations", "sklearn", "lightning_fabric", "wandb", "scipy.stats")
TWO = ["--config", "configs/digits/probe.yaml", "configs/digits/finetune.yaml"]  # where src/demo.py looks for them
ONE = TWO[:2]
WORDS = {
    **dict.fromkeys(("audit", "board", "check", "diagnose", "preview", "split", "summary", "train"), ONE),
    **dict.fromkeys(("compare", "infer", "pack", "report", "soup"), TWO),
    "sweep": [*ONE, "--space", "space.yaml"],
    "pretrain": [*ONE, "--name", "net"],
    "compete": ONE,
    "demo": [],
}
WITHOUT_TABLES = ("ledger", "start")
OLD = ("board", "ledger", "preview", "soup", "summary")  # names that commands had
SPACE = "{method: grid, metric: {name: oof, goal: maximize}, parameters: {optim.lr: {values: [0.1, 0.2]}}}"

# By name: the mistake, and what must be said of it.
MISTAKES = {
    "no config": "probe.yaml",
    "unknown key": "train.epoch",
    "no folder": "input/shapes",
    "no train.csv": "train.csv",
    "no target": "no column 'label'",
    "no folds": "run `python src/split.py`",
}
# These make them, or need none.
WITHOUT_FOLDS = ("audit", "compete", "demo", "diagnose", "pretrain", "preview", "split", "summary", "sweep", "train")
CASES = [
    (command, mistake)
    for command, mistake in product(WORDS, MISTAKES)
    if not (mistake == "no folds" and command in WITHOUT_FOLDS)
]
OTHERS = {  # what must be said, by command, of the words
    "ledger": ("no submission yet", []),
    "start": ("no such folder", ["input/nowhere"]),
    "pack": ("'huge' is no size", [*ONE, "--most", "huge"]),
    "check": ("did you mean 'gradients'?", [*ONE, "--only", "gradient"]),
    "infer": ("'best' is not a score", ["--score", "first.csv", "best"]),
}

pytestmark = pytest.mark.xdist_group("startup")  # all cases are run once


def place(folder: Path, mistake: str) -> Path:
    """A competition with two experiments and without folds, and a mistake in it."""
    (folder / "configs" / "digits").mkdir(parents=True)
    (folder / "space.yaml").write_text(SPACE)
    for name in ("probe", "finetune"):
        (folder / "configs" / "digits" / f"{name}.yaml").write_text(CONFIG)
    write_competition(folder / "input" / "shapes", train=12, test=3)
    if mistake == "no config":
        shutil.rmtree(folder / "configs")
    if mistake == "no folder":
        shutil.rmtree(folder / "input")
    if mistake == "no train.csv":
        (folder / "input" / "shapes" / "train.csv").unlink()
    if mistake == "no target":
        table = folder / "input" / "shapes" / "train.csv"
        table.write_text(table.read_text().replace("label", "answer", 1))
    return folder


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """What became of each command with each mistake, and with --help."""
    folders = {name: str(place(tmp_path_factory.mktemp("place"), name)) for name in MISTAKES}
    helps = [(command, "--help") for command in (*WORDS, *WITHOUT_TABLES)]
    early = [*helps, *((command, mistake) for command, mistake in CASES if mistake in ("no config", "unknown key"))]
    late = [case for case in CASES if case not in early] + [(command, "other") for command in OTHERS]

    def asked(command: str, mistake: str) -> tuple[str, str, list[str]]:
        more = {"unknown key": ["train.epoch=3"], "--help": ["--help"]}.get(mistake, [])
        words = OTHERS[command][1] if mistake == "other" else [*WORDS.get(command, []), *more]
        return folders.get(mistake, folders["no folds"]), command, words

    stages = [
        {"start": "foldcraft.views.cli", "cases": [asked(*case) for case in early]},
        {"start": "foldcraft.predictions.experiment", "cases": [asked(*case) for case in late]},
    ]
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("startup_ground.py")],
        input=json.dumps(stages),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip([*early, *late], json.loads(done.stdout), strict=True))


def mistake_of(command: str, outcome: dict[str, Any]) -> str:
    """What was said on stderr, but for the first line of an old name."""
    said = outcome["err"]
    if command in OLD:
        first, _, said = said.partition("\n")
        assert first.startswith(f"note: src/{command}.py is now `python src/"), first
    return said


def imported(outcome: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    return [name for name in names if name in outcome["modules"]]


def test_every_command_is_among_them() -> None:
    assert {*WORDS, *WITHOUT_TABLES} == {file.stem for file in (ROOT / "src").glob("*.py")}


@pytest.mark.parametrize("command", [*WORDS, *WITHOUT_TABLES])
def test_help_needs_neither_torch_nor_pandas(outcomes: dict, command: str) -> None:
    outcome = outcomes[command, "--help"]
    assert (outcome["code"], imported(outcome, (*HEAVY, "pandas", "numpy"))) == (0, []), outcome["err"]


@pytest.mark.parametrize(("command", "mistake"), CASES)
def test_a_mistake_is_told_before_heavy_imports(outcomes: dict, command: str, mistake: str) -> None:
    outcome = outcomes[command, mistake]
    assert outcome["code"] == 2, outcome["err"]
    said = mistake_of(command, outcome)
    assert said.count("\n") == 1
    assert MISTAKES[mistake] in said
    assert imported(outcome, HEAVY) == []


@pytest.mark.parametrize("command", OTHERS)
def test_other_mistakes_are_too(outcomes: dict, command: str) -> None:
    outcome = outcomes[command, "other"]
    assert (outcome["code"], imported(outcome, HEAVY)) == (2, []), outcome["err"]
    assert OTHERS[command][0] in outcome["err"]


def test_a_wrong_view_is_told_when_the_experiment_is_opened(shapes: Path) -> None:
    from foldcraft.common.errors import FoldcraftError
    from foldcraft.predictions.experiment import Experiment

    for words in (["tta.views=[identity,hflop]"], ["probe.views=[scale9]"]):
        with pytest.raises(FoldcraftError, match=words[0].split("=")[0]):
            Experiment.open(config_file.load(shapes, words))
