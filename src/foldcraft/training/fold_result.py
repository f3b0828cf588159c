"""What a finished fold leaves behind: weights, predictions and, last, the manifest."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from foldcraft.common import checksums, fingerprint
from foldcraft.common.callbacks import Callback
from foldcraft.common.paths import FoldFolder
from foldcraft.data.images.image_cache import ImageStore
from foldcraft.models import checkpoint
from foldcraft.models.backbones import Blueprint
from foldcraft.models.hardware import Hardware
from foldcraft.predictions import answers, store, trained_rows
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.fold_model import FoldModel, as_oof, as_test
from foldcraft.predictions.store import Predictions

PACKAGES = ("torch", "torchvision", "timm", "albumentations", "opencv-python-headless", "lightning-fabric", "numpy")


@dataclass(frozen=True)
class Outcome:
    """A fold's model, before it is written.

    Attributes:
        epochs: passes over the training rows.
        seconds: of training.
        oof, test: log-probabilities (V, N, K) in the config's views where they are known already; None: the model is
            asked for them.
        about: more for the manifest.
    """

    weights: dict[str, torch.Tensor]
    blueprint: Blueprint
    hardware: Hardware
    train: ImageStore
    images: ImageStore
    epochs: int
    seconds: float
    oof: np.ndarray | None = None
    test: np.ndarray | None = None
    about: dict[str, Any] = field(default_factory=dict)


def finish(experiment: Experiment, folder: FoldFolder, outcome: Outcome, callback: Callback) -> dict[str, Any]:
    """Write all of it; the manifest, which is given back, comes last, and with it the training state goes."""
    identity = experiment.identity.of_fold(folder.fold)
    about = {"experiment": experiment.config.experiment, "fold": folder.fold, "identity": identity}
    checkpoint.save_model(folder.model, outcome.weights, outcome.blueprint, about)
    views = tuple(experiment.config.tta.views)
    oof, test = _predictions(experiment, folder, outcome, views, callback)
    store.write(folder.oof, oof)
    store.write(folder.test, test)
    score = answers.score(experiment.competition, oof.of_views(views), experiment.folds.valid_rows(folder.fold))
    manifest = _manifest(experiment, folder, outcome, score, oof.origin.weights)
    trained_rows.keep(experiment)
    checksums.write_json(folder.manifest, manifest, indent=1)
    for needed_no_more in (folder.checkpoint, folder.answers):
        needed_no_more.unlink(missing_ok=True)
    callback.fold_ended(manifest)
    return manifest


def _manifest(experiment: Experiment, folder: FoldFolder, outcome: Outcome, score: float, model: str) -> dict[str, Any]:
    """What is kept of how the fold came about; `model` is the fingerprint of its weights."""
    nets = (outcome.blueprint, *outcome.blueprint.others)
    return {
        "identity": experiment.identity.of_fold(folder.fold),
        "score": score,
        "metric": experiment.competition.metric.name,
        **({"metric_code": code} if (code := experiment.competition.metric.code) else {}),
        "classes": list(experiment.competition.classes.names),
        "views": list(experiment.config.tta.views),
        "epochs": outcome.epochs,
        "seconds": round(outcome.seconds, 1),
        "weights_licence": ", ".join(dict.fromkeys(net.licence for net in nets if net.licence)),
        **outcome.about,
        "hardware": {
            "chosen": str(outcome.hardware),
            "why": outcome.hardware.why(),
            "machine": outcome.hardware.machine,
        },
        "fingerprints": {**_fingerprints(experiment, folder, outcome), "model": model},
        "history": fingerprint.of_file(folder.history) if folder.history.is_file() else None,
        "packages": {name: version(name) for name in PACKAGES},
        "git": _git_commit(),
    }


def _fingerprints(experiment: Experiment, folder: FoldFolder, outcome: Outcome) -> dict[str, str]:
    """Digests of all that the fold was made from, and of its predictions."""
    identity, nets = experiment.identity, (outcome.blueprint, *outcome.blueprint.others)
    return {
        "config": identity.settings,
        "data": identity.data,
        "test": identity.test,
        "folds": identity.folds,
        "images": outcome.train.path.stem,
        "train_images": experiment.train_images,
        "test_images": experiment.test_images,
        "pretrained": ", ".join(net.weights for net in nets),
        "oof": fingerprint.of_file(folder.oof),
    }


def _predictions(
    experiment: Experiment, folder: FoldFolder, outcome: Outcome, views: Sequence[str], callback: Callback
) -> tuple[Predictions, Predictions]:
    """By the model as it was written; what is known already is taken as it is."""
    about = (experiment, folder.fold, fingerprint.of_file(folder.model), views)
    oof = None if outcome.oof is None else as_oof(*about, outcome.oof)
    test = None if outcome.test is None else as_test(*about, outcome.test, outcome.images)
    if oof is None or test is None:
        runner = FoldModel.load(experiment, folder, outcome.hardware)
        oof = oof or runner.predict_oof(outcome.train, views, callback)
        test = test or runner.predict_test(outcome.images, views, callback)
    return oof, test


def _git_commit() -> str | None:
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
