"""What is predicted: which columns, of what kind, and in which form the sample submission wants it."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from foldcraft.common.errors import listing
from foldcraft.data.targets.classes import are_numbers
from foldcraft.study.start.roles import IMAGE, PART, Frames, words_of

ANSWER_WORDS = ("label", "target", "class", "category", "diagnosis", "grade", "species", "ans", "answer", "score", "y")
SEPARATORS = (" ", "|", ";", ",")
NO_NAME = "the label"  # what is missing where no sample says how it is called
MANY = 30  # different numbers from which on a column holds values
MIDDLES = ("mean", "avg", "average", "median", "value", "target", "label")  # words of a column with the answer
YES = ("1", "yes", "true", "positive", "pos", "malignant", "abnormal", "fake", "cancer", "disease", "sick")


@dataclass(frozen=True)
class Answer:
    """What is predicted.

    Attributes:
        columns: of the training table; none where it has no such column.
        kind: of the target.
        form: of the submission, in words for people.
        separator: between the labels of a cell.
        row: how a long sample's ids are made of a row's id and what is asked.
        parts: what is asked of each row in a long sample.
        k: labels a row in a sample of guesses.
        positive: class whose probability is asked for, where that is a guess.
        is_unclear: two classes, and a sample that could hold labels or probabilities.
        guess: why the columns are a guess; "" where they are none.
        left: columns of the sample that nothing in the training table answers.
        classes: names of the classes of a single label.
        missing: the sample's answer column where the training table has nothing like it.
    """

    columns: tuple[str, ...] = ()
    kind: str = "single"
    form: str = "labels"
    separator: str = ""
    row: str = ""
    parts: tuple[str, ...] = ()
    k: int = 0
    positive: str = ""
    classes: tuple[str, ...] = ()
    missing: str = ""
    is_unclear: bool = False
    guess: str = ""
    left: tuple[str, ...] = ()

    @property
    def in_words(self) -> str:
        """What the answers are, for people."""
        words = {"top_k": "ranked guesses", "lists": "lists of labels", "probability": "single probabilities"}
        kinds = {"regression": "values", "multioutput": "several labels"}
        return kinds.get(self.kind, "labels") if self.form == "long" else words.get(self.form, self.form)


def find(frames: Frames, ids: Sequence[str], is_long: bool = True) -> Answer:
    """What the sample asks for, and which columns of the training table tell it.

    Args:
        ids: columns that name rows, which are no answers.
        is_long: may the sample have a row for each id and part?
    """
    train, test, sample = frames.train, frames.test, frames.sample
    known = [name for name in train.columns if name not in (*ids, IMAGE, PART)]
    asked = [] if sample is None else list(sample.columns[1:])
    if test is not None and len(asked) > 1:
        asked = [name for name in asked if name not in test.columns] or asked
    left: tuple[str, ...] = ()
    if len(asked) > 1:
        several = _columns(train, known, asked)
        own = [name for name in asked if name.casefold() in {one.casefold() for one in known}]
        if several.columns or len(own) != 1:
            return several
        asked, left = own, tuple(name for name in asked if name not in own)  # one answer, and a confidence beside it
    if is_long and sample is not None and (answer := _long(train, test, sample, known)):
        return answer
    if not asked and (several := _exclusive_columns(train, known)):
        return Answer(tuple(several), "soft", "probabilities")
    column = _column(frames, known, asked)
    if not column and sample is None and test is not None:  # a test table may come with its labels
        named = [name for name in known if name in test.columns and set(words_of(name)) & set(ANSWER_WORDS)]
        if named:
            return replace(_one(train[named[0]], named[0], None), guess="the test table has it as well")
    if not column:
        return Answer(missing=asked[0] if asked else NO_NAME)
    return replace(_one(train[column], column, None if sample is None or not asked else sample[asked[0]]), left=left)


def _columns(train: pd.DataFrame, known: Sequence[str], asked: Sequence[str]) -> Answer:
    """A column of the sample for each label, class or value."""
    plain = {name.casefold(): name for name in known}
    own = [plain[name.casefold()] for name in asked if name.casefold() in plain]
    if len(own) == len(asked):
        kind = kind_of_columns(train, own)
        form = {"multilabel": "probabilities", "soft": "probabilities", "regression": "values"}.get(kind, "labels")
        return Answer(tuple(own), kind, form)
    if several := _with_more(known, asked):
        names, others = several
        kind = kind_of_columns(train, names)
        form = "values" if kind == "regression" else "labels" if kind == "multioutput" else "probabilities"
        guess = f"as {names[0]} there is {listing(others, 2)}" if others else ""
        return Answer(names, kind, form, guess=guess)
    for column in known:  # a column a class of one label
        classes = set(train[column]) - {""}
        core = {name for name in asked if any(name == one or name.endswith(f"_{one}") for one in classes)}
        if len(classes) == len(asked) and (classes == set(asked) or len(core) == len(asked)):
            return Answer((column,), "single", "probabilities", classes=tuple(sorted(classes)))
    for column in known:  # lists of what the columns ask for
        for separator in SEPARATORS:
            parts = {part for cell in train[column] for part in cell.split(separator) if part}
            if parts and parts <= set(asked):
                return Answer((column,), "multilabel", "probabilities", separator)
    return Answer(missing=", ".join(asked[:3]))


def _with_more(known: Sequence[str], asked: Sequence[str]) -> tuple[tuple[str, ...], list[str]] | None:
    """Columns that are called as what is asked for with something behind or before it: X4_mean for X4.

    Returns:
        They, and those of the first that could be meant instead; None where there are none.
    """
    ends = [name.removeprefix(asked[0]) for name in known if name.startswith(asked[0])]
    heads = [name.removesuffix(asked[0]) for name in known if name.endswith(asked[0])]
    made = [tuple(f"{one}{end}" for one in asked) for end in ends if end and not end[0].isalnum()]
    made += [tuple(f"{head}{one}" for one in asked) for head in heads if head and not head[-1].isalnum()]
    whole = [names for names in made if set(names) <= set(known)]
    whole.sort(key=lambda names: not set(words_of(names[0])) & set(MIDDLES))
    return (whole[0], [names[0] for names in whole[1:]]) if whole else None


def kind_of_columns(train: pd.DataFrame, columns: Sequence[str]) -> str:
    """What several columns hold: 0 and 1, votes, values or labels."""
    cells = train[list(columns)]
    filled = cells.to_numpy().ravel()
    filled = filled[filled != ""]
    if set(filled) <= {"0", "1", "0.0", "1.0", "True", "False"}:
        return "multilabel"
    numbers = are_numbers(sorted(set(filled)))
    if numbers and all("vote" in name.casefold() for name in columns):
        return "soft"
    if numbers:
        values = cells.apply(pd.to_numeric, errors="coerce")
        if (values.sum(axis=1) - 1).abs().max() < 1e-3 and (values >= 0).all(axis=None):
            return "soft"
    if numbers and any(looks_like_values(cells[name]) for name in columns):
        return "regression"
    return "multioutput"


def looks_like_values(cells: pd.Series) -> bool:
    """Numbers with fractions, or very many of them."""
    names = sorted(set(cells) - {""})
    whole = all(re.fullmatch(r"-?\d+(\.0*)?", name) for name in names)
    return are_numbers(names) and (not whole or (len(names) > MANY and len(names) > len(cells) / 8))


def _long(train: pd.DataFrame, test: pd.DataFrame | None, sample: pd.DataFrame, known: Sequence[str]) -> Answer | None:
    """A sample with a row for each id and part."""
    ids = sample.iloc[:, 0].tolist()
    names = [set(known)]
    if PART in train.columns:
        names.append(set(train[PART]))
    if test is not None:  # a table that is long itself says which parts there are
        names += [set(test[name]) for name in test.columns if 1 < test[name].nunique() <= 50]
    for parts in names:
        found = [_split(cell, parts) for cell in ids]
        if found and all(found):
            kept = tuple(dict.fromkeys(part for _, _, part in found))
            joints = {joint for _, joint, _ in found}
            if len(kept) > 1 and len(joints) == 1:
                return _of_parts(train, known, kept, joints.pop())
    return None


def _split(cell: str, parts: set[str]) -> tuple[str, str, str] | None:
    """An id, what joins it, and a part: Test_0_grapheme_root."""
    for part in sorted(parts, key=len, reverse=True):
        if part and cell.endswith(part) and len(cell) > len(part):
            head = cell[: -len(part)]
            joint = re.search(r"[_\-.:|/ ]+$", head)
            if joint and len(head) > len(joint[0]):
                return head[: -len(joint[0])], joint[0], part
    return None


def _of_parts(train: pd.DataFrame, known: Sequence[str], parts: tuple[str, ...], joint: str) -> Answer:
    row = "{@id}" + joint + "{@target}"
    if set(parts) <= set(known):
        kind = kind_of_columns(train, parts)
        return Answer(parts, kind, "long", row=row, parts=parts)
    values = [name for name in known if looks_like_values(train[name]) and set(words_of(name)) & set(ANSWER_WORDS)]
    values = values or [known[-1]]
    kind = "regression" if looks_like_values(train[values[0]]) else "multioutput"
    kind = "multilabel" if set(train[values[0]]) <= {"0", "1", "0.0", "1.0"} else kind
    return Answer((values[0],), kind, "long", row=row, parts=parts)


def _exclusive_columns(train: pd.DataFrame, known: Sequence[str]) -> list[str]:
    """Columns that together say of each row which class it is; none where there are not."""
    bits = [name for name in known if set(train[name]) <= {"0", "1", "0.0", "1.0"}]
    ones = train[bits].apply(pd.to_numeric).sum(axis=1) if len(bits) > 1 else pd.Series([0.0])
    return bits if (ones == 1).all() else []


def _column(frames: Frames, known: Sequence[str], asked: Sequence[str]) -> str:
    """The one column that is predicted, "" where none is: by its name, by the sample's cells, or for want of others."""
    plain = {name.casefold(): name for name in known}
    same = [plain[name.casefold()] for name in asked if name.casefold() in plain]
    if same:
        return same[0]
    test, train = frames.test, frames.train
    left = [name for name in known if test is None or name not in test.columns]
    left = [name for name in left if train[name].nunique() > 1]
    if frames.sample is not None and asked and (column := _by_cells(train, left, frames.sample[asked[0]])):
        return column
    named = [name for name in left if set(words_of(name)) & set(ANSWER_WORDS)]
    return (named or (left if len(left) == 1 else []) or [""])[0]


