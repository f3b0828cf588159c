"""What is checked: an experiment on some of its rows, with the very parts that a training of it is made of."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.paths import FoldFolder, hardware_file
from foldcraft.data.competition import Competition
from foldcraft.data.folds import Folds
from foldcraft.models import checkpoint, finetune, hardware
from foldcraft.models.backbones import Blueprint
from foldcraft.models.hardware import Hardware
from foldcraft.predictions import store
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.fold_model import FoldModel
from foldcraft.predictions.inference import InferenceModel
from foldcraft.predictions.store import Predictions
from foldcraft.study.checks.opening import Opened
from foldcraft.training import fold as fold_training
from foldcraft.training import initialization, lr_search, metadata_start
from foldcraft.training.distributed import Processes
from foldcraft.training.fine_tuning import Training
from foldcraft.training.trainer import RunawayLoss, Trainer

FOLD = 0  # the fold whose training is looked at
FEW = 16  # images of the batch that must be learned by heart
MOST_STEPS = 60
LEARNED = 0.05  # loss of a batch that is known by heart, above the least that there can be
TEST_ROWS = 32
MOST_IN_A_STEP = 32  # images, of the moment of training
PLAIN_AUGMENT = {"preset": "none", "transforms": None, "erase": 0.0, "mixup": 0.0, "cutmix": 0.0} | dict.fromkeys(
    ("hflip", "vflip", "rot90"), 0.0
)
PLAIN_TRAIN = {
    "train": {"patience": 0},
    "optim": {"swa": 0.0, "ema": False},
    "regularize": {"label_smoothing": 0.0, "rdrop": 0.0},
}


@dataclass(frozen=True)
class ShortRun:
    """A fold that has been trained for a moment, saved, and read again.

    Attributes:
        model: as inference has it.
        predicted: what the saved model says of the fold's rows.
        validated: loss of these rows as training said it.
        modes: for each call of the net: was it in a step, and which modules were in training mode (by name).
        moved: names of the BatchNorms whose statistics the steps changed.
    """

    model: FoldModel
    predicted: Predictions
    validated: float
    modes: list[tuple[bool, frozenset[str]]]
    moved: frozenset[str]


@dataclass(frozen=True)
class ByHeart:
    """A training on one batch, over and over.

    Attributes:
        losses: of each step, before it.
        wanted: the loss of a batch that is known by heart.
    """

    trainer: Trainer
    losses: list[float]
    wanted: float


class Subject:
    """An experiment to look at; costly parts are made when they are first asked for.

    Args:
        opened: the experiment.
        folder: an empty folder for what the checks write.
        most: how many training images are looked at.
        trace: where a profiler's trace goes; None: nothing is profiled.
    """

    def __init__(self, opened: Opened, folder: Path, callback: Callback, most: int, trace: Path | None = None) -> None:
        self.config, self.callback, self.trace = opened.experiment.config, callback, trace
        self.kept: dict[str, Any] = {}  # what a family of checks has computed for all of its own
        self.whole, self.folds_problem = opened.experiment, opened.folds_problem
        self.experiment = some_of(self.whole, most, _settled(self.config, folder))

    @property
    def trains(self) -> bool:
        """Is anything learned by gradients?"""
        return self.config.finetune.mode != "linear_probe"

    @property
    def competition(self) -> Competition:
        """The rows that are looked at."""
        return self.experiment.competition

    @cached_property
    def as_is(self) -> Training:
        """Training with the experiment's own settings."""
        return self._training(self.experiment)

    @cached_property
    def plain(self) -> Training:
        """Training with all that is random, smoothed or averaged switched off."""
        config = self.experiment.config
        config = with_settings(
            config,
            augment=PLAIN_AUGMENT,
            **PLAIN_TRAIN,
            backbone={"drop": 0.0, "drop_path": 0.0, "patch_drop": 0.0},
        )
        return self._training(replace(self.experiment, config=config))

    def _training(self, experiment: Experiment) -> Training:
        start = initialization.build(experiment, self.callback)
        return Training(
            experiment, FoldFolder.of(experiment.config, FOLD), start, self._chosen(start.model), Processes()
        )

    def _chosen(self, model: nn.Module) -> Hardware:
        """What the experiment computes on here, measured and remembered as training does it."""
        if not self.trains:
            return hardware.for_features(self.config.machine, finetune.is_transformer(model))
        return hardware.choose(
            self.config.machine, model, self.config.images.size, self.config.train.part, hardware_file(self.config)
        )

    def trainer(self, training: Training, rows: np.ndarray | None = None, **sections: dict[str, Any]) -> Trainer:
        """The trainer of the fold.

        Args:
            rows: to learn from; left out: the fold's.
            sections: settings to change, by section.
        """
        model, _ = training.ready_model(FOLD, self.callback)
        task = training.task(FOLD)
        learned = task.train_rows if rows is None else rows
        task = replace(task, config=with_settings(task.config, **sections), train_rows=learned)
        return Trainer(task, model, training.start.blueprint, training.hardware, Processes(), Callback())

    @property
    def blueprint(self) -> Blueprint:
        return self.as_is.start.blueprint

    def some_rows(self, count: int) -> np.ndarray:
        """Training rows of the fold, all classes alike as far as they go."""
        rows = self.experiment.folds.train_rows(FOLD)
        order = _spread(self.competition.target.stratum[rows], share_alike=True)
        return np.sort(rows[order[:count]])

    @cached_property
    def by_heart(self) -> ByHeart:
        """One batch, learned until it is known or for so many steps; by the trainer's own step and schedule."""
        rows = self.some_rows(min(FEW, self.config.train.batch))
        trainer = self.trainer(
            self.plain, rows, train={"batch": len(rows), "epochs": MOST_STEPS}, machine={"workers": 0}
        )
        losses: list[float] = []
        wanted = LEARNED + self.competition.space.least_loss(self.competition.targets[rows])
        while trainer.epoch < MOST_STEPS and (not losses or losses[-1] > wanted):
            try:
                losses.append(trainer.train_epoch())
            except RunawayLoss:
                losses.append(float("nan"))
                break
            trainer.epoch += 1
        return ByHeart(trainer, losses, wanted)

    @cached_property
    def short_run(self) -> ShortRun:
        """A moment of training and a validation, then the way into a file and out of it."""
        return self._short_training() if self.trains else self._solved()

    def _short_training(self) -> ShortRun:
        """Two steps."""
        batch = min(self.config.train.batch, MOST_IN_A_STEP)
        once = {"train": {"batch": batch, "epochs": 1, "patience": 0}, "optim": {"swa": 0.0}, "machine": {"workers": 0}}
        trainer = self.trainer(self.as_is, self.some_rows(2 * batch), **once)
        before, modes = _statistics(trainer.bare_model), _watch_modes(trainer)
        trainer.run_epoch()
        after = _statistics(trainer.bare_model)
        moved = frozenset(name for name, value in after.items() if not torch.equal(value, before[name]))
        folder, about = (
            FoldFolder.of(self.experiment.config, FOLD),
            {"identity": self.experiment.identity.of_fold(FOLD)},
        )
        blueprint = metadata_start.described(self.blueprint, self.experiment, FOLD)
        checkpoint.save_model(folder.model, trainer.result().weights, blueprint, about)
        return ShortRun(*self._read_again(("identity",)), trainer.history[-1]["valid_loss"], modes, moved)

    def _solved(self) -> ShortRun:
        """A linear probe, all of it; what it said of its fold came from kept features."""
        fold_training.train_fold(self.experiment, FOLD, Processes(), Callback())
        views = tuple(self.experiment.config.tta.views[:1])
        known = store.read(FoldFolder.of(self.experiment.config, FOLD).oof).of_views(views)[0]
        truth = self.competition.targets[self.experiment.folds.valid_rows(FOLD)]
        return ShortRun(*self._read_again(views), self.competition.space.loss(known, truth), [], frozenset())

    def _read_again(self, views: tuple[str, ...]) -> tuple[FoldModel, Predictions]:
        """The saved model as inference has it, and what it says of its fold's rows."""
        model = FoldModel.load(self.experiment, FoldFolder.of(self.experiment.config, FOLD), self.as_is.hardware)
        return model, model.predict_oof(self.as_is.start.train, views, Callback())

    @cached_property
    def exact_model(self) -> FoldModel:
        """The net of the short run, computing in 32 bits."""
        model = self.short_run.model
        return replace(model, hardware=replace(model.hardware, precision="32-true"))

    @cached_property
    def saved(self) -> InferenceModel:
        """The net of the short run as inference asks it, in 32 bits."""
        return self.exact_model.member(self.as_is.start.train, ("identity",))

    @cached_property
    def fresh(self) -> InferenceModel:
        """The net that training starts with, as inference would ask it; for what enters a net, not for what it says."""
        start, chosen = self.as_is.start, self.as_is.hardware
        model = FoldModel(self.experiment, FOLD, start.model, start.blueprint, chosen, "")
        return model.member(start.train, ("identity",))


