"""Several images that make one answer: which rows they are, and what they and the sample's rows are called.

Training, folds' files and stored predictions speak of images; what is judged, blended and submitted are answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from foldcraft.common.config import CompetitionConfig
from foldcraft.common.errors import FoldcraftError, counted, listing, shorten, suggest
from foldcraft.data.groups import joined_groups
from foldcraft.data.host_files.host_rows import HostRows

SETTING = "competition.answer"
BETWEEN = "_"  # the cells of an answer's name
SHOWN = 40  # characters of a name in a message


@dataclass(frozen=True)
class AnswerNames:
    """The answer of each row of two tables, and ids for the rows.

    Attributes:
        train, test: name of each row's answer (N,), (M,).
        train_ids, test_ids: of the rows; those of one answer that share an id are told apart: id, id#2, id#3.
    """

    train: np.ndarray
    test: np.ndarray
    train_ids: np.ndarray
    test_ids: np.ndarray

    def only(self, train: np.ndarray, test: np.ndarray) -> AnswerNames:
        """Of the rows that two masks keep."""
        return AnswerNames(self.train[train], self.test[test], self.train_ids[train], self.test_ids[test])

    @property
    def wanted(self) -> list[str]:
        """Names of the answers that are to be submitted."""
        return list(dict.fromkeys(self.test.tolist()))


@dataclass(frozen=True)
class Answering:
    """Which answer each row is an image of.

    Attributes:
        train_ids, test_ids: of the answers (A,), (B,), in the order of their first rows.
        train, test: place of each row's answer (N,), (M,).
        combine: how predictions of images become one.
        k: images that `top_k_mean` takes.
        positive: which of two classes `max` and `top_k_mean` look for.
    """

    train_ids: np.ndarray
    test_ids: np.ndarray
    train: np.ndarray
    test: np.ndarray
    combine: str
    k: int = 3
    positive: int = 1

    @classmethod
    def of(cls, names: AnswerNames, settings: CompetitionConfig, classes: Sequence[str]) -> Answering:
        """From the tables; of two classes the positive one is that of the submission, else the last."""
        (train, train_ids), (test, test_ids) = (pd.factorize(part) for part in (names.train, names.test))
        asked = getattr(settings.submission, "positive", None)
        positive = classes.index(asked) if asked in classes else len(classes) - 1
        ids = (np.asarray(train_ids, dtype=str), np.asarray(test_ids, dtype=str))
        return cls(*ids, train, test, settings.answer.combine, settings.answer.k, positive)

    @property
    def first(self) -> np.ndarray:
        """The first training row of each answer (A,)."""
        return np.unique(self.train, return_index=True)[1]

    @property
    def first_test(self) -> np.ndarray:
        """The first test row of each answer (B,)."""
        return np.unique(self.test, return_index=True)[1]

    def mean(self, weights: np.ndarray | None) -> np.ndarray | None:
        """Of each answer's images (A,), from numbers of the training rows (N,)."""
        if weights is None or len(self.train_ids) == len(self.train):
            return weights
        return np.bincount(self.train, weights) / np.bincount(self.train)

    @property
    def most(self) -> int:
        """Training images of the answer that has the most."""
        return int(np.bincount(self.train).max())

    def check_labels(
        self, written: Sequence[str], in_words: Callable[[np.ndarray], Sequence[str]], where: Path
    ) -> None:
        """See that the images of an answer have one label.

        Args:
            written: the truth of each training row as text.
            in_words: what that of some rows is called.

        Raises:
            FoldcraftError: some have not.
        """
        codes = pd.factorize(np.asarray(written, dtype=object))[0]
        unlike = self._unlike(codes)
        if len(unlike):
            rows = np.flatnonzero(self.train == unlike[0])
            labels = [shorten(word, SHOWN) for word in dict.fromkeys(in_words(rows[np.unique(codes[rows], True)[1]]))]
            what = f"{counted(len(unlike), 'answer')} with images of unequal labels, first {self._name(unlike[0])}"
            raise FoldcraftError(f"{what}: {listing(labels, 4)}", where, f"mend the labels, or {SETTING}.by")

    def check_groups(self, groups: np.ndarray, has_group: np.ndarray, where: Path) -> None:
        """See that the images of an answer are of one group; a row (N,) without one may be of any.

        Raises:
            FoldcraftError: some are not.
        """
        codes = np.where(has_group, pd.factorize(groups)[0], -1)
        unlike = self._unlike(codes)
        if len(unlike):
            names = [
                shorten(name, SHOWN) for name in dict.fromkeys(groups[(self.train == unlike[0]) & has_group].tolist())
            ]
            what = f"{counted(len(unlike), 'answer')} with images of several groups, first {self._name(unlike[0])}"
            raise FoldcraftError(f"{what}: {listing(names, 4)}", where, f"mend the groups, or {SETTING}.by")

    def joined(self, groups: np.ndarray | None) -> np.ndarray | None:
        """The groups of the training rows (N,) with all images of an answer in one of them."""
        if len(self.train_ids) == len(self.train):
            return groups
        if groups is None:
            return self.train_ids[self.train]
        return joined_groups(groups, self.train.tolist())

    def torn(self, fold: np.ndarray) -> list[str]:
        """Answers with images in several folds (N,)."""
        return self.train_ids[self._unlike(fold)].tolist()

    def _unlike(self, codes: np.ndarray) -> np.ndarray:
        """Answers whose rows have several codes (N,); -1 is like any."""
        known, count = codes >= 0, int(codes.max(initial=0)) + 1
        pairs = np.unique(self.train[known] * count + codes[known]) // count
        return np.flatnonzero(np.bincount(pairs, minlength=len(self.train_ids)) > 1)

    def _name(self, answer: int) -> str:
        return shorten(str(self.train_ids[answer]), SHOWN)


