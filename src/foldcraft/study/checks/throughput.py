"""Is the machine used well, and is what it computes exact enough? Falcon's seven tips."""

import time
import warnings
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from foldcraft.common.errors import counted
from foldcraft.data.loader import EpochBatches, default_workers, train_loader
from foldcraft.models import finetune
from foldcraft.models.hardware import Hardware, cores
from foldcraft.models.inputs import Inputs, forward
from foldcraft.study.checks.profile import Timetable, take
from foldcraft.study.checks.result import NOTE, CheckResult, not_applicable, noted, verdict
from foldcraft.study.checks.subject import Subject
from foldcraft.study.checks.training import NOTHING_TRAINED
from foldcraft.training.trainer import Trainer

COUNTS = (0, 1, 2, 4, 8)
TIMED = 8  # batches
WORTH_IT = 0.1  # another number of workers must save this share of a step
ALIGNED = 0.5  # cosine of the gradients in both; .61 cost nothing in a whole training (docs/experiments.md)
TRIES = 3  # some kernels go wrong at times
APART = 0.05  # of probabilities, between the chosen precision and 32 bits


def timetable(subject: Subject) -> Timetable:
    """Where the time of a step goes; taken once."""
    if "timetable" not in subject.kept:
        subject.kept["timetable"] = take(subject)
    return subject.kept["timetable"]


def workers(subject: Subject) -> CheckResult:
    """As many processes draw batches as keep the net from waiting."""
    if not subject.trains:
        return not_applicable(NOTHING_TRAINED)
    trainer = subject.trainer(subject.as_is)
    batch, on_cpu = trainer.batches.batch, trainer.hardware.device == "cpu"
    chosen = trainer.loader.num_workers
    counts = sorted({*(n for n in COUNTS if n <= cores()), chosen})
    draw = {n: _seconds_a_batch(trainer, n) for n in counts}
    net = timetable(subject).net_seconds
    step = {n: net + draw[n] if n == 0 else max(net, draw[n]) for n in counts}
    best = min(step, key=lambda n: step[n])
    rates = ", ".join(f"{n}: {batch / draw[n]:.0f}" for n in counts)
    number = f"images/s drawn by workers {rates}; the net takes {batch / net:.0f}; {chosen} are used, {best} is fastest"
    sound = step[chosen] <= (1 + WORTH_IT) * step[best]
    saved = 1 - step[best] / step[chosen]
    hint = f"set machine.workers={best}: about {saved:.0%} of a step less"
    if on_cpu and best > default_workers(cores(), on_cpu):
        hint += ", where the net leaves cores for it"
    return noted(sound, number, hint, chosen=chosen, best=best, **{f"rate_{n}": batch / draw[n] for n in counts})


def _seconds_a_batch(trainer: Trainer, count: int) -> float:
    """Seconds between batches once they flow; no batch is drawn beyond those that are timed."""
    timed = TIMED * max(1, count)
    rows = np.resize(trainer.task.train_rows, trainer.batches.batch * (1 + timed))
    batches = EpochBatches(rows, trainer.batches.batch, 0)
    pin = trainer.hardware.device == "cuda"
    flow = iter(train_loader(trainer.loader.dataset, batches, count, pin))
    next(flow)  # workers have started
    began = time.perf_counter()
    for _ in flow:
        pass
    return (time.perf_counter() - began) / timed


def memory(subject: Subject) -> CheckResult:
    """Batches are pinned for a CUDA device and for nothing else."""
    if not subject.trains:
        return not_applicable(NOTHING_TRAINED)
    trainer = subject.trainer(subject.as_is)
    device, pinned = trainer.hardware.device, trainer.loader.pin_memory
    number = f"pin_memory={pinned} on {device}"
    return verdict(pinned == (device == "cuda"), number, "pin for CUDA only (fit.Trainer)", pinned=pinned)


