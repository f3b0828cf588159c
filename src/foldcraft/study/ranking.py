"""All experiments of a competition, ranked by what they say out of fold of the same rows, and how sure a rank is."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from foldcraft.common import config_file
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, listing
from foldcraft.common.paths import FoldFolder, experiment_folder, fold_configs
from foldcraft.metrics import intervals, significance
from foldcraft.metrics.bootstrap import bootstrap_scores
from foldcraft.metrics.scores import Metric
from foldcraft.predictions import oof
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.store import Origin

REPEATS = significance.REPEATS
FEWEST = 200  # draws, where more would take minutes
PATIENCE = 2e8  # numbers that may be sorted through by all draws together, where a metric sorts
RANKED, UNFINISHED, APART = "ranked", "unfinished", "apart"
JUDGED = ("rank", "score", "low", "high", "difference", "difference_low", "difference_high", "error", "verdict")


@dataclass(frozen=True)
class RankedExperiment:
    """What lies in an experiment's folder.

    Attributes:
        settings: of its folds; None where they cannot be read.
        manifests: of the finished folds.
        flaw: why it cannot be compared with the others; None where it can.
    """

    name: str
    folder: Path
    settings: Config | None = None
    manifests: dict[int, dict[str, Any]] = field(default_factory=dict)
    flaw: str | None = None

    def fold(self, number: int) -> FoldFolder:
        """Where the fold lies."""
        return FoldFolder(self.folder / f"fold{number}", number)

    @property
    def age(self) -> tuple[Any, ...]:
        """Another one when a fold has been finished since, or trained anew."""
        return self.name, *((fold, self.fold(fold).manifest.stat().st_mtime_ns) for fold in self.manifests)


@dataclass(frozen=True)
class Ranking:
    """The experiments of a competition.

    Attributes:
        table: a row an experiment: the ranked by rank, then the unfinished, then those apart. What is not known is
            missing. Columns:
            experiment; state: ranked, unfinished or apart; rank; score, with low and high: its 95 % interval;
            difference: to the best on the same rows, positive where it is better, with difference_low and
            difference_high: the 95 % interval of this difference by itself, and error: its standard error;
            verdict: best, cannot be told, or worse (really, and paid for by all that are ranked);
            best_score: that of the best on the rows of an unfinished one, which is judged on those it has;
            done: numbers of the finished folds; seconds: of training, of all these together; device;
            backbone, mode, size (pixels); made_from: teachers, or members of a soup;
            changed: when a fold was finished or an epoch ended last; note: how far it is, or why it stands apart.
        fold_count: number of folds there are.
        folds: those that the ranked are ranked on.
        rows, groups: how many these folds hold.
        counted: the rows in words, or answers of how many images.
        draws: of the bootstrap.
    """

    competition: str
    metric: Metric
    table: pd.DataFrame
    fold_count: int
    folds: tuple[int, ...]
    rows: int
    groups: int
    draws: int
    judged: "_Judged" = field(repr=False)
    counted: str = ""

    def of(self, state: str) -> pd.DataFrame:
        """The rows that are "ranked", "unfinished" or "apart"."""
        return self.table[self.table["state"] == state]

    @staticmethod
    def records(table: pd.DataFrame) -> list[dict[str, Any]]:
        """Rows of the table one by one, with None for what is missing."""
        return table.astype(object).where(table.notna(), None).to_dict("records")


@dataclass(frozen=True)
class _Judged:
    """What takes time: columns of the table by experiment, and what they were computed from."""

    key: tuple[Any, ...]
    draws: int
    columns: dict[str, dict[str, Any]]


def rank(experiment: Experiment, folds: Sequence[int] | None = None, before: Ranking | None = None) -> Ranking:
    """Rank all experiments in a competition's runs folder.

    Args:
        experiment: of any experiment of the competition; its data, folds and metric are what counts.
        folds: whose rows are ranked on; left out: all, or, where no experiment has all, those of the furthest.
        before: an earlier ranking; while no fold has been finished since, its scores stand.

    Raises:
        FoldcraftError: nothing has been trained, or no experiment has all of `folds`.
    """
    home = experiment_folder(experiment.config).parent
    wanted = experiment.origin(-1, "")
    found = [_look(folder, wanted) for folder in sorted(home.glob("*")) if fold_configs(folder)]
    if not found:
        raise FoldcraftError("no experiment is trained yet", home, "run `python src/train.py --fold all`")
    fit = [one for one in found if one.flaw is None]
    shared = _shared(fit, folds)
    key = (experiment.competition.metric.name, wanted, shared, *(one.age for one in found))
    judged = before.judged if before and before.judged.key == key else _judge(experiment, wanted, fit, shared, key)
    rows = np.isin(experiment.answer_folds, shared)
    return Ranking(
        competition=experiment.competition.name,
        metric=experiment.competition.metric,
        table=_table(experiment, found, judged),
        fold_count=experiment.folds.count,
        folds=shared,
        rows=int(rows.sum()),
        groups=len(np.unique(experiment.competition.answers.units[rows])),
        draws=judged.draws,
        judged=judged,
        counted=experiment.competition.counted(np.flatnonzero(rows)),
    )


def _look(folder: Path, wanted: Origin) -> RankedExperiment:
    """An experiment's settings and manifests, and whether they go with the data and folds."""
    name, manifests = folder.name, {}
    try:
        for file in fold_configs(folder):
            fold = FoldFolder(file.parent, int(file.parent.name.removeprefix("fold")))
            if fold.is_done:
                manifests[fold.fold] = fold.read_manifest()
        settings = config_file.load(fold_configs(folder)[0])
    except (FoldcraftError, ValueError) as error:
        return RankedExperiment(name, folder, flaw=str(error))
    return RankedExperiment(name, folder, settings, manifests, _flaw(folder, manifests, wanted))


