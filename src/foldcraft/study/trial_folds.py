"""Where the folds of a sweep's trials are trained: in this process one after the other, or as commands side by side."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from foldcraft.common import executor
from foldcraft.common.callbacks import Callback
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.executor import Task
from foldcraft.common.paths import FoldFolder
from foldcraft.common.places import Place
from foldcraft.predictions.experiment import Experiment
from foldcraft.training.distributed import Processes
from foldcraft.training.fold import train_fold

INTERRUPTED = (-signal.SIGINT, 128 + signal.SIGINT)  # exit codes of a command that Ctrl-C has ended


@dataclass(frozen=True)
class TrialFold:
    """A fold of a trial.

    Attributes:
        name: of the trial, for people.
        words: the settings that are tried, as `key=value`.
    """

    name: str
    words: Sequence[str]
    experiment: Experiment
    fold: int


Outcome = dict[str, Any] | FoldcraftError  # the manifest of a fold, or why there is none
Train = Callable[[Sequence[TrialFold], Callback], list[Outcome]]


def train_here(folds: Sequence[TrialFold], callback: Callback) -> list[Outcome]:
    """Train them in this process, one after the other."""
    return [_train(each, callback) for each in folds]


def _train(each: TrialFold, callback: Callback) -> Outcome:
    try:
        return train_fold(each.experiment, each.fold, Processes(), callback)
    except FoldcraftError as error:
        return error
    except torch.OutOfMemoryError:
        return FoldcraftError("not enough memory", " ".join(each.words))


@dataclass(frozen=True)
class TrainByCommands:
    """Trains them several at a time, here or on a cluster, each by a command that ends when this process does.

    Attributes:
        command: arguments for Python: src/train.py with all but the settings of a trial and the fold.
        place: where they run.
        left: seconds that they may take; then they are ended.
    """

    command: Sequence[str]
    place: Place
    left: Callable[[], float | None] = lambda: None

    def __call__(self, folds: Sequence[TrialFold], callback: Callback) -> list[Outcome]:
        """As `train_here`.

        Raises:
            KeyboardInterrupt: one of the commands was interrupted.
        """
        first = {(each.experiment.config.experiment, each.fold): each for each in reversed(folds)}  # equal trials share
        errors: dict[str, str] = {}

        def say(line: str) -> None:
            name, is_error, text = line.partition("] error: ")
            if is_error:
                errors[name.removeprefix("[")] = text  # told as the reason of the trial's failure
            else:
                callback.say(line)

        tasks = [self._task(each) for each in first.values()]
        codes = executor.run(tasks, self.place.executor(torch.cuda.device_count(), self.left()), say)
        if set(codes.values()) & set(INTERRUPTED):
            raise KeyboardInterrupt
        names = {place: each.name for place, each in first.items()}
        return [_outcome(each, names[each.experiment.config.experiment, each.fold], codes, errors) for each in folds]

    def _task(self, each: TrialFold) -> Task:
        gpus = 0 if each.experiment.config.machine.device == "cpu" else None
        return Task(each.name, [*self.command, *each.words, "--fold", str(each.fold)], gpus=gpus)


def _outcome(each: TrialFold, name: str, codes: dict[str, int], errors: dict[str, str]) -> Outcome:
    """What became of a fold that the task of that name has trained."""
    if not (code := codes[name]):
        return FoldFolder.of(each.experiment.config, each.fold).manifest_of_task()
    if name in errors:
        return FoldcraftError(errors[name])
    where = f"{each.experiment.config.experiment}, fold {each.fold}"
    if code < 0:
        return FoldcraftError(
            f"was killed by signal {-code}", where, "the machine's memory may be full; use fewer --jobs"
        )
    return FoldcraftError(f"its training ended with exit code {code}", where, "what it said stands above")
