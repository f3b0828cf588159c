"""A draft of a competition with a training table."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import pandas as pd

from foldcraft.common.errors import counted, listing, shorten
from foldcraft.study.start import answers, image_lines, image_search, judge_lines, roles
from foldcraft.study.start.answers import Answer
from foldcraft.study.start.draft import CHECK, Draft
from foldcraft.study.start.image_search import Reading
from foldcraft.study.start.images import Found
from foldcraft.study.start.inventory import Inventory
from foldcraft.study.start.roles import IMAGE, Frames, Roles

KINDS = {  # reasons
    "single": "classes",
    "multilabel": "labels that are each there or not",
    "soft": "votes or shares of classes",
    "regression": "numbers",
    "multioutput": "several labels, each scored",
}


def write(made: Draft, inventory: Inventory, found: Roles, frames: Frames) -> None:
    """Lines of the draft."""
    read = image_search.find(inventory, found, frames)
    found, frames, ours, theirs = read.found, read.frames, read.ours, read.theirs
    train = frames.train
    _rows(made, inventory, read)
    judge_lines.sample(made, found)
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


def _rows(made: Draft, inventory: Inventory, read: Reading) -> None:
    """Where training and test rows come from."""
    found, train, test, sample = read.found, read.frames.train, read.frames.test, read.frames.sample
    joined, more = list(found.joined), "says more of the same rows"
    if read.pattern:
        made.add("train", read.pattern, f"{counted(len(train), 'image')} in folders that no column names")
        joined, more = [found.train, *joined], "the table says what they are"
    else:
        length = len(inventory.tables[found.train])
        columns = listing([name for name in train.columns if name in inventory.tables[found.train]], 4)
        made.add("train", found.train, f"{counted(length, 'row')}, columns {columns}")
    if joined:
        made.add("join", joined, more)
    if read.test_pattern:
        made.add("test", read.test_pattern, "images in folders that no column names")
    elif test is not None:
        made.add("test", found.test, counted(len(test), "row"))
    elif sample is not None:
        made.add("test", "auto", f"no test table: the {counted(len(sample), 'id')} of the sample are the test rows")
    for name, how, reason in read.derive:
        made.derive(name, how, reason)


def _pivot(made: Draft, train: pd.DataFrame, key: str, answer: Answer) -> tuple[str, Answer]:
    """A training table with a row for each part of an image: it is turned, so that an image has a row."""
    parts, joint = answer.parts, answer.row.removeprefix("{@id}").removesuffix("{@target}")
    column = next((name for name in train.columns if set(train[name]) == set(parts)), "")
    value = answer.columns[0]
    if not column or not key:
        made.open.append("the rows: the training table is long, and no column holds what is asked for in the sample")
        return key, answer
    pattern = f"^(.+){re.escape(joint)}(?:{'|'.join(map(re.escape, parts))})$"
    made.derive(IMAGE, {"from": key, "regex": pattern}, f"what rows of one image share in {key!r}")
    pivot = {"rows": IMAGE, "columns": column, "values": value}
    made.add("pivot", pivot, f"{len(parts)} rows an image become one, a column each")
    made.add("id", IMAGE, "one an image")
    return IMAGE, replace(answer, columns=parts)


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
        name = {"train": "row", "test": other} if other else "row"
        made.add("id", name, "no column differs in all training rows: they are numbered")
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
    columns, check = list(answer.columns), f"{CHECK} {answer.guess}; " if answer.guess else ""
    if answer.left:
        made.open.append(f"columns {listing(list(answer.left), 3)} of the sample: they are left as they are")
    if not columns:
        made.open.append(f"the target: no training column is {answer.missing!r}; derive it, see docs/competitions.md")
        name = answer.missing if answer.missing.isidentifier() else "label"
        asked = "there is no sample to ask for one" if answer.missing == answers.NO_NAME else "the sample asks for it"
        made.add("target", name, f"{CHECK} {asked}, and no training column is it")
    elif len(columns) == 1 and answer.kind == "single":
        classes = answer.classes or tuple(sorted(set(train[columns[0]])))
        names = listing([shorten(name, 20) for name in classes], 4)
        made.add("target", columns[0], f"{check}{len(classes)} classes: {names}")
    else:
        about: dict[str, Any] = {"column": columns[0]} if len(columns) == 1 else {"columns": columns}
        about |= {"kind": answer.kind, **({"separator": answer.separator} if answer.separator else {})}
        made.add("target", about, f"{check}{KINDS[answer.kind]}")
