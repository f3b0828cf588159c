"""How much data is there, how unlike ImageNet is it, which nets and views suit it, and what to run: in minutes.

All of it from closed-form heads on frozen features; nothing is trained. Writes the measurements to
runs/<competition>/diagnose/diagnosis.json, and a config for each advised experiment to configs/<competition>/.

  python src/diagnose.py --config configs/maskstates/vit_tiny.yaml
  python src/diagnose.py --config C --backbones convnext_tiny.fb_in22k vit_small_patch14_dinov2 images.size=224
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from foldcraft.views import cli


def main(arguments: Sequence[str]) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--backbones",
        nargs="+",
        default=[],
        metavar="NAME",
        help="more backbones than those in the weights folder and in installed packages",
    )
    parser.add_argument("--configs", type=Path, help="folder for the advised configs (default configs/<competition>)")
    args = parser.parse_intermixed_args(arguments)
    cli.give_back_settings(args, "backbones")
    config = cli.load_config(args)

    from foldcraft.study import make_folds

    terminal = cli.terminal(args)
    experiment = make_folds.open_experiment(config, terminal.say)

    from foldcraft.models import backbones
    from foldcraft.study import advice_files, diagnose
    from foldcraft.study.advice import advise
    from foldcraft.training import initialization
    from foldcraft.views import diagnosis

    names = list(dict.fromkeys([config.backbone.name, *backbones.local_names(), *args.backbones]))
    experiments = [
        experiment,
        *(replace(experiment, config=initialization.config_for(experiment.config, name)) for name in names[1:]),
    ]
    measurements = diagnose.measure(experiments, terminal)
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


if __name__ == "__main__":
    cli.run(main)
