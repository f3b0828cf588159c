"""Memory of a long training, and of a process that does several things, with the project's allocator and the system's.

`long` trains 200 epochs on few images and tells the memory after some of them. `phases` decodes large images by 16
threads, gathers features, solves a head, trains and predicts three folds in one process, and tells it after each. Every
way is a process of its own: `system`, `kept` as by the commands, `trimmed` the same with malloc_trim before trainings.

  python benchmarks/longrun.py [long] [phases] [--ways system kept trimmed]
"""

import argparse
import contextlib
import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import numpy as np
import pandas as pd
import torch
from PIL import Image

import split
from foldcraft.common import allocator, config_file
from foldcraft.common.callbacks import Callback
from foldcraft.predictions.experiment import Experiment
from foldcraft.training.distributed import Processes
from foldcraft.training.fold import train_fold

LOOKS = (1, 10, 50, 100, 200)
THREADS = 16  # that decode, as on a machine of so many cores
WAYS = ("system", "kept", "trimmed")
SETTINGS = {
    "long": """
competition: {name: long}
folds: {count: 3}
images: {size: 64}
backbone: {name: mobilenetv2_035, weights: none}
train: {epochs: 200, batch: 32}
optim: {lr: 0.0001}
machine: {workers: 0, precision: 32-true, memory_format: channels_last}
""",
    "phases": """
competition: {name: phases}
folds: {count: 3}
images: {size: 160}
backbone: {name: mobilenetv2_100, weights: none}
finetune: {head_init: probe}
train: {epochs: 2, batch: 32}
machine: {workers: 1, precision: 32-true, memory_format: channels_last}
""",
}
IMAGES = {"long": (96, (80, 80)), "phases": (120, (3000, 2000))}  # how many, and (width, height) in pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="long, phases; left out: both")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["system", "kept"])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(*args.child)))
        return
    for what in args.what or list(SETTINGS):
        show(what, {way: in_child(what, way) for way in args.ways})


def in_child(what: str, way: str) -> list[tuple[str, int]]:
    """Resident bytes after each step, in a process of its own."""
    environment = {**os.environ, allocator.SWITCH: allocator.SYSTEM if way == "system" else "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, os.path.abspath(__file__), "--child", what, way]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_competition(what)
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def show(what: str, found: dict[str, list[tuple[str, int]]]) -> None:
    """A line a step, a column a way."""
    print(f"\n| {what} | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for row in zip(*found.values(), strict=True):
        print(f"| {row[0][0]} | {' | '.join(f'{size / 2**20:,.0f} MiB' for _, size in row)} |", flush=True)


class Watch(Callback):
    """Writes the memory down when something is done.

    Args:
        detailed: after every stretch of work, not the epochs alone.
        trim: give back what is free before a training begins.
    """

    def __init__(self, detailed: bool, trim: bool) -> None:
        self.detailed, self.trim = detailed, trim
        self.seen: list[tuple[str, int]] = []

    def look(self, when: str) -> None:
        self.seen.append((when, resident("RssAnon")))

    def started(self, epochs: int, images: int, epochs_done: int) -> None:
        if self.trim:
            ctypes.CDLL(None).malloc_trim(0)

    @contextlib.contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[int], object]]:
        yield lambda done: None
        if self.detailed:
            self.look(f"{title}: {total}")

    def epoch_ended(self, row: dict[str, Any]) -> None:
        if row["epoch"] in LOOKS:
            self.look(f"epoch {row['epoch']}")


def measure(what: str, way: str) -> list[tuple[str, int]]:
    """Do it here, in the current folder; resident bytes after each step."""
    allocator.keep_freed_memory()
    torch.set_num_threads(1)
    os.cpu_count = lambda: THREADS
    watch = Watch(what == "phases", way == "trimmed")
    watch.look("libraries")
    experiment = Experiment.open(config_file.load(Path(f"{what}.yaml")))
    for fold in range(experiment.folds.count) if what == "phases" else [0]:
        train_fold(experiment, fold, Processes(), watch)
        watch.look(f"end of fold {fold}")
    return [*watch.seen, ("peak, with mapped files", resident("VmHWM"))]


def resident(key: str) -> int:
    """Bytes of this process in memory: its own now ("RssAnon"), or at most, mapped files included ("VmHWM")."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def write_competition(what: str) -> None:
    """Images drawn for the occasion, with their folds, in the current folder."""
    count, size = IMAGES[what]
    tests = count // 4
    rng = np.random.default_rng(0)
    home = Path("input") / what
    for part in ("train", "test"):
        (home / part).mkdir(parents=True)
    frame = pd.DataFrame({"id": [f"{row:04d}.jpg" for row in range(count)], "label": np.arange(count) % 4})
    for row, name in enumerate(frame["id"]):
        noise = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        noise.resize(size, Image.Resampling.BICUBIC).save(home / ("test" if row < tests else "train") / name)
    frame[tests:].to_csv(home / "train.csv", index=False)
    frame[:tests][["id"]].to_csv(home / "test.csv", index=False)
    frame[:tests].to_csv(home / "sample_submission.csv", index=False)
    Path(f"{what}.yaml").write_text(SETTINGS[what] + 'tracking: {wandb: "off"}\n')
    split.main(["--quiet", "--config", f"{what}.yaml"])


if __name__ == "__main__":
    main()
