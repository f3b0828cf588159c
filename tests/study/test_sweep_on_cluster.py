"""A sweep on a cluster tries what it would try here, however its trials end."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import ray_ground
from conftest import ROOT
from optuna.storages.journal import JournalFileBackend, JournalStorage

from foldcraft.common import config_file
from foldcraft.common.callbacks import Callback
from foldcraft.study import make_folds, search_space
from foldcraft.study.sweep import Sweep

SPACE = """
name: try
method: bayes
metric: {name: oof, goal: maximize}
parameters:
  probe.solver: {values: [ridge, logistic]}
  probe.stages: {values: [all, last, coarse]}
  seed: {min: 0, max: 1000}
"""
WORDS = ["finetune.mode=linear_probe", "folds.count=2"]


def tried(folder: str) -> list[dict[str, Any]]:
    """What each trial was, and what came of it."""
    journal = JournalFileBackend(f"{folder}/shapes/sweeps/tiny-try.journal")
    trials = optuna.load_study(study_name="tiny-try", storage=JournalStorage(journal)).trials
    return [
        {"params": trial.params, "state": trial.state.name, "scores": trial.user_attrs["scores"]} for trial in trials
    ]


@pytest.mark.slow
def test_twelve_trials_on_two_machines_are_those_of_one(shapes: Path) -> None:
    Path("space.yaml").write_text(SPACE)

    def load(more: list[str]) -> Any:
        return config_file.load(shapes, [*WORDS, "runs=alone", *more])

    experiment = make_folds.open_experiment(load([]), print)
    Sweep(load, search_space.read(Path("space.yaml")), experiment, Callback(), jobs=8).run(12)

    with ray_ground.cluster() as ground:
        words = [str(ROOT / "src" / "sweep.py"), "--config", str(shapes), "--space", "space.yaml", *WORDS]
        words += ["--trials", "12", "--on", ground.on, "--cores", "1"]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=900)

    assert done.returncode == 0, done.stderr[-2000:]
    assert len(tried("runs")) == 12
    assert tried("runs") == tried("alone")
