"""What makes a fold what it is, and whether the fold that lies on disk is that one."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from foldcraft.common import fingerprint
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, listing
from foldcraft.common.paths import FoldFolder
from foldcraft.data.competition import Competition
from foldcraft.data.folds import Folds
from foldcraft.predictions import lineage

ELSE = "repeat the key=value words it was made with, or set experiment=NEWNAME"


@dataclass(frozen=True)
class Identity:
    """Digests of everything that decides what an experiment's trained folds are, but for the pixels.

    Worked out once, when the experiment is opened; folds of the same identity are the same training.

    Attributes:
        settings: of the settings that decide what is trained, or of what a soup is the mean of with them.
        data: of training ids, labels and groups.
        test: of the test ids.
        folds: of which row is in which fold.
        classes: their names, in order.
        by_alphabet: that order is the one that all older folds were trained in.
        target: of its kind, heads and row weights, where it is more than one label a row, each counting alike.
    """

    config: Config = field(repr=False)
    settings: str
    data: str
    test: str
    folds: str
    classes: tuple[str, ...]
    by_alphabet: bool
    target: tuple[Any, ...] = ()
    _teachers: dict[int, dict[str, str]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, config: Config, data: Competition, folds: Folds, soup: Mapping[str, str]) -> "Identity":
        """That of an experiment with these settings on these data; `soup` is what it is the mean of, if it is one."""
        names, by_alphabet = data.classes.names, data.classes.are_by_alphabet
        digest = config.training_fingerprint(soup)
        made_for = (data.fingerprint, data.test_fingerprint, folds.fingerprint)
        return cls(config, digest, *made_for, names, by_alphabet, tuple(data.learned_identity))

    def teachers(self, fold: int) -> dict[str, str]:
        """Fingerprint of each teacher's model of that fold, by name; what was found first stays, until all is done.

        Raises:
            FoldcraftError: a teacher has not finished that fold.
        """
        if fold not in self._teachers:
            self._teachers[fold] = lineage.taught_by(self.config, fold)
        return self._teachers[fold]

    def of_fold(self, fold: int) -> str:
        """Digest of all that decides what that fold is.

        Raises:
            FoldcraftError: a teacher has not finished that fold.
        """
        parts: list[Any] = [self.settings, self.data, self.folds, fold]
        if not self.by_alphabet:
            parts.append(list(self.classes))
        if self.target:
            parts.append(list(self.target))
        taught = self.teachers(fold)
        return fingerprint.of_values([*parts, taught] if taught else parts)

    def check_classes(self, trained: list[str] | None, where: object) -> None:
        """See that a fold was trained for the classes as they are, in their order.

        Raises:
            FoldcraftError: it was not.
        """
        if trained is None or tuple(trained) == self.classes or set(trained) != set(self.classes):
            return  # other classes are other data, which is told by their fingerprint
        hint = "set competition.order to that, to go on with it, or experiment=NEWNAME to train again"
        was, now = listing(trained, 12), listing(self.classes, 12)
        raise FoldcraftError(f"was trained for classes in the order {was}, which now is {now}", where, hint)

    def check_finished(self, folder: FoldFolder) -> dict[str, Any]:
        """The manifest of a finished fold.

        Raises:
            FoldcraftError: the fold is of other settings, data, folds or teachers; the manifest is damaged.
        """
        manifest = folder.read_manifest()
        self.check_classes(manifest.get("classes"), folder.path)
        if manifest.get("identity") != self.of_fold(folder.fold):
            raise self._other_settings(folder, "a finished fold", manifest.get("fingerprints", {}))
        return manifest

    def check_begun(self, folder: FoldFolder, state: Mapping[str, Any]) -> None:
        """See that a training state is of this fold.

        Raises:
            FoldcraftError: it was begun with other settings, data, folds or teachers.
        """
        begun_as = state.get("identity", "").split("/")[0]
        if folder.config.is_file() and begun_as != self.of_fold(folder.fold):
            raise self._other_settings(folder, "a checkpoint")

    def _other_settings(
        self, folder: FoldFolder, what: str, made_for: Mapping[str, str] | None = None
    ) -> FoldcraftError:
        """Says what has changed since the folder was begun; `made_for` are the digests in its manifest."""
        now = {"data": self.data, "folds": self.folds}
        others = [name for name, digest in now.items() if (made_for or {}).get(name, digest) != digest]
        if others:
            hint = "restore the folds file or the data, or set experiment=NEWNAME to train on these"
            return FoldcraftError(
                f"holds {what} made for other {listing(others)} than there are now", folder.path, hint
            )
        before: dict[str, Any] = {}
        with suppress(FoldcraftError):  # what was changed cannot be told where that file is damaged
            before = folder.read_settings()
        whole, counts = self.config.model_dump(mode="json"), self.config.training_settings()
        now = {name: {key: whole[name][key] for key in keys} for name, keys in counts.items() if isinstance(keys, dict)}
        changed = [
            f"{section}.{key} was {before[section].get(key)!r}, is {value!r}"
            for section, values in now.items()
            if isinstance(before.get(section), dict)
            for key, value in values.items()
            if before[section].get(key) != value
        ]
        reason = listing(changed, 3) if changed else "seed, data, folds or teachers"
        return FoldcraftError(f"holds {what} made otherwise ({reason})", folder.path, ELSE)
