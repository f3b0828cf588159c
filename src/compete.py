"""The best submission that a budget of time allows: folds, probes, fine-tuning, blend; one at any moment.

What gains most a second comes first; after each experiment the blend is judged anew, and a submission is written where
it is better. Stopped at any time, the same command goes on; with more minutes it goes on from there.

  python src/compete.py --config configs/signdigits/vit_tiny.yaml --minutes 20
  python src/compete.py --config C --hours 8 --backbones convnext_tiny.fb_in22k vit_small_patch14_dinov2.lvd142m
"""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from foldcraft.common.errors import FoldcraftError
from foldcraft.views import cli

DEFAULT_MINUTES = 60.0


def main(arguments: Sequence[str]) -> int:
    began = time.monotonic()
    parser = cli.parser(__doc__)
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="of work in all, over all runs of this command (default 60)")
    budget.add_argument("--hours", type=float, help="the same in hours")
    cli.add_backbones(parser)
    parser.add_argument("--configs", type=Path, help="folder for configs (default configs/<competition>/compete)")
    cli.add_place(parser, "folds of a fine-tuning")
    parser.add_argument(
        "--pseudo-labels",
        type=int,
        default=0,
        metavar="ROUNDS",
        help="rounds of learning from the test images too, by what the blend says of them, where the host allows it",
    )
    args = parser.parse_intermixed_args(arguments)
    cli.give_back_settings(args, "backbones")
    seconds = _seconds(args)
    place = cli.place_of(args)
    if args.pseudo_labels < 0:
        raise FoldcraftError(f"{args.pseudo_labels} is not a number of rounds", "--pseudo-labels", "use 0, 1, 2 or 3")
    config = cli.load_config(args)

    from foldcraft.data.host_files.tables import read_tables

    tables = read_tables(config)  # a mistake in them is told before torch is there

    from foldcraft.study.compete import start
    from foldcraft.views import audit_report, compete
    from foldcraft.views.report import write

    terminal = cli.terminal(args)
    folder = args.configs or Path("configs") / config.competition.name / "compete"
    train = Path(__file__).with_name("train.py")
    options = start.Options(seconds, began, tuple(args.backbones), folder, place, args.pseudo_labels, train)
    with compete.shown(config, terminal) as show:
        outcome = start.run(
            config, options, terminal, show, partial(audit_report.audit, tables=tables, terminal=terminal)
        )
    compete.tell(outcome, terminal)
    if outcome.members and outcome.is_new:
        start_of_page = time.monotonic()
        write.write_page(outcome.members, None, shlex.join(["python", "src/compete.py", *arguments]), terminal)
        outcome.history.note(page=time.monotonic() - start_of_page)
    return 0


def _seconds(args: argparse.Namespace) -> float:
    """The budget.

    Raises:
        FoldcraftError: it is no amount of time.
    """
    option, amount = ("--hours", args.hours) if args.hours is not None else ("--minutes", args.minutes)
    amount = DEFAULT_MINUTES if amount is None else amount
    if not 0 < amount < float("inf"):
        raise FoldcraftError(f"{amount:g} is no amount of time", option, "for instance --minutes 60")
    return amount * (3600.0 if option == "--hours" else 60.0)


if __name__ == "__main__":
    cli.run(main)
