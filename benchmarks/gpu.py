"""Does a GPU compute what a processor does, and how well is it used? About eight minutes on one GPU.

It needs no network: images are drawn, nets have random weights unless --weights names a folder that holds theirs. Each
step is a process of its own with a time limit, so that one that fails or hangs costs no other; what is known is written
after each, as a table (gpu.md) and as values (gpu.json), with what the steps printed (gpu.log).

  python benchmarks/gpu.py --out results              # on a GPU
  python benchmarks/gpu.py --out results --small      # the same steps in miniature, also without a GPU
  python benchmarks/gpu.py --out results --only device throughput
"""

import argparse
import contextlib
import copy
import gc
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.numpy import load_file
from stepwise import Result, Row, Step, alive, carry_out, descendants, end, section
from torch import nn

import check
import split
import train
from foldcraft.common import config_file as settings
from foldcraft.common.callbacks import Callback
from foldcraft.common.paths import FoldFolder, check_file
from foldcraft.data import loader
from foldcraft.data.loader import Batch
from foldcraft.data.plain_images import PlainImages
from foldcraft.models import checkpoint, hardware
from foldcraft.models.hardware import Hardware
from foldcraft.models.inputs import Inputs
from foldcraft.models.preprocessing import Preparation, predictions
from foldcraft.predictions import store as prediction_store
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.feature_cache import FeatureRequest, FrozenNet, load_or_compute
from foldcraft.predictions.inference import BATCH, InferenceModel, predict
from foldcraft.training import fine_tuning, fold, initialization
from foldcraft.training import trainer as trainer_module
from foldcraft.training.distributed import Processes
from foldcraft.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
WAVES = (4, 6, 9, 13)  # pixels, the classes that are drawn
CONFIG = """
competition: {{name: waves, metric: accuracy}}
folds: {{count: 4}}
images: {{size: {size}}}
augment: {{preset: medium}}
backbone: {{name: {net}, weights: none}}
train: {{epochs: {epochs}, batch: {batch}}}
optim: {{lr: 0.001}}
tta: {{views: [identity]}}
tracking: {{wandb: "off"}}
"""
# Ways through the code that have tensors of their own: each must find them on the device.
WAYS = {
    "plain": [],
    "adapted BatchNorm, solved head": ["finetune.batchnorm=adapted", "finetune.head_init=probe"],
    "linear probe": ["finetune.mode=linear_probe"],
    "LoRA": ["finetune.mode=lora"],
    "norms only": ["finetune.mode=norm"],
    "interpolated": ["finetune.interpolate=true", "finetune.head_init=probe"],
    "SWA": ["optim.swa=0.5"],
    "R-Drop": ["regularize.rdrop=0.5", "backbone.drop=0.1"],
    "mixup, weighted": ["augment.mixup=0.4", "train.imbalance=weighted"],
    "cutmix, logit_adjusted": ["augment.cutmix=1.0", "train.imbalance=logit_adjusted"],
    "focal, in parts": ["train.imbalance=focal", "train.accumulate=2"],
    "unfrozen in turn, early stopping": ["finetune.unfreeze_epochs=1", "train.patience=1"],
    "found learning rate": ["optim.lr=auto"],
    "fp16": ["machine.precision=16-mixed"],
    "no worker": ["machine.workers=0"],
}


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Attributes:
        nets: whose throughput is measured; the first two, a CNN and a transformer, stand for their kind elsewhere.
        compiled: those that are compiled too.
        size: side of the images in pixels.
        images: that are drawn for training; a third as many more to be predicted.
        batch: images a step.
        steps: timed steps, `repeats` times.
        epochs: of a whole training.
        batches: of the step that looks at memory.
        workers: processes that augment, of the step that looks at waiting.
        predicted: images of an inference.
        compiler: torch.compile's backend.
        checks: of `src/check.py`; none: all.
    """

    nets: tuple[str, ...]
    compiled: tuple[str, ...]
    size: int
    images: int
    batch: int
    steps: int
    repeats: int
    epochs: int
    batches: tuple[int, ...]
    workers: tuple[int, ...]
    predicted: int
    compiler: str
    checks: tuple[str, ...]

    @property
    def pair(self) -> tuple[str, str]:
        """A CNN and a transformer."""
        return self.nets[0], self.nets[1]


FULL = Scale(
    nets=("resnet50", "vit_tiny_patch16_224", "mobilenetv2_100", "tf_efficientnet_lite0", "vit_small_patch16_224"),
    compiled=("resnet50", "vit_tiny_patch16_224"),
    size=224,
    images=960,
    batch=64,
    steps=20,
    repeats=3,
    epochs=10,
    batches=(32, 64, 128, 256, 512),
    workers=(0, 4, 8, 16),
    predicted=2048,
    compiler="inductor",
    checks=(),
)
SMALL = Scale(
    nets=("test_resnet", "test_vit"),
    compiled=("test_resnet",),
    size=32,
    images=48,
    batch=8,
    steps=2,
    repeats=1,
    epochs=4,
    batches=(4, 8),
    workers=(0, 1),
    predicted=72,
    compiler="eager",
    checks=("pinned", "waits"),
)


@dataclass(frozen=True)
class Ground:
    """What the steps have in common.

    Attributes:
        device: "cuda" or "cpu".
        half: the 16-bit precision that the device computes in.
        folder: with the drawn competition and its config; the steps' current folder.
        weights: a folder of pretrained weights, a folder a net, or none.
    """

    scale: Scale
    device: str
    half: str
    folder: Path
    weights: Path | None

    @property
    def config(self) -> Path:
        return self.folder / "configs" / "waves.yaml"

    def words(self, net: str, precision: str, *more: str) -> list[str]:
        """A command's arguments."""
        source = "pretrained" if self.weights and (self.weights / net / "config.json").is_file() else "none"
        words = [f"backbone.name={net}", f"backbone.weights={source}", f"machine.device={self.device}"]
        words += [f"machine.precision={precision}", f"machine.memory_format={layout(net)}"]
        return ["--config", str(self.config), *words, *more]

    def open(self, net: str, precision: str, *more: str) -> Experiment:
        """The drawn competition with these settings."""
        return Experiment.open(settings.load(self.config, self.words(net, precision, *more)[2:]))

    def hardware(self, net: str, precision: str) -> Hardware:
        return Hardware(self.device, precision, layout(net), hardware.this_machine())

    def synchronise(self) -> None:
        """Wait until the device has done what it was told."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, experiment: Callable[[], object]) -> float:
        """What some work takes, to its end on the device."""
        self.synchronise()
        start = time.perf_counter()
        experiment()
        self.synchronise()
        return time.perf_counter() - start

    def trainer(self, net: str, precision: str, batch: int, *more: str) -> Trainer:
        """What `src/train.py` trains fold 0 with, with as many images an epoch as the timed steps take."""
        gc.collect()  # the last one's workers and memory
        experiment = self.open(net, precision, f"train.batch={batch}", "train.epochs=1000", *more)
        training = fine_tuning.Training(
            experiment,
            FoldFolder.of(experiment.config, 0),
            initialization.build(experiment, Callback()),
            self.hardware(net, precision),
            Processes(),
        )
        model, _ = training.ready_model(0, Callback())
        task = training.task(0)
        task = replace(task, train_rows=np.resize(task.train_rows, batch * self.scale.steps))
        return Trainer(task, model, training.start.blueprint, training.hardware, Processes(), Callback())


def layout(net: str) -> str:
    """The memory format that is fast for this kind of net."""
    return "contiguous" if "vit" in net else "channels_last"


# --- steps: each yields rows of a table -------------------------------------------------------------------------------


def device(ground: Ground) -> Iterator[Row]:
    """What computes here; one operation is done before it is believed."""
    yield {"torch": torch.__version__, "python": platform.python_version(), "cores": hardware.cores()}
    if ground.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        yield {
            "name": card.name,
            "capability": f"{card.major}.{card.minor}",
            "memory GiB": card.total_memory / 2**30,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": driver(),
            "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
            "cards": torch.cuda.device_count(),
        }
    yield {"fails": hardware.failure(ground.device) or "no", "/dev/shm to fill, GiB": loader.shared_room() / 2**30}


def driver() -> str | None:
    """The driver's version, where its own tool is there to tell."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    return None


