"""A submission of one file or of several, each of which asks for a part of what is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from foldcraft.common.errors import FoldcraftError, shorten
from foldcraft.data.host_files.table_file import PACKED
from foldcraft.data.submission_forms import columns, inference
from foldcraft.data.submission_forms.form import SHOWN, Form, names_in_words
from foldcraft.data.submission_forms.request import FileRequest


@dataclass(frozen=True)
class FileForm:
    """One file.

    Attributes:
        file: its name in the zip, the sample's own; "" where it is the only one.
        own: which columns of predictions it is filled from.
    """

    file: str
    form: Form
    own: np.ndarray

    def fill(self, ids: np.ndarray, predicted: np.ndarray) -> pd.DataFrame:
        """As `Form.fill`, from all columns of predictions."""
        try:
            return self.form.fill(ids, predicted[:, self.own])
        except FoldcraftError as error:
            raise _named(error, self.file) from None

    def check(self, frame: pd.DataFrame) -> None:
        """As `Form.check`."""
        try:
            self.form.check(frame)
        except FoldcraftError as error:
            raise _named(error, self.file) from None


@dataclass(frozen=True)
class SubmissionFiles:
    """All that the host wants.

    Attributes:
        left: of what is predicted, what no file asks for.
    """

    files: tuple[FileForm, ...]
    left: tuple[str, ...] = ()

    @property
    def goes_without_saying(self) -> bool:
        """Could the sample mean nothing else?"""
        return len(self.files) == 1 and self.files[0].form.goes_without_saying

    def lines(self) -> list[str]:
        """What is written where, a line each file, and what is predicted in vain."""
        said = [f"submission{one.file and f' {one.file}'}: {one.form.describe()}" for one in self.files]
        if self.left:
            said.append(f"submission: no file asks for {names_in_words(self.left)}")
        return said

    def filled(self, ids: np.ndarray, predicted: np.ndarray) -> dict[str, pd.DataFrame]:
        """The samples filled and looked at as the host will, by name of file.

        Raises:
            FoldcraftError: as `Form.fill` and `Form.check`.
        """
        made = {}
        for one in self.files:
            made[one.file] = one.fill(ids, predicted)
            one.check(made[one.file])
        return made


def of(requests: Sequence[FileRequest]) -> SubmissionFiles:
    """The form of each file that is asked for.

    Raises:
        FoldcraftError: as `inference.of`; a file asks for nothing that is predicted; two have one name.
    """
    if len(requests) == 1:
        every = np.arange(requests[0].space.width)
        return SubmissionFiles((FileForm("", inference.of(requests[0]), every),))
    names, asked, files = requests[0].target.separable, set(), []
    for request in requests:
        file = _name(request.submission.file)
        if file in [one.file for one in files]:
            what = f"two files are called {shorten(file, SHOWN)!r}, and would be one in the zip"
            raise FoldcraftError(what, "competition.sample", "rename one of them")
        try:
            own = _asked(request)
            asked |= set(own)
            target, places = request.target.only(own)
            files.append(FileForm(file, inference.inferred(replace(request, target=target)), places))
        except FoldcraftError as error:
            raise _named(error, file) from None
    inference.check_settings([one.form for one in files])
    return SubmissionFiles(tuple(files), tuple(name for name in names if name not in asked))


def _name(file: str) -> str:
    """Of what is written for a sample: that of its file, which may be packed or of another kind."""
    path = PurePosixPath(file)
    return (path.with_suffix("") if path.suffix.lower() in PACKED else path).with_suffix(".csv").name


def _asked(request: FileRequest) -> list[str]:
    """Those of `separable` that one of several files asks for, by the names of its columns.

    Raises:
        FoldcraftError: it asks for nothing that is predicted.
    """
    target, rows = request.target, request.submission.rows
    names = target.separable
    if rows is not None and rows.parts is not None:
        return [name for name in names if name in set(rows.parts.tolist())]
    answers = [name for name in request.answers if name not in request.submission.given]
    if own := columns.called(names, answers):
        return own
    by_class = [name for name in names if name in target.vocabulary]
    by_class = [name for name in by_class if columns.matched(target.vocabulary[name].names, answers)]
    if by_class:  # a column a class
        return by_class
    words = [*target.columns, *request.space.names]
    if columns.called(words, answers) or columns.matched(request.space.names, answers):
        return list(names)  # the one label, or a list of them all
    what = f"asks for nothing that is predicted: columns {names_in_words(request.answers)}"
    hint = f"it may ask for {names_in_words(names or target.columns)}; or leave it out of competition.sample"
    raise FoldcraftError(what, inference.PLACE, hint)


def _named(error: FoldcraftError, file: str) -> FoldcraftError:
    """The same, of one of several files."""
    where = shorten(file, SHOWN) if error.where in (None, inference.PLACE, "submission") else error.where
    return FoldcraftError(error.what, where, error.hint) if file else error
