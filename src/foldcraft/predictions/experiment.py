"""An experiment's settings together with the data and folds they are for; opened before torch is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foldcraft.common import fingerprint
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config, ImagesConfig
from foldcraft.common.errors import FoldcraftError, listing, shorten
from foldcraft.common.paths import FoldFolder, cache_folder, experiment_folder, fold_configs
from foldcraft.data import competition, folds
from foldcraft.data.competition import Competition
from foldcraft.data.folds import Folds
from foldcraft.data.images import bit_depth
from foldcraft.data.images.band_count import check_channels, find_channels
from foldcraft.data.images.decoding import BRIGHTEST
from foldcraft.data.images.image_cache import ImageSpec, ImageStore, UnreadableImages, content_of, open_stores
from foldcraft.data.images.sources import is_there
from foldcraft.data.label_swap import Swaps
from foldcraft.data.metadata import Encoder
from foldcraft.data.targets import support
from foldcraft.predictions import lineage, tta
from foldcraft.predictions.identity import Identity
from foldcraft.predictions.store import Origin

if TYPE_CHECKING:
    from foldcraft.data.images.image_stats import ImageFiles
    from foldcraft.models.backbones import Blueprint


# What to do about images that cannot be read, by the parts of the data that they are of.
SPARE = "images.on_error=baseline gives those test images the frequencies of the classes"
MENDS = {
    ("train",): "mend the files or drop their rows",
    ("test",): f"mend the files; {SPARE}",
    ("train", "test"): f"mend the files or drop their rows; {SPARE}",
}


@dataclass(frozen=True)
class Experiment:
    """An experiment's settings with the data and folds they are for.

    Attributes:
        notes: what was found out about the images, said when they are opened.
    """

    config: Config
    competition: Competition
    folds: Folds
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, config: Config, images_of: Sequence[str] = competition.PARTS, is_record: bool = False) -> Experiment:
        """Read competition and folds.

        Args:
            images_of: parts whose images must be there; those of others are asked for when they are opened.
            is_record: the config is what a run was made with, and asks for nothing now.

        Raises:
            FoldcraftError: either is not what it should be, a TTA view has an unknown name, or a setting does not go
                with the target.
        """
        cls.check_views(config)
        data = competition.read(config, images_of)
        return cls.on(config, data, is_record=is_record)

    @staticmethod
    def check_views(config: Config) -> None:
        """See that each view has a name that is known.

        Raises:
            FoldcraftError: it has not.
        """
        for where, names in (("tta.views", config.tta.views), ("probe.views", config.probe.views or [])):
            for name in names:
                tta.steps(name, where)

    @classmethod
    def on(cls, config: Config, data: Competition, made: Folds | None = None, is_record: bool = False) -> Experiment:
        """On a competition that has been read; folds are read where none are given.

        Raises:
            FoldcraftError: as `open`.
        """
        if not is_record:
            support.check(config, data.target)
        if made is None:
            made = folds.read(config.folds_file, data) if is_record else folds.read_for(config, data)
        Swaps.of(config.augment, data.target)  # a name that is not there is told now
        settled, of_bands, of_depth = with_images_known(config, data)
        return cls(settled, data, made, (*data.notes, *data.image_notes, *of_bands, *of_depth))

    @cached_property
    def swaps(self) -> Swaps:
        """What flips do to the label."""
        return Swaps.of(self.config.augment, self.competition.target)

    @cached_property
    def identity(self) -> Identity:
        """What its trained folds are made from."""
        return Identity.of(self.config, self.competition, self.folds, self.soup)

    def encoder(self, fold: int) -> Encoder | None:
        """How metadata enter what is learned for a fold: fitted on the rows that it learns from, and no others."""
        beside = self.competition.metadata
        return None if beside is None else Encoder.fit(beside.at(self.folds.train_rows(fold)))

    @property
    def beside(self) -> list[np.ndarray] | None:
        """Metadata of all training rows as each fold's head sees them float32 (N, d); None where there are none."""
        encoders = [self.encoder(fold) for fold in range(self.folds.count)]
        return [one(self.competition.metadata) for one in encoders] if all(encoders) else None

    @cached_property
    def soup(self) -> dict[str, str]:
        """The experiments that this one is the mean of, with the digests of their settings; of most nothing."""
        return lineage.soup_members(self.config)

    @cached_property
    def train_images(self) -> str:
        """Digest of the training images, in the order of their rows: the same names may hold other pictures.

        "" where some are not there.
        """
        return self._content("train")

    @cached_property
    def test_images(self) -> str:
        """Digest of the test images, as of the training images, and of their metadata."""
        return self._content("test")

    def _content(self, part: str) -> str:
        paths, beside = self.competition.paths(part), self.competition.test_metadata
        if not any(map(is_there, paths)):
            return ""
        if part == "test" and beside is not None:  # what is predicted for a row depends on both
            images = content_of(paths, cache_folder(self.config), self._spares_tests)
            return fingerprint.of_values([images, beside.content])
        return content_of(paths, cache_folder(self.config), part == "test" and self._spares_tests)

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
        space = self.competition.space
        known = (space.names, data, self.folds.fingerprint, weights, images, space.form, getattr(space, "widths", ()))
        return Origin(self.config.experiment, fold, *known)

    def image_spec(self, blueprint: Blueprint) -> ImageSpec:
        """How images are cached for a net; images cut to their centre keep the margin that its weights expect."""
        images = self.config.images
        needed = round(images.size / blueprint.crop_pct) if images.resize == "crop" else images.size
        side = images.cache_size or needed
        if side < images.size:
            raise FoldcraftError(f"{side} is smaller than images.size = {images.size}", "images.cache_size")
        return scaled(ImageSpec(side, images.resize, blueprint.interpolation, channels=images.bands), images)

    @property
    def answer_folds(self) -> np.ndarray:
        """The fold of each answer (A,), which is that of its images."""
        made = self.competition.answering
        return self.folds.fold if made is None else self.folds.fold[made.first]

    @cached_property
    def test_rows(self) -> np.ndarray:
        """All rows of the test set."""
        return np.arange(len(self.competition.test_ids))

    def open_images(self, specs: Sequence[ImageSpec], callback: Callback) -> list[tuple[ImageStore, ImageStore]]:
        """Decoded training and test images for each spec.

        Raises:
            FoldcraftError: some are missing.
            UnreadableImages: some cannot be decoded; those of both parts are named.
        """
        stores, problems = [], {}
        for part in competition.PARTS:
            try:
                stores.append(self.open_part(part, specs, callback))
            except UnreadableImages as error:
                problems[part] = error.problems
        if problems:
            raise UnreadableImages([*problems.get("train", []), *problems.get("test", [])], MENDS[*problems])
        return list(zip(*stores, strict=True))

    def open_part(self, part: str, specs: Sequence[ImageSpec], callback: Callback) -> list[ImageStore]:
        """Decoded images of a part, "train" or "test", for each spec.

        Raises:
            FoldcraftError: some are missing.
            UnreadableImages: some cannot be decoded.
        """
        self._tell(callback)
        competition.check_images(self.competition, self.config.folder, [part], self._spares_tests)
        paths, spare, folder = (
            self.competition.paths(part),
            part == "test" and self._spares_tests,
            cache_folder(self.config),
        )
        try:
            with callback.progress(f"decoding {part} images", len(paths)) as advance:
                stores = open_stores(
                    paths, specs, folder, part, advance, callback.say, spare, self.config.machine.cache
                )
        except UnreadableImages as error:
            raise UnreadableImages(error.problems, MENDS[part,]) from None
        if stores and (rows := list(stores[0].unreadable)):
            self.tell_unreadable(self.competition.test_ids[rows].tolist(), callback)
        return stores

    @property
    def _spares_tests(self) -> bool:
        return self.config.images.on_error == "baseline"

    def tell_unreadable(self, names: Sequence[str], callback: Callback) -> None:
        """Say, once, which test images, or answers none of whose images can be read, have the baseline's answer."""
        made = self.competition.answering
        what = f"{len(names)} of {len(self.test_rows)} test images cannot be read and get"
        if made is not None and set(names) <= set(made.test_ids.tolist()):
            what = f"of {len(names)} of {len(made.test_ids)} answers no image can be read; they get"
        words = (
            f"warning: {what} the frequencies of the "
            f"classes (images.on_error=baseline): {listing([shorten(name, 20) for name in names], 5)}"
        )
        self._tell_once(words, callback)

    def _tell(self, callback: Callback) -> None:
        """Say the notes, once."""
        for note in self.notes:
            self._tell_once(note, callback)

    def _tell_once(self, note: str, callback: Callback) -> None:
        if note not in self._told:
            callback.say(note)
            self._told.add(note)

    @cached_property
    def _told(self) -> set[str]:
        return set()


