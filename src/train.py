"""Train folds of an experiment, each to its out-of-fold and test predictions.

A fold that was interrupted goes on where it was; one that is done is skipped. Where the competition has not been split
into folds yet, that is done first.

  python src/train.py --config configs/digits/finetune.yaml --fold all
  python src/train.py --config C --fold 0,2 optim.lr=0.0005 experiment=slower
  python src/train.py --config C --fold all --jobs 2
  python src/train.py --config C --fold all --on ray      # on a Ray cluster, see docs/cluster.md
  python src/train.py --config A B --fold all          # one experiment after the other
  torchrun --nproc-per-node 2 src/train.py --config C --fold 0
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from foldcraft.views import cli

KILLED = 128  # and the signal's number: what a shell says of a process that was killed

if TYPE_CHECKING:
    from foldcraft.common.places import Place
    from foldcraft.predictions.experiment import Experiment
    from foldcraft.training.distributed import Processes


def main(arguments: Sequence[str]) -> int:
    parser = cli.parser(__doc__, several_configs=True)
    parser.add_argument("--fold", nargs="?", const="all", default="all", help="0, or 0,3, or all (default)")
    cli.add_place(parser, "folds")
    parser.add_argument("--trial", action="store_true", help="of a sweep: name the experiment by its settings as well")
    parser.add_argument("--tag", help=argparse.SUPPRESS)  # of the runs in W&B; a sweep gives its name
    args = parser.parse_intermixed_args(arguments)
    cli.give_back_settings(args, "fold")
    place = cli.place_of(args)
    configs = cli.load_configs(args)

    from foldcraft.study import make_folds
    from foldcraft.views.rows import show_data

    terminal = cli.terminal(args)
    configs = [config.as_trial() if args.trial else config for config in configs]
    experiments = [make_folds.open_experiment(config, terminal.say) for config in configs]
    folds = [cli.parse_folds(args.fold or "all", experiment.folds.count) for experiment in experiments]
    show_data([experiment.competition for experiment in experiments], terminal)
    files = cli.words_of(args)[0] or [None]
    return max(train(args, place, *each) for each in zip(experiments, folds, files, strict=True))


def train(
    args: argparse.Namespace, place: Place, experiment: Experiment, folds: Sequence[int], config: str | None
) -> int:
    """Train folds of one experiment, whose config is that file, or the default one."""
    if place.is_cluster or (place.at_once(len(folds)) > 1 and len(folds) > 1):
        return by_commands(args, place, experiment, folds, config)

    from foldcraft.training import distributed

    return one_after_another(args, experiment, folds, distributed.join())


def one_after_another(
    args: argparse.Namespace, experiment: Experiment, folds: Sequence[int], processes: Processes
) -> int:
    """Train the folds in this process (and those that torchrun started beside it)."""
    from foldcraft.common.callbacks import Callback
    from foldcraft.training.fold import train_fold
    from foldcraft.views.folds import show_trained
    from foldcraft.views.tracking import tracked, tracker_of

    if not processes.is_first:
        for fold in folds:
            train_fold(experiment, fold, processes, Callback())
        return 0
    terminal = cli.terminal(args)
    with tracked(terminal, tracker_of(experiment.config, [args.tag] if args.tag else [])) as callback:
        manifests = {fold: train_fold(experiment, fold, processes, callback) for fold in folds}
    show_trained(experiment, manifests, terminal)
    return 0


def by_commands(
    args: argparse.Namespace, place: Place, experiment: Experiment, folds: Sequence[int], config: str | None
) -> int:
    """Train each fold by a command of its own, several at a time, here or on a cluster."""
    import torch

    from foldcraft.common import executor
    from foldcraft.common.executor import Task
    from foldcraft.common.paths import FoldFolder
    from foldcraft.views.folds import show_trained

    terminal = cli.terminal(args)
    _, words = cli.words_of(args)
    options = [*(["--trial"] if args.trial else []), *(["--quiet"] if args.quiet else [])]
    options += ["--tag", args.tag] if args.tag else []
    options += ["--config", config] if config else []
    gpus = 0 if experiment.config.machine.device == "cpu" else None
    tasks = [Task(str(fold), [__file__, *options, *words, "--fold", str(fold)], gpus=gpus) for fold in folds]
    exit_codes = executor.run(tasks, place.executor(torch.cuda.device_count()), terminal.say)
    codes = {fold: exit_codes[str(fold)] for fold in folds}
    done = [fold for fold in folds if not codes[fold]]
    trained = {fold: FoldFolder.of(experiment.config, fold).manifest_of_task() for fold in done}
    if trained:
        for words in dict.fromkeys("{chosen} ({why})".format(**one["hardware"]) for one in trained.values()):
            terminal.note(f"{experiment.config.experiment} on {words}")  # which the tasks leave to be said once
        show_trained(experiment, trained, terminal)
    for fold, code in codes.items():
        if code < 0:
            terminal.say(f"warning: fold {fold} was killed by signal {-code}; the machine's memory may be full")
    failed = [fold for fold, code in codes.items() if code]
    if failed:
        terminal.say(f"warning: folds that failed: {', '.join(map(str, failed))}; the same command goes on with them")
    return max(code if code >= 0 else KILLED - code for code in codes.values())


if __name__ == "__main__":
    cli.run(main)
