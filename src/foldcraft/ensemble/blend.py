"""What the experiments of a submission have not predicted yet, and all that they have predicted, blended."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from foldcraft.common.callbacks import Callback
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import is_writable, locked, remove_leftovers
from foldcraft.common.paths import FoldFolder, audit_folder, hardware_file
from foldcraft.data.competition import Competition
from foldcraft.data.images.image_cache import ImageStore
from foldcraft.data.images.sources import is_there
from foldcraft.ensemble import boosting, constraints, prior_shift
from foldcraft.ensemble.boosting import Booster, Judged
from foldcraft.ensemble.forecast import Forecast, forecast
from foldcraft.ensemble.methods import Method
from foldcraft.ensemble.nested import BlendCandidate, BlendSelection, Labels
from foldcraft.ensemble.plan import BlendMember, BlendPlan
from foldcraft.ensemble.shift import found_by_audit
from foldcraft.models import hardware
from foldcraft.predictions import store
from foldcraft.predictions.finished import FinishedExperiment
from foldcraft.predictions.fold_model import FoldModel, as_test, with_views
from foldcraft.predictions.inference import predict
from foldcraft.predictions.oof import common_rows
from foldcraft.predictions.store import Predictions


@dataclass(frozen=True)
class Combined:
    """The outcome of a blend.

    Attributes:
        rows: places among the training rows, or answers, that were judged.
        truth: what they were judged by.
        views: of each member, once for each way to combine images to answers.
        selection: what was fitted, how it scores, and which blending method is used.
        test: predictions of the test set (N, W).
        counted: how many rows were judged, or answers of how many images.
        blind: ids of the test set whose image could not be read; their answer is the baseline's.
        boosted: the last members, where some that boost trees on metadata are used.
        forecast: what the test set will score.
        plan: by which the members' predictions of the test set, boosted ones last, became `test`.
        undecided: predictions of the test set (N, W) before the plan's decision rule.
        beside: share in `test` of an experiment that lacks folds, which is beside the blend (`unfinished.mixed`).
    """

    rows: np.ndarray
    truth: Labels
    views: list[tuple[str, ...]]
    selection: BlendSelection
    test: np.ndarray
    counted: str = ""
    blind: np.ndarray = field(default_factory=lambda: np.array([], dtype=str))
    boosted: tuple[BlendMember, ...] = ()
    forecast: Forecast | None = None
    plan: BlendPlan | None = None
    undecided: np.ndarray = field(default_factory=lambda: np.empty(0))
    beside: float = 0.0

    @property
    def shares(self) -> list[float]:
        """How much each member counts in `test`, what is beside the blend last."""
        own = [(1 - self.beside) * share for share in self.selection.chosen.plan.combination.shares]
        return [*own, self.beside] if self.beside else own

    @property
    def folds(self) -> list[int]:
        """Folds that the rows are of."""
        return np.unique(self.truth.fold).tolist()

    def fold_scores(self, candidate: BlendCandidate) -> list[float]:
        """Nested score of each fold."""
        own = [self.truth.fold == fold for fold in self.folds]
        return [self.truth.rows(rows).score(candidate.nested[rows]) for rows in own]

    def mean_of_folds(self, candidate: BlendCandidate) -> float:
        """Mean of the nested scores of the folds that have one; NaN where none has."""
        known = [score for score in self.fold_scores(candidate) if score == score]
        return float(np.mean(known)) if known else np.nan


def complete(members: Sequence[FinishedExperiment], callback: Callback) -> None:
    """Predict what the finished folds have not predicted yet: new views, other test images; one decode an image."""
    for folder in (member.folder(fold) for member in members for fold in member.done_folds):
        _drop_stale(folder)
    wanted = [task for member in members for fold in member.done_folds for task in _gaps(member, fold, callback)]
    if not wanted:
        return
    _check_learnable([task for task in wanted if task[2] == "oof"])
    config = members[0].experiment.config
    if not is_writable(config.runs):
        callback.say(f"{config.runs} may only be read: caches and predictions go to {config.scratch}")
    models = {}
    for member, fold, _, _ in wanted:
        if (member.name, fold) not in models:
            config = member.experiment.config
            chosen = hardware.for_inference(config.machine, hardware_file(config))
            models[member.name, fold] = FoldModel.load(member.experiment, member.folder(fold), chosen)
    held_out, tests = ([task for task in wanted if task[2] == part] for part in ("oof", "test"))
    stores = _open_stores("train", held_out, models, callback)
    for member, fold, _, views in held_out:
        model, folder = models[member.name, fold], member.folder(fold)
        _add(folder, "oof", model.predict_oof(stores[member.name], views, callback))
    _predict_tests(tests, models, _open_stores("test", tests, models, callback), callback)


def _drop_stale(folder: FoldFolder) -> None:
    """Delete predictions beside a fold that may only be read, where another model made them: it was trained anew."""
    model = folder.read_manifest().get("fingerprints", {}).get("model")
    for path in (folder.oof, folder.test):
        if folder.beside and model and path.parent == folder.beside and store.read(path).origin.weights != model:
            path.unlink()


Gap = tuple[FinishedExperiment, int, str, tuple[str, ...]]


def _gaps(member: FinishedExperiment, fold: int, callback: Callback) -> list[Gap]:
    """What a fold lacks: (member, fold, "oof" or "test", views)."""
    gaps: list[Gap] = []
    folder, experiment = member.folder(fold), member.experiment
    for part, path, rows, images in (
        (
            "oof",
            folder.oof,
            experiment.competition.train_ids[experiment.folds.valid_rows(fold)],
            experiment.train_images,
        ),
        ("test", folder.test, experiment.competition.test_ids, experiment.test_images),
    ):
        known = _readable(path)
        fits = known is not None and np.array_equal(known.ids, rows)
        if fits and known.baseline and experiment.config.images.on_error == "stop":
            fits = False
        if fits and images and known.origin.images not in ("", images):
            callback.say(f"{member.name}, fold {fold}: the {part} images are others now; they are predicted anew")
            fits = False
        missing = tuple(view for view in member.views if not fits or view not in known.views)
        if missing:
            gaps.append((member, fold, part, missing))
    return gaps


def _check_learnable(held_out: Sequence[Gap]) -> None:
    """See that the training images are there from which out-of-fold predictions are to be made.

    Raises:
        FoldcraftError: none is.
    """
    for member, fold, _, views in held_out:
        if not any(map(is_there, member.experiment.competition.train_paths)):
            known = _readable(member.folder(fold).oof)
            hint = f"set tta.views=[{','.join(known.views)}]" if known else "bring them, or the fold's oof.parquet"
            what = f"no out-of-fold predictions of view {views[0]}, and no training image to make them from"
            raise FoldcraftError(what, member.folder(fold).path, hint)


def _readable(path: Path) -> Predictions | None:
    return store.read(path) if path.is_file() else None


def _open_stores(
    part: str, tasks: Sequence[Gap], models: dict[tuple[str, int], FoldModel], callback: Callback
) -> dict[str, ImageStore]:
    """Images of a part as each member wants them; whatever is not cached yet is made with one decode an image."""
    if not tasks:
        return {}
    stores: dict[str, ImageStore] = {}
    for paths in dict.fromkeys(member.experiment.competition.paths(part) for member, *_ in tasks):
        members = {task[0].name: task for task in tasks if task[0].experiment.competition.paths(part) == paths}
        experiments = {name: member.experiment for name, (member, *_) in members.items()}
        specs = {
            name: experiments[name].image_spec(models[name, fold].blueprint) for name, (_, fold, *_) in members.items()
        }
        different = list(dict.fromkeys(specs.values()))
        opened = dict(
            zip(different, next(iter(experiments.values())).open_part(part, different, callback), strict=True)
        )
        stores |= {name: opened[spec] for name, spec in specs.items()}
    return stores


def _predict_tests(
    tasks: Sequence[Gap],
    models: dict[tuple[str, int], FoldModel],
    stores: dict[str, ImageStore],
    callback: Callback,
) -> None:
    if not tasks:
        return
    rows = tasks[0][0].experiment.test_rows
    members = [models[member.name, fold].member(stores[member.name], views, "test") for member, fold, _, views in tasks]
    with callback.progress(f"test predictions of {len(members)} models", len(rows)) as advance:
        results = predict(members, rows, advance)
    for (member, fold, _, views), predicted in zip(tasks, results, strict=True):
        folder = member.folder(fold)
        about = (member.experiment, fold, models[member.name, fold].weights, views, predicted)
        _add(folder, "test", as_test(*about, stores[member.name]))


def _add(folder: FoldFolder, part: str, new: Predictions) -> None:
    """Put new views beside those that are there; of two processes that do so at once neither loses any."""
    with locked(folder.written.lock):
        known = _readable(folder.oof if part == "oof" else folder.test)
        path = folder.written.oof if part == "oof" else folder.written.test
        remove_leftovers(path.parent, path.name)
        store.write(path, with_views(known, new))


def out_of_fold(members: Sequence[FinishedExperiment]) -> tuple[np.ndarray, Labels, list[BlendMember]]:
    """The rows, or answers, that all members have predicted out-of-fold, their truth, and what members say of them.

    Raises:
        FoldcraftError: they have no row in common.
    """
    oofs = [member.oof() for member in members]
    rows = common_rows(oofs)
    data = members[0].experiment.competition.answers
    weights = None if data.score_weights is None else data.score_weights[rows]
    about = (data.targets[rows], members[0].experiment.answer_folds[rows], data.units[rows])
    said = [text for member in members for text in member.experiment.config.competition.constraints]
    known_before = constraints.read(list(dict.fromkeys(said)), data.space)
    truth = Labels(*about, data.metric, data.space, weights, known_before)
    known = [
        BlendMember(m.name, oof.all_views, oof.at(rows).all_predicted, len(oof.ways))
        for m, oof in zip(members, oofs, strict=True)
    ]
    return rows, truth, known


def combine(members: Sequence[FinishedExperiment], methods: Sequence[Method] | None = None) -> Combined:
    """Find the best honest blend of the members' OOF predictions, and apply it to their test predictions.

    Args:
        methods: blending methods that are tried, simplest first; left out: those that suit the data.

    Raises:
        FoldcraftError: members do not belong together, or have no row in common.
    """
    rows, truth, known = out_of_fold(members)
    data = members[0].experiment.competition.answers
    each_fold = [member.test() for member in members]
    tests = [member.test_answers(parts) for member, parts in zip(members, each_fold, strict=True)]
    for test in tests[1:]:
        store.check_same(tests[0].origin, test.origin)
    judged = boosting.judge(known, truth, methods, _boosters(members, rows, known, truth))
    selection, boosted = judged.selection, tuple(booster.member for booster in judged.boosters)
    asked = [replace(one, predicted=test.predicted) for one, test in zip(known, tests, strict=True)]
    asked += _boosted(judged.boosters, members, asked)
    blind = np.isin(tests[0].ids, [row for test in tests for row in test.baseline])
    if any(member.experiment.config.competition.test_prior == "auto" for member in members):
        selection, plan = _at_test_priors(selection, truth, asked, ~blind)
    else:
        plan = selection.chosen.plan
    undecided = plan.blended(asked)
    said = members[0].experiment.competition.counted(rows)
    answers = decided(plan, undecided, blind, data.target.baseline())
    views = [member.views for member in (*known, *boosted)]
    forecast, blinded = _forecast(members, each_fold, judged, truth, asked, blind), tests[0].ids[blind]
    return Combined(rows, truth, views, selection, answers, said, blinded, boosted, forecast, plan, undecided)


def decided(plan: BlendPlan, undecided: np.ndarray, blind: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Predictions (N, W) of the test set by a plan's rule; no rule is for blind rows (N,), a mask, but the baseline."""
    answers = plan.rule.apply(undecided).copy()
    answers[blind] = baseline
    return answers


