"""One fold from settings to manifest: solve or train it, predict what was held out, predict the test set."""

import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from foldcraft.common import checksums, fingerprint
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, listing
from foldcraft.common.files import locked, remove_leftovers, write_atomic
from foldcraft.common.paths import FoldFolder, hardware_file, lr_file
from foldcraft.data.loader import DistillationTargets, PlainImages
from foldcraft.models import backbones, checkpoint, finetune, hardware
from foldcraft.models.hardware import Hardware
from foldcraft.models.preprocessing import Preparation
from foldcraft.models.stage_features import FeaturePool, ProbeNet
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.inference import InferenceModel
from foldcraft.training import distillation, initialization, lr_search, teachers, wise_ft
from foldcraft.training.distillation import TeacherPredictions
from foldcraft.training.distributed import Processes
from foldcraft.training.fold_result import Outcome, finish
from foldcraft.training.initialization import InitialModel
from foldcraft.training.teachers import Teacher
from foldcraft.training.trainer import Fitted, Task, Trainer, check_parts
from foldcraft.training.wise_ft import Interpolated


def train_fold(experiment: Experiment, fold: int, processes: Processes, callback: Callback) -> dict[str, Any]:
    """Train a fold to its end, or go on where it was left, or skip it if it is done; gives its manifest.

    Raises:
        FoldcraftError: no such fold; another process is at it; what lies in its folder was made with other settings,
            data or folds; images cannot be read; settings that do not go together; and all that `Trainer.run` raises.
    """
    if fold not in range(experiment.folds.count):
        raise FoldcraftError(f"no fold {fold}", "--fold", f"folds are 0 to {experiment.folds.count - 1}, or all")
    folder = FoldFolder.of(experiment.config, fold)
    lock = (
        locked(folder.lock, wait=False, busy="another process is at this fold") if processes.is_first else nullcontext()
    )
    with lock:
        experiment.check_images(_finished(experiment))
        if processes.from_first(lambda: folder.is_done):
            manifest = _check_done(experiment, folder)
            if processes.is_first:
                _check_papers(experiment, folder, manifest, callback)
            callback.note(f"fold {fold}: done before, score {manifest['score']:.4f}")
            return manifest
        return _train(experiment, folder, processes, callback)


def _finished(experiment: Experiment) -> dict[int, dict[str, Any]]:
    """Manifests of the experiment's finished folds; one that cannot be read is told of when its fold's turn comes."""
    found = {}
    for folder in (FoldFolder.of(experiment.config, fold) for fold in range(experiment.folds.count)):
        with suppress(FoldcraftError):
            if folder.is_done:
                found[folder.fold] = folder.read_manifest()
    return found


def _check_done(experiment: Experiment, folder: FoldFolder) -> dict[str, Any]:
    manifest = folder.read_manifest()
    experiment.check_classes(manifest.get("classes"), folder.path)
    if manifest.get("identity") != experiment.identity(folder.fold):
        raise _other_settings(experiment, folder, "a finished fold")
    made_for = manifest["fingerprints"]
    others = made_for["test"] != experiment.competition.test_fingerprint or (
        made_for.get("test_images", experiment.test_images) not in ("", experiment.test_images)
    )
    if experiment.config.distill.pseudo and others:
        raise FoldcraftError(
            "has learned from other test images", folder.path, "set experiment=NEWNAME, or delete that folder"
        )
    return manifest


def _check_papers(experiment: Experiment, folder: FoldFolder, manifest: dict[str, Any], callback: Callback) -> None:
    """Look at what a finished fold keeps for people: its settings, which are known, and its history, which is lost."""
    try:
        folder.read_settings()
    except FoldcraftError as error:
        callback.say(f"{folder.config}: {error.what}; it is written again")
        write_atomic(folder.config, checksums.seal_text(experiment.config.to_yaml()))
    noted = manifest.get("history")
    if noted and not (folder.history.is_file() and fingerprint.of_file(folder.history) == noted):
        callback.say(f"warning: {folder.history}: has changed since the fold was finished; only people read it")