def choice(ground: Ground) -> Iterator[Row]:
    """What the pipeline chooses by itself for each net, images/s of a step that it saw, and what choosing costs."""
    for net in ground.scale.nets:
        experiment = ground.open(net, "auto", "machine.memory_format=auto")
        model, _ = initialization.fresh_net(experiment.config, len(WAVES))
        choose = partial(
            hardware.choose,
            experiment.config.machine,
            model,
            ground.scale.size,
            experiment.config.train.part,
            ground.folder / f"{net}.json",
        )
        start = time.perf_counter()
        chosen = choose()
        yield {"net": net, "chosen": str(chosen), **chosen.rates, "seconds": time.perf_counter() - start}


class BareLoop:
    """Training as anyone writes it, on a batch that lies on the device: forward, loss, backward, step, nothing else."""

    def __init__(self, trainer: Trainer, batch: Batch, backend: str | None = None) -> None:
        self.hardware = trainer.hardware
        self.model = copy.deepcopy(trainer.bare_model).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.scaler = torch.amp.GradScaler(self.hardware.device, enabled=self.hardware.precision == "16-mixed")
        self.images, self.targets = trainer.prepare(batch.images), batch.targets.to(self.hardware.device)
        self.net = torch.compile(self.model, backend=backend) if backend else self.model

    def run(self, steps: int) -> None:
        for _ in range(steps):
            with self.hardware.autocast():
                loss = nn.functional.cross_entropy(self.net(self.images), self.targets)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad()