def _forecast(
    members: Sequence[FinishedExperiment],
    each_fold: Sequence[Sequence[Predictions]],
    judged: Judged,
    truth: Labels,
    asked: Sequence[BlendMember],
    blind: np.ndarray,
) -> Forecast:
    """What the test set will score; blind rows (a mask) say nothing of what averaging gains."""
    seen, by_fold = np.flatnonzero(~blind), []
    for fold in np.unique(truth.fold).tolist():
        said = [
            member.test_answers([parts[member.done_folds.index(fold)]]).predicted
            for member, parts in zip(members, each_fold, strict=True)
        ]
        own = [replace(one, predicted=predicted) for one, predicted in zip(asked[: len(members)], said, strict=True)]
        by_fold.append([one.rows(seen) for one in (*own, *_boosted(judged.boosters, members, own))])
    mean, shift = [one.rows(seen) for one in asked], found_by_audit(audit_folder(members[0].experiment.config))
    return forecast(judged.selection, truth, mean, by_fold, len(blind), shift)


def _boosted(
    boosters: Sequence[Booster], members: Sequence[FinishedExperiment], asked: Sequence[BlendMember]
) -> list[BlendMember]:
    """What boosted members say of the test set, from what the others say of it."""
    return [booster.of_tests(_metadata(members).test_metadata, asked) for booster in boosters]


