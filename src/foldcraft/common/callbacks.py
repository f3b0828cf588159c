"""What wants to know how a training goes: the terminal, a tracker, a test."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from foldcraft.common.config import Config
from foldcraft.common.paths import FoldFolder


class Callback:
    """Listens and must not change anything; each method may be left as it is."""

    def say(self, text: str) -> None:
        """One line for people: a result, or a warning."""

    def note(self, text: str) -> None:
        """One line on the way to a result, which a quiet command keeps to itself."""

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[int], object]]:
        """A stretch of work; call what this gives with each amount that is done."""
        yield lambda done: None

    def fold_started(self, config: Config, folder: FoldFolder, about: dict[str, Any]) -> None:
        """A fold begins, or goes on."""

    def started(self, epochs: int, images: int, epochs_done: int) -> None:
        """Training of so many epochs of so many images each begins, or goes on."""

    def stepped(self, images: int) -> None:
        """So many more images have been learned from."""

    def epoch_ended(self, row: dict[str, float]) -> None:
        """An epoch is over; `row` is its line in the history.

        Without `valid_loss` and `score` where the held-out images were not looked at.
        """

    def fold_ended(self, manifest: dict[str, Any]) -> None:
        """A fold is done."""
