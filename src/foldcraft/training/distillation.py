"""What a fold learns from its teachers: soft targets for its training rows, pseudo-labels for test images.

A student's fold k is judged on the validation rows of fold k, so none of their labels may reach it, not even through a
teacher. Folds are frozen and shared by all experiments of a competition, and so of each teacher one model is fit to
teach: that of the same fold k.

- The pseudo-label of a test image is what the teachers' models of fold k said of it (`fold<k>/test.parquet`), or what
  a stored blend of such models says (`predictions/stored_blend`), which is a teacher of test images alone.
- The soft target of a training row is what the same models say of it, though they were trained on it: distillation
  (arXiv 1503.02531), and born-again nets where teacher and student are alike (1805.04770). The teachers' out-of-fold
  predictions of these rows may look more honest, and are not: the models of the other folds made them, and these have
  learned from the labels of fold k.
- Nothing is calibrated on the rows of fold k. A teacher whose weights were chosen by them is refused (`teachers`).

What is left are numbers that were found with the labels of all folds before anything is taught: the settings that
somebody chose by OOF scores, `optim.lr: auto`, and of a closed-form head its strength and the size of its logits.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from foldcraft.common import checksums
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import DistillConfig
from foldcraft.common.errors import FoldcraftError, listing, said_by
from foldcraft.common.files import check_readable, write_atomic
from foldcraft.common.paths import FoldFolder, hardware_file
from foldcraft.data.images.image_cache import ImageStore
from foldcraft.data.loader import DistillationTargets
from foldcraft.metrics.spaces import Space
from foldcraft.models import hardware
from foldcraft.predictions import store as prediction_store
from foldcraft.predictions import stored_blend
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.fold_model import FoldModel
from foldcraft.predictions.lineage import RETRAIN
from foldcraft.predictions.store import Predictions
from foldcraft.training.teachers import Teacher


@dataclass(frozen=True)
class TeacherPredictions:
    """Log-probabilities float32, the mean over teachers and their TTA views.

    Attributes:
        train: of the fold's training rows (n, K); none where soft targets have no share.
        test: of all test images (M, K); none where there are no pseudo-labels.
    """

    train: np.ndarray
    test: np.ndarray


def predict_teachers(
    teachers: Sequence[Teacher], experiment: Experiment, fold: int, callback: Callback
) -> TeacherPredictions:
    """What the teachers' models of that fold say, as far as the config wants to know.

    Raises:
        FoldcraftError: weights or test predictions are damaged, of another fold or another model; a teacher has not
            predicted these test images.
    """
    wanted, data = experiment.config.distill, experiment.competition
    rows = experiment.folds.train_rows(fold)
    train = test = np.empty((0, data.space.width), np.float32)
    if wanted.share:
        train = _mean([_of_train(teacher, experiment, callback) for teacher in teachers], data.train_ids[rows])
    if wanted.pseudo:
        test = _mean([_of_test(teacher, experiment) for teacher in teachers], data.test_ids)
    return TeacherPredictions(train, test)


def _of_train(teacher: Teacher, experiment: Experiment, callback: Callback) -> Predictions:
    """By the teacher's model of the fold, of the rows that it was trained on."""
    theirs = teacher.experiment
    machine = theirs.config.machine.model_copy(update={"device": experiment.config.machine.device})
    chosen = hardware.for_inference(machine, hardware_file(theirs.config))
    model = FoldModel.load(theirs, teacher.folder, chosen)
    if model.weights != teacher.model:
        raise FoldcraftError("was trained again just now", teacher.folder.path, "run the same command again")
    store = theirs.open_part("train", [theirs.image_spec(model.blueprint)], callback)[0]
    return _views_of(teacher, model.predict_learned(store, theirs.config.tta.views, callback))


def _of_test(teacher: Teacher, experiment: Experiment) -> Predictions:
    """As the teacher's fold has written them down, the mean of the views that it was trained to be asked in."""
    return _views_of(teacher, test_predictions(teacher, experiment))


def test_predictions(teacher: Teacher, experiment: Experiment) -> Predictions:
    """What the teacher's fold has written down of the test images, in all views that it has been asked in.

    Args:
        experiment: any of the same competition, whose test images they must be.

    Raises:
        FoldcraftError: they are damaged, of other test images, of another fold or another model.
    """
    file = teacher.folder.test
    found = prediction_store.read(file)
    expected = replace(
        experiment.origin(teacher.folder.fold, teacher.model, test=True, images=experiment.test_images),
        experiment=teacher.name,
    )
    if found.origin.data != expected.data or found.origin.images not in ("", expected.images):
        hint = f"run `python src/infer.py` with the config of {teacher.name}"
        if teacher.is_blend:
            hint = "run `python src/infer.py --store NEWNAME` with the configs of its members"
        raise FoldcraftError("are of other test images", file, hint)
    for what in ("fold", "weights", "folds", "classes", "experiment"):
        said, wanted = getattr(found.origin, what), getattr(expected, what)
        if said != wanted:
            raise FoldcraftError(f"test predictions of another origin: {what} {said}, not {wanted}", file, RETRAIN)
    if teacher.is_blend:
        stored_blend.check(teacher.folder, found)
    return found


