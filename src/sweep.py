"""Search settings: each trial is an experiment of its own, trained fold by fold, and left when it cannot win any more.

The space is a W&B sweep's YAML; the engine is local and needs no network. Run again, it goes on where it was.

  python src/sweep.py --config configs/masks/probe.yaml --space configs/sweeps/probe.yaml
  python src/sweep.py --config C --space S --trials 40 train.epochs=5
  python src/sweep.py --config C --space S --jobs 2          # two trials at a time
  python src/sweep.py --config C --space S --on ray          # on a Ray cluster, see docs/cluster.md
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from foldcraft.common import config_file
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.views import cli

TRIALS_AT_ONCE = 8  # on a cluster; which trials there are depends on it, so it does not depend on the cluster


def main(arguments: Sequence[str]) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("--space", type=Path, required=True, metavar="YAML", help="what to try, as for a W&B sweep")
    parser.add_argument(
        "--trials", type=int, help="how many in all; left out: the space's run_cap, a whole grid, or 20"
    )
    cli.add_place(parser, "trials", str(TRIALS_AT_ONCE))
    parser.add_argument("--storage", metavar="URL", help="database for what was tried, in place of a file in runs")
    args = parser.parse_intermixed_args(arguments)
    place = cli.place_of(args)
    if args.trials is not None and args.trials < 1:
        raise FoldcraftError(f"{args.trials} is not a number of trials", "--trials", "use 1 or more")

    names, words = cli.words_of(args)
    if len(names) > 1:
        raise FoldcraftError("this command takes one config", "--config")
    file = Path(names[0] if names else cli.DEFAULT_CONFIG)

    def load(more: Sequence[str]) -> Config:
        return config_file.load(file, [*words, *more])

    from foldcraft.study import make_folds, search_space

    terminal = cli.terminal(args)
    space, experiment = search_space.read(args.space), make_folds.open_experiment(load([]), terminal.say)

    from foldcraft.study.sweep import Sweep, ranked, words_of_caution
    from foldcraft.study.trial_folds import TrainByCommands
    from foldcraft.views.sweep import show
    from foldcraft.views.tracking import Tracker, tracked

    sweep = Sweep(load, space, experiment, terminal, storage=args.storage)
    is_told = sweep.base.tracking.wandb != "off"
    tracker = Tracker(sweep.folder / sweep.name, tags=[sweep.name]) if is_told else None
    if place.is_cluster or place.at_once(1) > 1:
        options = ["--trial", "--tag", sweep.name, *(["--quiet"] if args.quiet else [])]
        command = [str(Path(__file__).with_name("train.py")), *options, "--config", str(file), *words]
        sweep.train, sweep.jobs = TrainByCommands(command, place), place.at_once(TRIALS_AT_ONCE)
    with tracked(terminal, tracker) as sweep.callback:
        trials = ranked(sweep.run(args.trials), sweep.space)
    show(sweep, trials, terminal)
    if not trials or trials[0].oof is None:
        raise FoldcraftError("no trial was finished", sweep.name)
    for line in words_of_caution(trials, trials[0], sweep.base):
        terminal.say(line)
    return 0


if __name__ == "__main__":
    cli.run(main)
