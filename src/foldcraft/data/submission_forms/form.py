"""The form of a submission: which columns and rows of the host's sample its answers stand in, whatever they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from foldcraft.common.errors import FoldcraftError, listing, shorten
from foldcraft.common.rows import positions
from foldcraft.data.submission_forms.request import FileRequest
from foldcraft.metrics.metric import Wants

SHOWN = 40  # characters of a name in a message


@dataclass(frozen=True)
class Form(ABC):
    """What the answers are.

    Attributes:
        columns: of the sample, by the name of what each holds; where each row asks for one thing alone they are one.
    """

    wants: ClassVar[Wants]  # what a metric is given that judges such answers
    request: FileRequest
    columns: Mapping[str, str]

    @abstractmethod
    def cells(self, predicted: np.ndarray) -> Mapping[str, Sequence[object] | np.ndarray]:
        """The answers of rows (M, W), by name."""

    @abstractmethod
    def judged_cells(self, scored: np.ndarray) -> Mapping[str, Sequence[object]]:
        """The answers that a metric's own predictions (N, W) are, as a reader of CSVs has them; None for unknown ones.

        Of columns that are either 0 or 1 they are the truth as well.
        """

    def truth_cells(self, truth: np.ndarray) -> Mapping[str, Sequence[object]]:
        """The truth of rows, (N,) or (N, ·), as it stands where answers do; None for what is not known."""
        space = self.request.space
        is_wide = truth.ndim == 2 and truth.shape[1] == space.width
        return self.judged_cells(truth if is_wide else space.matrix(truth))

    @abstractmethod
    def check_cells(self, cells: Mapping[str, pd.Series]) -> None:
        """See that answers are what the host can read, by name.

        Raises:
            FoldcraftError: they are not.
        """

    @abstractmethod
    def holds(self) -> str:
        """What the columns hold, in words."""

    @property
    def may_be_empty(self) -> bool:
        """Is an empty cell an answer?"""
        return False

    @property
    def goes_without_saying(self) -> bool:
        """Could the sample mean nothing else?"""
        return False

    @property
    def left(self) -> list[str]:
        """Columns of the sample that hold no answers."""
        own = {self.request.id_column, *self.columns.values()}
        return [column for column in self.request.sample.columns if column not in own]

    @property
    def _parts(self) -> np.ndarray | None:
        rows = self.request.submission.rows
        return rows.parts if rows else None

    @property
    def _ids(self) -> np.ndarray:
        """The test id that each row of the sample asks for."""
        rows = self.request.submission.rows
        return rows.ids if rows else self.request.sample[self.request.id_column].to_numpy()

    def describe(self) -> str:
        """What is written where, in one line."""
        names = list(dict.fromkeys(self.columns.values()))
        what = f"column {names[0]!r} holds" if len(names) == 1 else f"columns {names_in_words(names)} hold"
        rows = self.request.submission.rows
        words = [f"{what} {self.holds()}"]
        if self._parts is not None:
            words.append(f"a row for each {rows.row}")
        if rows and rows.by_cells:
            words.append(f"column {rows.column!r} the ids")
        if self.left:
            words.append(f"{names_in_words(self.left)} left as in the sample")
        return "; ".join(words)

    def fill(self, ids: np.ndarray, predicted: np.ndarray) -> pd.DataFrame:
        """The sample with its answers replaced, everything else left as it is.

        Args:
            ids: of the test rows (M,).
            predicted: of these (M, W), after the decision rule.

        Raises:
            FoldcraftError: ids missing, extra or doubled; NaN; probabilities that do not sum to one.
        """
        _check_ids(self._ids.tolist(), ids.tolist())
        if not self.request.space.is_valid(predicted):
            raise FoldcraftError("predictions hold NaN or do not sum to one", "submission")
        place, result = positions(ids, self._ids), self.request.sample.copy()
        if self._parts is None:
            cells = self.cells(predicted[place])
            for name, column in self.columns.items():
                result[column] = cells[name]
            return result
        cells = self.cells(predicted)
        (column,) = set(self.columns.values())
        result[column] = [cells[part][row] for part, row in zip(self._parts.tolist(), place.tolist(), strict=True)]
        return result

    def check(self, frame: pd.DataFrame) -> None:
        """Look at a finished submission as the host will.

        Raises:
            FoldcraftError: other columns, ids or order than the sample; empty cells; answers that the host does not
                know.
        """
        sample, key = self.request.sample, self.request.id_column
        if list(frame.columns) != list(sample.columns):
            raise FoldcraftError(f"columns {listing(list(frame.columns))} are not the sample's", "submission")
        if key in sample.columns and frame[key].tolist() != sample[key].tolist():
            raise FoldcraftError("ids are not the sample's, or not in its order", "submission")
        answers = frame[list(dict.fromkeys(self.columns.values()))]
        if answers.isna().any().any() or ((answers.astype(str) == "").any().any() and not self.may_be_empty):
            raise FoldcraftError("has empty cells", "submission")
        self.check_cells(self._by_name(frame))

    def _by_name(self, frame: pd.DataFrame) -> Mapping[str, pd.Series]:
        if self._parts is None:
            return {name: frame[column] for name, column in self.columns.items()}
        own = {name: self._parts == name for name in self.columns}
        ids = self._ids  # in one order for each name, whatever that of the rows is
        return {name: frame[self.columns[name]][rows].set_axis(ids[rows]).sort_index() for name, rows in own.items()}


def _check_ids(wanted: list[str], given: list[str]) -> None:
    missing, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing or extra or len(set(given)) < len(given):
        raise FoldcraftError(
            f"{len(missing)} ids without prediction ({listing(missing, 3)}), {len(extra)} too many "
            f"({listing(extra, 3)}), {len(given) - len(set(given))} doubled",
            "submission",
        )


def names_in_words(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return listing([shorten(name, SHOWN) for name in names], 6)