def _flaw(folder: Path, manifests: dict[int, dict[str, Any]], wanted: Origin) -> str | None:
    for fold, manifest in manifests.items():
        made_for = manifest.get("fingerprints", {})
        if made_for.get("data") != wanted.data:
            return f"fold {fold} was trained on other ids, labels or groups"
        if made_for.get("folds") != wanted.folds:
            return f"fold {fold} is one of other folds"
        if tuple(manifest["classes"]) != wanted.classes:
            return f"fold {fold} has other classes"
    if len({manifest["fingerprints"].get("config") for manifest in manifests.values()}) > 1:
        # Digests of one version can be compared; a setting that is younger than a fold changes them all.
        kept = {fold: config_file.load(folder / f"fold{fold}" / "config.yaml") for fold in manifests}
        own = {fold: settings.training_fingerprint() for fold, settings in kept.items()}
        if len(set(own.values())) > 1:
            return f"folds {listing(list(own))} were trained with different settings"
    return None


def _shared(fit: Sequence[RankedExperiment], asked: Sequence[int] | None) -> tuple[int, ...]:
    done = [tuple(sorted(one.manifests)) for one in fit]
    if asked is not None:
        wanted = tuple(sorted(set(asked)))
        if not any(set(wanted) <= set(folds) for folds in done):
            raise FoldcraftError(f"no experiment has finished fold {listing(wanted)}", "--fold")
        return wanted
    most = max(map(len, done), default=0)
    furthest = Counter(folds for folds in done if len(folds) == most)
    return max(furthest, key=lambda folds: (furthest[folds], [-fold for fold in folds]), default=())


