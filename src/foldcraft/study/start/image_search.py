"""The images of training and test rows; where no column leads to them, by another reading of the tables."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from foldcraft.common.errors import counted, shorten
from foldcraft.study.start import images, roles
from foldcraft.study.start.images import Found
from foldcraft.study.start.inventory import Inventory, parent
from foldcraft.study.start.roles import IMAGE, PART, Frames, Roles

TRAIN, TEST = ("train",), ("test", "eval")
JOINTS = ("__", "_", "-", ".", "|", ":", " ")  # between an id and what is asked of it
MOST_PARTS = 50
SURE = 0.9  # share of the rows of a table that must have images, for it to be the one that names them


@dataclass(frozen=True)
class Reading:
    """How the tables lead to images.

    Attributes:
        ours: images of the training rows.
        theirs: of the test rows.
        derive: new columns (name, how, reason) that they take.
        pattern, test_pattern: of files, where the rows are these and the table is joined to them.
    """

    found: Roles
    frames: Frames
    ours: Found | None
    theirs: Found | None
    derive: tuple[tuple[str, dict[str, Any], str], ...] = ()
    pattern: str = ""
    test_pattern: str = ""


def find(inventory: Inventory, found: Roles, frames: Frames) -> Reading:
    """The plainest reading by which the training rows have images; the tables as they are, where none does."""
    plain = _plain(inventory, found, frames)
    share = plain.ours.coverage if plain.ours else 0
    if share < 1:
        for way in (_long, _through, _of_files):
            read = way(inventory, plain)
            if read is not None and read.ours is not None and read.ours.coverage > share:
                return read
    return plain


def _plain(inventory: Inventory, found: Roles, frames: Frames) -> Reading:
    ours = images.find(inventory, frames.train, TRAIN, TEST)
    if frames.test is not None or frames.sample is None:
        theirs = None if frames.test is None else images.find(inventory, frames.test, TEST, TRAIN)
    else:
        theirs = of_sample(inventory, frames.sample)
    return Reading(found, frames, ours, theirs)


def of_sample(inventory: Inventory, sample: pd.DataFrame) -> Found | None:
    """The images of a sample's rows, by the column that names them: answers may look like folders."""
    key = IMAGE if IMAGE in sample.columns else next(iter(roles.row_names(sample)), sample.columns[0])
    return images.find(inventory, sample[[key]], TEST, TRAIN)


def _long(inventory: Inventory, plain: Reading) -> Reading | None:
    """Ids of both tables are an image and what is asked of it: ID_3_epidural."""
    train, sample = plain.frames.train, plain.frames.sample
    if sample is None or plain.frames.test is not None:
        return None
    for key in (name for name in _keys(train) if name in sample.columns):
        for joint in JOINTS:
            parts = _parts(train[key], joint)
            if not parts or _parts(sample[key], joint) != parts:
                continue
            cut = {name: _cut(table, key, joint) for name, table in (("train", train), ("sample", sample))}
            read = _plain(inventory, plain.found, replace(plain.frames, **cut))
            if read.ours is not None and read.ours.column == IMAGE:
                either = "|".join(re.escape(part) for part in sorted(parts, key=len, reverse=True))
                before, after = f"^(.+){re.escape(joint)}(?:{either})$", f"{re.escape(joint)}({either})$"
                derive = (
                    (IMAGE, {"from": key, "regex": before}, f"what rows of one image share in {key!r}"),
                    (PART, {"from": key, "regex": after}, "what is asked of the image"),
                )
                return replace(read, frames=replace(plain.frames, train=cut["train"]), derive=derive)
    return None


def _keys(frame: pd.DataFrame) -> list[str]:
    """Columns that name rows, and that a setting can name."""
    return [name for name in roles.row_names(frame) if name.strip() and not set("{}") & set(name)]


def _parts(cells: pd.Series, joint: str) -> set[str]:
    """What stands behind a joint, where all that stands before it has all of them; else nothing."""
    pairs = [cell.rpartition(joint)[::2] for cell in cells]
    heads, parts = {head for head, _ in pairs}, {part for _, part in pairs}
    is_whole = "" not in heads and "" not in parts and 2 <= len(parts) <= MOST_PARTS
    return parts if is_whole and len(set(pairs)) == len(pairs) == len(heads) * len(parts) else set()


def _cut(table: pd.DataFrame, key: str, joint: str) -> pd.DataFrame:
    pairs = [cell.rpartition(joint)[::2] for cell in table[key]]
    return table.assign(**{IMAGE: [head for head, _ in pairs], PART: [part for _, part in pairs]})


