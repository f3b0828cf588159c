"""Do packed models say of held-out rows what the fold models say?"""

import time
from dataclasses import dataclass

import numpy as np
import torch

from foldcraft.common.callbacks import Callback
from foldcraft.data.images.image_cache import ImageStore
from foldcraft.data.images.sources import is_there
from foldcraft.models.hardware import Hardware, this_machine
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.finished import FinishedExperiment
from foldcraft.predictions.fold_model import FoldModel
from foldcraft.predictions.inference import predict
from foldcraft.submission.pack.answering import Engine
from foldcraft.submission.pack.packed import PackedMember, PackedModel, Question

ROWS = 32  # that are looked at in each fold
CLOSE = 1e-3  # log-probabilities, log-odds, or values in units of their scale
CLOSE_IN_HALF = 0.05  # the same of weights in 16 bits, where no answer changes


@dataclass(frozen=True)
class Parity:
    """How packed models differ from those that were trained.

    Attributes:
        rows: that were looked at; 0: no image is there to look at.
        off: largest difference of predictions: log-probabilities, log-odds, or values in units of their scale.
        changed: rows whose answer is another.
        seconds: that an image took in all packed models and views.
    """

    rows: int = 0
    off: float = 0.0
    changed: int = 0
    seconds: float = 0.0

    @property
    def is_close(self) -> bool:
        """Are predictions the same, but for rounding?"""
        return self.off <= CLOSE and not self.changed

    def __str__(self) -> str:
        if not self.rows:
            return "no image is there to try the packed models on"
        kept = "all answers equal" if not self.changed else f"{self.changed} answers differ"
        off = f"predictions within {self.off:.1e}" if self.off else "predictions the same to the last bit"
        return f"{self.rows} rows, {kept}, {off}"


def check(member: FinishedExperiment, packed: PackedMember, engine: Engine, callback: Callback) -> Parity:
    """Compare on out-of-fold rows of each fold; where no training image is there, on test rows."""
    experiment = member.experiment
    part = "train" if any(map(is_there, experiment.competition.train_paths)) else "test"
    if not any(map(is_there, experiment.competition.paths(part))):
        return Parity()
    store = experiment.open_part(part, [packed.spec], callback)[0]
    found = [_one(member, packed, model, engine, store, part) for model in packed.models]
    return Parity(
        sum(one.rows for one in found),
        max(one.off for one in found),
        sum(one.changed for one in found),
        sum(one.seconds for one in found),
    )


def _one(
    member: FinishedExperiment, packed: PackedMember, model: PackedModel, engine: Engine, store: ImageStore, part: str
) -> Parity:
    experiment = member.experiment
    rows = experiment.folds.valid_rows(model.fold) if part == "train" else experiment.test_rows
    rows = rows[:: max(1, len(rows) // ROWS)][:ROWS]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plain = Hardware(device, "32-true", "contiguous", this_machine())
    asked = FoldModel.load(experiment, member.folder(model.fold), plain).member(store, packed.views, part)
    wanted = predict([asked], rows)[0]
    beside = None if asked.beside is None else asked.beside[rows]
    pixels = np.stack([store[row] for row in rows])
    question = Question(packed, [model], pixels, [beside])
    engine.predict(question.of(slice(1)))  # which loads the model
    begun = time.perf_counter()
    said = engine.predict(question)[0]
    seconds = (time.perf_counter() - begun) / len(rows)
    return Parity(len(rows), *_difference(experiment, wanted, said), seconds)


def _difference(experiment: Experiment, wanted: np.ndarray, said: np.ndarray) -> tuple[float, int]:
    space = experiment.competition.space
    a, b = (space.pooled(one.astype(np.float64)) for one in (wanted, said))
    if space.form == "values":
        return space.far(a, b), 0
    differ = experiment.competition.target.answered(a) != experiment.competition.target.answered(b)
    return float(np.abs(wanted - said).max()), int(np.any(differ.reshape(len(a), -1), axis=1).sum())
