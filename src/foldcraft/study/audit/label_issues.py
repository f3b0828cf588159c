"""What is wrong, or odd, with labels: their names, how many there are of each, and the groups they share."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from foldcraft.common.errors import FoldcraftError, listing
from foldcraft.data import competition
from foldcraft.data.host_files.tables import Tables
from foldcraft.data.targets import reading
from foldcraft.study.audit.finding import Finding, ImageRef
from foldcraft.submission import form_inference

TABLE = "labels.csv"
GROUPS_TABLE = "mixed_groups.csv"
NAMES_TABLE = "group_names.csv"
FEW = 10  # rows, or groups, of a class that say little about it
SPACES = ("Zs", "Zl", "Zp", "Pd", "Pc", "Cc")  # Unicode categories of what parts words: spaces, dashes, underscores
RARE_MIX = 0.1  # share of the groups up to which a mixed one is an exception
# Letters of other alphabets that look like Latin ones, small as `casefold` makes them.
CYRILLIC, LATIN = "авеіјкмнорсѕтух", "abeijkmhopcstyx"
GREEK, ROMAN = "αεικνορτυχ", "aeikvoptux"
TWINS = str.maketrans(CYRILLIC + GREEK, LATIN + ROMAN)


def find(tables: Tables, folds: int) -> list[Finding]:
    """All that the labels say.

    Args:
        folds: how many folds there are to be.
    """
    found = [*of_names(tables, folds), *_rare(tables, folds), _mixed(tables), *_elsewhere(tables)]
    return [finding for finding in found if finding]


def of_names(tables: Tables, folds: int) -> list[Finding]:
    """What the names of labels and groups say by themselves."""
    return [*_look_alikes(tables), *_group_names(tables), *_group_sizes(tables, folds)]


def table(tables: Tables) -> pd.DataFrame:
    """One row a label: rows, share of them, groups, and the labels that its name looks like."""
    units = tables.groups if tables.groups is not None else tables.train_ids
    met = labels_of(tables)
    frame = pd.DataFrame({"label": met["label"], "unit": units[met["row"]]})
    counts = frame.groupby("label", sort=True)["unit"].agg(rows="size", groups="nunique").reset_index()
    twins = look_alikes(counts["label"].tolist())
    alike = {name: [other for other in names if other != name] for names in twins for name in names}
    counts.insert(2, "share", (counts["rows"] / len(tables.train)).round(6))
    return counts.assign(looks_like=[";".join(alike.get(name, [])) for name in counts["label"]])


def labels_of(tables: Tables) -> pd.DataFrame:
    """Place of a training row, and a label that it has; of several labels as many rows as it has, of values the columns
    that are known. Each label as it is written where a row has one, or where the target cannot be read."""
    try:
        target = tables.read_target.target
    except FoldcraftError:
        target = None  # told by whoever needs it
    if target is None or target.truth.ndim == 1:
        return pd.DataFrame({"row": np.arange(len(tables.train)), "label": tables.labels})
    rows, columns = np.nonzero(target.space.there(target.truth))
    return pd.DataFrame({"row": rows, "label": np.array(target.space.names, dtype=str)[columns]})


def _as_sets(tables: Tables) -> np.ndarray:
    """What each training row (N,) is labelled, in words."""
    try:
        target = tables.read_target.target
        return tables.labels if target.truth.ndim == 1 else np.array(target.in_words(target.truth), dtype=str)
    except FoldcraftError:
        return tables.labels


def _has_labels(tables: Tables) -> bool:
    """Are rows labelled with names, and not with numbers that hardly two of them share?"""
    try:
        target = tables.read_target.target
        return target.is_right_or_wrong
    except FoldcraftError:
        return True


def look_alikes(names: Sequence[str]) -> list[list[str]]:
    """Sets of names that a person would take for one and the same."""
    same: dict[str, list[str]] = {}
    for name in names:
        same.setdefault(skeleton(name), []).append(name)
    return [sorted(alike) for alike in same.values() if len(alike) > 1]


def skeleton(name: str) -> str:
    """A name without what is easily overlooked: case, accents, spaces, dashes, invisible signs, foreign twins of
    letters, and the zeros of a number ("07", "7.0")."""
    text = name.strip()
    if number := re.fullmatch(r"([+-]?)(\d+)(\.0*)?", text, re.ASCII):
        digits = number[2].lstrip("0")
        return f"{number[1].strip('+') if digits else ''}{digits or '0'}"
    kinds = [(sign, unicodedata.category(sign)) for sign in unicodedata.normalize("NFKD", text)]
    letters = [" " if kind in SPACES else sign for sign, kind in kinds if kind[0] not in "CM" or kind == "Cc"]
    return " ".join("".join(letters).split()).casefold().translate(TWINS)


def mixed_groups(tables: Tables) -> pd.DataFrame:
    """Groups with several labels: group, rows, labels with their counts; the closest to being of one label first."""
    if tables.groups is None or not _has_labels(tables):
        return pd.DataFrame({"group": [], "rows": [], "labels": []})
    frame = pd.DataFrame({"group": tables.groups, "label": _as_sets(tables)})
    made = []
    for group, labels in frame.groupby("group")["label"]:
        counts = labels.value_counts()
        if len(counts) > 1:
            odd_ones = len(labels) - int(counts.iloc[0])
            words = ";".join(f"{name}: {count}" for name, count in counts.items())
            made.append((odd_ones / len(labels), group, len(labels), words))
    return pd.DataFrame([row[1:] for row in sorted(made)], columns=["group", "rows", "labels"])


def group_names(tables: Tables) -> pd.DataFrame:
    """One row a group as it is written: rows, whether it is one, and the groups that its name looks like."""
    if tables.written_groups is None:
        return pd.DataFrame({"group": [], "rows": [], "is_group": [], "looks_like": []})
    frame = pd.DataFrame({"group": tables.written_groups, "is_group": tables.has_group})
    counts = frame.groupby("group", sort=True)["is_group"].agg(rows="size", is_group="first").reset_index()
    twins = look_alikes(counts["group"][counts["is_group"]].tolist())
    alike = {name: [other for other in names if other != name] for names in twins for name in names}
    return counts.assign(looks_like=[";".join(alike.get(name, [])) for name in counts["group"]])


def _look_alikes(tables: Tables) -> Iterator[Finding]:
    met = labels_of(tables)
    yield from _alike(tables, met, ("look_alikes", "labels", "classes", TABLE))


def _group_names(tables: Tables) -> Iterator[Finding]:
    """Groups that look alike, and rows without one."""
    if tables.written_groups is None:
        return
    there = tables.has_group
    groups = pd.DataFrame({"row": np.arange(len(there)), "label": np.where(there, tables.written_groups, "")})
    yield from _alike(tables, groups, ("group_look_alikes", "groups", "groups", NAMES_TABLE))
    if without := int((~there).sum()):
        said = sorted({repr(cell) for cell in tables.written_groups[~there].tolist()})
        yield Finding(
            "missing_groups",
            "warning",
            without,
            f"{without} of {len(there)} rows have no {tables.names.group_name} ({listing(said, 3)}): "
            "each stands by itself, and may be in any fold",
            f"fill in {tables.names.group_name} in {tables.names.train} where rows belong together",
            NAMES_TABLE,
            [_some(tables, ~there)],
        )


def _group_sizes(tables: Tables, folds: int) -> Iterator[Finding]:
    """A group that is larger than a fold: a word for what is not known ("unknown", "0") is one more often than not."""
    if tables.groups is None or len(sizes := pd.Series(tables.groups).value_counts()) < 2:
        return
    group, size = str(sizes.index[0]), int(sizes.iloc[0])
    if size * folds > len(tables.train) and size > 2 * sizes.iloc[1]:
        yield Finding(
            "large_group",
            "warning",
            size,
            f"group {group!r} holds {size} of {len(tables.train)} rows, more than a fold, and all of them are in one",
            f"see whether it is one; if it stands for rows without one, empty these cells in {tables.names.train}",
            NAMES_TABLE,
            [_some(tables, tables.groups == group, group=True)],
        )


def _alike(tables: Tables, met: pd.DataFrame, words: tuple[str, str, str, str]) -> Iterator[Finding]:
    """Names that look alike among the `label`s of some `row`s; `words`: the finding, what they name, what they count
    as, the table."""
    finding, things, counted_as, table = words
    cells = met["label"]
    alike = look_alikes(sorted(set(cells.tolist()) - {""}))
    if not alike:
        return
    rows = cells.value_counts()
    told = listing([" and ".join(f"{name!r} ({rows[name]} rows)" for name in names) for names in alike], 5)
    # Where letters themselves are what is recognised, "a" and "A" are two classes.
    signs = all(len(name) == 1 for names in alike for name in names)
    yield Finding(
        finding,
        "warning" if signs else "serious",
        len(alike),
        f"{things} that look alike count as several {counted_as}: {told}",
        f"write them alike in {tables.names.train}, unless they are meant to differ",
        table,
        [_some(tables, _rows_with(tables, met, name), repr(name)) for names in alike for name in names],
    )


def _rows_with(tables: Tables, met: pd.DataFrame, label: str) -> np.ndarray:
    """Which training rows have a label, a mask."""
    return np.isin(np.arange(len(tables.train)), met["row"][met["label"] == label])


def _rare(tables: Tables, folds: int) -> Iterator[Finding]:
    counts, met = table(tables), labels_of(tables)
    kind = "rows" if tables.groups is None else "groups"
    for name, severity, rare, what, hint in (
        (
            "too_rare",
            "serious",
            counts["rows"] < folds,
            f"fewer rows than the {folds} folds",
            "merge or drop the class, or use fewer folds (folds.count)",
        ),
        (
            "rare",
            "warning",
            (counts["rows"] >= folds) & (counts["groups"] < max(FEW, folds)),
            f"fewer than {max(FEW, folds)} {kind}",
            "its score is mostly luck; get more of it, merge it, or read the score class by class",
        ),
    ):
        names = counts["label"][rare].tolist()
        if names:
            told = listing([f"{row.label!r} ({row.rows} rows)" for row in counts[rare].itertuples()])
            image_rows = [_some(tables, _rows_with(tables, met, label), label) for label in names]
            yield Finding(
                name, severity, len(names), f"{len(names)} classes have {what}: {told}", hint, TABLE, image_rows
            )


def _mixed(tables: Tables) -> Finding | None:
    mixed = mixed_groups(tables)
    if mixed.empty:
        return None
    sizes = pd.Series(tables.groups).value_counts()
    several = int((sizes > 1).sum())
    share = len(mixed) / several
    image_rows = [_some(tables, tables.groups == group, group=True) for group in mixed["group"].head(20)]
    return Finding(
        "mixed_groups",
        "warning" if share <= RARE_MIX else "info",
        len(mixed),
        f"{len(mixed)} of {several} groups of several rows have several labels ({share:.1%})",
        "if a group is one thing with one label, these are wrong labels; if not (faces of one photo), all is well",
        GROUPS_TABLE,
        image_rows,
    )


def _elsewhere(tables: Tables) -> Iterator[Finding]:
    """Labels that the test set or the sample submission knows and the training rows do not, or the other way round."""
    own = reading.columns_of(tables.names, list(map(str, tables.train.columns)), tables.folder / tables.names.train)
    if not _is_one_label(tables):
        for column in own:
            if column in tables.test.columns:
                yield _test_answers(tables, column)
        return
    known = set(tables.labels.tolist())
    if own[0] in tables.test.columns:
        yield from _test_labels(tables, own[0], known)
    ids = {tables.names.test_id, *(tables.names.answer.columns[1] if tables.names.answer else [])}
    ids |= {tables.sample_rows.column} if tables.sample_rows else set()
    columns = [column for column in tables.sample.columns if column not in ids]
    if len(columns) > 1 and set(columns) != known and not _can_be_filled(tables):
        yield _sample_columns(tables, set(columns), known)
    if len(columns) == 1:
        yield from _sample_labels(tables, columns[0], known)


def _can_be_filled(tables: Tables) -> bool:
    """Do the sample's columns mean something all the same, as `rust_vote` and columns of the test table do?"""
    try:
        return bool(form_inference.tried(competition.of(tables)))
    except FoldcraftError:
        return False


