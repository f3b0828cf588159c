"""A competition: its rows, what they are labelled, where their images lie, what answers it wants."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from foldcraft.common import fingerprint
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, counted, listing, shorten
from foldcraft.common.rows import positions
from foldcraft.data import metadata as metadata_columns
from foldcraft.data.groups import with_shared_files
from foldcraft.data.host_files import host_answers
from foldcraft.data.host_files.answers import Answering
from foldcraft.data.host_files.sample_rows import SubmissionRequest
from foldcraft.data.host_files.tables import Tables, read_tables
from foldcraft.data.images import image_paths
from foldcraft.data.images.sources import Source, is_there, missing_file, name_in
from foldcraft.data.metadata import Metadata
from foldcraft.data.submission_forms.request import FileRequest
from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.target import Target
from foldcraft.data.training_rows import TrainingRows
from foldcraft.metrics import host_metric, scores
from foldcraft.metrics.scores import Metric
from foldcraft.metrics.spaces import ClassSpace, Space

LONGEST_LINE, LONGEST_NAME = 260, 30  # characters of a message without its place, and of an image's name in it
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
        host_folds: the host's own, as written (N,), where `folds.column` names them.
        written_groups: as the table has them, where they differ.
        tables: that it was made of.
        metadata, test_metadata: what the tables say of each row beside its image; None: nothing is asked for.
        answering: where several rows make one answer, which; `answers` is the competition of these.
        more_samples: beside the first, where the host wants several files.
    """

    name: str
    metric: Metric
    target: Target
    train_ids: np.ndarray
    groups: np.ndarray | None
    train_paths: tuple[Source, ...]
    test_ids: np.ndarray
    test_paths: tuple[Source, ...]
    sample: pd.DataFrame
    id_column: str
    image_notes: tuple[str, ...] = ()
    written_groups: np.ndarray | None = None
    weights: np.ndarray | None = None
    score_weights: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    submission: SubmissionRequest = field(default_factory=SubmissionRequest)
    metadata: Metadata | None = None
    test_metadata: Metadata | None = None
    host_folds: np.ndarray | None = None
    tables: Tables | None = field(default=None, repr=False, compare=False)
    answering: Answering | None = None
    more_samples: tuple[tuple[pd.DataFrame, SubmissionRequest], ...] = ()

    @cached_property
    def answers(self) -> "Competition":
        """What is judged and submitted, a row an answer; itself where each row is one.

        An answer's picture and metadata are those of its first image; it weighs as much as its images do in the mean.
        """
        if self.answering is None:
            return self
        made, first = self.answering, self.answering.first
        is_same = len(first) == len(self.train_ids)
        grouped = self.groups is not None and (is_same or len(set(self.groups.tolist())) < len(first))
        return replace(
            self,
            target=self.target.at(first),
            train_ids=made.train_ids,
            groups=self.groups[first] if grouped else None,
            train_paths=tuple(self.train_paths[row] for row in first),
            test_ids=made.test_ids,
            test_paths=tuple(self.test_paths[row] for row in made.first_test),
            metadata=None if self.metadata is None else self.metadata.at(first),
            test_metadata=None if self.test_metadata is None else self.test_metadata.at(made.first_test),
            written_groups=None,
            weights=made.mean(self.weights),
            score_weights=made.mean(self.score_weights),
            host_folds=None,
            answering=None,
        )

    def counted(self, answers: np.ndarray | None = None, thing: str = "row") -> str:
        """How many rows there are in training: 88 rows; or answers, all or some of them: 44 answers of 88 images."""
        if self.answering is None:
            return counted(len(self.train_ids) if answers is None else len(answers), thing)
        images = np.bincount(self.answering.train)
        some = images if answers is None else images[answers]
        return f"{counted(len(some), 'answer')} of {counted(int(some.sum()), 'image')}"

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

    @property
    def file_requests(self) -> list[FileRequest]:
        """What the form of each file of the submission is told by; of the competition of answers."""
        metric = self.metric
        told_by = (metric.wants, metric.name if metric.classes == 2 else "")
        more = [(sample, wanted.rows.column, wanted) for sample, wanted in self.more_samples]
        samples = [(self.sample, self.id_column, self.submission), *more]
        return [FileRequest(self.target, *about, *told_by) for about in samples]

    def score(self, predicted: np.ndarray, rows: np.ndarray | None = None) -> float:
        """In the metric, of stored predictions (N, W) of all training rows or of some."""
        rows = np.arange(len(self.train_ids)) if rows is None else rows
        weights = None if self.score_weights is None else self.score_weights[rows]
        return self.metric(self.targets[rows], self.space.scored(predicted), weights)

    @property
    def learned_identity(self) -> list[object]:
        """What a training depends on beside ids, labels and groups; of one label a row nothing."""
        weights = [] if self.weights is None else [fingerprint.of_bytes(np.ascontiguousarray(self.weights).tobytes())]
        beside = [] if self.metadata is None else [self.metadata.identity]
        return [*self.target.identity, *weights, *beside]

    @cached_property
    def test_fingerprint(self) -> str:
        """Digest of the test ids."""
        return fingerprint.of_rows((test_id,) for test_id in self.test_ids.tolist())

    def paths(self, part: str) -> tuple[Source, ...]:
        """What the images of a part, "train" or "test", are or should be made of, one a row."""
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


