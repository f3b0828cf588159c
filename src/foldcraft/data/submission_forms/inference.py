"""Which form a submission has: by its settings, else by what sample, target and metric say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

import numpy as np
import pandas as pd

from foldcraft.common.errors import FoldcraftError, shorten
from foldcraft.data.submission_forms import columns
from foldcraft.data.submission_forms.form import SHOWN, Form, names_in_words
from foldcraft.data.submission_forms.forms import Labels, Lists, OneProbability, Probabilities, TopK, Values
from foldcraft.data.submission_forms.request import FileRequest
from foldcraft.data.targets.classes import are_numbers

PLACE, SETTING = "sample submission", "competition.submission"
ONLY = {  # forms that a setting goes with
    "positive": (OneProbability,),
    "k": (TopK,),
    "unknown": (TopK,),
    "separator": (TopK, Lists),
}
YES_AND_NO = (("no", "yes"), ("false", "true"), ("negative", "positive"), ("neg", "pos"))
OF_PROBABILITY = frozenset(("p", "prob", "probability", "proba", "pred", "prediction", "score", "is", "target"))


def of(request: FileRequest) -> Form:
    """The form of a submission.

    Raises:
        FoldcraftError: the sample holds no answers, or such as are not understood; settings that do not go together.
    """
    form = inferred(request)
    check_settings([form])
    return form


def check_settings(forms: Sequence[Form]) -> None:
    """See that each setting goes with the form of a file, of which there is at least one.

    Raises:
        FoldcraftError: one goes with none.
    """
    settings = forms[0].request.submission.settings
    for key, kinds in ONLY.items():
        if getattr(settings, key) is not None and not any(isinstance(form, kinds) for form in forms):
            what = f"does not go with this form: {forms[0].describe()}"
            raise FoldcraftError(what, f"{SETTING}.{key}", "leave it out, or name the form")


def inferred(request: FileRequest) -> Form:
    """As `of`, whatever other settings there are.

    Raises:
        FoldcraftError: as `of`.
    """
    rows, settings = request.submission.rows, request.submission.settings
    wanted = None if settings.form in ("auto", "long") else settings.form
    if rows is not None and rows.parts is not None:
        return _long(request, wanted)
    if settings.form == "long":
        raise FoldcraftError("long, and a row of the sample is a test row", f"{SETTING}.form", "leave it out")
    by_form = {"values": _values, "classes": _classes, "labels": _labels}
    return by_form[request.space.form](request, wanted)


def _long(request: FileRequest, wanted: str | None) -> Form:
    """A row for each test id and name."""
    column = columns.the_only(request, [*request.target.columns, "target", "label", "value", "prediction"])
    if column is None:
        raise _unlike(request, "one column for the answers of all rows")
    held = dict.fromkeys(request.target.heads, column)
    form = request.space.form
    if form == "values":
        return _as_wanted(request, wanted, {"values": Values(request, held)})
    labels, probabilities = Labels(request, held), Probabilities(request, held)
    if set(request.target.vocabulary) != set(held):
        return _as_wanted(request, wanted, {"probabilities": probabilities})
    if set(request.space.names) != set(held):
        return _as_wanted(request, wanted, {"labels": labels})
    both = {"labels": labels, "probabilities": probabilities}
    return _as_wanted(request, wanted or request.wants or "probabilities", both)


def _values(request: FileRequest, wanted: str | None) -> Form:
    return _as_wanted(request, wanted, {"values": Values(request, _each(request))})


def _each(request: FileRequest) -> Mapping[str, str]:
    """A column for each of the target's."""
    names = request.target.columns
    found = columns.matched(names, request.answers)
    if found is None and len(names) == 1 and (only := columns.the_only(request, names)):
        found = {names[0]: only}
    if found is None:
        raise _unlike(request, f"a column for each of {names_in_words(names)}")
    return found


def _labels(request: FileRequest, wanted: str | None) -> Form:
    """Labels that are each there or not: a column for each, or a list."""
    names = request.space.names
    found = columns.matched(names, request.answers)
    if found is None and len(names) == 1 and (only := columns.the_only(request, names)):
        found = {names[0]: only}
    if found is not None and wanted != "lists":
        both = {"labels": Labels(request, found), "probabilities": Probabilities(request, found)}
        return _as_wanted(request, wanted or request.wants or "probabilities", both)
    only = columns.the_only(request, request.target.columns)
    if only is None or (wanted is None and request.wants not in ("labels", None)):
        raise _unlike(request, f"a column for each of {names_in_words(names)}, or one for lists of labels")
    separator = request.submission.settings.separator or getattr(request.target, "separator", "") or " "
    _check_separator(request, separator)
    alone = {"lists": Lists(request, {only: only}, separator, _gaps(request, request.sample[only]))}
    return _as_wanted(request, wanted, alone)


def _gaps(request: FileRequest, cells: pd.Series) -> bool:
    """May a list be empty, as some in the sample or in the training table are?"""
    without = np.nan_to_num(request.target.truth).sum(1) == 0
    return bool((cells == "").any() or without.any())


