"""A competition folder: which rows there are, what they are labelled, where their images lie."""

import os
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from foldcraft.common import csv_file, fingerprint
from foldcraft.common.config import CompetitionConfig, Config, SubmissionConfig
from foldcraft.common.errors import FoldcraftError, listing, shorten, suggest
from foldcraft.common.rows import positions
from foldcraft.data import bundled, host_answers, image_paths, sample_rows
from foldcraft.data.sample_rows import SampleRows, SubmissionRequest
from foldcraft.data.targets import reading
from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.reading import ReadTarget
from foldcraft.data.targets.target import Target
from foldcraft.metrics import host_metric, scores
from foldcraft.metrics.scores import Metric
from foldcraft.metrics.spaces import ClassSpace, Space

FIELD = re.compile(r"\{([^{}]*)\}")
NO_GROUP = frozenset(("", "nan", "na", "n/a", "<na>", "#n/a", "#na", "nat", "null", "none", "-nan"))
PARTS = ("train", "test")


@dataclass(frozen=True)
class Competition:
    """Rows of a competition; every array of `train_*` has one entry a training row.

    Attributes:
        weights: how much each training row counts in training (N,); None: all alike.
        score_weights: the same in the score.
        id_column: of the sample.
        submission: what else is known of the file that the host wants.
        notes: what was taken of the target without being asked for, a line each.
        groups: of the training rows; one whose group is missing has a group of its own.
        written_groups: as the table has them, where they differ.
    """

    name: str
    metric: Metric
    target: Target
    train_ids: np.ndarray
    groups: np.ndarray | None
    train_paths: tuple[Path, ...]
    test_ids: np.ndarray
    test_paths: tuple[Path, ...]
    sample: pd.DataFrame
    id_column: str
    image_notes: tuple[str, ...] = ()
    written_groups: np.ndarray | None = None
    weights: np.ndarray | None = None
    score_weights: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    submission: SubmissionRequest = field(default_factory=SubmissionRequest)

    @property
    def classes(self) -> Classes:
        """Names of what is predicted: the classes of a single label, else labels or columns."""
        return self.target.classes

    @property
    def targets(self) -> np.ndarray:
        """The truth of the training rows: class indices (N,) of a single label, else as the target has it (N, ·)."""
        return self.target.truth

    @property
    def space(self) -> Space:
        """The form of stored predictions."""
        return self.target.space

    @cached_property
    def fingerprint(self) -> str:
        """Digest of training ids, labels and groups as written: what folds and OOF predictions are made for."""
        groups = self.units if self.written_groups is None else self.written_groups
        return fingerprint.of_rows(zip(self.train_ids.tolist(), self.target.written, groups.tolist(), strict=True))

    def score(self, predicted: np.ndarray, rows: np.ndarray | None = None) -> float:
        """In the metric, of stored predictions (N, W) of all training rows or of some."""
        rows = np.arange(len(self.train_ids)) if rows is None else rows
        weights = None if self.score_weights is None else self.score_weights[rows]
        return self.metric(self.targets[rows], self.space.scored(predicted), weights)

    @property
    def learned_identity(self) -> list[object]:
        """What a training depends on beside ids, labels and groups; of one label a row nothing."""
        weights = [] if self.weights is None else [fingerprint.of_bytes(np.ascontiguousarray(self.weights).tobytes())]
        return [*self.target.identity, *weights]

    @cached_property
    def test_fingerprint(self) -> str:
        """Digest of the test ids."""
        return fingerprint.of_rows((test_id,) for test_id in self.test_ids.tolist())

    def paths(self, part: str) -> tuple[Path, ...]:
        """Where the images of a part, "train" or "test", lie or should lie, one a row."""
        return self.train_paths if part == "train" else self.test_paths

    def train_rows(self, ids: np.ndarray) -> np.ndarray:
        """Places (M,) of training ids.

        Raises:
            KeyError: an id is not among them.
        """
        return positions(self.train_ids, ids)

    @cached_property
    def score_unit(self) -> float:
        """What differences of the score are measured in: 1, but for errors of values the error without images."""
        if self.metric.wants != "values" or self.metric.greater_is_better:
            return 1.0
        return self.score(np.tile(self.target.baseline(), (len(self.train_ids), 1))) or 1.0

    @property
    def units(self) -> np.ndarray:
        """What may be drawn independently of each other (N,): the groups, or the rows where there are none."""
        return self.groups if self.groups is not None else self.train_ids


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

    @property
    def train_ids(self) -> np.ndarray:
        """Ids of the training rows (N,)."""
        return self.train[self.names.id].to_numpy(dtype=str)

    @property
    def test_ids(self) -> np.ndarray:
        """Ids of the test rows (M,)."""
        return self.test[self.names.id].to_numpy(dtype=str)

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

    def _request(self) -> SubmissionRequest:
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

    def _groups_to_tell_by(self) -> np.ndarray | None:
        """What the fingerprint is of where groups are missing: what was once taken for groups all the same."""
        if self.has_group.all():
            return None
        return with_shared_files(self.written_groups, self.train_ids, self.train_paths)

    def only(self, train: np.ndarray, test: np.ndarray) -> "Tables":
        """The rows that two masks, (N,) and (M,), keep."""
        paths = [path for path, kept in zip(self.train_paths, train, strict=True) if kept]
        test_paths = [path for path, kept in zip(self.test_paths, test, strict=True) if kept]
        return replace(
            self, train=self.train[train], test=self.test[test], train_paths=tuple(paths), test_paths=tuple(test_paths)
        )

    def competition(self) -> Competition:
        """The competition of these rows.

        Raises:
            FoldcraftError: a single class, or more than the metric is made for.
        """
        read = self.read_target
        weights = _weights(self.train, self.names, self.folder / self.names.train)
        if read.weights is not None:
            weights = read.weights if weights is None else weights * read.weights
        metric = _metric(self.names, read.target, self.folder, self.sample)
        return Competition(
            name=self.names.name,
            metric=metric,
            target=read.target,
            train_ids=self.train_ids,
            weights=weights,
            score_weights=weights if self.names.metric_weight else None,
            notes=(*read.notes, *metric.notes),
            groups=with_shared_files(self.groups, self.train_ids, self.train_paths),
            written_groups=self._groups_to_tell_by(),
            train_paths=self.train_paths,
            test_ids=self.test_ids,
            test_paths=self.test_paths,
            sample=self.sample,
            id_column=self.sample_rows.column if self.sample_rows else self.names.id,
            submission=self._request(),
            image_notes=self.image_notes,
        )


