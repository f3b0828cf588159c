"""What a person at the terminal sees: bars where there is a terminal, plain lines where there is none."""

import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from foldcraft.common import executor, output_streams
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.errors import counted, printable
from foldcraft.common.paths import FoldFolder

ENDLESS = 10_000  # columns of what is no terminal: a file has no width
WIDE, MIDDLING = 90, 60  # columns of a terminal from which on a bar shows all, or the most of it
NUMBER = tuple("+-−–±0123456789.")


class _Console(Console):
    """One that outlives its reader."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        output_streams.let_go()


class Terminal(Callback):
    """Prints to stdout.

    Colours follow NO_COLOR and FORCE_COLOR; bars appear on a terminal only, whatever these say.

    Args:
        quiet: show results, and nothing of the way to them.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = _Console(highlight=False, emoji=False, soft_wrap=True)
        self.has_width = sys.stdout.isatty()
        self.is_live = self.has_width and self.console.is_interactive
        if not self.has_width:
            self.console.width = ENDLESS
        self._shown = False
        self._page: list[RenderableType] | None = None
        self._bars: _Bars | None = None
        self._pinned: Callable[[], RenderableType] | None = None
        self._training: TaskID | None = None
        self._fold, self._epochs = 0, 0
        self._weights = ""
        self._explained: set[str] = set()  # what was said to compute on what, and why

    def say(self, text: str) -> None:
        shown = "\n".join(map(printable, text.split("\n")))
        self._show(Text(shown, style="yellow" if text.startswith("warning:") else ""))

    def note(self, text: str) -> None:
        if not self.quiet:
            self.say(text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table, as wide as it is where there is no terminal; in a narrow one a row becomes a few lines."""
        cells = [[printable(str(cell)) for cell in row] for row in rows]
        columns = list(map(printable, columns))
        shown: RenderableType = _table(columns, cells)
        if not self._fits(shown):
            shown = _table([_folded(name, number, cells) for number, name in enumerate(columns)], cells)
        if not self._fits(shown):
            shown = _stacked(columns, cells, self.console.width)
        above = [""] if self._shown else []
        if title:
            above.append(Text(textwrap.fill(printable(title), self.console.width), "bold"))
        self._show(Group(*above, shown))

    def _fits(self, table: Table) -> bool:
        options = self.console.options.update(width=ENDLESS)
        return Measurement.get(self.console, options, table).maximum <= self.console.width

    def _show(self, what: RenderableType) -> None:
        self._shown = True
        if self._page is not None:
            self._page.append(what)
        else:
            self.console.print(what)

    def watch(self, draw: Callable[[], object], seconds: float) -> None:
        """Fill the terminal with what `draw` prints, again every so many seconds, until Ctrl-C."""
        with suppress(KeyboardInterrupt), Live(console=self.console, screen=True, auto_refresh=False) as live:
            while True:
                self._page, self._shown = [], False
                try:
                    draw()
                    live.update(Group(*self._page), refresh=True)
                finally:
                    self._page = None
                time.sleep(seconds)

    def pin(self, title: Callable[[], str], columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Keep a table in sight, above the bars and below all that is said; none where there is no live terminal.

        Args:
            title: asked each time that it is drawn.
        """
        if self.quiet or not self.is_live:
            return
        shown: RenderableType = _table(columns, [[printable(cell) for cell in row] for row in rows])
        if not self._fits(shown):
            shown = _table(columns[:4], [[printable(cell) for cell in row[:4]] for row in rows])
        self._pinned = lambda: Group(Text(printable(title()), "bold"), shown)
        if self._bars is None:
            self._bars = _Bars(self.console, self._above)
            self._bars.start()
        self._bars.refresh()

    def _above(self) -> RenderableType | None:
        return self._pinned() if self._pinned else None

    def unpin(self) -> None:
        """Take that table down."""
        self._pinned = None
        self._stop_idle_bars()

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[int], object]]:
        done, task = 0, None

        def advance(amount: int) -> None:
            nonlocal done, task
            done += amount
            if task is None:  # what is there already needs no bar
                task = self._begin(title, total)
            self._move(task, amount)

        try:
            yield advance
        finally:
            self._end(task)
        if done:
            self.note(f"{title}: {done}")

    def fold_started(self, config: Config, folder: FoldFolder, about: dict[str, Any]) -> None:
        self._fold = folder.fold
        if (weights := about.get("weights")) and weights != self._weights:  # said once, not with every fold
            self.note(weights)
            self._weights = weights
        on = f"{config.experiment} on {about['hardware']}"
        why = f" ({about['why']})" if executor.IS_TASK not in os.environ and on not in self._explained else ""
        self._explained.add(on)
        self.note(f"fold {self._fold}: {on}{why}")

    def started(self, epochs: int, images: int, epochs_done: int) -> None:
        self._epochs = epochs
        self._training = self._begin(
            f"fold {self._fold}",
            images * epochs,
            completed=images * epochs_done,
            amount=self._epoch(epochs_done + 1),
            unit=" images",
        )
        if epochs_done:
            self.note(f"fold {self._fold}: goes on after epoch {epochs_done}")

    def stepped(self, images: int) -> None:
        self._move(self._training, images)

    def epoch_ended(self, row: dict[str, float]) -> None:
        epoch = int(row["epoch"])
        if self._bars and self._training is not None:
            fields = {name: f"{name} {row[name]:.4f}" for name in ("loss", "score") if name in row}
            self._bars.update(self._training, amount=self._epoch(epoch + 1), **fields)
            self._bars.refresh()  # an epoch may be over before the bars are drawn again by themselves
            if epoch == self._epochs:
                self.close()
        if not self.is_live:
            seen = [f"{n.replace('_', ' ')} {row[n]:.4f}" for n in ("loss", "valid_loss", "score") if n in row]
            self.note(
                f"fold {self._fold}  {self._epoch(epoch)}  {'  '.join(seen)}  "
                f"{row['images_per_second']:.0f} images/s{self._left(row)}"
            )

    def _epoch(self, number: int) -> str:
        return f"epoch {min(number, self._epochs)}/{self._epochs}"

    def _left(self, row: dict[str, float]) -> str:
        """How long the epochs to come will take, if they take as long as those before."""
        to_come = self._epochs - row["epoch"]
        return f"  {duration(row['seconds'] / row['epoch'] * to_come)} left" if to_come else ""

    def fold_ended(self, manifest: dict[str, Any]) -> None:
        self.close()
        self.note(
            f"fold {self._fold}: done, {manifest['metric']} {manifest['score']:.4f} "
            f"({counted(manifest['epochs'], 'epoch')}, {manifest['seconds']:.0f} s)"
        )

    def close(self) -> None:
        """Take the training's bar down."""
        self._end(self._training)
        self._training = None

    def _begin(self, title: str, total: int, **fields: Any) -> TaskID | None:
        if self.quiet or not self.is_live:
            return None
        if self._bars is None:
            self._bars = _Bars(self.console, self._above)
            self._bars.start()
        return self._bars.add_task(title, total=total, **fields)

    def _move(self, task: TaskID | None, amount: int) -> None:
        if self._bars and task is not None:
            self._bars.update(task, advance=amount)

    def _end(self, task: TaskID | None) -> None:
        if self._bars is None or task is None:
            return
        self._bars.remove_task(task)
        self._stop_idle_bars()

    def _stop_idle_bars(self) -> None:
        if self._bars is not None and self._pinned is None and not self._bars.tasks:
            self._bars.stop()
            self._bars = None


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, 1:02:03."""
    return str(timedelta(seconds=round(seconds)))


class _Word(ProgressColumn):
    """A column of a bar that says something of the task."""

    def __init__(self, word: Callable[[Task], str], overflow: str = "crop") -> None:
        super().__init__(Column(no_wrap=True, overflow=overflow))
        self.word = word

    def render(self, task: Task) -> Text:
        return Text(self.word(task))


def _amount(task: Task) -> str:
    return task.fields.get("amount") or f"{task.completed:.0f}/{task.total:.0f}"


def _speed(task: Task) -> str:
    speed = task.finished_speed or task.speed
    return f"{speed:,.0f}{task.fields.get('unit', '')}/s" if speed else ""


class _Bars(Progress):
    """Tasks a line each: what, how much, how fast, how long still, loss and score; a narrow terminal gets less.

    Args:
        above: what stands above them, if anything.
    """

    def __init__(self, console: Console, above: Callable[[], RenderableType | None]) -> None:
        self.shown_on, self.above = console, above
        super().__init__(console=console, transient=True)

    def get_renderables(self) -> Iterator[RenderableType]:
        if (above := self.above()) is not None:
            yield above
        yield from super().get_renderables()

    def make_tasks_table(self, tasks: Sequence[Task]) -> Table:
        self.columns = _columns(self.shown_on.width)
        return super().make_tasks_table(tasks)


def _columns(width: int) -> tuple[ProgressColumn, ...]:
    title, amount = _Word(lambda task: task.description, "ellipsis"), _Word(_amount)
    left = TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True))
    loss, score = (_Word(lambda task, key=key: task.fields.get(key, "")) for key in ("loss", "score"))
    if width >= WIDE:
        return title, BarColumn(20), amount, _Word(_speed), left, loss, score
    if width >= MIDDLING:
        return title, BarColumn(8), amount, _Word(_speed), left, score
    return title, amount, left


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Text to the left, numbers to the right."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        numbers = number and all(row[number].startswith(NUMBER) for row in rows if row[number])
        table.add_column(Text(column), justify="right" if numbers else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _folded(name: str, number: int, rows: Sequence[Sequence[str]]) -> str:
    """A column's name on as many lines as make it no wider than what stands below it."""
    below = max((len(row[number]) for row in rows), default=0)
    return textwrap.fill(name, max(below, 1), break_long_words=False, break_on_hyphens=False)


