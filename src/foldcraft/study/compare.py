"""Experiments that are to be compared: found by config or run folder, with what all of them say of the same rows."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foldcraft.common import config_file
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.paths import fold_configs
from foldcraft.metrics.significance import ScoredRows
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.finished import FinishedExperiment
from foldcraft.predictions.oof import OOF, common_rows


@dataclass(frozen=True)
class Run:
    """An experiment that takes part; `name` is its own among those that do."""

    name: str
    member: FinishedExperiment

    def oof(self) -> OOF:
        """Out-of-fold predictions of the finished folds, under this run's name.

        Raises:
            FoldcraftError: no fold is finished, or not all views are predicted.
        """
        self.member.check_done()
        return self.member.oof(self.name)


def open_runs(places: Sequence[str], overrides: Sequence[str]) -> list[Run]:
    """The experiments of the places, which are configs or run folders; the baseline first.

    Raises:
        FoldcraftError: a place is neither; fewer than two; one comes twice; they are of different competitions or
            judged by different metrics.
    """
    if len(places) < 2:
        raise FoldcraftError("there is nothing to compare", "command line", "name a baseline and one or more others")
    configs = [_settings(Path(place), overrides) for place in places]
    _check_alike(places, configs)
    members = [
        FinishedExperiment(
            Experiment.open(each, images_of=(), is_record=os.path.isdir(place)),
            Path(place) if os.path.isdir(place) else None,
        )
        for place, each in zip(places, configs, strict=True)
    ]
    homes = [member.home.resolve() for member in members]
    if twice := [place for number, place in enumerate(places) if homes[number] in homes[:number]]:
        raise FoldcraftError(f"{twice[0]} is named twice", "command line")
    names = [member.name for member in members]
    unique = [name if names.count(name) == 1 else place for name, place in zip(names, places, strict=True)]
    return [Run(name, member) for name, member in zip(unique, members, strict=True)]


def _settings(path: Path, overrides: Sequence[str]) -> Config:
    if os.path.isdir(path):
        return _settings_of_run(path, overrides)
    if not os.path.isfile(path) and path.suffix not in (".yaml", ".yml"):
        raise FoldcraftError(
            f"{str(path)!r} is neither a run folder, nor a YAML file, nor key=value",
            "command line",
            "for instance runs/<competition>/<experiment>",
        )
    return config_file.load(path, overrides)


def _settings_of_run(folder: Path, overrides: Sequence[str]) -> Config:
    """The settings that all folds of a run folder were trained with, and the words that change how they are judged.

    They are compared as they read now, for a setting that is younger than a run changes its recorded digest.

    Raises:
        FoldcraftError: no fold in it; folds of different settings; a word that would have changed the training.
    """
    files = fold_configs(folder)
    if not files:
        fold = (folder / "config.yaml").is_file()
        raise FoldcraftError(
            "holds no fold*/config.yaml",
            folder,
            f"name {folder.parent}" if fold else "name runs/<competition>/<experiment>, or a config",
        )
    trained = [config_file.load(file) for file in files]
    for file, other in zip(files, trained, strict=True):
        if other.training_fingerprint() != trained[0].training_fingerprint():
            raise FoldcraftError("were trained with different settings", f"{files[0].parent} and {file.parent}")
    asked = config_file.load(files[0], overrides)
    if asked.training_fingerprint() != trained[0].training_fingerprint():
        raise FoldcraftError("was trained with other settings than the key=value words ask for", folder)
    return asked


def _check_alike(places: Sequence[str], configs: Sequence[Config]) -> None:
    for place, other in zip(places, configs, strict=True):
        for what in ("name", "metric"):
            ours, theirs = getattr(configs[0].competition, what), getattr(other.competition, what)
            if ours != theirs:
                raise FoldcraftError(
                    f"{places[0]} has {ours}, {place} has {theirs}",
                    f"competition.{what}",
                    "add competition.metric=NAME to judge both by the same" if what == "metric" else None,
                )


def load_comparison(runs: Sequence[Run]) -> ScoredRows:
    """The out-of-fold predictions of the rows that all have predicted, each the mean of its config's views.

    Raises:
        FoldcraftError: a run has no finished fold; predictions are for other data, folds or classes; no row is
            predicted by all; the data have changed since; a config does not fit what was trained.
    """
    oofs = [run.oof() for run in runs]
    rows = common_rows(oofs)
    for run in runs:
        if not run.member.moved_to:  # a run folder brings its own settings
            run.member.check()
    first, data = oofs[0].at(rows), runs[0].member.experiment.competition.answers
    weights = None if data.score_weights is None else data.score_weights[rows]
    return ScoredRows(
        names=tuple(run.name for run in runs),
        metric=data.metric,
        space=data.space,
        classes=data.target.heads,
        truth=first.targets,
        units=first.units,
        fold=first.folds,
        predicted=tuple(oof.at(rows).probabilities for oof in oofs),
        weights=weights,
        part=data.target.part,
        counted=runs[0].member.experiment.competition.counted(rows),
    )
