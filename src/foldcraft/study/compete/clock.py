"""The budget of time: how much of it is used, over all runs of the command, and an end to what takes too long."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from foldcraft.common.callbacks import Callback

NOTED = 5.0  # seconds after which the time that is used is noted: so much is not counted where a run is killed


class TimeIsUp(Exception):
    """What was begun does not fit into the budget; what it has written so far can be gone on with."""


@dataclass(frozen=True)
class Clock:
    """A budget that runs while the command does.

    Attributes:
        budget: seconds in all.
        before: seconds that earlier runs of the same command took.
        began: reading of `time.monotonic` when this run began.
    """

    budget: float
    before: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def used(self) -> float:
        """Seconds, those of earlier runs among them."""
        return self.before + time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds; below 0 where the budget was overdrawn."""
        return self.budget - self.used


class UntilTimeIsUp(Callback):
    """Passes on what it hears, and ends the work with `TimeIsUp` where too little is left.

    Args:
        reserve: seconds that must be left for what comes after the work.
        note_time: is told how much is used, every few seconds.
    """

    def __init__(
        self, listener: Callback, clock: Clock, reserve: float, note_time: Callable[[float], object] = lambda used: None
    ) -> None:
        self.listener, self.clock, self.reserve, self.note_time = listener, clock, reserve, note_time
        self._noted = clock.used

    def _check(self) -> None:
        if self.clock.used > self._noted + NOTED:
            self._noted = self.clock.used
            self.note_time(self._noted)
        if self.clock.left < self.reserve:
            raise TimeIsUp

    def say(self, text: str) -> None:
        self.listener.say(text)

    def note(self, text: str) -> None:
        self.listener.note(text)

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[int], object]]:
        with self.listener.progress(title, total) as advance:

            def checked(done: int) -> None:
                advance(done)
                self._check()

            yield checked

    def fold_started(self, *about: Any) -> None:
        self.listener.fold_started(*about)

    def started(self, epochs: int, images: int, epochs_done: int) -> None:
        self.listener.started(epochs, images, epochs_done)

    def stepped(self, images: int) -> None:
        self.listener.stepped(images)
        self._check()

    def epoch_ended(self, row: dict[str, float]) -> None:
        self.listener.epoch_ended(row)

    def fold_ended(self, manifest: dict[str, Any]) -> None:
        self.listener.fold_ended(manifest)