def made_batch(ground: Ground, images: int) -> Batch:
    """Pixels from nowhere, as a loader hands them over."""
    pixels = torch.randint(0, 256, (images, ground.scale.size, ground.scale.size, 3), dtype=torch.uint8)
    batch = Batch(pixels, torch.arange(images) % len(WAVES), torch.arange(images))
    return Batch(*(tensor.pin_memory() for tensor in batch)) if ground.device == "cuda" else batch


def run_ready(trainer: Trainer, batch: Batch, steps: int) -> None:
    """The pipeline's own step, on a batch that is there."""
    for step in range(steps):
        trainer.step(batch, step)


@dataclass
class Waits:
    """A loader, and how long the loop has waited for each batch."""

    loader: Any
    seconds: list[float]

    def __iter__(self) -> Iterator[Batch]:
        start = time.perf_counter()
        flow = iter(self.loader)
        while True:
            batch = next(flow, None)
            self.seconds.append(time.perf_counter() - start)
            if batch is None:
                return
            yield batch
            start = time.perf_counter()


def run_epoch(ground: Ground, trainer: Trainer) -> tuple[float, list[float]]:
    """Seconds of an epoch of training as the pipeline has it, and of the waits for its batches."""
    quiet, waits = trainer.loader, Waits(trainer.loader, [])
    trainer.loader = waits
    seconds = ground.seconds(trainer.train_epoch)
    trainer.loader = quiet
    trainer.epoch += 1
    return seconds, waits.seconds


def throughput(ground: Ground) -> Iterator[Row]:
    """Images/s of training: a bare loop; the pipeline's step on a batch that is there; an epoch of the pipeline.

    `lean` is the step without what the bare loop does not do either: moving average of the weights, clipping.
    """
    for bits in (ground.half, "32-true"):
        for net in ground.scale.nets:
            yield {"net": net, "precision": bits, **rates(ground, net, bits)}


def rates(ground: Ground, net: str, bits: str) -> Row:
    scale = ground.scale
    trainer, batch = ground.trainer(net, bits, scale.batch), made_batch(ground, scale.batch)
    bare = BareLoop(trainer, batch)
    first = ground.seconds(partial(bare.run, 1))
    bare.run(3)
    run_ready(trainer, batch, 3)
    run_epoch(ground, trainer)
    seconds: dict[str, list[float]] = {"bare": [], "ready": [], "pipeline": [], "lean": []}
    waited = []
    for _ in range(scale.repeats):
        seconds["bare"].append(ground.seconds(partial(bare.run, scale.steps)))
        seconds["ready"].append(ground.seconds(partial(run_ready, trainer, batch, scale.steps)))
        took, waits = run_epoch(ground, trainer)
        seconds["pipeline"].append(took)
        waited.append(sum(waits) / took)
    make_lean(trainer)
    for _ in range(scale.repeats):
        seconds["lean"].append(ground.seconds(partial(run_ready, trainer, batch, scale.steps)))
    rate = {name: scale.batch * scale.steps / median(several) for name, several in seconds.items()}
    return {
        **{f"{name}/s": value for name, value in rate.items()},
        **{f"{name}:bare": rate[name] / rate["bare"] for name in ("lean", "ready", "pipeline")},
        "waiting": median(waited),
        "first bare step s": first,
    }