def _classes(request: FileRequest, wanted: str | None) -> Form:
    """Classes of one label or of several: probabilities where each class has a column, else what the metric wants."""
    found = columns.matched(request.space.names, request.answers)
    only = columns.the_only(request, request.target.columns)
    if found is not None and wanted in (None, "probabilities"):
        if wanted is None and only in request.target.columns and only not in found.values():
            what = f"has column {shorten(only, SHOWN)!r} for a label and columns for probabilities"
            raise FoldcraftError(what, PLACE, f"set {SETTING}.form=labels or {SETTING}.form=probabilities")
        return Probabilities(request, found)
    asked = wanted or {"ranks": "top_k"}.get(request.wants, request.wants) or _shown(request, only)
    if asked == "labels" and request.target.vocabulary:
        return Labels(request, _each(request))
    single = not request.space.slices[1:]
    if asked == "top_k" and single and only:
        return _top_k(request, only)
    if asked == "probabilities" and single and only and request.space.width == 2:
        return _one_probability(request, only)
    if wanted:
        raise _not_wanted(request, wanted)
    names = names_in_words(request.space.names)
    raise _unlike(request, f"neither one label nor one probability a class ({names})")


def _shown(request: FileRequest, column: str | None) -> str | None:
    """What the cells of a sample show, where no metric says what it takes."""
    if column is None or len(request.target.columns) > 1:
        return "labels"
    cells, settings = request.sample[column].astype(str).tolist(), request.submission.settings
    names = set(request.space.names)
    if set(cells) <= names:
        return "labels"
    words = {word for cell in cells for word in cell.split(settings.separator or " ")}
    if words - {settings.unknown} <= names:
        return "top_k"
    return "probabilities" if len(names) == 2 else None


def _top_k(request: FileRequest, column: str) -> Form:
    settings, names = request.submission.settings, request.space.names
    separator = settings.separator or " "
    shown = max(len(cell.split(separator)) for cell in request.sample[column].astype(str))
    k = settings.k or request.submission.k or (shown if shown > 1 else None)
    if k is None:
        raise FoldcraftError("top_k, and not how many", f"{SETTING}.k", "set it: k: 5")
    _check_separator(request, separator)
    if settings.unknown in names or (settings.unknown is not None and (k < 2 or separator in settings.unknown)):
        what = f"{shorten(settings.unknown, SHOWN)!r} is a class, holds the separator, or k is 1"
        raise FoldcraftError(what, f"{SETTING}.unknown", "name a label that no training row has, and k from 2 on")
    return TopK(request, {column: column}, min(k, len(names)), separator, settings.unknown)


def _check_separator(request: FileRequest, separator: str) -> None:
    if holding := [name for name in request.space.names if separator in name]:
        what = f"label {shorten(holding[0], SHOWN)!r} holds the separator {separator!r}"
        raise FoldcraftError(what, f"{SETTING}.separator", 'set another: separator: ","')


def _one_probability(request: FileRequest, column: str) -> Form:
    asked, why = _asked_for(request, column)
    first, second = (shorten(name, SHOWN) for name in request.space.names)
    if request.judge and asked == 0:
        what = f"{request.judge} judges {second!r}, and column {shorten(column, SHOWN)!r} asks for {first!r}"
        raise FoldcraftError(what, PLACE, f"set competition.order=[{second},{first}]")
    return OneProbability(request, {column: column}, asked, why)


def _asked_for(request: FileRequest, column: str) -> tuple[int, str]:
    """Which of two classes a single column of probabilities is of, and what there is to say of that.

    Raises:
        FoldcraftError: nothing tells.
    """
    names, positive = request.space.names, request.submission.settings.positive
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
    if request.submission.ordered or _are_no_and_yes(plain):
        return 1, f", the second class; competition.order=[{names[1]},{names[0]}] asks for the other"
    first, second = (shorten(name, SHOWN) for name in names)
    what = f"column {shorten(column, SHOWN)!r} is for the probability of {first!r} or of {second!r}; which is not said"
    raise FoldcraftError(what, PLACE, f"set {SETTING}.positive={first}, or ={second}")


def _are_no_and_yes(names: list[str]) -> bool:
    numbers = [Decimal(name) for name in names] if are_numbers(names) else []
    return tuple(names) in YES_AND_NO or numbers == [0, 1]


def _as_wanted(request: FileRequest, wanted: str | None, possible: Mapping[str, Form]) -> Form:
    """One of the possible forms; the only one where nothing else is asked for."""
    if wanted is None and len(possible) == 1:
        return next(iter(possible.values()))
    if wanted not in possible:
        raise _not_wanted(request, str(wanted))
    return possible[wanted]


def _not_wanted(request: FileRequest, wanted: str) -> FoldcraftError:
    what = f"{wanted} cannot stand in this sample of columns {names_in_words(request.answers)}"
    return FoldcraftError(what, SETTING, f"the target is {request.target.kind}; see docs/submissions.md")


def _unlike(request: FileRequest, wanted: str) -> FoldcraftError:
    """A sample without answers, and what was looked for."""
    there = names_in_words(request.answers)
    what = f"columns {there} are {wanted}" if wanted.startswith("neither") else f"columns {there}: looked for {wanted}"
    return FoldcraftError(what, PLACE, "mend competition.sample, metric or submission")
