"""The teachers of a fold, found, and checked to have never learned from the rows that the fold is judged on.

What is checked is whether files are what they say, by fingerprints: a folder copied to the wrong place, weights of
another fold, an edited manifest. The rule itself, and why, is in `distillation`.
"""

from dataclasses import dataclass
from typing import Any

from foldcraft.common import config_file, fingerprint
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.paths import FoldFolder
from foldcraft.models import checkpoint
from foldcraft.predictions import lineage, stored_blend
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.lineage import RETRAIN

PRIOR_FREE = {"weighted", "sampler", "logit_adjusted"}  # these give probabilities of equally frequent classes


@dataclass(frozen=True)
class Teacher:
    """A finished experiment or a stored blend, and its fold that teaches.

    Attributes:
        experiment: None of a stored blend, which has no model to ask, only what it says of test images.
        entry: what the student's manifest says of it.
        imbalance: how rare classes were treated in its training, or in that of its members.
    """

    experiment: Experiment | None
    folder: FoldFolder
    entry: dict[str, Any]
    imbalance: str

    @property
    def is_blend(self) -> bool:
        return self.experiment is None

    @property
    def name(self) -> str:
        return self.entry["experiment"]

    @property
    def views(self) -> tuple[str, ...]:
        """Views of an image whose mean is its answer."""
        return (stored_blend.VIEW,) if self.experiment is None else tuple(self.experiment.config.tta.views)

    @property
    def model(self) -> str:
        """Fingerprint of that fold's weights."""
        return self.entry["model"]


def find_teachers(experiment: Experiment, fold: int) -> list[Teacher]:
    """The teachers of that fold, each checked to be what it says.

    Raises:
        FoldcraftError: one is not finished; it was trained for other data, folds or classes; its files are not those of
            that fold, or have changed; it descends from this experiment, or from what has changed since; its weights
            were chosen by the rows that the student is judged on; its probabilities have another prior than the labels;
            it is a stored blend, and its answer for training rows is asked for.
    """
    student, taught_by = FoldFolder.of(experiment.config, fold), experiment.identity.teachers(fold)
    found = [open_teacher(experiment, student, name) for name in taught_by]
    for teacher in found:
        if teacher.model != taught_by[teacher.name]:
            raise FoldcraftError("was trained again just now", teacher.folder.path, "run the same command again")
        if teacher.is_blend and experiment.config.distill.share:
            raise FoldcraftError(
                f"{teacher.name} is a stored blend, which has no answers for training rows",
                "distill.share",
                "set distill.share=0 and distill.pseudo, or name its members as teachers",
            )
        _check_prior(experiment.config, teacher)
    return found


def open_teacher(experiment: Experiment, student: FoldFolder, name: str) -> Teacher:
    """A teacher of the fold whose folder is `student`, which may be a blend's: its members teach it.

    Args:
        experiment: any of the same competition, for whose data, folds and classes the teacher must be.

    Raises:
        FoldcraftError: as `find_teachers`, but for what depends on the student's own settings.
    """
    folder = student.of_other(name)
    _check_data(experiment, folder)
    entry = lineage.entry_of(name, folder)
    lineage.check_ancestors(student, name, entry)
    if experiment.config.blend_file(name).is_file():
        return Teacher(None, folder, entry, stored_blend.imbalance_of(folder))
    theirs = Experiment.open(_settings_of(experiment.config, name, folder), is_record=True)
    _check_files(theirs, folder, entry["model"])
    _check_choice(theirs.config, folder)
    return Teacher(theirs, folder, entry, theirs.config.train.imbalance)


def _check_data(experiment: Experiment, folder: FoldFolder) -> None:
    """See that the manifest is of the student's data, folds and classes."""
    found = {**lineage.fingerprints_of(folder), "classes": folder.read_manifest().get("classes")}
    mine = {
        "data": experiment.competition.fingerprint,
        "folds": experiment.folds.fingerprint,
        "classes": list(experiment.competition.classes.names),
    }
    if other := [what for what, value in mine.items() if found[what] != value]:
        raise FoldcraftError(f"this teacher was trained for other {' and '.join(other)}", folder.manifest, RETRAIN)


def _settings_of(student: Config, name: str, folder: FoldFolder) -> Config:
    """The settings that the teacher was trained with, its runs where they lie now."""
    theirs = config_file.load(folder.config)
    if (theirs.experiment, theirs.competition.name) != (name, student.competition.name):
        raise FoldcraftError(
            f"is of {theirs.experiment} in {theirs.competition.name}, and not of the teacher {name}",
            folder.config,
            RETRAIN,
        )
    return theirs.model_copy(update={"runs": student.runs})


def _check_files(theirs: Experiment, folder: FoldFolder, model: str) -> None:
    """See that settings, manifest and weights are of this very fold and of each other.

    Settings, data, folds and the fold's number are all in the identity, and weights and manifest each have it.
    """
    fold, identity = folder.fold, theirs.identity.of_fold(folder.fold)
    manifest, about = folder.read_manifest(), checkpoint.read_about(folder.model)
    for file, said in ((folder.manifest, manifest.get("identity")), (folder.model, about.get("identity"))):
        if said != identity:
            raise FoldcraftError(
                f"is not of fold {fold} of {theirs.config.experiment}, trained with the settings beside it",
                file,
                RETRAIN,
            )
    if fingerprint.of_file(folder.model) != model:
        raise FoldcraftError("these are not the weights that its manifest was written for", folder.model, RETRAIN)


def _check_choice(theirs: Config, folder: FoldFolder) -> None:
    """See that the labels of the held-out rows did not choose the teacher's weights."""
    stopped = theirs.train.patience and theirs.finetune.mode != "linear_probe"
    for key, used in (("train.patience", stopped), ("finetune.interpolate", theirs.finetune.interpolate)):
        if used:
            raise FoldcraftError(
                f"{key} chose the weights of {theirs.experiment} by the rows that this fold is judged on",
                folder.config,
                f"use a teacher that was trained without {key}",
            )


def has_prior(imbalance: str) -> bool:
    """Are the probabilities of a net that was trained so of classes as frequent as they are, or of equally frequent?"""
    return imbalance not in PRIOR_FREE


def _check_prior(mine: Config, teacher: Teacher) -> None:
    """See that a teacher's answers and the student's labels are of the same world: frequencies as they are, or equal.

    The sampler draws the student's labels equally often. The other ways of treating rare classes take labels with the
    prior in them and take it out; from answers without a prior they would take it out twice.
    """
    free = not has_prior(teacher.imbalance)
    if free == (mine.train.imbalance == "sampler"):
        return
    there = "equally frequent classes" if free else "classes as frequent as they are"
    fitting = "sampler, weighted or logit_adjusted" if not free else "none or focal"
    raise FoldcraftError(
        f"{teacher.name} (train.imbalance={teacher.imbalance}) answers for {there}, which does not go with "
        f"train.imbalance={mine.train.imbalance} here",
        "distill.teachers",
        f"use teachers with train.imbalance {fitting}",
    )
