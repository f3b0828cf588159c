"""Average the weights of several trainings of one experiment (a model soup), and keep it where that is a real gain.

A config each, or one config with seeds (trained as `src/train.py --config C experiment=NAME-s1 seed=1`):

  python src/soup.py --config A B C
  python src/soup.py --config configs/masks/mobilenet.yaml --seeds 0,1,2
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foldcraft.common import config_file
from foldcraft.common.errors import FoldcraftError, listing
from foldcraft.views import cli

if TYPE_CHECKING:
    from foldcraft.common.config import Config
    from foldcraft.ensemble.model_soup import SoupCandidates
    from foldcraft.ensemble.soup_selection import Gain, SoupComparison, SoupScore
    from foldcraft.views.terminal import Terminal

MARK = "# The mean of the weights of"  # how the config of a soup begins


def main(arguments: Sequence[str]) -> int:
    parser = cli.parser(__doc__, several_configs=True)
    parser.add_argument("--seeds", metavar="0,1,2", help="members with these seeds, where one config is named")
    parser.add_argument("--name", default="soup", help="name of the soup as an experiment (default soup)")
    parser.add_argument("--keep", action="store_true", help="write the better soup though the gain is not real")
    args = parser.parse_intermixed_args(arguments)
    configs = with_seeds(cli.load_configs(args), args.seeds)
    first = Path(next((word for word in args.config + args.overrides if "=" not in word), cli.DEFAULT_CONFIG))
    to_be = config_file.load(first, [*overrides(args), f"experiment={args.name}"])
    target = first.with_name(f"{args.name}.yaml")

    from foldcraft.ensemble import soup_ingredients

    check_target(target)
    soup_ingredients.check_free(to_be)
    gathered = soup_ingredients.find_ingredients(configs)

    from foldcraft.ensemble import model_soup, soup_selection

    terminal = cli.terminal(args)
    pot = model_soup.open_candidates(gathered, terminal)
    warn_of_gaps(pot, terminal)
    tasted = soup_selection.compare_soups(pot)
    chosen = tasted.soup
    if is_written := chosen is not None and (chosen.gain.is_real or args.keep):
        command = shlex.join(["python", "src/soup.py", *arguments])
        write(pot, chosen, tasted.best, args.name, target, command)
    show(pot, tasted, terminal)
    if chosen is None:
        terminal.say("no soup is written: every mean of weights is worse than the best single experiment")
    elif not is_written:
        terminal.say(
            f"no soup is written: the {chosen.name}'s gain is not real ({told(chosen.gain)}); --keep writes it"
        )
    else:
        blend = f"blend it: python src/infer.py --config {target}"
        terminal.say(f"wrote {target} and the folds of {args.name}, the {chosen.name}; {blend}")
    return 0


def overrides(args: argparse.Namespace) -> list[str]:
    """The key=value words, wherever they stood."""
    return [word for word in [*args.config, *args.overrides] if "=" in word]


def with_seeds(configs: Sequence[Config], seeds: str | None) -> list[Config]:
    """The configs as they are, or the one there is with each of the seeds.

    The experiment with the config's own seed bears its own name, the others end in -s and their seed.

    Raises:
        FoldcraftError: several configs, or seeds that are no numbers.
    """
    if seeds is None:
        return list(configs)
    if len(configs) > 1:
        raise FoldcraftError("goes with one config", "--seeds", "name each config, without --seeds")
    words = seeds.split(",")
    if not all(word.isdecimal() for word in words):
        raise FoldcraftError(f"{seeds!r} are no seeds", "--seeds", "write 0,1,2")
    own = configs[0]
    named = {int(word): own.experiment if int(word) == own.seed else f"{own.experiment}-s{int(word)}" for word in words}
    return [own.model_copy(update={"seed": seed, "experiment": name}) for seed, name in named.items()]


def check_target(target: Path) -> None:
    """See that the config which is to be written takes the place of no other.

    Raises:
        FoldcraftError: it would.
    """
    if target.is_file() and not target.read_text().startswith(MARK):
        raise FoldcraftError("is there already, and no soup", target, "give the soup another name with --name")


def warn_of_gaps(pot: SoupCandidates, terminal: Terminal) -> None:
    if missing := [fold for fold in range(pot.experiment.folds.count) if fold not in pot.folds]:
        terminal.say(f"warning: fold {', '.join(map(str, missing))} is not finished by all; the soup will lack it too")


def show(pot: SoupCandidates, tasted: SoupComparison, terminal: Terminal) -> None:
    """The table, and what it means where the weights do not mix."""
    metric = pot.experiment.competition.metric.name
    columns = ("", "nets", "log-loss", metric, "95 % interval", f"better in {metric}", "in log-loss")
    rows = [
        (
            taste.name,
            taste.nets,
            f"{taste.loss:.4f}",
            f"{taste.score:.4f}",
            f"{taste.low:.4f}–{taste.high:.4f}",
            *(
                [f"{gain:+.4f} ± {error:.4f}" for gain, error in (taste.gain.metric, taste.gain.loss)]
                if taste.gain
                else ""
            ),
        )
        for taste in tasted.rows
    ]
    rows = [(*row, *[""] * (len(columns) - len(row))) for row in rows]
    terminal.table(f"OOF of folds {', '.join(map(str, pot.folds))}, each choice made on the other folds", columns, rows)
    terminal.say("better: than the best single experiment, with one standard error")
    terminal.say(f"greedy soup: {listing(pot.names(tasted.greedy.chosen))}; {pot.tried // len(pot.folds)} means tried")
    if tasted.apart:
        terminal.say(
            "warning: the uniform soup is worse than each experiment, so their weights lie in different basins; they "
            "began at different weights (backbone.weights: none, another seed), or went too far apart (lower optim.lr)"
        )


def told(gain: Gain) -> str:
    return " and ".join(
        f"{value:+.4f} ± {error:.4f} in {what}"
        for what, (value, error) in (("the metric", gain.metric), ("log-loss", gain.loss))
    )


def write(pot: SoupCandidates, taste: SoupScore, best: SoupScore, name: str, target: Path, command: str) -> None:
    """Write the soup's run folder, then the config that the other commands take."""
    from foldcraft.common.files import write_atomic
    from foldcraft.ensemble import soup_selection

    made = soup_selection.settings_of(pot, taste.chosen, name)
    metric = pot.experiment.competition.metric.name
    about = {"kind": taste.name, "nested_score": taste.score, "nested_log_loss": taste.loss}
    soup_selection.write_soup(pot, taste.chosen, made, about)
    comment = (
        f"{MARK} {listing(pot.names(taste.chosen), 100)}, by\n#   {command}\n"
        f"# OOF {metric} {taste.score:.4f} ({taste.low:.4f}–{taste.high:.4f}), log-loss {taste.loss:.4f}; of the best "
        f"of them {best.score:.4f} and {best.loss:.4f}.\n"
    )
    write_atomic(target, comment + made.to_yaml())


if __name__ == "__main__":
    cli.run(main)
