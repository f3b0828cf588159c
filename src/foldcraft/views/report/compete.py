"""How `src/compete.py` came to its submission: the best score over time, what was done, and what helped."""

from foldcraft.study.compete.history import Entry, read_entries
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
        Words(" ".join(compete.summary(entries))),
        Chart("Best score over time", words, charts.over_time(points, seen.metric_words)),
        _table(entries),
    ]
    return [PageSection("compete", "What the time was used for", QUESTION, blocks)]


def _point(entry: Entry) -> dict[str, object]:
    about = {"minutes": entry.seconds / 60, "what": entry.action}
    return {**about, "value": entry.score, "low": entry.low, "high": entry.high}


def _table(entries: list[Entry]) -> Table:
    heads = columns(
        "action",
        "# at",
        "# took",
        "# forecast | of the time, before it began",
        "# gain | share of the blend's loss that it takes off",
        "# ± | standard error of the gain",
        "# nested",
        "# 95 % interval",
        "submission",
        "why",
    )
    return Table("Actions", heads, [_row(entry) for entry in entries])


def _row(entry: Entry) -> list[Cell]:
    score, bounds = (entry.score, (entry.low, entry.high)) if entry.is_whole else (None, (None, None))
    times = [Cell(duration(each), each) for each in (entry.seconds, entry.took, entry.expected)]
    gains = [number(entry.gain, "+.1%"), number(entry.error, ".1%")]
    name = entry.name
    return [*texts(name), *times, *gains, number(score), interval(*bounds), *texts(entry.submission or "", entry.why)]
