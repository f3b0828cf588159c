"""The training loop of one fold, on Lightning Fabric for devices, precision and several processes.

Randomness is derived from (seed, epoch, place), never carried along, so a training that is killed and started again
from its last epoch goes on with the very draws that it would have made.
"""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.data import DataLoader

from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, counted, listing
from foldcraft.common.files import write_atomic
from foldcraft.common.fingerprint import seed_from
from foldcraft.data import loader
from foldcraft.data.augment import Augment
from foldcraft.data.competition import Competition
from foldcraft.data.images.image_cache import ImageStore
from foldcraft.data.label_swap import Swaps
from foldcraft.data.loader import (
    Batch,
    DistillationTargets,
    EpochBatches,
    TrainImages,
    default_workers,
    drawn,
    train_loader,
)
from foldcraft.data.mixup import mix_of
from foldcraft.data.plain_images import PlainImages
from foldcraft.data.targets.target import Target
from foldcraft.metrics.scores import Metric
from foldcraft.models import checkpoint, finetune
from foldcraft.models.backbones import Blueprint
from foldcraft.models.hardware import Hardware, cores, tune
from foldcraft.models.inputs import Inputs, forward
from foldcraft.models.preprocessing import Preparation, predictions
from foldcraft.models.weight_averaging import averaged, measure_statistics
from foldcraft.predictions import answers
from foldcraft.training.distributed import Processes
from foldcraft.training.losses import check_has_dropout, rdrop_loss, training_loss
from foldcraft.training.plan import Plan, plan

CHECK_EVERY = 20  # steps between looks at the loss; each look waits for the device
AT_ONCE = 0.1  # seconds of writing that are worth no thought
APART = 10  # times as long as writing the state takes lies between two states


@dataclass(frozen=True)
class Task:
    """What one fold is trained on, and where its state is kept.

    Attributes:
        identity: digest of everything that the result depends on; a state of another identity is refused.
        target: what is learned, and what the rows are judged by.
        weights: how much each row counts in training (N,); left out: all alike.
        score_weights: the same in the score.
        competition: that the score is of, where several images make one answer; left out: of each image.
        swaps: what flips do to the label.
        distilled: what is learned from teachers; left out: from the labels alone.
        beside: metadata of all rows, those of pseudo-labels after the others, encoded float32 (N + M, d).
    """

    identity: str
    config: Config
    store: ImageStore
    ids: np.ndarray
    target: Target
    train_rows: np.ndarray
    valid_rows: np.ndarray
    metric: Metric
    state_file: Path
    history_file: Path
    distilled: DistillationTargets | None = None
    weights: np.ndarray | None = None
    score_weights: np.ndarray | None = None
    swaps: Swaps = field(default_factory=Swaps)
    beside: np.ndarray | None = None
    competition: Competition | None = None

    @cached_property
    def targets(self) -> np.ndarray:
        """What the net learns: class indices (N,) of one label, else a matrix float32 (N, W)."""
        return _to_learn(self.target)

    @cached_property
    def swapped(self) -> dict[tuple[str, ...], np.ndarray]:
        """The same after flips that change the label."""
        if self.distilled is None:
            return {flips: _to_learn(self.swaps.target(self.target, flips)) for flips in self.swaps.drawn()}
        known = self.distilled.targets
        return {flips: self.swaps.matrix(self.target, known, flips) for flips in self.swaps.drawn()}

    def score(self, predicted: np.ndarray) -> float:
        """In the metric, of predictions (n, W) of the validation rows."""
        rows = self.valid_rows
        if self.competition is not None:
            return answers.score(self.competition, predicted, rows)
        weights = None if self.score_weights is None else self.score_weights[rows]
        return self.metric(self.target.truth[rows], self.target.space.scored(predicted), weights)

    @property
    def learned_ids(self) -> np.ndarray:
        """The ids of all rows that a batch may hold."""
        return self.ids if self.distilled is None else np.concatenate([self.ids, self.distilled.ids])


def _to_learn(target: Target) -> np.ndarray:
    learned = target.learned
    return learned if learned.ndim == 1 else target.learned_space.matrix(learned)