def make_lean(trainer: Trainer) -> None:
    """Without moving average and clipping."""
    trainer.ema = None
    plain = trainer.config.optim.model_copy(update={"clip": 0.0})
    trainer.config = trainer.config.model_copy(update={"optim": plain})


def compiled(ground: Ground) -> Iterator[Row]:
    """What torch.compile would gain: the bare loop with and without, and the seconds that compiling takes."""
    for net in ground.scale.compiled:
        yield {"net": net, "precision": ground.half, **compiling(ground, net)}


def compiling(ground: Ground, net: str) -> Row:
    scale = ground.scale
    trainer, batch = ground.trainer(net, ground.half, scale.batch, "machine.workers=0"), made_batch(ground, scale.batch)
    plain, faster = BareLoop(trainer, batch), BareLoop(trainer, batch, scale.compiler)
    plain.run(3)
    first = ground.seconds(partial(faster.run, 1))
    faster.run(3)
    several = [
        [ground.seconds(partial(loop.run, scale.steps)) for loop in (plain, faster)] for _ in range(scale.repeats)
    ]
    before, after = (scale.batch * scale.steps / median(seconds) for seconds in zip(*several, strict=True))
    pays = first / (1 / before - 1 / after) if after > before else None
    return {
        "bare/s": before,
        "compiled/s": after,
        "gain": after / before,
        "compiling s": first,
        "pays after images": pays,
    }


def tuned(ground: Ground) -> Iterator[Row]:
    """What it gains, and what it costs at first, that cudnn tries out its ways (`torch.backends.cudnn.benchmark`)."""
    for net in ground.scale.pair:
        row: Row = {"net": net, "precision": ground.half}
        for name, on in (("off", False), ("on", True)):
            batch = made_batch(ground, ground.scale.batch)
            loop = BareLoop(ground.trainer(net, ground.half, ground.scale.batch, "machine.workers=0"), batch)
            torch.backends.cudnn.benchmark = on
            row[f"first step {name} s"] = ground.seconds(partial(loop.run, 1))
            loop.run(3)
            several = [ground.seconds(partial(loop.run, ground.scale.steps)) for _ in range(ground.scale.repeats)]
            row[f"{name}/s"] = ground.scale.batch * ground.scale.steps / median(several)
        yield row


def precision(ground: Ground) -> Iterator[Row]:
    """The same training in other bits, beside the first one in 32: score and log-probabilities of the held-out images.

    A second training in the same 32 bits shows how much differs by itself. `the same weights` are those of the first
    training, asked in other bits.
    """
    halves = [ground.half] + ["16-mixed"] * (ground.device == "cuda" and ground.half != "16-mixed")
    for net in ground.scale.pair:
        first = None
        for name, bits in [("first", "32-true"), ("again", "32-true"), *((half, half) for half in halves)]:
            experiment = ground.open(net, bits, f"experiment={net}-{name}")
            manifest = fold.train_fold(experiment, 0, Processes(), Callback())
            found = prediction_store.read(FoldFolder.of(experiment.config, 0).oof).predicted[0]
            first = found if first is None else first
            yield {"net": net, "training": f"{bits} {name}", "score": manifest["score"], **apart(found, first)}
        yield from asked_otherwise(ground, net, first, halves)


def asked_otherwise(ground: Ground, net: str, first: np.ndarray, halves: Sequence[str]) -> Iterator[Row]:
    """The first training's weights, asked in 16 bits, and in 32 without TF32."""
    experiment = ground.open(net, "32-true", f"experiment={net}-first")
    model, blueprint, _ = checkpoint.load_model(FoldFolder.of(experiment.config, 0).model)
    store = initialization.build(experiment, Callback()).train
    rows = experiment.folds.valid_rows(0)
    truth = experiment.competition.targets[rows]
    for bits, exact in [*((half, False) for half in halves), ("32-true", True)]:
        chosen = ground.hardware(net, bits)
        placed = chosen.place(copy.deepcopy(model)).eval()
        images = PlainImages(store, experiment.config.images)
        output = partial(predictions, of_outputs=experiment.competition.target.predictions)
        member = InferenceModel(placed, Preparation.of(blueprint, chosen), chosen, images, ("identity",), output)
        with without_tf32() if exact else contextlib.nullcontext():
            found = predict([member], rows)[0][0]
        name = "32 bits without TF32" if exact else bits
        score = experiment.competition.metric(truth, np.exp(found))
        yield {"net": net, "training": f"the same weights, {name}", "score": score, **apart(found, first)}


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = True


