"""What a sweep may try, in the YAML of a W&B sweep, so that one file serves the local engine and W&B's."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from foldcraft.common import config_renames, notices
from foldcraft.common.errors import FoldcraftError, suggest

METHODS = ("grid", "random", "bayes")
SCORES = ("oof", "mean")
DISTRIBUTIONS = ("constant", "categorical", "int_uniform", "uniform", "q_uniform", "log_uniform_values")
# What W&B knows beside these is for its own engine and is read by nobody here.
KEYS = ("name", "method", "metric", "parameters", "run_cap")
FOR_WANDB = ("program", "command", "description", "project", "entity", "early_terminate", "settings", "$schema")


@dataclass(frozen=True)
class Parameter:
    """One setting and what it may be: one of some values, or a number from low to high.

    Attributes:
        values: as JSON texts; empty for a range.
        log: equal ratios are equally likely.
        step: between the numbers of a range; None: any.
    """

    name: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False
    step: float | None = None

    @property
    def examples(self) -> tuple[str, ...]:
        """Two of its values, where it has two."""
        return self.values[:2] if self.values else (json.dumps(self.low), json.dumps(self.high))


@dataclass(frozen=True)
class Space:
    """A sweep as its file says it.

    Attributes:
        score: "oof" (of all rows) or "mean" (of the folds).
        trials: how many to try; None: it is not said.
    """

    name: str
    method: str
    score: str
    maximize: bool
    parameters: tuple[Parameter, ...]
    trials: int | None

    def grid(self) -> list[dict[str, str]]:
        """Every combination."""
        names = [one.name for one in self.parameters]
        values = itertools.product(*(one.values for one in self.parameters))
        return [dict(zip(names, chosen, strict=True)) for chosen in values]


def words(chosen: Mapping[str, Any]) -> list[str]:
    """Chosen values (numbers of ranges, JSON texts of values) as `key=value` words."""
    return [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in chosen.items()]


def read(path: Path) -> Space:
    """Read and check a sweep's file.

    Old names of settings are read as well, with a warning.

    Raises:
        FoldcraftError: it is missing or no YAML; unknown keys; a setting under its old and its new name; a method,
            metric or distribution that is not known here; a range that is none.
    """
    if not path.is_file():
        raise FoldcraftError("no such sweep", path, "name a YAML file with --space, for instance from configs/sweeps/")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FoldcraftError(f"not a readable YAML file: {error}", path) from None
    content = _mapping(content, path, "a sweep", (*KEYS, *FOR_WANDB))
    method = content.get("method", "bayes")
    if method not in METHODS:
        raise FoldcraftError(f"unknown method {method!r}", path, suggest(str(method), METHODS))
    metric = _mapping(content.get("metric", {}), path, "metric", ("name", "goal", "target"))
    score, goal = metric.get("name", "oof"), metric.get("goal", "maximize")
    if score not in SCORES or goal not in ("maximize", "minimize"):
        raise FoldcraftError(f"metric {score!r} with goal {goal!r}", path, "name oof or mean; maximize or minimize")
    given = _mapping(content.get("parameters") or {}, path, "parameters")
    if not given:
        raise FoldcraftError("no parameters to try", path, "for instance parameters: {seed: {values: [0, 1]}}")
    named = _renewed([str(name) for name in given], path)
    parameters = tuple(_parameter(name, spec, path) for name, spec in zip(named, given.values(), strict=True))
    if method == "grid" and (ranges := [one.name for one in parameters if not one.values]):
        raise FoldcraftError("a grid needs values, not a range", f"{path}: {ranges[0]}", "list them, or use random")
    trials = content.get("run_cap")
    if trials is not None and not (isinstance(trials, int) and trials > 0):
        raise FoldcraftError(f"run_cap {trials!r} is not a number of trials", path)
    return Space(str(content.get("name", path.stem)), method, score, goal == "maximize", parameters, trials)


def _mapping(content: Any, path: Path, what: str, known: Sequence[str] = ()) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise FoldcraftError(f"{what} should hold 'key: value' lines", path)
    if known and (unknown := [key for key in content if key not in known]):
        raise FoldcraftError(f"unknown key {unknown[0]!r} in {what}, {suggest(str(unknown[0]), known)}", path)
    return content


def _renewed(names: Sequence[str], path: Path) -> list[str]:
    """The names that the settings have now."""
    now = [config_renames.current(name) for name in names]
    old = [name for name, new in zip(names, now, strict=True) if name != new]
    if twice := [name for name in old if config_renames.current(name) in names]:
        raise FoldcraftError(
            f"{twice[0]} is called {config_renames.current(twice[0])} now, and both are given", path, f"drop {twice[0]}"
        )
    if old:
        notices.tell_once(config_renames.told({path: old}))
    return now


def _parameter(name: str, spec: Any, path: Path) -> Parameter:
    where = f"{path}: {name}"
    spec = _mapping(spec, Path(where), "a parameter", ("value", "values", "min", "max", "q", "distribution"))
    if "value" in spec:
        return Parameter(name, (json.dumps(spec["value"]),))
    if "values" in spec:
        values = spec["values"]
        if not isinstance(values, list) or not values:
            raise FoldcraftError("values is not a list of values", where)
        return Parameter(name, tuple(json.dumps(value) for value in values))
    if "min" not in spec or "max" not in spec:
        raise FoldcraftError("has neither value, nor values, nor min and max", where)
    low, high = (_number(spec[key], f"{where}.{key}") for key in ("min", "max"))
    whole = all(isinstance(spec[key], int) for key in ("min", "max"))
    shape = spec.get("distribution", "int_uniform" if whole else "uniform")
    if shape not in DISTRIBUTIONS[2:]:
        raise FoldcraftError(f"unknown distribution {shape!r} of a range", where, suggest(shape, DISTRIBUTIONS[2:]))
    log = shape == "log_uniform_values"
    if low >= high or (log and low <= 0):
        raise FoldcraftError(f"from {low:g} to {high:g} is no range", where, "min is below max, and above 0 if log")
    step = _number(spec.get("q", 1), where) if shape == "q_uniform" else None
    return Parameter(name, (), low, high, whole and shape == "int_uniform", log, step)


def _number(value: Any, where: str) -> float:
    try:
        return float(value)  # YAML reads 1e-4 as text
    except (TypeError, ValueError):
        raise FoldcraftError(f"{value!r} is not a number", where) from None
