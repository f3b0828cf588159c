"""The tables of a competition folder: which rows there are, and where their images lie."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from foldcraft.common.config import CompetitionConfig, Config, SubmissionConfig
from foldcraft.common.errors import FoldcraftError, listing, shorten, suggest
from foldcraft.data import bundled
from foldcraft.data.groups import joined, with_shared_files
from foldcraft.data.host_files import answer_sample, answers, host_rows, plain_sample, reshape, row_places, sample_rows
from foldcraft.data.host_files.answers import AnswerNames
from foldcraft.data.host_files.host_rows import HostRows
from foldcraft.data.host_files.sample_rows import MoreSample, SampleRows, SubmissionRequest
from foldcraft.data.images import image_sources, shared_images, tiles
from foldcraft.data.images.image_sources import ImageRequest
from foldcraft.data.images.sources import Source
from foldcraft.data.targets import reading
from foldcraft.data.targets.reading import ReadTarget
from foldcraft.data.training_rows import TrainingRows

NO_GROUP = frozenset(("", "nan", "na", "n/a", "<na>", "#n/a", "#na", "nat", "null", "none", "-nan"))


@dataclass(frozen=True)
class Tables:
    """The rows of a competition folder, and the file that the image of each is, or should be, in.

    Attributes:
        names: with all that `auto` took written out.
        train, test, sample: as text; columns that are always there and derived ones among them.
        train_paths, test_paths: what each row's image is made of; a file that is missing has the path that the template
            gives it.
        missing: what the templates ask for and the folder lacks.
        image_notes: what there is to say of how tables and files were found and read, a line each.
        fold_column: that holds the host's own folds.
        test_is_sample: were the test rows taken from the sample's ids?
        answers: where several rows make one answer, which.
        trained: what was kept of the training rows, where they come from that.
        more_samples: that ask for other parts of what is predicted.
    """

    names: CompetitionConfig
    folder: Path
    train: pd.DataFrame
    test: pd.DataFrame
    sample: pd.DataFrame
    train_paths: tuple[Source, ...]
    test_paths: tuple[Source, ...]
    missing: tuple[str, ...]
    image_notes: tuple[str, ...] = ()
    sample_rows: SampleRows | None = None
    test_is_sample: bool = False
    fold_column: str | None = None
    answers: AnswerNames | None = None
    trained: TrainingRows | None = None
    more_samples: tuple[MoreSample, ...] = ()

    @property
    def training_rows(self) -> TrainingRows:
        """What the settings ask of the training rows, to be kept."""
        return self.trained or TrainingRows.of(self.names, self.train, self.train_paths, self.folder, self.fold_column)

    @property
    def train_ids(self) -> np.ndarray:
        """Ids of the training rows (N,)."""
        return self.answers.train_ids if self.answers else self.train[self.names.train_id].to_numpy(dtype=str)

    @property
    def test_ids(self) -> np.ndarray:
        """Ids of the test rows (M,)."""
        return self.answers.test_ids if self.answers else self.test[self.names.test_id].to_numpy(dtype=str)

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
        cells = [self.train[name].fillna("").to_numpy(dtype=str) for name in self.names.groups]
        return joined(cells, NO_GROUP) if cells else None

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
        several = bool(self.more_samples)
        return self._request(self.sample, self.sample_rows, self.names.sample_file, several)

    @property
    def more_requests(self) -> tuple[SubmissionRequest, ...]:
        """The same of the samples beside the first."""
        return tuple(self._request(one.sample, one.rows, one.file, True) for one in self.more_samples)

    def _request(self, sample: pd.DataFrame, rows: SampleRows | None, file: str, several: bool) -> SubmissionRequest:
        names = self.names
        is_test = file == names.test and not self.test_is_sample
        settings = names.submission if isinstance(names.submission, SubmissionConfig) else SubmissionConfig()
        ordered = names.order is not None or getattr(names.target, "order", None) is not None
        # Of a sample that is the test table, what the training table has too is no answer.
        known = set(self.train.columns) if self.trained is None else self.trained.columns
        columns = known if is_test else set(self.test.columns)
        alone = len(sample.columns) == 2 and not is_test  # then it is the answer, whatever the test table has
        given = () if alone else tuple(name for name in sample.columns if name in columns)
        k = names.metric.get("k") if isinstance(names.metric, dict) else None
        return SubmissionRequest(settings, rows, given, ordered, k, file if several else "")

    @property
    def host_folds(self) -> np.ndarray | None:
        """The host's fold of each training row (N,) as it is written, where such a column is named."""
        return self.train[self.fold_column].to_numpy(dtype=str) if self.fold_column else None

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


