"""Blend experiments into a submission: OOF score, test predictions with TTA, a checked CSV, a row in the ledger.

python src/infer.py --config configs/digits/convnet.yaml configs/digits/mobilenet.yaml
"""

from collections.abc import Sequence

from foldcraft import cli


def main(arguments: Sequence[str]) -> int:
    parser = cli.parser(__doc__, several_configs=True)
    parser.add_argument("--name", help="name of the submission; left out: competition and experiments")
    args = parser.parse_intermixed_args(arguments)
    configs = cli.load_configs(args)

    from pathlib import Path

    from foldcraft import blending, submission
    from foldcraft.terminal import Terminal

    terminal = Terminal()
    members = blending.open_members(configs)
    for member in members:
        if missing := member.missing_folds:
            terminal.say(
                f"warning: {member.name} has only folds {', '.join(map(str, member.done_folds))}; "
                f"train {', '.join(map(str, missing))} for a score of all rows"
            )
    blending.complete(members, terminal)
    result = blending.combine(members)
    metric = members[0].work.competition.metric.name
    columns = ["experiment", *(f"fold {fold}" for fold in result.folds), "OOF", "95 % interval"]
    rows = [
        (row.name, *(f"{score:.4f}" for score in row.fold_scores), f"{row.score:.4f}", f"{row.low:.4f}–{row.high:.4f}")
        for row in result.rows
    ]
    terminal.table(f"{metric} on {len(result.ids)} rows, each judged by a model that never saw it", columns, rows)

    competition = members[0].work.competition
    frame = submission.make(competition, competition.test_ids, result.test)
    submission.check(frame, competition)
    name = args.name or "_".join([competition.name, *(member.name for member in members)])
    best = result.rows[-1]
    entry = {
        "experiments": " ".join(member.name for member in members),
        "weights": " ".join(f"{1 / len(members):.3f}" for _ in members),
        "metric": metric,
        "oof": f"{best.score:.5f}",
        "oof_low": f"{best.low:.5f}",
        "oof_high": f"{best.high:.5f}",
        "rows": len(result.ids),
    }
    path, is_new = submission.write(frame, Path("submissions"), name, entry)
    terminal.say(
        f"{'wrote' if is_new else 'the same as'} {path}: {len(frame)} rows, checked; see submissions/ledger.csv"
    )
    return 0


if __name__ == "__main__":
    cli.run(main)
