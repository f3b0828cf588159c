"""What a host's own metric is given: the truth and predictions as tables in the form of the sample submission."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from foldcraft.common.config import CompetitionConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data.host_files import sample_rows
from foldcraft.data.host_files.sample_rows import SubmissionRequest
from foldcraft.data.submission_forms import inference
from foldcraft.data.submission_forms.form import Form
from foldcraft.data.submission_forms.request import FileRequest
from foldcraft.data.targets.target import Target
from foldcraft.metrics import host_metric
from foldcraft.metrics.host_metric import HostCode
from foldcraft.metrics.metric import Metric


@dataclass(frozen=True)
class FormTables:
    """Fills the two tables of a host's metric by the form of the submission.

    Attributes:
        parts: names of the rows that each training row has, where the sample has several; else ().
    """

    form: Form
    parts: tuple[str, ...]

    @property
    def key(self) -> str:
        """The column of ids."""
        return self.form.request.id_column

    @property
    def id_pieces(self) -> list[list[str]]:
        """What stands around a training row's number in each of its ids."""
        rows = self.form.request.submission.rows
        return [sample_rows.pieces(rows.row, part) for part in self.parts] if self.parts else [["", ""]]

    def of_truth(self, truth: np.ndarray) -> Mapping[str, Sequence[object]]:
        """The columns of answers of the truth."""
        return self._columns(self.form.truth_cells(truth))

    def of_predicted(self, scored: np.ndarray) -> Mapping[str, Sequence[object]]:
        """The columns of answers of what a metric is given of predictions (N, W)."""
        return self._columns(self.form.judged_cells(scored))

    def _columns(self, cells: Mapping[str, Sequence[object]]) -> Mapping[str, Sequence[object]]:
        if self.parts:
            (column,) = set(self.form.columns.values())
            return {column: [cell for row in zip(*(cells[part] for part in self.parts), strict=True) for cell in row]}
        name_of = {column: name for name, column in self.form.columns.items()}
        return {column: cells[name_of[column]] for column in self.form.request.sample.columns if column in name_of}


def metric_of(
    names: CompetitionConfig,
    target: Target,
    folder: Path,
    sample: pd.DataFrame,
    id_column: str | None = None,
    submission: SubmissionRequest | None = None,
) -> Metric:
    """The metric of a competition that names the host's code.

    Args:
        id_column: of the sample; left out: as that of the test table.
        submission: what else is known of the file that the host wants.

    Raises:
        FoldcraftError: as `host_metric.read` and `inference.of`; the form is not what the code is said to take.
    """
    code = host_metric.read(names.metric, folder)
    if names.metric_weight:
        raise FoldcraftError("a host's code knows no weights of rows", "competition.metric_weight", "set it to false")
    wants = None if target.space.form == "values" else code.wants
    request = FileRequest(target, sample, id_column or names.test_id, submission or SubmissionRequest(), wants)
    form = inference.of(request)
    _check_wanted(code, form)
    rows = request.submission.rows
    parts = () if rows is None or rows.parts is None else tuple(dict.fromkeys(rows.parts.tolist()))
    return host_metric.metric(code, target.kind, form.wants, FormTables(_without_rows(form), parts))


def _check_wanted(code: HostCode, form: Form) -> None:
    given = "labels" if form.wants == "ranks" else form.wants
    if given in ("labels", "probabilities") and code.wants not in (None, given):
        what = f"wants is {code.wants}, and {form.describe()}"
        raise FoldcraftError(what, host_metric.PLACE, "leave wants out, or mend competition.sample or submission")


def _without_rows(form: Form) -> Form:
    """The same without what it needs to fill the sample: it is handed on to other processes."""
    request, rows = form.request, form.request.submission.rows
    if rows is not None:
        rows = replace(rows, ids=rows.ids[:0], parts=None if rows.parts is None else rows.parts[:0])
    fewer = replace(request.submission, rows=rows)
    return replace(
        form,
        request=replace(
            request, target=request.target.at(np.arange(0)), sample=request.sample.iloc[:0], submission=fewer
        ),
    )