def _other_settings(experiment: Experiment, folder: FoldFolder, what: str) -> FoldcraftError:
    """Says what has changed since the folder was begun."""
    before: dict[str, Any] = {}
    with suppress(FoldcraftError):  # what was changed cannot be told where that file is damaged
        before = folder.read_settings()
    whole, counts = experiment.config.model_dump(mode="json"), experiment.config.training_settings()
    now = {name: {key: whole[name][key] for key in keys} for name, keys in counts.items() if isinstance(keys, dict)}
    changed = [
        f"{section}.{key} was {before[section].get(key)!r}, is {value!r}"
        for section, values in now.items()
        if isinstance(before.get(section), dict)
        for key, value in values.items()
        if before[section].get(key) != value
    ]
    reason = listing(changed, 3) if changed else "seed, data, folds or teachers"
    return FoldcraftError(
        f"holds {what} made otherwise ({reason})", folder.path, "set experiment=NEWNAME, or delete that folder"
    )


def _train(experiment: Experiment, folder: FoldFolder, processes: Processes, callback: Callback) -> dict[str, Any]:
    _check_soup(experiment)
    _check_interpolation(experiment.config)
    state = checkpoint.load_state(folder.checkpoint) if folder.checkpoint.is_file() else None
    if processes.is_first:
        _begin(experiment, folder, state)
    start = initialization.build(experiment, callback)  # a lock lets one process decode, and the others wait for it
    if experiment.config.finetune.mode == "linear_probe":
        outcome = _solve(experiment, folder, start, callback)
    else:
        outcome = _adapt(experiment, folder, start, state, processes, callback)
    manifest = finish(experiment, folder, outcome, callback) if processes.is_first else {}
    processes.barrier()
    return manifest


def _check_soup(experiment: Experiment) -> None:
    if experiment.soup:
        raise FoldcraftError(
            "is the mean of other experiments' weights, which is not trained",
            experiment.config.experiment,
            f"train {', '.join(experiment.soup)}, then run `python src/soup.py` with their configs",
        )


def _check_interpolation(config: Config) -> None:
    finetune = config.finetune
    if finetune.interpolate and (finetune.head_init != "probe" or finetune.mode == "linear_probe"):
        raise FoldcraftError(
            "interpolation goes from the closed-form head to the trained net, and this experiment lacks one of them",
            "finetune.interpolate",
            "set finetune.head_init=probe and a mode that trains, or interpolate=false",
        )


def _begin(experiment: Experiment, folder: FoldFolder, state: dict[str, Any] | None) -> None:
    if (
        state
        and folder.config.is_file()
        and state.get("identity", "").split("/")[0] != experiment.identity(folder.fold)
    ):
        raise _other_settings(experiment, folder, "a checkpoint")
    remove_leftovers(folder.path)
    write_atomic(folder.config, checksums.seal_text(experiment.config.to_yaml()))


def _solve(experiment: Experiment, folder: FoldFolder, start: InitialModel, callback: Callback) -> Outcome:
    """A linear probe: the fold's closed-form head on frozen features; nothing is trained, nothing can be resumed."""
    config, began = experiment.config, time.perf_counter()
    chosen = hardware.for_features(config.machine, finetune.is_transformer(start.model))
    about = {"hardware": str(chosen), "why": "closed-form head on frozen features"}
    callback.fold_started(config, folder, {**about, "weights": _weights(start)})
    solved = initialization.solve_probe(experiment, start, config.probe, callback, config.train.imbalance)
    head = solved.folds[folder.fold]
    pool = FeaturePool([net.model for net in start.nets], start.parts)
    net = ProbeNet(pool, solved.stages, len(experiment.competition.classes))
    net.set_head(head.head)
    train, test = initialization.features_of(experiment, start, callback)
    held_out = experiment.folds.valid_rows(folder.fold)
    return Outcome(
        weights=net.state_dict(),
        blueprint=replace(
            start.blueprint,
            stages=tuple(solved.stages),
            size=config.images.size,
            sizes=tuple(config.probe_sizes),
            mirror=config.probe.mirror is True,
            others=tuple(net.blueprint for net in start.others),
        ),
        hardware=chosen,
        train=start.train,
        images=start.test,
        epochs=0,
        seconds=time.perf_counter() - began,
        oof=solved.predict(folder.fold, [[part[held_out] for part in view] for view in train]),
        test=solved.predict(folder.fold, test),
        about={"probe": {"strength": head.strength, "stages": solved.stages}},
    )


def _weights(start: InitialModel) -> str:
    return "; ".join(backbones.describe_weights(net.config.backbone, net.blueprint) for net in start.nets)


