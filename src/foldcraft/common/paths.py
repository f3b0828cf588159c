"""The folder of one fold of one experiment: which file lies where, and whether the fold is done."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from foldcraft.common import checksums, config_renames, safe_yaml, shared_folder
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, said_by
from foldcraft.common.files import is_writable, read_bytes


@dataclass(frozen=True)
class FoldFolder:
    """`runs/<competition>/<experiment>/fold<k>/`.

    Attributes:
        beside: folder for predictions that are added, where this one may only be read.
    """

    path: Path
    fold: int
    beside: Path | None = None

    @classmethod
    def of(cls, config: Config, fold: int) -> "FoldFolder":
        """The folder of that fold; it need not exist."""
        return cls.within(experiment_folder(config), config, fold)

    @classmethod
    def within(cls, home: Path, config: Config, fold: int) -> "FoldFolder":
        """The fold's folder among those of its experiment, which lie in `home`."""
        beside = None if is_writable(home) else config.scratch / config.competition.name / config.experiment
        return cls(home / f"fold{fold}", fold, beside / f"fold{fold}" if beside else None)

    @property
    def written(self) -> "FoldFolder":
        """Where predictions are added: this folder, or the one beside it where this one may only be read."""
        return FoldFolder(self.beside, self.fold) if self.beside else self

    def _newest(self, name: str) -> Path:
        added = self.beside / name if self.beside else None
        return added if added and added.is_file() else self.path / name

    def of_other(self, experiment: str) -> "FoldFolder":
        """The same fold of another experiment."""
        return FoldFolder(self.path.parents[1] / experiment / self.path.name, self.fold)

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def history(self) -> Path:
        return self.path / "history.csv"

    @property
    def checkpoint(self) -> Path:
        return self.path / "last.ckpt"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def oof(self) -> Path:
        return self._newest("oof.parquet")

    @property
    def test(self) -> Path:
        return self._newest("test.parquet")

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def answers(self) -> Path:
        return self.path / "answers.safetensors"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def is_done(self) -> bool:
        """A fold is done when its manifest is there."""
        return self.manifest.is_file()

    def read_manifest(self) -> dict[str, Any]:
        """What is known of the finished fold.

        Raises:
            FoldcraftError: the file is damaged.
        """
        try:
            return checksums.read_json(self.manifest)
        except (OSError, ValueError) as error:
            raise FoldcraftError(
                f"damaged manifest: {said_by(error)}", self.manifest, "delete the fold's folder"
            ) from None

    def manifest_of_task(self) -> dict[str, Any]:
        """The manifest that a task has written, on another machine perhaps, whose files may appear late here.

        Raises:
            FoldcraftError: it is not there; it is damaged.
        """
        shared_folder.appears(self.manifest)
        return self.read_manifest()

    def read_settings(self) -> dict[str, Any]:
        """The settings that the fold was begun with, under the names that keys have now.

        Raises:
            FoldcraftError: the file is missing or damaged.
        """
        try:
            text = read_bytes(self.config).decode("utf-8")
            checksums.check_text(text)
            safe_yaml.check(text, self.config)
            settings = OmegaConf.to_container(OmegaConf.create(text))
            if not isinstance(settings, dict) or not settings:
                raise ValueError("no settings in it")
            return config_renames.renew(settings, self.config)[0]
        except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
            hint = "run `python src/train.py` with its config, which writes it again"
            raise FoldcraftError(f"damaged settings: {said_by(error)}", self.config, hint) from None


def experiment_folder(config: Config) -> Path:
    """`runs/<competition>/<experiment>`."""
    return config.runs / config.competition.name / config.experiment


def written_folder(config: Config) -> Path:
    """Where what can be made again is written: `runs/<competition>`, or in `scratch` where `runs` may only be read."""
    return (config.runs if is_writable(config.runs) else config.scratch) / config.competition.name


def fold_configs(folder: Path) -> list[Path]:
    """The settings of each finished fold in an experiment's folder; where none is finished, of those that began."""
    files = sorted(folder.glob("fold*/config.yaml"))
    return [file for file in files if FoldFolder(file.parent, -1).is_done] or files


def hardware_file(config: Config) -> Path:
    """Where an experiment keeps what it is computed on, by machine."""
    return experiment_folder(config) / "hardware.json"


def rows_file(config: Config) -> Path:
    """Where an experiment keeps the training rows that its folds learned from."""
    return experiment_folder(config) / "rows.parquet"


def soup_file(config: Config) -> Path:
    """Where a soup keeps what it is the mean of; no other experiment has such a file."""
    return experiment_folder(config) / "soup.json"


def lr_file(config: Config) -> Path:
    """Where an experiment keeps the learning rate that was found for it."""
    return experiment_folder(config) / "lr.json"


def diagnosis_file(config: Config) -> Path:
    """Where the diagnosis of a competition is kept."""
    return written_folder(config) / "diagnose" / "diagnosis.json"


def study_folder(config: Config, name: str) -> Path:
    """Where what a study has found of a competition is kept: "audit", "diagnose", "check"."""
    return written_folder(config) / name


def report_file(config: Config) -> Path:
    """Where the page about a competition's experiments lies."""
    return written_folder(config) / "report.html"


def features_folder(config: Config) -> Path:
    """Where the frozen features of a competition's images lie."""
    return written_folder(config) / "features"


def cache_folder(config: Config) -> Path:
    """Where the decoded images of a competition lie."""
    return written_folder(config) / "cache"


def audit_folder(config: Config) -> Path:
    """Where the audit of a competition is kept."""
    return written_folder(config) / "audit"


def duplicates_file(config: Config) -> Path:
    """Where the audit of a competition keeps the copies that it found."""
    return audit_folder(config) / "duplicates.csv"


def groups_file(config: Config) -> Path:
    """Where the audit of a competition keeps the hidden groups that it found."""
    return audit_folder(config) / "groups.csv"


def check_file(config: Config) -> Path:
    """Where what was found about an experiment's code is kept."""
    return written_folder(config) / "check" / f"{config.experiment}.json"
