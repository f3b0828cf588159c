"""Submissions as tables, with what the leaderboard said of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from foldcraft.submission.leaderboard import findings

if TYPE_CHECKING:
    from foldcraft.submission.leaderboard import LeaderboardHistory
    from foldcraft.views.terminal import Terminal


def show(part: LeaderboardHistory, terminal: Terminal) -> None:
    """The table of one competition, and what it says of the OOF score."""
    columns = ("file", "time", "experiments", "OOF", "95 % interval", "forecast", "public", "private", "")
    direction = "more is better" if part.greater_is_better else "less is better"
    terminal.table(
        f"{part.competition or 'competition not known'}: {part.metric} ({direction})", columns, list(lines(part))
    )
    for line in findings(part):
        terminal.say(line)


def lines(part: LeaderboardHistory) -> Iterator[Sequence[str]]:
    doubtful = {doubt.file for doubt in part.doubts}
    for row in part.rows.itertuples():
        interval = f"{row.nested_low}–{row.nested_high}" if row.nested_low and row.nested_high else ""
        forecast = f"{row.forecast} ({row.forecast_low}–{row.forecast_high})" if row.forecast else ""
        flag = "shuffled?" if row.file in doubtful else ""
        yield row.file, row.time, row.experiments, row.nested, interval, forecast, row.public, row.private, flag
