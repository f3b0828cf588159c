"""Folds as tables: the classes and groups in each, and what each came to once it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from foldcraft.data import folds
from foldcraft.views.terminal import duration

if TYPE_CHECKING:
    from foldcraft.data.competition import Competition
    from foldcraft.data.folds import Folds
    from foldcraft.predictions.experiment import Experiment
    from foldcraft.views.terminal import Terminal


def show_trained(experiment: Experiment, manifests: Mapping[int, dict[str, Any]], terminal: Terminal) -> None:
    """The trained folds of an experiment, by number, and what they come to."""
    scores, seconds = ([manifest[key] for manifest in manifests.values()] for key in ("score", "seconds"))
    rows = [
        (f"fold {fold}", f"{manifest['score']:.4f}", manifest["epochs"], duration(manifest["seconds"]))
        for fold, manifest in manifests.items()
    ]
    if len(scores) > 1:
        rows += [(name, f"{of(scores):.4f}", "", "") for name, of in (("mean", fmean), ("sd", stdev))]
        rows.append(("in all", "", sum(manifest["epochs"] for manifest in manifests.values()), duration(sum(seconds))))
    data = experiment.competition
    title = f"{experiment.config.experiment}, each of its {data.counted()}" if data.answering else ""
    terminal.table(title or experiment.config.experiment, ("", data.metric.title, "epochs", "time"), rows)


def show_split(split: Folds, data: Competition, terminal: Terminal) -> None:
    """How many rows, groups and rows of each class each fold has, and what is wrong with that."""
    table = folds.balance(split, data)
    rows = [(name, *counts) for name, counts in zip(table.index, table.to_numpy(), strict=True)]
    made = f" of {data.counted()}" if data.answering else ""
    title = f"{data.name}: {split.count} folds{made}, {split.scheme}, seed {split.seed}"
    terminal.table(title, ["", *table.columns], rows)
    for line in folds.warnings(split, data, table):
        terminal.say(f"warning: {line}")