def _judge(
    experiment: Experiment,
    wanted: Origin,
    fit: Sequence[RankedExperiment],
    shared: tuple[int, ...],
    key: tuple[Any, ...],
) -> _Judged:
    columns: dict[str, dict[str, Any]] = {}
    said: dict[str, np.ndarray] = {}
    for one in fit:
        try:
            said[one.name] = _answers(one, experiment, wanted)
            columns[one.name] = {"state": UNFINISHED}
        except FoldcraftError as error:
            columns[one.name] = {"state": APART, "flaw": str(error)}
    done = {one.name: set(one.manifests) for one in fit if one.name in said}
    ranked = [name for name, folds in done.items() if shared and set(shared) <= folds]
    draws = _draws(experiment, len(ranked))
    if ranked:
        columns |= _ranked(experiment, {name: said[name] for name in ranked}, shared, draws)
        best = next(name for name in ranked if columns[name]["rank"] == 1)
        for name in done.keys() - set(ranked):
            columns[name] |= _beside(experiment, said[best], said[name], sorted(done[name] & set(shared)), draws)
    return _Judged(key, draws, columns)


def _ranked(
    experiment: Experiment, said: dict[str, np.ndarray], shared: Sequence[int], draws: int
) -> dict[str, dict[str, Any]]:
    """Columns of those that have all the folds; of equals those come first that do by name."""
    rows = np.isin(experiment.answer_folds, shared)
    answers = [each[rows] for each in said.values()]
    judged = _field(experiment, answers, rows, draws)
    columns, names = {}, list(said)
    for place, k in enumerate(np.argsort(-experiment.competition.metric.sign * judged.scores, kind="stable"), start=1):
        verdict = "best" if place == 1 else "worse" if judged.is_worse[k] else "cannot be told"
        ends = _interval(experiment, answers[k], rows, draws)
        columns[names[k]] = {"state": RANKED, "rank": place, "verdict": verdict, **_numbers(judged, k), **ends}
    return columns


def _beside(
    experiment: Experiment, best: np.ndarray, said: np.ndarray, folds: Sequence[int], draws: int
) -> dict[str, float]:
    """Columns of one that has only some of the folds, beside the best on these."""
    rows = np.isin(experiment.answer_folds, folds)
    if not rows.any():
        return {}
    judged = _field(experiment, [best[rows], said[rows]], rows, draws, best=0)
    ends = _interval(experiment, said[rows], rows, draws)
    return {**_numbers(judged, 1), **ends, "best_score": float(judged.scores[0])}


def _answers(one: RankedExperiment, experiment: Experiment, wanted: Origin) -> np.ndarray:
    """What the metric is given (N, W) of all training rows, the mean over the views of its settings; else NaN.

    Raises:
        FoldcraftError: a file is damaged, is of other rows than the fold's, or lacks a view.
    """
    data, fold_of = experiment.competition.answers, experiment.answer_folds
    said = np.full((len(data.train_ids), len(data.classes.names)), np.nan)
    files = [one.fold(fold).oof for fold in one.manifests]
    if not files:
        return said
    found = oof.load(files, one.settings.tta.views, experiment.competition)
    if replace(found.origin, experiment=wanted.experiment, weights=wanted.weights, images="") != wanted:
        raise FoldcraftError("was predicted for other folds", files[0], "delete the fold's folder")
    if sorted(found.rows.tolist()) != np.flatnonzero(np.isin(fold_of, list(one.manifests))).tolist():
        raise FoldcraftError("are predictions of other rows than the fold's", files[0], "delete the fold's folder")
    said[found.rows] = found.probabilities
    return said


def _field(
    experiment: Experiment, said: Sequence[np.ndarray], rows: np.ndarray, draws: int, best: int | None = None
) -> significance.RankingTest:
    data = experiment.competition.answers
    metric, truth, weights = data.metric, data.targets[rows], _weights(experiment, rows)
    scores = np.array([metric(truth, each, weights) for each in said])
    drawn = bootstrap_scores(metric, truth, said, data.units[rows], draws, row_weights=weights)
    return significance.against_the_best(metric, scores, drawn, best)


def _interval(experiment: Experiment, said: np.ndarray, rows: np.ndarray, draws: int) -> dict[str, float]:
    """The same interval of a score as `infer` prints."""
    data, repeats = experiment.competition.answers, min(draws, intervals.REPEATS)
    judged = (data.metric, data.targets[rows], said, data.units[rows], repeats)
    low, high = intervals.bootstrap_interval(*judged, row_weights=_weights(experiment, rows))
    return {"low": low, "high": high}


