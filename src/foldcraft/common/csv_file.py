"""A host's CSV as it stands, all of it text; quotes that swallow rows are refused."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from foldcraft.common.errors import FoldcraftError, shorten

csv.field_size_limit(2**31 - 1)  # a cell may hold a whole image
LINE_BREAK = re.compile(r"\r\n|\r|\n")
MEND = "double a quote that is meant as such, and put quotes around its whole cell"


def parse(text: str, path: Path, id_column: str, separator: str = ",") -> tuple[pd.DataFrame, int]:
    """The table under its header, and how many columns without name and content it was freed of.

    pandas' own reading of a header would rename twins, and shift cells that are too many.

    Args:
        path: where the text is from, for messages.
        id_column: by whose cells a swallowed row is told from a line of text.

    Raises:
        FoldcraftError: it is empty; not a CSV; two columns of one name; a quote that is never closed, or swallows rows.
    """
    if not text.strip():
        raise FoldcraftError("is empty", path, "download it again")
    try:
        stream = io.StringIO(text, newline="")
        table = pd.read_csv(stream, dtype=str, keep_default_na=False, header=None, sep=separator, low_memory=False)
    except ValueError as error:
        if "EOF inside string" in str(error):
            raise _quote("is never closed", path, text, _records(text, separator)[-1]) from None
        hint = "save it as comma-separated UTF-8, with double quotes around cells that hold a comma"
        raise FoldcraftError(f"not a readable CSV: {error}", path, hint) from None
    width = len(table.columns)
    table = _without_nameless(table)
    header = table.iloc[0].tolist()
    if (nameless := sum(name.strip() == "" for name in header)) > 1:
        what = f"{nameless} columns have no name, and cells that say something"
        raise FoldcraftError(what, path, "name them in the first line, or drop all but one")
    if twins := sorted({name for name in header if header.count(name) > 1}):
        raise FoldcraftError(
            f"more than one column is called {shorten(twins[0], 60)!r}", path, "rename or drop one of them"
        )
    if '"' in text and (
        swallowed := _swallowed(table, header.index(id_column) if id_column in header else 0, separator)
    ):
        number, count = swallowed
        raise _quote(f"swallows {count} rows or more", path, text, _records(text, separator)[number])
    named = table.iloc[1:].reset_index(drop=True).set_axis(pd.Index(header, dtype=object), axis=1)
    return named, width - len(header)


def _without_nameless(table: pd.DataFrame) -> pd.DataFrame:
    """Without columns that have neither name nor content, where there are several: commas at the end of lines."""
    nameless = [place for place in table.columns if table.at[0, place].strip() == ""]
    if len(nameless) < 2:
        return table
    gone = [place for place in nameless if (table[place].str.strip() == "").all()]
    return table.drop(columns=gone).set_axis(range(len(table.columns) - len(gone)), axis=1)


def _quote(what: str, path: Path, text: str, line: int) -> FoldcraftError:
    start = shorten(text[_line_start(text, line) :].splitlines()[0], 60)
    return FoldcraftError(f"a quote in line {line} ({start}) {what}", path, MEND)


def _line_start(text: str, line: int) -> int:
    breaks = (found.end() for found in LINE_BREAK.finditer(text))
    return next((end for number, end in enumerate(breaks, 2) if number == line), 0)


def _records(text: str, separator: str) -> list[int]:
    """The line that each record begins in; empty lines are none."""
    reader, starts, before = csv.reader(io.StringIO(text, newline=""), delimiter=separator), [], 0
    for cells in reader:
        if cells:
            starts.append(before + 1)
        before = reader.line_num
    return starts


def _swallowed(table: pd.DataFrame, id_place: int, separator: str) -> tuple[int, int] | None:
    """The first record with a cell that holds rows of the table, and how many of them; None where there is none.

    A line of such a cell has as many cells as the table has columns, and in the id's place something made like the ids.
    Text with honest line breaks has not.
    """
    broken = {place: table[place].str.contains(r"[\r\n]", na=False).to_numpy() for place in table.columns}
    rows = np.flatnonzero(np.any(list(broken.values()), axis=0))
    if not len(rows):
        return None
    whole = np.ones(len(table), dtype=bool)
    whole[rows] = whole[0] = False
    known = {_made_like(cell) for cell in table.loc[whole, id_place].dropna()}
    for row in rows:
        for place in (place for place in table.columns if broken[place][row]):
            lines = list(_lines(table.at[row, place], len(table.columns) - 1 - place, separator))
            ids = [cells[id_place] for cells in lines if len(cells) == len(table.columns)]
            if count := sum(not known or _made_like(cell) in known for cell in ids):
                return int(row), count
    return None


def _lines(cell: str, columns_after: int, separator: str) -> Iterator[Sequence[str]]:
    """Each further line of a cell, read on its own; the last goes on in the columns after it."""
    _, *inner, last = LINE_BREAK.split(cell)
    for line in inner:
        yield next(csv.reader([line], delimiter=separator), [])
    yield [*next(csv.reader([last], delimiter=separator), [""]), *[""] * columns_after]


def _made_like(cell: str) -> str:
    """What an id is made of: letters, digits and signs, but not which or how many."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", cell.strip()))
