"""How fast an epoch of the pipeline is beside a bare loop on tensors that lie ready in memory.

Both sides run in this process, in turn, on the same net, precision, memory format and batch. Printed are the images/s
of both and their ratio, the share of time spent waiting for data, and the bound: on a CPU augmentation takes cores from
the net, so an ideal pipeline reaches compute time / (compute time + augmentation time).

  python benchmarks/throughput.py                      # mobilenetv2_100, 160 px, heavy augmentation
  python benchmarks/throughput.py --weights pretrained # with real weights from weights/ or FOLDCRAFT_WEIGHTS
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import numpy as np
import torch
from PIL import Image

from foldcraft import backbones, hardware
from foldcraft.audience import Audience
from foldcraft.augment import Augment
from foldcraft.config import Config
from foldcraft.fit import Task, Trainer
from foldcraft.hardware import cores
from foldcraft.images import ImageSpec, open_stores
from foldcraft.loader import Batch
from foldcraft.metrics import METRICS
from foldcraft.processes import Processes

CLASSES = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--weights", default="none", choices=["none", "pretrained"])
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--preset", default="heavy")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20, help="steps an epoch")
    parser.add_argument("--workers", type=int, help="processes that augment; left out: as the pipeline chooses")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(args, Path(folder))


def measure(args: argparse.Namespace, folder: Path) -> None:
    """Bare epoch, pipeline epoch, bare epoch, ..."""
    trainer = make_trainer(args, folder)
    print(f"{trainer.hardware} ({trainer.hardware.why()}), {cores()} cores, {trainer.loader.num_workers} workers")
    ready = first_batch(trainer)
    bare_epoch(trainer, ready, args.steps)
    pipeline_epoch(trainer)
    bare, piped, waited = [], [], []
    for _ in range(args.repeats):
        bare.append(bare_epoch(trainer, ready, args.steps))
        seconds, waiting = pipeline_epoch(trainer)
        piped.append(seconds)
        waited.append(waiting / seconds)
    augmenting = augmentation_seconds(trainer, args.batch * args.steps)
    report(args, bare, piped, waited, augmenting)


def make_trainer(args: argparse.Namespace, folder: Path) -> Trainer:
    """The pipeline's own trainer on images drawn for the occasion."""
    config = Config.model_validate(
        {
            "experiment": "benchmark",
            "competition": {"name": "benchmark"},
            "backbone": {"name": args.backbone, "weights": args.weights},
            "images": {"size": args.size},
            "augment": {"preset": args.preset},
            "train": {"batch": args.batch, "workers": args.workers},
        }
    )
    rng = np.random.default_rng(0)
    paths = [folder / f"{row}.jpg" for row in range(args.batch * args.steps)]
    for path in paths:
        noise = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        noise.resize((200, 200), Image.Resampling.BICUBIC).save(path)
    store = open_stores(paths, [ImageSpec(args.size)], folder, "train")[0]
    model, blueprint = backbones.build(config.backbone, CLASSES, args.size)
    chosen = hardware.choose(config.train, model, args.size, folder / "hardware.json")
    rows = np.arange(len(paths))
    task = Task(
        identity="benchmark",
        config=config,
        store=store,
        ids=rows.astype(str),
        targets=rows % CLASSES,
        train_rows=rows,
        valid_rows=rows[: args.batch],
        classes=CLASSES,
        metric=METRICS["accuracy"],
        state_file=folder / "last.ckpt",
        history_file=folder / "history.csv",
    )
    return Trainer(task, model, blueprint, chosen, Processes(), Audience())


def first_batch(trainer: Trainer) -> Batch:
    """A batch as the loader gives it."""
    return next(iter(trainer.loader))


def bare_epoch(trainer: Trainer, ready: Batch, steps: int) -> float:
    """Seconds of `steps` steps on tensors that are there already: forward, loss, backward, step, nothing else."""
    images = trainer.prepare(ready.images)
    targets = ready.targets.to(trainer.hardware.device)
    trainer.bare_model.train()
    synchronise(trainer)
    start = time.perf_counter()
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(trainer.model(images).float(), targets)
        trainer.fabric.backward(loss)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
    synchronise(trainer)
    return time.perf_counter() - start


def pipeline_epoch(trainer: Trainer) -> tuple[float, float]:
    """Seconds of one training epoch as the pipeline runs it, and the seconds in it spent waiting for data."""
    loader, timed = trainer.loader, WaitTimer(trainer.loader)
    trainer.loader = timed  # the trainer's own loop, with a clock around the loader
    synchronise(trainer)
    start = time.perf_counter()
    trainer.train_epoch()
    synchronise(trainer)
    seconds = time.perf_counter() - start
    trainer.loader = loader
    trainer.epoch += 1
    return seconds, timed.seconds


class WaitTimer:
    """Adds up the time that the loop waits for the next batch."""

    def __init__(self, loader: torch.utils.data.DataLoader) -> None:
        self.loader, self.seconds = loader, 0.0

    def __iter__(self):  # noqa: ANN204
        start = time.perf_counter()
        for batch in self.loader:
            self.seconds += time.perf_counter() - start
            yield batch
            start = time.perf_counter()


def augmentation_seconds(trainer: Trainer, images: int) -> float:
    """Seconds that the augmentation of an epoch takes one core."""
    config, pixels = trainer.config, trainer.task.store.pixels
    augment = Augment(config.augment, config.images, config.images.size)
    start = time.perf_counter()
    for row in range(images):
        augment(pixels[row], row)
    return time.perf_counter() - start


def synchronise(trainer: Trainer) -> None:
    if trainer.hardware.device == "cuda":
        torch.cuda.synchronize()


def report(
    args: argparse.Namespace, bare: list[float], piped: list[float], waited: list[float], augmenting: float
) -> None:
    images = args.batch * args.steps
    ratios = [b / p for b, p in zip(bare, piped, strict=True)]
    on_gpu = torch.cuda.is_available()
    bound = 1.0 if on_gpu else median(bare) / (median(bare) + augmenting / cores())
    print(f"bare loop      {images / median(bare):8.1f} images/s")
    print(f"pipeline       {images / median(piped):8.1f} images/s")
    print(f"ratio          {median(ratios):8.3f}   (pairs: {', '.join(f'{ratio:.3f}' for ratio in ratios)})")
    print(f"bound          {bound:8.3f}   (augmentation {augmenting / images * 1e3:.2f} ms an image and core)")
    print(f"ratio / bound  {median(ratios) / bound:8.3f}")
    print(f"waiting        {median(waited):8.1%}   of the pipeline's time")


if __name__ == "__main__":
    main()