def read_tables(config: Config, trained: TrainingRows | None = None) -> Tables:
    """Read and check the CSVs of a competition folder; images may be missing.

    Args:
        trained: the training rows, where they are not to be read.

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
    as_handed_out = host_rows.read(folder, names, trained)
    rows = answers.with_all_ids(tiles.unfolded(as_handed_out, has_tiles=trained is not None), folder)
    names = rows.names
    _check_train(rows.train, folder / names.train, names)
    if config.folds.column is not None:
        _check_columns(rows.train, folder / names.train, [config.folds.column], ())
    made = answers.read(names, rows.train, rows.test, folder)
    samples = [_with_answers(one, made, folder) if made else _with_sample(one, folder) for one in rows.each()]
    test, sample, asked = samples[0]
    of_files = zip(names.sample_files[1:], samples[1:], strict=True) if rows.more else ()
    more = tuple(MoreSample(file, *found[1:]) for file, found in of_files)
    parts = {
        "competition.image": ImageRequest(
            names.image, rows.train, names.train, {"@id": names.train_id, **_the_target(names)}
        ),
        "competition.test_image": ImageRequest(names.test_image, test, names.test, {"@id": names.test_id}),
    }
    if trained is not None:
        del parts["competition.image"]
    as_floats = trained is not None and trained.as_floats
    found, missing, notes = image_sources.find(folder, parts, names.follow_links, as_floats)
    train_paths = found[0] if trained is None else trained.sources(folder)
    paths = train_paths, found[-1], missing, (*rows.notes, *notes, *shared_images.notes(train_paths, found[-1], folder))
    about = (asked, rows.test_is_sample, config.folds.column, made, trained, more)
    return Tables(names, folder, rows.train, test, sample, *paths, *about)


def _the_target(names: CompetitionConfig) -> dict[str, str]:
    column = reading.settings_of(names).column
    return {} if column is None else {"@target": column}


def _check_train(table: pd.DataFrame, path: Path, names: CompetitionConfig) -> None:
    """See to the training rows; of the columns that the settings name, groups and several labels may have gaps."""
    _check_rows(table, path, names.train_id, names.answer is not None)
    needed = reading.needed_columns(names, list(map(str, table.columns)), path)
    if names.train_id in needed:
        what = f"{shorten(names.train_id, 60)!r} is the id of the rows as well"
        raise FoldcraftError(what, "competition.target", "name the column that is predicted, or another id")
    gaps = set(needed) - {reading.settings_of(names).column} if not reading.may_be_empty(names) else set(needed)
    more = [*names.groups, *([names.weight] if names.weight else [])]
    _check_columns(table, path, [column for column in needed if column not in gaps], [*sorted(gaps), *more])


def _check_rows(frame: pd.DataFrame, path: Path, id_column: str, twins: bool = False) -> None:
    """See that every row has an id, and where there may be no twins one of its own."""
    _check_columns(frame, path, [id_column], ())
    if frame.empty:
        raise FoldcraftError("no rows", path)
    if not twins and (repeated := frame[id_column][frame[id_column].duplicated()].unique().tolist()):
        shown = listing([shorten(name, 60) for name in repeated], 3)
        hint = "name a column that differs in all rows, or number them: competition.id={train: row, test: ID}"
        raise FoldcraftError(f"ids occur more than once: {shown}", path, hint)


def _check_columns(frame: pd.DataFrame, path: Path, columns: Sequence[str], gappy: Sequence[str]) -> None:
    """See that columns are there, and that none of their cells is empty where they may not be."""
    for column in [*columns, *gappy]:
        if column not in frame.columns:
            known = suggest(column, row_places.told(frame))
            raise FoldcraftError(
                f"no column {shorten(column, 60)!r}, {known}", path, "name the column in the config's 'competition'"
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


def _with_sample(rows: HostRows, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, SampleRows]:
    """The test rows, the sample submission, and whose answers the sample's rows are.

    Rows of one test id are one where the sample asks for several answers of each.

    Raises:
        FoldcraftError: ids of the sample are neither those of the test rows nor made of these and the names of what is
            predicted; a test id occurs twice.
    """
    names, test = rows.names, rows.test
    path, place = folder / names.sample_file, folder / names.test
    settings = names.submission if isinstance(names.submission, SubmissionConfig) else SubmissionConfig()
    if names.test_id not in test.columns:
        _check_rows(test, place, names.test_id)
    is_once = not test[names.test_id].duplicated().any()
    once = test if is_once else reshape.distinct(test, names.test_id)
    if rows.sample is None:
        _check_rows(test, place, names.test_id)
        sample = plain_sample.of(names, rows.train, test)
        return test, sample, SampleRows(names.test_id, sample[names.test_id].to_numpy(dtype=str))
    sample, found = rows.sample, None
    if rows.by_order:
        _check_rows(test, place, names.test_id)
        found = sample_rows.by_order(sample, names.test_id, test[names.test_id].to_numpy(dtype=str), path)
    elif len(sample):
        wanted = once[names.test_id].tolist()
        found = sample_rows.find(sample, names.test_id, wanted, lambda: _predicted(names, rows.train), settings, path)
    if not is_once and found is not None and found.parts is not None:
        test = once
    _check_rows(test, place, names.test_id)
    if not rows.by_order:
        _check_rows(sample, path, found.column if found else names.test_id)
    if found is None:
        raise _strangers(set(sample[names.test_id]), set(test[names.test_id]), names, path)
    if len(sample.columns) < 2 and found.column in sample.columns:
        raise FoldcraftError("has no column beside the id", path)
    return test, sample, found


def _with_answers(rows: HostRows, made: AnswerNames, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, SampleRows]:
    """As `_with_sample`, where several test rows make one answer.

    Raises:
        FoldcraftError: the sample asks neither for the answers nor for the test rows.
    """
    names = rows.names
    path, column = folder / names.sample_file, answer_sample.column_of(names)
    _check_rows(rows.test, folder / names.test, names.test_id, twins=True)
    sample, found = answer_sample.match(rows, made, path, lambda: _predicted(names, rows.train))
    if found is None:
        column = next((name for name in (column, names.test_id) if name in sample.columns), sample.columns[0])
        raise _strangers(set(sample[column]), set(made.wanted), names, path)
    if len(sample.columns) < 2 and found.column in sample.columns:
        raise FoldcraftError("has no column beside the id", path)
    return rows.test, sample, found


def _predicted(names: CompetitionConfig, train: pd.DataFrame) -> tuple[str, ...]:
    """Names of what is predicted: classes, labels, columns."""
    return reading.read(names, train, Path(names.train)).target.heads


def _strangers(there: set[str], wanted: set[str], names: CompetitionConfig, path: Path) -> FoldcraftError:
    missing, extra = sorted(wanted - there), sorted(there - wanted)
    problems = [f"{len(missing)} ids of {names.test} are not in it ({_some(missing)})"] if missing else []
    problems += [f"{len(extra)} of its ids are not in {names.test} ({_some(extra)})"] if extra else []
    if not problems:
        hint = "leave row and form out"
        return FoldcraftError("its ids are those of the test rows, one a row", "competition.submission", hint)
    return FoldcraftError(" and ".join(problems), path, "both files must list the same test ids")


def _some(ids: Sequence[str]) -> str:
    return listing([shorten(name, 40) for name in ids], 2)
