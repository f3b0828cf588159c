"""The process that talks to W&B: reads events, one JSON a line, from stdin, until goodbye or the end.

A run a fold; when an experiment's last fold is done, a run that sums the experiment up; a run a submission.
"""

import json
import os
import secrets
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from foldcraft.common import allocator, checksums
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import locked
from foldcraft.common.paths import FoldFolder, experiment_folder

LAST_CHANCE = 120  # seconds after the last event, after which this process ends whatever W&B does ...
UPLOAD = 500_000  # ... and one more for so many bytes that it was given to keep
SWEEP = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")  # what a W&B agent tells its trial


def read_events(into: SimpleQueue[dict[str, Any]]) -> None:
    """What happens, as it happens; "died" where the end comes without goodbye."""
    for line in sys.stdin:
        into.put(json.loads(line))
        if json.loads(line)["do"] == "goodbye":
            return
    into.put({"do": "died"})
    into.put({"do": "goodbye"})


def mode_of(wanted: str, has_key: bool) -> str:
    """ "auto" is what WANDB_MODE says, else online with a key and offline without."""
    if wanted != "auto":
        return wanted
    return os.environ.get("WANDB_MODE") or ("online" if has_key else "offline")


def run_id(file: Path) -> str:
    """The W&B run of a fold or an experiment, kept in its folder so that it goes on in the same run when resumed."""
    try:
        kept = checksums.read_json(file)["id"]
        if isinstance(kept, str) and kept.isalnum():  # it becomes a part of W&B's own file names
            return kept
    except (OSError, ValueError, KeyError, FoldcraftError):
        pass
    made = secrets.token_hex(6)
    checksums.write_json(file, {"id": made})
    return made


