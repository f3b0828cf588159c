"""Experiments on a cluster whose machines come and go: the same bits as without one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray_ground
from conftest import CONFIG, ROOT

from foldcraft.common import shared_folder

TRAIN = str(ROOT / "src" / "train.py")
FILES = ("model.safetensors", "oof.parquet", "test.parquet")
LONG = CONFIG.replace("epochs: 2", "epochs: 40").replace("count: 3", "count: 2")  # time enough to be killed in


@pytest.fixture
def two_experiments(shapes: Path, command, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Words for two experiments of two folds; what they come to without a cluster lies in `alone`."""
    names = ["a.yaml", "b.yaml"]
    for seed, name in enumerate(names):
        Path(name).write_text(f"{LONG}\nseed: {seed}\n")
    assert command("train", "--config", *names, "runs=alone").code == 0
    monkeypatch.setenv("RAY_worker_niceness", "0")
    return ["--config", *names, "--cores", "1"]


def wait_for(happened: Callable[[], bool], driver: "subprocess.Popen[str]", seconds: float = 600.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        assert driver.poll() is None, Path("said").read_text()
        time.sleep(0.02)


def begun(experiment: str) -> list[Path]:
    return list(Path(f"runs/shapes/{experiment}").glob("fold*/last.ckpt"))


def assert_same_as_alone(experiment: str) -> None:
    for fold in range(2):
        for name in FILES:
            here, alone = (Path(f"{runs}/shapes/{experiment}/fold{fold}/{name}") for runs in ("runs", "alone"))
            assert here.read_bytes() == alone.read_bytes(), f"{experiment}, fold {fold}: {name}"


@pytest.mark.slow
def test_a_machine_and_then_the_driver_are_killed_and_all_bits_are_the_same(two_experiments: list[str]) -> None:
    with ray_ground.cluster() as ground:
        words = [sys.executable, TRAIN, *two_experiments, "--on", ground.on]
        with open("said", "w") as said:
            driver = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT)
            wait_for(lambda: len(begun("a")) == 2, driver)
            ground.kill(ground.machines[0])
            ground.add()
            wait_for(lambda: len(begun("b")) > 0, driver)
            driver.kill()
            driver.wait()
        first = Path("said").read_text()
        again = subprocess.run(words, capture_output=True, text=True, timeout=400)
    assert "its machine was lost" in first
    assert "goes on after epoch" in first, "in its last epoch, on the other machine"
    assert again.returncode == 0, again.stderr[-2000:]
    assert "fold 0: done before" in again.stdout
    assert "goes on after epoch" in again.stdout
    assert_same_as_alone("a")
    assert_same_as_alone("b")


@pytest.mark.slow
def test_a_machine_with_a_full_disk_reads_what_is_shared(shapes: Path, command) -> None:
    words = ["--config", str(shapes), "finetune.mode=linear_probe", "folds.count=2"]
    assert command("train", *words, "runs=alone", "experiment=a").code == 0
    homes = {name: Path(name).absolute() for name in ("empty", "full")}
    for home in homes.values():
        (home / "disk").mkdir(parents=True)
    full = homes["full"] / "disk"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", full], capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        (full / "filling").write_bytes(b"x" * 4096)
        with ray_ground.cluster(machines=0) as ground:
            for home in homes.values():
                ground.add(env_vars={"HOME": str(home)})
            more = ["machine.cache=~/disk", "experiment=a", "--cores", "1", "--on", ground.on]
            done = subprocess.run([sys.executable, TRAIN, *words, *more], capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "the shared file is read" in done.stdout
        assert [path.name for path in full.iterdir() if path.suffix == ".npy"] == []
        assert len(list((homes["empty"] / "disk").glob("*.npy"))) > 0
        assert_same_as_alone("a")
    finally:
        subprocess.run(["umount", full], check=True)


@pytest.mark.slow
def test_a_torchrun_agent_is_killed_and_joins_again(shapes: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two agents, as on two machines: the fold begins again from its last epoch when the second is back."""
    monkeypatch.setenv(shared_folder.VARIABLE, str(Path.cwd()))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")  # see docs/cluster.md
    command("split", "--config", shapes)
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    agent += ["--max-restarts", "3", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:29617", "--rdzv-id", "f"]
    agent += ["--local-addr", "127.0.0.1", TRAIN, "--config", str(shapes), "--fold", "0", "train.epochs=20"]
    folder = Path("runs/shapes/tiny/fold0")

    def start(name: str, is_host: bool) -> "subprocess.Popen[str]":
        words = [*agent[:3], "--rdzv-conf", f"is_host={is_host}".lower(), *agent[3:]]  # on one machine both could be it
        return subprocess.Popen(words, stdout=open(name, "w"), stderr=subprocess.STDOUT, start_new_session=True)

    first, second = start("first", True), start("second", False)
    try:
        wait_for(lambda: (folder / "last.ckpt").exists(), first)
        workers = subprocess.run(["pgrep", "-P", str(second.pid)], capture_output=True, text=True).stdout.split()
        assert workers
        for process in (second.pid, *map(int, workers)):  # as all are gone when a machine is
            os.kill(process, signal.SIGKILL)
        second.wait()
        assert not (folder / "manifest.json").exists()
        second = start("second-again", False)
        assert first.wait(300) == 0, Path("first").read_text()[-3000:]
        assert second.wait(60) == 0, Path("second-again").read_text()[-3000:]
    finally:
        for process in (first, second):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    said = "".join(Path(name).read_text() for name in ("first", "second-again"))
    assert "goes on after epoch" in said
    assert (folder / "manifest.json").exists()
