"""A competition's metric by its name and options: the door to all metrics."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from foldcraft.common.errors import FoldcraftError, counted, listing, shorten, suggest
from foldcraft.metrics import host_metric
from foldcraft.metrics.catalogue import ENTRIES, KINDS, REQUIRED, Entry, known, of_kind
from foldcraft.metrics.class_scores import class_scores, confusion
from foldcraft.metrics.metric import Metric

__all__ = ["METRICS", "Metric", "class_scores", "confusion", "get"]

PLACE = "competition.metric"


def get(
    spec: str | Mapping[str, Any], kind: str = "single", names: Sequence[str] = (), widths: Sequence[int] = ()
) -> Metric:
    """The metric that a competition names.

    Args:
        spec: its name, or a mapping of its name and options, as {name: map_at_k, k: 5}.
        kind: of the target, one of `KINDS`.
        names: of the classes, labels, columns or heads, which `weights` may name.
        widths: of several labels that are scored (multioutput): how many classes each has.

    Raises:
        FoldcraftError: there is none of that name for this kind of target, or its options are wrong.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no kind of target: {KINDS}")
    name, options = _parts(spec)
    entry = _entry(name, kind)
    if not options and kind in ("single", "ordinal") and name in METRICS:
        metric = METRICS[name]
    else:
        metric = _made(entry, _checked(entry, options, names), names, widths)
    if names and kind in ("single", "ordinal") and metric.classes not in (None, len(names)):
        few = f"{name} is made for {metric.classes} classes, there are {len(names)}"
        raise FoldcraftError(few, PLACE, "macro_f1 and weighted_f1 are means over all classes")
    return metric


def kinds_of(spec: str | Mapping[str, Any]) -> list[str]:
    """The kinds of target that a metric of that name suits.

    Raises:
        FoldcraftError: there is none of that name.
    """
    if host_metric.is_one(spec):
        return list(KINDS)
    name = _parts(spec)[0]
    if known(name) is None:
        every = list(dict.fromkeys(entry.name for entry in ENTRIES))
        raise FoldcraftError(f"unknown metric {shorten(name, 60)!r}", PLACE, suggest(name, every))
    return [kind for kind in KINDS if name in of_kind(kind)]


def _parts(spec: object) -> tuple[str, dict[str, Any]]:
    """The name and the options."""
    given = {"name": spec} if isinstance(spec, str) else spec
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise FoldcraftError(
            f"{shorten(str(spec), 60)!r} names no metric", PLACE, "write a name, or {name: map_at_k, k: 5}"
        )
    return given["name"], {str(key): value for key, value in given.items() if key != "name"}


def _entry(name: str, kind: str) -> Entry:
    suitable = of_kind(kind)
    if name in suitable:
        return suitable[name]
    if known(name) is None:
        raise FoldcraftError(f"unknown metric {shorten(name, 60)!r}", PLACE, suggest(name, list(suitable)))
    kinds = [each for entry in ENTRIES if entry.name == name for each in entry.kinds]
    what = f"{name} scores targets of the kind {' or '.join(kinds)}, and this one is {kind}"
    raise FoldcraftError(what, PLACE, f"for {kind}: {listing(list(suitable), 12)}")


def _checked(entry: Entry, options: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The options that are given, once they are what the metric takes."""
    takes = entry.options or {}
    for key in options:
        if key not in takes:
            hint = suggest(key, list(takes)) if takes else "it takes none"
            raise FoldcraftError(f"{entry.name} has no option {shorten(key, 60)!r}", PLACE, hint)
    for key, default in takes.items():
        if default is REQUIRED and key not in options:
            example = f"write {{name: {entry.name}, {key}: 5}}"
            raise FoldcraftError(f"{entry.name} needs the option {key!r}", PLACE, example)
    for key, value in options.items():
        if key == "weights":
            _check_weights(value, names)
        elif not _RULES[key][0](value):
            what = f"{key} of {entry.name} is {_RULES[key][1]}, not {shorten(repr(value), 60)}"
            raise FoldcraftError(what, PLACE, f"write {{name: {entry.name}, {key}: {_RULES[key][2]}}}")
    return dict(options)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# What an option may be: the test, in words, and an example.
_RULES = {
    "k": (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 1,
        "a whole number from 1 on",
        5,
    ),
    "min_tpr": (lambda value: _is_number(value) and 0 <= value < 1, "a number from 0 to below 1", 0.8),
    "pooled": (lambda value: isinstance(value, bool), "true or false", "true"),
    "zero_division": (lambda value: _is_number(value) and value in (0, 1), "0 or 1", 1),
}


def _check_weights(weights: object, names: Sequence[str]) -> None:
    place = f"{PLACE}: weights"
    if not isinstance(weights, Mapping):
        raise FoldcraftError(f"{shorten(repr(weights), 60)} are no weights", place, "write {a: 0.5, b: 2}")
    for key, value in weights.items():
        if str(key) not in names:
            hint = suggest(str(key), list(names)) if names else "there is nothing here that could be weighted"
            raise FoldcraftError(f"{shorten(str(key), 60)!r} is not there", place, hint)
        if not _is_number(value) or value < 0:
            what = f"the weight of {shorten(str(key), 60)!r} is {shorten(repr(value), 60)}"
            raise FoldcraftError(what, place, "it must be a number from 0 on")
    if weights and not _importance(weights, names).any():
        raise FoldcraftError(f"{counted(len(names), 'weight')}, and all are 0", place, "let one be above 0")


def _importance(weights: Mapping[Any, float], names: Sequence[str]) -> np.ndarray:
    """The weight of each name, 1 where it is not named."""
    given = {str(key): float(value) for key, value in weights.items()}
    return np.array([given.get(name, 1.0) for name in names])


def _made(entry: Entry, options: Mapping[str, Any], names: Sequence[str], widths: Sequence[int]) -> Metric:
    """The metric with its options bound."""
    chosen = {key: value for key, value in (entry.options or {}).items() if value is not None} | dict(options)
    weights = chosen.pop("weights", None)
    if weights:
        chosen["importance"] = _importance(weights, names)
    if "multioutput" in entry.kinds:
        if not widths:
            raise ValueError("several labels that are scored need the widths of their heads")
        chosen["widths"] = tuple(widths)
    score = partial(entry.score, **chosen) if chosen else entry.score
    highest = round(1 - chosen["min_tpr"], 12) if "min_tpr" in chosen else entry.bounds[1]
    return Metric(
        name=entry.name,
        greater_is_better=entry.greater_is_better,
        kinds=entry.kinds,
        wants=entry.wants,
        of_confusion=score if entry.of_confusion else None,
        of_weights=None if entry.of_confusion else score,
        classes=entry.classes,
        bounds=(entry.bounds[0], highest),
        by_order=entry.by_order,
        options=_in_words(options),
    )


def _in_words(options: Mapping[str, Any]) -> str:
    """As `k 5, weights of a 0.5, b 2`."""
    words = []
    for key, value in options.items():
        if isinstance(value, Mapping):
            value = listing([f"{name} {weight:g}" for name, weight in value.items()])
            key = f"{key} of"
        words.append(f"{key} {str(value).lower() if isinstance(value, bool) else value}")
    return ", ".join(words)


# Those of one label a row that need no option.
METRICS = {
    entry.name: _made(entry, {}, (), ())
    for entry in of_kind("single").values()
    if REQUIRED not in (entry.options or {}).values()
}
