"""Continued pretraining: a pretrained backbone learns from the competition's own images, without labels (DIET).

  python src/pretrain.py --config configs/masks/mobilenet.yaml --name masks_net
  python src/train.py --config configs/masks/mobilenet.yaml experiment=pretrained backbone.name=masks_net

What it makes is `weights/NAME/`, laid out as on the hub: any config of the competition takes it as its `backbone.name`.
Whether that is better is told by the out-of-fold score alone (docs/transfer.md). The same command goes on where it was
interrupted.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from foldcraft.common.config import NAME
from foldcraft.common.errors import FoldcraftError
from foldcraft.views import cli

TOLD = 0.1  # share of images told apart, below which the head has learned nothing, and the net from noise


def command_line() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument("--name", required=True, help="of the weights folder that is made")
    parser.add_argument("--epochs", type=int, help="passes over the images; left out: 20")
    parser.add_argument("--test-images", action="store_true", help="learn from the test images too, where rules allow")
    return parser


def main(arguments: Sequence[str]) -> int:
    args = command_line().parse_intermixed_args(arguments)
    config = cli.load_config(args)
    if not re.match(NAME, args.name):
        raise FoldcraftError(f"{args.name!r} is no name", "--name", "use letters, digits, hyphens and underscores")
    if args.epochs is not None and args.epochs < 1:
        raise FoldcraftError(f"{args.epochs} is not a number of epochs", "--epochs", "use 1 or more")

    from foldcraft.study import make_folds

    terminal = cli.terminal(args)
    experiment = make_folds.open_experiment(config, terminal.say)

    from foldcraft.training import pretraining

    made = pretraining.pretrain(experiment, args.name, args.epochs or pretraining.EPOCHS, args.test_images, terminal)
    terminal.close()
    terminal.say(
        f"wrote {made.folder}: learned from {made.images} images in {made.seconds:.0f} s, tells {made.told_apart:.0%} "
        f"of them apart; backbone.name={args.name} starts from it"
    )
    if made.told_apart < TOLD:
        terminal.say("warning: it has hardly begun, and may be worse than what it began with; use more --epochs")
    return 0


if __name__ == "__main__":
    cli.run(main)
