"""What the experiments of a submission have not predicted yet, and all that they have predicted, blended."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from foldcraft import hardware, nested, predictions
from foldcraft.audience import Audience
from foldcraft.decoding import UnreadableImage, decode
from foldcraft.ensemble import Method
from foldcraft.files import locked, remove_leftovers
from foldcraft.foldmodel import FoldModel, with_views
from foldcraft.images import ImageStore
from foldcraft.inference import predict
from foldcraft.members import MemberRuns, common_rows
from foldcraft.nested import Candidate, Member, Truth, Verdict
from foldcraft.predictions import Predictions
from foldcraft.rundir import FoldFolder, hardware_file
from foldcraft.workspace import Workspace


@dataclass(frozen=True)
class Combined:
    """The outcome of a blend.

    Attributes:
        ids: OOF rows that were judged.
        truth: what they were judged by.
        views: of each member.
        verdict: what was fitted, how it scores, and which way to blend is used.
        test: log-probabilities of the test set (N, K).
        blind: ids of the test set whose image could not be read; their answer is the classes' frequencies.
    """

    ids: np.ndarray
    truth: Truth
    views: list[tuple[str, ...]]
    verdict: Verdict
    test: np.ndarray
    blind: np.ndarray = field(default_factory=lambda: np.array([], dtype=str))

    @property
    def folds(self) -> list[int]:
        """Folds that the rows are of."""
        return np.unique(self.truth.fold).tolist()

    def fold_scores(self, candidate: Candidate) -> list[float]:
        """Nested score of each fold."""
        own = [self.truth.fold == fold for fold in self.folds]
        metric, targets = self.truth.metric, self.truth.targets
        return [metric(targets[rows], np.exp(candidate.nested[rows])) for rows in own]


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
            _add(folder, folder.oof, model.predict_oof(stores[member.name][0], views, audience))
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
        fits = known is not None and np.array_equal(known.ids, rows) and _stays(work, known)
        missing = tuple(view for view in member.views if not fits or view not in known.views)
        if missing:
            gaps.append((member, fold, part, missing))
    return gaps


def _stays(work: Workspace, known: Predictions) -> bool:
    """May rows stay without an image: is that wanted, and is there still none of them that can be read?"""
    if known.baseline and work.config.images.on_error == "stop":
        return False
    path_of = dict(zip(work.competition.test_ids.tolist(), work.competition.test_paths, strict=True))
    return not any(_can_be_read(path_of[row]) for row in known.baseline)


def _can_be_read(path: Path) -> bool:
    try:
        decode(path)
    except (UnreadableImage, OSError, MemoryError):
        return False
    return True


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
        folder = member.folder(fold)
        _add(folder, folder.test, models[member.name, fold].as_test(views, log_probs, stores[member.name][1]))


def _add(folder: FoldFolder, path: Path, new: Predictions) -> None:
    """Put new views beside those that are there; of two processes that do so at once neither loses any."""
    with locked(folder.lock):
        remove_leftovers(folder.path, path.name)
        predictions.write(path, with_views(_readable(path), new))


def combine(members: Sequence[MemberRuns], methods: Sequence[Method] | None = None) -> Combined:
    """Find the best honest blend of the members' OOF predictions, and apply it to their test predictions.

    Args:
        methods: ways to blend that are tried, simplest first; left out: those that suit the data.

    Raises:
        FoldcraftError: members do not belong together, or have no row in common.
    """
    joined = [predictions.join_folds(member.oof(), member.views) for member in members]
    ids = common_rows(joined)
    truth = truth_of(members[0].work, ids)
    tests = [predictions.average_folds(member.test(), member.views) for member in members]
    for test in tests[1:]:
        predictions.check_same(tests[0], test)
    known = [Member(m.name, oof.views, oof.of_rows(ids)) for m, oof in zip(members, joined, strict=True)]
    verdict = nested.judge(known, truth, methods)
    asked = [Member(m.name, test.views, test.log_probs) for m, test in zip(members, tests, strict=True)]
    answers = verdict.chosen.plan.apply(asked)
    data = members[0].work.competition
    # No calibration, weight or rule is for rows that nothing is known of.
    blind = np.isin(tests[0].ids, [row for test in tests for row in test.baseline])
    answers[blind] = predictions.log_frequencies(data.targets, len(data.classes))
    return Combined(ids, truth, [m.views for m in members], verdict, answers, tests[0].ids[blind])


def truth_of(work: Workspace, ids: np.ndarray) -> Truth:
    """What predictions of the training rows `ids` are judged by."""
    place = {row: number for number, row in enumerate(work.competition.train_ids.tolist())}
    rows = np.array([place[row] for row in ids.tolist()])
    data = work.competition
    return Truth(data.targets[rows], work.folds.fold[rows], data.units[rows], data.metric)