def with_settings(config: Config, **sections: dict[str, Any]) -> Config:
    """The config with some settings of some sections changed."""
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=changed) for name, changed in sections.items()}
    )


def _settled(config: Config, folder: Path) -> Config:
    """Runs in a folder of its own, without teachers, with a learning rate where it is still to be found."""
    if config.optim.lr == "auto":
        config = lr_search.with_lr(config, lr_search.MIDDLE[config.finetune.mode])
    return config.model_copy(update={"runs": folder, "distill": type(config.distill)()})


def some_of(experiment: Experiment, most: int, config: Config) -> Experiment:
    """The experiment on `most` of its training rows, each class and fold in its share, and a few test rows."""
    data, split = experiment.competition, experiment.folds
    order = _spread(data.target.stratum * split.count + split.fold, share_alike=False)
    rows = np.sort(order[:most])
    tests = data.test_ids[:TEST_ROWS]
    fewer = replace(
        data,
        train_ids=data.train_ids[rows],
        target=data.target.at(rows),
        weights=None if data.weights is None else data.weights[rows],
        score_weights=None if data.score_weights is None else data.score_weights[rows],
        groups=None if data.groups is None else data.groups[rows],
        metadata=None if data.metadata is None else data.metadata.at(rows),
        test_metadata=None if data.test_metadata is None else data.test_metadata.at(np.arange(len(tests))),
        train_paths=tuple(data.train_paths[row] for row in rows),
        test_ids=tests,
        test_paths=data.test_paths[:TEST_ROWS],
        tables=None,
        answering=None,  # the code is judged by each image
    )
    fold = split.fold[rows]
    return Experiment(
        config, fewer, Folds(fewer.train_ids, fold, split.count, split.scheme, split.seed, fewer.fingerprint)
    )