def apart(found: np.ndarray, wanted: np.ndarray) -> Row:
    """How far two sets of log-probabilities (N, K) are from each other."""
    return {
        "log-prob apart, most": float(np.abs(found - wanted).max()),
        "mean": float(np.abs(found - wanted).mean()),
        "prob apart, most": float(np.abs(np.exp(found) - np.exp(wanted)).max()),
        "other answers": float((found.argmax(1) != wanted.argmax(1)).mean()),
    }


def waiting(ground: Ground) -> Iterator[Row]:
    """What workers are worth: images/s of an epoch beside those of the same steps on a batch that is there.

    `waiting` is what the loop waits, of which the device may use some to catch up; `lost` is what it costs.
    """
    for net in ground.scale.pair:
        for workers in ground.scale.workers:
            yield {"net": net, "workers": workers, **waits_of(ground, net, workers)}


def waits_of(ground: Ground, net: str, workers: int) -> Row:
    scale = ground.scale
    trainer = ground.trainer(net, ground.half, scale.batch, f"machine.workers={workers}")
    batch = made_batch(ground, scale.batch)
    run_ready(trainer, batch, 3)
    ready = ground.seconds(partial(run_ready, trainer, batch, scale.steps))
    run_epoch(ground, trainer)
    several = [run_epoch(ground, trainer) for _ in range(scale.repeats)]
    took = median(seconds for seconds, _ in several)
    alone = ground.seconds(lambda: [None for _ in trainer.loader])
    images = scale.batch * scale.steps
    return {
        "ready/s": images / ready,
        "pipeline/s": images / took,
        "drawn alone/s": images / alone,
        "waiting": fmean(sum(waits) / seconds for seconds, waits in several),
        "of it for the first batch": fmean(waits[0] / seconds for seconds, waits in several),
        "lost": 1 - ready / took,
    }


def memory(ground: Ground) -> Iterator[Row]:
    """Peak memory and images/s of a training step, by batch size."""
    scale = ground.scale
    for net in scale.pair:
        for bits in (ground.half, "32-true"):
            for size in scale.batches:
                try:
                    yield {"net": net, "precision": bits, "batch": size, **peak(ground, net, bits, size)}
                except torch.OutOfMemoryError:
                    yield {"net": net, "precision": bits, "batch": size, "peak MiB": "more than there is"}
                    break


def peak(ground: Ground, net: str, bits: str, size: int) -> Row:
    trainer, batch = ground.trainer(net, bits, size, "machine.workers=0"), made_batch(ground, size)
    if ground.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    run_ready(trainer, batch, 2)
    seconds = ground.seconds(partial(run_ready, trainer, batch, 5))
    if ground.device == "cuda":
        used = torch.cuda.max_memory_allocated() / 2**20
    else:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # of the process, imports and all
    return {"peak MiB": used, "ready/s": 5 * size / seconds}


def epoch(ground: Ground) -> Iterator[Row]:
    """Where the time of an epoch goes on a small data set: training, judging the held-out images, writing the state."""
    for net in ground.scale.pair:
        trainer = ground.trainer(net, ground.half, ground.scale.batch)
        parts = {"training": 0.0, "judging": 0.0}
        for name, method in (("training", "train_epoch"), ("judging", "_validate")):
            setattr(trainer, method, timed(ground, getattr(trainer, method), parts, name))
        for _ in range(2):  # the first one does not count
            parts.update(training=0.0, judging=0.0)
            whole = ground.seconds(trainer.run_epoch)
        yield {
            "net": net,
            "images": ground.scale.batch * ground.scale.steps,
            "epoch s": whole,
            **{f"{name} s": seconds for name, seconds in parts.items()},
            "writing s": whole - sum(parts.values()),
            "state MiB": trainer.task.state_file.stat().st_size / 2**20,
        }