def scaled(spec: ImageSpec, images: ImagesConfig) -> ImageSpec:
    """The spec with the bounds between which deep images are scaled."""
    black, white = images.bounds
    return replace(spec, min_value=black, max_value=BRIGHTEST if white == BRIGHTEST else white)


def with_images_known(config: Config, pictures: ImageFiles) -> tuple[Config, tuple[str, ...], tuple[str, ...]]:
    """The config with the number of channels and the scale written out, and what there is to say of either.

    Raises:
        FoldcraftError: not all images have as many channels.
    """
    with_bands, of_bands = with_channels(config, pictures)
    settled, of_depth = with_scale(with_bands, pictures)
    return settled, of_bands, of_depth


def with_channels(config: Config, pictures: ImageFiles) -> tuple[Config, tuple[str, ...]]:
    """The config with the number of channels written out where it is left to be found and is not three.

    Some folds may have begun before channels were looked for, with the first three.

    Raises:
        FoldcraftError: not all images have as many.
    """
    every = [*pictures.train_paths, *pictures.test_paths]
    if config.images.channels != "auto":
        check_channels(config.images.channels, every, config.folder)
        return config, ()
    for file in fold_configs(experiment_folder(config)):
        with suppress(FoldcraftError):  # what is damaged is told by whoever needs it
            kept = FoldFolder(file.parent, -1).read_settings().get("images", {}).get("channels", "auto")
            return _with_images(config, {} if kept == "auto" else {"channels": kept}), ()
    found = find_channels(every, config.folder)
    if found == 3:
        return config, ()
    words = f"images have {found} channels, which all enter the net; images.channels: 3 takes the first three"
    return _with_images(config, {"channels": found}), (words,)


