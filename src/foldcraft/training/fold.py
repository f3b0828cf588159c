"""One fold from settings to manifest: solve or train it, predict what was held out, predict the test set."""

import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from foldcraft.common import checksums, fingerprint
from foldcraft.common.callbacks import Audience
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, listing
from foldcraft.common.files import locked, remove_leftovers, write_atomic
from foldcraft.common.paths import FoldFolder, hardware_file, lr_file
from foldcraft.data.loader import Lesson, PlainImages
from foldcraft.models import backbones, checkpoint, finetune, hardware
from foldcraft.models.hardware import Hardware
from foldcraft.models.preprocessing import Preparation
from foldcraft.models.stage_features import FeaturePool, ProbeNet
from foldcraft.predictions.experiment import Workspace
from foldcraft.predictions.inference import Member
from foldcraft.training import distillation, initialization, lr_search, teachers, wise_ft
from foldcraft.training.distillation import Answers
from foldcraft.training.distributed import Processes
from foldcraft.training.fold_result import Outcome, finish
from foldcraft.training.initialization import StartingPoint
from foldcraft.training.teachers import Teacher
from foldcraft.training.trainer import Fitted, Task, Trainer, check_parts
from foldcraft.training.wise_ft import Interpolated


def train_fold(work: Workspace, fold: int, processes: Processes, audience: Audience) -> dict[str, Any]:
    """Train a fold to its end, or go on where it was left, or skip it if it is done; gives its manifest.

    Raises:
        FoldcraftError: no such fold; another process is at it; what lies in its folder was made with other settings,
            data or folds; images cannot be read; settings that do not go together; and all that `Trainer.run` raises.
    """
    if fold not in range(work.folds.count):
        raise FoldcraftError(f"no fold {fold}", "--fold", f"folds are 0 to {work.folds.count - 1}, or all")
    folder = FoldFolder.of(work.config, fold)
    lock = (
        locked(folder.lock, wait=False, busy="another process is at this fold") if processes.is_first else nullcontext()
    )
    with lock:
        work.check_images(_finished(work))
        if processes.from_first(lambda: folder.is_done):
            manifest = _check_done(work, folder)
            if processes.is_first:
                _check_papers(work, folder, manifest, audience)
            audience.note(f"fold {fold}: done before, score {manifest['score']:.4f}")
            return manifest
        return _train(work, folder, processes, audience)


def _finished(work: Workspace) -> dict[int, dict[str, Any]]:
    """Manifests of the experiment's finished folds; one that cannot be read is told of when its fold's turn comes."""
    found = {}
    for folder in (FoldFolder.of(work.config, fold) for fold in range(work.folds.count)):
        with suppress(FoldcraftError):
            if folder.is_done:
                found[folder.fold] = folder.read_manifest()
    return found


def _check_done(work: Workspace, folder: FoldFolder) -> dict[str, Any]:
    manifest = folder.read_manifest()
    work.check_classes(manifest.get("classes"), folder.path)
    if manifest.get("identity") != work.identity(folder.fold):
        raise _other_settings(work, folder, "a finished fold")
    made_for = manifest["fingerprints"]
    others = made_for["test"] != work.competition.test_fingerprint or (
        made_for.get("test_images", work.test_images) not in ("", work.test_images)
    )
    if work.config.distill.pseudo and others:
        raise FoldcraftError(
            "has learned from other test images", folder.path, "set experiment=NEWNAME, or delete that folder"
        )
    return manifest


def _check_papers(work: Workspace, folder: FoldFolder, manifest: dict[str, Any], audience: Audience) -> None:
    """Look at what a finished fold keeps for people: its settings, which are known, and its history, which is lost."""
    try:
        folder.read_settings()
    except FoldcraftError as error:
        audience.say(f"{folder.config}: {error.what}; it is written again")
        write_atomic(folder.config, checksums.seal_text(work.config.to_yaml()))
    noted = manifest.get("history")
    if noted and not (folder.history.is_file() and fingerprint.of_file(folder.history) == noted):
        audience.say(f"warning: {folder.history}: has changed since the fold was finished; only people read it")


def _other_settings(work: Workspace, folder: FoldFolder, what: str) -> FoldcraftError:
    """Says what has changed since the folder was begun."""
    before: dict[str, Any] = {}
    with suppress(FoldcraftError):  # what was changed cannot be told where that file is damaged
        before = folder.read_settings()
    whole, counts = work.config.model_dump(mode="json"), work.config.training_settings()
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


