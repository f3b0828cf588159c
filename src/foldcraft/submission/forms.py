"""The form of a submission: what its answers are, and in which columns and rows of the host's sample they stand.

It is inferred from the sample, the target and the metric; `competition.submission` says what these leave open.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pandas as pd

from foldcraft.common.errors import FoldcraftError, listing, shorten
from foldcraft.common.rows import positions
from foldcraft.data.competition import Competition
from foldcraft.data.targets.classes import are_numbers

SHOWN = 40  # characters of a name in a message


@dataclass(frozen=True)
class Form(ABC):
    """What the answers are.

    Attributes:
        columns: of the sample, by the name of what each holds; where each row asks for one thing alone they are one.
    """

    competition: Competition
    columns: Mapping[str, str]

    @abstractmethod
    def cells(self, predicted: np.ndarray) -> Mapping[str, Sequence[object] | np.ndarray]:
        """The answers of rows (M, W), by name."""

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
        own = {self.competition.id_column, *self.columns.values()}
        return [column for column in self.competition.sample.columns if column not in own]

    @property
    def _parts(self) -> np.ndarray | None:
        rows = self.competition.submission.rows
        return rows.parts if rows else None

    @property
    def _ids(self) -> np.ndarray:
        """The test id that each row of the sample asks for."""
        rows = self.competition.submission.rows
        return rows.ids if rows else self.competition.sample[self.competition.id_column].to_numpy()

    def describe(self) -> str:
        """What is written where, in one line."""
        names = list(dict.fromkeys(self.columns.values()))
        what = f"column {names[0]!r} holds" if len(names) == 1 else f"columns {names_in_words(names)} hold"
        rows = self.competition.submission.rows
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
        if not self.competition.space.is_valid(predicted):
            raise FoldcraftError("predictions hold NaN or do not sum to one", "submission")
        place, result = positions(ids, self._ids), self.competition.sample.copy()
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
        sample, key = self.competition.sample, self.competition.id_column
        if list(frame.columns) != list(sample.columns):
            raise FoldcraftError(f"columns {listing(list(frame.columns))} are not the sample's", "submission")
        if frame[key].tolist() != sample[key].tolist():
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


@dataclass(frozen=True)
class Labels(Form):
    """A label in each column; of labels that are there or not 0 or 1."""

    def cells(self, predicted: np.ndarray) -> Mapping[str, Sequence[object]]:
        target = self.competition.target
        if self.competition.space.form == "labels":
            said = target.there(predicted).astype(int).astype(str)
            return {name: said[:, k].tolist() for k, name in enumerate(target.space.names)}
        return target.answers(predicted)

    def check_cells(self, cells: Mapping[str, pd.Series]) -> None:
        for name, column in cells.items():
            self.competition.target.vocabulary[name].encode(column.astype(str).tolist())

    def holds(self) -> str:
        if self.competition.space.form == "labels":
            return "0 or 1"
        if other := self._written_otherwise:
            return f"labels as the training table writes them: {other[0]!r}, the sample has {other[1]!r}"
        return "labels"

    @property
    def goes_without_saying(self) -> bool:
        is_alone = len(self.columns) == 1 and not self.left and self._parts is None
        return is_alone and self._written_otherwise is None

    @property
    def _written_otherwise(self) -> tuple[str, str] | None:
        """A label that is a number, as the training table and as the sample write it, where these differ."""
        for name, column in self.columns.items():
            known = self.competition.target.vocabulary[name].names
            cells = set(self.competition.sample[column].astype(str)) - set(known)
            if are_numbers(known) and cells and are_numbers(sorted(cells)):
                by_value = {Decimal(label): label for label in known}
                alike = [(by_value[Decimal(cell)], cell) for cell in sorted(cells) if Decimal(cell) in by_value]
                if alike:
                    return alike[0]
        return None


@dataclass(frozen=True)
class Probabilities(Form):
    """The probability of a class or a label in each column."""

    def cells(self, predicted: np.ndarray) -> Mapping[str, np.ndarray]:
        scored = self.competition.space.scored(predicted)
        return {name: scored[:, k] for k, name in enumerate(self.competition.space.names)}

    def check_cells(self, cells: Mapping[str, pd.Series]) -> None:
        space = self.competition.space
        values = np.column_stack([_numbers(cells[name]) for name in space.names])
        if ((values < 0) | (values > 1 + 1e-9)).any():
            raise FoldcraftError("probabilities are not between 0 and 1", "submission")
        if space.form == "classes" and not all(np.allclose(values[:, s].sum(1), 1, atol=1e-3) for s in space.slices):
            raise FoldcraftError("probabilities do not sum to one", "submission")

    def holds(self) -> str:
        alike = all(name == column for name, column in self.columns.items())
        if alike or self._parts is not None:
            return "probabilities"
        name, column = next(iter(self.columns.items()))
        return f"probabilities, {column!r} that of {name!r} and so on"

    @property
    def goes_without_saying(self) -> bool:
        own = self.competition.space.form == "classes" and not self.left and self._parts is None
        return own and all(name == column for name, column in self.columns.items())


@dataclass(frozen=True)
class OneProbability(Form):
    """The probability of one of two classes.

    Attributes:
        asked: place of the class.
        why: what is to be said of the choice; "" for nothing.
    """

    asked: int
    why: str

    def cells(self, predicted: np.ndarray) -> Mapping[str, np.ndarray]:
        return {name: self.competition.space.scored(predicted)[:, self.asked] for name in self.columns}

    def check_cells(self, cells: Mapping[str, pd.Series]) -> None:
        for column in cells.values():
            if (abs(_numbers(column) - 0.5) > 0.5 + 1e-9).any():
                raise FoldcraftError("probabilities are not between 0 and 1", "submission")

    def holds(self) -> str:
        return f"the probability of {self.competition.space.names[self.asked]!r}{self.why}"


@dataclass(frozen=True)
class Values(Form):
    """A value in each column, within the range of the target."""

    def cells(self, predicted: np.ndarray) -> Mapping[str, Sequence[object]]:
        return self.competition.target.answers(predicted)

    def check_cells(self, cells: Mapping[str, pd.Series]) -> None:
        for column in cells.values():
            _numbers(column)

    def holds(self) -> str:
        return "values"


@dataclass(frozen=True)
class TopK(Form):
    """The likeliest classes in one column, the likeliest first.

    Attributes:
        unknown: a label that no training row has; it is the second guess where none is likelier than not.
    """

    k: int
    separator: str
    unknown: str | None = None

    def cells(self, predicted: np.ndarray) -> Mapping[str, Sequence[str]]:
        space = self.competition.space
        guesses = [[space.names[place] for place in row] for row in space.ranked(predicted, self.k)]
        if self.unknown is not None:
            unsure = space.sureness(predicted) < 0.5
            guesses = [
                [row[0], self.unknown, *row[1:]][: self.k] if doubt else row
                for row, doubt in zip(guesses, unsure, strict=True)
            ]
        return {name: [self.separator.join(row) for row in guesses] for name in self.columns}

    def check_cells(self, cells: Mapping[str, pd.Series]) -> None:
        known = {*self.competition.space.names, *([self.unknown] if self.unknown is not None else [])}
        for column in cells.values():
            _check_lists(column, self.separator, known, self.k)

    def holds(self) -> str:
        more = f", {self.unknown!r} second where none is above .5" if self.unknown is not None else ""
        return f"the {self.k} likeliest labels, separated by {self.separator!r}{more}"


@dataclass(frozen=True)
class Lists(Form):
    """The labels of a row in one column."""

    separator: str
    gaps: bool

    def cells(self, predicted: np.ndarray) -> Mapping[str, Sequence[str]]:
        names = np.array(self.competition.space.names)
        said = self.competition.target.there(predicted, at_least_one=not self.gaps)
        return {name: [self.separator.join(names[row].tolist()) for row in said] for name in self.columns}

    def check_cells(self, cells: Mapping[str, pd.Series]) -> None:
        for column in cells.values():
            some = column[column.astype(str) != ""]
            _check_lists(some, self.separator, set(self.competition.space.names), len(self.competition.space.names))

    def holds(self) -> str:
        return f"lists of labels, separated by {self.separator!r}, {'perhaps' if self.gaps else 'never'} empty"

    @property
    def may_be_empty(self) -> bool:
        return self.gaps


def _check_ids(wanted: list[str], given: list[str]) -> None:
    missing, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing or extra or len(set(given)) < len(given):
        raise FoldcraftError(
            f"{len(missing)} ids without prediction ({listing(missing, 3)}), {len(extra)} too many "
            f"({listing(extra, 3)}), {len(given) - len(set(given))} doubled",
            "submission",
        )


def _numbers(cells: pd.Series) -> np.ndarray:
    values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(values).all():
        wrong = cells[~np.isfinite(values)].iloc[0]
        raise FoldcraftError(f"{shorten(str(wrong), SHOWN)!r} is no finite number", "submission")
    return values


def _check_lists(cells: pd.Series, separator: str, known: set[str], most: int) -> None:
    for cell in cells.astype(str).tolist():
        labels = cell.split(separator)
        if unknown := [label for label in labels if label not in known]:
            raise FoldcraftError(f"unknown labels: {listing([shorten(u, SHOWN) for u in unknown], 3)}", "submission")
        if len(labels) > most or len(set(labels)) < len(labels):
            what = f"{shorten(cell, SHOWN)!r} names a label twice, or more than {most}"
            raise FoldcraftError(what, "submission")


def names_in_words(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return listing([shorten(name, SHOWN) for name in names], 6)
