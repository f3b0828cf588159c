"""Reading settings: YAML files, what they extend, `key=value` overrides, and the messages about mistakes in them."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from foldcraft.common import checksums, config_checks, config_mistakes, config_renames, notices, safe_yaml
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, shorten
from foldcraft.common.files import check_readable

GENERATIONS = 20  # of files that extend each other
COMMAND_LINE = "command line"
LONGEST_OVERRIDE = 60  # characters of a word of the command line that a message shows


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file with all that it extends, then the `key=value` overrides, and validate.

    Old names of keys are read as well, with one warning for all of them.

    Raises:
        FoldcraftError: no such file, broken YAML, an unknown key, a key under its old and its new name, a value of the
            wrong type or out of range, settings that do not go together.
    """
    return load_all([path], overrides)[0]


def load_all(paths: Sequence[Path], overrides: Sequence[str] = ()) -> list[Config]:
    """As `load`, for several files, with the overrides applied to each.

    Raises:
        FoldcraftError: as `load`.
    """
    reader = _Reader()
    configs = [reader.load(Path(os.path.expanduser(path)), overrides) for path in paths]
    if reader.old_keys:
        notices.tell_once(config_renames.told(reader.old_keys))
    return configs


@dataclass
class _Reader:
    """Reads configs that have files in common, each of them once.

    Attributes:
        known: what has been read, with all that it extends.
        own: what each file says itself, by the path that it was named by, and the files that it extends.
        old_keys: keys that were given under an old name, by file or "command line".
        written: files that a run has written.
    """

    known: dict[Path, DictConfig] = field(default_factory=dict)
    own: dict[Path, tuple[Path, object, list[Path]]] = field(default_factory=dict)
    old_keys: dict[object, list[str]] = field(default_factory=dict)
    written: set[Path] = field(default_factory=set)

    def load(self, path: Path, overrides: Sequence[str]) -> Config:
        own, given = self.read(path, ()), self.renewed(_read_overrides(overrides), COMMAND_LINE)
        values = OmegaConf.to_container(_merged(own, given, COMMAND_LINE))
        values.setdefault("experiment", path.stem)
        self._say_where_code_is(values, path)
        try:
            made = Config.model_validate(values).settled()
        except ValidationError as error:
            raise config_mistakes.told(error, values, partial(self.place_of, path, overrides)) from None
        config_checks.check(made)
        return made

    def _say_where_code_is(self, values: dict, path: Path) -> None:
        """Note in which folder the config lies that names a host's metric; a run's own config knows it."""
        metric = values["competition"].get("metric") if isinstance(values.get("competition"), dict) else None
        if isinstance(metric, dict) and "code" in metric and Path(os.path.realpath(path)) not in self.written:
            file = self._file_of("competition.metric.code", Path(os.path.realpath(path))) or path
            metric["beside"] = str(file.parent)

    def place_of(self, path: Path, overrides: Sequence[str], key: str, with_value: bool) -> str:
        """The word of the command line that gave a key, or the file that did: `path`, or one that it extends."""
        for word in reversed(overrides):
            given = config_renames.current(word.partition("=")[0])
            if f"{key}.".startswith(f"{given}.") or f"{given}.".startswith(f"{key}."):
                is_safe = with_value and (given == key or "{" not in word)  # a section may hold a secret beside the key
                shown = word if is_safe else word.partition("=")[0]
                return f"{COMMAND_LINE}: {shorten(shown, LONGEST_OVERRIDE)}"
        return str(self._file_of(key, Path(os.path.realpath(path))) or path)

    def _file_of(self, key: str, place: Path) -> Path | None:
        named, own, parents = self.own[place]
        if _is_in(key, own):
            return named
        return next((file for parent in reversed(parents) if (file := self._file_of(key, parent))), None)

    def read(self, path: Path, seen: tuple[Path, ...]) -> DictConfig:
        """A file with all that it extends; `seen` are those that extend it."""
        place = Path(os.path.realpath(path))
        if place in seen:
            raise FoldcraftError("extends itself", path, "break the circle of 'extends'")
        if len(seen) > GENERATIONS:
            raise FoldcraftError(f"more than {GENERATIONS} files extend each other", path, "put some of them into one")
        if place not in self.known:
            self.known[place] = self._read_anew(path, (*seen, place))
        return self.known[place]

    def _read_anew(self, path: Path, seen: tuple[Path, ...]) -> DictConfig:
        own, was_written = _read_mapping(path)
        if was_written:
            self.written.add(seen[-1])
        parents = own.pop("extends", None) or []
        parents = [parents] if isinstance(parents, str) else parents
        if not isinstance(parents, Sequence) or not all(isinstance(parent, str) for parent in parents):
            raise FoldcraftError("'extends' is neither a path nor a list of paths", path)
        own = self.renewed(own, path, quiet=was_written)
        merged = OmegaConf.create({})
        files = [path.parent / os.path.expanduser(str(parent)) for parent in parents]
        for file in files:
            merged = _merged(merged, self.read(file, seen), file)
        places = [Path(os.path.realpath(file)) for file in files]
        self.own[seen[-1]] = (path, OmegaConf.to_container(own), places)
        return _merged(merged, own, path)

    def renewed(self, settings: DictConfig, where: object, quiet: bool = False) -> DictConfig:
        """The settings under the names that their keys have now."""
        values, renamed = config_renames.renew(OmegaConf.to_container(settings), where)
        values, removed = config_renames.without_removed(values, where)
        used = [*renamed, *removed]
        if used and not quiet:
            self.old_keys[where] = used
        return OmegaConf.create(values)


