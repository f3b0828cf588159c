"""A fold of a fine-tuning: the net, or as much of it as the mode says, trained from its closed-form head."""

import copy
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.paths import FoldFolder, hardware_file, lr_file
from foldcraft.data.loader import DistillationTargets
from foldcraft.data.plain_images import PlainImages
from foldcraft.models import finetune, hardware
from foldcraft.models.hardware import Hardware
from foldcraft.models.preprocessing import Preparation, predictions
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.inference import InferenceModel
from foldcraft.training import distillation, initialization, lr_search, metadata_start, teachers, wise_ft
from foldcraft.training.distillation import TeacherPredictions
from foldcraft.training.distributed import Processes
from foldcraft.training.fold_result import Outcome
from foldcraft.training.initialization import InitialModel
from foldcraft.training.teachers import Teacher
from foldcraft.training.trainer import Fitted, Task, Trainer, check_parts
from foldcraft.training.wise_ft import Interpolated


def fine_tune(
    experiment: Experiment,
    folder: FoldFolder,
    start: InitialModel,
    state: dict[str, Any] | None,
    processes: Processes,
    callback: Callback,
) -> Outcome:
    """Train the net, or as much of it as the mode says, from its closed-form head."""
    check_parts(experiment.config, start.model, len(experiment.folds.train_rows(folder.fold)), processes.world)
    chosen = _hardware(experiment, state, start.model, processes)
    training = Training(experiment, folder, start, chosen, processes)
    if experiment.config.optim.lr == "auto":
        training = training.with_found_lr(callback)
    task, taught = training.taught_task(folder.fold, callback)
    model, from_probe = training.ready_model(folder.fold, callback)
    before = {name: value.cpu().clone() for name, value in finetune.plain_state(model).items()}
    lr = training.config.optim.lr
    about = {"hardware": str(chosen), "why": chosen.why(), "weights": start.describe_weights()}
    callback.fold_started(training.config, folder, about)
    fitted = training.run(task, model, callback, state)
    about: dict[str, Any] = {"lr": lr, "head_init": "probe" if from_probe else "random", **training.about, **taught}
    outcome = Outcome(
        fitted.weights,
        metadata_start.described(start.blueprint, experiment, folder.fold),
        chosen,
        start.train,
        start.test,
        epochs=len(fitted.history),
        seconds=fitted.seconds,
        about=about,
    )
    if not experiment.config.finetune.interpolate or not processes.is_first:
        return outcome
    point = _interpolated(experiment, folder, start, chosen, before, fitted)
    callback.note(f"fold {folder.fold}: predicts at {point.share:g} of the way from the probe to the trained net")
    losses = {f"{share:g}": round(loss, 5) for share, loss in point.losses.items()}
    about = {**about, "interpolation": {"share": point.share, "losses": losses}}
    return replace(outcome, weights=point.weights, oof=point.oof, about=about)


