"""The trained model of a fold, and the predictions it makes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from foldcraft.common import fingerprint
from foldcraft.common.callbacks import Callback
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.paths import FoldFolder
from foldcraft.data.images.image_cache import ImageStore
from foldcraft.data.metadata import Encoder
from foldcraft.data.plain_images import PlainImages
from foldcraft.models import checkpoint
from foldcraft.models.backbones import Blueprint
from foldcraft.models.hardware import Hardware
from foldcraft.models.preprocessing import Preparation, predictions
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.inference import InferenceModel, predict
from foldcraft.predictions.store import Predictions


@dataclass(frozen=True)
class FoldModel:
    """The trained model of a fold, ready to predict."""

    experiment: Experiment
    fold: int
    model: torch.nn.Module
    blueprint: Blueprint
    hardware: Hardware
    weights: str

    @classmethod
    def load(cls, experiment: Experiment, folder: FoldFolder, chosen: Hardware) -> "FoldModel":
        """Read a fold's weights.

        Raises:
            FoldcraftError: they are missing, damaged, or of another experiment.
        """
        model, blueprint, about = checkpoint.load_model(folder.model)
        if about.get("identity") != experiment.identity.of_fold(folder.fold):
            raise FoldcraftError(
                "weights of another experiment, other data or folds", folder.model, "train the fold again"
            )
        placed = chosen.place(model)
        return cls(experiment, folder.fold, placed, blueprint, chosen, fingerprint.of_file(folder.model))

    def member(self, store: ImageStore, views: Sequence[str], part: str = "train") -> InferenceModel:
        """As a member of an inference on the images of a part, "train" or "test"."""
        preparation = Preparation.of(self.blueprint, self.hardware)
        images = PlainImages(store, self.experiment.config.images)
        output = partial(predictions, of_outputs=self.experiment.competition.target.predictions)
        swaps = self.experiment.swaps
        beside = self._beside(part)
        return InferenceModel(self.model, preparation, self.hardware, images, tuple(views), output, swaps, beside)

    def _beside(self, part: str) -> np.ndarray | None:
        """Metadata of the rows of a part as the model learned to take them."""
        if self.blueprint.metadata is None:
            return None
        data = self.experiment.competition
        rows = data.metadata if part == "train" else data.test_metadata
        return Encoder.from_plain(self.blueprint.metadata["encoder"])(rows)

    def predict_oof(self, store: ImageStore, views: Sequence[str], callback: Callback) -> Predictions:
        """Predictions of the rows this fold's model never saw."""
        rows = self.experiment.folds.valid_rows(self.fold)
        with callback.progress(f"fold {self.fold}: out-of-fold predictions", len(rows)) as advance:
            predicted = predict([self.member(store, views)], rows, advance)[0]
        return as_oof(self.experiment, self.fold, self.weights, views, predicted)

    def predict_learned(self, store: ImageStore, views: Sequence[str], callback: Callback) -> Predictions:
        """Predictions of the rows this fold's model was trained on: to teach others with, not to judge it by."""
        rows = self.experiment.folds.train_rows(self.fold)
        with callback.progress(
            f"fold {self.fold}: answers of {self.experiment.config.experiment}", len(rows)
        ) as advance:
            predicted = predict([self.member(store, views)], rows, advance)[0]
        origin = self.experiment.origin(self.fold, self.weights, images=self.experiment.train_images)
        return Predictions(self.experiment.competition.train_ids[rows], tuple(views), predicted, origin)

    def predict_test(self, store: ImageStore, views: Sequence[str], callback: Callback) -> Predictions:
        """Predictions of the test set."""
        rows = self.experiment.test_rows
        with callback.progress(f"fold {self.fold}: test predictions", len(rows)) as advance:
            predicted = predict([self.member(store, views, "test")], rows, advance)[0]
        return as_test(self.experiment, self.fold, self.weights, views, predicted, store)


def as_oof(experiment: Experiment, fold: int, weights: str, views: Sequence[str], predicted: np.ndarray) -> Predictions:
    """Out-of-fold predictions (V, n, W) of a fold with where they come from.

    Args:
        weights: fingerprint of the fold's model.
    """
    ids = experiment.competition.train_ids[experiment.folds.valid_rows(fold)]
    return Predictions(ids, tuple(views), predicted, experiment.origin(fold, weights, images=experiment.train_images))


def as_test(
    experiment: Experiment, fold: int, weights: str, views: Sequence[str], predicted: np.ndarray, store: ImageStore
) -> Predictions:
    """The same of the test set (V, M, W); of images that could not be read, the baseline's."""
    data = experiment.competition
    origin = experiment.origin(fold, weights, test=True, images=experiment.test_images)
    rows = list(store.unreadable)
    predicted = predicted.copy()
    # From the fold's training rows alone: labels of others must not reach a student.
    predicted[:, rows] = data.target.baseline(experiment.folds.train_rows(fold))
    return Predictions(data.test_ids, tuple(views), predicted, origin, tuple(data.test_ids[rows].tolist()))


def with_views(known: Predictions | None, new: Predictions) -> Predictions:
    """`new` views beside those `known` before, where both are by the same model for the same rows."""
    if known is None or not known.origin.is_like(new.origin) or not np.array_equal(known.ids, new.ids):
        return new
    if known.baseline != new.baseline:  # an image has been mended since
        return new
    kept = [name for name in known.views if name not in new.views]
    predicted = np.concatenate([known.predicted[[known.views.index(name) for name in kept]], new.predicted])
    return replace(new, views=(*kept, *new.views), predicted=predicted)
