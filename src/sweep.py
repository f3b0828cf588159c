"""Search settings: each trial is an experiment of its own, trained fold by fold, and left when it cannot win any more.

The space is a W&B sweep's YAML; the engine is local and needs no network. Run again, it goes on where it was.

  python src/sweep.py --config configs/masks/probe.yaml --space configs/sweeps/probe.yaml
  python src/sweep.py --config C --space S --trials 40 train.epochs=5
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foldcraft.common import config_file
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.views import cli

if TYPE_CHECKING:
    from foldcraft.study.sweep import Sweep, Trial
    from foldcraft.views.terminal import Terminal


def main(arguments: Sequence[str]) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("--space", type=Path, required=True, metavar="YAML", help="what to try, as for a W&B sweep")
    parser.add_argument(
        "--trials", type=int, help="how many in all; left out: the space's run_cap, a whole grid, or 20"
    )
    args = parser.parse_intermixed_args(arguments)
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

    from foldcraft.study.sweep import Sweep, words_of_caution
    from foldcraft.views.tracking import Tracker, tracked

    sweep = Sweep(load, space, experiment, terminal)
    is_told = sweep.base.tracking.wandb != "off"
    tracker = Tracker(sweep.folder / sweep.name, tags=[sweep.name]) if is_told else None
    with tracked(terminal, tracker) as sweep.callback:
        tried = sweep.run(args.trials)
    show(sweep, tried, terminal)
    whole = [one for one in tried if one.oof is not None]
    if not whole:
        raise FoldcraftError("no trial was finished", sweep.name)
    for line in words_of_caution(tried, ranked(sweep, whole)[0], sweep.base):
        terminal.say(line)
    return 0


def ranked(sweep: Sweep, tried: Sequence[Trial]) -> list[Trial]:
    """The best first; then those that were left, then those that failed."""
    sign = 1 if sweep.space.maximize else -1

    def place(one: Trial) -> tuple[bool, bool, float]:
        mean = sum(one.scores) / len(one.scores) if one.scores else 0.0
        value = one.oof if one.oof is not None and sweep.space.score == "oof" else mean
        return bool(one.reason), one.oof is None, -sign * value

    return sorted(tried, key=place)


def show(sweep: Sweep, tried: Sequence[Trial], terminal: Terminal) -> None:
    import numpy as np

    ordered = ranked(sweep, tried)
    best = ordered[0]
    parameters = [one.name for one in sweep.space.parameters]
    columns = ["experiment", *parameters, "folds", "mean ± std", "OOF", "95 % interval", "to the best, by fold", "s"]
    rows = []
    for one in ordered:
        chosen = [json.loads(value) if isinstance(value, str) else f"{value:.4g}" for value in one.chosen.values()]
        scores = np.array(one.scores)
        spread = f" ± {scores.std(ddof=1):.4f}" if len(scores) > 1 else ""
        apart = scores - np.array(best.scores)[: len(scores)] if best.scores else scores
        rows.append(
            (
                one.experiment,
                *chosen,
                f"{len(scores)}" + (" failed" if one.reason else " left" if one.oof is None else ""),
                f"{scores.mean():.4f}{spread}" if len(scores) else "",
                f"{one.oof:.4f}" if one.oof is not None else "",
                "–".join(f"{end:.4f}" for end in one.interval) if one.interval else "",
                "best" if one is best else f"{apart.mean():+.4f}" if len(scores) else "",
                f"{one.seconds:.0f}",
            )
        )
    metric = sweep.experiment.competition.metric.name
    terminal.table(f"{sweep.name}: {metric} of {len(tried)} trials, {sweep.space.method}", columns, rows)


if __name__ == "__main__":
    cli.run(main)
