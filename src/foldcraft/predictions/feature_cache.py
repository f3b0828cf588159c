"""Frozen features on disk: computed once for all folds, heads and experiments; one decode for all backbones."""

import copy
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from foldcraft.common import fingerprint, local_copy
from foldcraft.common.callbacks import Callback
from foldcraft.common.checked_array import DamagedRows, RowFile, RowWriter, read_usable
from foldcraft.common.config import Config
from foldcraft.common.errors import counted
from foldcraft.common.files import cannot_write, locked, remove_leftovers, temporary_beside
from foldcraft.data.images.image_cache import ImageStore
from foldcraft.data.loader import DrawnImages
from foldcraft.data.plain_images import PlainImages
from foldcraft.models import backbones, finetune, hardware
from foldcraft.models.backbones import Blueprint
from foldcraft.models.batchnorm_folding import folded
from foldcraft.models.hardware import Hardware
from foldcraft.models.inputs import Inputs, forward
from foldcraft.models.preprocessing import Preparation
from foldcraft.models.stage_features import Stage, StageFeatures, remove_classifier
from foldcraft.predictions.inference import BATCH, InferenceModel, sweep

FORMAT = 2  # raise it when features would come out differently
LARGEST = 65504.0  # of fp16
PIXELS = 32 * 160 * 160  # of a batch: what its largest maps fill then stays in a processor's caches


