"""One fold from settings to manifest: train, predict what was held out, predict the test set."""

import json
import subprocess
from contextlib import nullcontext
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from foldcraft import backbones, checkpoint, fingerprint, hardware, predictions
from foldcraft.audience import Audience
from foldcraft.backbones import Blueprint
from foldcraft.errors import FoldcraftError, listing
from foldcraft.files import locked, remove_leftovers, write_atomic
from foldcraft.fit import Fitted, Task, Trainer
from foldcraft.foldmodel import FoldModel
from foldcraft.hardware import Hardware
from foldcraft.images import ImageStore
from foldcraft.processes import Processes
from foldcraft.rundir import FoldFolder, hardware_file
from foldcraft.workspace import Workspace

PACKAGES = ("torch", "torchvision", "timm", "albumentations", "opencv-python-headless", "lightning-fabric", "numpy")


def train_fold(work: Workspace, fold: int, processes: Processes, audience: Audience) -> dict[str, Any]:
    """Train a fold to its end, or go on where it was left, or skip it if it is done; gives its manifest.

    Raises:
        FoldcraftError: no such fold; another process is at it; what lies in its folder was made with other settings,
            data or folds; images cannot be read; and all that `Trainer.run` raises.
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
    if manifest.get("identity") != work.identity(folder.fold):
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
    state = checkpoint.load_state(folder.checkpoint) if folder.checkpoint.is_file() else None
    if processes.is_first:
        _begin(work, folder, state)
    torch.manual_seed(fingerprint.seed_from(config.seed, "head"))
    classes = len(work.competition.classes)
    model, blueprint = backbones.build(config.backbone, classes, config.images.size)
    backbones.check_forward(model, classes, config.images.size)
    processes.from_first(lambda: work.open_images([work.image_spec(blueprint)], audience) and None)
    train_store, test_store = work.open_images([work.image_spec(blueprint)], audience)[0]
    chosen = _hardware(work, state, model, processes)
    audience.fold_started(config, folder, {"hardware": str(chosen), "why": chosen.why()})
    task = _task(work, folder, train_store)
    fitted = Trainer(task, model, blueprint, chosen, processes, audience).run(state)
    manifest: dict[str, Any] = {}
    if processes.is_first:
        manifest = _finish(work, folder, fitted, blueprint, chosen, (train_store, test_store), audience)
    processes.barrier()
    return manifest


def _begin(work: Workspace, folder: FoldFolder, state: dict[str, Any] | None) -> None:
    if state and folder.config.is_file() and state.get("identity", "").split("/")[0] != work.identity(folder.fold):
        raise _other_settings(work, folder, "a checkpoint")
    remove_leftovers(folder.path)
    write_atomic(folder.config, work.config.to_yaml())


def _hardware(work: Workspace, state: dict[str, Any] | None, model: torch.nn.Module, processes: Processes) -> Hardware:
    """What a begun fold was trained on, else what this experiment uses on this machine."""
    train, size = work.config.train, work.config.images.size
    if state:
        kept = Hardware(**state["hardware"])
        if kept.device == "cpu" or kept.device == hardware.available_device():
            return kept
    memory = hardware_file(work.config)
    processes.from_first(lambda: hardware.choose(train, model, size, memory) and None)
    return hardware.choose(train, model, size, memory)


def _task(work: Workspace, folder: FoldFolder, store: ImageStore) -> Task:
    return Task(
        identity=f"{work.identity(folder.fold)}/{store.path.stem}",  # the cache is named after the images' content
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
            "images": stores[0].path.stem,
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