def read(config: Config, images_of: Sequence[str] = PARTS, trained: TrainingRows | None = None) -> Competition:
    """Read and check a competition folder.

    Args:
        images_of: parts whose images must be there.
        trained: the training rows, where they are not to be read.

    Raises:
        FoldcraftError: folder, file or column missing; duplicate or empty ids; empty labels; a single class, or more
            than the metric is made for; images missing (all are named at once); a sample submission whose ids are not
            those of the test set.
    """
    return whole(read_tables(config, trained), config, images_of)


def whole(rows: Tables, config: Config, images_of: Sequence[str] = PARTS) -> Competition:
    """The competition of tables none of whose images, of some parts, is missing.

    Raises:
        FoldcraftError: images are missing; or as `of`.
    """
    competition = of(rows)
    if rows.missing:
        check_images(competition, rows.folder, images_of, config.images.on_error == "baseline")
    return competition


def of(rows: Tables) -> Competition:
    """The competition of some rows.

    Raises:
        FoldcraftError: a single class, or more than the metric is made for.
    """
    read, names, weights = rows.read_target, rows.names, rows.weights
    id_column = rows.sample_rows.column if rows.sample_rows else names.test_id
    metric = _metric(rows, read.target, id_column)
    groups, made = with_shared_files(rows.groups, rows.train_ids, rows.train_paths), _answering(rows)
    files = (rows.folder / names.train, rows.folder / names.test)
    beside, test_beside = metadata_columns.both(names.metadata, (rows.train, rows.test), files)
    notes = [] if beside is None else [beside.describe()]
    return Competition(
        name=names.name,
        metric=metric,
        target=read.target,
        train_ids=rows.train_ids,
        weights=weights,
        score_weights=weights if names.metric_weight else None,
        notes=(*read.notes, *metric.notes, *notes),
        groups=made.joined(groups) if made else groups,
        written_groups=None if made else rows.groups_to_tell_by,
        train_paths=rows.train_paths,
        test_ids=rows.test_ids,
        test_paths=rows.test_paths,
        sample=rows.sample,
        id_column=id_column,
        submission=rows.request,
        host_folds=rows.host_folds,
        tables=rows,
        image_notes=rows.image_notes,
        metadata=beside,
        test_metadata=test_beside,
        answering=made,
        more_samples=tuple((one.sample, w) for one, w in zip(rows.more_samples, rows.more_requests, strict=True)),
    )


def _answering(rows: Tables) -> Answering | None:
    """Which rows make one answer.

    Raises:
        FoldcraftError: rows of one answer have unequal labels, or are of different groups.
    """
    if rows.answers is None:
        return None
    target, where = rows.read_target.target, rows.folder / rows.names.train
    made = Answering.of(rows.answers, rows.names, target.space.names)
    made.check_labels(target.written, lambda some: target.in_words(target.truth[some]), where)
    if rows.groups is not None:
        made.check_groups(rows.groups, rows.has_group, where)
    return made


def check_images(competition: Competition, folder: Path, parts: Sequence[str] = PARTS, spare: bool = False) -> None:
    """See that the images of some parts are there.

    Args:
        spare: test images may be missing, but not all of them.

    Raises:
        FoldcraftError: some are not; how many, the first of them, and what is nearest to the first.
    """
    missing = {part: [source for source in competition.paths(part) if not is_there(source)] for part in parts}
    if spare and len(missing.get("test", ())) < len(competition.test_paths):
        missing.pop("test", None)
    gone = [missing_file(source) for sources in missing.values() for source in sources]
    if names := [name_in(path, folder) for path in gone if path]:
        raise _missing(names, folder, not missing.get("train"))


def _missing(names: Sequence[str], folder: Path, spares: bool) -> FoldcraftError:
    """As many names as a line has room for beside what is nearest to the first.

    Args:
        spares: could `images.on_error` spare all of them?
    """
    nearest, distinct = image_paths.Folder(folder).nearest(names[0]), list(dict.fromkeys(names))
    mend = "mend the files, or competition.image and test_image"
    mend += ", or set images.on_error=baseline" if spares else ""
    for most, near in ((5, nearest), (3, nearest), (1, nearest), (1, nearest.split(", ")[0]), (1, "")):
        shown = listing([shorten(name, LONGEST_NAME) for name in distinct], most)
        hint = f"{near}: {mend}" if near else mend
        hint += "; src/audit.py lists them all" if len(distinct) > most else ""
        what = f"{counted(len(names), 'image')} {'is' if len(names) == 1 else 'are'} missing: {shown}"
        if len(what) + len(hint) < LONGEST_LINE:
            break
    return FoldcraftError(what, folder, hint)


def _metric(rows: Tables, target: Target, id_column: str) -> Metric:
    if host_metric.is_one(rows.names.metric):
        if rows.more_samples:
            what = "a host's code is given tables of one sample, and there are several"
            raise FoldcraftError(what, "competition.metric", "name a metric of docs/metrics.md, or one sample")
        return host_answers.metric_of(rows.names, target, rows.folder, rows.sample, id_column, rows.request)
    widths = target.space.widths if isinstance(target.space, ClassSpace) else ()
    return scores.get(rows.names.metric, target.kind, target.heads, widths)
