"""Is the training code sound on these data, with these settings? Under two minutes; exit code 1 when something fails.

Karpathy's list of common mistakes and Falcon's list of slow habits, each tried on the parts that train and predict.
Writes runs/<competition>/check/<experiment>.json. docs/check.md says what each line means.

  python src/check.py --config configs/maskstates/vit_tiny.yaml
  python src/check.py --config C --profile
  python src/check.py --config C --only one_batch gradients

Or look yourself: a contact sheet of images as inference sees them beside augmented ones; the net's modules, what is
trained how fast, whether gradients reach all of it. Nothing is checked then.

  python src/check.py --config C --show                 # both
  python src/check.py --config C --show augmentations
  python src/check.py --config C --show net
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, suggest
from foldcraft.views import cli

if TYPE_CHECKING:
    from foldcraft.views.terminal import Terminal

FAILED = 1
IMAGES, ROWS, DRAWS = 400, 8, 8
OF_CHECKS, OF_AUGMENTATIONS, OF_NET = ("profile", "only"), ("draws", "out"), ("depth", "json")


def command_line() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--images", type=int, help=f"training images to look at (default {IMAGES}); rows of the sheet (default {ROWS})"
    )
    checks = parser.add_argument_group("checks")
    checks.add_argument("--profile", action="store_true", help="watch some steps with torch.profiler; writes a trace")
    checks.add_argument("--only", nargs="+", metavar="CHECK", help="carry out these checks alone")
    looks = parser.add_argument_group("looking")
    looks.add_argument(
        "--show", nargs="*", metavar="WHAT", help=f"{' or '.join(SHOWN)}, and no check; without a word: both"
    )
    looks.add_argument("--draws", type=int, help=f"augmentations: draws of each image (default {DRAWS})")
    looks.add_argument("--out", help="augmentations: the PNG; left out: preview.png in the experiment's run folder")
    looks.add_argument("--depth", type=int, help="net: levels of modules; 0: all; left out: what fits on a screen")
    looks.add_argument("--json", metavar="FILE", help="net: write all of it, every level, as JSON")
    return parser


def main(arguments: Sequence[str]) -> int:
    args = command_line().parse_intermixed_args(arguments)
    cli.give_back_settings(args, "only", "show")
    if args.images is not None and args.images < 1:
        raise FoldcraftError(f"{args.images} is not a number of images", "--images")
    if args.show is not None:
        return show(args)
    cli.refuse(args, (*OF_AUGMENTATIONS, *OF_NET), "goes with --show")
    return check(args)


def check(args: argparse.Namespace) -> int:
    """Carry out the checks; 1 where something fails."""
    config = cli.load_config(args)

    from foldcraft.study.checks import opening, titles

    only = titles.named(args.only or [])
    opened = opening.read(config)

    from foldcraft.study.checks import run
    from foldcraft.views import checks

    terminal, trace = cli.terminal(args), run.trace_file(config) if args.profile else None
    report = run.examine(opened, terminal, args.images or IMAGES, only, trace, lambda line: checks.tell(line, terminal))
    file = run.write(report, config)
    checks.show_time(report, terminal)
    if trace:
        terminal.say(f"trace: {trace} (open it at ui.perfetto.dev or chrome://tracing)")
    terminal.say(f"{checks.summary(report)}; all numbers: {file}")
    return 0 if report.sound else FAILED


def show(args: argparse.Namespace) -> int:
    """Show what was asked for, or all there is to show."""
    if unknown := [word for word in args.show if word not in SHOWN]:
        raise FoldcraftError(f"cannot show {unknown[0]!r}", "--show", suggest(unknown[0], list(SHOWN)))
    subjects = args.show or list(SHOWN)
    cli.refuse(args, OF_CHECKS, "is of the checks, which --show leaves out")
    for what, options in (("augmentations", OF_AUGMENTATIONS), ("net", OF_NET)):
        if what not in subjects:
            cli.refuse(args, options, f"goes with --show {what}")
    if args.depth is not None and args.depth < 0:
        raise FoldcraftError(f"{args.depth} is not a number of levels", "--depth", "use 1 or more, or 0 for all")
    config, terminal = cli.load_config(args), cli.terminal(args)
    for what in dict.fromkeys(subjects):
        SHOWN[what](args, config, terminal)
    return 0


def show_augmentations(args: argparse.Namespace, config: Config, terminal: Terminal) -> None:
    """A contact sheet of what enters the net, and the steps of the augmentation."""
    from foldcraft.study import make_folds

    experiment = make_folds.open_to_look(config)

    from foldcraft.views import preview

    draws = DRAWS if args.draws is None else args.draws
    preview.show(experiment, args.images or ROWS, draws, Path(args.out) if args.out else None, terminal)


def show_net(args: argparse.Namespace, config: Config, terminal: Terminal) -> None:
    """The net that training begins with, module by module."""
    from foldcraft.data import competition

    data = competition.read(config)

    from foldcraft.predictions.experiment import with_channels
    from foldcraft.views import net

    config, _ = with_channels(config, data)
    net.show(config, data.classes.names, args.depth, Path(args.json) if args.json else None, terminal)


SHOWN: dict[str, Callable[[argparse.Namespace, Config, Terminal], None]] = {
    "augmentations": show_augmentations,
    "net": show_net,
}


if __name__ == "__main__":
    cli.run(main)
