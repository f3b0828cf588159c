"""What a pack holds: settings, training rows, members with their models, and what to do when time runs out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from foldcraft.common.config import Config
from foldcraft.data.images.image_cache import ImageSpec
from foldcraft.data.label_swap import Swaps
from foldcraft.data.training_rows import TrainingRows
from foldcraft.ensemble.plan import BlendPlan

FORMAT = 1  # raise it when older code could not read a pack
TORCH, ONNX = "torch", "onnx"
MODELS = "models"  # the folder of the files of models


@dataclass(frozen=True)
class PackedModel:
    """The net of one fold.

    Attributes:
        file: its name in `MODELS`.
        mean, std: of each channel, for images scaled to [0, 1].
        encoder: of metadata, as `Encoder.to_plain` has it; None: the net takes none.
    """

    fold: int
    file: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    encoder: Mapping[str, object] | None = None


@dataclass(frozen=True)
class PackedMember:
    """One experiment of the blend.

    Attributes:
        reading: place of the settings by which its rows and images are read, among those of the pack.
        config: its settings; those of the data are those of `reading`.
        views: of an image, that are looked at.
        spec: how an image becomes a square.
        seconds: that an image took when it was packed, in all folds and views.
        bytes: of its models.
    """

    name: str
    reading: int
    config: Config
    views: tuple[str, ...]
    spec: ImageSpec
    swaps: Swaps
    models: tuple[PackedModel, ...]
    seconds: float = 0.0
    bytes: int = 0


@dataclass(frozen=True)
class Question:
    """What some models of a member are asked.

    Attributes:
        pixels: of the rows, as the cache holds them, uint8 (n, side, side, C).
        beside: encoded metadata (n, d) of the rows for each model.
    """

    member: PackedMember
    models: Sequence[PackedModel]
    pixels: np.ndarray
    beside: Sequence[np.ndarray | None]

    def of(self, rows: slice) -> "Question":
        """The same of some rows."""
        beside = [None if each is None else each[rows] for each in self.beside]
        return replace(self, pixels=self.pixels[rows], beside=beside)


@dataclass(frozen=True)
class Reading:
    """By which settings test rows are read, and the training rows that say what their answers may be."""

    config: Config
    rows: TrainingRows


@dataclass(frozen=True)
class Tier:
    """Some of the members with a plan of their own: what answers while there is time for it.

    Attributes:
        members: places of those that take part.
        folds: how many of each member's models.
        plan: of these members' predictions, fitted on their out-of-fold predictions.
        score, low, high: nested, of the plan with all fold models; NaN where it was not asked.
    """

    members: tuple[int, ...]
    folds: int
    plan: BlendPlan
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Packed:
    """A pack.

    Attributes:
        engine: `TORCH` or `ONNX`.
        readings: the first says what is predicted and what the host wants.
        tiers: the whole blend first, the cheapest last.
        known: test rows when it was packed, by which a user may see that the same files are read.
    """

    engine: str
    readings: tuple[Reading, ...]
    members: tuple[PackedMember, ...]
    tiers: tuple[Tier, ...]
    known: int = 0
    format: int = FORMAT

    @property
    def used(self) -> np.ndarray:
        """Places of the members of the whole blend."""
        return np.array(self.tiers[0].members)
