"""W&B as a mirror of the local log, kept at arm's length.

Everything that talks to W&B happens in a process of its own (`wandb_mirror`), which reads what happens from a pipe. It
may fail, hang or be killed: training does not notice, and the command waits ten seconds for it at the end, no longer.
"""

import json
import os
import queue
import secrets
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from foldcraft.audience import Audience
from foldcraft.config import Config
from foldcraft.files import write_atomic
from foldcraft.rundir import FoldFolder, experiment_folder

PATIENCE = 10.0  # seconds that a command waits for W&B at its end
# Said aloud, because the end of the pipe would not be seen while a forked worker still holds its other end.
GOODBYE = {"do": "goodbye"}
MIRROR = [sys.executable, "-m", "foldcraft.wandb_mirror"]


class Tracker(Audience):
    """Tells the mirror process what happens; one W&B run a fold, grouped by experiment."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.log_file = experiment_folder(config) / "wandb.log"
        self.events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.mirror: subprocess.Popen[bytes] | None = None
        self.writer = threading.Thread(target=self._write, daemon=True)

    def fold_started(self, config: Config, folder: FoldFolder, about: dict[str, Any]) -> None:
        if self.mirror is None and not self._start():
            return
        self._send(
            {
                "do": "start",
                "id": run_id(folder),
                "name": f"{config.experiment}-fold{folder.fold}",
                "group": config.experiment,
                "project": config.tracking.project or f"foldcraft-{config.competition.name}",
                "entity": config.tracking.entity,
                "mode": config.tracking.wandb,
                "dir": str(experiment_folder(config)),
                "config": {**config.model_dump(mode="json"), "fold": folder.fold, **about},
            }
        )

    def epoch_ended(self, row: dict[str, float]) -> None:
        self._send({"do": "log", "row": row})

    def fold_ended(self, manifest: dict[str, Any], truth: np.ndarray, predicted: np.ndarray) -> None:
        self._send(
            {
                "do": "end",
                "summary": {key: manifest[key] for key in ("score", "metric", "seconds", "epochs")},
                "truth": truth.tolist(),
                "predicted": predicted.tolist(),
                "classes": manifest["classes"],
            }
        )

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
        source = str(Path(__file__).parents[1])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
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
        if self.mirror is not None:
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


def run_id(folder: FoldFolder) -> str:
    """The fold's W&B run, kept in its folder so that a resumed fold goes on in the same run."""
    file = folder.path / "wandb.json"
    try:
        return json.loads(file.read_text())["id"]
    except (OSError, ValueError, KeyError):
        made = secrets.token_hex(6)
        write_atomic(file, json.dumps({"id": made}))
        return made
