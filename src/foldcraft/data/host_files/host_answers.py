"""What a host's own metric is given: the truth and predictions as tables with the columns of the sample submission."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from foldcraft.common.config import CompetitionConfig
from foldcraft.common.errors import FoldcraftError, listing
from foldcraft.data.targets.target import Target
from foldcraft.metrics import host_metric
from foldcraft.metrics.host_metric import HostCode
from foldcraft.metrics.metric import Metric, Wants
from foldcraft.metrics.spaces import ClassSpace


@dataclass(frozen=True)
class Form:
    """How answers are written.

    Attributes:
        columns: of answers, in the sample's order.
        places: of probabilities and values: which column of the predictions each is.
    """

    wants: Wants
    columns: tuple[str, ...]
    places: tuple[int, ...] = ()


def metric_of(
    names: CompetitionConfig, target: Target, folder: Path, sample: pd.DataFrame, id_column: str | None = None
) -> Metric:
    """The metric of a competition that names the host's code.

    Args:
        id_column: of the sample; left out: as that of the test table.

    Raises:
        FoldcraftError: as `host_metric.read`; a sample submission that is not understood.
    """
    code = host_metric.read(names.metric, folder)
    if names.metric_weight:
        raise FoldcraftError("a host's code knows no weights of rows", "competition.metric_weight", "set it to false")
    id_column = id_column or names.test_id
    answers = [column for column in sample.columns if column != id_column]
    form = _form(code, target, answers, sample)
    blank = target.at(np.arange(0))  # it is handed on, and the truth is not needed
    return host_metric.metric(code, target.kind, form.wants, id_column, partial(columns, blank, form))


def _form(code: HostCode, target: Target, answers: Sequence[str], sample: pd.DataFrame) -> Form:
    names = target.space.names
    if sorted(answers) == sorted(names):
        places = tuple(names.index(column) for column in answers)
        if target.space.form == "values":
            return Form("values", tuple(answers), places)
        said = code.wants or "probabilities"
        if said == "probabilities" or target.space.form == "labels":
            return Form(said, tuple(answers), places)
    if target.space.form != "values" and sorted(answers) == sorted(target.columns) and len(answers) > 1:
        return Form("labels", target.columns)
    if len(answers) == 1 and target.space.form == "values" and len(names) == 1:
        return Form("values", tuple(answers), (0,))
    if len(answers) == 1 and len(target.columns) == 1 and target.space.form != "values":
        if code.wants != "probabilities" and (code.wants == "labels" or _are_labels(target, sample[answers[0]])):
            return Form("labels", tuple(answers))
        if target.space.form == "classes" and len(names) == 2:
            return Form("probabilities", tuple(answers), (names.index(answers[0]) if answers[0] in names else 1,))
    what = f"columns {listing(answers, 5)} of the sample are neither labels, nor one each of {listing(names, 5)}"
    raise FoldcraftError(what, "competition.metric", "mend competition.sample, or say wants: labels")


def _are_labels(target: Target, cells: pd.Series) -> bool:
    """Does a column of the sample hold labels? Of two classes that are 0 and 1 also where it holds halves."""
    return target.space.form == "labels" or set(map(str, cells)) <= set(target.space.names)


def columns(target: Target, form: Form, given: np.ndarray) -> dict[str, list[object]]:
    """Columns of a table, of the truth of some rows or of what a metric is given of their predictions (N, W)."""
    space = target.space
    is_scored = given.ndim == 2 and given.shape[1] == space.width
    numbers = given if is_scored else space.matrix(given)  # the truth of classes; 0 and 1, NaN where not known
    if form.wants != "labels":
        return {name: _cells(numbers[:, k]) for name, k in zip(form.columns, form.places, strict=True)}
    if isinstance(space, ClassSpace):
        parts = [_likeliest(space.names_of(own), numbers[:, own]) for own in space.slices]
        return dict(zip(form.columns, parts, strict=True))
    if form.places:
        said = np.where(np.isnan(numbers), np.nan, numbers > 0.5)
        return {name: _cells(said[:, k]) for name, k in zip(form.columns, form.places, strict=True)}
    names, separator = np.array(space.names), getattr(target, "separator", "") or " "
    return {form.columns[0]: [separator.join(names[row].tolist()) for row in numbers > 0.5]}


def _cells(numbers: np.ndarray) -> list[object]:
    return [None if np.isnan(value) else float(value) for value in numbers]


def _likeliest(names: Sequence[str], numbers: np.ndarray) -> list[object]:
    """The class of each row, as a reader of CSVs would have it; None where it is not known."""
    read = _as_read(names)
    unknown = np.isnan(numbers).all(1)
    best = np.nan_to_num(numbers).argmax(1)  # of one label: its caller asks for no other
    return [None if gone else read[k] for k, gone in zip(best.tolist(), unknown.tolist(), strict=True)]


def _as_read(names: Sequence[str]) -> list[object]:
    """Numbers where all of them are."""
    for kind in (int, float):
        try:
            return [kind(name) for name in names]
        except ValueError:
            continue
    return list(names)
