"""Which columns of the sample submission hold answers, by their names."""

from collections.abc import Mapping, Sequence

from foldcraft.data.submission_forms.request import FileRequest


def matched(names: Sequence[str], columns: Sequence[str]) -> Mapping[str, str] | None:
    """The column of each name; None where not each has one.

    They are called alike, but for capitals, or but for something before or behind that all columns, or all names, have.
    """
    if set(names) <= set(columns):
        return {name: name for name in names}
    plain_names, plain_columns = [_plain(name) for name in names], [_plain(column) for column in columns]
    if len(set(plain_names)) < len(names) or len(set(plain_columns)) < len(columns):
        return None
    column_of = dict(zip(plain_columns, columns, strict=True))
    found = _with_affix(plain_names, column_of)
    if found is None and len(names) == len(columns):
        name_of = dict(zip(plain_names, names, strict=True))
        turned = _with_affix(plain_columns, name_of)
        back = {name: column_of[column] for column, name in (turned or {}).items()}
        return {name: back[name] for name in names} if back else None
    return found and {name: found[_plain(name)] for name in names}


def called(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Those of some names that a column has, but for capitals."""
    plain = {_plain(column) for column in columns}
    return [name for name in names if _plain(name) in plain]


def _with_affix(words: Sequence[str], longer: Mapping[str, str]) -> Mapping[str, str] | None:
    """Of each word what stands for it under the word with the one prefix and suffix that suit all."""
    first = words[0]
    ends = {("", "")}
    if len(words) > 1:  # of a single word anything that holds it would do
        ends |= {
            (one[:place], one[place + len(first) :])
            for one in longer
            for place in range(len(one) - len(first) + 1)
            if one.startswith(first, place)
        }
    fitting = [(before, after) for before, after in ends if all(f"{before}{word}{after}" in longer for word in words)]
    if ("", "") in fitting:
        fitting = [("", "")]
    if len(fitting) != 1:
        return None
    before, after = fitting[0]
    return {word: longer[f"{before}{word}{after}"] for word in words}


def the_only(request: FileRequest, names: Sequence[str]) -> str | None:
    """The one column of answers: it has one of the names, or there is no other that it could be."""
    columns = request.answers
    named = [column for column in columns if _plain(column) in {_plain(name) for name in names}]
    if len(named) == 1:
        return named[0]
    fresh = [column for column in columns if column not in request.submission.given]
    return fresh[0] if len(fresh) == 1 else None


def _plain(name: str) -> str:
    return name.strip().casefold()
