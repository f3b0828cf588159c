"""What W&B keeps, and what was made from what: folds -> a fold's predictions and model -> OOF -> a submission."""

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from foldcraft.common.config import Config
from foldcraft.common.paths import FoldFolder, experiment_folder

SOURCE = Path(__file__).parents[2]


class ArtifactLogger:
    """Gives artifacts to one W&B run.

    Attributes:
        kept: bytes of the files that were given.
    """

    def __init__(self, wandb: Any, run: Any) -> None:
        self.wandb, self.run = wandb, run
        self.kept = 0

    def put(self, name: str, kind: str, files: Iterable[tuple[str, Path]], changes: bool = True) -> None:
        """Something the run has made.

        Args:
            files: names in the artifact, and where the files lie; those that are not there are left out.
            changes: the files may be written again, so W&B takes a copy; a model is not copied.
        """
        self.run.log_artifact(self._artifact(name, kind, files, changes))

    def use(self, name: str, kind: str, files: Iterable[tuple[str, Path]], changes: bool = True) -> None:
        """Something the run was made from. The same files are the same version, whoever gives them first."""
        artifact = self._artifact(name, kind, files, changes)
        if not self.run.offline:
            self.run.use_artifact(artifact)
            return
        # Offline the public method refuses. This is what it does online with a new artifact; `wandb sync` honours it.
        self.run._log_artifact(artifact, aliases=[], is_user_created=True, use_after_commit=True)

    def _artifact(self, name: str, kind: str, files: Iterable[tuple[str, Path]], changes: bool) -> Any:
        artifact = self.wandb.Artifact(name, type=kind)
        for inside, file in files:
            if file.is_file():
                policy = "mutable" if changes else "immutable"
                artifact.add_file(str(file), name=inside, skip_cache=True, policy=policy)
                self.kept += file.stat().st_size
        return artifact

    def code(self) -> None:
        """The project's source as it is now: what git knows of it, and nothing beside it."""
        wanted = _tracked()
        self.run.log_code(
            str(SOURCE), name="foldcraft-code", include_fn=lambda path: Path(path).relative_to(SOURCE) in wanted
        )


def _tracked() -> set[Path]:
    """Python files under src/ that git knows; all of them where there is no git, as in an unpacked archive."""
    try:
        command = ["git", "ls-files", "-z", "--", "*.py"]
        done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=True, timeout=10)
        found = {Path(name) for name in done.stdout.split("\0") if name}
    except (OSError, subprocess.SubprocessError):
        found = set()
    return found or {file.relative_to(SOURCE) for file in SOURCE.rglob("*.py")}


def of_folds(config: Config) -> tuple[str, str, list[tuple[str, Path]]]:
    """Name, type and files of the frozen folds."""
    return f"folds-{config.competition.name}", "folds", [(config.folds_file.name, config.folds_file)]


def of_fold(experiment: str, folder: FoldFolder) -> tuple[str, str, list[tuple[str, Path]]]:
    """Name, type and files of what a fold's model said, and how it was made."""
    files = (folder.oof, folder.test, folder.manifest, folder.config, folder.history)
    return f"{experiment}-fold{folder.fold}", "predictions", [(file.name, file) for file in files]


def of_model(experiment: str, folder: FoldFolder) -> tuple[str, str, list[tuple[str, Path]]]:
    """Name, type and file of a fold's weights."""
    return f"{experiment}-fold{folder.fold}-model", "model", [(folder.model.name, folder.model)]


def of_oof(config: Config, folds: Sequence[int]) -> tuple[str, str, list[tuple[str, Path]]]:
    """Name, type and files of an experiment's OOF predictions."""
    home = experiment_folder(config)
    files = [(f"fold{fold}.parquet", FoldFolder(home / f"fold{fold}", fold).oof) for fold in folds]
    return f"{config.experiment}-oof", "oof", files


def of_submission(file: Path) -> tuple[str, str, list[tuple[str, Path]]]:
    """Name, type and file of a submission."""
    safe = "".join(sign if sign.isalnum() or sign in "-_." else "-" for sign in file.stem)
    return f"submission-{safe}", "submission", [(file.name, file)]
