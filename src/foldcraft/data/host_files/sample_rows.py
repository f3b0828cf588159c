"""What the rows of the host's sample submission ask for: a test row each, or one target of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from foldcraft.common.config import SubmissionConfig
from foldcraft.common.errors import FoldcraftError, listing, shorten

Names = Callable[[], Sequence[str]]
SHOWN = 30  # characters of an id in a message
SETTING = "competition.submission"
MATCH_BY_IDS = "leave by: order out, to match them by their ids"


@dataclass(frozen=True)
class SampleRows:
    """Whose answer each row of a sample is.

    Attributes:
        column: that the rows are named by.
        ids: test id of each row (R,).
        parts: name of what each row asks for (R,), where it asks for one thing alone; else None.
        row: how its ids are made of both; "" where they are the test ids.
        by_cells: was the column found by what is in it? The test table has none of that name.
    """

    column: str
    ids: np.ndarray
    parts: np.ndarray | None = None
    row: str = ""
    by_cells: bool = False


@dataclass(frozen=True)
class MoreSample:
    """A sample beside the first."""

    file: str
    sample: pd.DataFrame
    rows: SampleRows


@dataclass(frozen=True)
class SubmissionRequest:
    """What is known of the file that the host wants, beside the sample and the target.

    Attributes:
        rows: None: each row of the sample is a test row.
        given: columns of the sample that are of the test table, and no answers but for their names.
        ordered: is there a `competition.order`, the last of which is the positive class?
        k: of the metric, where it has one.
        file: name of the sample, where it is one of several; else "".
    """

    settings: SubmissionConfig = field(default_factory=SubmissionConfig)
    rows: SampleRows | None = None
    given: tuple[str, ...] = ()
    ordered: bool = False
    k: int | None = None
    file: str = ""


def find(
    sample: pd.DataFrame, id_column: str, test_ids: Sequence[str], names: Names, settings: SubmissionConfig, path: Path
) -> SampleRows | None:
    """Match the rows of a sample with the test rows; None where its ids have nothing to do with theirs.

    Its ids are in the column that has the name of the test table's, else in the one whose cells fit.

    Args:
        names: of what is predicted; asked for where the ids are not those of the test rows.
        path: of the sample, for messages.

    Raises:
        FoldcraftError: rows of a test id and a name are lacking, or too many.
    """
    row = settings.row
    columns = [id_column] if id_column in sample.columns else []
    columns += [name for name in sample.columns if name != id_column and sample[name].is_unique]
    if row is None and settings.form != "long":
        for column in columns:
            cells = sample[column].to_numpy(dtype=str)
            if len(cells) == len(test_ids) and set(cells.tolist()) == set(test_ids):
                return SampleRows(column, cells, by_cells=column != id_column)
    known = _names(names)
    problem = None
    for column in columns:
        cells = sample[column].tolist()
        for template in [row] if row else _templates(cells, test_ids, known):
            made = _made(template, test_ids, known)
            if set(made) == set(cells) and len(cells) == len(made):
                ids, parts = zip(*(made[cell] for cell in cells), strict=True)
                return SampleRows(column, np.array(ids), np.array(parts), template, column != id_column)
            problem = problem or _mismatch(template, set(cells), set(made), path)
    if problem:
        raise problem
    return None


def by_order(sample: pd.DataFrame, id_column: str, test_ids: np.ndarray, path: Path) -> SampleRows:
    """The rows of a sample as those of the test table, in its order.

    Its ids are in the column that has the name of the test table's, else in the first of several whose cells are
    all different.

    Raises:
        FoldcraftError: there are not as many; ids of the sample are those of other test rows.
    """
    if len(sample) != len(test_ids):
        what = f"has {len(sample)} rows, and there are {len(test_ids)} test rows"
        raise FoldcraftError(what, path, MATCH_BY_IDS)
    _check_order(sample, test_ids, path)
    unique = [name for name in sample.columns if sample[name].is_unique]
    column = id_column if id_column in sample.columns else unique[0] if unique and len(sample.columns) > 1 else ""
    return SampleRows(column, test_ids, by_cells=column != id_column)


def _check_order(sample: pd.DataFrame, test_ids: np.ndarray, path: Path) -> None:
    """See that no row says that it is another test row. Plain numbers may: they may be counted from 0, or from 1."""
    known = {name for name in test_ids.tolist() if not name.isdecimal()} or _if_permuted(sample, test_ids)
    for name in (name for name in sample.columns if sample[name].is_unique):
        for row, (cell, test_id) in enumerate(zip(sample[name].tolist(), test_ids.tolist(), strict=True), start=1):
            if cell != test_id and cell in known:
                what = f"row {row} has the id of another test row: {shorten(cell, SHOWN)!r}"
                raise FoldcraftError(what, path, MATCH_BY_IDS)


def _if_permuted(sample: pd.DataFrame, test_ids: np.ndarray) -> set[str]:
    """The test ids, where a column has all of them."""
    ids = set(test_ids.tolist())
    return ids if any(set(sample[name]) == ids for name in sample.columns) else set()


def _names(names: Names) -> Sequence[str]:
    try:
        return names()
    except FoldcraftError:  # told where the target is read; the ids are what is asked about here
        return ()


def _templates(cells: Sequence[str], test_ids: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """How the first cell may be made: a test id, something between, a name."""
    ids, first = set(test_ids), cells[0]
    for name in sorted(names, key=len, reverse=True):
        before = first.removesuffix(name)
        if before == first:
            continue
        for end in range(len(before) - 1, 0, -1):
            between = before[end:]
            if any(char.isalnum() for char in between):
                break
            if before[:end] in ids:
                yield f"{{@id}}{between}{{@target}}"


def _made(template: str, test_ids: Sequence[str], names: Sequence[str]) -> dict[str, tuple[str, str]]:
    pairs = [(test_id, name) for test_id in test_ids for name in names]
    made = {_filled(template, *pair): pair for pair in pairs}
    if len(made) < len(pairs):
        raise FoldcraftError(f"{template} gives two answers the same id", f"{SETTING}.row", "put something between")
    return made


def _filled(template: str, test_id: str, name: str) -> str:
    return test_id.join(pieces(template, name))


def pieces(template: str, name: str) -> list[str]:
    """What stands around the id in the ids of the rows that ask for a name."""
    return [part.replace("{@target}", name) for part in template.split("{@id}")]


def _mismatch(template: str, cells: set[str], made: set[str], path: Path) -> FoldcraftError:
    missing, extra = sorted(made - cells), sorted(cells - made)
    problems = [f"{len(missing)} are not in it ({_some(missing)})"] if missing else []
    problems += [f"{len(extra)} of its ids are none ({_some(extra)})"] if extra else []
    what = f"of rows {shorten(template, SHOWN)} {' and '.join(problems)}"
    return FoldcraftError(what, path, f"mend the files, or {SETTING}.row")


def _some(ids: Sequence[str]) -> str:
    return listing([shorten(name, SHOWN) for name in ids], 2)
