"""How fast a training step is as the pipeline takes it, beside a loop as it is usually written, and a bare loop.

plain            the usual loop: the system's allocator, 32 bits, contiguous, Pillow decodes every image in every epoch
plain, kept      the same with the allocator that the commands set
bare             forward, loss, backward and step on tensors that lie ready in memory, in 32 bits
pipeline         the trainer itself, in 32 bits
bare, auto; pipeline, auto    in the precision that the trial chooses on this machine

All rows have the same net, images, augmentation and batch. Each is a process of its own, since the allocator belongs to
the whole process; they run in turns, round after round. On a CPU without workers counts processor time with one
thread, else time on the clock. Printed are medians, with the range of the ratio to "plain" within a round. Augmentation
takes its time from the net there; an ideal pipeline would have the last line's share of the bare loop.

  python benchmarks/throughput.py                      # mobilenetv2_100, 160 px, images drawn for the occasion
  python benchmarks/throughput.py --config configs/signdigits/vit_tiny.yaml --steps 20 finetune.batchnorm=train
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from foldcraft.common import allocator
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.config_file import load
from foldcraft.data import competition
from foldcraft.data.augment import Augment
from foldcraft.data.images.image_cache import INTERPOLATIONS, ImageSpec, open_stores
from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.single import SingleLabel
from foldcraft.metrics.scores import METRICS
from foldcraft.models import backbones, finetune, hardware
from foldcraft.training.distributed import Processes
from foldcraft.training.trainer import Task, Trainer

DRAWN = """
competition: {name: drawn}
images: {size: 160}
augment: {preset: heavy}
backbone: {name: mobilenetv2_100, weights: none}
train: {batch: 32}
"""
DRAWN_CLASSES = 6
WARM_UP = 2  # steps that do not count
Measured = dict[str, Any]
Epoch = Callable[[], object]  # takes the steps of one epoch


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        loop: "plain", "bare" or "pipeline".
        kept: whether freed memory is kept, as by the commands.
        settings: those that the row adds to the config's.
    """

    loop: str
    kept: bool
    settings: tuple[str, ...] = ()


