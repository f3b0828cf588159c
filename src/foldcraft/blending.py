"""The experiments of a submission: what each has predicted, what is still to be predicted, and all of it blended."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from foldcraft import ensemble, hardware, predictions
from foldcraft.audience import Audience
from foldcraft.config import Config
from foldcraft.errors import FoldcraftError
from foldcraft.foldmodel import FoldModel, with_views
from foldcraft.images import ImageStore
from foldcraft.inference import predict
from foldcraft.metrics import bootstrap_interval
from foldcraft.predictions import Predictions
from foldcraft.rundir import FoldFolder, experiment_folder, hardware_file
from foldcraft.workspace import Workspace


@dataclass(frozen=True)
class MemberRuns:
    """One experiment as a member of a blend."""

    work: Workspace

    @property
    def name(self) -> str:
        return self.work.config.experiment

    @property
    def views(self) -> tuple[str, ...]:
        return tuple(self.work.config.tta.views)

    @cached_property
    def done_folds(self) -> list[int]:
        """Folds that are finished."""
        return [fold for fold in range(self.work.folds.count) if self.folder(fold).is_done]

    @property
    def missing_folds(self) -> list[int]:
        """Folds that are not."""
        return [fold for fold in range(self.work.folds.count) if fold not in self.done_folds]

    def folder(self, fold: int) -> FoldFolder:
        """Where the fold lies."""
        return FoldFolder.of(self.work.config, fold)

    def check(self) -> None:
        """Make sure that there are finished folds, and that they are of these settings, data and folds.

        Raises:
            FoldcraftError: there are none, or they are not.
        """
        if not self.done_folds:
            raise FoldcraftError(
                "no fold is trained yet",
                experiment_folder(self.work.config),
                "run `python src/train.py --fold all` with the same --config",
            )
        for fold in self.done_folds:
            if self.folder(fold).read_manifest().get("identity") != self.work.identity(fold):
                raise FoldcraftError(
                    "was trained with other settings, data or folds than the config asks for",
                    self.folder(fold).path,
                    "repeat the key=value words it was trained with, or restore the config",
                )

    def oof(self) -> list[Predictions]:
        """Out-of-fold predictions of each finished fold."""
        return [predictions.read(self.folder(fold).oof) for fold in self.done_folds]

    def test(self) -> list[Predictions]:
        """Test predictions of each finished fold."""
        return [predictions.read(self.folder(fold).test) for fold in self.done_folds]


@dataclass(frozen=True)
class ScoreRow:
    """How well an experiment, or the blend, predicts rows that it was not trained on."""

    name: str
    fold_scores: list[float]
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Combined:
    """The outcome of a blend.

    Attributes:
        ids: OOF rows that were judged.
        folds: folds they are of.
        rows: a score for each member and, last, for the blend (of one member: only its own).
        shares: how much each member counts in the blend.
        test: log-probabilities of the test set (N, K).
    """

    ids: np.ndarray
    folds: list[int]
    rows: list[ScoreRow]
    shares: tuple[float, ...]
    test: np.ndarray


def open_members(configs: Sequence[Config]) -> list[MemberRuns]:
    """The experiments of the configs.

    Raises:
        FoldcraftError: they are of different competitions, one comes twice, or one has no finished fold.
    """
    names = [config.experiment for config in configs]
    if len({config.competition.name for config in configs}) > 1:
        raise FoldcraftError("these experiments are of different competitions", "--config")
    if len(set(names)) < len(names):
        raise FoldcraftError("an experiment is named twice", "--config", "each counts once")
    members = [MemberRuns(Workspace.open(config)) for config in configs]
    for member in members:
        member.check()
    return members


def complete(members: Sequence[MemberRuns], audience: Audience) -> None:
    """Predict what the finished folds have not predicted yet (new views, another test set); one decode an image."""
    wanted = [task for member in members for fold in member.done_folds for task in _gaps(member, fold)]
    if not wanted:
        return
    models = {}
    for member, fold, _, _ in wanted:
        if (member.name, fold) not in models:
            config = member.work.config
            chosen = hardware.for_inference(config.train, hardware_file(config))
            models[member.name, fold] = FoldModel.load(member.work, member.folder(fold), chosen)
    stores = _open_stores(members, models, audience)
    for member, fold, part, views in wanted:
        if part == "oof":
            model, folder = models[member.name, fold], member.folder(fold)
            new = model.predict_oof(stores[member.name][0], views, audience)
            predictions.write(folder.oof, with_views(_readable(folder.oof), new))
    _predict_tests([task for task in wanted if task[2] == "test"], models, stores, audience)


Gap = tuple[MemberRuns, int, str, tuple[str, ...]]


def _gaps(member: MemberRuns, fold: int) -> list[Gap]:
    """What a fold lacks: (member, fold, "oof" or "test", views)."""
    gaps: list[Gap] = []
    folder, work = member.folder(fold), member.work
    for part, path, rows in (
        ("oof", folder.oof, work.competition.train_ids[work.folds.valid_rows(fold)]),
        ("test", folder.test, work.competition.test_ids),
    ):
        known = _readable(path)
        fits = known is not None and np.array_equal(known.ids, rows)
        missing = tuple(view for view in member.views if not fits or view not in known.views)
        if missing:
            gaps.append((member, fold, part, missing))
    return gaps


def _readable(path: Path) -> Predictions | None:
    return predictions.read(path) if path.is_file() else None


def _open_stores(
    members: Sequence[MemberRuns], models: dict[tuple[str, int], FoldModel], audience: Audience
) -> dict[str, tuple[ImageStore, ImageStore]]:
    """Images as each member wants them; whatever is not cached yet is made with one decode an image."""
    specs = {}
    for member in members:
        blueprints = [model.blueprint for (name, _), model in models.items() if name == member.name]
        if blueprints:
            specs[member.name] = member.work.image_spec(blueprints[0])
    different = list(dict.fromkeys(specs.values()))
    stores = dict(zip(different, members[0].work.open_images(different, audience), strict=True))
    return {name: stores[spec] for name, spec in specs.items()}


def _predict_tests(
    tasks: Sequence[Gap],
    models: dict[tuple[str, int], FoldModel],
    stores: dict[str, tuple[ImageStore, ImageStore]],
    audience: Audience,
) -> None:
    if not tasks:
        return
    rows = tasks[0][0].work.test_rows
    members = [models[member.name, fold].member(stores[member.name][1], views) for member, fold, _, views in tasks]
    with audience.progress(f"test predictions of {len(members)} models", len(rows)) as advance:
        results = predict(members, rows, advance)
    for (member, fold, _, views), log_probs in zip(tasks, results, strict=True):
        path = member.folder(fold).test
        new = models[member.name, fold].as_test(views, log_probs)
        predictions.write(path, with_views(_readable(path), new))


def combine(members: Sequence[MemberRuns]) -> Combined:
    """Blend OOF and test predictions, and score every member and the blend.

    Raises:
        FoldcraftError: members do not belong together.
    """
    work = members[0].work
    data = work.competition
    truth = dict(zip(data.train_ids.tolist(), data.targets.tolist(), strict=True))
    fold_of = dict(zip(data.train_ids.tolist(), work.folds.fold.tolist(), strict=True))
    joined = [predictions.join_folds(member.oof(), member.views) for member in members]
    blended = ensemble.blend(joined, truth, fold_of)
    scorer = _Scorer(work, blended.ids)
    rows = [
        scorer.row(member.name, ensemble.rows_of(oof, blended.ids)) for member, oof in zip(members, joined, strict=True)
    ]
    if len(members) > 1:
        rows.append(scorer.row("blend", blended.oof))
    tests = [predictions.average_folds(member.test(), member.views) for member in members]
    for test in tests[1:]:
        predictions.check_same(tests[0], test)
    log_probs = blended.apply([test.log_probs[0] for test in tests])
    return Combined(blended.ids, scorer.folds, rows, blended.shares, log_probs)


class _Scorer:
    """Scores log-probabilities of fixed rows, fold by fold and all together."""

    def __init__(self, work: Workspace, ids: np.ndarray) -> None:
        place = {row: number for number, row in enumerate(work.competition.train_ids.tolist())}
        rows = np.array([place[row] for row in ids.tolist()])
        self.metric = work.competition.metric
        self.truth = work.competition.targets[rows]
        self.units = work.competition.units[rows]
        self.fold = work.folds.fold[rows]
        self.folds = sorted(set(self.fold.tolist()))

    def row(self, name: str, log_probs: np.ndarray) -> ScoreRow:
        probabilities = np.exp(log_probs)
        per_fold = [self.metric(self.truth[self.fold == k], probabilities[self.fold == k]) for k in self.folds]
        low, high = bootstrap_interval(self.metric, self.truth, probabilities, self.units)
        return ScoreRow(name, per_fold, self.metric(self.truth, probabilities), low, high)
