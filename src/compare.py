"""Is B really better than A? Experiments against a baseline, on the rows that all of them have predicted out of fold;
without any, all experiments of a competition, ranked by their out-of-fold (OOF) score.

Each is a run folder or a config; the first is the baseline.

  python src/compare.py runs/digits/probe runs/digits/finetune
  python src/compare.py configs/masks/probe.yaml configs/masks/mobilenet.yaml tta.views=[identity]
  python src/compare.py A BEST --tried 20             # the best of 20 that were tried
  python src/compare.py A B --accept && python src/infer.py --config B
  python src/compare.py A B --not-behind && python src/train.py --config B --fold all    # where B has fold 0 only

The table of all needs one config of the competition, whichever:

  python src/compare.py --config configs/digits/finetune.yaml
  python src/compare.py --config C --sort cost --mode linear_probe --top 10
  python src/compare.py --config C --fold 0                           # those that have only fold 0 as well
  python src/compare.py --config C competition.metric=log_loss        # by another metric
  python src/compare.py --config C --watch                            # while they train
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from foldcraft.common.errors import FoldcraftError
from foldcraft.views import board, cli

NOT_ACCEPTED = 1
RUNS = ("run", "run folders or configs, the baseline first; key=value: settings that win over theirs")
OF_RUNS = ("tried", "accept", "not-behind")
OF_ALL = ("fold", "sort", "mode", "backbone", "top", "json", "watch")


def parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__, several_configs=True, words=RUNS)
    runs = made.add_argument_group("with runs")
    runs.add_argument(
        "--tried", type=int, metavar="N", help="of how many experiments, the baseline not counted, these are the best"
    )
    runs.add_argument(
        "--accept",
        action="store_true",
        help="only say in one line whether the best is really better than the baseline; exit code 0 if so, else 1",
    )
    runs.add_argument(
        "--not-behind",
        action="store_true",
        help="only say in one line whether the best scores at least as well as the baseline; exit code 0 if so, else 1",
    )
    every = made.add_argument_group("without runs")
    every.add_argument("--fold", help="rank on these folds, 0 or 0,3; left out: on all, or what the furthest have")
    every.add_argument("--sort", choices=list(board.SORTS), help="time: newest first (default score)")
    every.add_argument("--mode", metavar="NAME", help="only those of this finetune.mode")
    every.add_argument("--backbone", metavar="PART", help="only those whose backbone's name has this in it")
    every.add_argument("--top", type=int, metavar="N", help="only the first N of each table")
    every.add_argument("--json", action="store_true", help="print all of it as JSON, and nothing else")
    every.add_argument("--watch", action="store_true", help=f"look again every {board.PAUSE:.0f} seconds, until Ctrl-C")
    return made


def main(arguments: Sequence[str]) -> int:
    args = parser().parse_intermixed_args(arguments)
    for option in ("tried", "top"):
        if (number := getattr(args, option)) is not None and number < 1:
            raise FoldcraftError(f"{number} is not a number of experiments", f"--{option}", "use 1 or more")
    places, overrides = cli.words_of(args)
    if len(places) > 1 or any(map(os.path.isdir, places)):
        cli.refuse(args, OF_ALL, "is of the table of all experiments, which takes no runs")
        return compare_runs(args, places, overrides)
    cli.refuse(args, OF_RUNS, "needs a baseline and one or more others to compare with it")
    return rank_all(args)


def compare_runs(args: argparse.Namespace, places: Sequence[str], overrides: Sequence[str]) -> int:
    """Experiments against the first of them."""
    from foldcraft.metrics import significance
    from foldcraft.study import compare

    runs = compare.open_runs(places, overrides)
    answers = compare.load_comparison(runs)
    found = significance.compare(answers, args.tried)

    from foldcraft.views import comparison

    terminal = cli.terminal(args)
    if args.accept:
        terminal.say(comparison.reason(answers, found))
        return 0 if found.best.is_real else NOT_ACCEPTED
    if args.not_behind:
        terminal.say(comparison.behind_or_not(answers, found))
        return 0 if found.best.value >= 0 else NOT_ACCEPTED
    comparison.show(runs, answers, found, terminal)
    return 0


def rank_all(args: argparse.Namespace) -> int:
    """All experiments of the competition."""
    if args.watch and (args.json or not sys.stdout.isatty()):
        raise FoldcraftError("needs a terminal to draw on", "--watch", "leave it out to have the table once")
    config = cli.load_config(args)

    from foldcraft.predictions.experiment import Experiment

    experiment = Experiment.open(config, images_of=())
    folds = None if args.fold is None else cli.parse_folds(args.fold, experiment.folds.count)

    from foldcraft.study import ranking

    terminal = cli.terminal(args)
    selection = board.Selection(args.sort or "score", args.mode, args.backbone, args.top)
    found = ranking.rank(experiment, folds)
    if args.json:
        terminal.say(board.as_json(found, selection))
        return 0
    if not args.watch:
        board.show(found, selection, terminal)
        return 0

    def look_again() -> None:
        nonlocal found
        found = ranking.rank(experiment, folds, before=found)
        board.show(found, selection, terminal)

    terminal.watch(look_again, board.PAUSE)
    return 0


if __name__ == "__main__":
    cli.run(main)