def with_shared_files(groups: np.ndarray | None, ids: np.ndarray, paths: Sequence[Path]) -> np.ndarray | None:
    """The groups (N,) with all rows of one file in one of them; as they are where each row has a file of its own.

    Of the names of groups, or of ids where there are no groups, the one that sorts first stays.
    """
    return groups if len(set(paths)) == len(paths) else joined_groups(ids if groups is None else groups, paths)


def joined_groups(names: np.ndarray, keys: Sequence[Hashable | None]) -> np.ndarray:
    """Groups (N,) of which all that have rows of the same key are one; it bears the name that sorts first.

    Args:
        keys: one a row; None joins nothing.
    """
    parent = dict(zip(names.tolist(), names.tolist(), strict=True))

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    first: dict[Hashable, str] = {}
    for name, key in zip(names.tolist(), keys, strict=True):
        if key is not None:
            both = sorted((root(first.setdefault(key, name)), root(name)))
            parent[both[1]] = both[0]
    return np.array([root(name) for name in names.tolist()])


def read(config: Config, images_of: Sequence[str] = PARTS) -> Competition:
    """Read and check a competition folder.

    Args:
        images_of: parts whose images must be there.

    Raises:
        FoldcraftError: folder, file or column missing; duplicate or empty ids; empty labels; a single class, or more
            than the metric is made for; images missing (all are named at once); a sample submission whose ids are not
            those of the test set.
    """
    return whole(read_tables(config), config, images_of)


