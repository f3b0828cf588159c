"""Soups beside the experiments that they are made of, as a table and in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from foldcraft.common.errors import listing

if TYPE_CHECKING:
    from foldcraft.ensemble.model_soup import SoupCandidates
    from foldcraft.ensemble.soup_selection import Gain, SoupComparison
    from foldcraft.views.terminal import Terminal


def warn_of_gaps(candidates: SoupCandidates, terminal: Terminal) -> None:
    """Say which folds the soup will lack."""
    if missing := [fold for fold in range(candidates.experiment.folds.count) if fold not in candidates.folds]:
        terminal.say(f"warning: fold {', '.join(map(str, missing))} is not finished by all; the soup will lack it too")


def show(candidates: SoupCandidates, comparison: SoupComparison, terminal: Terminal) -> None:
    """The table, and what it means where the weights do not mix."""
    data = candidates.experiment.competition
    metric, loss = data.metric.title, data.space.loss_name
    columns = ("", "nets", loss, metric, "95 % interval", f"better in {metric}", f"in {loss}")
    rows = [
        (
            soup_score.name,
            soup_score.nets,
            f"{soup_score.loss:.4f}",
            f"{soup_score.score:.4f}",
            f"{soup_score.low:.4f}–{soup_score.high:.4f}",
            *(
                [f"{gain:+.4f} ± {error:.4f}" for gain, error in (soup_score.gain.metric, soup_score.gain.loss)]
                if soup_score.gain
                else ""
            ),
        )
        for soup_score in comparison.rows
    ]
    rows = [(*row, *[""] * (len(columns) - len(row))) for row in rows]
    terminal.table(
        f"OOF of folds {', '.join(map(str, candidates.folds))}, each choice made on the other folds", columns, rows
    )
    terminal.say("better: than the best single experiment, with one standard error")
    tried = candidates.tried // len(candidates.folds)
    terminal.say(f"greedy soup: {listing(candidates.names(comparison.greedy.chosen))}; {tried} means tried")
    if comparison.apart:
        terminal.say(
            "warning: the uniform soup is worse than each experiment, so their weights lie in different basins; they "
            "began at different weights (backbone.weights: none, another seed), or went too far apart (lower optim.lr)"
        )


def told(gain: Gain, loss: str) -> str:
    """What is gained in the metric and in the proper loss, by its name."""
    return " and ".join(
        f"{value:+.4f} ± {error:.4f} in {what}"
        for what, (value, error) in (("the metric", gain.metric), (loss, gain.loss))
    )


def outcome(candidates: SoupCandidates, comparison: SoupComparison, name: str, config: Path | None) -> str:
    """What became of the soup, and what to do with it, in a line.

    Args:
        config: that was written; None: none was.
    """
    if comparison.soup is None:
        return "no soup is written: every mean of weights is worse than the best single experiment"
    if config is None:
        loss = candidates.experiment.competition.space.loss_name
        gain = told(comparison.soup.gain, loss) if comparison.soup.gain else "none"
        return f"no soup is written: the {comparison.soup.name}'s gain is not real ({gain}); --keep writes it"
    blend = f"blend it: python src/infer.py --config {config}"
    return f"wrote {config} and the folds of {name}, the {comparison.soup.name}; {blend}"
