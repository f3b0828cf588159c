"""What the answers of a submission are: labels, probabilities, values, lists of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

import numpy as np
import pandas as pd

from foldcraft.common.errors import FoldcraftError, listing, shorten
from foldcraft.data.submission_forms.form import SHOWN, Form
from foldcraft.data.targets.classes import are_numbers
from foldcraft.metrics.metric import Wants
from foldcraft.metrics.spaces import ClassSpace

UNSURE = 0.5  # probability of the likeliest class, below which an unknown one is a guess


@dataclass(frozen=True)
class Labels(Form):
    """A label in each column; of labels that are there or not 0 or 1."""

    wants: ClassVar[Wants] = "labels"

    def cells(self, predicted: np.ndarray) -> Mapping[str, Sequence[object]]:
        target = self.request.target
        if self.request.space.form == "labels":
            said = target.there(predicted).astype(int).astype(str)
            return {name: said[:, k].tolist() for k, name in enumerate(target.space.names)}
        return target.answers(predicted)

    def judged_cells(self, scored: np.ndarray) -> Mapping[str, Sequence[object]]:
        space, columns = self.request.space, self.request.target.columns
        if not isinstance(space, ClassSpace):
            said = np.where(np.isnan(scored), np.nan, scored > 0.5)
            return {name: _numbers_known(said[:, k]) for k, name in enumerate(space.names)}
        names = [space.names_of(own) for own in space.slices]
        read = [_as_read(each) for each in names]
        if self._parts is not None:  # all stand in one column, which holds numbers only where all are
            every = iter(_as_read([name for each in names for name in each]))
            read = [[next(every) for _ in each] for each in names]
        parts = zip(columns, space.slices, read, strict=True)
        return {name: _likeliest(words, scored[:, own]) for name, own, words in parts}

    def check_cells(self, cells: Mapping[str, pd.Series]) -> None:
        for name, column in cells.items():
            self.request.target.vocabulary[name].encode(column.astype(str).tolist())

    def holds(self) -> str:
        if self.request.space.form == "labels":
            return "0 or 1"
        if other := self._written_otherwise:
            return f"labels as the training table writes them: {other[0]!r}, the sample has {other[1]!r}"
        if (stranger := self._stranger) is not None:
            return f"labels of the training table; {shorten(stranger, SHOWN)!r}, as the sample has, is none of them"
        return "labels"

    @property
    def goes_without_saying(self) -> bool:
        is_alone = len(self.columns) == 1 and not self.left and self._parts is None
        return is_alone and self._written_otherwise is None and self._stranger is None

    @property
    def _stranger(self) -> str | None:
        """What a column of the sample has in its first row, where no cell of it is a label of the training table."""
        if self.request.space.form == "labels":
            return None
        known: dict[str, set[str]] = {}
        for name, column in self.columns.items():
            known.setdefault(column, set()).update(self.request.target.vocabulary[name].names)
        for column, names in known.items():
            cells = self.request.sample[column].astype(str)
            if (written := set(cells) - {""}) and not written & names:
                return next(cell for cell in cells if cell)
        return None

    @property
    def _written_otherwise(self) -> tuple[str, str] | None:
        """A label that is a number, as the training table and as the sample write it, where these differ."""
        for name, column in self.columns.items():
            known = self.request.target.vocabulary[name].names
            cells = set(self.request.sample[column].astype(str)) - set(known)
            if are_numbers(known) and cells and are_numbers(sorted(cells)):
                by_value = {Decimal(label): label for label in known}
                alike = [(by_value[Decimal(cell)], cell) for cell in sorted(cells) if Decimal(cell) in by_value]
                if alike:
                    return alike[0]
        return None


@dataclass(frozen=True)
class Probabilities(Form):
    """The probability of a class or a label in each column."""

    wants: ClassVar[Wants] = "probabilities"

    def cells(self, predicted: np.ndarray) -> Mapping[str, np.ndarray]:
        scored = self.request.space.scored(predicted)
        return {name: scored[:, k] for k, name in enumerate(self.request.space.names)}

    def judged_cells(self, scored: np.ndarray) -> Mapping[str, Sequence[object]]:
        return {name: _numbers_known(scored[:, k]) for k, name in enumerate(self.request.space.names)}

    def check_cells(self, cells: Mapping[str, pd.Series]) -> None:
        space = self.request.space
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
        own = self.request.space.form == "classes" and not self.left and self._parts is None
        return own and all(name == column for name, column in self.columns.items())


@dataclass(frozen=True)
class OneProbability(Form):
    """The probability of one of two classes.

    Attributes:
        asked: place of the class.
        why: what is to be said of the choice; "" for nothing.
    """

    wants: ClassVar[Wants] = "probabilities"

    asked: int
    why: str

    def cells(self, predicted: np.ndarray) -> Mapping[str, np.ndarray]:
        return {name: self.request.space.scored(predicted)[:, self.asked] for name in self.columns}

    def judged_cells(self, scored: np.ndarray) -> Mapping[str, Sequence[object]]:
        return {name: _numbers_known(scored[:, self.asked]) for name in self.columns}

    def check_cells(self, cells: Mapping[str, pd.Series]) -> None:
        for column in cells.values():
            if (abs(_numbers(column) - 0.5) > 0.5 + 1e-9).any():
                raise FoldcraftError("probabilities are not between 0 and 1", "submission")

    def holds(self) -> str:
        return f"the probability of {self.request.space.names[self.asked]!r}{self.why}"


@dataclass(frozen=True)
class Values(Form):
    """A value in each column, within the range of the target."""

    wants: ClassVar[Wants] = "values"

    def cells(self, predicted: np.ndarray) -> Mapping[str, Sequence[object]]:
        return self.request.target.answers(predicted)

    def judged_cells(self, scored: np.ndarray) -> Mapping[str, Sequence[object]]:
        return {name: _numbers_known(scored[:, k]) for k, name in enumerate(self.request.target.columns)}

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

    wants: ClassVar[Wants] = "ranks"

    k: int
    separator: str
    unknown: str | None = None

    def cells(self, predicted: np.ndarray) -> Mapping[str, Sequence[str]]:
        lists = self._lists(predicted, self.request.space.sureness(predicted) < UNSURE)
        return dict.fromkeys(self.columns, lists)

    def _lists(self, predicted: np.ndarray, is_unsure: np.ndarray) -> list[str]:
        """A cell a row, from whatever ranks the classes."""
        space = self.request.space
        guesses = [[space.names[place] for place in row] for row in space.ranked(predicted, self.k)]
        if self.unknown is not None:
            guesses = [
                [row[0], self.unknown, *row[1:]][: self.k] if doubt else row
                for row, doubt in zip(guesses, is_unsure, strict=True)
            ]
        return [self.separator.join(row) for row in guesses]

    def judged_cells(self, scored: np.ndarray) -> Mapping[str, Sequence[object]]:
        lists = self._lists(scored, scored.max(1) < UNSURE)
        if self.k == 1:
            words = dict(zip(self.request.space.names, _as_read(self.request.space.names), strict=True))
            lists = [words[cell] for cell in lists]
        return dict.fromkeys(self.columns, lists)

    def truth_cells(self, truth: np.ndarray) -> Mapping[str, Sequence[object]]:
        space = self.request.space
        return dict.fromkeys(self.columns, _likeliest(_as_read(space.names), space.matrix(truth)))

    def check_cells(self, cells: Mapping[str, pd.Series]) -> None:
        known = {*self.request.space.names, *([self.unknown] if self.unknown is not None else [])}
        for column in cells.values():
            _check_lists(column, self.separator, known, self.k)

    def holds(self) -> str:
        more = f", {self.unknown!r} second where none is above .5" if self.unknown is not None else ""
        return f"the {self.k} likeliest labels, separated by {self.separator!r}{more}"


@dataclass(frozen=True)
class Lists(Form):
    """The labels of a row in one column."""

    wants: ClassVar[Wants] = "labels"

    separator: str
    gaps: bool

    def cells(self, predicted: np.ndarray) -> Mapping[str, Sequence[str]]:
        names = np.array(self.request.space.names)
        said = self.request.target.there(predicted, at_least_one=not self.gaps)
        return {name: [self.separator.join(names[row].tolist()) for row in said] for name in self.columns}

    def judged_cells(self, scored: np.ndarray) -> Mapping[str, Sequence[object]]:
        """Labels above one half, as metrics count them; a row may have none."""
        names = np.array(self.request.space.names)
        return {name: [self.separator.join(names[row].tolist()) for row in scored > 0.5] for name in self.columns}

    def check_cells(self, cells: Mapping[str, pd.Series]) -> None:
        for column in cells.values():
            some = column[column.astype(str) != ""]
            _check_lists(some, self.separator, set(self.request.space.names), len(self.request.space.names))

    def holds(self) -> str:
        return f"lists of labels, separated by {self.separator!r}, {'perhaps' if self.gaps else 'never'} empty"

    @property
    def may_be_empty(self) -> bool:
        return self.gaps


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


def _numbers_known(numbers: np.ndarray) -> list[object]:
    return [None if np.isnan(value) else float(value) for value in numbers]


def _likeliest(words: Sequence[object], numbers: np.ndarray) -> list[object]:
    """The class of each row; None where it is not known."""
    unknown = np.isnan(numbers).all(1)
    best = np.nan_to_num(numbers).argmax(1)  # of one label: its caller asks for no other
    return [None if gone else words[k] for k, gone in zip(best.tolist(), unknown.tolist(), strict=True)]


def _as_read(names: Sequence[str]) -> list[object]:
    """Labels as a reader of CSVs would have them: numbers where all of them are."""
    for kind in (int, float):
        try:
            return [kind(name) for name in names]
        except ValueError:
            continue
    return list(names)