def _at_test_priors(
    selection: BlendSelection, truth: Labels, asked: Sequence[BlendMember], seen: np.ndarray
) -> tuple[BlendSelection, BlendPlan]:
    """The blend with a line on the class priors of the test set, and its plan at those.

    What is said of out-of-fold rows stays as it is, for their priors do.

    Args:
        asked: the members' predictions of the test set.
        seen: which of it something is known of (T,), a mask.
    """
    if not prior_shift.suits(truth):
        said = "class priors of the test set: kept, for they are asked of one label a row only"
        return replace(selection, words=[*selection.words, said]), selection.chosen.plan
    before = selection.before_rule
    found = prior_shift.find(before.nested, truth, before.plan.apply(asked)[seen])
    plan = selection.chosen.plan
    if found.is_real:
        plan = replace(plan, rule=found.rule(before.nested, truth, plan.rule))
    return replace(selection, words=[*selection.words, str(found)]), plan


def _metadata(members: Sequence[FinishedExperiment]) -> Competition | None:
    """The competition as the first member has it that looks at metadata; None where none does."""
    found = (member.experiment.competition.answers for member in members)
    return next((one for one in found if one.metadata is not None), None)


def _boosters(
    members: Sequence[FinishedExperiment], rows: np.ndarray, known: Sequence[BlendMember], truth: Labels
) -> tuple[Booster, ...]:
    data = _metadata(members)
    if data is None:
        return ()
    weights = None if data.weights is None else data.weights[rows]
    return Booster.both(data.metadata.at(rows), known, truth, weights)