def _stacked(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Text:
    """A row as a few lines: its first cell, then each other with its column's name."""
    lines: list[Text] = []
    for row in rows:
        pairs = [f"{name} {cell}".strip() for name, cell in zip(columns[1:], row[1:], strict=True) if cell]
        lines.append(Text(row[0], "bold"))
        lines += [Text(line) for line in _packed(pairs, width)]
    return Text("\n").join(lines)


def _packed(pairs: Sequence[str], width: int, indent: str = "  ", between: str = " · ") -> Iterator[str]:
    """As many pairs on a line as it holds; one that is too long by itself is broken between words."""
    line = ""
    for pair in pairs:
        longer = f"{line}{between}{pair}" if line else pair
        if line and len(indent + longer) > width:
            yield from textwrap.wrap(line, width, initial_indent=indent, subsequent_indent=indent * 2)
            longer = pair
        line = longer
    yield from textwrap.wrap(line, width, initial_indent=indent, subsequent_indent=indent * 2)


class CallbackList(Callback):
    """Several callbacks as one."""

    def __init__(self, *members: Callback) -> None:
        self.members = members

    def say(self, text: str) -> None:
        for member in self.members:
            member.say(text)

    def note(self, text: str) -> None:
        for member in self.members:
            member.note(text)

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[int], object]]:
        with self.members[0].progress(title, total) as advance:
            yield advance

    def fold_started(self, config: Config, folder: FoldFolder, about: dict[str, Any]) -> None:
        for member in self.members:
            member.fold_started(config, folder, about)

    def started(self, epochs: int, images: int, epochs_done: int) -> None:
        for member in self.members:
            member.started(epochs, images, epochs_done)

    def stepped(self, images: int) -> None:
        for member in self.members:
            member.stepped(images)

    def epoch_ended(self, row: dict[str, float]) -> None:
        for member in self.members:
            member.epoch_ended(row)

    def fold_ended(self, manifest: dict[str, Any]) -> None:
        for member in self.members:
            member.fold_ended(manifest)
