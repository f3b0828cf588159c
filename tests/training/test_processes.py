"""One fold on several processes, and several folds side by side."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from foldcraft.common.files import locked

SOURCE = Path(__file__).parents[2] / "src"
TRAIN = str(SOURCE / "train.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
# No BatchNorm and no dropout, whose results depend on how a batch is shared out.
NET = ["backbone.name=test_vit", "images.size=160", "train.epochs=3", "augment.mixup=0.4", "optim.lr=0.0005"]


def arguments(config: Path, runs: str, *more: str) -> list[str]:
    return [str(SOURCE / "train.py"), "--config", str(config), "--fold", "0", f"runs={runs}", *NET, *more]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment())
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.mark.slow
def test_two_processes_learn_what_one_does_and_resume(shapes: Path, command) -> None:
    command("split", "--config", shapes)
    run([sys.executable, *arguments(shapes, "one")])
    interrupted = subprocess.Popen(
        [*TORCHRUN, "29611", *arguments(shapes, f"{shapes.parent}/two")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    fold = shapes.parent / "two/shapes/tiny/fold0"
    end = time.monotonic() + 120
    while not (fold / "history.csv").exists() and time.monotonic() < end and interrupted.poll() is None:
        time.sleep(0.01)
    subprocess.run(["pkill", "-KILL", "-f", f"runs={shapes.parent}/two"], check=True)  # torchrun and its processes
    interrupted.wait()
    assert (fold / "last.ckpt").exists()
    assert not (fold / "manifest.json").exists()

    again = run([*TORCHRUN, "29612", *arguments(shapes, f"{shapes.parent}/two")])

    assert "goes on after epoch" in again.stdout
    assert again.stdout.count("fold 0: done") == 1, "only the first process speaks"
    folds = (Path("one/shapes/tiny/fold0"), fold)
    one, two = (pd.read_csv(folder / "history.csv") for folder in folds)
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=2e-4)
    np.testing.assert_allclose(two["valid_loss"], one["valid_loss"], rtol=2e-3)
    weights = [load_file(folder / "model.safetensors") for folder in folds]
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, atol=2e-3, err_msg=name)


@pytest.mark.slow
def test_folds_side_by_side_and_one_that_crashes(shapes: Path, command) -> None:
    command("split", "--config", shapes)
    blocked = Path("runs/shapes/tiny/fold1")
    blocked.mkdir(parents=True)
    (blocked / "last.ckpt").write_bytes(b"not a checkpoint")

    done = command("train", "--config", shapes, "--fold", "all", "--jobs", "2")

    assert done.code == 2
    assert "[0] fold 0: done" in done.out
    assert "[2] fold 2: done" in done.out
    assert "damaged checkpoint" in done.out
    assert "folds that failed: 1" in done.out


def test_a_fold_that_is_killed_is_told_and_no_success(shapes: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pid: int, cores: set[int]) -> None:
        os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(os, "sched_setaffinity", kill)  # a child is killed as soon as it is there
    command("split", "--config", shapes)
    done = command("train", "--config", shapes, "--fold", "0,1", "--jobs", "2")
    assert done.code == 128 + signal.SIGKILL
    assert "warning: fold 1 was killed by signal 9; the machine's memory may be full" in done.out
    assert "folds that failed: 0, 1" in done.out


def children_of(process: int) -> list[int]:
    said = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True).stdout
    return [int(line) for line in said.split()]


def is_alive(process: int) -> bool:
    """Whether it runs; one that has ended stays listed until its new parent looks."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(happened: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (done := happened()) and time.monotonic() < end:
        time.sleep(0.05)
    return done


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_folds_side_by_side_end_with_their_parent(shapes: Path, command, how: signal.Signals) -> None:
    """However it ends, its children and their workers end too, and leave no lock behind."""
    command("split", "--config", shapes)
    words = ["--config", str(shapes), "--fold", "0,1", "--jobs", "2", "train.epochs=400", "machine.workers=1"]
    listens = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background commands ignore it
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    parent = subprocess.Popen([sys.executable, TRAIN, *words], **silent, preexec_fn=listens)
    begun = [Path(f"runs/shapes/tiny/fold{fold}/last.ckpt") for fold in (0, 1)]
    assert wait_for(lambda: all(file.is_file() for file in begun), 90)
    family = children_of(parent.pid)
    family += [worker for child in family for worker in children_of(child)]
    assert len(family) >= 4
    parent.send_signal(how)
    parent.wait(10)
    assert wait_for(lambda: not any(map(is_alive, family)), 3)
    for fold in (0, 1):
        with locked(Path(f"runs/shapes/tiny/fold{fold}/.lock"), wait=False):
            pass


@pytest.mark.slow
def test_workers_end_with_a_training_that_is_killed(shapes: Path, command) -> None:
    command("split", "--config", shapes)
    words = ["--config", str(shapes), "--fold", "0", "train.epochs=400", "machine.workers=2"]
    training = subprocess.Popen([sys.executable, TRAIN, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert wait_for(Path("runs/shapes/tiny/fold0/last.ckpt").is_file, 90)
    workers = children_of(training.pid)
    assert len(workers) >= 2
    training.kill()
    training.wait(10)
    assert wait_for(lambda: not any(map(is_alive, workers)), 1)