class WandbWorker:
    """Does in W&B what the events say.

    Args:
        sweep: what a W&B agent said of the trial, by the names in `SWEEP`; empty without one. The trial is the
            experiment, so the experiment's run is the agent's, and those of its folds are none of the sweep.
    """

    def __init__(self, wandb: Any, sweep: dict[str, str]) -> None:
        self.wandb, self.sweep = wandb, sweep
        self.fold: Any = None
        self.trial: Any = None
        self.race: Any = None
        self.config: Config | None = None
        self.tags: list[str] = []
        self.kept = 0
        self.troubled = False

    @contextmanager
    def tried(self) -> Iterator[None]:
        """What fails here is told in the log, and does not keep the rest from W&B."""
        try:
            yield
        except Exception:
            traceback.print_exc()
            self.troubled = True

    def started(self, event: dict[str, Any]) -> None:
        """A fold begins, or goes on in the run it had before."""
        self.config, self.tags = Config.model_validate(event["config"]), event["tags"]
        if self.sweep and self.trial is None:
            self.trial = self._open_experiment(self.config, self.sweep["WANDB_RUN_ID"])
        self.fold = self._open(
            self.config,
            event["id"],
            f"{self.config.experiment}-fold{event['fold']}",
            "fold",
            {**event["config"], "fold": event["fold"], **event["about"]},
            event["pid"],
        )
        self.fold.define_metric("*", step_metric="epoch")
        with self.tried():
            self._lineage(self.config, event["fold"])

    def epoch(self, event: dict[str, Any]) -> None:
        if self.fold:
            self.fold.log(event["row"])

    def ended(self, event: dict[str, Any]) -> None:
        """A fold is done; if it was the last one, so is the experiment."""
        if not self.fold or not self.config:
            return
        config, run, self.fold = self.config, self.fold, None
        folder = FoldFolder.of(config, event["fold"])
        manifest = folder.read_manifest()
        run.summary.update({key: manifest.get(key) for key in ("score", "metric", "seconds", "epochs", "git")})
        with self.tried():
            run.log(self._panels(config, [folder.oof]))
        with self.tried():
            self._keep_fold(config, run, folder)
        if self.trial:
            self._log_fold(self.trial, folder)
        self._alert(run, f"fold {folder.fold} is done", f"{manifest['metric']} {manifest['score']:.4f}")
        run.finish()
        self._sum_up(config)

    def experiment(self, event: dict[str, Any]) -> None:
        """An experiment that may have been finished without W&B looking on."""
        self._sum_up(Config.model_validate(event["config"]))

    def submission(self, event: dict[str, Any]) -> None:
        """A submission was written."""
        from foldcraft.views import wandb_artifacts

        config, file = Config.model_validate(event["config"]), Path(event["file"])
        run = self._open(config, secrets.token_hex(6), file.stem, "submission", {}, event["pid"], group="submissions")
        run.summary.update({key: _number(value) for key, value in event["entry"].items()})
        if config.tracking.artifacts != "off":
            keeper = wandb_artifacts.ArtifactLogger(self.wandb, run)
            for name, folds in event["members"].items():
                member = config.model_copy(update={"experiment": name})
                keeper.use(*wandb_artifacts.of_oof(member, folds))
            keeper.put(*wandb_artifacts.of_submission(file))
            self.kept += keeper.kept
        entry = event["entry"]
        score = f"{entry['metric']} {entry['nested']}, nested; forecast of the hidden score {entry['forecast']}"
        self._alert(run, "submission is written", score, config)
        run.finish()

    def competes(self, event: dict[str, Any]) -> None:
        """A blend was judged: a point of the curve of the best score over time, in one run however often it goes on."""
        if self.race is None:
            self.config = Config.model_validate(event["config"])
            about = {"competition": event["config"]["competition"]}
            name = f"{self.config.competition.name}-compete"
            self.race = self._open(self.config, event["id"], name, "compete", about, event["pid"], group="compete")
            self.race.define_metric("*", step_metric="minutes")
        self.race.log(event["row"])

    def failed(self, event: dict[str, Any]) -> None:
        """The command ends with an error, or has died."""
        for run in filter(None, (self.fold, self.trial, self.race)):
            self._alert(run, "training has failed", event.get("text", "its process has died"), level="ERROR")

    died = failed

    def close(self) -> None:
        """What is still open did not end well, but for the curve of a competition, which has no end."""
        if self.race and not self.troubled:
            self.race.finish()
            self.race = None
        for run in filter(None, (self.fold, self.trial, self.race)):
            run.finish(exit_code=1)

    def _open(
        self,
        config: Config,
        run: str,
        name: str,
        kind: str,
        about: dict[str, Any],
        process: int | None = None,
        group: str | None = None,
        **more: Any,
    ) -> Any:
        # Without git: its diff would hold what is not committed, of any file. The code is kept by `Keeper.code`.
        settings = {"console": "off", "silent": True, "disable_git": True, "x_stats_pid": process or os.getpid()}
        project = config.tracking.project or os.environ.get("WANDB_PROJECT") or f"foldcraft-{config.competition.name}"
        wandb = self.wandb
        return wandb.init(
            id=run,
            name=name,
            group=group or config.experiment,
            job_type=kind,
            tags=self.tags,
            project=project,
            entity=config.tracking.entity,
            dir=str(experiment_folder(config)),
            config=about,
            mode=mode_of(config.tracking.wandb, wandb.login(prompt=False)),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(**settings, **more),
        )

    def _open_experiment(self, config: Config, run: str) -> Any:
        names = {"WANDB_SWEEP_ID": "sweep_id", "WANDB_SWEEP_PARAM_PATH": "sweep_param_path"}
        more = {names[key]: value for key, value in self.sweep.items() if key in names}
        opened = self._open(config, run, config.experiment, "experiment", config.model_dump(mode="json"), **more)
        opened.define_metric("*", step_metric="fold")
        return opened

    def _lineage(self, config: Config, fold: int) -> None:
        from foldcraft.views import wandb_artifacts

        if config.tracking.artifacts == "off":
            return
        keeper, folder = wandb_artifacts.ArtifactLogger(self.wandb, self.fold), FoldFolder.of(config, fold)
        keeper.code()
        keeper.use(*wandb_artifacts.of_folds(config))
        for teacher in config.distill.teachers:
            keeper.use(*wandb_artifacts.of_fold(teacher, folder.of_other(teacher)))
        self.kept += keeper.kept

    def _keep_fold(self, config: Config, run: Any, folder: FoldFolder) -> None:
        from foldcraft.views import wandb_artifacts

        if config.tracking.artifacts == "off":
            return
        keeper = wandb_artifacts.ArtifactLogger(self.wandb, run)
        keeper.put(*wandb_artifacts.of_fold(config.experiment, folder))
        if config.tracking.artifacts == "models":
            keeper.put(*wandb_artifacts.of_model(config.experiment, folder), changes=False)
        self.kept += keeper.kept

    def _panels(self, config: Config, files: list[Path]) -> dict[str, Any]:
        from foldcraft.data import competition
        from foldcraft.predictions import oof
        from foldcraft.views import wandb_panels

        card = oof.load(files, config.tta.views, competition.read(config, images_of=()))
        return wandb_panels.panels(self.wandb, card, config.tracking.mistakes, config.images.bounds)

    def _log_fold(self, run: Any, folder: FoldFolder) -> None:
        run.log({"fold": folder.fold, "fold_score": folder.read_manifest()["score"]})

    def _sum_up(self, config: Config) -> None:
        """Write the experiment's run, once all its folds are done, and again when their predictions have changed."""
        from foldcraft.common import fingerprint
        from foldcraft.data import competition, folds
        from foldcraft.predictions import oof
        from foldcraft.views import wandb_artifacts, wandb_panels

        home = experiment_folder(config)
        marker = home / "wandb.json"
        with locked(home / ".wandb.lock"):  # the folds of several processes may end together
            data = competition.read(config, images_of=())
            numbers = range(folds.read(config.folds_file, data).count)
            folders = [FoldFolder.of(config, fold) for fold in numbers]
            if not all(folder.is_done for folder in folders):
                return
            seen = fingerprint.of_values([fingerprint.of_file(folder.oof) for folder in folders])
            known = checksums.read_json(marker) if marker.is_file() else {}
            if known.get("seen") == seen and not self.trial:
                return
            run, self.trial = self.trial or self._open_experiment(config, run_id(marker)), None
            if not self.sweep:
                for folder in folders:
                    self._log_fold(run, folder)
            card = oof.load([folder.oof for folder in folders], config.tta.views, data)
            summary = summary_of(card, [folder.read_manifest() for folder in folders])
            run.log({"mean": summary["mean"], "oof": summary["oof"]})  # what a sweep looks at must be in the history
            run.summary.update(summary)
            run.log(wandb_panels.panels(self.wandb, card, config.tracking.mistakes, config.images.bounds))
            if config.tracking.artifacts != "off":
                keeper = wandb_artifacts.ArtifactLogger(self.wandb, run)
                for folder in folders:
                    keeper.use(*wandb_artifacts.of_fold(config.experiment, folder))
                keeper.put(*wandb_artifacts.of_oof(config, list(numbers)))
                self.kept += keeper.kept
            text = f"{summary['metric']} {summary['oof']:.4f} out of fold, mean of folds {summary['mean']:.4f}"
            self._alert(run, "all folds are done", text, config)
            checksums.write_json(marker, {"id": run.id, "seen": seen})
            run.finish()

    def _alert(self, run: Any, what: str, text: str, config: Config | None = None, level: str = "INFO") -> None:
        config = config or self.config
        if config and config.tracking.alerts:
            run.alert(title=f"{config.experiment}: {what}"[-63:], text=text, level=level)