def with_scale(config: Config, pictures: ImageFiles) -> tuple[Config, tuple[str, ...]]:
    """The config with the scale of the deep images written out, and what there is to say of it.

    Where it is left to be found it is that of the experiment's folds, if some have begun: they, other folds and other
    test images must be scaled alike. Else all images of the competition are looked at.

    Raises:
        FoldcraftError: a bound that is given is beyond the one that was found.
    """
    images = config.images
    own_white = None if images.max_value == "auto" else images.max_value
    if own_white is not None and images.min_value is not None:
        return config, ()
    older: tuple[dict[str, Any], Path] | None = None  # from before scales were looked for
    for file in fold_configs(experiment_folder(config)):
        kept: dict[str, Any] = {}
        with suppress(FoldcraftError):  # what is damaged is told by whoever needs it
            kept = FoldFolder(file.parent, -1).read_settings().get("images", {})
        if kept and own_white is not None:
            return _with_images(config, {"min_value": kept.get("min_value")}), ()
        if "min_value" in kept:
            return (config, ()) if kept["max_value"] == "auto" else _told_scale(config, kept, file)
        older = (kept, file) if kept else older
    every = [*pictures.train_paths, *pictures.test_paths]
    found = bit_depth.find_scale(every, cache_folder(config), images.min_value, own_white)
    if found is None or (own_white is not None and not found.black):
        return config, ()
    if older and not found.black and found.white > 1:  # whole numbers were scaled by it in all images alike
        return _told_scale(config, *older)
    return _with_bounds(config, found.black, found.white), (found.words,)


def _told_scale(config: Config, kept: dict[str, Any], file: Path) -> tuple[Config, tuple[str, ...]]:
    own = config.images.min_value
    black, white = (kept.get("min_value") or 0.0) if own is None else own, float(kept["max_value"])
    bit_depth.check(black, white)
    words = f"deep images are scaled as in {file.parent}: {black:g} becomes black, {white:g} white"
    return _with_bounds(config, black, white), (words,)


def _with_bounds(config: Config, black: float, white: float) -> Config:
    return _with_images(config, {"min_value": black or None, "max_value": white})


def with_three_channels(config: Config) -> Config:
    """The config with the first three channels of every image."""
    return _with_images(config, {"channels": 3})


def _with_images(config: Config, changed: dict[str, Any]) -> Config:
    return config.model_copy(update={"images": config.images.model_copy(update=changed)})
