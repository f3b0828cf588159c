"""All experiments of a competition as a table, ranked by their out-of-fold (OOF) score, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foldcraft.common.errors import listing

if TYPE_CHECKING:
    import pandas as pd

    from foldcraft.study.ranking import Ranking
    from foldcraft.views.terminal import Terminal

SORTS = {"score": "rank", "cost": "seconds", "name": "experiment", "time": "changed"}
FEW = 30  # groups; below, the intervals of simulations hold in 90 % of cases instead of 95 %
ABOUT = ("folds", "time", "backbone", "mode")
PAUSE = 5.0  # seconds between two looks at trainings that go on


@dataclass(frozen=True)
class Selection:
    """Which experiments are shown, and in which order; all of them are counted in every verdict.

    Attributes:
        sort: one of SORTS.
        mode: only those of this finetune.mode.
        backbone: only those whose backbone's name has this in it.
        top: only the first so many of each table.
    """

    sort: str = "score"
    mode: str | None = None
    backbone: str | None = None
    top: int | None = None

    def of(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows that were asked for, in the order that was asked for."""
        if self.mode is not None:
            table = table[table["mode"] == self.mode]
        if self.backbone is not None:
            table = table[table["backbone"].str.contains(self.backbone, case=False, regex=False, na=False)]
        column = SORTS[self.sort]
        table = table.sort_values(column, ascending=self.sort != "time", kind="stable", na_position="last")
        return table if self.top is None else table.head(self.top)


def as_json(ranking: Ranking, selection: Selection) -> str:
    """What is shown, with all digits."""
    about = {
        "competition": ranking.competition,
        "metric": ranking.metric.name,
        "greater_is_better": ranking.metric.greater_is_better,
        "folds": list(ranking.folds),
        "rows": ranking.rows,
        "groups": ranking.groups,
        "draws": ranking.draws,
    }
    parts = [selection.of(ranking.of(state)) for state in ("ranked", "unfinished", "apart")]
    rows = [row for part in parts for row in ranking.records(part)]
    return json.dumps({**about, "experiments": rows}, indent=1, default=lambda time: time.isoformat())


def show(ranking: Ranking, selection: Selection, terminal: Terminal) -> None:
    ranked, unfinished, apart = (ranking.of(state) for state in ("ranked", "unfinished", "apart"))
    if len(ranked):
        show_ranked(ranking, selection.of(ranked), terminal)
        terminal.say(conclusion(ranked))
        for line in legend(ranking, len(ranked)):
            terminal.note(line)
    if len(some := selection.of(unfinished)):
        show_unfinished(ranking, some, terminal)
    if len(some := selection.of(apart)):
        rows = [(row["experiment"], row["note"]) for row in ranking.records(some)]
        terminal.table("cannot be compared", ("experiment", "why"), rows)
    if hidden := len(ranking.table) - sum(len(selection.of(part)) for part in (ranked, unfinished, apart)):
        terminal.note(f"{hidden} of {len(ranking.table)} experiments are not shown, but counted in every verdict")


def show_ranked(ranking: Ranking, table: pd.DataFrame, terminal: Terminal) -> None:
    if table.empty:
        return
    grouped = f" of {ranking.groups} groups" if ranking.groups != ranking.rows else ""
    direction = "more is better" if ranking.metric.greater_is_better else "less is better"
    counted = ranking.counted or f"{ranking.rows} rows"
    title = f"{ranking.competition}: OOF {ranking.metric.title} ({direction}), {counted}{grouped}"
    title += f", fold {listing(ranking.folds)}"
    behind = table["note"].notna().any()  # ranked though folds are missing
    columns = ("experiment", "rank", ranking.metric.title, "95 % interval", "to the best", "95 % interval", "verdict")
    rows = [
        (
            row["experiment"],
            row["rank"],
            f"{row['score']:.4f}",
            f"{row['low']:.4f}–{row['high']:.4f}",
            "" if row["rank"] == 1 else f"{row['difference']:+.4f}",
            "" if row["rank"] == 1 else f"{row['difference_low']:+.4f} to {row['difference_high']:+.4f}",
            row["verdict"],
            *about(row, ranking),
            *([row["note"] or ""] if behind else []),
        )
        for row in ranking.records(table)
    ]
    terminal.table(title, (*columns, *ABOUT, *(["how far"] if behind else [])), rows)


def show_unfinished(ranking: Ranking, table: pd.DataFrame, terminal: Terminal) -> None:
    """Judged on what they have, beside the best on the same rows."""
    rows = [
        (
            row["experiment"],
            "" if row["score"] is None else f"{row['score']:.4f}",
            "" if row["best_score"] is None else f"{row['best_score']:.4f}",
            "" if row["score"] is None else f"{row['difference_low']:+.4f} to {row['difference_high']:+.4f}",
            *about(row, ranking),
            row["note"],
        )
        for row in ranking.records(table)
    ]
    columns = (
        "experiment",
        ranking.metric.title,
        "the best there",
        "95 % interval of the difference",
        *ABOUT,
        "how far",
    )
    terminal.table("unfinished, on the folds they have", columns, rows)


def about(row: dict[str, Any], ranking: Ranking) -> tuple[str, ...]:
    from foldcraft.views.terminal import duration

    time = "" if row["seconds"] is None else duration(row["seconds"])
    more = f" + {row['made_from']}" if row["made_from"] else ""
    return f"{len(row['done'])} of {ranking.fold_count}", time + more, row["backbone"] or "", row["mode"] or ""


def conclusion(ranked: pd.DataFrame) -> str:
    """Whether the best is really the best, in a line."""
    best, rest = ranked["experiment"].iloc[0], ranked.iloc[1:]
    if rest.empty:
        return f"{best} is the only one"
    level = rest["experiment"][rest["verdict"] == "cannot be told"].tolist()
    if not level:
        return f"{best} is really better than {'the other' if len(rest) == 1 else f'each of the {len(rest)} others'}"
    return f"{best} cannot be told from {listing(level, 5)}; take the cheapest, or blend them: python src/infer.py"


def legend(ranking: Ranking, ranked: int) -> Iterator[str]:
    """How the columns are to be read."""
    kind = "groups" if ranking.groups != ranking.rows else "rows"
    yield f"differences: each by itself, from {ranking.draws} draws of whole {kind}, all experiments on the same draws"
    if ranked > 1:
        yield f"verdict: worse where that holds for all pairs of the {ranked} at once (max-T); one board in 20 errs"
    yield "time: of training, all finished folds together; + those that it learned from or is made of"
    if ranking.groups < FEW:
        yield f"warning: {ranking.groups} {kind} are few; intervals come out too narrow"
