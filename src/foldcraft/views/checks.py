"""The checks of the training code: a line each as soon as it is known, and where the time of a step goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foldcraft.study.checks.titles import TITLES

if TYPE_CHECKING:
    from foldcraft.study.checks.run import Line, Report
    from foldcraft.views.terminal import Terminal

WIDTH = max(map(len, TITLES.values()))


def tell(line: Line, terminal: Terminal) -> None:
    """What a check has found, and how to mend it."""
    result = line.finding
    terminal.say(f"{result.status:5} {line.title:{WIDTH}}  {result.number}")
    if result.hint:
        terminal.say(f"{'':5} {'':{WIDTH}}  -> {result.hint}")


def show_time(report: Report, terminal: Terminal) -> None:
    """Where the time of a step goes."""
    if report.timetable is None:
        return
    rows = [
        (name, f"{milliseconds:.2f}", "" if share is None else f"{share:.0%}")
        for name, milliseconds, share in report.timetable.rows()
    ]
    terminal.table(f"a step of {report.timetable.batch} images", ["part", "ms an image", "of a step"], rows)
    if report.timetable.operators:
        rows = [(name, f"{share:.1%}") for name, share in report.timetable.operators]
        terminal.table("costliest operators", ["operator", "of the time"], rows)


def summary(report: Report) -> str:
    """How many lines say what."""
    states = [line.finding.status for line in report.lines]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return (
        f"{counts}, on {report.images} images in {report.seconds:.0f} s ({report.cpu_seconds:.0f} s of one processor)"
    )