def _train(work: Workspace, folder: FoldFolder, processes: Processes, audience: Audience) -> dict[str, Any]:
    _check_soup(work.config)
    _check_interpolation(work.config)
    state = checkpoint.load_state(folder.checkpoint) if folder.checkpoint.is_file() else None
    if processes.is_first:
        _begin(work, folder, state)
    start = initialization.build(work, audience)  # a lock lets one process decode, and the others wait for it
    if work.config.finetune.mode == "linear_probe":
        outcome = _solve(work, folder, start, audience)
    else:
        outcome = _adapt(work, folder, start, state, processes, audience)
    manifest = finish(work, folder, outcome, audience) if processes.is_first else {}
    processes.barrier()
    return manifest


def _check_soup(config: Config) -> None:
    if config.soup:
        raise FoldcraftError(
            "is the mean of other experiments' weights, which is not trained",
            config.experiment,
            f"train {', '.join(config.soup)}, then run `python src/soup.py` with their configs",
        )


def _check_interpolation(config: Config) -> None:
    finetune = config.finetune
    if finetune.interpolate and (finetune.head_init != "probe" or finetune.mode == "linear_probe"):
        raise FoldcraftError(
            "interpolation goes from the closed-form head to the trained net, and this experiment lacks one of them",
            "finetune.interpolate",
            "set finetune.head_init=probe and a mode that trains, or interpolate=false",
        )


def _begin(work: Workspace, folder: FoldFolder, state: dict[str, Any] | None) -> None:
    if state and folder.config.is_file() and state.get("identity", "").split("/")[0] != work.identity(folder.fold):
        raise _other_settings(work, folder, "a checkpoint")
    remove_leftovers(folder.path)
    write_atomic(folder.config, checksums.seal_text(work.config.to_yaml()))


def _solve(work: Workspace, folder: FoldFolder, start: StartingPoint, audience: Audience) -> Outcome:
    """A linear probe: the fold's closed-form head on frozen features; nothing is trained, nothing can be resumed."""
    config, began = work.config, time.perf_counter()
    chosen = hardware.for_features(config.train, finetune.is_transformer(start.model))
    about = {"hardware": str(chosen), "why": "closed-form head on frozen features"}
    audience.fold_started(config, folder, {**about, "weights": _weights(start)})
    solved = initialization.solve_probe(work, start, config.probe, audience, config.train.imbalance)
    head = solved.folds[folder.fold]
    pool = FeaturePool([net.model for net in start.nets], start.parts)
    net = ProbeNet(pool, solved.stages, len(work.competition.classes))
    net.set_head(head.head)
    train, test = initialization.features_of(work, start, audience)
    held_out = work.folds.valid_rows(folder.fold)
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


def _weights(start: StartingPoint) -> str:
    return "; ".join(backbones.describe_weights(net.config.backbone, net.blueprint) for net in start.nets)


def _adapt(
    work: Workspace,
    folder: FoldFolder,
    start: StartingPoint,
    state: dict[str, Any] | None,
    processes: Processes,
    audience: Audience,
) -> Outcome:
    """Train the net, or as much of it as the mode says, from its closed-form head."""
    check_parts(work.config, start.model, len(work.folds.train_rows(folder.fold)), processes.world)
    chosen = _hardware(work, state, start.model, processes)
    training = Training(work, folder, start, chosen, processes)
    if work.config.train.lr == "auto":
        training = training.with_found_lr(audience)
    task, taught = training.taught_task(folder.fold, audience)
    model, from_probe = training.ready_model(folder.fold, audience)
    before = {name: value.cpu().clone() for name, value in finetune.plain_state(model).items()}
    lr = training.config.train.lr
    about = {"hardware": str(chosen), "why": chosen.why(), "weights": _weights(start)}
    audience.fold_started(training.config, folder, about)
    fitted = training.run(task, model, audience, state)
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
    if not work.config.finetune.interpolate or not processes.is_first:
        return outcome
    point = _interpolated(work, folder, start, chosen, before, fitted)
    audience.note(f"fold {folder.fold}: predicts at {point.share:g} of the way from the probe to the trained net")
    losses = {f"{share:g}": round(loss, 5) for share, loss in point.losses.items()}
    about = {**about, "interpolation": {"share": point.share, "losses": losses}}
    return replace(outcome, weights=point.weights, oof=point.oof, about=about)


