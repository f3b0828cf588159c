"""Which rows hang together: columns and parts of names that repeat; folds and weights that the host gives."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from foldcraft.study.start.roles import words_of

PERSONS = ("patient", "subject", "person", "participant", "individual", "user", "case", "animal", "plant", "student")
PLACES = ("study", "scene", "site", "plot", "video", "series", "session", "slide", "exam", "eeg", "group", "photo")
FEWEST, FEWEST_PERSONS = 8, 3  # groups
PARTS = (  # ends of names, each of which one group has several of
    r"^(.+?)[_\-](?:[A-Za-z]*\d{1,3}|[LR])(?:\.\w+)?$",
    r"^(.+?)[_\-](?i:left|right|od|os|front|back|frontal|lateral|ap|pa|cc|mlo)(?:\.\w+)?$",
)
MOST_SHARE = 0.95  # of the rows that may be groups of their own
FOLD, WEIGHT = ("fold", "kfold"), ("weight", "weights")


@dataclass(frozen=True)
class Groups:
    """What hangs together.

    Attributes:
        column: "" for none.
        others: columns that repeat as well.
        is_few: are there hardly as many as there are folds?
        part: a regular expression that cuts a group from the ids, where no column does.
    """

    column: str = ""
    others: tuple[str, ...] = ()
    part: str = ""
    is_few: bool = False


def find(train: pd.DataFrame, but: Sequence[str], id_column: str) -> Groups:
    """Candidates by name and by how often their cells repeat.

    Args:
        but: columns that are something else.
    """
    free = [name for name in train.columns if name not in but]
    repeated = [name for name in free if _repeats(train[name])]
    some = [name for name in free if not train[name].is_unique and train[name].nunique() >= FEWEST]
    ranked = [name for words in (PERSONS, PLACES) for name in some if set(words_of(name)) & set(words)]
    ids = [name for name in repeated if name not in ranked and set(words_of(name)) & {"id", "uid"}]
    ranked = list(dict.fromkeys([*ranked, *ids]))
    if ranked:
        return Groups(ranked[0], tuple(ranked[1:]))
    few = [name for name in free if FEWEST_PERSONS <= train[name].nunique() < min(FEWEST, len(train) / 2)]
    persons = [name for name in few if set(words_of(name)) & set(PERSONS)]
    if persons:
        return Groups(persons[0], tuple(persons[1:]), is_few=True)
    return Groups(part=_part(train[id_column])) if id_column in train.columns else Groups()


def _repeats(cells: pd.Series) -> bool:
    """More than a handful of values, most of which come several times."""
    count = cells.nunique()
    return max(FEWEST, len(cells) / 200) <= count <= MOST_SHARE * len(cells)


def _part(ids: pd.Series) -> str:
    """What ids have in common before their last number, where that makes groups: patient12_3.png."""
    for pattern in PARTS:
        heads = ids.str.extract(pattern, expand=False)
        if heads.notna().all() and FEWEST <= heads.nunique() <= 0.7 * len(ids):
            return pattern
    return ""


def fold_column(train: pd.DataFrame) -> str:
    """The host's own folds, "" for none."""
    for name in train.columns:
        if name.casefold() in FOLD and 2 <= train[name].nunique() <= 50:
            return str(name)
    return ""


def weight_column(train: pd.DataFrame) -> str:
    """How much a row counts, "" for none."""
    for name in train.columns:
        if re.sub(r"[^a-z]", "", name.casefold()) in ("weight", "weights", "sampleweight"):
            return str(name)
    return ""


def metadata(train: pd.DataFrame, test: pd.DataFrame | None, but: Sequence[str]) -> tuple[list[str], list[str]]:
    """Columns that both tables have and that say something of a row: numbers, and categories."""
    if test is None:
        return [], []
    shared = [name for name in train.columns if name in test.columns and name not in but]
    numeric = [
        name for name in shared if train[name].str.fullmatch(r"(-?\d+(\.\d+)?)?").all() and train[name].nunique() > 1
    ]
    category = [name for name in shared if name not in numeric and 1 < train[name].nunique() <= 30]
    return numeric, category
