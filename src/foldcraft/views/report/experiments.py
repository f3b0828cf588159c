"""All experiments of the competition, those that are not on the page too."""

from typing import Any

from foldcraft.study import ranking
from foldcraft.views.report.blocks import (
    Block,
    Cell,
    PageSection,
    Table,
    Words,
    columns,
    interval,
    number,
    seconds,
    texts,
)
from foldcraft.views.report.evidence import Evidence


def board(seen: Evidence) -> PageSection:
    """Experiments by rank, what each cost, and whether it is really worse than the best."""
    found = ranking.rank(seen.members[0].experiment)
    question = "Which experiments are there, what did they cost, and is the best one really better?"
    heads = columns(
        "experiment",
        "# rank",
        f"# {seen.metric_words} | out of fold, all on the same rows, views averaged evenly",
        "# 95 % interval",
        "# to the best",
        "# 95 % interval of it",
        "verdict | worse where that holds for all pairs at once",
        "# folds",
        "# time | of training",
        "backbone",
        "mode",
        "note",
    )
    folds = f"fold{'s' if len(found.folds) > 1 else ''} {', '.join(map(str, found.folds))}"
    words = f"As `python src/compare.py --config C` shows them, on {found.rows:,} rows of {folds}."
    blocks: list[Block] = [Words(words), Table("Experiments", heads, [_row(row) for row in found.records(found.table)])]
    return PageSection("board", "All experiments", question, blocks)


def _row(row: dict[str, Any]) -> list[Cell]:
    if row["rank"] == 1:  # the best has no distance from itself
        row = {**row, "difference": None, "difference_low": None, "difference_high": None}
    return [
        *texts(row["experiment"]),
        number(row["rank"], ".0f"),
        number(row["score"]),
        interval(row["low"], row["high"]),
        number(row["difference"], "+.4f"),
        interval(row["difference_low"], row["difference_high"], "+.4f"),
        *texts(row["verdict"] or row["state"]),
        number(len(row["done"]), "d"),
        Cell("–" if row["seconds"] is None else seconds(row["seconds"]), row["seconds"]),
        *texts(row["backbone"] or "", row["mode"] or "", row["note"] or ""),
    ]
