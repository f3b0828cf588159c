"""The demo: the whole pipeline on the bundled digits, and that its second run finds everything done."""

import shutil
from pathlib import Path

import pandas as pd
from conftest import ROOT

from foldcraft import competition, config, folds

QUICK = ["folds.count=2", "train.epochs=2", "train.device=cpu", "train.precision=32-true", "tracking.wandb=off"]


def test_demo_from_nothing_and_again(workplace: Path, command) -> None:
    shutil.copytree(ROOT / "configs", "configs")

    first = command("demo", *QUICK)
    second = command("demo", *QUICK)

    assert first.code == second.code == 0, first.err
    assert "$ python src/train.py --config configs/digits/convnet.yaml --fold all" in first.out
    assert first.out.count(": done, accuracy") == 4
    assert second.out.count(": done before") == 4
    assert "the same as submissions/digits_convnet_mobilenet.csv" in second.out
    assert len(pd.read_csv("submissions/ledger.csv")) == 1
    last = first.out.strip().splitlines()[-1]
    assert last == second.out.strip().splitlines()[-1]
    answers = pd.read_csv("input/digits/answers.csv", dtype=str)
    given = pd.read_csv("submissions/digits_convnet_mobilenet.csv", dtype=str)
    accuracy = (answers["label"] == given["label"]).mean()
    assert last.split()[-1] == f"{accuracy:.4f}"
    assert accuracy > 0.5, "chance is 0.1"


def test_commands_work_as_typed_in_a_fresh_clone(workplace: Path, command) -> None:
    for name in ("configs", "folds"):
        shutil.copytree(ROOT / name, name)

    assert command("train", "--fold", "0", *QUICK[1:]).code == 0
    assert command("infer", *QUICK[1:]).code == 0


def test_frozen_folds_in_git_fit_the_bundled_digits(workplace: Path) -> None:
    settings = config.load(ROOT / "configs" / "default.yaml")
    data = competition.read(settings)
    kept = folds.read(ROOT / "folds" / "digits.csv", data)
    assert (len(data.train_ids), len(data.test_ids), kept.count) == (1347, 450, 5)