def timed(ground: Ground, experiment: Callable[[], Any], parts: dict[str, float], name: str) -> Callable[[], Any]:
    def timed_work() -> Any:
        ground.synchronise()
        start = time.perf_counter()
        result = experiment()
        ground.synchronise()
        parts[name] += time.perf_counter() - start
        return result

    return timed_work


def resume(ground: Ground) -> Iterator[Row]:
    """A training that is killed after two epochs and started again, beside one that was left alone.

    Two that were left alone show what differs by itself: a GPU sums in an order that changes. Where torch is told to
    keep to one order, nothing should differ; the net draws dropout on the device.
    """
    for order in ("any", "one"):
        first = None
        for name in ("first", "again", "killed"):
            experiment = f"{name}-{order}"
            words = ground.words(ground.scale.pair[1], ground.half, "backbone.drop=0.1", f"experiment={experiment}")
            folder = FoldFolder(ground.folder / "runs" / "waves" / experiment / "fold0", 0)
            told = kill_after(fork_training(words, order), folder, epochs=2) if name == "killed" else {}
            code = os.waitstatus_to_exitcode(os.waitpid(fork_training(words, order), 0)[1])
            made = load_file(folder.model), prediction_store.read(folder.oof).predicted[0]
            first = first or made
            yield {
                "order of sums": order,
                "training": name,
                "exit code": code,
                "score": folder.read_manifest()["score"],
                "weights apart, most": max(float(np.abs(made[0][key] - first[0][key]).max()) for key in made[0]),
                **apart(made[1], first[1]),
                **told,
            }


def fork_training(words: Sequence[str], order: str) -> int:
    """The id of a process that trains; forked, as this one has not touched the device yet."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        if order == "one":
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
            torch.use_deterministic_algorithms(True, warn_only=True)
            trainer_module.tune = lambda device: None
        code = train.main([*words, "--fold", "0"])
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def kill_after(process: int, folder: FoldFolder, epochs: int) -> Row:
    """SIGKILL a training when so many epochs are on disk; what becomes of its workers."""
    while os.waitpid(process, os.WNOHANG)[0] == 0:
        if folder.history.is_file() and folder.history.read_text().count("\n") > epochs:
            workers = descendants(process)
            end(process)
            os.waitpid(process, 0)
            start = time.monotonic()
            while any(map(alive, workers)) and time.monotonic() < start + 20:
                time.sleep(0.05)
            left = sum(map(alive, workers))
            return {"workers": len(workers), "left after 20 s": left, "was resumed": folder.checkpoint.is_file()}
        time.sleep(0.001)
    return {"was resumed": "ended before it could be killed"}


def together(ground: Ground) -> Iterator[Row]:
    """Two folds one after the other, and side by side on one device, as commands."""
    for net in ground.scale.pair:
        seconds = {}
        for jobs in (1, 2):
            words = ground.words(net, ground.half, f"experiment={net}-jobs{jobs}", "--fold", "0,1", "--jobs", str(jobs))
            start = time.perf_counter()
            command([sys.executable, str(ROOT / "src" / "train.py"), *words, "--quiet"])
            seconds[jobs] = time.perf_counter() - start
        yield {"net": net, "in turn s": seconds[1], "side by side s": seconds[2], "gain": seconds[1] / seconds[2]}


def torchrun(ground: Ground) -> Iterator[Row]:
    """torchrun with one process, beside no torchrun at all."""
    net, found = ground.scale.pair[1], {}
    alone = [sys.executable]
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    for name, start in (("alone", alone), ("torchrun", started)):
        words = ground.words(net, ground.half, f"experiment={name}", "--fold", "0", "--quiet")
        began = time.perf_counter()
        command([*start, str(ROOT / "src" / "train.py"), *words])
        folder = FoldFolder(ground.folder / f"runs/waves/{name}/fold0", 0)
        found[name] = prediction_store.read(folder.oof).predicted[0]
        row = {"started by": name, "seconds": time.perf_counter() - began, "score": folder.read_manifest()["score"]}
        yield {**row, **apart(found[name], found["alone"])}


def command(words: Sequence[str]) -> None:
    """Run a command; its error when it fails."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout, flush=True)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stdout.strip()[-300:]}")


