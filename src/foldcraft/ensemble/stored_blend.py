"""A blend is stored so that it can teach: pseudo-labels by all members together, fold by fold.

A student of fold k may learn nothing from the labels of fold k (`training/distillation`). So what a blend says to it is
made from its members' models of fold k, and these are combined by a plan (views, temperatures, weights) that was
fitted, and chosen among all methods, on the out-of-fold predictions of the other folds alone. No decision rule is used:
what teaches are probabilities. Neither are boosted trees on metadata.

What remains is what remains with every stacked blend: the models of the other folds, by whose predictions those few
numbers are found, have themselves learned from fold k.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from foldcraft.common import checksums
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import NAME
from foldcraft.common.errors import FoldcraftError, listing
from foldcraft.common.paths import FoldFolder
from foldcraft.ensemble import blend, nested
from foldcraft.ensemble.methods import Method, RankMean
from foldcraft.ensemble.nested import BlendMember, BlendPlan, Labels
from foldcraft.predictions import oof, stored_blend
from foldcraft.predictions.finished import FinishedExperiment
from foldcraft.predictions.store import Predictions
from foldcraft.training import distillation, teachers
from foldcraft.training.teachers import Teacher


@dataclass(frozen=True)
class StoredFold:
    """What teaches in a fold.

    Attributes:
        method: name of the blending method that the other folds chose.
        predictions: of the test images, in the one view `stored_blend.VIEW`.
        manifest: what is kept of how it came about.
    """

    fold: int
    method: str
    predictions: Predictions
    manifest: dict[str, Any]

    def __str__(self) -> str:
        weights = [f"{name} {part['weight']:.2f}" for name, part in self.manifest["blend"]["members"].items()]
        return f"fold {self.fold}: {self.method} of {', '.join(weights)}"


@dataclass(frozen=True)
class TeachingBlend:
    """Members that are to teach together, with their out-of-fold predictions of images.

    Where several images make one answer, a blend that teaches is one of images: each test image needs a label.
    """

    members: Sequence[FinishedExperiment]

    @cached_property
    def folds(self) -> list[int]:
        """The folds that all members have finished.

        Raises:
            FoldcraftError: fewer than two: there would be no other fold to find weights on.
        """
        common = sorted(set.intersection(*(set(member.done_folds) for member in self.members)))
        if len(common) < 2:
            raise FoldcraftError(
                f"{listing([member.name for member in self.members], 3)} have {len(common)} finished fold in common, "
                "and weights for one are found on the others",
                "--store",
                "train two folds of each at the least",
            )
        return common

    @cached_property
    def truth(self) -> Labels:
        """Of all training images in these folds."""
        first = self.members[0].experiment
        data, fold = first.competition, first.folds.fold
        rows = np.flatnonzero(np.isin(fold, self.folds))
        weights = None if data.score_weights is None else data.score_weights[rows]
        return Labels(data.targets[rows], fold[rows], data.units[rows], data.metric, data.space, weights)

    @cached_property
    def held_out(self) -> list[BlendMember]:
        """Out-of-fold predictions of the rows of `truth`, in their order.

        Raises:
            FoldcraftError: some are damaged, or of other data, folds or classes.
        """
        first = self.members[0].experiment
        ids = first.competition.train_ids[np.isin(first.folds.fold, self.folds)]
        found = []
        for member in self.members:
            files = [member.folder(fold).oof for fold in self.folds]
            own, _ = oof.of_images(files, member.views, member.experiment.competition)
            found.append(BlendMember(member.name, own.views, own.of_rows(ids)))
        return found

    def plan(self, fold: int, methods: Sequence[Method] | None = None) -> tuple[str, BlendPlan]:
        """The method and the plan that the other folds speak for; no label of `fold` is looked at."""
        if methods is None:  # ranks are for the order of rows alone
            methods = [one for one in nested.methods_for(self.truth) if not isinstance(one, RankMean)]
        return nested.plan_without(self.held_out, self.truth, fold, methods)

    def of_fold(self, fold: int, name: str, methods: Sequence[Method] | None = None) -> StoredFold:
        """What the members' models of a fold say together, and what is to be written of it.

        Raises:
            FoldcraftError: a member may not teach (`teachers.open_teacher`); members answer for different frequencies
                of classes; test predictions are lacking or of another origin.
        """
        first = self.members[0].experiment
        own = FoldFolder.of(first.config.model_copy(update={"experiment": name}), fold)
        found = [teachers.open_teacher(member.experiment, own, member.name) for member in self.members]
        _check_priors(found)
        method, plan = self.plan(fold, methods)
        tests = [distillation.test_predictions(teacher, first) for teacher in found]
        ids = first.competition.test_ids
        asked = [
            BlendMember(known.name, known.views, test.of_rows(ids)[[test.views.index(view) for view in known.views]])
            for known, test in zip(self.held_out, tests, strict=True)
        ]
        said = plan.apply(asked).astype(np.float32)
        blind = [row for test in tests for row in test.baseline]
        origin = replace(first.origin(fold, "", test=True, images=first.test_images), experiment=name)
        made = Predictions(ids, (stored_blend.VIEW,), said[None], origin, tuple(dict.fromkeys(blind)))
        entries = [teacher.entry for teacher in found]
        model = stored_blend.model_of(fold, entries, stored_blend.content_of(made))
        manifest = {
            "blend": {"method": method, "members": _parts(self.held_out, plan)},
            "classes": list(first.competition.classes.names),
            "imbalance": found[0].imbalance,
            "teachers": entries,
            "fingerprints": {
                "data": first.competition.fingerprint,
                "test": first.competition.test_fingerprint,
                "folds": first.folds.fingerprint,
                "test_images": first.test_images,
                "model": model,
            },
        }
        return StoredFold(fold, method, replace(made, origin=replace(origin, weights=model)), manifest)


def store_blend(
    members: Sequence[FinishedExperiment], name: str, callback: Callback, methods: Sequence[Method] | None = None
) -> list[StoredFold]:
    """Keep a blend in `runs/<competition>/<name>/`, as a name for `distill.teachers`; for all folds that members share.

    What the members have not predicted yet is predicted first. A blend that is stored already is left as it is.

    Args:
        methods: blending methods that are tried; left out: those that suit the metric and give probabilities.

    Raises:
        FoldcraftError: fewer than two common folds; the name is an experiment's, or that of another blend; a member
            descends from a blend of this name, has changed since it taught another one, or had its weights chosen by
            the rows that its fold is judged on (patience, interpolation); members differ in data, folds or classes, or
            in the frequencies of classes that they answer for.
    """
    _check_free(members[0], name)
    if any(isinstance(method, RankMean) for method in methods or ()):
        raise FoldcraftError("gives ranks, and what teaches are probabilities", "--method", "use another, or none")
    blend.complete(members, callback)
    teaching = TeachingBlend(members)
    stored = [teaching.of_fold(fold, name, methods) for fold in teaching.folds]
    config = members[0].experiment.config.model_copy(update={"experiment": name})
    folders = [FoldFolder.of(config, one.fold) for one in stored]
    for folder, one in zip(folders, stored, strict=True):
        _check_same(folder, one)
    checksums.write_json(config.blend_file(name), {"members": [member.name for member in members]})
    for folder, one in zip(folders, stored, strict=True):
        if not folder.is_done:
            stored_blend.write(folder, one.predictions, one.manifest)
    return stored


def _check_free(member: FinishedExperiment, name: str) -> None:
    """See that it is a name that `distill.teachers` takes, and that no experiment has it."""
    if not re.match(NAME, name):
        raise FoldcraftError(f"{name!r} is no name", "--store", "use letters, digits, hyphens and underscores")
    config = member.experiment.config
    home = config.runs / config.competition.name / name
    if home.is_dir() and any(home.iterdir()) and not config.blend_file(name).is_file():
        raise FoldcraftError("is no stored blend", home, "give the blend another name")


def _check_same(folder: FoldFolder, one: StoredFold) -> None:
    """See that a fold which is there already is this very one: its students have learned from it."""
    if folder.is_done and folder.read_manifest().get("fingerprints", {}).get("model") != one.predictions.origin.weights:
        raise FoldcraftError("holds another blend, which students may have learned from", folder.path, "use a new name")


def _check_priors(found: Sequence[Teacher]) -> None:
    """See that members answer for the same frequencies of classes: of a mixture nobody knows which it is for."""
    with_prior = [teacher.name for teacher in found if teachers.has_prior(teacher.imbalance)]
    if 0 < len(with_prior) < len(found):
        free = next(teacher for teacher in found if teacher.name not in with_prior)
        raise FoldcraftError(
            f"{free.name} (train.imbalance={free.imbalance}) answers for equally frequent classes, {with_prior[0]} for "
            "classes as frequent as they are",
            "--store",
            "store each kind as a blend of its own",
        )


def _parts(members: Sequence[BlendMember], plan: BlendPlan) -> dict[str, Any]:
    """Of each member its weight and that of its views, for people to read."""
    return {
        member.name: {
            "weight": round(share, 6),
            "views": {view: round(w, 6) for view, w in zip(member.views, views, strict=True) if w},
        }
        for member, share, views in zip(members, plan.combination.shares, plan.views, strict=True)
    }