def _number(value: object) -> object:
    """The ledger is text; a number in it is one for W&B."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def summary_of(card: Any, manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """An experiment in a few numbers."""
    scores = [manifest["score"] for manifest in manifests]
    low, high = card.interval
    return {
        "oof": card.score,
        "oof_low": low,
        "oof_high": high,
        "mean": float(np.mean(scores)),
        "std": float(np.std(scores, ddof=1)),
        "folds": len(scores),
        "metric": manifests[0]["metric"],
        "seconds": sum(manifest["seconds"] for manifest in manifests),
        "git": manifests[0].get("git"),
    }


def end_in_time(mirror: WandbWorker, began: float) -> None:
    """End this process when its last chance is over, whatever W&B is doing."""
    while time.monotonic() - began < LAST_CHANCE + mirror.kept / UPLOAD:
        time.sleep(1)
    os._exit(1)


def main() -> int:
    """Mirror every event; 1 where something failed."""
    happened: SimpleQueue[dict[str, Any]] = SimpleQueue()
    sweep = {name: os.environ.pop(name) for name in SWEEP if name in os.environ}  # W&B must not see it in every run
    import wandb

    mirror = WandbWorker(wandb, sweep if "WANDB_SWEEP_ID" in sweep else {})

    def listen() -> None:
        read_events(happened)
        end_in_time(mirror, time.monotonic())

    threading.Thread(target=listen, daemon=True).start()
    while (event := happened.get())["do"] != "goodbye":
        with mirror.tried():
            getattr(mirror, event["do"])(event)
    mirror.close()
    return int(mirror.troubled)


if __name__ == "__main__":
    allocator.keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training; this process ends with its pipe
    sys.exit(main())
