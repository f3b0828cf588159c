"""Train folds of an experiment, each to its out-of-fold and test predictions.

A fold that was interrupted goes on where it was; one that is done is skipped. Where the competition has not been split
into folds yet, that is done first.

  python src/train.py --config configs/digits/finetune.yaml --fold all
  python src/train.py --config C --fold 0,2 optim.lr=0.0005 experiment=slower
  python src/train.py --config C --fold all --jobs 2
  python src/train.py --config A B --fold all          # one experiment after the other
  torchrun --nproc-per-node 2 src/train.py --config C --fold 0
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from foldcraft.common.errors import FoldcraftError
from foldcraft.views import cli

KILLED = 128  # and the signal's number: what a shell says of a process that was killed

if TYPE_CHECKING:
    from foldcraft.predictions.experiment import Experiment
    from foldcraft.training.distributed import Processes
    from foldcraft.views.terminal import Terminal


def main(arguments: Sequence[str]) -> int:
    parser = cli.parser(__doc__, several_configs=True)
    parser.add_argument("--fold", nargs="?", const="all", default="all", help="0, or 0,3, or all (default)")
    parser.add_argument("--jobs", type=int, default=1, help="folds that run side by side (default 1)")
    parser.add_argument("--trial", action="store_true", help="of a sweep: name the experiment by its settings as well")
    args = parser.parse_intermixed_args(arguments)
    cli.give_back_settings(args, "fold")
    configs = cli.load_configs(args)
    if args.jobs < 1:
        raise FoldcraftError(f"{args.jobs} is not a number of jobs", "--jobs", "use 1 or more")

    from foldcraft.study import make_folds

    terminal = cli.terminal(args)
    wanted = [config.as_trial() if args.trial else config for config in configs]
    experiments = [make_folds.open_experiment(config, terminal.say) for config in wanted]
    folds = [cli.parse_folds(args.fold or "all", experiment.folds.count) for experiment in experiments]
    named = cli.words_of(args)[0] or [None]
    return max(train(args, *one) for one in zip(experiments, folds, named, strict=True))


def train(args: argparse.Namespace, experiment: Experiment, chosen: Sequence[int], named: str | None) -> int:
    """Train folds of one experiment, whose config was given by that name."""
    if args.jobs > 1 and len(chosen) > 1:
        return side_by_side(args, experiment, chosen, named)

    from foldcraft.training import distributed

    return one_after_another(args, experiment, chosen, distributed.join())


def one_after_another(
    args: argparse.Namespace, experiment: Experiment, chosen: Sequence[int], together: Processes
) -> int:
    """Train the folds in this process (and those that torchrun started beside it)."""
    from foldcraft.common.callbacks import Callback
    from foldcraft.training.fold import train_fold
    from foldcraft.views.tracking import tracked, tracker_of

    if not together.is_first:
        for fold in chosen:
            train_fold(experiment, fold, together, Callback())
        return 0
    terminal = cli.terminal(args)
    with tracked(terminal, tracker_of(experiment.config)) as callback:
        manifests = {fold: train_fold(experiment, fold, together, callback) for fold in chosen}
    show(experiment, manifests, terminal)
    return 0


def show(experiment: Experiment, manifests: dict[int, dict[str, Any]], terminal: Terminal) -> None:
    """The folds, and what they come to."""
    from statistics import fmean, stdev

    from foldcraft.views.terminal import duration

    scores, seconds = ([one[key] for one in manifests.values()] for key in ("score", "seconds"))
    rows = [
        (f"fold {fold}", f"{one['score']:.4f}", one["epochs"], duration(one["seconds"]))
        for fold, one in manifests.items()
    ]
    if len(scores) > 1:
        rows += [(name, f"{of(scores):.4f}", "", "") for name, of in (("mean", fmean), ("sd", stdev))]
        rows.append(("in all", "", sum(one["epochs"] for one in manifests.values()), duration(sum(seconds))))
    terminal.table(experiment.config.experiment, ("", experiment.competition.metric.name, "epochs", "time"), rows)


def side_by_side(args: argparse.Namespace, experiment: Experiment, chosen: Sequence[int], config: str | None) -> int:
    """Train each fold by a command of its own, several at a time."""
    import torch

    from foldcraft.common import executor
    from foldcraft.common.executor import SideBySide, Task
    from foldcraft.common.paths import FoldFolder

    terminal = cli.terminal(args)
    _, words = cli.words_of(args)
    named = ["--config", config] if config else []
    more = [*(["--trial"] if args.trial else []), *(["--quiet"] if args.quiet else [])]
    tasks = [Task(str(fold), [__file__, *more, *named, *words, "--fold", str(fold)]) for fold in chosen]
    said = executor.run(tasks, SideBySide(args.jobs, torch.cuda.device_count()), terminal.say)
    codes = {fold: said[str(fold)] for fold in chosen}
    trained = {fold: FoldFolder.of(experiment.config, fold).read_manifest() for fold in chosen if not codes[fold]}
    if trained:
        for words in dict.fromkeys("{chosen} ({why})".format(**one["hardware"]) for one in trained.values()):
            terminal.note(f"{experiment.config.experiment} on {words}")  # which the tasks leave to be said once
        show(experiment, trained, terminal)
    for fold, code in codes.items():
        if code < 0:
            terminal.say(f"warning: fold {fold} was killed by signal {-code}; the machine's memory may be full")
    failed = [fold for fold, code in codes.items() if code]
    if failed:
        terminal.say(f"warning: folds that failed: {', '.join(map(str, failed))}; the same command goes on with them")
    return max(code if code >= 0 else KILLED - code for code in codes.values())


if __name__ == "__main__":
    cli.run(main)
