"""A sweep as a table: a row a trial, the best first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from foldcraft.study.sweep import Sweep, Trial
    from foldcraft.views.terminal import Terminal


def show(sweep: Sweep, trials: Sequence[Trial], terminal: Terminal) -> None:
    """What each trial tried and what it came to, beside the best.

    Args:
        trials: the best first.
    """
    parameters = [parameter.name for parameter in sweep.space.parameters]
    columns = ["experiment", *parameters, "folds", "mean ± std", "OOF", "95 % interval", "to the best, by fold", "s"]
    rows = [_row(trial, trials[0]) for trial in trials]
    metric = sweep.experiment.competition.metric.title
    terminal.table(f"{sweep.name}: {metric} of {len(trials)} trials, {sweep.space.method}", columns, rows)


def _row(trial: Trial, best: Trial) -> tuple[object, ...]:
    settings = [json.loads(value) if isinstance(value, str) else f"{value:.4g}" for value in trial.settings.values()]
    scores = np.array(trial.scores)
    spread = f" ± {scores.std(ddof=1):.4f}" if len(scores) > 1 else ""
    apart = scores - np.array(best.scores)[: len(scores)] if best.scores else scores
    return (
        trial.experiment,
        *settings,
        f"{len(scores)}" + (" failed" if trial.reason else " left" if trial.oof is None else ""),
        f"{scores.mean():.4f}{spread}" if len(scores) else "",
        f"{trial.oof:.4f}" if trial.oof is not None else "",
        "–".join(f"{end:.4f}" for end in trial.interval) if trial.interval else "",
        "best" if trial is best else f"{apart.mean():+.4f}" if len(scores) else "",
        f"{trial.seconds:.0f}",
    )
