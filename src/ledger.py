"""All submissions with what the leaderboard said of them: does the out-of-fold (OOF) score deserve to be trusted?

python src/ledger.py
python src/infer.py --score digits_finetune public=0.981      # enters a leaderboard score
python src/ledger.py --take digits_finetune                   # a row that a spreadsheet has changed is right as it is
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foldcraft.common.errors import FoldcraftError, suggest
from foldcraft.views import cli

if TYPE_CHECKING:
    from foldcraft.submission.leaderboard import LeaderboardHistory
    from foldcraft.views.terminal import Terminal

SUBMISSIONS = Path("submissions")


def main(arguments: Sequence[str]) -> int:
    parser = cli.bare_parser(__doc__)
    parser.add_argument("--competition", metavar="NAME", help="only this one; left out: all")
    parser.add_argument("--take", nargs="+", metavar="FILE", help="take the rows of these submissions as they now are")
    args = parser.parse_args(arguments)

    from foldcraft.submission import ledger

    path, terminal = ledger.path_in(SUBMISSIONS), cli.terminal(args)
    if args.take:
        for line in ledger.take(SUBMISSIONS, args.take):
            terminal.say(line)
        return 0
    rows = ledger.sound(path) if args.competition is None else ledger.read(path, args.competition)
    if rows.empty and ledger.read(path).empty:
        raise FoldcraftError("no submission yet", SUBMISSIONS, "`python src/infer.py` writes one")
    if args.competition is not None:
        known = sorted(set(rows["competition"]) - {""})
        if args.competition not in known:
            raise FoldcraftError(
                f"no submission of {args.competition!r}", "--competition", suggest(args.competition, known)
            )
        rows = rows[rows["competition"] == args.competition]

    from foldcraft.submission import leaderboard

    for part in leaderboard.read(SUBMISSIONS, rows):
        show(part, terminal)
        for line in leaderboard.findings(part):
            terminal.say(line)
    if args.competition is None:
        ledger.read(path)  # those that are not shown have a row that has changed, which is told now
    return 0


def show(part: LeaderboardHistory, terminal: Terminal) -> None:
    """The table of one competition."""
    columns = ("file", "time", "experiments", "OOF", "95 % interval", "public", "private", "")
    direction = "more is better" if part.greater_is_better else "less is better"
    terminal.table(
        f"{part.competition or 'competition not known'}: {part.metric} ({direction})", columns, list(lines(part))
    )


def lines(part: LeaderboardHistory) -> Iterator[Sequence[str]]:
    doubtful = {doubt.file for doubt in part.doubts}
    for row in part.rows.itertuples():
        interval = f"{row.nested_low}–{row.nested_high}" if row.nested_low and row.nested_high else ""
        flag = "shuffled?" if row.file in doubtful else ""
        yield row.file, row.time, row.experiments, row.nested, interval, row.public, row.private, flag


if __name__ == "__main__":
    cli.run(main)