def _merged(first: DictConfig, second: DictConfig, where: object) -> DictConfig:
    """Settings with those that win over them.

    Raises:
        FoldcraftError: a key is a list in one of them and a section in the other, or they are nested too deep.
    """
    try:
        return OmegaConf.merge(first, second)
    except (OmegaConfBaseException, RecursionError, TypeError) as error:
        kinds = (OmegaConf.to_container(first), OmegaConf.to_container(second))
        said = _clash(*kinds) or shorten(str(error).partition("\n")[0], 200)
        raise FoldcraftError(f"does not fit what is there already: {said}", where) from None


def _clash(first: object, second: object, key: str = "") -> str:
    """Which key is a list on one side, and a section on the other."""
    if isinstance(first, dict) and isinstance(second, dict):
        both = (name for name in second if name in first)
        inner = (_clash(first[name], second[name], f"{key}.{name}".lstrip(".")) for name in both)
        return next(filter(None, inner), "")
    kinds = {list: "a list", dict: "a section"}
    one, other = kinds.get(type(first)), kinds.get(type(second))
    return f"{key} is {one}, and is given as {other}" if one and other and one != other else ""


def _is_in(key: str, values: object) -> bool:
    """Is something said under a dotted key?"""
    for part in key.split("."):
        if isinstance(values, list) and part.isdigit():
            return True
        if not isinstance(values, dict):
            return False
        found = {str(name): value for name, value in values.items()}
        if part not in found:
            return False
        values = found[part]
    return True


def _read_mapping(path: Path) -> tuple[DictConfig, bool]:
    """The 'key: value' lines of a YAML file, and whether a run has written it, which says so by a checksum.

    Raises:
        FoldcraftError: no such file, broken YAML, anything else in it.
    """
    if not os.path.isfile(path):
        raise FoldcraftError("no such config", path, "name a YAML file with --config, seen from the current folder")
    check_readable(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        checksums.check_text(text)
        safe_yaml.check(text, path)
        own = OmegaConf.load(io.StringIO(text), max_yaml_expanded_nodes=safe_yaml.MOST_NODES)
    except FoldcraftError:
        raise
    except checksums.ChecksumMismatch as error:
        hint = "delete its first line if you have edited it; else `python src/train.py` with its config writes it again"
        raise FoldcraftError(str(error), path, hint) from None
    except Exception as error:  # YAML's readers of numbers, dates and tags raise errors of every kind
        raise FoldcraftError(f"not a readable YAML file: {error}", path) from None
    if not isinstance(own, DictConfig):
        raise FoldcraftError("should hold 'key: value' lines", path)
    return own, checksums.is_sealed_text(text)


def _read_overrides(overrides: Sequence[str]) -> DictConfig:
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise FoldcraftError(f"{override!r} is not key=value", COMMAND_LINE, "for instance optim.lr=0.0005")
        safe_yaml.check_characters(key, COMMAND_LINE)
        try:
            safe_yaml.check(value, COMMAND_LINE)
        except YAMLError:
            hint = "close brackets and quotes, as in tta.views=[identity,hflip]"
            raise FoldcraftError(
                f"the value of {shorten(override, 100)!r} cannot be read", COMMAND_LINE, hint
            ) from None
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except Exception as error:
        raise FoldcraftError(f"cannot be read: {error}", COMMAND_LINE) from None
