"""Continued pretraining on a competition's own images, without their labels, by DIET.

Each image is a class of its own: a linear head over all images learns to tell which one a strongly augmented copy was
made from (DIET, arXiv 2302.10260; for pretrained nets on small data 2509.06990). No second view, no momentum net, no
large batch, and a loss that a supervised training has as well, so it is one: `trainer.Trainer` with other targets. The
head is thrown away; what remains goes to a weights folder, where any config names it as its backbone.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import timm
import torch

from foldcraft.common import fingerprint
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import AugmentConfig, Config, DistillConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import locked, write_atomic
from foldcraft.common.paths import cache_folder, written_folder
from foldcraft.data.images.image_cache import ImageStore, open_stores
from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.single import SingleLabel
from foldcraft.metrics import scores
from foldcraft.models import backbones, checkpoint, finetune, hardware
from foldcraft.models.backbones import Blueprint
from foldcraft.predictions.experiment import Experiment
from foldcraft.training.distributed import Processes
from foldcraft.training.trainer import Task, Trainer

EPOCHS, LR = 20, 5e-4
SMOOTHING = 0.8  # DIET's: with one image a class much of the loss is spread, or the head learns the images by heart
MOST = 10_000  # images: a class for each, whose counts are taken from a square of them
JUDGED = 256  # images of which is asked, plainly, whether they are told apart
OF_TRAINING = {"num_classes", "drop_rate", "drop_path_rate", "patch_drop_rate"}  # arguments that a net to come has anew
OF_OTHER_WEIGHTS = {"url", "file", "hf_hub_id", "hf_hub_filename", "source", "state_dict"}


@dataclass(frozen=True)
class Pretrained:
    """What was made.

    Attributes:
        folder: the weights folder, `config.json` and `model.safetensors` as on the hub.
        images: number of images that were learned from.
        told_apart: share of some of them that the net and its head recognise, seen plainly.
        seconds: of training.
    """

    folder: Path
    images: int
    told_apart: float
    seconds: float


@dataclass(frozen=True)
class _Epochs(Callback):
    """Tells of epochs, which are of no fold here."""

    to: Callback
    epochs: int

    def say(self, text: str) -> None:
        self.to.say(text)

    def epoch_ended(self, row: dict[str, float]) -> None:
        self.to.note(f"epoch {row['epoch']} of {self.epochs}: loss {row['loss']:.4f}")


def pretrain(experiment: Experiment, name: str, epochs: int, with_tests: bool, callback: Callback) -> Pretrained:
    """Train the experiment's pretrained backbone on, and write it to `weights/<name>/`; goes on where it was left.

    Args:
        with_tests: learn from the test images as well; no label is looked at in any case.

    Raises:
        FoldcraftError: the name is taken, or a net's; there are more images than `MOST`; the backbone is not one of
            timm with three channels; all that `backbones.build`, `Experiment.open_part` and `Trainer.run` raise.
    """
    folder = backbones.weights_folder() / name
    _check(experiment.config, name, folder)
    place = written_folder(experiment.config) / "pretrain" / name
    place.mkdir(parents=True, exist_ok=True)
    with locked(place / ".lock", wait=False, busy="another process is at this pretraining"):
        own = replace(experiment, config=settings_for(experiment.config, epochs))
        return _train(own, folder, place, with_tests, callback)


def settings_for(config: Config, epochs: int) -> Config:
    """The config's settings with those of DIET: all of the net is trained, and images are changed strongly.

    A flip that changes the label is none: the net would learn not to see what it is asked for later.
    """
    flips = dict.fromkeys(config.augment.swaps, 0.0)
    augment: AugmentConfig = config.augment.model_copy(
        update={"preset": "heavy", "mixup": 0.0, "cutmix": 0.0, "erase": 0.0, **flips}
    )
    start = {"mode": "full", "head_init": "random", "freeze_until": None, "unfreeze_epochs": 0, "interpolate": False}
    plan = {"epochs": epochs, "patience": 0, "validate_every": epochs, "imbalance": "none"}
    rate = {"lr": LR} if config.optim.lr == "auto" else {}
    return config.model_copy(
        update={
            "augment": augment,
            "finetune": config.finetune.model_copy(update=start),
            "train": config.train.model_copy(update=plan),
            "optim": config.optim.model_copy(update={**rate, "swa": 0.0}),
            "regularize": config.regularize.model_copy(update={"label_smoothing": SMOOTHING, "rdrop": 0.0}),
            "distill": DistillConfig(share=0.0),
        }
    )


def _train(experiment: Experiment, folder: Path, place: Path, with_tests: bool, callback: Callback) -> Pretrained:
    config, data = experiment.config, experiment.competition
    ids = np.concatenate([data.train_ids, data.test_ids]) if with_tests else data.train_ids
    if len(ids) > MOST:
        raise FoldcraftError(f"{len(ids)} images, each a class of its own", "--config", f"that is for {MOST:,} at most")
    torch.manual_seed(fingerprint.seed_from(config.seed, "head"))
    model, blueprint = backbones.build(config.backbone, len(ids), config.images.size)
    backbones.check_forward(model, len(ids), config.images.size)
    store = _open(experiment, blueprint, with_tests, callback)
    task = _task(config, ids, store, blueprint, place)
    finetune.prepare(model, config.finetune)
    chosen = hardware.choose(config.machine, model, config.images.size, config.train.part, place / "hardware.json")
    state = checkpoint.load_state(task.state_file) if task.state_file.is_file() else None
    callback.note(backbones.describe_weights(config.backbone, blueprint))
    fitted = Trainer(task, model, blueprint, chosen, Processes(), _Epochs(callback, config.train.epochs)).run(state)
    about = {"from": config.backbone.name, "weights": blueprint.weights, "by": "DIET", "images": len(task.train_rows)}
    about |= {"competition": config.competition.name, "test_images": with_tests, "epochs": config.train.epochs}
    _write(folder, model, fitted.weights, blueprint, config.images.size, about)
    task.state_file.unlink(missing_ok=True)
    return Pretrained(folder, len(task.train_rows), fitted.history[-1]["score"], fitted.seconds)


def _task(config: Config, ids: np.ndarray, store: ImageStore, blueprint: Blueprint, place: Path) -> Task:
    """Which image is it: a class for each, all learned from, some of them judged as well."""
    target = SingleLabel.of("image", Classes(tuple(map(str, range(len(ids))))), np.arange(len(ids)))
    rows = np.setdiff1d(np.arange(len(ids)), list(store.unreadable))
    seen = [config.training_settings(), store.path.stem, blueprint.weights, rows.size]
    return Task(
        identity=fingerprint.of_values(seen),
        config=config,
        store=store,
        ids=ids,
        target=target,
        train_rows=rows,
        valid_rows=rows[:: max(1, -(-len(rows) // JUDGED))],
        metric=scores.get("accuracy", target.kind, target.classes.names),
        state_file=place / "last.ckpt",
        history_file=place / "history.csv",
    )


def _open(experiment: Experiment, blueprint: Blueprint, with_tests: bool, callback: Callback) -> ImageStore:
    """The images that are learned from, in one store."""
    spec = experiment.image_spec(blueprint)
    if not with_tests:
        return experiment.open_part("train", [spec], callback)[0]
    data, spare = experiment.competition, experiment.config.images.on_error == "baseline"
    paths = (*data.paths("train"), *data.paths("test"))
    with callback.progress("decoding images", len(paths)) as advance:
        about = (cache_folder(experiment.config), "all", advance, callback.say, spare, experiment.config.machine.cache)
        return open_stores(paths, [spec], *about)[0]


def _write(
    folder: Path,
    model: torch.nn.Module,
    weights: dict[str, torch.Tensor],
    blueprint: Blueprint,
    size: int,
    about: dict[str, Any],
) -> None:
    """A weights folder as the hub has it, `config.json` last: without it nobody takes the folder for one."""
    head = backbones.head_names(model)
    kept = {key: value.detach().cpu().contiguous() for key, value in weights.items() if not key.startswith(head)}
    known = {key: value for key, value in model.pretrained_cfg.items() if key not in OF_OTHER_WEIGHTS}
    args = {key: value for key, value in blueprint.args.items() if key not in OF_TRAINING}
    if known.get("fixed_input_size"):  # its position embedding is of that size now
        known["input_size"], args["img_size"] = [3, size, size], size
    described = {
        "architecture": blueprint.arch,
        "num_classes": 0,
        "num_features": model.num_features,
        "model_args": args,
        "pretrained_cfg": {**known, "num_classes": 0, "license": blueprint.licence},
        "pretraining": about,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "model.safetensors", safetensors.torch.save(kept, {"format": "pt"}))
    write_atomic(folder / "config.json", json.dumps(described, indent=2))


def _check(config: Config, name: str, folder: Path) -> None:
    """See that there is something to go on from, and a place for what is made of it."""
    if timm.is_model(name):
        raise FoldcraftError(f"{name} is a net of timm, whose weights these are not", "--name", "use another name")
    if (folder / "config.json").exists():
        raise FoldcraftError("is there already", folder, "use another --name, or delete it")
    if config.backbone.source != "timm" or config.backbone.weights == "none":
        what = f"goes on from pretrained weights of timm, and {config.backbone.name} has none here"
        raise FoldcraftError(what, "backbone", "set backbone.source=timm backbone.weights=pretrained")
    if config.images.bands != 3:
        what = f"pretrained weights are kept for 3 channels, and images have {config.images.bands}"
        raise FoldcraftError(what, "images.channels", "set 3 to use the first three")
