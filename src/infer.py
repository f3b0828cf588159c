"""Blend experiments into a submission: OOF score, test predictions with TTA, a checked CSV, a row in the ledger.

python src/infer.py --config configs/digits/convnet.yaml configs/digits/mobilenet.yaml
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foldcraft import cli

if TYPE_CHECKING:
    from foldcraft.blending import Combined, MemberRuns
    from foldcraft.config import Config
    from foldcraft.terminal import Terminal

SUBMISSIONS = Path("submissions")


def main(arguments: Sequence[str]) -> int:
    parser = cli.parser(__doc__, several_configs=True)
    parser.add_argument("--name", help="name of the submission; left out: competition and experiments")
    args = parser.parse_intermixed_args(arguments)
    configs = cli.load_configs(args)

    from foldcraft.terminal import Terminal

    submit(configs, args.name, Terminal())
    return 0


def submit(configs: Sequence[Config], name: str | None, terminal: Terminal) -> tuple[Path, Combined]:
    """Blend, score, write the submission; where it is and what it is made of."""
    from foldcraft import blending, submission

    members = blending.open_members(configs)
    competition = members[0].work.competition
    _warn_of_gaps(members, terminal)
    blending.complete(members, terminal)
    result = blending.combine(members)
    _show(result, competition.metric.name, terminal)
    frame = submission.make(competition, competition.test_ids, result.test)
    submission.check(frame, competition)
    name = name or "_".join([competition.name, *(member.name for member in members)])
    best = result.rows[-1]
    entry = {
        "experiments": " ".join(member.name for member in members),
        "weights": " ".join(f"{share:.3f}" for share in result.shares),
        "metric": competition.metric.name,
        "oof": f"{best.score:.5f}",
        "oof_low": f"{best.low:.5f}",
        "oof_high": f"{best.high:.5f}",
        "rows": len(result.ids),
    }
    path, is_new = submission.write(frame, SUBMISSIONS, name, entry)
    verb = "wrote" if is_new else "the same as"
    terminal.say(f"{verb} {path}: {len(frame)} rows, checked; see {SUBMISSIONS / 'ledger.csv'}")
    return path, result


def _warn_of_gaps(members: Sequence[MemberRuns], terminal: Terminal) -> None:
    for member in members:
        if missing := member.missing_folds:
            terminal.say(
                f"warning: {member.name} has only fold {', '.join(map(str, member.done_folds))}; "
                f"train {', '.join(map(str, missing))} too for a score over all rows"
            )


def _show(result: Combined, metric: str, terminal: Terminal) -> None:
    shares = [*(f"{share:.2f}" for share in result.shares), ""]
    columns = ["experiment", "weight", *(f"fold {fold}" for fold in result.folds), "OOF", "95 % interval"]
    rows = [
        (
            row.name,
            share,
            *(f"{score:.4f}" for score in row.fold_scores),
            f"{row.score:.4f}",
            f"{row.low:.4f}–{row.high:.4f}",
        )
        for row, share in zip(result.rows, shares, strict=False)
    ]
    terminal.table(f"{metric} on {len(result.ids)} rows, each judged by a model that never saw it", columns, rows)


if __name__ == "__main__":
    cli.run(main)
