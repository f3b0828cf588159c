"""How `src/compete.py` came to its submission: the best score over time, what was done, and what helped."""

from collections.abc import Sequence

from foldcraft.study.compete.history import Entry, of_kept_blend, read_entries
from foldcraft.views import compete
from foldcraft.views.report import charts
from foldcraft.views.report.blocks import (
    Block,
    Cell,
    Chart,
    PageSection,
    Table,
    Words,
    columns,
    interval,
    number,
    texts,
)
from foldcraft.views.report.blocks import seconds as duration
from foldcraft.views.report.evidence import Evidence

QUESTION = "What was done in the time that there was, and what helped?"


def history(seen: Evidence) -> list[PageSection]:
    """The section; none where the command was never run here.

    Raises:
        FoldcraftError: what it keeps is damaged.
    """
    entries = read_entries(seen.config)
    whole = [entry for entry in entries if entry.is_whole]
    if not whole:
        return []
    points = list(map(_point, whole))
    words = f"Best nested {seen.metric_words} so far, with its 95 % interval, over minutes of work."
    blocks: list[Block] = [
        *_about_others(seen, entries),
        Words(" ".join(compete.summary(entries))),
        Chart("Best score over time", words, charts.over_time(points, seen.metric_words)),
        _table(entries),
    ]
    return [PageSection("compete", "What the time was used for", QUESTION, blocks)]


def _about_others(seen: Evidence, entries: Sequence[Entry]) -> list[Block]:
    """That the page is about other experiments than the blend that was submitted; nothing where it is about these."""
    if {member.name for member in seen.members} == {entry.experiment for entry in of_kept_blend(entries)}:
        return []
    text = "This is about the blend of `src/compete.py`, not about the experiments of this page."
    return [Words(text, "note")]


def _point(entry: Entry) -> dict[str, object]:
    about = {"minutes": entry.seconds / 60, "what": entry.action}
    return {**about, "value": entry.score, "low": entry.low, "high": entry.high}


def _table(entries: list[Entry]) -> Table:
    heads = columns(
        "action",
        "why",
        "# at",
        "# took",
        "# gain | share of the blend's loss that it takes off",
        "# ± | standard error of the gain",
        "# nested",
        "# 95 % interval",
        "submission",
        "# forecast | of the time, before it began",
    )
    return Table("Actions", heads, [_row(entry) for entry in entries])


def _row(entry: Entry) -> list[Cell]:
    score, bounds = (entry.score, (entry.low, entry.high)) if entry.is_whole else (None, (None, None))
    return [
        *texts(entry.name, entry.why),
        *(Cell(duration(each), each) for each in (entry.seconds, entry.took)),
        number(entry.gain, "+.1%"),
        number(entry.error, ".1%"),
        number(score),
        interval(*bounds),
        Cell(entry.submission or ""),
        Cell(duration(entry.expected), entry.expected),
    ]