@dataclass(frozen=True)
class FrozenNet:
    """A backbone whose features are kept, as it sees images of one size.

    Attributes:
        weights: digest of its kind and of all its tensors but the classifier's; features of another net are never taken
            for its own.
    """

    name: str
    features: StageFeatures
    preparation: Preparation
    hardware: Hardware
    weights: str
    config: Config

    @classmethod
    def of(cls, model: nn.Module, blueprint: Blueprint, config: Config, size: int | None = None) -> "FrozenNet":
        """A frozen copy of a net with its classifier removed; the net itself is left as it is.

        Args:
            size: side of the image that it sees, in pixels; left out: `images.size`.

        Raises:
            FoldcraftError: the net gives no features of its blocks.
        """
        side = size or config.images.size
        bare = copy.deepcopy(model)
        remove_classifier(bare)
        # What is dropped is dropped in training only.
        args = {name: value for name, value in blueprint.args.items() if name != "num_classes" and "drop" not in name}
        content = fingerprint.of_bytes(backbones.content(bare))
        digest = fingerprint.of_values([blueprint.source, blueprint.arch, args, content])
        chosen = hardware.for_features(config.machine, finetune.is_transformer(model))
        placed = chosen.place(StageFeatures(folded(bare, side), side))
        return cls(config.backbone.name, placed, Preparation.of(blueprint, chosen), chosen, digest, config)

    @property
    def size(self) -> int:
        """Side of the image that the net sees, in pixels."""
        return self.features.size

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What the columns of its features are."""
        return self.features.stages

    @property
    def width(self) -> int:
        """Number of features of an image."""
        return sum(stage.width for stage in self.stages)


@dataclass(frozen=True)
class FeatureRequest:
    """Features of one set of images by one net, seen in one way.

    Attributes:
        part: "train" or "test", for people.
        view: a TTA view, or "draw<k>", an augmented copy of each image.
        only: rows of the store (n,), in order; None: all of them.
    """

    net: FrozenNet
    part: str
    store: ImageStore
    view: str
    only: np.ndarray | None = None

    @property
    def rows(self) -> np.ndarray:
        """Rows of the store that have features."""
        return np.arange(len(self.store)) if self.only is None else self.only

    def file(self, folder: Path) -> Path:
        """Where they are kept; named after all that they depend on."""
        key = [FORMAT, [str(item) for item in self._images().key[1:]], self.store.path.stem, self.net.weights]
        key += [[stage.name for stage in self.net.stages], self.net.size, self.view]
        key += [self.net.preparation.mean, self.net.preparation.std]
        key += [] if self.only is None else [self.only.tolist()]
        return folder / f"{self.part}-{self.net.name}-{self.net.size}px-{self.view}-{fingerprint.of_values(key)}.npy"

    def member(self) -> InferenceModel:
        """As a member of one pass over the images."""
        drawn = self.view.startswith("draw")
        view = "identity" if drawn else self.view
        return InferenceModel(
            self.net.features, self.net.preparation, self.net.hardware, self._images(), (view,), frozen_features
        )

    def _images(self) -> PlainImages | DrawnImages:
        images = self.net.config.images
        if self.view.startswith("draw"):
            return DrawnImages(self.store, images, self.net.config.augment, int(self.view.removeprefix("draw")))
        return PlainImages(self.store, images)


@torch.inference_mode()
def frozen_features(features: nn.Module, inputs: Inputs, _: Hardware) -> torch.Tensor:
    """Features float16 (B, D) of some rows."""
    return forward(features, inputs).clamp(-LARGEST, LARGEST).half()


def load_or_compute(wanted: Sequence[FeatureRequest], folder: Path, callback: Callback) -> list[np.ndarray]:
    """Features float16 (N, D) for each wish, as read-only maps of files in `folder`.

    What is not there, or damaged, is computed, by one process a net at a time. Every row is checked: features are read
    as a whole anyway.

    Raises:
        FoldcraftError: a file cannot be read or written.
    """
    files = {item.file(folder): item for item in wanted}
    found = {file: _read(file, item) for file, item in files.items()}
    parts = {file: (files[file].part, files[file].rows.tobytes()) for file, rows in found.items() if rows is None}
    for part in dict.fromkeys(parts.values()):
        mine = [file for file in parts if parts[file] == part]
        with ExitStack() as locks:
            for name in sorted({f"{part[0]}-{files[file].net.name}.lock" for file in mine}):  # in one order by all
                locks.enter_context(locked(folder / name))
            found |= {file: _read(file, files[file], callback) for file in mine}
            missing = {file: files[file] for file in mine if found[file] is None}
            _compute(missing, part[0], callback)
            found |= {file: RowFile(file).array for file in missing}
    return [rows for rows in (found[item.file(folder)] for item in wanted) if rows is not None]


def _read(file: Path, item: FeatureRequest, callback: Callback | None = None) -> np.ndarray | None:
    """Features (N, D) of a file, all of them checked; None where there is none, or none that can be used."""
    shape = (len(item.rows), item.net.width)

    def is_right(rows: np.ndarray) -> bool:
        return rows.shape == shape and rows.dtype == np.float16

    def tell(reason: str) -> None:
        if callback:
            callback.say(f"{file}: damaged features ({reason}); they are computed again")

    near = local_copy.nearest(file, item.net.config.machine.cache, callback.say if callback else lambda text: None)
    return read_usable(file, lambda path: _checked(path, near), is_right, "not of these images or this net", tell)


def _checked(path: Path, near: Path) -> np.ndarray:
    """All rows, from a copy on this machine where that is sound.

    Raises:
        DamagedRows: some have changed.
    """
    if near != path:
        try:
            return RowFile(near).check_all()
        except DamagedRows:
            near.unlink(missing_ok=True)  # made again the next time
    return RowFile(path).check_all()


def _batch(items: Sequence[FeatureRequest]) -> int:
    """How many images go through a net at once; a GPU takes as many as for predictions."""
    if any(item.net.hardware.device != "cpu" for item in items):
        return BATCH
    largest = max(item.net.size for item in items)
    return max(1, min(BATCH, PIXELS // largest**2))


def _compute(missing: dict[Path, FeatureRequest], part: str, callback: Callback) -> None:
    """One pass over some rows for everything that is missing of them; the files appear together, whole."""
    if not missing:
        return
    items = list(missing.values())
    rows = items[0].rows
    temporary = {target: temporary_beside(target) for target in missing}
    views = Counter(item.net.name for item in items)
    most = counted(max(views.values()), "view")
    title = f"{part} features of {counted(len(views), 'backbone')} in {most}"
    try:
        for target in missing:
            remove_leftovers(target.parent, target.name)
        writers = [
            RowWriter(path, np.float16, (len(rows), item.net.width))
            for path, item in zip(temporary.values(), items, strict=True)
        ]
        with callback.progress(title, len(rows)) as advance:
            for places, results in sweep([item.member() for item in items], rows, advance, _batch(items)):
                for writer, result in zip(writers, results, strict=True):
                    for place, values in enumerate(result[0].numpy(), places.start):
                        writer.put(place, values)
        for writer, (target, path) in zip(writers, temporary.items(), strict=True):
            writer.close()
            os.replace(path, target)
    except OSError as error:
        raise cannot_write(error.filename2 or next(iter(missing)).parent, error) from error
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
