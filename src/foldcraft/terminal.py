"""What a person at the terminal sees: bars where there is a terminal, plain lines where there is none."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from foldcraft.audience import Audience
from foldcraft.config import Config
from foldcraft.errors import printable
from foldcraft.recipe import Plan
from foldcraft.rundir import FoldFolder

WIDTH = 200  # of lines where nothing says how long they may be


class Terminal(Audience):
    """Prints to stdout; `prefix` tells folds apart that run side by side."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        if not self.console.is_terminal:  # a log file has no width
            self.console.width = WIDTH
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.fold, self.epochs = 0, 0

    def say(self, text: str) -> None:
        self.console.print("\n".join(map(printable, text.split("\n"))), markup=False)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table whose first column is text and whose others are numbers; a narrow terminal gets longer lines."""
        table = Table(title=escape(title), title_justify="left", title_style="bold")
        for number, column in enumerate(columns):
            table.add_column(escape(printable(column)), justify="right" if number else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(escape(printable(str(cell))) for cell in row))
        # Fitted into a narrow terminal, numbers would lose their digits.
        Console(highlight=False, soft_wrap=True, width=max(WIDTH, self.console.width)).print(table)

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[int], object]]:
        done = 0
        with self._bar(transient=True) as bar:
            task = bar.add_task(title, total=total, visible=False)

            def advance(amount: int) -> None:
                nonlocal done
                done += amount
                bar.update(task, advance=amount, visible=True)

            yield advance
        if done:
            self.say(f"{title}: {done}")

    def _bar(self, transient: bool) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=transient,
            disable=not self.console.is_terminal,
        )

    def fold_started(self, config: Config, folder: FoldFolder, about: dict[str, Any]) -> None:
        self.fold = folder.fold
        self.say(f"fold {self.fold}: {config.experiment} on {about['hardware']} ({about['why']})")

    def started(self, plan: Plan, epochs_done: int) -> None:
        self.epochs = plan.epochs
        images = plan.batch * plan.steps_per_epoch
        self.bar = self._bar(transient=True)
        self.bar.start()
        self.task = self.bar.add_task(
            self._title(epochs_done), total=images * plan.epochs, completed=images * epochs_done
        )
        if epochs_done:
            self.say(f"fold {self.fold}: goes on after epoch {epochs_done}")

    def stepped(self, images: int) -> None:
        if self.bar and self.task is not None:
            self.bar.update(self.task, advance=images)

    def epoch_ended(self, row: dict[str, float]) -> None:
        line = (
            f"{self._title(int(row['epoch']))}  loss {row['loss']:.4f}  valid loss {row['valid_loss']:.4f}  "
            f"score {row['score']:.4f}  {row['images_per_second']:.0f} images/s"
        )
        if self.bar and self.task is not None:
            self.bar.update(self.task, description=line)
        if not self.console.is_terminal:
            self.say(line)

    def _title(self, epoch: int) -> str:
        return f"fold {self.fold}  epoch {epoch}/{self.epochs}"

    def fold_ended(self, manifest: dict[str, Any], truth: np.ndarray, predicted: np.ndarray) -> None:
        self.close()
        self.say(
            f"fold {self.fold}: done, {manifest['metric']} {manifest['score']:.4f} "
            f"({manifest['epochs']} epochs, {manifest['seconds']:.0f} s)"
        )

    def close(self) -> None:
        """Take the bar down."""
        if self.bar:
            self.bar.stop()
            self.bar = None


class Several(Audience):
    """Several audiences as one."""

    def __init__(self, *members: Audience) -> None:
        self.members = members

    def say(self, text: str) -> None:
        for member in self.members:
            member.say(text)

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[int], object]]:
        with self.members[0].progress(title, total) as advance:
            yield advance

    def fold_started(self, config: Config, folder: FoldFolder, about: dict[str, Any]) -> None:
        for member in self.members:
            member.fold_started(config, folder, about)

    def started(self, plan: Plan, epochs_done: int) -> None:
        for member in self.members:
            member.started(plan, epochs_done)

    def stepped(self, images: int) -> None:
        for member in self.members:
            member.stepped(images)

    def epoch_ended(self, row: dict[str, float]) -> None:
        for member in self.members:
            member.epoch_ended(row)

    def fold_ended(self, manifest: dict[str, Any], truth: np.ndarray, predicted: np.ndarray) -> None:
        for member in self.members:
            member.fold_ended(manifest, truth, predicted)