@dataclass(frozen=True)
class Training:
    """What all trainings of a fold have in common: the real one, and the short ones that try learning rates."""

    work: Workspace
    folder: FoldFolder
    start: StartingPoint
    hardware: Hardware
    processes: Processes
    found: dict[str, float] | None = None

    @property
    def config(self) -> Config:
        """The config with the learning rate that was found."""
        return lr_search.with_lr(self.work.config, self.found["lr"]) if self.found else self.work.config

    @property
    def about(self) -> dict[str, Any]:
        return {"lr_probe": self.found} if self.found else {}

    def with_found_lr(self, audience: Audience) -> "Training":
        """The same with the learning rate that three short trainings on fold 0 name."""

        @cache
        def lesson() -> Lesson | None:  # asked for only where nothing has been found yet
            return self._lesson(0, audience)[0]

        def short(task: Task) -> Fitted:
            task = replace(task, lesson=lesson())
            model, _ = self.ready_model(0, audience)
            return self.run(task, model, Audience(), None)

        found = lr_search.find(self.task(0), short, lr_file(self.work.config), self.processes, audience)
        return replace(self, found=found)

    def ready_model(self, fold: int, audience: Audience) -> tuple[torch.nn.Module, bool]:
        """A net as that fold's training finds it, with its closed-form head, and whether it has one."""
        start = initialization.copy_of(self.start, self.work)
        solved = initialization.set_probe_head(self.work, start, fold, audience)
        finetune.prepare(start.model, self.work.config.finetune)
        return start.model, solved

    def taught_task(self, fold: int, audience: Audience) -> tuple[Task, dict[str, Any]]:
        """The fold's task with what its teachers say, and what the manifest says of them."""
        lesson, found = self._lesson(fold, audience)
        if lesson is None:
            return self.task(fold), {}
        about = {"teachers": [teacher.entry for teacher in found], "pseudo_images": len(lesson.rows)}
        return replace(self.task(fold), lesson=lesson), about

    def _lesson(self, fold: int, audience: Audience) -> tuple[Lesson | None, list[Teacher]]:
        work, folder = self.work, self.folder
        if not work.config.distill.teachers:
            return None, []
        found = teachers.find(work, fold)

        def answers() -> Answers:
            if fold != folder.fold:  # learning rates are tried there, and its folder is not this process's to write to
                return distillation.ask(found, work, fold, audience)
            return distillation.ask_once(found, work, folder, self._identity(fold), audience)

        lesson = distillation.lesson(work, fold, self.processes.from_first(answers), self.start.test)
        audience.note(f"fold {fold}: {distillation.describe(lesson, found, work.config.distill)}")
        return lesson, found

    def _identity(self, fold: int) -> str:
        seen = [self.start.train, *([self.start.test] if self.work.config.distill.pseudo else [])]
        return "/".join([self.work.identity(fold), *(store.path.stem for store in seen)])  # a cache is named by content

    def task(self, fold: int) -> Task:
        """What that fold is trained on, as far as its labels go."""
        work, folder, store = self.work, self.folder, self.start.train
        return Task(
            identity=self._identity(fold),
            config=self.config,
            store=store,
            ids=work.competition.train_ids,
            targets=work.competition.targets,
            train_rows=work.folds.train_rows(fold),
            valid_rows=work.folds.valid_rows(fold),
            classes=len(work.competition.classes),
            metric=work.competition.metric,
            state_file=folder.checkpoint,
            history_file=folder.history,
        )

    def run(self, task: Task, model: torch.nn.Module, audience: Audience, state: dict[str, Any] | None) -> Fitted:
        trainer = Trainer(task, model, self.start.blueprint, self.hardware, self.processes, audience)
        return trainer.run(state)


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


def _interpolated(
    work: Workspace,
    folder: FoldFolder,
    start: StartingPoint,
    chosen: Hardware,
    before: dict[str, torch.Tensor],
    fitted: Fitted,
) -> Interpolated:
    rows = work.folds.valid_rows(folder.fold)
    after = {name: value.cpu() for name, value in fitted.weights.items()}
    images = PlainImages(start.train, work.config.images)
    views = tuple(work.config.tta.views)
    member = Member(start.model, Preparation.of(start.blueprint, chosen), chosen, images, views)
    truth, units = work.competition.targets[rows], work.competition.units[rows]
    return wise_ft.choose(before, after, start.model, member, rows, truth, units)