def _is_one_label(tables: Tables) -> bool:
    try:
        return tables.read_target.target.truth.ndim == 1
    except FoldcraftError:
        return reading.settings_of(tables.names).columns is None


def _test_answers(tables: Tables, column: str) -> Finding:
    what = f"{tables.names.test} has a column {column!r} of answers"
    rows = len(tables.test)
    return Finding("test_answers", "info", rows, what, "it is not read; see that it is no leak", TABLE)


def _test_labels(tables: Tables, column: str, known: set[str]) -> Iterator[Finding]:
    names, answers = tables.names, tables.test[column].to_numpy(dtype=str)
    if unknown := sorted(set(answers.tolist()) - known - {""}):
        rows = zip(tables.test_ids, answers, strict=True)
        image_rows = [[ImageRef("test", row, label)] for row, label in rows if label in unknown]
        what = f"{names.test} has labels that no training row has: {listing(unknown)}"
        hint = "no model can answer them; see whether training rows are missing"
        yield Finding("test_only_label", "serious", len(unknown), what, hint, TABLE, image_rows)
    elif answers.size and all(answers):
        yield _test_answers(tables, column)


def _sample_columns(tables: Tables, columns: set[str], known: set[str]) -> Finding:
    extra, lacking = sorted(columns - known), sorted(known - columns)
    parts = [f"columns that are no label ({listing(extra)})"] if extra else []
    parts += [f"no column for {listing(lacking)}"] if lacking else []
    what = f"{tables.names.sample_file} has {' and '.join(parts)}"
    hint = "no submission can be made on it; see whether labels are misspelt or classes missing"
    return Finding("sample_columns", "serious", len(extra) + len(lacking), what, hint, TABLE)


def _sample_labels(tables: Tables, column: str, known: set[str]) -> Iterator[Finding]:
    strange = sorted(set(tables.sample[column].tolist()) - known - {""})
    numbers = pd.to_numeric(pd.Series(strange, dtype=str), errors="coerce").notna().all()
    if strange and not numbers:  # numbers are placeholders, or probabilities
        what = f"{tables.names.sample_file} has answers that no training row has: {listing(strange)}"
        yield Finding("sample_labels", "warning", len(strange), what, "see whether labels are misspelt", TABLE)


def _some(tables: Tables, chosen: np.ndarray, note: str = "", group: bool = False, most: int = 8) -> list[ImageRef]:
    """The first of the chosen training rows."""
    rows = np.flatnonzero(chosen)[:most]
    ids, labels = tables.train_ids, _as_sets(tables)
    return [ImageRef("train", str(ids[row]), str(labels[row]) if group else note) for row in rows]