def _views_of(teacher: Teacher, found: Predictions) -> Predictions:
    """The mean of the views that the teacher was trained to be asked in; others may have been added since."""
    return replace(found, views=("mean",), predicted=found.mean(teacher.views)[None])


def _mean(parts: Sequence[Predictions], ids: np.ndarray) -> np.ndarray:
    """The mean of the teachers in log space, for `ids` in their order, float32 (N, K)."""
    return parts[0].origin.space.pooled(np.stack([_in_order(part, ids) for part in parts])).astype(np.float32)


def _in_order(found: Predictions, ids: np.ndarray) -> np.ndarray:
    if missing := sorted(set(ids.tolist()) - set(found.ids.tolist())):
        raise FoldcraftError(f"predictions of {found.origin.experiment} lack {listing(missing, 3)}", hint=RETRAIN)
    return found.of_rows(ids)[0]


def cached_teacher_predictions(
    teachers: Sequence[Teacher], experiment: Experiment, student: FoldFolder, key: str, callback: Callback
) -> TeacherPredictions:
    """`ask`, kept in the student's folder under `key`: a training taken up again learns from the very same numbers.

    Raises:
        FoldcraftError: as `ask`; the file is damaged or cannot be written.
    """
    if student.answers.is_file() and (known := _recall(student.answers, key)):
        return known
    answers = predict_teachers(teachers, experiment, student.fold, callback)
    said = json.dumps({"key": key, checksums.KEY: _checksum(answers, key)})
    content = safetensors.numpy.save({"train": answers.train, "test": answers.test}, {"foldcraft": said})
    write_atomic(student.answers, content)
    return answers


def _checksum(answers: TeacherPredictions, key: str) -> str:
    arrays = [
        (name, f"{values.dtype} {values.shape}", np.ascontiguousarray(values).data if values.size else memoryview(b""))
        for name, values in (("train", answers.train), ("test", answers.test))
    ]
    return checksums.of_arrays(arrays, key)


def _recall(file: Path, key: str) -> TeacherPredictions | None:
    """What was kept under `key`; None where it was under another.

    Raises:
        FoldcraftError: the file is damaged.
    """
    try:
        check_readable(file)
        with safetensors.safe_open(file, "np") as stream:
            said = json.loads(stream.metadata()["foldcraft"])
            answers = TeacherPredictions(stream.get_tensor("train"), stream.get_tensor("test"))
        checksums.check(said.get(checksums.KEY), _checksum(answers, said["key"]))
        return answers if said["key"] == key else None
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise FoldcraftError(
            f"damaged answers of the teachers: {said_by(error)}", file, "delete it and run again"
        ) from None


def distillation_targets(
    experiment: Experiment, fold: int, answers: TeacherPredictions, test: ImageStore
) -> DistillationTargets:
    """Answers as targets for a fold's training.

    Args:
        test: the test images as the student sees them.

    Raises:
        FoldcraftError: the teachers are sure enough of no test image.
    """
    wanted, data = experiment.config.distill, experiment.competition
    rows = experiment.folds.train_rows(fold)
    own = data.space.matrix(data.targets[rows])
    if wanted.share:
        said = data.space.as_targets(answers.train, wanted.temperature, wanted.hard)
        known = ~np.isnan(own)  # what no label says of a row, the teachers say alone
        own = np.where(known, (1 - wanted.share) * own + wanted.share * said, said)
    chosen = _confident(data.space, answers.test, wanted, test.unreadable)
    said = data.space.as_targets(answers.test[chosen], wanted.temperature, wanted.hard)
    targets = np.full((len(data.targets), data.target.outputs), np.nan, np.float32)
    targets[rows] = data.target.to_learned(own, rows)
    targets = np.concatenate([targets, data.target.to_learned(said, np.full(len(said), -1))])
    return DistillationTargets(targets, test, chosen, data.test_ids[chosen], wanted.pseudo)


def _confident(space: Space, predicted: np.ndarray, wanted: DistillConfig, unreadable: Collection[int]) -> np.ndarray:
    """Rows (M,) of the test images whose likeliest class has the wanted probability, before any temperature."""
    if not len(predicted):
        return np.arange(0)
    surest = space.sureness(predicted)
    surest[list(unreadable)] = -1  # nobody is sure of what nobody has seen
    chosen = np.flatnonzero(surest >= wanted.confidence)
    if not len(chosen):
        raise FoldcraftError(
            f"the teachers are that sure of no test image; the most is {surest.max():.3f}",
            "distill.confidence",
            "lower it, or set distill.pseudo=0",
        )
    return chosen


def describe(given: DistillationTargets, teachers: Sequence[Teacher], wanted: DistillConfig) -> str:
    """A distilled in one line."""
    parts = [f"learns from {', '.join(teacher.name for teacher in teachers)}"]
    if wanted.share:
        parts.append(f"{wanted.share:g} of each target is theirs")
    if wanted.pseudo:
        parts.append(f"{len(given.rows)} test images are {wanted.pseudo:g} of each epoch")
    return "; ".join(parts)
