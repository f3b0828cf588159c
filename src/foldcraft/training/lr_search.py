"""The learning rate, found by three short trainings on one fold."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from foldcraft.common import checksums
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import locked
from foldcraft.training.distributed import Processes
from foldcraft.training.plan import plan
from foldcraft.training.trainer import Fitted, RunawayLoss, Task

SHARE = 0.2  # of the epochs
STEP = 3.0  # from one candidate to the next
# Where the middle of the three lies. Fewer trained parameters bear, and need, larger steps.
MIDDLE = {"full": 5e-4, "norm": 3e-3, "lora": 1e-3, "linear_probe": 1e-3}


def candidates(config: Config) -> list[float]:
    """The three learning rates that are tried."""
    middle = MIDDLE[config.finetune.mode]
    return [middle / STEP, middle, middle * STEP]


def with_lr(config: Config, lr: float) -> Config:
    """The config with that learning rate."""
    return config.model_copy(update={"optim": config.optim.model_copy(update={"lr": lr})})


def find_lr(
    task: Task, train: Callable[[Task], Fitted], memory: Path, processes: Processes, callback: Callback
) -> dict[str, float]:
    """Validation loss of each candidate after a fifth of the epochs, the best of them under "lr".

    The loss, not the score: on few rows it tells settings apart sooner. What was found is kept in `memory`, so all
    folds of an experiment use the same.

    Args:
        task: the training of the fold it is tried on.
        train: trains a task from the start to its end.

    Raises:
        FoldcraftError: no candidate gave a finite loss.
    """
    if found := processes.from_first(lambda: _recall(memory, task)):
        return found
    if processes.world > 1:
        return _try_all(task, train, memory, processes, callback)
    with locked(memory.with_suffix(".lock")):  # folds that start side by side wait for one search
        return _recall(memory, task) or _try_all(task, train, memory, processes, callback)


def _recall(memory: Path, task: Task) -> dict[str, float] | None:
    try:
        kept = checksums.read_json(memory)
    except (OSError, ValueError):
        return None
    return kept["found"] if kept.get("identity") == task.identity else None


def _try_all(
    task: Task, train: Callable[[Task], Fitted], memory: Path, processes: Processes, callback: Callback
) -> dict[str, float]:
    losses: dict[str, float] = {}
    for lr in candidates(task.config):
        tried = _short_loss(task, train, lr)  # by all processes together; the first one alone knows the loss
        loss = processes.from_first(lambda tried=tried: tried)
        if loss is not None:
            losses[f"{lr:.2g}"] = loss
            callback.note(f"learning rate {lr:.2g}: validation loss {loss:.4f} after a short training")
    if not losses:
        raise FoldcraftError("no learning rate led to a finite loss", "optim.lr", "give a number instead of auto")
    best = min(losses, key=lambda name: losses[name])
    callback.note(f"learning rate {best} chosen")
    found = {"lr": float(best), **losses}
    if processes.is_first:
        checksums.write_json(memory, {"identity": task.identity, "found": found})
    return found


def _short_loss(task: Task, train: Callable[[Task], Fitted], lr: float) -> float | None:
    """Loss after a fifth of the epochs, with a schedule of that length; None where it ran away."""
    epochs = plan(len(task.train_rows), task.config.train, task.config.optim, task.config.augment).epochs
    config = with_lr(task.config, lr)
    short = config.train.model_copy(update={"epochs": max(1, round(SHARE * epochs)), "patience": 0})
    with TemporaryDirectory() as folder:
        files = {"state_file": Path(folder) / "last.ckpt", "history_file": Path(folder) / "history.csv"}
        tried = replace(task, config=config.model_copy(update={"train": short}), **files)
        try:
            fitted = train(tried)
        except RunawayLoss:
            return None
    loss = fitted.history[-1].get("valid_loss", math.nan)  # the first process alone has it
    return loss if math.isfinite(loss) else None