def _by_cells(train: pd.DataFrame, left: Sequence[str], said: pd.Series) -> str:
    """The column whose labels the sample's cells are, one or several to a cell."""
    if said.str.contains(" ").all():
        guesses = {part for cell in said.head(50) for part in cell.split(" ")}
        fitting = [name for name in left if not train[name].is_unique and guesses & set(train[name])]
        several = [name for name in left if 2 < train[name].nunique() < len(train)]
        return max(fitting or several, key=lambda name: train[name].nunique(), default="")
    cells = set(said) - {""}
    fitting = [name for name in left if cells and cells <= set(train[name])]
    return fitting[0] if len(fitting) == 1 and not cells <= {"0", "1", "0.5", "0.0"} else ""


def _one(cells: pd.Series, column: str, said: pd.Series | None) -> Answer:
    """One column: classes, lists or values."""
    names = sorted(set(cells) - {""})
    for separator in SEPARATORS:
        parts = {part for name in names for part in name.split(separator)}
        times = Counter(part for cell in cells for part in cell.split(separator))
        several = [name for name in names if separator in name]
        alone = {name for name in names if separator not in name}
        is_list = several and len(parts) < len(names) + len(several) and (parts & alone or are_numbers(sorted(parts)))
        is_asked = said is not None and set(said) - {""} and not set(said) <= set(names) and len(parts) < len(cells)
        if several and is_asked and all(set(cell.split(separator)) <= parts for cell in said if cell):
            return Answer((column,), "multilabel", "lists", separator)
        if is_list and len(parts) <= len(names) and max(times.values()) > 1 and not _are_plain(names, alone, parts):
            return Answer((column,), "multilabel", "lists", separator)
    if looks_like_values(cells):
        return Answer((column,), "regression", "values")
    if len(names) > MANY and said is not None and said.str.contains(" ").all():
        return Answer((column,), "single", "top_k", k=_most(said), classes=tuple(names))
    if said is not None and said.str.contains(" ").all() and not any(" " in name for name in names):
        return Answer((column,), "single", "top_k", k=_most(said), classes=tuple(names))
    floats = said is not None and said.str.fullmatch(r"\d*\.\d+").any()
    if floats and len(names) == 2:
        return Answer((column,), "single", "probability", positive=_positive(names), classes=tuple(names))
    unclear = len(names) == 2 and said is not None and said.nunique() == 1 and are_numbers([said.iloc[0]])
    return Answer((column,), "single", "labels", classes=tuple(names), is_unclear=unclear)


def _are_plain(names: Sequence[str], alone: set[str], parts: set[str]) -> bool:
    """Are they names of several words, rather than lists? Of a list most parts are met alone, or numbers."""
    return not are_numbers(sorted(parts)) and len(parts & alone) < len(parts) / 2


def _most(said: pd.Series) -> int:
    return int(said.str.split(" ").str.len().max())


def _positive(names: Sequence[str]) -> str:
    """Of two classes the one that is looked for, as far as its name tells; else the second."""
    hits = [name for name in names if name.strip().casefold() in YES]
    return hits[0] if len(hits) == 1 else names[1]


def of_classes(names: Sequence[str], sample: pd.DataFrame | None) -> Answer:
    """The answer of files whose labels are known by their names or folders."""
    if sample is not None and len(names) > 1 and set(names) <= set(sample.columns):
        return Answer(("label",), "single", "probabilities", classes=tuple(names))
    said = None if sample is None or len(sample.columns) < 2 else sample.iloc[:, 1]
    floats = said is not None and said.str.fullmatch(r"\d*\.\d+").any()
    if floats and len(names) == 2:
        return Answer(("label",), "single", "probability", positive=_positive(names), classes=tuple(names))
    return Answer(("label",), "single", "labels", classes=tuple(names))
