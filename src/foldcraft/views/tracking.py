"""W&B as a mirror of the local log, kept at arm's length.

Everything that talks to W&B happens in a process of its own (`wandb_process`), which reads what happens from a pipe. It
may fail, hang or be killed: training does not notice, and the command waits ten seconds for it at the end, no longer.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.paths import FoldFolder, experiment_folder, study_folder
from foldcraft.predictions.finished import FinishedExperiment
from foldcraft.views.terminal import CallbackList, Terminal
from foldcraft.views.wandb_process import run_id

PATIENCE = 10.0  # seconds that a command waits for W&B at its end
# Said aloud, because the end of the pipe would not be seen while a forked worker still holds its other end.
GOODBYE = {"do": "goodbye"}
MIRROR = [sys.executable, "-m", "foldcraft.views.wandb_process"]


class Tracker(Callback):
    """Tells the mirror process what happens: a W&B run a fold, grouped by experiment.

    Args:
        folder: where what W&B says, and the copies it takes of files, are kept.
        tags: by which the runs can be found in W&B.
    """

    def __init__(self, folder: Path, tags: Sequence[str] = ()) -> None:
        self.folder, self.tags = folder, list(tags)
        self.log_file = folder / "wandb.log"
        self.events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.mirror: subprocess.Popen[bytes] | None = None
        self.writer = threading.Thread(target=self._write, daemon=True)
        self.fold = -1

    def fold_started(self, config: Config, folder: FoldFolder, about: dict[str, Any]) -> None:
        self.fold = folder.fold
        place = {"fold": folder.fold, "id": run_id(folder.path / "wandb.json"), "about": about, "tags": self.tags}
        self._send({"do": "started", **_of(config), **place})

    def epoch_ended(self, row: dict[str, float]) -> None:
        self._send({"do": "epoch", "row": row})

    def fold_ended(self, manifest: dict[str, Any]) -> None:
        self._send({"do": "ended", "fold": self.fold})

    def submitted(
        self, configs: Sequence[Config], folds: Sequence[Sequence[int]], file: Path, entry: dict[str, object]
    ) -> None:
        """A submission of some experiments was written.

        Args:
            folds: those that are finished, of each experiment.
            entry: its row in the ledger.
        """
        for config in configs:
            self._send({"do": "experiment", **_of(config)})
        members = {config.experiment: list(done) for config, done in zip(configs, folds, strict=True)}
        self._send({"do": "submission", **_of(configs[0]), "members": members, "file": str(file), "entry": entry})

    def competes(self, config: Config, row: dict[str, float]) -> None:
        """A blend was judged.

        Args:
            row: minutes since the beginning, the best score so far and what else there is to draw over time.
        """
        self._send({"do": "competes", **_of(config), "id": run_id(self.folder / "wandb.json"), "row": row})

    def failed(self, error: Exception) -> None:
        """The command is about to end with an error."""
        self._send({"do": "failed", "text": str(error)})

    def close(self) -> str | None:
        """Wait a moment for W&B to finish; a warning if it failed or did not."""
        if self.mirror is None:
            return None
        self.events.put(GOODBYE)
        try:
            code = self.mirror.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return f"warning: W&B has not finished, left to itself; see {self.log_file}"
        return f"warning: W&B failed, the local log is complete; see {self.log_file}" if code else None

    def _start(self) -> bool:
        source = str(Path(__file__).parents[2])
        environment = {"WANDB_DATA_DIR": str(self.folder.absolute() / "wandb"), **os.environ}
        environment["PYTHONPATH"] = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])
        try:
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            with open(self.log_file, "ab") as log:
                self.mirror = subprocess.Popen(
                    MIRROR, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
                )
        except OSError:
            return False
        self.writer.start()
        return True

    def _send(self, event: dict[str, Any]) -> None:
        if self.mirror is not None or self._start():
            self.events.put(event)

    def _write(self) -> None:
        """Runs in a thread of its own: a mirror that does not read must not stop the training."""
        assert self.mirror is not None
        assert self.mirror.stdin is not None
        try:
            while event := self.events.get():
                self.mirror.stdin.write(json.dumps(event).encode() + b"\n")
                self.mirror.stdin.flush()
                if event == GOODBYE:
                    return
        except OSError:
            return  # it has died; `close` will say so


def _of(config: Config) -> dict[str, Any]:
    return {"config": config.model_dump(mode="json"), "pid": os.getpid()}


def tracker_of(config: Config, tags: Sequence[str] = ()) -> Tracker | None:
    """What tells W&B of an experiment; None where that is off."""
    return Tracker(experiment_folder(config), tags) if config.tracking.wandb != "off" else None


def tracker_of_compete(config: Config) -> Tracker | None:
    """What tells W&B how a competition goes; None where that is off."""
    return Tracker(study_folder(config, "compete")) if config.tracking.wandb != "off" else None


@contextmanager
def tracked(terminal: Terminal, tracker: Tracker | None) -> Iterator[Callback]:
    """What listens to some work: the terminal, and W&B where it is on; an error is told to W&B before it goes on."""
    try:
        yield CallbackList(terminal, tracker) if tracker else terminal
    except Exception as error:
        if tracker:
            tracker.failed(error)
        raise
    finally:
        terminal.close()
        if tracker and (warning := tracker.close()):
            terminal.say(warning)


def track_submission(members: Sequence[FinishedExperiment], file: Path, entry: Mapping[str, object]) -> str | None:
    """Tell W&B of a submission, where it is on; a warning if that failed.

    Args:
        entry: its row in the ledger.
    """
    configs = [member.experiment.config for member in members]
    if not (tracker := tracker_of(configs[0])):
        return None
    tracker.submitted(configs, [member.done_folds for member in members], file, dict(entry))
    return tracker.close()
