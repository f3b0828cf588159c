"""Blend experiments into a submission: nested OOF score, test predictions with TTA, a checked CSV, a row in the ledger.

python src/infer.py --config configs/digits/probe.yaml configs/digits/finetune.yaml
python src/infer.py --score digits_probe_finetune public=0.981      # what the leaderboard said of it
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foldcraft.common.errors import FoldcraftError, suggest
from foldcraft.views import cli

if TYPE_CHECKING:
    from foldcraft.ensemble.blend import Combined
    from foldcraft.ensemble.methods import Method
    from foldcraft.ensemble.nested import BlendCandidate
    from foldcraft.predictions.members import FinishedExperiment
    from foldcraft.views.terminal import Terminal

SUBMISSIONS = Path("submissions")


def main(arguments: Sequence[str]) -> int:
    parser = cli.parser(__doc__, several_configs=True)
    parser.add_argument("--name", help="name of the submission; left out: competition and experiments")
    parser.add_argument(
        "--method", help="blending method (best single, mean, rank mean, greedy, stacking); left out: the best of them"
    )
    parser.add_argument("--score", metavar="FILE", help="enter public=… and private=… scores of a submission, no more")
    args = parser.parse_intermixed_args(arguments)
    if args.score is not None:
        return enter_score(args)
    configs = cli.load_configs(args)

    from foldcraft.common.files import check_file_name
    from foldcraft.predictions.members import open_finished

    if args.name is not None:
        check_file_name(args.name)
    members = open_finished(configs)
    submit(members, args.name, cli.terminal(args), methods_named(args.method))
    return 0


def enter_score(args: argparse.Namespace) -> int:
    """Fill a leaderboard's scores into the ledger; here public=… and private=… are no settings."""
    from foldcraft.submission import ledger

    if args.config or args.name is not None:
        raise FoldcraftError("enters a score, and takes neither --config nor --name", "--score")
    if strange := [word for word in args.overrides if "=" not in word]:
        raise FoldcraftError(f"{strange[0]!r} is not a score", "--score", "write public=0.812 or private=0.805")
    scores = dict(word.split("=", 1) for word in args.overrides)
    for line in ledger.fill(SUBMISSIONS, args.score, scores):
        cli.terminal(args).say(line)
    return 0


def methods_named(name: str | None) -> list[Method] | None:
    """The one blending method of that name; None where none is asked for.

    Raises:
        FoldcraftError: there is none of that name.
    """
    from foldcraft.ensemble.methods import METHODS

    if name is None:
        return None
    if name not in METHODS:
        raise FoldcraftError(f"no blending method is called {name!r}", "--method", suggest(name, list(METHODS)))
    return [METHODS[name]()]


def submit(
    members: Sequence[FinishedExperiment], name: str | None, terminal: Terminal, methods: Sequence[Method] | None = None
) -> tuple[Path, Combined]:
    """Blend, score, write the submission; where it is and what it is made of."""
    from foldcraft.ensemble import blend
    from foldcraft.submission import build

    competition = members[0].experiment.competition
    _warn_of_gaps(members, terminal)
    blend.complete(members, terminal)
    result = blend.combine(members, methods)
    frame = build.make(competition, competition.test_ids, result.test)
    build.check(frame, competition)
    name = name or "_".join([competition.name, *(member.name for member in members)])
    chosen = result.verdict.chosen
    entry = {
        "competition": competition.name,
        "experiments": " ".join(member.name for member in members),
        "weights": " ".join(f"{share:.3f}" for share in chosen.plan.combination.shares),
        "metric": competition.metric.name,
        "nested": f"{chosen.score.value:.5f}",
        "nested_low": f"{chosen.score.low:.5f}",
        "nested_high": f"{chosen.score.high:.5f}",
        "optimistic": f"{chosen.optimistic:.5f}",
        "rows": len(result.ids),
    }
    path, is_new, doubt = build.write(frame, SUBMISSIONS, name, entry)
    if len(result.blind):
        members[0].experiment.tell_unreadable(result.blind.tolist(), terminal)
    _show(result, terminal)
    if meaning := build.meaning(competition):
        terminal.say(meaning)
    verb = "wrote" if is_new else "the same as"
    terminal.say(f"{verb} {path}: {len(frame)} rows, checked; see {SUBMISSIONS / 'ledger.csv'}")
    if doubt:
        terminal.say(f"warning: {doubt}")
    if is_new:
        _track(members, path, entry, terminal)
    return path, result


def _track(members: Sequence[FinishedExperiment], path: Path, entry: dict[str, object], terminal: Terminal) -> None:
    from foldcraft.views.tracking import tracker_of

    configs = [member.experiment.config for member in members]
    if tracker := tracker_of(configs[0]):
        tracker.submitted(configs, [member.done_folds for member in members], path, entry)
        if warning := tracker.close():
            terminal.say(warning)


def _warn_of_gaps(members: Sequence[FinishedExperiment], terminal: Terminal) -> None:
    for member in members:
        paths = member.experiment.competition.train_paths
        if not member.experiment.train_images and (there := sum(path.is_file() for path in paths)):
            terminal.say(
                f"warning: {len(paths) - there} of {len(paths)} training images are missing: whether "
                f"{member.name} learned from those that are there cannot be told"
            )
        if missing := member.missing_folds:
            terminal.say(
                f"warning: {member.name} has only fold {', '.join(map(str, member.done_folds))}; "
                f"train {', '.join(map(str, missing))} too for a score over all rows"
            )


def _show(result: Combined, terminal: Terminal) -> None:
    verdict, metric = result.verdict, result.truth.metric.name
    folds = [f"fold {fold}" for fold in result.folds]
    columns = ["", "weight", *folds, "nested OOF", "95 % interval", "optimistic"]
    shares = verdict.chosen.plan.combination.shares
    rows = [_row(result, one, f"{share:.2f}") for one, share in zip(verdict.members, shares, strict=True)]
    rows += [_row(result, one, "") for one in verdict.worth_showing]
    rows.append(_row(result, verdict.chosen, "used"))
    terminal.table(f"{metric} on {len(result.ids)} rows, all fitted without the fold that is judged", columns, rows)
    if any(len(member.plan.views[0]) > 1 for member in verdict.members):
        terminal.table("views, chosen on OOF", ["experiment", "what it gains, nested", "weights"], _views(result))
    if len(result.folds) == 1:
        terminal.say("warning: with one fold nothing can be nested; the score above is optimistic")
    for reason in verdict.words:
        terminal.say(f"- {reason}")


def _row(result: Combined, candidate: BlendCandidate, note: str) -> tuple[str, ...]:
    score = candidate.score
    return (
        candidate.name,
        note,
        *(f"{one:.4f}" for one in result.fold_scores(candidate)),
        f"{score.value:.4f}",
        f"{score.low:.4f}–{score.high:.4f}",
        f"{candidate.optimistic:.4f}",
    )


def _views(result: Combined) -> list[tuple[str, ...]]:
    rows = []
    for member, (value, error), views in zip(
        result.verdict.members, result.verdict.views_gain, result.views, strict=True
    ):
        used = [f"{view} {share:.2f}" for view, share in zip(views, member.plan.views[0], strict=True) if share]
        rows.append((member.name, f"{value:+.4f} ± {error:.4f}", ", ".join(used)))
    return rows


if __name__ == "__main__":
    cli.run(main)
