"""An experiment's settings together with the data and folds they are for; opened before torch is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from foldcraft import competition, fingerprint, folds, lineage, viewnames
from foldcraft.audience import Audience
from foldcraft.competition import Competition
from foldcraft.config import Config
from foldcraft.errors import FoldcraftError, listing
from foldcraft.folds import Folds
from foldcraft.images import ImageSpec, ImageStore, UnreadableImages, content_of, open_stores
from foldcraft.predictions import Origin
from foldcraft.rundir import cache_folder, experiment_folder

if TYPE_CHECKING:
    from foldcraft.backbones import Blueprint


@dataclass(frozen=True)
class Workspace:
    """An experiment's settings with the data and folds they are for."""

    config: Config
    competition: Competition
    folds: Folds

    @classmethod
    def open(cls, config: Config, images_of: Sequence[str] = competition.PARTS) -> Workspace:
        """Read competition and folds.

        Args:
            images_of: parts whose images must be there; those of others are asked for when they are opened.

        Raises:
            FoldcraftError: either is not what it should be, or a TTA view has an unknown name.
        """
        for where, names in (("tta.views", config.tta.views), ("probe.views", config.probe.views or [])):
            for name in names:
                viewnames.steps(name, where)
        data = competition.read(config, images_of)
        return cls(config, data, folds.read(config.folds_file, data))

    def identity(self, fold: int) -> str:
        """Digest of everything that decides what a trained fold is, but for the pixels.

        Raises:
            FoldcraftError: a teacher has not finished that fold.
        """
        parts = [self.config.training_fingerprint(), self.competition.fingerprint, self.folds.fingerprint, fold]
        if not self.competition.classes.are_by_alphabet:  # as they once were always: an older fold's heads are so
            parts.append(list(self.competition.classes.names))
        taught = self.taught_by(fold)
        return fingerprint.of_values([*parts, taught] if taught else parts)

    def check_classes(self, trained: Sequence[str] | None, where: object) -> None:
        """See that a fold was trained for the classes as they are, in their order.

        Raises:
            FoldcraftError: it was not.
        """
        known = self.competition.classes.names
        if trained is None or tuple(trained) == known or set(trained) != set(known):
            return  # other classes are other data, which is told by their fingerprint
        mend = "set competition.order to that, to go on with it, or experiment=NEWNAME to train again"
        was, now = listing(trained, 12), listing(known, 12)
        raise FoldcraftError(f"was trained for classes in the order {was}, which now is {now}", where, mend)

    def taught_by(self, fold: int) -> dict[str, str]:
        """Fingerprint of each teacher's model of that fold, by name; what was found first stays, until all is done.

        Raises:
            FoldcraftError: a teacher has not finished that fold.
        """
        if fold not in self._taught_by:
            self._taught_by[fold] = lineage.taught_by(self.config, fold)
        return self._taught_by[fold]

    @cached_property
    def _taught_by(self) -> dict[int, dict[str, str]]:
        return {}

    @cached_property
    def train_images(self) -> str:
        """Digest of the training images, in the order of their rows: the same names may hold other pictures.

        "" where some are not there.
        """
        return self._content("train")

    @cached_property
    def test_images(self) -> str:
        """Digest of the test images, as of the training images."""
        return self._content("test")

    def _content(self, part: str) -> str:
        paths = self.competition.paths(part)
        return content_of(paths, cache_folder(self.config)) if all(map(os.path.isfile, paths)) else ""

    def check_images(self, trained: Mapping[int, Mapping[str, Any]]) -> None:
        """See that folds learned from the training images that are there now.

        Args:
            trained: manifests, by fold.

        Raises:
            FoldcraftError: some did not.
        """
        noted = {fold: manifest.get("fingerprints", {}).get("train_images") for fold, manifest in trained.items()}
        now = self.train_images if any(noted.values()) else ""
        if others := [fold for fold, images in noted.items() if now and images and images != now]:
            raise FoldcraftError(
                f"fold {listing(others)} learned from other training images than lie there now",
                experiment_folder(self.config),
                "put those images back, or delete these folds and train them again",
            )

    def origin(self, fold: int, weights: str, test: bool = False, images: str = "") -> Origin:
        """What predictions of that fold's model say of themselves."""
        data = self.competition.test_fingerprint if test else self.competition.fingerprint
        names = self.competition.classes.names
        return Origin(self.config.experiment, fold, names, data, self.folds.fingerprint, weights, images)

    def image_spec(self, blueprint: Blueprint) -> ImageSpec:
        """How images are cached for a net; images cut to their centre keep the margin that its weights expect."""
        images = self.config.images
        needed = round(images.size / blueprint.crop_pct) if images.resize == "crop" else images.size
        side = images.cache_size or needed
        if side < images.size:
            raise FoldcraftError(f"{side} is smaller than images.size = {images.size}", "images.cache_size")
        return ImageSpec(side, images.resize, blueprint.interpolation, images.max_value)

    @cached_property
    def test_rows(self) -> np.ndarray:
        """All rows of the test set."""
        return np.arange(len(self.competition.test_ids))

    def open_images(self, specs: Sequence[ImageSpec], audience: Audience) -> list[tuple[ImageStore, ImageStore]]:
        """Decoded training and test images for each spec.

        Raises:
            FoldcraftError: some are missing.
            UnreadableImages: some cannot be decoded; those of both parts are named.
        """
        stores, problems = [], []
        for part in competition.PARTS:
            try:
                stores.append(self.open_part(part, specs, audience))
            except UnreadableImages as error:
                problems += error.problems
        if problems:
            raise UnreadableImages(problems)
        return list(zip(*stores, strict=True))

    def open_part(self, part: str, specs: Sequence[ImageSpec], audience: Audience) -> list[ImageStore]:
        """Decoded images of a part, "train" or "test", for each spec.

        Raises:
            FoldcraftError: some are missing.
            UnreadableImages: some cannot be decoded.
        """
        competition.check_images(self.competition, self.config.folder, [part])
        paths = self.competition.paths(part)
        with audience.progress(f"decoding {part} images", len(paths)) as advance:
            return open_stores(paths, specs, cache_folder(self.config), part, advance, audience.say)
