"""Reading settings: YAML files, what they extend, `key=value` overrides, and the messages about mistakes in them."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from foldcraft.common import checksums, config_checks, config_renames, safe_yaml
from foldcraft.common.config import Config
from foldcraft.common.config_reference import describe
from foldcraft.common.errors import FoldcraftError, shorten, suggest
from foldcraft.common.files import check_readable

GENERATIONS = 20  # of files that extend each other
MOST_TOLD = 10  # mistakes of a config, in one line


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
        config_renames.warn(config_renames.told(reader.old_keys))
    return configs


@dataclass
class _Reader:
    """Reads configs that have files in common, each of them once.

    Attributes:
        known: what has been read, with all that it extends.
        old_keys: keys that were given under an old name, by file or "command line".
    """

    known: dict[Path, DictConfig] = field(default_factory=dict)
    old_keys: dict[object, list[str]] = field(default_factory=dict)

    def load(self, path: Path, overrides: Sequence[str]) -> Config:
        try:
            settings = OmegaConf.merge(self.read(path, ()), self.renewed(_read_overrides(overrides), "command line"))
            values = OmegaConf.to_container(settings)
        except (OmegaConfBaseException, RecursionError) as error:
            raise FoldcraftError(str(error), path) from None
        values.setdefault("experiment", path.stem)
        try:
            made = Config.model_validate(values).settled()
        except ValidationError as error:
            raise FoldcraftError(_explain(error), where=path) from None
        config_checks.check(made)
        return made

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
        parents = own.pop("extends", None) or []
        parents = [parents] if isinstance(parents, str) else parents
        if not isinstance(parents, Sequence) or not all(isinstance(parent, str) for parent in parents):
            raise FoldcraftError("'extends' is neither a path nor a list of paths", path)
        own = self.renewed(own, path, quiet=was_written)
        merged = OmegaConf.create({})
        for parent in parents:
            merged = OmegaConf.merge(merged, self.read(path.parent / os.path.expanduser(str(parent)), seen))
        try:
            return OmegaConf.merge(merged, own)
        except (OmegaConfBaseException, RecursionError) as error:
            raise FoldcraftError(f"does not fit what it extends: {error}", path) from None

    def renewed(self, settings: DictConfig, where: object, quiet: bool = False) -> DictConfig:
        """The settings under the names that their keys have now."""
        values, renamed = config_renames.renew(OmegaConf.to_container(settings), where)
        values, removed = config_renames.without_removed(values, where)
        used = [*renamed, *removed]
        if used and not quiet:
            self.old_keys[where] = used
        return OmegaConf.create(values)


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
            raise FoldcraftError(f"{override!r} is not key=value", "command line", "for instance optim.lr=0.0005")
        safe_yaml.check_characters(key, "command line")
        try:
            safe_yaml.check(value, "command line")
        except YAMLError as error:
            raise FoldcraftError(f"{override!r} cannot be read: {error}", "command line") from None
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except Exception as error:
        raise FoldcraftError(f"cannot be read: {error}", "command line") from None


def _explain(error: ValidationError) -> str:
    """All mistakes that validation has found, or the first of them."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"] if not _is_union_tag(part))
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key {key!r}, {_suggest_key(key)}")
        elif problem["type"] == "missing":
            lines.append(f"{key!r} is missing")
        else:
            lines.append(f"{key} = {_shown(problem['input'])}: {problem['msg'].lower()}")
    told = list(dict.fromkeys(lines))
    more = f" | and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
    return " | ".join(told[:MOST_TOLD]) + more


def _shown(value: object) -> str:
    try:
        return shorten(repr(value), 200)
    except ValueError:  # a whole number of thousands of digits
        return "a huge number"


def _is_union_tag(part: object) -> bool:
    """Pydantic adds the branch of a union it tried ('constrained-float', "literal['auto']") to the place."""
    return isinstance(part, str) and ("[" in part or part in {"float", "int", "str", "constrained-float"})


# What other tools call them.
ALIASES = {"learning_rate": "lr", "batch_size": "batch", "image_size": "size", "img_size": "size", "n_splits": "count"}


def _suggest_key(key: str) -> str:
    known = [name for name, *_ in describe()]
    sections = list(dict.fromkeys(name.rpartition(".")[0] for name in known if "." in name))
    leaf = key.split(".")[-1]
    same_leaf = [name for name in known if name.split(".")[-1] == ALIASES.get(leaf, leaf)]
    if same_leaf:
        return f"did you mean {same_leaf[0]!r}?"
    section = key.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == section]
    close = suggest(key, known if "." in key else [*sections, *known])
    return close if close.startswith("did") else suggest(key, siblings or known)