@dataclass(frozen=True)
class Training:
    """What all trainings of a fold have in common: the real one, and the short ones that try learning rates."""

    experiment: Experiment
    folder: FoldFolder
    start: InitialModel
    hardware: Hardware
    processes: Processes
    found: dict[str, float] | None = None

    @property
    def config(self) -> Config:
        """The config with the learning rate that was found."""
        return lr_search.with_lr(self.experiment.config, self.found["lr"]) if self.found else self.experiment.config

    @property
    def about(self) -> dict[str, Any]:
        return {"lr_probe": self.found} if self.found else {}

    def with_found_lr(self, callback: Callback) -> "Training":
        """The same with the learning rate that three short trainings on fold 0 name."""

        @cache
        def distilled() -> DistillationTargets | None:  # asked for only where nothing has been found yet
            return self._distilled(0, callback)[0]

        def short(task: Task) -> Fitted:
            task = replace(task, distilled=distilled(), beside=self._beside(0, distilled()))
            model, _ = self.ready_model(0, callback)
            return self.run(task, model, Callback(), None)

        found = lr_search.find_lr(self.task(0), short, lr_file(self.experiment.config), self.processes, callback)
        return replace(self, found=found)

    def ready_model(self, fold: int, callback: Callback) -> tuple[torch.nn.Module, bool]:
        """A net as that fold's training finds it, with its closed-form head, and whether it has one."""
        start = initialization.copy_of(self.start, self.experiment)
        solved = initialization.set_probe_head(self.experiment, start, fold, callback)
        metadata_start.add_head(self.experiment, start.model, fold)
        finetune.prepare(start.model, self.experiment.config.finetune)
        return start.model, solved

    def taught_task(self, fold: int, callback: Callback) -> tuple[Task, dict[str, Any]]:
        """The fold's task with what its teachers say, and what the manifest says of them."""
        distilled, found = self._distilled(fold, callback)
        if distilled is None:
            return self.task(fold), {}
        about = {"teachers": [teacher.entry for teacher in found], "pseudo_images": len(distilled.rows)}
        return replace(self.task(fold), distilled=distilled, beside=self._beside(fold, distilled)), about

    def _distilled(self, fold: int, callback: Callback) -> tuple[DistillationTargets | None, list[Teacher]]:
        experiment, folder = self.experiment, self.folder
        if not experiment.config.distill.teachers:
            return None, []
        found = teachers.find_teachers(experiment, fold)

        def answers() -> TeacherPredictions:
            if fold != folder.fold:  # learning rates are tried there, and its folder is not this process's to write to
                return distillation.predict_teachers(found, experiment, fold, callback)
            return distillation.cached_teacher_predictions(found, experiment, folder, self._identity(fold), callback)

        distilled = distillation.distillation_targets(
            experiment, fold, self.processes.from_first(answers), self.start.test
        )
        callback.note(f"fold {fold}: {distillation.describe(distilled, found, experiment.config.distill)}")
        return distilled, found

    def _identity(self, fold: int) -> str:
        seen = [self.start.train, *([self.start.test] if self.experiment.config.distill.pseudo else [])]
        content = [store.path.stem for store in seen]  # a cache is named by it
        return "/".join([self.experiment.identity.of_fold(fold), *content])

    def task(self, fold: int) -> Task:
        """What that fold is trained on, as far as its labels go."""
        experiment, folder, store = self.experiment, self.folder, self.start.train
        return Task(
            identity=self._identity(fold),
            config=self.config,
            store=store,
            ids=experiment.competition.train_ids,
            target=experiment.competition.target,
            train_rows=experiment.folds.train_rows(fold),
            valid_rows=experiment.folds.valid_rows(fold),
            metric=experiment.competition.metric,
            state_file=folder.checkpoint,
            history_file=folder.history,
            weights=experiment.competition.weights,
            score_weights=experiment.competition.score_weights,
            swaps=experiment.swaps,
            competition=experiment.competition if experiment.competition.answering else None,
            beside=self._beside(fold),
        )

    def _beside(self, fold: int, distilled: DistillationTargets | None = None) -> np.ndarray | None:
        """Metadata of the training rows, and of those with pseudo-labels, as that fold's net sees them."""
        experiment, encoder = self.experiment, self.experiment.encoder(fold)
        if encoder is None:
            return None
        own = encoder(experiment.competition.metadata)
        return (
            own
            if distilled is None
            else np.concatenate([own, encoder(experiment.competition.test_metadata.at(distilled.rows))])
        )

    def run(self, task: Task, model: torch.nn.Module, callback: Callback, state: dict[str, Any] | None) -> Fitted:
        trainer = Trainer(task, model, self.start.blueprint, self.hardware, self.processes, callback)
        return trainer.run(state)


def _hardware(
    experiment: Experiment, state: dict[str, Any] | None, model: torch.nn.Module, processes: Processes
) -> Hardware:
    """What a begun fold was trained on, else what this experiment uses on this machine."""
    if state:
        kept = Hardware(**state["hardware"])
        if kept.device == "cpu" or kept.device == hardware.available_device():
            return kept
    config = experiment.config
    wanted = (config.machine, model, config.images.size, config.train.part, hardware_file(config))
    if processes.is_first:
        hardware.choose(*wanted)
    processes.barrier()  # the others read what the first has chosen
    return hardware.choose(*wanted)


def _interpolated(
    experiment: Experiment,
    folder: FoldFolder,
    start: InitialModel,
    chosen: Hardware,
    before: dict[str, torch.Tensor],
    fitted: Fitted,
) -> Interpolated:
    rows = experiment.folds.valid_rows(folder.fold)
    after = {name: value.cpu() for name, value in fitted.weights.items()}
    images = PlainImages(start.train, experiment.config.images)
    views = tuple(experiment.config.tta.views)
    target, units = experiment.competition.target, experiment.competition.units[rows]
    output = partial(predictions, of_outputs=target.predictions)
    member = InferenceModel(start.model, Preparation.of(start.blueprint, chosen), chosen, images, views, output)
    encoder, plain = experiment.encoder(folder.fold), start.model
    member = replace(member, swaps=experiment.swaps)
    if encoder is not None:
        member = replace(member, beside=encoder(experiment.competition.metadata))
        plain = metadata_start.joined(copy.deepcopy(plain), experiment, encoder)
    return wise_ft.choose_point(before, after, plain, member, rows, target.at(rows), units)
