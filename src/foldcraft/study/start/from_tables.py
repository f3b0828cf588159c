"""A draft of a competition with a training table."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import pandas as pd

from foldcraft.common.errors import counted, listing, shorten
from foldcraft.study.start import answers, image_lines, images, judge_lines, roles
from foldcraft.study.start.answers import Answer
from foldcraft.study.start.draft import CHECK, Draft
from foldcraft.study.start.images import Found
from foldcraft.study.start.inventory import Inventory
from foldcraft.study.start.roles import Frames, Roles

KINDS = {  # reasons
    "single": "classes",
    "multilabel": "labels that are each there or not",
    "soft": "votes or shares of classes",
    "regression": "numbers",
    "multioutput": "several labels, each scored",
}


def write(made: Draft, inventory: Inventory, found: Roles, frames: Frames) -> None:
    """Lines of the draft."""
    train, test, sample = frames.train, frames.test, frames.sample
    made.add("train", found.train, f"{counted(len(train), 'row')}, columns {listing(list(train.columns), 4)}")
    if found.joined:
        made.add("join", list(found.joined), "says more of the same rows")
    if test is not None:
        made.add("test", found.test, counted(len(test), "row"))
    elif sample is not None:
        made.add("test", "auto", f"no test table: the {counted(len(sample), 'id')} of the sample are the test rows")
    judge_lines.sample(made, found)
    rows = test if test is not None else sample
    ours = images.find(inventory, train, ("train",), ("test", "eval"))
    theirs = None if rows is None else images.find(inventory, rows, ("test", "eval"), ("train",))
    views = _answer_by(frames)
    key = _train_id(roles.row_names(train, frames.asked_by), ours)
    answer = answers.find(frames, [key] if key else [], is_long=not views)
    if answer.row and not set(answer.parts) <= set(train.columns):
        key, answer = _pivot(made, train, key, answer)
    else:
        _ids(made, frames, key, answer, views, ours, theirs)
    _targets(made, train, answer)
    image_lines.write(made, inventory, frames, ours, theirs)
    if views:
        key_of = views[0] if len(views) == 1 else list(views)
        by = key_of if key_of == frames.asked_by else {"train": key_of, "test": frames.asked_by}
        made.add("answer", {"by": by, "combine": "mean"}, f"the sample asks for each {' and '.join(views)}")
    image_lines.hang_together(made, frames, key, answer)
    judge_lines.metric_of(made, inventory, answer)
    judge_lines.submission(made, answer)


def _pivot(made: Draft, train: pd.DataFrame, key: str, answer: Answer) -> tuple[str, Answer]:
    """A training table with a row for each part of an image: it is turned, so that an image has a row."""
    parts, joint = answer.parts, answer.row.removeprefix("{@id}").removesuffix("{@target}")
    column = next((name for name in train.columns if set(train[name]) == set(parts)), "")
    value = answer.columns[0]
    if not column or not key:
        made.open.append("the rows: the training table is long, and no column holds what is asked for in the sample")
        return key, answer
    pattern = f"^(.+){re.escape(joint)}(?:{'|'.join(map(re.escape, parts))})$"
    made.derive("image_id", {"from": key, "regex": pattern}, f"what rows of one image share in {key!r}")
    pivot = {"rows": "image_id", "columns": column, "values": value}
    made.add("pivot", pivot, f"{len(parts)} rows an image become one, a column each")
    made.add("id", "image_id", "one an image")
    return "image_id", replace(answer, columns=parts)


def _train_id(names: Sequence[str], found: Found | None) -> str:
    if found and found.column in names:
        return found.column
    return names[0] if names else ""


def _ids(
    made: Draft,
    frames: Frames,
    key: str,
    answer: Answer,
    views: tuple[str, ...],
    ours: Found | None,
    theirs: Found | None,
) -> None:
    """What names a row; of rows that stand for several images what names an image."""
    if views:
        made.add("id", key, "names an image; an answer has several of them")
        return
    other = _test_id(frames, answer)
    if ours and ours.several:
        name: Any = "file" if not theirs or theirs.several or not other else {"train": "file", "test": other}
        made.add("id", name, "a training row stands for a folder of images, and each has a path")
    elif not key:
        made.add("id", "row", "no column differs in all rows: rows are numbered")
    elif other and other != key:
        made.add("id", {"train": key, "test": other}, "differ in all rows; the test rows' are those of the sample")
    else:
        made.add("id", key, "differs in all rows" + (", and is the sample's" if other else ""))


def _test_id(frames: Frames, answer: Answer) -> str:
    """The column of the test rows that the sample's ids are those of, "" for none."""
    test, sample = frames.test, frames.sample
    if sample is None or test is None:
        return frames.asked_by
    wanted = sample.iloc[:, 0]
    if answer.row:
        ends = [answer.row.removeprefix("{@id}").replace("{@target}", part) for part in answer.parts]
        heads = {cell.removesuffix(end) for cell in wanted for end in ends if cell.endswith(end)}
        wanted = pd.Series(sorted(heads))
    return roles.column_of(test, wanted)


def _answer_by(frames: Frames) -> tuple[str, ...]:
    """Columns that together name an answer, where the sample's ids are a column of the test table that repeats."""
    train, test, key = frames.train, frames.test, frames.asked_by
    if test is None or frames.sample is None or key not in test.columns:
        return ()
    if test[key].is_unique or set(test[key]) != set(frames.sample[key]):
        return ()
    if key in train.columns:
        return (key,)
    shared = [name for name in test.columns if name in train.columns and (test[name] != "").all()]
    for names in permutations(shared[:20], 2):
        if (test[names[0]].str.cat(test[names[1]], sep="_") == test[key]).all():
            return names
    return ()


def _targets(made: Draft, train: pd.DataFrame, answer: Answer) -> None:
    columns = list(answer.columns)
    if not columns:
        made.open.append(f"the target: no training column is {answer.missing!r}; derive it, see docs/competitions.md")
        name = answer.missing if answer.missing.isidentifier() else "label"
        made.add("target", name, f"{CHECK} the sample asks for it, and no training column is it")
    elif len(columns) == 1 and answer.kind == "single":
        classes = answer.classes or tuple(sorted(set(train[columns[0]])))
        names = listing([shorten(name, 20) for name in classes], 4)
        made.add("target", columns[0], f"{len(classes)} classes: {names}")
    else:
        about: dict[str, Any] = {"column": columns[0]} if len(columns) == 1 else {"columns": columns}
        about |= {"kind": answer.kind, **({"separator": answer.separator} if answer.separator else {})}
        made.add("target", about, KINDS[answer.kind])
