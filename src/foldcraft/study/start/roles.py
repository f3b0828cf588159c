"""Which table of a host's folder is which: training rows, test rows, sample submission; and which columns name rows."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pandas as pd

from foldcraft.study.start.inventory import Inventory

TRAIN, TEST, SAMPLE = ("train", "training"), ("test", "testing", "eval", "evaluation"), ("submission", "submit")
LABELS = ("label", "labels", "annotation", "annotations", "targets", "target", "ground", "truth")
NAMES = ("id", "image", "img", "file", "filename", "name", "path", "uid", "key")  # words in the names of id columns

IMAGE, PART = "image_id", "part_of_id"  # columns that an id of both is cut into
LONGEST_ID = 300  # characters; what is longer is a text, or an image


@dataclass(frozen=True)
class Roles:
    """Paths of the tables, each "" where there is none; one may be test table and sample at once.

    Attributes:
        joined: tables that say more of the training rows, by a column of ids that both have.
        rivals: other tables that may be the sample as well.
    """

    train: str = ""
    test: str = ""
    sample: str = ""
    joined: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()

    def frame(self, inventory: Inventory, role: str) -> pd.DataFrame | None:
        """The table of a role."""
        return inventory.tables.get(getattr(self, role))


@dataclass(frozen=True)
class Frames:
    """The tables themselves, all as text; None where there is none."""

    train: pd.DataFrame
    test: pd.DataFrame | None = None
    sample: pd.DataFrame | None = None

    @property
    def asked_by(self) -> str:
        """The sample's id column, "" where there is no sample."""
        return "" if self.sample is None else str(self.sample.columns[0])


def words_of(text: str) -> list[str]:
    """The words of a path or of a column's name, without capitals: sample_submission.csv, patientId."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    return [word for word in re.split(r"[^0-9a-z]+", spaced.casefold()) if word]


def find(inventory: Inventory) -> Roles:
    """The tables by the words of their names, else by what is left."""
    sample = _first(inventory, SAMPLE, ())
    rivals = [path for path in inventory.tables if set(words_of(path.rpartition("/")[2])) & set(SAMPLE)]
    samples = {sample, *rivals}
    labelled = [path for path in inventory.tables if path not in samples and set(words_of(path)) & set(LABELS)]
    train = _first(inventory, TRAIN, samples) or _first(inventory, LABELS, samples)
    if train not in labelled:  # of two tables of the training rows the one with the labels comes first
        train = next((path for path in labelled if _same_rows(inventory, path, train)), train)
    test = _first(inventory, TEST, {*samples, train})
    left = [path for path in inventory.tables if path not in (*samples, train, test)]
    if not train and left and (not sample or len(inventory.tables) > 1):
        train = max(left, key=lambda path: len(inventory.tables[path]))
    taken = (train, test, *samples)
    joined = [path for path in inventory.tables if path not in taken and _same_rows(inventory, path, train)]
    known = {name for path in (train, *joined) if path for name in inventory.tables[path].columns}
    if not sample and test and train and _is_to_be_filled(inventory.tables[test], known):
        sample = test
    return Roles(train, test, sample, tuple(joined), tuple(path for path in rivals if path != sample))


def _is_to_be_filled(test: pd.DataFrame, known: Collection[str]) -> bool:
    """Is a test table the sample as well: ids, and a column that no training table has or that says one thing?"""
    if len(test.columns) != 2:
        return False
    answer = test.columns[1]
    return answer not in known or (test[answer].nunique() == 1 and bool(set(words_of(answer)) & set(LABELS)))


def _same_rows(inventory: Inventory, path: str, train: str) -> bool:
    """Have two tables a column of ids in common, whose cells are the same?"""
    one, other = inventory.tables.get(path), inventory.tables.get(train)
    if one is None or other is None or len(one) != len(other):
        return False
    shared = [name for name in one.columns if name in other.columns and one[name].is_unique]
    return any(set(one[name]) == set(other[name]) for name in shared)


def _first(inventory: Inventory, words: Sequence[str], but: Collection[str]) -> str:
    """The table whose path has one of some words: in its name rather than in its folder's, the shortest first."""
    found = []
    for path in inventory.tables:
        name = words_of(path.rpartition("/")[2])
        place = words_of(path.rpartition("/")[0])
        hits = [word for word in words if word in name or any(part.startswith(word) for part in name)]
        far = [word for word in words if word in place]
        if path not in but and (hits or far):
            found.append((not hits, path.count("/"), len(path), path))
    return min(found)[3] if found else ""


def row_names(frame: pd.DataFrame, wish: str = "") -> list[str]:
    """Columns whose cells are there and differ in all rows, the likeliest id first.

    Args:
        wish: a name that the other tables give to the id.
    """
    unique = [name for name in frame.columns if not (frame[name] == "").any() and frame[name].is_unique]
    unique = [name for name in unique if frame[name].str.len().max() <= LONGEST_ID]
    numbers = [name for name in unique if frame[name].str.fullmatch(r"-?\d+\.\d+").all()]
    place = {name: k for k, name in enumerate(frame.columns)}

    def rank(name: str) -> tuple[bool, bool, bool, int]:
        return (name != wish, name in numbers, not set(words_of(name)) & set(NAMES), place[name])

    return sorted(unique, key=rank)


def column_of(frame: pd.DataFrame, wanted: pd.Series) -> str:
    """The column whose cells are the wanted ones, whatever their order; "" where none is."""
    cells = set(wanted)
    exact = [name for name in frame.columns if set(frame[name]) == cells]
    return exact[0] if exact else ""
