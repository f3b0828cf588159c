"""How keys of the settings were called before: files that still say so are read, and identities go on as they were.

An old key is read for one release, with a warning. Its line stays in the table for longer: what decides a training is
digested under the oldest names, so that a fold that was trained under them still counts as done.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from foldcraft.common.errors import FoldcraftError

# Old name -> the name it has now, of a key or of a whole section. A further rename is one line more. A key that is
# renamed again keeps its first line, with the newest name, above the second.
RENAMED = {
    "train.lr": "optim.lr",
    "train.min_lr": "optim.min_lr",
    "train.warmup": "optim.warmup",
    "train.weight_decay": "optim.weight_decay",
    "train.clip": "optim.clip",
    "train.ema": "optim.ema",
    "train.ema_decay": "optim.ema_decay",
    "train.swa": "optim.swa",
    "train.label_smoothing": "regularize.label_smoothing",
    "train.rdrop": "regularize.rdrop",
    "train.sam": "regularize.sam",
    "train.workers": "machine.workers",
    "train.device": "machine.device",
    "train.precision": "machine.precision",
    "train.memory_format": "machine.memory_format",
}
# Options that are gone, under their newest names: the value that turned each off, which files of older runs hold and
# identities go on to count, and why it is gone. Any other value is refused.
WITHDRAWN = {"regularize.sam": (0.0, "SAM is gone: it made every experiment worse, in twice the time")}
# Keys that are settings no more, and where to look instead; a file may still hold them, and they change nothing.
REMOVED = {"soup": "soup.json in the run folder says what a soup is the mean of"}

_ABSENT = object()
_OLDEST = {new: old for old, new in reversed(RENAMED.items())}


def current(key: str) -> str:
    """The name that a key has now."""
    return _renamed(key, RENAMED)


def oldest(key: str) -> str:
    """The name under which a key of today counts for identities."""
    return _renamed(key, _OLDEST)


def _renamed(key: str, table: Mapping[str, str]) -> str:
    for before, after in table.items():
        if key == before or key.startswith(f"{before}."):
            return after + key.removeprefix(before)
    return key


def renew(settings: Mapping[str, Any], where: object) -> tuple[dict[str, Any], list[str]]:
    """Settings under the names of today, and the old names that were in them.

    Args:
        where: file that they are from, for the message.

    Raises:
        FoldcraftError: a key is there under both of its names.
    """
    renewed, used = copy.deepcopy(dict(settings)), []
    for old, new in RENAMED.items():
        if _look(renewed, old) is _ABSENT:
            continue
        if _look(renewed, new) is not _ABSENT:
            raise FoldcraftError(f"{old} is called {new} now, and both are given", where, f"drop {old}")
        if _move(renewed, old, new):
            used.append(old)
    return renewed, used


def without_removed(settings: Mapping[str, Any], where: object) -> tuple[dict[str, Any], list[str]]:
    """Settings without the keys that are none any more, and those of them that were there.

    Raises:
        FoldcraftError: an option that is gone is turned on.
    """
    used = [key for key in REMOVED if key in settings]
    left = copy.deepcopy({key: value for key, value in settings.items() if key not in REMOVED})
    for key, (off, why) in WITHDRAWN.items():
        value = _look(left, key)
        if value is _ABSENT:
            continue
        if value != off:
            raise FoldcraftError(f"{key}={value}: {why}", where, f"drop {key}; see docs/regularisers.md")
        _remove(left, key.split("."))
    return left, used


def canonical(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under the oldest names that their keys have had: the form that identities are made of."""
    made = copy.deepcopy(dict(settings))
    for key, (off, _) in WITHDRAWN.items():
        section, _, leaf = key.rpartition(".")
        if section in made:
            made[section] = {**made[section], leaf: off}
    for new, old in _OLDEST.items():
        _move(made, new, old)
    return made


def told(used: Mapping[object, Sequence[str]]) -> str:
    """One line about the old keys that were found, by the place they were in."""
    places = [f"{', '.join(map(_told, keys))} ({where})" for where, keys in used.items()]
    return f"warning: old keys, which the next release refuses: {'; '.join(places)}"


def _told(old: str) -> str:
    return f"{old} is no setting any more, {REMOVED[old]}" if old in REMOVED else f"{old} is now {current(old)}"


def _look(settings: Mapping[str, Any], key: str) -> Any:
    """What is under a dotted key, or `_ABSENT`."""
    found: Any = settings
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return _ABSENT
        found = found[part]
    return found


def _move(settings: dict[str, Any], source: str, target: str) -> bool:
    """Put what is under one dotted key under another; False where it is not there, or the other can hold nothing."""
    value = _look(settings, source)
    if value is _ABSENT:
        return False
    *sections, leaf = target.split(".")
    home: Any = settings
    for part in sections:
        home = home.setdefault(part, {}) if isinstance(home, dict) else None
    if not isinstance(home, dict):
        return False
    home[leaf] = value
    _remove(settings, source.split("."))
    return True


def _remove(settings: dict[str, Any], parts: Sequence[str]) -> None:
    """Delete a key, and the sections that it leaves empty."""
    first, *rest = parts
    if rest:
        _remove(settings[first], rest)
    if not rest or not settings[first]:
        del settings[first]