def _adapt(
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
    about = {"hardware": str(chosen), "why": chosen.why(), "weights": _weights(start)}
    callback.fold_started(training.config, folder, about)
    fitted = training.run(task, model, callback, state)
    about: dict[str, Any] = {"lr": lr, "head_init": "probe" if from_probe else "random", **training.about, **taught}
    outcome = Outcome(
        fitted.weights,
        start.blueprint,
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
        def lesson() -> DistillationTargets | None:  # asked for only where nothing has been found yet
            return self._lesson(0, callback)[0]

        def short(task: Task) -> Fitted:
            task = replace(task, lesson=lesson())
            model, _ = self.ready_model(0, callback)
            return self.run(task, model, Callback(), None)

        found = lr_search.find_lr(self.task(0), short, lr_file(self.experiment.config), self.processes, callback)
        return replace(self, found=found)

    def ready_model(self, fold: int, callback: Callback) -> tuple[torch.nn.Module, bool]:
        """A net as that fold's training finds it, with its closed-form head, and whether it has one."""
        start = initialization.copy_of(self.start, self.experiment)
        solved = initialization.set_probe_head(self.experiment, start, fold, callback)
        finetune.prepare(start.model, self.experiment.config.finetune)
        return start.model, solved

    def taught_task(self, fold: int, callback: Callback) -> tuple[Task, dict[str, Any]]:
        """The fold's task with what its teachers say, and what the manifest says of them."""
        lesson, found = self._lesson(fold, callback)
        if lesson is None:
            return self.task(fold), {}
        about = {"teachers": [teacher.entry for teacher in found], "pseudo_images": len(lesson.rows)}
        return replace(self.task(fold), lesson=lesson), about

    def _lesson(self, fold: int, callback: Callback) -> tuple[DistillationTargets | None, list[Teacher]]:
        experiment, folder = self.experiment, self.folder
        if not experiment.config.distill.teachers:
            return None, []
        found = teachers.find_teachers(experiment, fold)

        def answers() -> TeacherPredictions:
            if fold != folder.fold:  # learning rates are tried there, and its folder is not this process's to write to
                return distillation.predict_teachers(found, experiment, fold, callback)
            return distillation.cached_teacher_predictions(found, experiment, folder, self._identity(fold), callback)

        lesson = distillation.distillation_targets(
            experiment, fold, self.processes.from_first(answers), self.start.test
        )
        callback.note(f"fold {fold}: {distillation.describe(lesson, found, experiment.config.distill)}")
        return lesson, found

    def _identity(self, fold: int) -> str:
        seen = [self.start.train, *([self.start.test] if self.experiment.config.distill.pseudo else [])]
        return "/".join(
            [self.experiment.identity(fold), *(store.path.stem for store in seen)]
        )  # a cache is named by content

    def task(self, fold: int) -> Task:
        """What that fold is trained on, as far as its labels go."""
        experiment, folder, store = self.experiment, self.folder, self.start.train
        return Task(
            identity=self._identity(fold),
            config=self.config,
            store=store,
            ids=experiment.competition.train_ids,
            targets=experiment.competition.targets,
            train_rows=experiment.folds.train_rows(fold),
            valid_rows=experiment.folds.valid_rows(fold),
            classes=len(experiment.competition.classes),
            metric=experiment.competition.metric,
            state_file=folder.checkpoint,
            history_file=folder.history,
        )

    def run(self, task: Task, model: torch.nn.Module, callback: Callback, state: dict[str, Any] | None) -> Fitted:
        trainer = Trainer(task, model, self.start.blueprint, self.hardware, self.processes, callback)
        return trainer.run(state)


def _hardware(
    experiment: Experiment, state: dict[str, Any] | None, model: torch.nn.Module, processes: Processes
) -> Hardware:
    """What a begun fold was trained on, else what this experiment uses on this machine."""
    config = experiment.config
    if state:
        kept = Hardware(**state["hardware"])
        if kept.device == "cpu" or kept.device == hardware.available_device():
            return kept
    wanted = (config.machine, model, config.images.size, config.train.part, hardware_file(config))
    processes.from_first(lambda: hardware.choose(*wanted) and None)
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
    member = InferenceModel(start.model, Preparation.of(start.blueprint, chosen), chosen, images, views)
    truth, units = experiment.competition.targets[rows], experiment.competition.units[rows]
    return wise_ft.choose_point(before, after, start.model, member, rows, truth, units)