def whole(tables: Tables, config: Config, images_of: Sequence[str] = PARTS) -> Competition:
    """The competition of tables none of whose images, of some parts, is missing.

    Raises:
        FoldcraftError: images are missing; or as `Tables.competition`.
    """
    competition = tables.competition()
    if tables.missing:
        check_images(competition, tables.folder, images_of, config.images.on_error == "baseline")
    return competition


def check_images(competition: Competition, folder: Path, parts: Sequence[str] = PARTS, spare: bool = False) -> None:
    """See that the images of some parts are there.

    Args:
        spare: test images may be missing, but not all of them.

    Raises:
        FoldcraftError: some are not; how many, the first of them, and what is nearest to the first.
    """
    missing = {part: [path for path in competition.paths(part) if not path.is_file()] for part in parts}
    if spare and len(missing.get("test", ())) < len(competition.test_paths):
        missing.pop("test", None)
    if names := [str(path.relative_to(folder)) for paths in missing.values() for path in paths]:
        nearest = image_paths.Folder(folder).nearest(names[0])
        hint = "mend the files, or competition.image and test_image; src/audit.py lists them all"
        hint = f"{nearest}: {hint}" if nearest else hint
        if not missing.get("train"):
            hint += ", or set images.on_error=baseline, which spares some test images"
        what = f"{len(names)} images are missing: {listing([shorten(name, 30) for name in names], 5)}"
        raise FoldcraftError(what, folder, hint)


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
        _check_inside([getattr(names, key)], f"competition.{key}")
        if not names.follow_links:
            _check_links(folder, [folder / getattr(names, key)], f"competition.{key}")
    train = _read_train(folder / names.train, names)
    test = _read_csv(folder / names.test, names.id, [])
    sample, rows = _read_sample(folder / names.sample, names, train, test)
    parts = {"competition.image": (names.image, train), "competition.test_image": (names.test_image, test)}
    (train_paths, test_paths), missing, notes = _find_images(folder, parts, names.follow_links)
    return Tables(names, folder, train, test, sample, train_paths, test_paths, missing, notes, rows)


def _read_train(path: Path, names: CompetitionConfig) -> pd.DataFrame:
    """The training rows; of the columns that the settings name, those of groups and of several labels may have gaps."""
    table = _read_csv(path, names.id, [])
    needed = reading.needed_columns(names, list(map(str, table.columns)), path)
    gaps = set(needed) - {reading.settings_of(names).column} if not reading.may_be_empty(names) else set(needed)
    more = [column for column in (names.group, names.weight) if column]
    _check_columns(table, path, [column for column in needed if column not in gaps], [*sorted(gaps), *more])
    return table


def _read_csv(path: Path, id_column: str, columns: Sequence[str], gappy: Sequence[str] = ()) -> pd.DataFrame:
    """A CSV as text: "07" stays "07", "NA" stays "NA"; cells of `gappy` columns may be empty."""
    if not os.path.isfile(path):
        raise FoldcraftError("no such file", path, "see 'competition' in the config for the names that are expected")
    frame = csv_file.read(path, id_column)
    _check_columns(frame, path, [id_column, *columns], gappy)
    if frame.empty:
        raise FoldcraftError("no rows", path)
    if repeated := frame[id_column][frame[id_column].duplicated()].unique().tolist():
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


def _metric(names: CompetitionConfig, target: Target, folder: Path, sample: pd.DataFrame) -> Metric:
    if host_metric.is_one(names.metric):
        return host_answers.metric_of(names, target, folder, sample)
    widths = target.space.widths if isinstance(target.space, ClassSpace) else ()
    return scores.get(names.metric, target.kind, target.heads, widths)


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
    path: Path, names: CompetitionConfig, train: pd.DataFrame, test: pd.DataFrame
) -> tuple[pd.DataFrame, SampleRows]:
    """The sample submission, and whose answers its rows are.

    Raises:
        FoldcraftError: its ids are neither those of the test rows nor made of these and the names of what is predicted.
    """
    settings = names.submission if isinstance(names.submission, SubmissionConfig) else SubmissionConfig()
    known = csv_file.read(path, names.id) if path.is_file() else pd.DataFrame()
    rows = None
    if len(known):
        wanted = test[names.id].tolist()
        rows = sample_rows.find(known, names.id, wanted, lambda: _predicted(names, train), settings, path)
    sample = _read_csv(path, rows.column if rows else names.id, [])
    if rows is None:
        raise _strangers(sample, test, names, path)
    if len(sample.columns) < 2:
        raise FoldcraftError("has no column beside the id", path)
    return sample, rows


