"""How much data is there, how unlike ImageNet is it, which nets and views suit it, and what to run: in minutes.

All of it from closed-form heads on frozen features; nothing is trained. Writes the measurements to
runs/<competition>/diagnose/diagnosis.json, and a config for each advised experiment to configs/<competition>/.

  python src/diagnose.py --config configs/maskstates/vit_tiny.yaml
  python src/diagnose.py --config C --backbones convnext_tiny.fb_in22k vit_small_patch14_dinov2 images.size=224
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from foldcraft.views import cli

if TYPE_CHECKING:
    from foldcraft.common.places import Place
    from foldcraft.predictions.experiment import Experiment
    from foldcraft.views.terminal import Terminal


def main(arguments: Sequence[str]) -> int:
    parser = cli.parser(__doc__)
    cli.add_backbones(parser)
    parser.add_argument("--configs", type=Path, help="folder for the advised configs (default configs/<competition>)")
    cli.add_place(parser, "backbones")
    parser.add_argument("--gather", metavar="NAME", help=argparse.SUPPRESS)  # a task of --jobs: features of this net
    args = parser.parse_intermixed_args(arguments)
    cli.give_back_settings(args, "backbones")
    place = cli.place_of(args)
    config = cli.load_config(args)

    from foldcraft.study import make_folds

    terminal = cli.terminal(args)
    experiment = make_folds.open_experiment(config, terminal.say)

    from foldcraft.models import backbones
    from foldcraft.study import advice_files, diagnose
    from foldcraft.study.advice import advise
    from foldcraft.views import diagnosis

    def with_net(name: str) -> Experiment:
        return replace(experiment, config=diagnose.config_for(experiment.config, name))

    if args.gather:
        diagnose.gather(with_net(args.gather), terminal)
        return 0
    names = backbones.to_try(config, args.backbones)
    if place.is_cluster or (place.at_once(len(names)) > 1 and len(names) > 1):
        gather_by_commands(args, place, names, config.machine.device == "cpu", terminal)
    measurements = diagnose.measure(list(map(with_net, names)), terminal)
    advice = advise(measurements, config)
    file = advice_files.write_diagnosis(measurements, advice, config)
    try:
        configs = advice_files.write_configs(advice, args.configs or Path("configs") / config.competition.name)
    finally:
        diagnosis.show(measurements, terminal)
        diagnosis.tell(advice, terminal)
    for line in diagnosis.commands(*configs):
        terminal.say(line)
    terminal.say(f"all numbers: {file}")
    return 0


def gather_by_commands(
    args: argparse.Namespace, place: Place, names: Sequence[str], on_cpu: bool, terminal: Terminal
) -> None:
    """Put the features of each net on disk by a command of its own; what fails there is told where it is missed."""
    import torch

    from foldcraft.common import executor
    from foldcraft.common.executor import Task

    files, words = cli.words_of(args)
    options = [*(["--quiet"] if args.quiet else []), *(["--config", *files] if files else [])]
    words = [__file__, *words, *options, "--gather"]
    tasks = [Task(name, [*words, name], gpus=0 if on_cpu else None) for name in names]
    executor.run(tasks, place.executor(torch.cuda.device_count()), terminal.say)


if __name__ == "__main__":
    cli.run(main)
