"""Which form a competition's submission has: by its settings, else by what sample, target and metric say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

import numpy as np
import pandas as pd

from foldcraft.common.errors import FoldcraftError, shorten
from foldcraft.data.competition import Competition
from foldcraft.data.targets.classes import are_numbers
from foldcraft.submission import columns
from foldcraft.submission.forms import (
    SHOWN,
    Form,
    Labels,
    Lists,
    OneProbability,
    Probabilities,
    TopK,
    Values,
    names_in_words,
)

PLACE, SETTING = "sample submission", "competition.submission"
ONLY = {  # forms that a setting goes with
    "positive": (OneProbability,),
    "k": (TopK,),
    "unknown": (TopK,),
    "separator": (TopK, Lists),
}
YES_AND_NO = (("no", "yes"), ("false", "true"), ("negative", "positive"), ("neg", "pos"))
OF_PROBABILITY = frozenset(("p", "prob", "probability", "proba", "pred", "prediction", "score", "is", "target"))


def of(competition: Competition) -> Form:
    """The form of a submission.

    Raises:
        FoldcraftError: the sample holds no answers, or such as are not understood; settings that do not go together.
    """
    competition = competition.answers
    form = _inferred(competition)
    settings = competition.submission.settings
    for key, forms in ONLY.items():
        if getattr(settings, key) is not None and not isinstance(form, forms):
            what = f"does not go with this form: {form.describe()}"
            raise FoldcraftError(what, f"{SETTING}.{key}", "leave it out, or name the form")
    return form


def tried(competition: Competition) -> Form:
    """The form, once the sample has been filled by it with what is known of a row without its image.

    Raises:
        FoldcraftError: as `of`; or the file that comes out is not what the host can read.
    """
    competition = competition.answers
    form = of(competition)
    known = np.tile(competition.target.baseline(), (len(competition.test_ids), 1))
    form.check(form.fill(competition.test_ids, known))
    return form


def _inferred(competition: Competition) -> Form:
    rows, settings = competition.submission.rows, competition.submission.settings
    wanted = None if settings.form in ("auto", "long") else settings.form
    if rows is not None and rows.parts is not None:
        return _long(competition, wanted)
    if settings.form == "long":
        raise FoldcraftError("long, and a row of the sample is a test row", f"{SETTING}.form", "leave it out")
    by_form = {"values": _values, "classes": _classes, "labels": _labels}
    return by_form[competition.space.form](competition, wanted)


def _long(competition: Competition, wanted: str | None) -> Form:
    """A row for each test id and name."""
    column = columns.the_only(competition, [*competition.target.columns, "target", "label", "value", "prediction"])
    if column is None:
        raise _unlike(competition, "one column for the answers of all rows")
    held = dict.fromkeys(competition.target.heads, column)
    form = competition.space.form
    if form == "values":
        return _as_wanted(competition, wanted, {"values": Values(competition, held)})
    labels, probabilities = Labels(competition, held), Probabilities(competition, held)
    if set(competition.target.vocabulary) != set(held):
        return _as_wanted(competition, wanted, {"probabilities": probabilities})
    if set(competition.space.names) != set(held):
        return _as_wanted(competition, wanted, {"labels": labels})
    both = {"labels": labels, "probabilities": probabilities}
    return _as_wanted(competition, wanted or competition.metric.wants, both)


def _values(competition: Competition, wanted: str | None) -> Form:
    return _as_wanted(competition, wanted, {"values": Values(competition, _each(competition))})


def _each(competition: Competition) -> Mapping[str, str]:
    """A column for each of the target's."""
    names = competition.target.columns
    found = columns.matched(names, columns.answers(competition))
    if found is None and len(names) == 1 and (only := columns.the_only(competition, names)):
        found = {names[0]: only}
    if found is None:
        raise _unlike(competition, f"a column for each of {names_in_words(names)}")
    return found


def _labels(competition: Competition, wanted: str | None) -> Form:
    """Labels that are each there or not: a column for each, or a list."""
    names = competition.space.names
    found = columns.matched(names, columns.answers(competition))
    if found is None and len(names) == 1 and (only := columns.the_only(competition, names)):
        found = {names[0]: only}
    if found is not None and wanted != "lists":
        both = {"labels": Labels(competition, found), "probabilities": Probabilities(competition, found)}
        return _as_wanted(competition, wanted or competition.metric.wants, both)
    only = columns.the_only(competition, competition.target.columns)
    if only is None or (wanted is None and competition.metric.wants != "labels"):
        raise _unlike(competition, f"a column for each of {names_in_words(names)}, or one for lists of labels")
    separator = competition.submission.settings.separator or getattr(competition.target, "separator", "") or " "
    _check_separator(competition, separator)
    alone = {"lists": Lists(competition, {only: only}, separator, _gaps(competition, competition.sample[only]))}
    return _as_wanted(competition, wanted, alone)


def _gaps(competition: Competition, cells: pd.Series) -> bool:
    """May a list be empty, as some in the sample or in the training table are?"""
    without = np.nan_to_num(competition.targets).sum(1) == 0
    return bool((cells == "").any() or without.any())