def _spread(cells: np.ndarray, share_alike: bool) -> np.ndarray:
    """An order in which every beginning holds all cells alike, or each in its share."""
    shuffled = np.random.default_rng(0).permutation(len(cells))
    place = np.empty(len(cells))
    for cell in np.unique(cells):
        members = shuffled[cells[shuffled] == cell]
        place[members] = (np.arange(len(members)) + 0.5) / (1 if share_alike else len(members))
    return shuffled[np.argsort(place[shuffled], kind="stable")]


def _statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    """Mean and variance that each BatchNorm has kept, by its name."""
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    return {
        name: torch.cat([norm.running_mean, norm.running_var]).clone()
        for name, norm in norms.items()
        if norm.running_mean is not None
    }


def _watch_modes(trainer: Trainer) -> list[tuple[bool, frozenset[str]]]:
    """Fills with what each call of the trainer's nets finds: a step or not, and who is in training mode."""
    seen: list[tuple[bool, frozenset[str]]] = []

    def look(model: nn.Module, _: object) -> None:
        on = frozenset(name for name, module in model.named_modules() if module.training)
        seen.append((torch.is_grad_enabled(), on))

    for net in [trainer.bare_model, *([trainer.ema.module] if trainer.ema else [])]:
        net.register_forward_pre_hook(look)
    return seen