def inference(ground: Ground) -> Iterator[Row]:
    """Predicting and gathering features, beside plain forward passes of the same net on a batch that is there."""
    for net in ground.scale.pair:
        experiment = ground.open(net, ground.half)
        start, chosen = initialization.build(experiment, Callback()), ground.hardware(net, ground.half)
        images = PlainImages(start.train, experiment.config.images)
        rows = np.resize(np.arange(len(start.train)), ground.scale.predicted)
        model = chosen.place(copy.deepcopy(start.model)).eval()
        output = partial(predictions, of_outputs=experiment.competition.target.predictions)
        member = InferenceModel(model, Preparation.of(start.blueprint, chosen), chosen, images, ("identity",), output)
        reading = ground.seconds(partial(read_all, images, rows))
        yield {
            "net": net,
            "what": f"predictions, {ground.half}",
            **beside_plain(ground, member, rows),
            "reading alone/s": len(rows) / reading,
        }
        wanted = FeatureRequest(
            FrozenNet.of(start.model, start.blueprint, experiment.config), "train", start.train, "identity"
        )
        yield {"net": net, "what": "features, 32-true", **beside_plain(ground, wanted.member(), rows)}
        whole = ground.seconds(partial(load_or_compute, [wanted], ground.folder / "features", Callback()))
        yield {"net": net, "what": "features of the data set, with their file", "pipeline/s": len(start.train) / whole}


def read_all(images: PlainImages, rows: np.ndarray) -> None:
    for some in in_batches(rows):
        images.at(some)


def in_batches(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[first : first + BATCH] for first in range(0, len(rows), BATCH)]


def beside_plain(ground: Ground, member: InferenceModel, rows: np.ndarray) -> Row:
    ready = Inputs(member.preparation(member.images.at(rows[:BATCH])))

    def plain() -> None:
        for _ in in_batches(rows):
            member.output(member.model, ready, member.hardware)

    piped = partial(predict, [member], rows)
    plain()
    piped()
    pairs = [(ground.seconds(plain), ground.seconds(piped)) for _ in range(ground.scale.repeats)]
    alone, whole = (median(seconds) for seconds in zip(*pairs, strict=True))
    return {"plain/s": len(rows) / alone, "pipeline/s": len(rows) / whole, "cost": whole / alone}


def ways(ground: Ground) -> Iterator[Row]:
    """Settings with code of their own, each trained for two epochs to the end of a fold: does one fail?"""
    for number, (name, words) in enumerate(WAYS.items()):
        net = ground.scale.pair[1 if name == "LoRA" else 0]
        start = time.perf_counter()
        try:
            experiment = ground.open(net, ground.half, "train.epochs=2", f"experiment=way{number}", *words)
            score, error = fold.train_fold(experiment, 0, Processes(), Callback())["score"], "none"
        except Exception as problem:
            traceback.print_exc()
            score, error = None, f"{type(problem).__name__}: {problem}"[:300]
        yield {"settings": name, "score": score, "seconds": time.perf_counter() - start, "error": error}


def checks(ground: Ground) -> Iterator[Row]:
    """`src/check.py` on the device."""
    words = ground.words(ground.scale.pair[0], ground.half, "experiment=check")
    only = ["--only", *ground.scale.checks] if ground.scale.checks else []
    check.main([*words, *only])
    report = json.loads(check_file(settings.load(ground.config, words[2:])).read_text())
    for name, found in report["checks"].items():
        yield {"check": name, "status": found["status"], "number": found["number"]}


# What matters most comes first, as the time may run out.
STEPS = [
    Step(device, 60),
    Step(choice, 60),
    Step(throughput, 120),
    Step(precision, 100),
    Step(ways, 100),
    Step(resume, 120),
    Step(waiting, 60),
    Step(epoch, 30),
    Step(inference, 40),
    Step(memory, 60),
    Step(together, 90),
    Step(torchrun, 60),
    Step(checks, 90),
    Step(tuned, 40),
    Step(compiled, 150),
]