def _through(inventory: Inventory, plain: Reading) -> Reading | None:
    """A table of photos says of what each is: that is the one of the training rows, and the labels are joined to it."""
    found, train = plain.found, plain.frames.train
    taken = {found.train, found.test, found.sample, *found.joined, *found.rivals}
    for path in (path for path in inventory.tables if path not in taken):
        photos = inventory.tables[path]
        shared = [name for name in photos.columns if name in train.columns and train[name].is_unique]
        shared = [name for name in shared if set(photos[name]) <= set(train[name])]
        images_of = images.find(inventory, photos, TRAIN, TEST) if len(shared) == 1 else None
        if images_of is not None and images_of.coverage >= SURE:
            frames = replace(plain.frames, train=photos.merge(train, on=shared[0], how="left"))
            roles_now = replace(found, train=path, joined=(found.train, *found.joined))
            return replace(plain, found=roles_now, frames=frames, ours=images_of)
    return None


def _of_files(inventory: Inventory, plain: Reading) -> Reading | None:
    """Files that are called as the rows, in folders that no column names: rows are files, and the table is joined."""
    train = plain.frames.train
    for key in _keys(train):
        for top in _tops(inventory, TEST):
            if (how := _called(inventory, top, train[key])) is None:
                continue
            pattern = _pattern(inventory, top)
            test_pattern = _test_pattern(inventory, plain, key, how)
            ours = Found(template="{_file}" if "file" in train.columns else "{file}", column=key, coverage=1.0)
            theirs = ours if test_pattern else plain.theirs
            derive = ((key, how, "files are called as the rows of the table"),)
            return replace(plain, ours=ours, theirs=theirs, derive=derive, pattern=pattern, test_pattern=test_pattern)
    return None


def _tops(inventory: Inventory, but: Sequence[str]) -> Iterator[str]:
    """Folders with images somewhere below them, those of the other part left out; the deepest that hold all first."""
    tops = {top for folder in inventory.folders for top in _above(folder)}
    for top in sorted(tops, key=lambda name: (name.count("/"), name)):
        if not images.is_of(top, but):
            yield top


def _above(folder: str) -> list[str]:
    parts = folder.split("/") if folder else []
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _below(inventory: Inventory, top: str) -> list[str]:
    return [path for path in inventory.images if path.startswith(f"{top}/")]


def _called(inventory: Inventory, top: str, cells: pd.Series) -> dict[str, Any] | None:
    """How the cells are made of the files below a folder, all of them; None where they are not."""
    files = [PurePosixPath(path) for path in _below(inventory, top)]
    wanted = set(cells)
    if len(files) != len(wanted):
        return None
    if {path.stem for path in files} == wanted:
        return {"from": "stem"}
    if {path.name for path in files} == wanted:
        return {"from": "file", "regex": "([^/]+)$"}
    if all(path.stem.isdecimal() for path in files) and {str(int(path.stem)) for path in files} == wanted:
        return {"from": "stem", "regex": r"^0*(\d+)$"}
    return None


def _pattern(inventory: Inventory, top: str) -> str:
    depths = {path.count("/") - top.count("/") for path in _below(inventory, top)}
    return "/".join([top, *["*"] * depths.pop()]) if len(depths) == 1 else f"{top}/**"


def _test_pattern(inventory: Inventory, plain: Reading, key: str, how: dict[str, Any]) -> str:
    """Of the files that the test rows are called by in the same way, where no column leads to them."""
    rows = plain.frames.test if plain.frames.test is not None else plain.frames.sample
    if (plain.theirs and plain.theirs.coverage == 1) or rows is None or key not in rows.columns:
        return ""
    tops = [top for top in _tops(inventory, TRAIN) if _called(inventory, top, rows[key]) == how]
    return _pattern(inventory, tops[0]) if tops else ""


def unlike(inventory: Inventory, frame: pd.DataFrame) -> str:
    """What there is instead of a way to images: pixels within a cell, or how rows and files are called."""
    for name in frame.columns:
        cell = str(frame[name].iloc[0])
        count = len(cell.split())
        if count >= 64 and re.fullmatch(r"[\d. ]+", cell):
            return f"; the cells of {name!r} hold {count} numbers each, which no setting reads: write them as files"
    if not inventory.images:
        return ""
    names = roles.row_names(frame)
    first = f"; a row is called {shorten(str(frame[names[0]].iloc[0]), 40)!r}, " if names else "; "
    count = counted(len({parent(path) for path in inventory.images}), "folder")
    return f"{first}a file in one of {count} {shorten(inventory.images[0], 60)!r}"