def read(names: CompetitionConfig, train: pd.DataFrame, test: pd.DataFrame, folder: Path) -> AnswerNames | None:
    """The answers of two tables; None where each row is one.

    Raises:
        FoldcraftError: a column is missing or has empty cells; two answers would have one name.
    """
    if names.answer is None:
        return None
    parts = [
        _joined(table, columns, folder / file)
        for table, columns, file in zip((train, test), names.answer.columns, (names.train, names.test), strict=True)
    ]
    ids = [distinct(table[key].tolist()) for table, key in ((train, names.train_id), (test, names.test_id))]
    return AnswerNames(*parts, *ids)


def with_all_ids(rows: HostRows, folder: Path) -> HostRows:
    """Both tables as `with_ids` makes them; as they are where each row is an answer.

    Raises:
        FoldcraftError: as `with_ids`.
    """
    names = rows.names
    if names.answer is None:
        return rows
    (train_by, test_by), notes = names.answer.columns, list(rows.notes)
    keys = {"train": names.train_id, "test": names.test_id}
    for part, key in keys.items():
        if key == "id" and key not in getattr(rows, part).columns:
            notes.append(f"competition.id: the {part} rows are called by their answers")
    train = with_ids(rows.train, keys["train"], train_by, folder / names.train)
    test = with_ids(rows.test, keys["test"], test_by, folder / names.test)
    return replace(rows, train=train, test=test, notes=tuple(notes))


def with_ids(table: pd.DataFrame, id_column: str, by: Sequence[str], path: Path) -> pd.DataFrame:
    """The table with names of answers for ids, where it has no column of ids.

    Raises:
        FoldcraftError: as `read`; rows of one id are of different answers.
    """
    if id_column == "id" and id_column not in table.columns:
        return table.assign(**{id_column: _joined(table, by, path)})
    if id_column not in table.columns:  # told where columns are checked
        return table
    twins = table[id_column].duplicated(keep=False)
    if twins.any():
        answers = pd.Series(_joined(table[twins], by, path)).groupby(table[id_column][twins].to_numpy()).nunique()
        if len(apart := answers.index[answers > 1].tolist()):
            what = f"ids occur more than once, in different answers: {listing([shorten(a, SHOWN) for a in apart], 3)}"
            raise FoldcraftError(what, path, f"name another column as competition.id, or mend {SETTING}.by")
    return table


def _joined(table: pd.DataFrame, columns: Sequence[str], path: Path) -> np.ndarray:
    """Name of the answer of each row (N,)."""
    for column in columns:
        if column not in table.columns:
            hint = f"{suggest(column, list(map(str, table.columns)))}; by: {{train: ..., test: ...}} for two names"
            raise FoldcraftError(f"no column {column!r} for {SETTING}.by", path, hint)
        if len(empty := np.flatnonzero(table[column].str.strip() == "")):
            lines = listing([str(table.index[row] + 2) for row in empty], 5)
            raise FoldcraftError(f"column {column!r} is empty in line {lines}", path, "fill in or drop the rows")
    cells = table[list(columns)].to_numpy(dtype=str)
    if len(columns) == 1:
        return cells[:, 0]
    names = np.array([BETWEEN.join(row) for row in cells.tolist()], dtype=str)
    different = pd.DataFrame(cells).drop_duplicates().index
    if len(twice := pd.Series(names[different])[lambda of: of.duplicated()]):
        what = f"two answers would both be called {shorten(twice.iloc[0], SHOWN)}"
        raise FoldcraftError(what, path, f"name {SETTING}.by in another order, or one column that holds both")
    return names


def distinct(ids: Sequence[str]) -> np.ndarray:
    """The ids with a number behind those that came before: id, id#2, id#3."""
    taken, count, found = set(ids), {}, []
    for name in ids:
        count[name] = number = count.get(name, 0) + 1
        told = name if number == 1 else f"{name}#{number}"
        while number > 1 and told in taken:
            count[name] = number = number + 1
            told = f"{name}#{number}"
        taken.add(told)
        found.append(told)
    return np.array(found, dtype=str)
