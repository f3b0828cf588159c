"""Blend experiments into a submission: nested OOF score, test predictions with TTA, a checked CSV, a row in the ledger.

  python src/infer.py --config configs/digits/probe.yaml configs/digits/finetune.yaml

On a host's machine: to a file of that name, in place of one in submissions/ (docs/guide.md):

  python src/infer.py --config C --out submission.csv

With an experiment that lacks folds, mixed in evenly:

  python src/infer.py --config A B --mix-in C

A blend that is to teach by pseudo-labels, in place of a submission (distill.teachers=[blend1] distill.pseudo=0.3):

  python src/infer.py --config A B C --store blend1

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
from foldcraft.common.errors import FoldcraftError
from foldcraft.views import cli

if TYPE_CHECKING:
    from foldcraft.common.config import Config
    from foldcraft.ensemble.methods import Method
    from foldcraft.predictions.finished import FinishedExperiment

OF_LEDGER, OF_SOUP = ("competition", "take"), ("seeds", "keep")


def command_line() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__, several_configs=True)
    parser.add_argument("--name", help="of the submission, left out: competition and experiments; of the soup: soup")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file of the submission; left out: in submissions/")
    parser.add_argument(
        "--method", help="blending method, by its name in docs/ensemble.md; left out: the best of those that suit"
    )
    parser.add_argument(
        "--mix-in", nargs="+", metavar="YAML", help="an experiment that lacks folds, mixed evenly into the blend"
    )
    parser.add_argument("--store", metavar="NAME", help="keep the blend as a teacher of that name; no submission")
    of_ledger = parser.add_argument_group("the ledger")
    of_ledger.add_argument("--ledger", action="store_true", help="show all submissions beside the leaderboard, no more")
    of_ledger.add_argument("--competition", metavar="NAME", help="only this one; left out: all")
    of_ledger.add_argument("--score", metavar="FILE", help="enter the scores of a submission: public=…, private=…")
    of_ledger.add_argument("--take", nargs="+", metavar="FILE", help="take the rows of these submissions as they are")
    of_soup = parser.add_argument_group("soups")
    of_soup.add_argument("--soup", action="store_true", help="average the weights of experiments in place of blending")
    of_soup.add_argument("--seeds", metavar="0,1,2", help="members with these seeds, where one config is named")
    of_soup.add_argument("--keep", action="store_true", help="write the better soup though the gain is not real")
    return parser


def main(arguments: Sequence[str]) -> int:
    args = command_line().parse_intermixed_args(arguments)
    if args.ledger or args.score is not None:
        cli.refuse(args, ("method", "out", "mix-in", "store", "soup", *OF_SOUP), "is not for the ledger")
        return enter_score(args) if args.score is not None else show_ledger(args)
    cli.refuse(args, OF_LEDGER, "goes with --ledger")
    if args.soup:
        cli.refuse(args, ("method",), "is a way to blend, and not for --soup")
        cli.refuse(args, ("store",), "is for blends, and not for --soup")
        cli.refuse(args, ("out", "mix-in"), "is for submissions, and not for --soup")
        return make_soup(args, shlex.join(["python", "src/infer.py", *arguments]))
    cli.refuse(args, OF_SOUP, "goes with --soup")
    if args.store is not None:
        cli.refuse(args, ("name", "out", "mix-in"), "is for submissions, and does not go with --store")
    configs = load_configs(args)

    from foldcraft.common.files import check_file_name
    from foldcraft.predictions.finished import open_finished

    if args.name is not None:
        check_file_name(args.name)
    if args.out is not None:
        from foldcraft.submission import contents, out_file

        cli.refuse(args, ("name",), "does not go with --out, which names the file")
        several = len(configs[0].competition.sample_files) > 1
        out_file.check(args.out, suffix=contents.ZIP if several else contents.CSV)
    members = open_finished(configs)
    part = members.pop() if args.mix_in is not None else None

    from foldcraft.ensemble import methods

    chosen = None if args.method is None else [methods.named(args.method, members[0].experiment.competition.metric)]

    if args.store is not None:
        return keep_as_teacher(args, members, chosen)

    from foldcraft.views import submission

    submission.submit(members, args.name, cli.terminal(args), chosen, args.out, part)
    return 0


def load_configs(args: argparse.Namespace) -> list[Config]:
    """The configs of the blend, and last the one that is mixed in, if any.

    Raises:
        FoldcraftError: several are mixed in, or one that cannot be mixed into these.
    """
    if args.mix_in is None:
        return cli.load_configs(args)
    cli.give_back_settings(args, "mix_in")
    if len(args.mix_in) != 1:
        raise FoldcraftError(
            f"takes one experiment, and has {len(args.mix_in)}", "--mix-in", "name the others after --config"
        )
    *configs, part = cli.load_configs(args, *args.mix_in)
    if part.experiment in [config.experiment for config in configs]:
        raise FoldcraftError(f"{part.experiment} is in the blend", "--mix-in", "name an experiment that is not")
    if part.competition.name != (name := configs[0].competition.name):
        what = f"{part.experiment} is of competition {part.competition.name}, and the blend of {name}"
        raise FoldcraftError(what, "--mix-in", "name the blend's experiments after --config")
    return [*configs, part]


def keep_as_teacher(
    args: argparse.Namespace, members: Sequence[FinishedExperiment], methods: Sequence[Method] | None
) -> int:
    """Store the blend, and say how much each member counts in each fold."""
    from foldcraft.ensemble import stored_blend

    terminal = cli.terminal(args)
    for fold in stored_blend.store_blend(members, args.store, terminal, methods):
        terminal.say(str(fold))
    terminal.say(f"stored {args.store}: distill.teachers=[{args.store}] distill.pseudo=0.3 learns from it")
    return 0


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
    from foldcraft.views.leaderboard import show

    for part in leaderboard.read(ledger.SUBMISSIONS, rows):
        show(part, terminal)
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
    soup_config = config_file.load(first, [*overrides, f"experiment={name}"])
    target = first.with_name(f"{name}.yaml")
    soup_ingredients.check_target(target)
    soup_ingredients.check_free(soup_config)
    ingredients = soup_ingredients.find_ingredients(configs)

    from foldcraft.ensemble import model_soup, soup_selection
    from foldcraft.views import soup

    terminal = cli.terminal(args)
    candidates = model_soup.open_candidates(ingredients, terminal)
    soup.warn_of_gaps(candidates, terminal)
    comparison = soup_selection.compare_soups(candidates)
    is_worth_it = comparison.soup is not None and (comparison.soup.is_real_gain or args.keep)
    if is_worth_it:
        soup_selection.save(candidates, comparison, target, command)
    soup.show(candidates, comparison, terminal)
    terminal.say(soup.outcome(candidates, comparison, name, target if is_worth_it else None))
    return 0


if __name__ == "__main__":
    cli.run(main)
