"""The rows of a competition as files and settings make them: read, joined, unfolded, pivoted, derived."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from foldcraft.common.config import CompetitionConfig, IdConfig, SampleConfig
from foldcraft.common.errors import FoldcraftError, listing, shorten
from foldcraft.data.host_files import derive, file_rows, reshape, row_places, table_file, templates
from foldcraft.data.host_files.derive import Derived
from foldcraft.data.images import image_files
from foldcraft.data.images.image_kinds import ALL_SUFFIXES
from foldcraft.data.targets import reading
from foldcraft.data.training_rows import TrainingRows

KEY = "competition"
NONE, AUTO = "none", "auto"
SAMPLE, TEST = "sample_submission", "test"
TEST_FOLDERS = ("test", "test_images", "images/test", "test/images", "testing", "test_set", "test_data")
TRAIN_IMAGE, TEST_IMAGE = "train/{@id}", "test/{@id}"


@dataclass(frozen=True)
class HostRows:
    """Training and test rows, and the settings with all that `auto` took written out.

    Attributes:
        sample: the sample submission as it stands; None where there is none.
        by_order: are its rows the test rows, in their order?
        more: samples beside it, by their files.
        test_is_sample: was it taken for the test table as well, without being named so?
        notes: what was taken, read otherwise or left out, a line each.
    """

    names: CompetitionConfig
    train: pd.DataFrame
    test: pd.DataFrame
    sample: pd.DataFrame | None
    test_is_sample: bool
    notes: tuple[str, ...]
    by_order: bool = False
    more: tuple[tuple[str, pd.DataFrame], ...] = ()

    def each(self) -> list[HostRows]:
        """The same with one sample each."""
        more = [self._with(file, sample) for file, sample in self.more]
        return [self._with(self.names.sample_file, self.sample), *more] if more else [self]

    def _with(self, file: str, sample: pd.DataFrame) -> HostRows:
        return replace(self, names=self.names.model_copy(update={"sample": file}), sample=sample, more=())


def read(folder: Path, names: CompetitionConfig, trained: TrainingRows | None = None) -> HostRows:
    """Read the tables of a folder and make their rows what the settings say.

    Args:
        trained: the training rows, where they are not to be read.

    Raises:
        FoldcraftError: a file or a column is missing; what is to be joined, unfolded, pivoted or derived cannot be.
    """
    return _Reading(folder, names, trained).rows()


class _Reading:
    def __init__(self, folder: Path, names: CompetitionConfig, trained: TrainingRows | None) -> None:
        self.folder, self.names, self.notes, self.trained = folder, names, [], trained
        self._from_the_sample = False
        self.known: dict[str, pd.DataFrame] = {}
        self.derivations = derive.read(names)

    def rows(self) -> HostRows:
        names = self.names
        train = self._begin_train()
        self._settle_sample()
        test = self._begin_test(train)
        parts = (train, test) if self.trained is None else (test,)  # what is kept of training rows is made already
        for part in parts:
            part.make()
        for file in self._joined():
            table = self._table(file, f"{KEY}.join", "")
            reshape.join(parts, table, self.folder / file)
            for part in parts:
                part.make()
        for part in parts:
            template = names.files if part is train else names.test_files
            if template is not None:
                key = f"{KEY}.{'files' if part is train else 'test_files'}"
                reshape.unfold(part, self.folder, template, key, names.follow_links)
                part.make()
        if names.pivot is not None:
            for part in parts:
                reshape.pivot(part, names.pivot)
                part.make()
        for part in parts:
            part.check_all_made()
            self.notes += part.notes
        self._settle_ids(train, test)
        self._settle_images(train, test)
        by_order = isinstance(self.names.sample, SampleConfig) and self.names.sample.by == "order"
        sample = None if self.names.sample_file == NONE else self._sample()
        notes = tuple(dict.fromkeys(self.notes))
        more = tuple((file, self._sample_table(file)) for file in self.names.sample_files[1:])
        return HostRows(self.names, train.frame, test.frame, sample, self._from_the_sample, notes, by_order, more)

    # Reading

    def _begin_train(self) -> Derived:
        if self.trained is None:
            return self._begin("train", self.names.train, f"{KEY}.train", self.names.train_id, None)
        frame = self.trained.frame
        return Derived(frame, set(map(str, frame.columns)), [], "train", self.names.train_id)

    def _joined(self) -> list[str]:
        """Tables to join; without training rows to join them to, those of such rows alone may be gone."""
        there = [name for name in self.names.join if os.path.isfile(self._packed(self.folder / name))]
        return self.names.join if self.trained is None else there

    def _begin(self, part: str, source: str, key: str, id_column: str, needed: set[str] | None) -> Derived:
        """The rows of a table, or of the files that fit a pattern."""
        if file_rows.is_pattern(source):
            frame, notes = file_rows.rows(self.folder, source, key, self.names.follow_links)
            self.notes += notes
            own: set[str] = set()
        else:
            frame = self._table(source, key, id_column)
            own = set(map(str, frame.columns))
        pending = [one for one in self.derivations if needed is None or one.name in needed or not self._is_target(one)]
        return Derived(row_places.with_places(frame, own), own, pending, part, id_column, needed)

    def _is_target(self, one: derive.Derivation) -> bool:
        """Is it of what is predicted, which test rows have not?"""
        wanted = reading.settings_of(self.names)
        columns = wanted.columns if isinstance(wanted.columns, list) else []
        return one.name in (wanted.column, *columns, *wanted.heads, *wanted.auxiliary)

    def _table(self, file: str, key: str, id_column: str) -> pd.DataFrame:
        """A table of the folder, each read once."""
        if file not in self.known:
            image_files.check_inside([file], key)
            path = self._packed(self.folder / file)
            if not self.names.follow_links:
                image_files.check_links(self.folder, [path], key)
            if not os.path.isfile(path):
                raise self._missing(path, key)
            read = table_file.read(path, id_column)
            if read.frame.empty:
                raise FoldcraftError("no rows", path)
            if read.how:
                self.notes.append(f"{key}: {path.name} is read as {read.how}")
            if hidden := [name for name in read.frame.columns if name in row_places.NEVER_HIDDEN]:
                self.notes.append(f"{key}: column {hidden[0]!r} of {path.name} is not read; the name is taken")
            self.known[file] = read.frame.drop(columns=hidden)
        return self.known[file]

    def _packed(self, path: Path) -> Path:
        """The file, or the only packed one of its name."""
        packed = [path.with_name(path.name + suffix) for suffix in table_file.PACKED]
        there = [one for one in packed if os.path.isfile(one)]
        return there[0] if len(there) == 1 and not os.path.isfile(path) else path

    def _missing(self, path: Path, key: str) -> FoldcraftError:
        tables = [shorten(name, 30) for name in self._tables()]
        there = f"tables there are: {listing(tables, 4)}" if tables else file_rows.what_is_there(self.folder, "*")
        more = {f"{KEY}.train": ", or a pattern of images: train/*/*.jpg", f"{KEY}.test": ", or leave it auto"}
        return FoldcraftError("no such file", path, f"{there}; name one in {key}{more.get(key, '')}")

    def _tables(self) -> list[str]:
        """Tables of the folder and of the folders in it."""
        names = []
        for place in ("", *(name for name in sorted(os.listdir(self.folder)) if not file_rows.is_hidden(name))):
            if os.path.isdir(self.folder / place):
                inside = (Path(place) / name for name in os.listdir(self.folder / place))
                kept = (one for one in inside if table_file.is_table(one) and not file_rows.is_hidden(one.name))
                kept = (one for one in kept if not os.path.isdir(self.folder / one))
                names += sorted(one.as_posix() for one in kept)
        return names

    # What `auto` takes

    def _settle(self, **values: object) -> None:
        self.names = self.names.model_copy(update=values)

    def _settle_sample(self) -> None:
        if self.names.sample_file != AUTO:
            return
        there = [name for name in self._tables() if name not in (self.names.train, *self.names.join)]
        if f"{SAMPLE}.csv" in there:
            return self._take_sample(f"{SAMPLE}.csv", told=False)
        words = ("submission", "sample") if any("submission" in name.casefold() for name in there) else ("sample",)
        alike = [name for name in there if words[0] in Path(name).name.casefold()]
        alike = [name for name in alike if Path(name).name.casefold().startswith(SAMPLE)] or alike
        if len(alike) != 1:
            what = "several files may be the sample" if alike else "no such file"
            known = [shorten(name, 30) for name in alike or there]
            known = f"there are {listing(known, 4)}; " if known else ""
            hint = f"{known}name it, or set {KEY}.sample=none: id and answers are then written plainly"
            raise FoldcraftError(what, self.folder / f"{SAMPLE}.csv" if not alike else f"{KEY}.sample", hint)
        self._take_sample(alike[0], told=True)

    def _take_sample(self, file: str, told: bool) -> None:
        as_set = self.names.sample
        self._settle(sample=SampleConfig(file=file, by=as_set.by) if isinstance(as_set, SampleConfig) else file)
        if told:
            self.notes.append(f"{KEY}.sample: {file} is taken for the sample submission")

    def _sample(self) -> pd.DataFrame:
        file = self.names.sample_file
        frame = self._sample_table(file)
        if len(self.names.sample_files) == 1:
            self._settle(sample=file)
        return frame

    def _sample_table(self, file: str) -> pd.DataFrame:
        return self._table(file, f"{KEY}.sample", self.names.test_id)

    def _begin_test(self, train: Derived) -> Derived:
        names = self.names
        needed = _needed(names, self.derivations)
        if names.test != AUTO:
            return self._begin(TEST, names.test, f"{KEY}.test", names.test_id, needed)
        tables = [f"{TEST}{suffix}{packed}" for suffix in table_file.SUFFIXES for packed in ("", *table_file.PACKED)]
        found = [name for name in tables if os.path.isfile(self.folder / name)]
        if found:
            self._settle(test=found[0])
            if found[0] != f"{TEST}.csv":
                self.notes.append(f"{KEY}.test: {found[0]} is taken for the test rows")
            return self._begin(TEST, found[0], f"{KEY}.test", names.test_id, needed)
        if names.sample_file != NONE:
            return self._from_sample(train, needed)
        return self._from_folder(needed)

    def _from_sample(self, train: Derived, needed: set[str]) -> Derived:
        """The ids of the sample, and what else it has in common with the training rows, but no answers."""
        file = self.names.sample_file
        sample = self._table(file, f"{KEY}.sample", self.names.test_id)
        column = self.names.test_id
        if column not in sample.columns and column not in needed & {one.name for one in self.derivations}:
            column = str(sample.columns[0])
            self._settle(id=IdConfig(train=self.names.train_id, test=column))
        answers = _answers(self.names, train.frame)
        known = set(train.frame.columns) if self.trained is None else self.trained.columns
        sources = {name for one in self.derivations if one.name in needed for name in one.sources}
        kept = [
            name
            for name in sample.columns
            if name == column or name in sources or (name in known and name not in answers)
        ]
        self._settle(test=file)
        self._from_the_sample = True
        self.notes.append(f"{KEY}.test: the test rows are those of {file}, by {column!r}")
        frame = sample[kept]
        pending = [one for one in self.derivations if one.name in needed or not self._is_target(one)]
        return Derived(row_places.with_places(frame, kept), set(kept), pending, TEST, self.names.test_id, needed)

    def _from_folder(self, needed: set[str]) -> Derived:
        files = file_rows.Files(self.folder)
        for place in TEST_FOLDERS:
            for pattern in (f"{place}/*", f"{place}/**"):
                if any(name.lower().endswith(ALL_SUFFIXES) for name in files.matching(pattern)):
                    self.notes.append(f"{KEY}.test: the test rows are the files of {place}/")
                    self._settle(test=pattern)
                    return self._begin(TEST, pattern, f"{KEY}.test", self.names.test_id, needed)
        what = "no test rows: no test.csv, no sample to take ids from, no files in test/"
        hint = f"{file_rows.what_is_there(self.folder, '*')}; name a table or a pattern in {KEY}.test"
        raise FoldcraftError(what, self.folder, hint)

    def _settle_ids(self, train: Derived, test: Derived) -> None:
        """Rows that are files are named by these, where no column is named `id`."""
        ids = {"train": self.names.train_id, "test": self.names.test_id}
        for name, part in (("train", train), ("test", test)):
            if ids[name] == "id" and "id" not in part.frame.columns and "_file" in part.frame.columns:
                ids[name] = part.id_column = "_file"
                self.notes.append(f"{KEY}.id: the {name} rows are called by their files")
        if ids["train"] != self.names.train_id or ids["test"] != self.names.test_id:
            self._settle(id=IdConfig(**ids))

    def _settle_images(self, train: Derived, test: Derived) -> None:
        usual = {"image": (train, TRAIN_IMAGE), "test_image": (test, TEST_IMAGE)}
        for key, (part, template) in usual.items():
            if getattr(self.names, key) == AUTO:
                self._settle(**{key: "{_file}" if "_file" in part.frame.columns else template})


def _answers(names: CompetitionConfig, train: pd.DataFrame) -> set[str]:
    try:
        return set(reading.columns_of(names, list(map(str, train.columns)), Path(names.train)))
    except FoldcraftError:  # told where the target is read
        return set()


def _needed(names: CompetitionConfig, derivations: list[derive.Derivation]) -> set[str]:
    """Columns that test rows may not lack: what their ids, images and whatever else enters is made of."""
    settings = [names.test_image, names.test_files, *(getattr(names, key, None) for key in ("metadata",))]
    settings += names.answer.columns[1] if names.answer else []
    wanted = {names.test_id}
    for setting in settings:
        for text in _texts(setting):
            wanted |= {text, *templates.fields(text)}
    for one in reversed(derivations):
        if one.name in wanted:
            wanted |= set(one.sources)
    return wanted


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif hasattr(value, "model_dump"):
        yield from _texts(value.model_dump())
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
