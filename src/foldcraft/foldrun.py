"""One fold from settings to manifest: train, predict what was held out, predict the test set."""

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from foldcraft import backbones, checkpoint, competition, fingerprint, folds, hardware, predictions, tta
from foldcraft.backbones import Blueprint
from foldcraft.competition import Competition
from foldcraft.config import Config
from foldcraft.errors import FoldcraftError, listing
from foldcraft.files import locked, remove_leftovers, write_atomic
from foldcraft.fit import Fitted, Listener, Task, fit
from foldcraft.folds import Folds
from foldcraft.forward import Preparation
from foldcraft.hardware import Hardware
from foldcraft.images import ImageSpec, ImageStore, open_stores
from foldcraft.inference import Member, predict
from foldcraft.predictions import Origin, Predictions
from foldcraft.processes import Processes
from foldcraft.rundir import FoldFolder, cache_folder, experiment_folder

PACKAGES = ("torch", "torchvision", "timm", "albumentations", "opencv-python-headless", "lightning-fabric", "numpy")


class Audience(Listener):
    """What wants to know how a whole fold goes. Each method may be left as it is."""

    def say(self, text: str) -> None:
        """One line for people."""

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[int], object]]:
        """A stretch of work; call what this gives with each amount that is done."""
        yield lambda done: None

    def fold_started(self, config: Config, folder: FoldFolder, about: dict[str, Any]) -> None:
        """A fold begins, or goes on."""

    def fold_ended(self, manifest: dict[str, Any], truth: np.ndarray, predicted: np.ndarray) -> None:
        """A fold is done; class indices of its validation rows, true and predicted."""


@dataclass(frozen=True)
class Workspace:
    """An experiment's settings with the data and folds they are for."""

    config: Config
    competition: Competition
    folds: Folds

    @classmethod
    def open(cls, config: Config) -> "Workspace":
        """Read competition and folds.

        Raises:
            FoldcraftError: either is not what it should be, or a TTA view has an unknown name.
        """
        for name in config.tta.views:
            tta.view(name)
        data = competition.read(config)
        return cls(config, data, folds.read(config.folds_file, data))

    def identity(self, fold: int) -> str:
        """Digest of everything that decides what a trained fold is, but for the pixels."""
        parts = [self.config.training_fingerprint(), self.competition.fingerprint, self.folds.fingerprint, fold]
        return fingerprint.of_values(parts)

    def origin(self, fold: int, weights: str, test: bool = False) -> Origin:
        """What predictions of that fold's model say of themselves."""
        data = self.competition.test_fingerprint if test else self.competition.fingerprint
        names = self.competition.classes.names
        return Origin(self.config.experiment, fold, names, data, self.folds.fingerprint, weights)

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


def train_fold(work: Workspace, fold: int, processes: Processes, audience: Audience) -> dict[str, Any]:
    """Train a fold to its end, or go on where it was left, or skip it if it is done; gives its manifest.

    Raises:
        FoldcraftError: no such fold; another process is at it; what lies in its folder was made with other settings,
            data or folds; images cannot be read; and all that `fit` raises.
    """
    if fold not in range(work.folds.count):
        raise FoldcraftError(f"no fold {fold}", "--fold", f"folds are 0 to {work.folds.count - 1}, or all")
    folder = FoldFolder.of(work.config, fold)
    lock = (
        locked(folder.lock, wait=False, busy="another process is at this fold") if processes.is_first else nullcontext()
    )
    with lock:
        if processes.from_first(lambda: folder.is_done):
            manifest = _check_done(work, folder)
            audience.say(f"fold {fold}: done before, score {manifest['score']:.4f}")
            return manifest
        return _train(work, folder, processes, audience)


def _check_done(work: Workspace, folder: FoldFolder) -> dict[str, Any]:
    manifest = folder.read_manifest()
    if manifest["identity"] != work.identity(folder.fold):
        raise _other_settings(work, folder, "a finished fold")
    return manifest