def waits(subject: Subject) -> CheckResult:
    """Steps do not wait for the device, and what they need is made there."""
    if not subject.trains:
        return not_applicable(NOTHING_TRAINED)
    trainer = subject.trainer(subject.as_is, machine={"workers": 0})
    if trainer.hardware.device != "cuda":
        return not_applicable(f"{trainer.hardware.device} computes as it is told; only CUDA can be kept waiting")
    batches = [batch for _, batch in zip(range(3), trainer.loader, strict=False)]
    trainer.step(batches[0], 0)  # cudnn tries its ways out
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            for step, batch in enumerate(batches[1:], start=1):
                trainer.step(batch, step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    count = sum("synchronizing" in str(one.message) for one in heard)
    number = f"{count} waits for the device in {len(batches) - 1} steps (wanted: 0)"
    return noted(not count, number, "take .item(), .cpu() and tensors made on the CPU out of the step", waits=count)


def processes(subject: Subject) -> CheckResult:
    """Folds are processes of their own; DDP is for a fold that one device cannot hold."""
    count = torch.cuda.device_count() if subject.as_is.hardware.device == "cuda" else 1
    number = f"{subject.whole.folds.count} folds, {counted(count, 'device')}, {cores()} cores"
    if count > 1:
        return CheckResult(
            NOTE, number, f"train folds side by side: --fold all --jobs {count}; that beats DDP on small data"
        )
    return noted(True, f"{number}: one fold after the other uses them", "")


def precision(subject: Subject) -> CheckResult:
    """What the chosen precision changes beside 32 bits, in a net's answers and in its gradient."""
    chosen = subject.as_is.hardware
    if chosen.precision == "32-true":
        return not_applicable(f"computes in 32 bits ({chosen.why()})")
    exact = replace(chosen, precision="32-true")
    trainer = subject.by_heart.trainer
    net, prepare = trainer.bare_model.eval(), trainer.prepare
    batch = trainer.loader.dataset.at(next(iter(trainer.batches)))
    inputs, targets = Inputs(prepare(batch.images)), batch.targets.to(chosen.device)
    coarse, wanted = (_answers(net, inputs, hardware) for hardware in (chosen, exact))
    target = subject.competition.target
    apart = target.space.far(*(target.predictions(outputs.float()).numpy() for outputs in (coarse, wanted)))
    off = float((coarse - wanted).abs().max())
    learner = subject.trainer(
        subject.plain, trainer.task.train_rows, train={"batch": len(inputs)}, machine={"workers": 0}
    )
    finetune.train_mode(learner.bare_model, learner.config.finetune)
    true = _gradient(learner, inputs, targets, exact)
    cosines = [float(F.cosine_similarity(_gradient(learner, inputs, targets, chosen), true, 0)) for _ in range(TRIES)]
    sound = apart <= APART and min(cosines) >= ALIGNED  # neither holds of what is no number
    what = "values, in units of their scale," if target.space.form == "values" else "probabilities"
    number = f"{chosen.precision}: {what} up to {apart:.2g} apart from 32 bits (wanted: below {APART}), "
    number += f"logits {off:.2g}; cosine of the gradients {min(cosines):.4f} (wanted: {ALIGNED})"
    hint = "set machine.precision=32-true"
    return verdict(sound, number, hint, logits=off, probabilities=apart, cosine=min(cosines))


def _answers(net: nn.Module, inputs: Inputs, hardware: Hardware) -> torch.Tensor:
    with torch.no_grad(), hardware.autocast():
        return forward(net, inputs).cpu()


def _gradient(trainer: Trainer, inputs: Inputs, targets: torch.Tensor, hardware: Hardware) -> torch.Tensor:
    """Gradient of one batch's loss in all that is trained, side by side."""
    net = trainer.bare_model
    with hardware.autocast():
        logits = forward(net, inputs)
    trained = [value for value in net.parameters() if value.requires_grad]
    gradients = torch.autograd.grad(trainer.loss(logits, targets), trained, allow_unused=True)
    return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]).cpu()