IN_32_BITS = ("machine.precision=32-true",)
PLAIN = (*IN_32_BITS, "machine.memory_format=contiguous")
ROWS = {
    "plain": Row("plain", False, PLAIN),
    "plain, kept": Row("plain", True, PLAIN),
    "bare": Row("bare", True, IN_32_BITS),
    "pipeline": Row("pipeline", True, IN_32_BITS),
    "bare, auto": Row("bare", True),
    "pipeline, auto": Row("pipeline", True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="an experiment; left out: drawn images")
    parser.add_argument("--steps", type=int, default=10, help="steps that are measured")
    parser.add_argument("--workers", type=int, default=0, help="processes that augment, in all rows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the config's")
    args = parser.parse_intermixed_args()
    if args.child:
        print(json.dumps(measure(args, ROWS[args.child[0]], Path(args.child[1]))))
        return
    found: dict[str, list[Measured]] = {name: [] for name in ROWS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for name in ROWS:
                found[name].append(in_child(name, folder))
                print(name, found[name][-1], file=sys.stderr, flush=True)
    show(found)


def in_child(row: str, folder: str) -> Measured:
    """Measure a row in a process of its own; decoded images and the choice of hardware stay in `folder`."""
    environment = {**os.environ, allocator.SWITCH: "" if ROWS[row].kept else allocator.SYSTEM}
    if not torch.cuda.is_available():
        environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, os.path.abspath(__file__), "--child", row, folder, *sys.argv[1:]]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def show(found: dict[str, list[Measured]]) -> None:
    """The rows, each beside the first; and the pipeline beside the bare loop, with what it could reach there."""
    print("| row | images/s | of plain (range) | peak memory | computed on |\n|---|---|---|---|---|")
    for name, rounds in found.items():
        rate, peak = (median(one[key] for one in rounds) for key in ("rate", "peak"))
        low, ratio, high = ratios_of(rounds, found["plain"])
        print(f"| {name} | {rate:.1f} | {ratio:.2f} ({low:.2f}–{high:.2f}) | {peak:,.0f} MiB | {rounds[0]['about']} |")
    for kind in ("", ", auto"):
        bare, piped = found[f"bare{kind}"], found[f"pipeline{kind}"]
        low, ratio, high = ratios_of(piped, bare)
        bound = median(1 / (1 + own["augmenting"] * other["rate"]) for own, other in zip(piped, bare, strict=True))
        print(
            f"pipeline{kind} has {ratio:.3f} ({low:.3f}–{high:.3f}) of the bare loop's speed, an ideal one {bound:.3f}"
        )


def ratios_of(some: Sequence[Measured], others: Sequence[Measured]) -> tuple[float, float, float]:
    """Least, median and greatest of the ratios of the rates, round by round."""
    ratios = [one["rate"] / other["rate"] for one, other in zip(some, others, strict=True)]
    return min(ratios), median(ratios), max(ratios)


def measure(args: argparse.Namespace, row: Row, folder: Path) -> Measured:
    """Images/s of the row's loop, seconds of augmentation an image, the peak in MiB, and what was computed on."""
    allocator.keep_freed_memory()
    (folder / "drawn.yaml").write_text(DRAWN)
    settings = [*args.overrides, *row.settings, f"machine.workers={args.workers}"]
    config = load(args.config or folder / "drawn.yaml", settings)
    images = config.train.batch * args.steps
    paths, targets = of_competition(config, images) if args.config else drawn(folder, images)
    epoch, about = LOOPS[row.loop](config, paths, targets, folder)
    on_gpu = torch.cuda.is_available() and config.machine.device != "cpu"
    clock = time.perf_counter if on_gpu or args.workers else time.process_time
    start = clock()
    epoch()
    if on_gpu:
        torch.cuda.synchronize()
    rate = images / (clock() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    augmenting = 0.0 if on_gpu else augmentation(config, paths, clock) / max(1, args.workers)
    return {"rate": rate, "augmenting": augmenting, "peak": peak, "about": about}


def of_competition(config: Config, images: int) -> tuple[list[Path], np.ndarray]:
    """Files and classes (N,) of as many training rows; from the front again where there are fewer."""
    data = competition.read(config)
    rows = np.resize(np.random.default_rng(0).permutation(len(data.train_paths)), images)
    return [data.train_paths[row] for row in rows], data.targets[rows]


def drawn(folder: Path, images: int) -> tuple[list[Path], np.ndarray]:
    """As many JPEG files of 200 x 200 pixels, and classes."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{row}.jpg" for row in range(images)]
    for path in paths:
        noise = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        if not path.exists():
            noise.resize((200, 200), Image.Resampling.BICUBIC).save(path)
    return paths, np.arange(images) % DRAWN_CLASSES


@dataclass(frozen=True)
class PlainImages(Dataset[tuple[torch.Tensor, int]]):
    """Images as a usual data set gives them: opened, resized, augmented, normalised, one at a time."""

    paths: Sequence[Path]
    targets: np.ndarray
    augment: Augment
    size: int
    resample: Image.Resampling
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[row]) as image:
            pixels = np.array(image.convert("RGB").resize((self.size, self.size), self.resample))
        tensor = torch.from_numpy(self.augment(pixels, row)).permute(2, 0, 1).float().div(255)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (tensor - mean) / std, int(self.targets[row])


def plain_loop(config: Config, paths: Sequence[Path], targets: np.ndarray, _: Path) -> tuple[Epoch, str]:
    """A loop as it is usually written: nothing of it is the pipeline's but the net and the augmentation."""
    size, device = config.images.size, "cuda" if torch.cuda.is_available() else "cpu"
    model, blueprint = backbones.build(config.backbone, int(targets.max()) + 1, size)
    augment = Augment(config.augment, config.images, size)
    resample = INTERPOLATIONS[blueprint.interpolation]
    images = PlainImages(paths, targets, augment, size, resample, blueprint.mean, blueprint.std)
    batches = DataLoader(images, config.train.batch, shuffle=True, drop_last=True, num_workers=config.machine.workers)
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(images: torch.Tensor, targets: torch.Tensor) -> float:
        loss = F.cross_entropy(model(images.to(device)), targets.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    for _ in range(WARM_UP):
        step(torch.zeros(config.train.batch, 3, size, size), torch.zeros(config.train.batch, dtype=torch.long))
    return lambda: sum(step(*batch) for batch in batches), f"{device} 32-true contiguous"


def bare_loop(config: Config, paths: Sequence[Path], targets: np.ndarray, folder: Path) -> tuple[Epoch, str]:
    """Steps on one batch that is there already, on the pipeline's hardware."""
    trainer = make_trainer(config, paths, targets, folder)
    steps = trainer.plan.steps_per_epoch
    return lambda: bare_steps(trainer, steps), str(trainer.hardware)


def pipeline_loop(config: Config, paths: Sequence[Path], targets: np.ndarray, folder: Path) -> tuple[Epoch, str]:
    """An epoch of the trainer."""
    trainer = make_trainer(config, paths, targets, folder)
    return trainer.train_epoch, str(trainer.hardware)


LOOPS: dict[str, Callable[[Config, Sequence[Path], np.ndarray, Path], tuple[Epoch, str]]] = {
    "plain": plain_loop,
    "bare": bare_loop,
    "pipeline": pipeline_loop,
}


def make_trainer(config: Config, paths: Sequence[Path], targets: np.ndarray, folder: Path) -> Trainer:
    """The pipeline's own trainer, warm; its epoch has all images."""
    classes, size = int(targets.max()) + 1, config.images.size
    model, blueprint = backbones.build(config.backbone, classes, size)
    chosen = hardware.choose(config.machine, model, size, config.train.part, folder / "hardware.json")
    rows = np.arange(len(paths))
    task = Task(
        identity="benchmark",
        config=config,
        store=open_stores(paths, [ImageSpec(size, config.images.resize, blueprint.interpolation)], folder, "train")[0],
        ids=rows.astype(str),
        target=SingleLabel.of("label", Classes(tuple(map(str, range(classes)))), targets),
        train_rows=rows,
        valid_rows=rows[:1],
        metric=METRICS["accuracy"],
        state_file=folder / "last.ckpt",
        history_file=folder / "history.csv",
    )
    trainer = Trainer(task, model, blueprint, chosen, Processes(), Callback())
    bare_steps(trainer, WARM_UP)
    return trainer


def bare_steps(trainer: Trainer, steps: int) -> None:
    """Forward, loss, backward and step, so often, of one batch that lies ready; what is frozen stays so."""
    batch = trainer.plan.batch
    images = trainer.prepare(torch.from_numpy(np.array(trainer.task.store.pixels[:batch])))
    targets = torch.from_numpy(trainer.task.targets[:batch]).to(trainer.hardware.device)
    finetune.train_mode(trainer.bare_model, trainer.config.finetune)
    for _ in range(steps):
        trainer.fabric.backward(F.cross_entropy(trainer.model(images).float(), targets))
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()


def augmentation(config: Config, paths: Sequence[Path], clock: Callable[[], float]) -> float:
    """Seconds of one core that the augmentation of an image takes."""
    size = config.images.size
    augment = Augment(config.augment, config.images, size)
    pixels = [np.asarray(Image.open(path).convert("RGB").resize((size, size))) for path in paths[:100]]
    start = clock()
    for row, image in enumerate(pixels):
        augment(image, row)
    return (clock() - start) / len(pixels)


if __name__ == "__main__":
    main()