@dataclass(frozen=True)
class Fitted:
    """Weights to predict with, and how they came about."""

    weights: dict[str, torch.Tensor]
    history: list[dict[str, float]]
    seconds: float


class Trainer:
    """The state of one training, and what an epoch does to it.

    Raises:
        FoldcraftError: R-Drop of a net that draws nothing; layers set free one by one on several processes; a batch
            that cannot be shared out; an augmentation that does not work; more processes than GPUs.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        blueprint: Blueprint,
        hardware: Hardware,
        processes: Processes,
        callback: Callback,
    ) -> None:
        config = task.config
        _check(config, model, hardware, processes)
        self.task, self.config, self.hardware, self.callback = task, config, hardware, callback
        self.processes = processes
        self.plan = plan(len(task.train_rows), config.train, config.optim, config.augment)
        self.prepare = Preparation.of(blueprint, hardware)
        self.mix = mix_of(config.augment, task.target.outputs, config.seed)
        self.fabric = _fabric(hardware, processes)
        learned, smoothing = task.target.learned[task.train_rows], config.regularize.label_smoothing
        space, device = task.target.learned_space, hardware.device
        self.loss = training_loss(space, learned, config.train.imbalance, smoothing, device)
        self.weights = None if task.weights is None else torch.from_numpy(task.weights.astype(np.float32)).to(device)

        self.beside = None if task.beside is None else torch.from_numpy(task.beside).to(device)

        model = hardware.place(model)
        self.swa = averaged(model) if config.optim.swa else None
        self.ema = None
        if config.optim.ema and not self.swa:
            self.ema = ModelEmaV3(model, decay=self.plan.ema_decay, use_warmup=True)
        scaled = hardware.precision == "16-mixed"
        optimizer = finetune.create_optimizer(model, config.finetune, config.optim, blueprint.weights != "none", scaled)
        self.scheduler = _scheduler(optimizer, self.plan, config)
        self.model, self.optimizer = self.fabric.setup(model, optimizer)
        self.bare_model = model

        balance = task.target.strata[task.train_rows] if config.train.imbalance == "sampler" else None
        self.batches = EpochBatches(
            task.train_rows, self.plan.batch, config.seed, processes.rank, processes.world, balance, task.distilled
        )
        self.loader = self._loader()
        self.epoch, self.seconds = 0, 0.0
        self.written, self.writing = 0.0, 0.0  # when the last state was, and how long it took
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] | None = None
        self.stopped = False

    def _loader(self) -> DataLoader[Batch]:
        config = self.config
        on_cpu = self.hardware.device == "cpu"
        workers = config.machine.workers
        if workers is None:
            workers = default_workers(cores() // self.processes.local_world, on_cpu)
        augment = Augment(config.augment, config.images, self.task.store.pixels.shape[1])
        images = TrainImages(self.task.store, self.task.targets, augment, self.task.distilled, self.task.swapped)
        batch_bytes = self.batches.batch // self.processes.world * config.images.size**2 * 3
        fitting, ahead = loader.in_flight(workers, batch_bytes, loader.shared_room())
        if fitting < workers:
            room = f"{loader.SHARED_MEMORY} has room for the batches of {fitting} of {workers} workers"
            self.callback.say(f"warning: {room}; {loader.MORE_SHARED_MEMORY}")
        return train_loader(images, self.batches, fitting, self.hardware.device == "cuda", ahead)

    def run(self, state: dict[str, Any] | None) -> Fitted:
        """Train to the end, from `state`, the last that was written at the end of an epoch, if there is one.

        Raises:
            FoldcraftError: the loss is not a number (the batch's ids are named); the state is damaged or of another
                experiment; the disk is full.
        """
        if state:
            self.restore(state)
        self.callback.started(self.plan.epochs, self.plan.batch * self.plan.steps_per_epoch, self.epoch)
        while not self.finished:
            self.run_epoch()
        return self.result()

    @property
    def finished(self) -> bool:
        """All epochs are done, or the score has not risen for `patience` of them."""
        return self.epoch >= self.plan.epochs or self.stopped

    @property
    def _is_looked_at(self) -> bool:
        return self.epoch % self.config.train.validate_every == 0 or self.epoch == self.plan.epochs

    def run_epoch(self) -> None:
        """Train for one epoch, judge it and write the state if it is their turn."""
        start = time.perf_counter()
        torch.manual_seed(seed_from(self.config.seed, "net", self.epoch, self.processes.rank))
        loss = self.train_epoch()
        trained = time.perf_counter() - start
        row = {
            "epoch": self.epoch + 1,
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            "loss": loss,
            "images_per_second": self.plan.batch * self.plan.steps_per_epoch / trained,
        }
        self.epoch += 1
        if self.processes.is_first:
            self._average()
            if self._is_looked_at:
                row |= self._validate()
            self.seconds += time.perf_counter() - start
            self._end_epoch({**row, "seconds": self.seconds})
        if self.config.train.patience:
            self.stopped = self.processes.from_first(lambda: self.stopped)

    def train_epoch(self) -> float:
        """Mean training loss."""
        finetune.unfreeze_for_epoch(self.bare_model, self.config.finetune, self.epoch)
        finetune.train_mode(self.bare_model, self.config.finetune)
        self.batches.epoch = self.epoch
        first = self.epoch * self.plan.steps_per_epoch
        watch = LossWatch(self.task.learned_ids, self.epoch + 1)
        for step, batch in enumerate(drawn(self.loader), start=first):
            watch.add(self.step(batch, step), batch.rows)
            self.callback.stepped(len(batch.rows) * self.processes.world)
        return self.processes.mean(watch.mean())

    def step(self, batch: Batch, step: int) -> torch.Tensor:
        """One optimizer step; its loss, left on the device."""
        images = self.prepare(batch.images)
        targets = batch.targets.to(self.hardware.device, non_blocking=True)
        weights = None if self.weights is None else self._weights_of(batch.rows)
        inputs = self.inputs_of(images, batch.rows)
        if self.mix and self.epoch < self.plan.last_mixed_epoch:
            inputs, targets, weights = self.mix.of_inputs(inputs, targets, weights, step)
        loss = self._backward(inputs, targets, weights)
        if self.config.optim.clip:
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.config.optim.clip, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step_update(min(step + 1, self.plan.lr_steps))
        if self.ema:
            self.ema.update(self.bare_model, step=step + 1)
        return loss

    def inputs_of(self, images: torch.Tensor, rows: torch.Tensor | np.ndarray) -> Inputs:
        """Prepared images of some rows with what is known beside them."""
        if self.beside is None:
            return Inputs(images)
        return Inputs(images, self.beside[torch.as_tensor(rows).to(self.beside.device)])

    def _weights_of(self, rows: torch.Tensor) -> torch.Tensor:
        """How much the rows of a batch count (B,); pseudo-labelled ones count 1."""
        rows = rows.to(self.weights.device)
        known = rows < len(self.weights)
        return torch.where(known, self.weights[rows.clamp_max(len(self.weights) - 1)], torch.ones_like(rows).float())

    def _backward(self, inputs: Inputs, targets: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Gradients of the mean loss, in as many parts as the config asks for."""
        parts = min(self.config.train.accumulate, len(inputs))
        total = torch.zeros((), device=self.hardware.device)
        of_parts = [None] * parts if weights is None else weights.tensor_split(parts)
        chunks = list(zip(inputs.split(parts), targets.tensor_split(parts), of_parts, strict=True))
        for number, (some, some_targets, some_weights) in enumerate(chunks, start=1):
            with self.fabric.no_backward_sync(self.model, enabled=number < len(chunks)):
                loss = self._loss(some, some_targets, some_weights) * (len(some) / len(inputs))
                self.fabric.backward(loss)
            total += loss.detach()
        return total

    def _loss(self, inputs: Inputs, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        rdrop = self.config.regularize.rdrop
        if not rdrop:
            return self.loss(forward(self.model, inputs), targets, weights)
        # Both draws in one pass, so that BatchNorm sees the images, and several processes meet, once.
        return rdrop_loss(self.loss, forward(self.model, inputs.twice()), targets, rdrop, weights)

    def _average(self) -> None:
        """Take the weights of the epoch that has ended into SWA's mean, when its time has come."""
        if not self.swa or self.epoch <= self.plan.first_averaged_epoch:
            return
        self.swa.update_parameters(self.bare_model)
        rows = self.task.train_rows
        parts = np.array_split(rows, max(1, len(rows) // (2 * self.plan.batch)))
        batches = (self.inputs_of(self.prepare(self._plain(part)), part) for part in parts)
        measure_statistics(self.swa.module, self.config.finetune, batches, self.hardware)

    def _plain(self, rows: np.ndarray) -> torch.Tensor:
        """Images as inference sees them, uint8 (B, size, size, 3)."""
        return PlainImages(self.task.store, self.config.images).at(rows)

    def _validate(self) -> dict[str, float]:
        """Loss and score of the validation rows, seen plainly, by the weights one would predict with."""
        model, target = self._predictor().eval(), self.task.target
        parts = [
            predictions(model, self.inputs_of(self.prepare(self._plain(rows)), rows), self.hardware, target.predictions)
            for rows in in_batches(self.task.valid_rows, 2 * self.plan.batch)
        ]
        predicted = torch.cat(parts).cpu().numpy()
        loss = target.space.loss(predicted, target.truth[self.task.valid_rows])
        return {"valid_loss": loss, "score": self.task.score(predicted)}

    def _predictor(self) -> nn.Module:
        if self.swa and self.epoch > self.plan.first_averaged_epoch:
            return self.swa.module
        return self.ema.module if self.ema else self.bare_model

    def _end_epoch(self, row: dict[str, float]) -> None:
        self.history.append(row)
        if self.config.train.patience and "score" in row:
            self._keep_best(row["score"])
        self._write_state()
        write_atomic(self.task.history_file, pd.DataFrame(self.history).to_csv(index=False))
        self.callback.epoch_ended(row)

    def _write_state(self) -> None:
        """Write the state, unless that would take more than a tenth of the time.

        A GPU is done with an epoch of a small data set long before the disk is with a large net's state.
        """
        start = time.perf_counter()
        if not self.finished and self.writing > AT_ONCE and start < self.written + APART * self.writing:
            return
        checkpoint.save_state(self.task.state_file, self.state())
        self.written = time.perf_counter()
        self.writing = self.written - start

    def _keep_best(self, score: float) -> None:
        if self.best is None or self.task.metric.better(score, self.best["score"]):
            weights = finetune.plain_state(self._predictor())
            weights = {name: value.detach().cpu().clone() for name, value in weights.items()}
            self.best = {"epoch": self.epoch, "score": score, "weights": weights}
        self.stopped = self.epoch - self.best["epoch"] >= self.config.train.patience

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on.

        No random state is among it, because none is carried from one epoch to the next.
        """
        return {
            "identity": self.task.identity,
            "hardware": asdict(self.hardware),
            "epoch": self.epoch,
            "seconds": self.seconds,
            "history": self.history,
            "best": self.best,
            "stopped": self.stopped,
            "model": self.bare_model.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "swa": self.swa.state_dict() if self.swa else None,
            "optimizer": self.optimizer.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave.

        Raises:
            FoldcraftError: it is of another experiment, or damaged.
        """
        path = self.task.state_file
        if state.get("identity") != self.task.identity:
            raise FoldcraftError(
                "checkpoint of another experiment, other data or other folds", path, "delete it, or set experiment=NAME"
            )
        try:
            self.bare_model.load_state_dict(state["model"])
            if self.ema:
                self.ema.module.load_state_dict(state["ema"])
            if self.swa:
                self.swa.load_state_dict(state["swa"])
            self.optimizer.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            self.fabric.strategy.precision.load_state_dict(state["precision"])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise FoldcraftError(
                f"checkpoint does not fit: {reason}", path, "delete it to train the fold anew"
            ) from None
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.history, self.best, self.stopped = state["history"], state["best"], state["stopped"]

    def result(self) -> Fitted:
        """The weights to predict with: of the best epoch where training may stop early, else of the last."""
        weights = self.best["weights"] if self.best else finetune.plain_state(self._predictor())
        return Fitted(weights, self.history, self.seconds)


class RunawayLoss(FoldcraftError):
    """The loss is no number any more."""


class LossWatch:
    """Notices a loss that is not a number, without waiting for the device at every step."""

    def __init__(self, ids: np.ndarray, epoch: int) -> None:
        self.ids, self.epoch = ids, epoch
        self.pending: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.losses: list[float] = []

    def add(self, loss: torch.Tensor, rows: torch.Tensor) -> None:
        """Remember a step's loss; every so many steps, look at them.

        Raises:
            FoldcraftError: one is not finite.
        """
        self.pending.append((loss, rows))
        if len(self.pending) == CHECK_EVERY:
            self._look()

    def mean(self) -> float:
        """Mean of all losses."""
        self._look()
        return float(np.mean(self.losses))

    def _look(self) -> None:
        if not self.pending:
            return
        for value, (_, rows) in zip(
            torch.stack([loss for loss, _ in self.pending]).tolist(), self.pending, strict=True
        ):
            if not math.isfinite(value):
                raise RunawayLoss(
                    f"the loss became {value} in epoch {self.epoch}, step {len(self.losses) + 1}; "
                    f"images of that step: {listing(self.ids[rows.numpy()].tolist(), 64)}",
                    hint="lower optim.lr, set optim.clip=1, or use machine.precision=32-true",
                )
            self.losses.append(value)
        self.pending = []


def in_batches(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """`rows` in pieces of `size`."""
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def check_parts(config: Config, model: nn.Module, rows: int, world: int) -> None:
    """See that the parts of a batch are not too small to be learned from.

    Args:
        model: as its training finds it.
        rows: that are learned from.
        world: processes that share a batch.

    Raises:
        FoldcraftError: there are more parts than images, or BatchNorm would learn from single images.
    """
    train, batch = config.train, min(config.train.batch, rows) // world
    if train.accumulate > batch:
        raise FoldcraftError(
            f"{train.accumulate} parts of a batch of {counted(batch, 'image')}",
            "train.accumulate",
            "use no more parts than images",
        )
    learns = finetune.learning_norms(model, config.finetune)
    if learns and batch // train.accumulate < 2:
        raise FoldcraftError(
            "BatchNorm learns from the spread within a part of a batch, and a part is a single image",
            "train.accumulate" if train.accumulate > 1 else "train.batch",
            "let parts (batch / accumulate) be 2 or more images, or set finetune.batchnorm=frozen",
        )


def _check(config: Config, model: nn.Module, hardware: Hardware, processes: Processes) -> None:
    if config.regularize.rdrop:
        check_has_dropout(model, config.images.size)
    if config.finetune.unfreeze_epochs and processes.world > 1:
        raise FoldcraftError(
            "layers are set free one by one on a single process only",
            "finetune.unfreeze_epochs",
            "set it to 0, or train the fold on one process",
        )
    if hardware.device == "cuda" and 1 < processes.local_world > torch.cuda.device_count():
        raise FoldcraftError(
            f"{processes.local_world} processes and {counted(torch.cuda.device_count(), 'GPU')}",
            "torchrun --nproc-per-node",
            "start one process a GPU; folds may share one: train.py --jobs",
        )


# "Using bfloat16 Automatic Mixed Precision (AMP)": the run's own first line says so already.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def _fabric(hardware: Hardware, processes: Processes) -> Fabric:
    fabric = Fabric(
        accelerator=hardware.device,
        devices=processes.local_world if processes.world > 1 else 1,
        num_nodes=processes.world // processes.local_world,
        strategy="ddp" if processes.world > 1 else "auto",
        precision=hardware.precision,
    )
    fabric.launch()
    tune(hardware.device)
    return fabric


def _scheduler(optimizer: torch.optim.Optimizer, plan: Plan, config: Config) -> Any:
    """Linear warm-up, then one cosine to `min_lr` over all steps of the plan, a value a step."""
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=plan.steps - plan.warmup_steps,
        warmup_epochs=plan.warmup_steps,
        warmup_prefix=True,
        warmup_lr=config.optim.lr / 100,
        min_lr=min(config.optim.min_lr, config.optim.lr),
        step_on_epochs=False,
        updates_per_epoch=1,  # the scheduler's epoch is one of our steps
    )
    scheduler.step_update(0)
    return scheduler