def draw(wave: float, size: int, rng: np.random.Generator) -> Image.Image:
    """A noisy picture of waves of that length, in any direction and colour."""
    turn, start = rng.uniform(0, 2 * np.pi, 2)
    y, x = np.mgrid[:size, :size]
    height = np.sin((x * np.cos(turn) + y * np.sin(turn)) * (2 * np.pi / wave) + start)
    pixels = 128 + 30 * height[..., None] * rng.uniform(0.2, 1, 3) + rng.normal(0, 45, (size, size, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def prepare(ground: Ground) -> None:
    """Draw the competition, write its config, split it."""
    scale, rng = ground.scale, np.random.default_rng(0)
    rows = pd.DataFrame({"id": [f"{row:05d}.jpg" for row in range(scale.images * 4 // 3)]})
    rows["label"] = [f"wave{row % len(WAVES)}" for row in range(len(rows))]
    folder = ground.folder / "input" / "waves"
    for part, some in (("train", rows[: scale.images]), ("test", rows[scale.images :])):
        (folder / part).mkdir(parents=True)
        for row in some.itertuples():
            draw(WAVES[row.Index % len(WAVES)], scale.size, rng).save(folder / part / row.id, quality=90)
    rows[: scale.images].to_csv(folder / "train.csv", index=False)
    rows[scale.images :][["id"]].to_csv(folder / "test.csv", index=False)
    rows[scale.images :][["id"]].assign(label="wave0").to_csv(folder / "sample_submission.csv", index=False)
    ground.config.parent.mkdir()
    text = CONFIG.format(size=scale.size, net=scale.nets[0], epochs=scale.epochs, batch=scale.batch)
    ground.config.write_text(text)
    os.chdir(ground.folder)
    with contextlib.redirect_stdout(sys.stderr):
        split.main(["--config", str(ground.config), "--quiet"])


ASK = """
import torch
from foldcraft.models import hardware
device = hardware.available_device()
has_bf16 = device != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
print(device, "bf16-mixed" if has_bf16 else "16-mixed", hardware.failure("cuda") if torch.cuda.is_available() else "")
"""


def found_device() -> tuple[str, str, str]:
    """The device that computes, its 16 bits, and why it is no GPU, if one is said to be there.

    Asked in a process of its own, as one that uses CUDA must not fork.
    """
    done = subprocess.run([sys.executable, "-c", ASK], cwd=ROOT / "src", capture_output=True, text=True, timeout=120)
    if done.returncode:
        sys.exit(f"the device cannot be asked for: {done.stderr.strip()[-500:]}")
    name, half, why = done.stdout.strip("\n").split(" ", 2)
    return name, half, why


def write(out: Path, ground: Ground, results: dict[str, Result]) -> None:
    """All that is known so far."""
    about = {"device": ground.device, "half": ground.half, "scale": asdict(ground.scale)}
    values = {"about": about, "steps": {name: asdict(result) for name, result in results.items()}}
    (out / "gpu.json").write_text(json.dumps(values, indent=1, default=str))
    (out / "gpu.md").write_text("\n".join(section(name, result) for name, result in results.items()))


def main() -> int:
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.md, gpu.json and gpu.log")
    parser.add_argument("--small", action="store_true", help="a miniature of everything, on whatever is there")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="STEP", help=", ".join(names))
    parser.add_argument("--minutes", type=float, default=8, help="for all of it, and each step its share (default 8)")
    parser.add_argument("--weights", type=Path, help="folder of pretrained weights, a folder a net")
    args = parser.parse_args()
    until = time.monotonic() + 60 * args.minutes
    os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="disabled", PYTHONUNBUFFERED="1")
    if args.weights:
        os.environ["FOLDCRAFT_WEIGHTS"] = str(args.weights.resolve())
    name, half, why = found_device()
    if name != "cuda" and not args.small:
        sys.exit(f"no GPU computes here{why and f' ({why})'}; --small tries the benchmark itself on a processor")
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="foldcraft-gpu-", ignore_cleanup_errors=True) as folder:
        weights = args.weights.resolve() if args.weights else None
        ground = Ground(SMALL if args.small else FULL, name, half, Path(folder), weights)
        prepare(ground)
        results: dict[str, Result] = {}
        for step in (step for step in STEPS if step.name in args.only):
            left = until - time.monotonic()
            if left > 5:
                limit = min(step.limit * args.minutes / 8, left)
                result = carry_out(step, ground, ground.folder, limit, out / "gpu.log")
            else:
                result = Result(step.run.__doc__ or "", [], error="no time was left for it")
            results[step.name] = result
            took = f"{result.seconds:6.1f} s {result.cpu_seconds:6.1f} s CPU"
            print(f"{step.name:12} {len(result.rows):3} rows {took}  {result.error or ''}", flush=True)
            write(out, ground, results)
        os.chdir(ROOT)
    return 1 if any(result.error for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
