"""Which answer of several images each row of the sample submission asks for."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from foldcraft.common.config import CompetitionConfig, IdConfig, SubmissionConfig
from foldcraft.common.errors import FoldcraftError, listing, shorten
from foldcraft.data.host_files import plain_sample, sample_rows
from foldcraft.data.host_files.answers import BETWEEN, SHOWN, AnswerNames
from foldcraft.data.host_files.host_rows import HostRows
from foldcraft.data.host_files.sample_rows import Names, SampleRows


def column_of(names: CompetitionConfig) -> str:
    """Column that the answers' names stand in, where it is called as in the test table."""
    by = names.answer.columns[1]
    return by[0] if len(by) == 1 else names.test_id


def match(rows: HostRows, made: AnswerNames, path: Path, predicted: Names) -> tuple[pd.DataFrame, SampleRows | None]:
    """The sample, or a plain one where there is none, and which answer each of its rows asks for; None: nothing tells.

    Args:
        path: of the sample, for messages.
        predicted: names of what is predicted.

    Raises:
        FoldcraftError: as `sample_rows.find` and `sample_rows.by_order`.
    """
    names, sample, column = rows.names, rows.sample, column_of(rows.names)
    if sample is None:
        plain = names.model_copy(update={"id": IdConfig(train=names.train_id, test=column)})
        sample = plain_sample.of(plain, rows.train, pd.DataFrame({column: made.wanted}))
        return sample, SampleRows(column, np.array(made.wanted))
    if rows.by_order:
        ids = made.test if len(sample) == len(made.test) else np.array(made.wanted)
        return sample, sample_rows.by_order(sample, column, ids, path)
    return sample, _by_ids(sample, names, made, path, predicted) if len(sample) else None


def _by_ids(
    sample: pd.DataFrame, names: CompetitionConfig, made: AnswerNames, path: Path, predicted: Names
) -> SampleRows | None:
    """It has the columns of `by`, the answers' names, or ids of test rows."""
    columns, wanted, row_ids = names.answer.columns[1], made.wanted, made.test_ids.tolist()
    settings = names.submission if isinstance(names.submission, SubmissionConfig) else SubmissionConfig()

    def find(own: str, ids: Sequence[str]) -> SampleRows | None:
        return sample_rows.find(sample, own, ids, predicted, settings, path)

    if set(columns) <= set(sample.columns):
        cells = [BETWEEN.join(row) for row in sample[list(columns)].to_numpy(dtype=str).tolist()]
        if set(cells) == set(wanted):
            _check_once(cells, sample, names, path)
            return SampleRows(columns[0], np.array(cells))
    try:
        if found := find(column_of(names), wanted):
            return found
    except FoldcraftError:  # which is told, unless it may be the ids of the rows that are meant
        if not set(row_ids) & set(sample.get(names.test_id, ())):
            raise
    if (found := find(names.test_id, row_ids)) is None:
        return None
    answer_of = dict(zip(row_ids, made.test.tolist(), strict=True))
    return replace(found, ids=np.array([answer_of[name] for name in found.ids.tolist()]))


def _check_once(cells: Sequence[str], sample: pd.DataFrame, names: CompetitionConfig, path: Path) -> None:
    """See that no answer is asked for twice, but by rows of its images.

    Raises:
        FoldcraftError: one is.
    """
    twice = [name for name, count in Counter(cells).items() if count > 1]
    if twice and names.test_id not in sample.columns:
        shown = listing([shorten(name, SHOWN) for name in twice], 3)
        raise FoldcraftError(f"answers stand in it more than once: {shown}", path, "mend the file")
