"""The tables of a competition folder: which rows there are, and where their images lie."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from foldcraft.common import csv_file
from foldcraft.common.config import CompetitionConfig, Config, SubmissionConfig
from foldcraft.common.errors import FoldcraftError, listing, shorten, suggest
from foldcraft.data import answers, bundled, image_files, sample_rows
from foldcraft.data.answers import AnswerNames
from foldcraft.data.groups import with_shared_files
from foldcraft.data.sample_rows import SampleRows, SubmissionRequest
from foldcraft.data.targets import reading
from foldcraft.data.targets.reading import ReadTarget

NO_GROUP = frozenset(("", "nan", "na", "n/a", "<na>", "#n/a", "#na", "nat", "null", "none", "-nan"))


@dataclass(frozen=True)
class Tables:
    """The rows of a competition folder, and the file that the image of each is, or should be, in.

    Attributes:
        train, test, sample: the CSVs as text.
        train_paths, test_paths: one a row; a file that is missing has the path that the template gives it.
        missing: what the templates ask for and the folder lacks.
        image_notes: what there is to say of how files were found, a line each.
    """

    names: CompetitionConfig
    folder: Path
    train: pd.DataFrame
    test: pd.DataFrame
    sample: pd.DataFrame
    train_paths: tuple[Path, ...]
    test_paths: tuple[Path, ...]
    missing: tuple[str, ...]
    image_notes: tuple[str, ...] = ()
    sample_rows: SampleRows | None = None
    answers: AnswerNames | None = None

    @property
    def train_ids(self) -> np.ndarray:
        """Ids of the training rows (N,)."""
        return self.answers.train_ids if self.answers else self.train[self.names.id].to_numpy(dtype=str)

    @property
    def test_ids(self) -> np.ndarray:
        """Ids of the test rows (M,)."""
        return self.answers.test_ids if self.answers else self.test[self.names.id].to_numpy(dtype=str)

    @cached_property
    def read_target(self) -> ReadTarget:
        """What is predicted.

        Raises:
            FoldcraftError: cells that are not what the kind of target asks for.
        """
        return reading.read(self.names, self.train, self.folder / self.names.train)

    @property
    def labels(self) -> np.ndarray:
        """The target of the training rows (N,) as it is written; of several columns what stands in all of them."""
        columns = reading.columns_of(self.names, list(self.train.columns), self.folder / self.names.train)
        cells = self.train[list(columns)].to_numpy(dtype=str)
        return cells[:, 0] if len(columns) == 1 else np.array([" ".join(row) for row in cells.tolist()], dtype=str)

    @property
    def written_groups(self) -> np.ndarray | None:
        """Groups of the training rows (N,) as they are written, where there is such a column."""
        return self.train[self.names.group].fillna("").to_numpy(dtype=str) if self.names.group else None

    @property
    def has_group(self) -> np.ndarray:
        """Which training rows (N,) have a group; an empty cell, or one that says "nan", is none."""
        written = self.written_groups
        cells = written.tolist() if written is not None else [""] * len(self.train)
        return np.array([cell.strip().casefold() not in NO_GROUP for cell in cells], dtype=bool)

    @property
    def groups(self) -> np.ndarray | None:
        """Groups of the training rows (N,), where there is such a column; a row without one is a group by itself."""
        written = self.written_groups
        if written is None or self.has_group.all():
            return written
        pairs = zip(written.tolist(), self.train_ids.tolist(), self.has_group, strict=True)
        return np.array([group if there else f"no group: {row}" for group, row, there in pairs], dtype=str)

    @cached_property
    def weights(self) -> np.ndarray | None:
        """How much each training row counts (N,), 1 in the mean; None: all alike.

        Raises:
            FoldcraftError: cells that are no weights.
        """
        mine, votes = _weights(self.train, self.names, self.folder / self.names.train), self.read_target.weights
        return votes if mine is None else mine if votes is None else mine * votes

    @property
    def request(self) -> SubmissionRequest:
        """What the host wants, beside what the sample says."""
        names, is_test = self.names, self.names.sample == self.names.test
        settings = names.submission if isinstance(names.submission, SubmissionConfig) else SubmissionConfig()
        ordered = names.order is not None or getattr(names.target, "order", None) is not None
        # Of a sample that is the test table, what the training table has too is no answer.
        columns = set(self.train.columns if is_test else self.test.columns)
        alone = len(self.sample.columns) == 2 and not is_test  # then it is the answer, whatever the test table has
        given = () if alone else tuple(name for name in self.sample.columns if name in columns)
        k = names.metric.get("k") if isinstance(names.metric, dict) else None
        return SubmissionRequest(settings, self.sample_rows, given, ordered, k)

    @property
    def groups_to_tell_by(self) -> np.ndarray | None:
        """What the fingerprint is of where groups are missing: what was once taken for groups all the same."""
        if self.has_group.all():
            return None
        return with_shared_files(self.written_groups, self.train_ids, self.train_paths)

    def only(self, train: np.ndarray, test: np.ndarray) -> "Tables":
        """The rows that two masks, (N,) and (M,), keep."""
        paths = [path for path, kept in zip(self.train_paths, train, strict=True) if kept]
        test_paths = [path for path, kept in zip(self.test_paths, test, strict=True) if kept]
        kept = self.answers.only(train, test) if self.answers else None
        both = {"train_paths": tuple(paths), "test_paths": tuple(test_paths), "answers": kept}
        return replace(self, train=self.train[train], test=self.test[test], **both)


def read_tables(config: Config) -> Tables:
    """Read and check the CSVs of a competition folder; images may be missing.

    Raises:
        FoldcraftError: folder, file or column missing; duplicate or empty ids; empty labels; a sample submission whose
            ids are not those of the test set; an image path template that is none.
    """
    folder, names = config.folder, config.competition
    if not os.path.isdir(folder) and names.bundled:
        bundled.write(names.bundled, folder)
    if not os.path.isdir(folder):
        raise FoldcraftError(
            "no such input folder", folder, "put the competition's files there or set competition.folder"
        )
    for key in ("train", "test", "sample"):
        image_files.check_inside([getattr(names, key)], f"competition.{key}")
        if not names.follow_links:
            image_files.check_links(folder, [folder / getattr(names, key)], f"competition.{key}")
    train = _read_train(folder / names.train, names)
    test = _read_csv(folder / names.test, names.id, [], by=_by(names)[1])
    answering = answers.read(names, train, test, folder)
    sample, rows = _read_sample(folder / names.sample, names, train, test, answering)
    parts = {"competition.image": (names.image, train), "competition.test_image": (names.test_image, test)}
    (train_paths, test_paths), missing, notes = image_files.find(folder, parts, names.follow_links)
    return Tables(names, folder, train, test, sample, train_paths, test_paths, missing, notes, rows, answering)


def _read_train(path: Path, names: CompetitionConfig) -> pd.DataFrame:
    """The training rows; of the columns that the settings name, those of groups and of several labels may have gaps."""
    table = _read_csv(path, names.id, [], by=_by(names)[0])
    needed = reading.needed_columns(names, list(map(str, table.columns)), path)
    gaps = set(needed) - {reading.settings_of(names).column} if not reading.may_be_empty(names) else set(needed)
    more = [column for column in (names.group, names.weight) if column]
    _check_columns(table, path, [column for column in needed if column not in gaps], [*sorted(gaps), *more])
    return table


def _by(names: CompetitionConfig) -> tuple[list[str], list[str]]:
    """Columns that answers are named by, of the training and of the test table."""
    return names.answer.columns if names.answer else ([], [])


def _read_csv(
    path: Path, id_column: str, columns: Sequence[str], gappy: Sequence[str] = (), by: Sequence[str] = ()
) -> pd.DataFrame:
    """A CSV as text: "07" stays "07", "NA" stays "NA"; cells of `gappy` columns may be empty.

    Args:
        by: columns of answers; rows of one answer may share an id, or have none.
    """
    if not os.path.isfile(path):
        raise FoldcraftError("no such file", path, "see 'competition' in the config for the names that are expected")
    frame = csv_file.read(path, id_column)
    if by:
        frame = answers.with_ids(frame, id_column, by, path)
    _check_columns(frame, path, [id_column, *columns], gappy)
    if frame.empty:
        raise FoldcraftError("no rows", path)
    if not by and (repeated := frame[id_column][frame[id_column].duplicated()].unique().tolist()):
        raise FoldcraftError(f"ids occur more than once: {listing(repeated)}", path, "keep one row an id")
    return frame


def _check_columns(frame: pd.DataFrame, path: Path, columns: Sequence[str], gappy: Sequence[str]) -> None:
    """See that columns are there, and that none of their cells is empty where they may not be."""
    for column in [*columns, *gappy]:
        if column not in frame.columns:
            known = suggest(column, list(map(str, frame.columns)))
            raise FoldcraftError(
                f"no column {column!r}, {known}", path, "name the column in the config's 'competition'"
            )
        empty = [str(row + 2) for row in np.flatnonzero(frame[column].str.strip() == "")]
        if empty and column not in gappy:
            raise FoldcraftError(
                f"column {column!r} is empty in line {listing(empty)}", path, "fill in or drop the rows"
            )


def _weights(table: pd.DataFrame, names: CompetitionConfig, path: Path) -> np.ndarray | None:
    """How much each training row counts (N,), 1 in the mean, where there is such a column.

    Raises:
        FoldcraftError: a cell is no number, or below 0; all are 0; they are asked for in the score and there are none.
    """
    if names.weight is None:
        if names.metric_weight and not getattr(names.target, "weight_by_votes", False):
            raise FoldcraftError("there are no weights", "competition.metric_weight", "name their column: weight: w")
        return None
    weights = pd.to_numeric(table[names.weight].str.strip(), errors="coerce").to_numpy(dtype=np.float64)
    if (wrong := ~np.isfinite(weights) | (weights < 0)).any():
        row = int(np.flatnonzero(wrong)[0])
        cell = shorten(table[names.weight].iloc[row], 40)
        what = (
            f"column {names.weight!r} is not a number from 0 on in {int(wrong.sum())} lines, first {row + 2}: {cell!r}"
        )
        raise FoldcraftError(what, path, "mend the cells, or leave competition.weight out")
    if not weights.any():
        raise FoldcraftError(f"column {names.weight!r} is 0 in all lines", path, "leave competition.weight out")
    return weights / weights.mean()


def _read_sample(
    path: Path, names: CompetitionConfig, train: pd.DataFrame, test: pd.DataFrame, answering: AnswerNames | None
) -> tuple[pd.DataFrame, SampleRows]:
    """The sample submission, and whose answers its rows are.

    Raises:
        FoldcraftError: its ids are neither those of the test rows nor made of these and the names of what is predicted.
    """
    settings = names.submission if isinstance(names.submission, SubmissionConfig) else SubmissionConfig()
    known = csv_file.read(path, names.id) if path.is_file() else pd.DataFrame()
    rows, wanted, id_column = None, test[names.id].tolist(), names.id

    def find(column: str, ids: Sequence[str]) -> SampleRows | None:
        return sample_rows.find(known, column, ids, lambda: _predicted(names, train), settings, path)

    if answering and len(known):
        rows = answers.match_sample(known, names, answering, find)
        wanted, id_column = answering.wanted, _by(names)[1][0] if _by(names)[1][0] in known.columns else names.id
    elif len(known):
        rows = find(names.id, wanted)
    sample = known if answering and rows else _read_csv(path, rows.column if rows else id_column, [])
    if rows is None:
        raise _strangers(set(sample[id_column]), set(wanted), names, path)
    if len(sample.columns) < 2:
        raise FoldcraftError("has no column beside the id", path)
    return sample, rows


def _predicted(names: CompetitionConfig, train: pd.DataFrame) -> tuple[str, ...]:
    """Names of what is predicted: classes, labels, columns."""
    return reading.read(names, train, Path(names.train)).target.heads


def _strangers(there: set[str], wanted: set[str], names: CompetitionConfig, path: Path) -> FoldcraftError:
    missing, extra = sorted(wanted - there), sorted(there - wanted)
    problems = [f"{len(missing)} ids of {names.test} are not in it ({listing(missing, 3)})"] if missing else []
    problems += [f"{len(extra)} of its ids are not in {names.test} ({listing(extra, 3)})"] if extra else []
    if not problems:
        hint = "leave row and form out"
        return FoldcraftError("its ids are those of the test rows, one a row", "competition.submission", hint)
    return FoldcraftError(" and ".join(problems), path, "both files must list the same test ids")