def _other_settings(work: Workspace, folder: FoldFolder, what: str) -> FoldcraftError:
    """Says what has changed since the folder was begun."""
    before = OmegaConf.to_container(OmegaConf.load(folder.config)) if folder.config.is_file() else {}
    now = work.config.training_settings()
    changed = [
        f"{section}.{key} was {before[section].get(key)!r}, is {value!r}"
        for section, values in now.items()
        if isinstance(values, dict) and isinstance(before.get(section), dict)
        for key, value in values.items()
        if before[section].get(key) != value
    ]
    reason = listing(changed, 3) if changed else "seed, data or folds"
    return FoldcraftError(
        f"holds {what} made otherwise ({reason})", folder.path, "set experiment=NEWNAME, or delete that folder"
    )


def _train(work: Workspace, folder: FoldFolder, processes: Processes, audience: Audience) -> dict[str, Any]:
    config = work.config
    if processes.is_first:
        _begin(work, folder)
    torch.manual_seed(fingerprint.seed_from(config.seed, "head"))
    classes = len(work.competition.classes)
    model, blueprint = backbones.build(config.backbone, classes, config.images.size)
    backbones.check_forward(model, classes, config.images.size)
    processes.from_first(lambda: open_images(work, [work.image_spec(blueprint)], audience) and None)
    train_store, test_store = open_images(work, [work.image_spec(blueprint)], audience)[0]
    chosen = _hardware(work, folder, model, processes)
    audience.fold_started(config, folder, {"hardware": str(chosen), "why": chosen.why()})
    fitted = fit(_task(work, folder, train_store), model, blueprint, chosen, processes, audience)
    manifest: dict[str, Any] = {}
    if processes.is_first:
        manifest = _finish(work, folder, fitted, blueprint, chosen, (train_store, test_store), audience)
    processes.barrier()
    return manifest


def _begin(work: Workspace, folder: FoldFolder) -> None:
    if folder.checkpoint.is_file() and folder.config.is_file():
        state = checkpoint.load_state(folder.checkpoint)
        if state.get("identity") != work.identity(folder.fold):
            raise _other_settings(work, folder, "a checkpoint")
    for file in (folder.checkpoint, folder.history, folder.model, folder.oof, folder.test, folder.manifest):
        remove_leftovers(file)
    write_atomic(folder.config, work.config.to_yaml())


def open_images(work: Workspace, specs: Sequence[ImageSpec], audience: Audience) -> list[tuple[ImageStore, ImageStore]]:
    """Decoded training and test images for each spec."""
    parts = []
    for name, paths in (("train", work.competition.train_paths), ("test", work.competition.test_paths)):
        with audience.progress(f"decoding {name} images", len(paths)) as advance:
            parts.append(open_stores(paths, specs, cache_folder(work.config), name, advance))
    return list(zip(*parts, strict=True))


def _hardware(work: Workspace, folder: FoldFolder, model: torch.nn.Module, processes: Processes) -> Hardware:
    """What a begun fold was trained on, else what this experiment uses on this machine."""
    train, size = work.config.train, work.config.images.size
    if folder.checkpoint.is_file():
        kept = Hardware(**checkpoint.load_state(folder.checkpoint)["hardware"])
        if kept.device == "cpu" or kept.device == hardware.available_device():
            return kept
    memory = experiment_folder(work.config) / "hardware.json"
    processes.from_first(lambda: hardware.choose(train, model, size, memory) and None)
    return hardware.choose(train, model, size, memory)


def _task(work: Workspace, folder: FoldFolder, store: ImageStore) -> Task:
    return Task(
        identity=work.identity(folder.fold),
        config=work.config,
        store=store,
        ids=work.competition.train_ids,
        targets=work.competition.targets,
        train_rows=work.folds.train_rows(folder.fold),
        valid_rows=work.folds.valid_rows(folder.fold),
        classes=len(work.competition.classes),
        metric=work.competition.metric,
        state_file=folder.checkpoint,
        history_file=folder.history,
    )


