"""A competition as it is read: its first rows, what is counted in it, a line of the submission."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from foldcraft.common import executor
from foldcraft.common.errors import counted, listing, shorten
from foldcraft.data.targets import reading
from foldcraft.submission import form_inference

if TYPE_CHECKING:
    from foldcraft.data.competition import Competition
    from foldcraft.data.host_files.tables import Tables
    from foldcraft.data.submission_forms.several import FileForm, SubmissionFiles
    from foldcraft.views.terminal import Terminal

SHOWN_TRAIN, SHOWN_TEST = 5, 2  # rows
MOST_COLUMNS = 12  # of a table
MOST_CLASSES = 8  # that a line names
LONGEST = 40  # characters of a cell


def show_rows(tables: Tables, terminal: Terminal) -> None:
    """The first training and test rows with their ids, labels, groups, derived columns, metadata and images."""
    names = tables.names
    targets = reading.needed_columns(names, list(map(str, tables.train.columns)), tables.folder)
    more = [*names.groups, *([names.weight] if names.weight else []), *names.derive]
    more += names.metadata.names if names.metadata else []
    parts = (
        ("training", tables.train, [names.train_id, *targets, *more], tables.train_paths, SHOWN_TRAIN),
        (
            "test",
            tables.test,
            [names.test_id, *(name for name in more if name not in targets)],
            tables.test_paths,
            SHOWN_TEST,
        ),
    )
    for part, frame, wanted, paths, most in parts:
        columns = [name for name in dict.fromkeys(wanted) if name in frame.columns][:MOST_COLUMNS]
        cells = frame[columns].head(most).to_numpy(dtype=str).tolist()
        images = [os.path.relpath(str(path), tables.folder) for path in paths[:most]]
        rows = [[*(shorten(cell, LONGEST) for cell in row), image] for row, image in zip(cells, images, strict=True)]
        marked = [f"{name} (derived)" if name in names.derive else name for name in columns]
        title = f"the first of {counted(len(frame), f'{part} row')}, as they are read"
        terminal.table(title, [*marked, "image"], rows)


def show_form(data: Competition, files: SubmissionFiles, terminal: Terminal) -> None:
    """What the submission holds, and a line of each file."""
    for line in files.lines():
        terminal.say(line)
    for file in files.files:
        of = file.file or "it"
        terminal.say(f"a line of {of}, filled without the image: {example(data, file)}")


def example(data: Competition, file: FileForm) -> str:
    """The first line of a file with what is known of a row without its image: id=a.png, label=cat."""
    first = file.fill(*form_inference.without_images(data)).iloc[0]
    cells = [f"{name}={_cell(value)}" for name, value in first.items()]
    return listing(cells, MOST_COLUMNS)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shorten(str(value), LONGEST)


def show_data(competitions: Sequence[Competition], terminal: Terminal) -> None:
    """What is trained on, a line each, and a line of the submission; said once, and not again by the tasks of many."""
    if executor.IS_TASK in os.environ or os.environ.get("RANK", "0") != "0":
        return
    for data in {data.name: data for data in competitions}.values():
        terminal.note(in_a_line(data))
        files = form_inference.files(data)
        lines = files.lines()
        for place, file in enumerate(files.files):
            lines[place] += f"; without the image: {example(data, file)}"
        for line in lines:
            terminal.note(line)


def in_a_line(data: Competition) -> str:
    """Rows, groups and classes, as the first line of a training says them."""
    rows, data = data.counted(), data.answers
    groups = f" in {counted(len(set(data.groups.tolist())), 'group')}" if data.groups is not None else ""
    return f"{data.name}: {rows}{groups}; {_counts(data)}"


def _counts(data: Competition) -> str:
    there = data.space.there(data.targets)
    if data.space.form == "values":
        return f"values of {listing(list(data.space.names), MOST_CLASSES)}"
    counts: Sequence[int] = there.sum(0).astype(int).tolist()
    each = [f"{shorten(name, 24)} {count:,}" for name, count in zip(data.space.names, counts, strict=True)]
    return listing(each, MOST_CLASSES)