def _classes(competition: Competition, wanted: str | None) -> Form:
    """Classes of one label or of several: probabilities where each class has a column, else what the metric wants."""
    found = columns.matched(competition.space.names, columns.answers(competition))
    only = columns.the_only(competition, competition.target.columns)
    if found is not None and wanted in (None, "probabilities"):
        if wanted is None and only in competition.target.columns and only not in found.values():
            what = f"has column {shorten(only, SHOWN)!r} for a label and columns for probabilities"
            raise FoldcraftError(what, PLACE, f"set {SETTING}.form=labels or {SETTING}.form=probabilities")
        return Probabilities(competition, found)
    asked = wanted or {"ranks": "top_k"}.get(competition.metric.wants, competition.metric.wants)
    if asked == "labels" and competition.target.vocabulary:
        return Labels(competition, _each(competition))
    single = not competition.space.slices[1:]
    if asked == "top_k" and single and only:
        return _top_k(competition, only)
    if asked == "probabilities" and single and only and competition.space.width == 2:
        return _one_probability(competition, only)
    if wanted:
        raise _not_wanted(competition, wanted)
    names = names_in_words(competition.space.names)
    raise _unlike(competition, f"neither one label nor one probability a class ({names})")


def _top_k(competition: Competition, column: str) -> Form:
    settings, names = competition.submission.settings, competition.space.names
    k, separator = settings.k or competition.submission.k, settings.separator or " "
    if k is None:
        raise FoldcraftError("top_k, and not how many", f"{SETTING}.k", "set it: k: 5")
    _check_separator(competition, separator)
    if settings.unknown in names or (settings.unknown is not None and (k < 2 or separator in settings.unknown)):
        what = f"{shorten(settings.unknown, SHOWN)!r} is a class, holds the separator, or k is 1"
        raise FoldcraftError(what, f"{SETTING}.unknown", "name a label that no training row has, and k from 2 on")
    return TopK(competition, {column: column}, min(k, len(names)), separator, settings.unknown)


def _check_separator(competition: Competition, separator: str) -> None:
    if holding := [name for name in competition.space.names if separator in name]:
        what = f"label {shorten(holding[0], SHOWN)!r} holds the separator {separator!r}"
        raise FoldcraftError(what, f"{SETTING}.separator", 'set another: separator: ","')


def _one_probability(competition: Competition, column: str) -> Form:
    asked, why = _asked_for(competition, column)
    judged = competition.metric.classes == 2  # by the second class
    first, second = (shorten(name, SHOWN) for name in competition.space.names)
    if judged and asked == 0:
        what = f"{competition.metric.name} judges {second!r}, and column {shorten(column, SHOWN)!r} asks for {first!r}"
        raise FoldcraftError(what, PLACE, f"set competition.order=[{second},{first}]")
    return OneProbability(competition, {column: column}, asked, why)


def _asked_for(competition: Competition, column: str) -> tuple[int, str]:
    """Which of two classes a single column of probabilities is of, and what there is to say of that.

    Raises:
        FoldcraftError: nothing tells.
    """
    names, positive = competition.space.names, competition.submission.settings.positive
    if positive is not None:
        if positive not in names:
            known = names_in_words([repr(name) for name in names])
            raise FoldcraftError(f"{shorten(positive, SHOWN)!r} is no class", f"{SETTING}.positive", f"known: {known}")
        return names.index(positive), ""
    plain = [name.strip().casefold() for name in names]
    if column.strip().casefold() in plain and len(set(plain)) == 2:
        return plain.index(column.strip().casefold()), ""
    words = re.split(r"[^0-9a-z]+", column.strip().casefold())
    named = [k for k, name in enumerate(plain) if name in words and set(words) - {name} <= OF_PROBABILITY]
    if len(named) == 1:
        return named[0], ""
    if competition.submission.ordered or _are_no_and_yes(plain):
        return 1, f", the second class; competition.order=[{names[1]},{names[0]}] asks for the other"
    first, second = (shorten(name, SHOWN) for name in names)
    what = f"column {shorten(column, SHOWN)!r} is for the probability of {first!r} or of {second!r}; which is not said"
    raise FoldcraftError(what, PLACE, f"set {SETTING}.positive={first}, or ={second}")


def _are_no_and_yes(names: list[str]) -> bool:
    numbers = [Decimal(name) for name in names] if are_numbers(names) else []
    return tuple(names) in YES_AND_NO or numbers == [0, 1]


def _as_wanted(competition: Competition, wanted: str | None, possible: Mapping[str, Form]) -> Form:
    """One of the possible forms; the only one where nothing else is asked for."""
    if wanted is None and len(possible) == 1:
        return next(iter(possible.values()))
    if wanted not in possible:
        raise _not_wanted(competition, str(wanted))
    return possible[wanted]


def _not_wanted(competition: Competition, wanted: str) -> FoldcraftError:
    what = f"{wanted} cannot stand in this sample of columns {names_in_words(columns.answers(competition))}"
    return FoldcraftError(what, SETTING, f"the target is {competition.target.kind}; see docs/submissions.md")


def _unlike(competition: Competition, wanted: str) -> FoldcraftError:
    """A sample without answers, and what was looked for."""
    there = names_in_words(columns.answers(competition))
    what = f"columns {there} are {wanted}" if wanted.startswith("neither") else f"columns {there}: looked for {wanted}"
    return FoldcraftError(what, PLACE, "mend competition.sample, metric or submission")
