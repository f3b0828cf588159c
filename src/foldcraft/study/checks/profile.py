"""Where the time of training goes."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from foldcraft.data.images import image_cache as pictures
from foldcraft.models import finetune
from foldcraft.study.checks.subject import Subject
from foldcraft.training.trainer import Trainer

STEPS = 5  # that are timed, after one that is not
DECODED = 16
TOP = 10
ON_DEVICE = ("prepare", "forward", "backward", "optimizer")


@dataclass(frozen=True)
class Timetable:
    """Seconds of a step of training.

    Attributes:
        batch: images a step.
        workers: processes that augment.
        step: of a step as a whole.
        parts: of its parts: waiting for a batch, then what the net's device does.
        augment: of one process, for the images of a batch; while the net computes, where there are workers.
        decode: for so many images; once a competition.
        operators: the costliest operators with their share of the time, where a profiler watched.
    """

    batch: int
    workers: int
    step: float
    parts: dict[str, float]
    augment: float
    decode: float
    operators: list[tuple[str, float]]

    @property
    def net_seconds(self) -> float:
        """Of a step without the wait for its batch."""
        return self.step - self.parts["waiting"]

    def rows(self) -> list[tuple[str, float, float | None]]:
        """What is done, milliseconds an image, and its share of a step where it is part of one."""
        inside = dict(self.parts)
        inside["the rest"] = max(0.0, self.step - sum(inside.values()))
        where = "in the step" if self.workers == 0 else f"in {self.workers} workers, meanwhile"
        rows: list[tuple[str, float, float | None]] = [
            ("decode (once, then from the cache)", self.decode, None),
            (f"augment ({where})", self.augment, None),
        ]
        rows += [(name, seconds, seconds / self.step) for name, seconds in inside.items()]
        rows.append(("step", self.step, 1.0))
        return [(name, 1000 * seconds / self.batch, share) for name, seconds, share in rows]


def take(subject: Subject) -> Timetable:
    """Time some steps; with `subject.trace` a profiler watches, and its trace is written there."""
    trainer = subject.trainer(subject.as_is)
    watch = _Watch(trainer)
    operators: list[tuple[str, float]] = []
    finetune.train_mode(trainer.bare_model, trainer.config.finetune)
    with watch.listening():
        flow = _endless(trainer)
        for step in range(2):
            trainer.step(next(flow), step)
        watch.forget()
        with _profiler(trainer, subject.trace) as profiler:
            for step in range(2, 2 + STEPS):
                with watch("waiting"):
                    batch = next(flow)
                trainer.step(batch, step)
            watch.settle()
        total = watch.elapsed()
    if profiler:
        operators = _costliest(profiler)
    draws = next(iter(trainer.batches))
    return Timetable(
        batch=trainer.batches.batch,
        workers=trainer.loader.num_workers,
        step=total / STEPS,
        parts={name: watch.seconds[name] / STEPS for name in ("waiting", *ON_DEVICE)},
        augment=_timed(lambda: trainer.loader.dataset.at(draws)),
        decode=_decoding(subject) * trainer.batches.batch,
        operators=operators,
    )


def _endless(trainer: Trainer) -> Iterator[Any]:
    while True:
        yield from trainer.loader
        trainer.batches.epoch += 1


class _Watch:
    """Times the parts of a trainer's step from outside."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.seconds: dict[str, float] = defaultdict(float)
        self.open: dict[str, tuple[float, Any]] = {}
        self.began = time.perf_counter()

    def forget(self) -> None:
        self.settle()
        self.seconds.clear()
        self.began = time.perf_counter()

    def elapsed(self) -> float:
        return time.perf_counter() - self.began

    def settle(self) -> None:
        """Wait until the device has done what it was told."""
        if self.trainer.hardware.device == "cuda":
            torch.cuda.synchronize()

    def start(self, name: str, *_: object) -> None:
        self.settle()
        scope = record_function(f"foldcraft: {name}")
        scope.__enter__()
        self.open[name] = (time.perf_counter(), scope)

    def stop(self, name: str, *_: object) -> None:
        self.settle()
        began, scope = self.open.pop(name)
        self.seconds[name] += time.perf_counter() - began
        scope.__exit__(None, None, None)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.start(name)
        yield
        self.stop(name)

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self(name):
                return function(*args, **kwargs)

        return timed

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The trainer's parts report while this lasts; afterwards it is as before."""
        trainer, optimizer = self.trainer, self.trainer.optimizer.optimizer
        prepare, backward = trainer.prepare, trainer.fabric.backward
        hooks = [
            trainer.bare_model.register_forward_pre_hook(partial(self.start, "forward")),
            trainer.bare_model.register_forward_hook(partial(self.stop, "forward")),
            optimizer.register_step_pre_hook(partial(self.start, "optimizer")),
            optimizer.register_step_post_hook(partial(self.stop, "optimizer")),
        ]
        trainer.prepare = self.around("prepare", prepare)
        trainer.fabric.backward = self.around("backward", backward)
        try:
            yield
        finally:
            trainer.prepare, trainer.fabric.backward = prepare, backward
            for hook in hooks:
                hook.remove()


def _profiler(trainer: Trainer, trace: Path | None) -> AbstractContextManager[Any]:
    if trace is None:
        return nullcontext()
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if trainer.hardware.device == "cuda" else [])]
    trace.parent.mkdir(parents=True, exist_ok=True)
    return profile(activities=kinds, on_trace_ready=lambda done: done.export_chrome_trace(str(trace)))


def _costliest(profiler: profile) -> list[tuple[str, float]]:
    """Operators with the largest share of the time spent in themselves."""
    events = [event for event in profiler.key_averages() if not event.key.startswith("foldcraft: ")]
    own = {event.key: event.self_device_time_total or event.self_cpu_time_total for event in events}
    total = sum(own.values()) or 1
    return [(name, own[name] / total) for name in sorted(own, key=lambda name: -own[name])[:TOP]]


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _decoding(subject: Subject) -> float:
    """Seconds that one image takes to be decoded and made square."""
    spec = subject.experiment.image_spec(subject.blueprint)
    paths = subject.competition.train_paths[:DECODED]

    def work() -> None:
        for path in paths:
            pictures.square(path, spec)

    return _timed(work) / len(paths)
