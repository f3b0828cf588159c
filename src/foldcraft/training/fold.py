"""One fold from settings to manifest: solve or train it, predict what was held out, predict the test set."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from foldcraft.common import checksums, fingerprint
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import locked, remove_leftovers, write_atomic
from foldcraft.common.paths import FoldFolder
from foldcraft.models import checkpoint
from foldcraft.predictions import trained_rows
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.identity import ELSE
from foldcraft.training import initialization
from foldcraft.training.distributed import Processes
from foldcraft.training.fine_tuning import fine_tune
from foldcraft.training.fold_result import finish
from foldcraft.training.probing import solve


def train_fold(experiment: Experiment, fold: int, processes: Processes, callback: Callback) -> dict[str, Any]:
    """Train a fold to its end, or go on where it was left, or skip it if it is done; gives its manifest.

    Raises:
        FoldcraftError: no such fold; another process is at it; what lies in its folder was made with other settings,
            data or folds; images cannot be read; settings that do not go together; and all that `Trainer.run` raises.
    """
    with _claimed(experiment, fold, processes) as folder:
        if processes.from_first(lambda: folder.is_done):
            return _done_before(experiment, folder, processes, callback)
        state = _begin(experiment, folder, processes)
        start = initialization.of_folds(experiment, callback)  # one process decodes, the others wait at a lock
        if experiment.config.is_probe:
            outcome = solve(experiment, folder, start, callback)
        else:
            outcome = fine_tune(experiment, folder, start, state, processes, callback)
        manifest = finish(experiment, folder, outcome, callback) if processes.is_first else {}
        processes.barrier()
        return manifest


@contextmanager
def _claimed(experiment: Experiment, fold: int, processes: Processes) -> Iterator[FoldFolder]:
    """The folder of a fold, which no other training can enter meanwhile."""
    if fold not in range(experiment.folds.count):
        raise FoldcraftError(f"no fold {fold}", "--fold", f"folds are 0 to {experiment.folds.count - 1}, or all")
    folder = FoldFolder.of(experiment.config, fold)
    busy = "another process is at this fold"
    with locked(folder.lock, wait=False, busy=busy) if processes.is_first else nullcontext():
        experiment.check_images(_finished(experiment))
        yield folder


def _finished(experiment: Experiment) -> dict[int, dict[str, Any]]:
    """Manifests of the experiment's finished folds; one that cannot be read is told of when its fold's turn comes."""
    manifests = {}
    for folder in (FoldFolder.of(experiment.config, fold) for fold in range(experiment.folds.count)):
        with suppress(FoldcraftError):
            if folder.is_done:
                manifests[folder.fold] = folder.read_manifest()
    return manifests


def _done_before(
    experiment: Experiment, folder: FoldFolder, processes: Processes, callback: Callback
) -> dict[str, Any]:
    """The manifest of a finished fold, after a look at whether all is there and as it was."""
    manifest = experiment.identity.check_finished(folder)
    _check_pseudo_labels(experiment, folder, manifest["fingerprints"])
    if processes.is_first:
        _check_papers(experiment, folder, manifest, callback)
        trained_rows.keep(experiment)
    callback.note(f"fold {folder.fold}: done before, score {manifest['score']:.4f}")
    return manifest


def _check_pseudo_labels(experiment: Experiment, folder: FoldFolder, made_for: dict[str, str]) -> None:
    """See that a fold that learned from test images learned from these."""
    same_images = made_for.get("test_images", experiment.test_images) in ("", experiment.test_images)
    if experiment.config.distill.pseudo and not (same_images and made_for["test"] == experiment.identity.test):
        raise FoldcraftError("has learned from other test images", folder.path, ELSE)


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


def _begin(experiment: Experiment, folder: FoldFolder, processes: Processes) -> dict[str, Any] | None:
    """Make the folder ready; gives the state that an interrupted training has left, if there is one."""
    _check_soup(experiment)
    _check_interpolation(experiment.config)
    state = checkpoint.load_state(folder.checkpoint) if folder.checkpoint.is_file() else None
    if processes.is_first:
        if state:
            experiment.identity.check_begun(folder, state)
        remove_leftovers(folder.path)
        write_atomic(folder.config, checksums.seal_text(experiment.config.to_yaml()))
    return state


def _check_soup(experiment: Experiment) -> None:
    if experiment.soup:
        raise FoldcraftError(
            "is the mean of other experiments' weights, which is not trained",
            experiment.config.experiment,
            f"train {', '.join(experiment.soup)}, then run `python src/infer.py --soup` with their configs",
        )


def _check_interpolation(config: Config) -> None:
    finetune = config.finetune
    if finetune.interpolate and (finetune.head_init != "probe" or finetune.mode == "linear_probe"):
        raise FoldcraftError(
            "interpolation goes from the closed-form head to the trained net, and this experiment lacks one of them",
            "finetune.interpolate",
            "set finetune.head_init=probe and a mode that trains, or interpolate=false",
        )