def _predicted(names: CompetitionConfig, train: pd.DataFrame) -> tuple[str, ...]:
    """Names of what is predicted: classes, labels, columns."""
    return reading.read(names, train, Path(names.train)).target.heads


def _strangers(sample: pd.DataFrame, test: pd.DataFrame, names: CompetitionConfig, path: Path) -> FoldcraftError:
    missing = sorted(set(test[names.id]) - set(sample[names.id]))
    extra = sorted(set(sample[names.id]) - set(test[names.id]))
    problems = [f"{len(missing)} ids of {names.test} are not in it ({listing(missing, 3)})"] if missing else []
    problems += [f"{len(extra)} of its ids are not in {names.test} ({listing(extra, 3)})"] if extra else []
    if not problems:
        hint = "leave row and form out"
        return FoldcraftError("its ids are those of the test rows, one a row", "competition.submission", hint)
    return FoldcraftError(" and ".join(problems), path, "both files must list the same test ids")


def _find_images(
    folder: Path, parts: dict[str, tuple[str, pd.DataFrame]], follow_links: bool
) -> tuple[list[tuple[Path, ...]], tuple[str, ...], tuple[str, ...]]:
    """The image of every row of each part (template and rows, by the template's key), the names of missing ones, notes.

    An extension that a template leaves out is looked up in the folder.
    """
    wanted = {key: _image_names(template, rows, key) for key, (template, rows) in parts.items()}
    for key, names in wanted.items():
        _check_inside([*names, *map(image_paths.with_slashes, names)], key)
    files = image_paths.Folder(folder)
    found, missing, notes = [], [], []
    for key, names in wanted.items():
        look = files.find(names)
        missing += [name for name, path in zip(names, look.paths, strict=True) if path is None]
        notes += [image_paths.describe(look.respelled, folder, key)] if look.respelled else []
        found.append(tuple(path or folder / name for name, path in zip(names, look.paths, strict=True)))
        if not follow_links:
            _check_links(folder, found[-1], key)
    return found, tuple(missing), tuple(notes)


def _check_inside(names: Sequence[str], key: str) -> None:
    """See that files named in a config or a table lie in the competition's folder."""
    if outside := [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]:
        raise FoldcraftError(f"paths leave the input folder: {listing(outside, 3)}", key, "put the files into it")


def _check_links(folder: Path, paths: Sequence[Path], key: str) -> None:
    """See that no symbolic link in the competition's folder leads out of it; the folder itself may be one."""
    home = Path(os.path.realpath(folder))
    folders = {
        parent: Path(os.path.realpath(parent)) for parent in {path.parent for path in paths}
    }  # many files, few folders
    real = (
        (path, Path(os.path.realpath(path)) if os.path.islink(path) else folders[path.parent] / path.name)
        for path in paths
    )
    if outside := [path for path, place in real if not place.is_relative_to(home)]:
        raise FoldcraftError(
            f"{len(outside)} files lie elsewhere, behind a symbolic link: {listing(outside, 3)}",
            key,
            "copy them here, or set competition.follow_links=true if the link is yours",
        )


def _image_names(template: str, rows: pd.DataFrame, key: str) -> list[str]:
    """The template filled in for every row."""
    fields = FIELD.findall(template)
    if set("{}") & set(FIELD.sub("", template)):
        raise FoldcraftError(f"{template!r} has a brace without its other half", key)
    if unknown := [field for field in fields if field not in rows.columns]:
        raise FoldcraftError(f"no column for {{{unknown[0]}}}", key, suggest(unknown[0], list(map(str, rows.columns))))
    columns = {field: rows[field].tolist() for field in fields}
    return [FIELD.sub(lambda field, row=row: columns[field[1]][row], template) for row in range(len(rows))]
