"""Blend experiments into a submission: nested OOF score, test predictions with TTA, a checked CSV, a row in the ledger.

  python src/infer.py --config configs/digits/probe.yaml configs/digits/finetune.yaml

All submissions with what the leaderboard said of them: does the out-of-fold (OOF) score deserve to be trusted?

  python src/infer.py --ledger
  python src/infer.py --ledger --score digits_finetune public=0.981     # or private=…, or both: enters them
  python src/infer.py --ledger --take digits_finetune      # a row that a spreadsheet has changed is right as it is

The mean of the weights of several trainings of one experiment (a model soup), kept where that is a real gain. A config
each, or one config with seeds (trained as `src/train.py --config C experiment=NAME-s1 seed=1`):

  python src/infer.py --soup --config A B C
  python src/infer.py --soup --config configs/masks/mobilenet.yaml --seeds 0,1,2
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foldcraft.common import config_file
from foldcraft.common.errors import FoldcraftError, suggest
from foldcraft.views import cli

if TYPE_CHECKING:
    from foldcraft.ensemble.blend import Combined
    from foldcraft.ensemble.methods import Method
    from foldcraft.predictions.finished import FinishedExperiment
    from foldcraft.views.terminal import Terminal

OF_LEDGER, OF_SOUP = ("competition", "take"), ("seeds", "keep")


def parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__, several_configs=True)
    made.add_argument("--name", help="of the submission, left out: competition and experiments; of the soup: soup")
    made.add_argument(
        "--method", help="blending method, by its name in docs/ensemble.md; left out: the best of those that suit"
    )
    of_ledger = made.add_argument_group("the ledger")
    of_ledger.add_argument("--ledger", action="store_true", help="show all submissions beside the leaderboard, no more")
    of_ledger.add_argument("--competition", metavar="NAME", help="only this one; left out: all")
    of_ledger.add_argument("--score", metavar="FILE", help="enter the scores of a submission: public=…, private=…")
    of_ledger.add_argument("--take", nargs="+", metavar="FILE", help="take the rows of these submissions as they are")
    of_soup = made.add_argument_group("soups")
    of_soup.add_argument("--soup", action="store_true", help="average the weights of experiments in place of blending")
    of_soup.add_argument("--seeds", metavar="0,1,2", help="members with these seeds, where one config is named")
    of_soup.add_argument("--keep", action="store_true", help="write the better soup though the gain is not real")
    return made


def main(arguments: Sequence[str]) -> int:
    args = parser().parse_intermixed_args(arguments)
    if args.ledger or args.score is not None:
        cli.refuse(args, ("method", "soup", *OF_SOUP), "is not for the ledger")
        return enter_score(args) if args.score is not None else show_ledger(args)
    cli.refuse(args, OF_LEDGER, "goes with --ledger")
    if args.soup:
        cli.refuse(args, ("method",), "is a way to blend, and not for --soup")
        return make_soup(args, shlex.join(["python", "src/infer.py", *arguments]))
    cli.refuse(args, OF_SOUP, "goes with --soup")
    configs = cli.load_configs(args)

    from foldcraft.common.files import check_file_name
    from foldcraft.predictions.finished import open_finished

    if args.name is not None:
        check_file_name(args.name)
    members = open_finished(configs)
    submit(members, args.name, cli.terminal(args), methods_named(args.method))
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
    """Write the submission and show all there is to say of it; where it is and what it is made of."""
    from foldcraft.submission import build, ledger
    from foldcraft.views import blend, tracking

    made = build.submit(members, name, terminal, methods)
    path, is_new, doubt = made.written
    blend.show(made.combined, terminal)
    if meaning := build.meaning(members[0].experiment.competition):
        terminal.say(meaning)
    verb = "wrote" if is_new else "the same as"
    terminal.say(f"{verb} {path}: {made.rows} rows, checked; see {ledger.path_in(ledger.SUBMISSIONS)}")
    if doubt:
        terminal.say(f"warning: {doubt}")
    if is_new and (warning := tracking.track_submission(members, path, made.entry)):
        terminal.say(warning)
    return path, made.combined


def enter_score(args: argparse.Namespace) -> int:
    """Fill a leaderboard's scores into the ledger; here public=… and private=… are no settings."""
    from foldcraft.submission import ledger

    if args.config or args.name is not None:
        raise FoldcraftError("enters a score, and takes neither --config nor --name", "--score")
    cli.refuse(args, OF_LEDGER, "does not go with --score")
    strange, scores = cli.split_words(args.overrides)
    if strange:
        raise FoldcraftError(f"{strange[0]!r} is not a score", "--score", "write public=0.812 or private=0.805")
    for line in ledger.fill(ledger.SUBMISSIONS, args.score, dict(score.split("=", 1) for score in scores)):
        cli.terminal(args).say(line)
    return 0


def show_ledger(args: argparse.Namespace) -> int:
    """All submissions, or the rows of some taken as they are."""
    if args.config or args.overrides or args.name is not None:
        raise FoldcraftError("takes neither a config nor settings nor --name", "--ledger", "see --competition NAME")

    from foldcraft.submission import ledger

    terminal = cli.terminal(args)
    if args.take:
        for line in ledger.take(ledger.SUBMISSIONS, args.take):
            terminal.say(line)
        return 0
    rows = ledger.submissions(ledger.SUBMISSIONS, args.competition)

    from foldcraft.submission import leaderboard
    from foldcraft.views import leaderboard as shown

    for part in leaderboard.read(ledger.SUBMISSIONS, rows):
        shown.show(part, terminal)
        for line in leaderboard.findings(part):
            terminal.say(line)
    if args.competition is None:
        ledger.read(ledger.path_in(ledger.SUBMISSIONS))  # a row that has changed is not shown, and is told now
    return 0


def make_soup(args: argparse.Namespace, command: str) -> int:
    """Average weights, and write what that gives where it is better.

    Args:
        command: as it was typed.
    """
    from foldcraft.ensemble import soup_ingredients

    configs = soup_ingredients.with_seeds(cli.load_configs(args), args.seeds)
    names, overrides = cli.words_of(args)
    first, name = Path(names[0] if names else cli.DEFAULT_CONFIG), args.name or "soup"
    to_be = config_file.load(first, [*overrides, f"experiment={name}"])
    target = first.with_name(f"{name}.yaml")
    soup_ingredients.check_target(target)
    soup_ingredients.check_free(to_be)
    gathered = soup_ingredients.find_ingredients(configs)

    from foldcraft.ensemble import model_soup, soup_selection
    from foldcraft.views import soup

    terminal = cli.terminal(args)
    candidates = model_soup.open_candidates(gathered, terminal)
    soup.warn_of_gaps(candidates, terminal)
    compared = soup_selection.compare_soups(candidates)
    is_worth_it = compared.soup is not None and (compared.soup.is_real_gain or args.keep)
    if is_worth_it:
        soup_selection.save(candidates, compared, target, command)
    soup.show(candidates, compared, terminal)
    terminal.say(soup.outcome(compared, name, target if is_worth_it else None))
    return 0


if __name__ == "__main__":
    cli.run(main)