def _weights(experiment: Experiment, rows: np.ndarray) -> np.ndarray | None:
    """How much some rows count in the score."""
    weights = experiment.competition.answers.score_weights
    return None if weights is None else weights[rows]


def _numbers(judged: significance.RankingTest, k: int) -> dict[str, float]:
    return {
        "score": float(judged.scores[k]),
        "difference": float(judged.behind[k]),
        "difference_low": float(judged.behind_low[k]),
        "difference_high": float(judged.behind_high[k]),
        "error": float(judged.error[k]),
    }


def _draws(experiment: Experiment, experiments: int) -> int:
    """As many as `compare` makes, unless the metric has to sort all probabilities for each."""
    if not experiment.competition.metric.by_order:
        return REPEATS
    numbers = experiments * len(experiment.competition.answers.train_ids) * len(experiment.competition.classes.names)
    return int(np.clip(PATIENCE / max(1, numbers), FEWEST, REPEATS))


def _table(experiment: Experiment, found: Sequence[RankedExperiment], judged: _Judged) -> pd.DataFrame:
    order = {RANKED: 0, UNFINISHED: 1, APART: 2}
    rows = [_row(experiment, one, judged.columns.get(one.name, {"state": APART})) for one in found]
    rows.sort(key=lambda row: (order[row["state"]], row.get("rank", 0), -len(row["done"]), row["experiment"]))
    columns = ["experiment", "state", *JUDGED, "best_score", "done", "seconds", "device", "backbone", "mode", "size"]
    table = pd.DataFrame(rows, columns=[*columns, "made_from", "changed", "note"])
    return table.astype({"rank": "Int64", "size": "Int64"})


def _row(experiment: Experiment, one: RankedExperiment, judged: dict[str, Any]) -> dict[str, Any]:
    manifests = [one.manifests[fold] for fold in sorted(one.manifests)]
    made_from = {teacher["experiment"]: None for manifest in manifests for teacher in manifest.get("teachers", [])}
    devices = dict.fromkeys(manifest["hardware"]["chosen"] for manifest in manifests if "hardware" in manifest)
    flaw = one.flaw or judged.get("flaw")
    about = {
        "experiment": one.name,
        **{key: value for key, value in judged.items() if key != "flaw"},
        "done": sorted(one.manifests),
        "seconds": float(sum(manifest["seconds"] for manifest in manifests)) if manifests else None,
        "device": ", ".join(devices) or None,
        "made_from": ", ".join(made_from) or None,
        "changed": _changed(one),
        "note": flaw or "; ".join(_progress(experiment, one)) or None,
    }
    if one.settings:
        settings = one.settings
        about |= {"backbone": settings.backbone.name, "mode": settings.finetune.mode, "size": settings.images.size}
    return about


def _changed(one: RankedExperiment) -> pd.Timestamp | None:
    """When a fold was finished, or an epoch ended, last."""
    files = [file for name in ("manifest.json", "history.csv") for file in one.folder.glob(f"fold*/{name}")]
    times = [file.stat().st_mtime for file in files]
    return pd.Timestamp(max(times), unit="s", tz="UTC") if times else None


def _progress(experiment: Experiment, one: RankedExperiment) -> Iterator[str]:
    """How far the folds are that are not finished."""
    assert one.settings is not None
    waiting = []
    for fold in range(experiment.folds.count):
        folder = one.fold(fold)
        if folder.is_done:
            continue
        if not folder.config.is_file():
            waiting.append(fold)
            continue
        epochs, whole = _epochs(folder.history), one.settings.train.epochs
        of = "" if whole == "auto" else f" of {whole}"
        yield f"fold {fold} at epoch {epochs}{of}" if epochs else f"fold {fold} begun"
    if waiting:
        yield f"fold {listing(waiting)} not begun"


def _epochs(history: Path) -> int:
    """Lines of a history, but for its head."""
    try:
        return max(0, len(history.read_text().splitlines()) - 1)
    except FileNotFoundError:
        return 0