def _finish(
    work: Workspace,
    folder: FoldFolder,
    fitted: Fitted,
    blueprint: Blueprint,
    chosen: Hardware,
    stores: tuple[ImageStore, ImageStore],
    audience: Audience,
) -> dict[str, Any]:
    """Write weights, predictions and, last, the manifest; the training state is not needed any more."""
    about = {"experiment": work.config.experiment, "fold": folder.fold, "identity": work.identity(folder.fold)}
    checkpoint.save_model(folder.model, fitted.weights, blueprint, about)
    runner = FoldModel.load(work, folder, chosen)
    views = tuple(work.config.tta.views)
    oof = runner.predict_oof(stores[0], views, audience)
    test = runner.predict_test(stores[1], views, audience)
    predictions.write(folder.oof, oof)
    predictions.write(folder.test, test)
    truth = work.competition.targets[work.folds.valid_rows(folder.fold)]
    probabilities = np.exp(oof.mean(views))
    manifest = {
        "identity": work.identity(folder.fold),
        "score": work.competition.metric(truth, probabilities),
        "metric": work.competition.metric.name,
        "classes": list(work.competition.classes.names),
        "views": list(views),
        "epochs": len(fitted.history),
        "seconds": round(fitted.seconds, 1),
        "hardware": {"chosen": str(chosen), "why": chosen.why(), "machine": chosen.machine},
        "fingerprints": {
            "config": work.config.training_fingerprint(),
            "data": work.competition.fingerprint,
            "test": work.competition.test_fingerprint,
            "folds": work.folds.fingerprint,
            "pretrained": blueprint.weights,
            "model": runner.weights,
            "oof": fingerprint.of_file(folder.oof),
        },
        "packages": {name: version(name) for name in PACKAGES},
        "git": _git_commit(),
    }
    write_atomic(folder.manifest, json.dumps(manifest, indent=1))
    folder.checkpoint.unlink(missing_ok=True)
    audience.fold_ended(manifest, truth, probabilities.argmax(1))
    return manifest


def _git_commit() -> str | None:
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


@dataclass(frozen=True)
class FoldModel:
    """The trained model of a fold, ready to predict."""

    work: Workspace
    fold: int
    model: torch.nn.Module
    blueprint: Blueprint
    hardware: Hardware
    weights: str

    @classmethod
    def load(cls, work: Workspace, folder: FoldFolder, chosen: Hardware) -> "FoldModel":
        """Read a fold's weights.

        Raises:
            FoldcraftError: they are missing, damaged, or of another experiment.
        """
        model, blueprint, about = checkpoint.load_model(folder.model)
        if about.get("identity") != work.identity(folder.fold):
            raise FoldcraftError(
                "weights of another experiment, other data or folds", folder.model, "train the fold again"
            )
        placed = model.to(chosen.device, memory_format=chosen.torch_memory_format)
        return cls(work, folder.fold, placed, blueprint, chosen, fingerprint.of_file(folder.model))

    def member(self, store: ImageStore, views: Sequence[str]) -> Member:
        """As a member of an inference."""
        preparation = Preparation.of(self.blueprint, self.hardware)
        return Member(self.model, preparation, self.hardware, store, self.work.config.images, tuple(views))

    def predict_oof(self, store: ImageStore, views: Sequence[str], audience: Audience) -> Predictions:
        """Predictions of the rows this fold's model never saw."""
        rows = self.work.folds.valid_rows(self.fold)
        with audience.progress(f"fold {self.fold}: out-of-fold predictions", len(rows)) as advance:
            log_probs = predict([self.member(store, views)], rows, advance)[0]
        origin = self.work.origin(self.fold, self.weights)
        return Predictions(self.work.competition.train_ids[rows], tuple(views), log_probs, origin)

    def predict_test(self, store: ImageStore, views: Sequence[str], audience: Audience) -> Predictions:
        """Predictions of the test set."""
        rows = self.work.test_rows
        with audience.progress(f"fold {self.fold}: test predictions", len(rows)) as advance:
            log_probs = predict([self.member(store, views)], rows, advance)[0]
        return self.as_test(tuple(views), log_probs)

    def as_test(self, views: tuple[str, ...], log_probs: np.ndarray) -> Predictions:
        """Test predictions that were computed together with those of other models."""
        origin = self.work.origin(self.fold, self.weights, test=True)
        return Predictions(self.work.competition.test_ids, views, log_probs, origin)


def with_views(known: Predictions | None, new: Predictions) -> Predictions:
    """`new` views beside those `known` before, where both are by the same model for the same rows."""
    if known is None or known.origin != new.origin or not np.array_equal(known.ids, new.ids):
        return new
    kept = [name for name in known.views if name not in new.views]
    log_probs = np.concatenate([known.log_probs[[known.views.index(name) for name in kept]], new.log_probs])
    return replace(new, views=(*kept, *new.views), log_probs=log_probs)
