"""A competition while it runs: what was done, what runs, what is next and why; and what it came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from foldcraft.views.terminal import duration

if TYPE_CHECKING:
    from foldcraft.study.compete.history import Entry, History
    from foldcraft.study.compete.run import Option, Show, Standing
    from foldcraft.views.terminal import Terminal

DONE = 8  # of the actions that are shown while others run


@contextmanager
def shown(terminal: Terminal) -> Iterator[Show]:
    """What is told how it stands: lines, and on a terminal a table above the bars."""

    def show(standing: Standing) -> None:
        if standing.entries:
            terminal.note(_line(standing.entries[-1], standing))
        if standing.running:
            terminal.note(_begins(standing.running, standing))

    yield show


def _begins(option: Option, standing: Standing) -> str:
    left = duration(standing.budget - standing.used)
    folds = "" if not option.action.fold_by_fold else f", fold {', '.join(map(str, option.folds))}"
    return (
        f"next: {option.action.name}{folds}: {option.action.why}; may take {option.belief.mean:+.1%} ± "
        f"{option.belief.error:.1%} off the loss in {duration(option.seconds)}; {left} left"
    )


def _line(entry: Entry, standing: Standing) -> str:
    gain = "" if entry.gain is None else f" {entry.gain:+.1%} ± {entry.error:.1%} of the loss,"
    if not entry.is_whole:
        return f"{entry.action}:{gain} in {duration(entry.took)}"
    kept = f"wrote {entry.submission}" if entry.submission else "the submission stays"
    return (
        f"{entry.action}:{gain} in {duration(entry.took)}; best {standing.metric} {entry.score:.4f} "
        f"({entry.low:.4f}–{entry.high:.4f}); {kept}"
    )


def tell(history: History, terminal: Terminal) -> None:
    """What was done, and one paragraph on what helped."""
    columns = ["", "at", "took", "forecast", "alone", "gain", "nested OOF", "95 % interval", "submission"]
    terminal.table("what was done", columns, [_row(entry) for entry in history.entries])
    for line in summary(history.entries):
        terminal.say(line)


def _row(entry: Entry) -> tuple[str, ...]:
    folds = "" if entry.is_whole else f", fold {', '.join(map(str, entry.folds))}"
    gain = "" if entry.gain is None else f"{entry.gain:+.1%} ± {entry.error:.1%}"
    alone = "" if entry.alone is None else f"{entry.alone:.4f}"
    score = ("", "") if not entry.is_whole else (f"{entry.score:.4f}", f"{entry.low:.4f}–{entry.high:.4f}")
    times = (duration(entry.seconds), duration(entry.took), duration(entry.expected))
    return (f"{entry.action}{folds}", *times, alone, gain, *score, entry.submission or "")


def summary(entries: Sequence[Entry]) -> list[str]:
    """What helped, and what did not, in a few sentences."""
    whole = [entry for entry in entries if entry.is_whole]
    if not whole:
        return []
    last = [entry for entry in whole if entry.submission][-1]
    return [f"the best submission is {last.submission}: nested {last.score:.4f} ({last.low:.4f}–{last.high:.4f})"]
