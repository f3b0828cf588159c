"""The mistakes that validation finds in settings, in plain words, each with the place that it was made in."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from foldcraft.common.config_reference import describe
from foldcraft.common.errors import CLOSE, FoldcraftError, closest, likeness, shorten, suggest

MOST_TOLD = 10  # mistakes of a config, in one line
LONGEST_LINE = 260  # characters from which on mistakes are only counted
LONGEST_VALUE = 60
Problem = Mapping[str, Any]

START = "`python src/start.py FOLDER` writes a whole config"
# What a value must be, by pydantic's name of the mistake; in braces what it says of the field.
MUST = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "list_type": "a list, as [a, b]",
    "dict_type": "a mapping, as {{a: 1}}",
    "model_type": "a section of 'key: value' lines",
    "greater_than": "greater than {gt:.12g}",
    "greater_than_equal": "{ge:.12g} or more",
    "less_than": "less than {lt:.12g}",
    "less_than_equal": "{le:.12g} or less",
    "too_short": "a list of {min_length} or more",
    "string_too_long": "text of {max_length} characters or fewer",
    "string_pattern_mismatch": "letters, digits, '.', '_' and '-', the first a letter or digit",
}


def told(error: ValidationError, values: Any, place_of: Callable[[str, bool], str]) -> FoldcraftError:
    """All mistakes that validation has found, or the first of them and how many more there are.

    Args:
        values: what was validated.
        place_of: where a dotted key was given; with its value only if True, for that of an unknown key may be a secret.
    """
    found: dict[tuple[str, ...], list[Problem]] = {}
    for problem in error.errors():
        found.setdefault(_key(problem, values), []).append(problem)
    # Of a value that may be several things, the mistake within one of them says more than that it is not the others.
    deepest = {key for key in found if not any(other != key and other[: len(key)] == key for other in found)}
    lines = []
    for key, problems in found.items():
        if key in deepest:
            is_known = all(problem["type"] != "extra_forbidden" for problem in problems)
            lines.append((place_of(".".join(key), is_known), _line(key, problems)))
    is_no_config = all(problem["type"] == "missing" for problem in error.errors()) and ("competition",) in found
    return _joined(list(dict.fromkeys((place, line(place)) for place, line in lines)), START if is_no_config else None)


def _joined(lines: Sequence[tuple[str, str]], hint: str | None) -> FoldcraftError:
    """One error of many: a place that several share is named once."""
    first, text = lines[0]
    place, shown = first, 1
    for now, line in lines[1:MOST_TOLD]:
        more = f" | {line if now == place else f'{now}: {line}'}"
        if len(f"{first}: {text}{more}") > LONGEST_LINE:
            break
        text, place, shown = text + more, now, shown + 1
    left = len(lines) - shown
    return FoldcraftError(f"{text} | and {left} more" if left else text, first, hint)


def _key(problem: Problem, values: Any) -> tuple[str, ...]:
    """The key a mistake is about, without the branch of a union that pydantic puts into its place."""
    key = []
    for part in problem["loc"]:
        inside = part in values if isinstance(values, Mapping) else isinstance(part, int) and isinstance(values, list)
        if inside:
            values = values[part]
            key.append(str(part))
    if problem["type"] == "missing":
        key.append(str(problem["loc"][-1]))
    return tuple(key or map(str, problem["loc"]))


def _line(parts: tuple[str, ...], problems: Sequence[Problem]) -> Callable[[str], str]:
    """What is wrong with a key, once it is known whether its place names it already."""
    key, kinds = ".".join(parts), {problem["type"] for problem in problems}
    if "extra_forbidden" in kinds:
        return lambda _: f"unknown key {key!r}, {suggest_key(key)}"
    if "missing" in kinds:
        return lambda _: f"{key!r} is missing"
    said = _said(problems)
    return lambda place: said if f": {key}=" in place else f"{key} {said}"


def _said(problems: Sequence[Problem]) -> str:
    value = problems[0]["input"]
    if own := [problem["ctx"]["error"] for problem in problems if problem["type"] == "value_error"]:
        return f"cannot be {shown(value)}: {own[0]}"
    wanted = " or ".join(dict.fromkeys(filter(None, map(_wanted, problems))))
    if not wanted:
        return f"cannot be {shown(value)}: {problems[0]['msg'].lower()}"
    choices = [choice for problem in problems for choice in _choices(problem)]
    near = closest(value, choices)[0] if isinstance(value, str) and choices else None
    meant = f"; did you mean {near!r}?" if near and likeness(value, near) >= CLOSE else ""
    quotes = "; put quotes around it" if wanted == "text" and isinstance(value, bool | int | float) else ""
    return f"must be {wanted}, is {shown(value)}{meant}{quotes}"


def _wanted(problem: Problem) -> str:
    if choices := _choices(problem):
        return ", ".join([*choices[:-2], " or ".join(choices[-2:])])
    return MUST.get(problem["type"], "").format(**problem.get("ctx", {}))


def _choices(problem: Problem) -> list[str]:
    """The words that a setting may be."""
    if problem["type"] != "literal_error":
        return []
    return [word.strip("'") for word in problem["ctx"]["expected"].replace(" or ", ", ").split(", ")]


def shown(value: object) -> str:
    """A value as a message shows it."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    try:
        return shorten(repr(value), LONGEST_VALUE)
    except ValueError:  # a whole number of thousands of digits
        return "a huge number"


# What other tools call them.
ALIASES = {"learning_rate": "lr", "batch_size": "batch", "image_size": "size", "img_size": "size", "n_splits": "count"}


def suggest_key(key: str) -> str:
    """The key that was meant, or those that there are."""
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
