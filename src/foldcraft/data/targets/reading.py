"""From a table of training rows to the target, checked."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from foldcraft.common.config import CompetitionConfig, TargetConfig
from foldcraft.common.errors import FoldcraftError, listing, shorten, suggest
from foldcraft.data.targets.classes import Classes, are_numbers
from foldcraft.data.targets.several import MultiLabel, MultiOutput, Regression, Soft
from foldcraft.data.targets.single import HeadsLabel, Ordinal, SingleLabel, WithAuxiliary
from foldcraft.data.targets.target import Target
from foldcraft.metrics import scores

MISSING = frozenset(("", "nan", "na", "n/a", "<na>", "none", "null"))
YES, NO = frozenset(("1", "1.0", "true", "yes")), frozenset(("0", "0.0", "false", "no"))
KEY = "competition.target"
MANY = 30  # classes that are all numbers, from which on they may be values
SEVERAL = ("multilabel", "soft", "regression", "multioutput")
EXAMPLE = "write target: {column: NAME, kind: regression}"


@dataclass(frozen=True)
class ReadTarget:
    """A target as it was read.

    Attributes:
        weights: how much each row counts (N,), where the target says so by its votes.
        notes: what was taken without being asked for, a line each.
    """

    target: Target
    weights: np.ndarray | None = None
    notes: tuple[str, ...] = ()


def settings_of(names: CompetitionConfig) -> TargetConfig:
    """The settings of the target, where they are no more than a column as well."""
    return TargetConfig(column=names.target) if isinstance(names.target, str) else names.target


def columns_of(names: CompetitionConfig, known: Sequence[str], path: Path) -> tuple[str, ...]:
    """Columns that the target is read from.

    Raises:
        FoldcraftError: neither `column` nor `columns` is given, or both; a pattern that matches none.
    """
    wanted = settings_of(names)
    if (wanted.column is None) == (wanted.columns is None):
        both = "" if wanted.column is None else "; words on the command line are added to what the config says"
        raise FoldcraftError(f"name either a column or columns{both}", KEY, EXAMPLE)
    if wanted.column is not None:
        return (wanted.column,)
    if not isinstance(wanted.columns, str):
        if not wanted.columns or len(set(wanted.columns)) < len(wanted.columns):
            raise FoldcraftError("names no column, or one of them twice", f"{KEY}.columns", "name each column once")
        return tuple(wanted.columns)
    found = tuple(name for name in known if name != names.train_id and fnmatch.fnmatchcase(name, wanted.columns))
    if not found:
        raise FoldcraftError(f"no column is like {wanted.columns!r}", KEY, suggest(wanted.columns, list(known)))
    return found


def needed_columns(names: CompetitionConfig, known: Sequence[str], path: Path) -> list[str]:
    """All columns that must be there for the target: its own, those of its heads, and auxiliary ones."""
    wanted = settings_of(names)
    return list(dict.fromkeys([*columns_of(names, known, path), *wanted.heads, *wanted.auxiliary]))


def may_be_empty(names: CompetitionConfig) -> bool:
    """May a cell of the target be empty: a label that is not known, or a list without any?"""
    wanted = settings_of(names)
    return wanted.columns is not None or wanted.separator is not None


def read(names: CompetitionConfig, table: pd.DataFrame, path: Path) -> ReadTarget:
    """The target of the training rows.

    Args:
        table: all as text.
        path: of the table, for messages.

    Raises:
        FoldcraftError: cells that are not what the kind asks for; a single class; settings that do not go together.
    """
    wanted = settings_of(names)
    columns = columns_of(names, list(table.columns), path)
    kind, notes = _kind(wanted, names, columns)
    _check_settings(wanted, kind, names)
    found = READERS[kind](wanted, names, columns, table, path)
    target = found.target
    if wanted.auxiliary:
        target = _with_auxiliary(target, tuple(wanted.auxiliary), table)
    return replace(found, target=target, notes=(*notes, *found.notes))


def _kind(wanted: TargetConfig, names: CompetitionConfig, columns: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """What kind of target it is, and what there is to say of it."""
    if wanted.kind is not None:
        return wanted.kind, ()
    suits = scores.kinds_of(names.metric)
    if len(suits) == 1 and suits[0] != "single":
        return suits[0], (f"target {listing(columns, 3)} is taken for {suits[0]}, which the metric is made for",)
    if len(columns) > 1 or wanted.separator is not None:
        possible = [kind for kind in SEVERAL if kind in suits] or list(SEVERAL)
        raise FoldcraftError("several labels, and it is not said of what kind", KEY, f"add kind: {listing(possible)}")
    return "ordinal" if "qwk" in str(names.metric) else "single", ()


def _check_settings(wanted: TargetConfig, kind: str, names: CompetitionConfig) -> None:
    """See that each setting is one of this kind of target."""
    only = {
        "separator": ("multilabel",),
        "order": ("single", "ordinal"),
        "cumulative": ("ordinal",),
        "heads": ("single",),
        "range": ("regression",),
        "prior": ("soft",),
        "weight_by_votes": ("soft",),
        "auxiliary": ("single", "ordinal", "multioutput"),
    }
    given = {key for key in only if getattr(wanted, key) != type(wanted).model_fields[key].get_default()}
    if kind not in ("single", "ordinal") and names.order is not None:
        raise FoldcraftError(f"is for single labels, and the target is {kind}", "competition.order", "leave it out")
    for key in sorted(given):
        if kind not in only[key]:
            raise FoldcraftError(f"goes with kind {listing(only[key])}, not {kind}", f"{KEY}.{key}", "leave it out")


def _single(
    wanted: TargetConfig, names: CompetitionConfig, columns: Sequence[str], table: pd.DataFrame, path: Path
) -> ReadTarget:
    column = _one(columns, "single")
    labels = table[column].tolist()
    if wanted.kind is None and not wanted.heads:
        _check_is_label(labels, column)
    classes = _classes(labels, names, wanted, path)
    if wanted.heads:
        return ReadTarget(_with_heads(column, classes, labels, tuple(wanted.heads), table, path))
    return ReadTarget(SingleLabel.of(column, classes, classes.encode(labels)))


def _check_is_label(labels: Sequence[str], column: str) -> None:
    """See that what is to be classes does not look like values, or like several labels in one cell."""
    names = sorted(set(labels))
    if are_numbers(names) and len(names) > MANY and (len(names) > len(labels) / 4 or any("." in n for n in names)):
        what = f"column {column!r} has {len(names)} different numbers, which look like values"
        raise FoldcraftError(what, KEY, "set kind: regression, or kind: single to take each for a class")
    for separator in ("|", ";", ",", " "):
        parts = {part for name in names for part in name.split(separator)}
        if any(separator in name for name in names) and parts <= {n for n in names if separator not in n}:
            example = shorten(next(name for name in names if separator in name), 40)
            hint = f'set kind: multilabel and separator: "{separator}", or kind: single'
            raise FoldcraftError(f"{example!r} looks like several labels, each of which is there alone too", KEY, hint)


def _classes(labels: Sequence[str], names: CompetitionConfig, wanted: TargetConfig, path: Path) -> Classes:
    classes = Classes.of(labels)
    column = wanted.column or names.target
    if len(classes) < 2:
        hint = "name the column that is predicted: competition.target"
        raise FoldcraftError(f"only one class, {classes.names[0]!r}, in column {column!r}", path, hint)
    order = wanted.order if wanted.order is not None else names.order
    if order is None:
        return classes
    lacking = [name for name in classes.names if name not in order]
    extra = [name for name in order if name not in classes.names]
    if lacking or extra:
        parts = [f"lacks {listing(lacking, 3)}"] if lacking else []
        parts += [f"has {listing(extra, 3)}, which no row has"] if extra else []
        key = f"{KEY}.order" if wanted.order is not None else "competition.order"
        raise FoldcraftError(" and ".join(parts), key, f"name each label of {path.name} once")
    return Classes(tuple(order))


def _with_heads(
    column: str, classes: Classes, labels: Sequence[str], heads: tuple[str, ...], table: pd.DataFrame, path: Path
) -> HeadsLabel:
    of_head = tuple(Classes.of(table[head].tolist()) for head in heads)
    parts = np.stack([c.encode(table[head].tolist()) for head, c in zip(heads, of_head, strict=True)], axis=1)
    truth = classes.encode(labels)
    pairs = np.unique(np.column_stack([truth, parts]), axis=0)
    seen = pairs[:, 0].tolist()
    if torn := sorted({classes.names[k] for k in seen if seen.count(k) > 1}):
        what = f"columns {listing(heads)} do not fix the label: {torn[0]!r} has several of their values"
        raise FoldcraftError(what, f"{KEY}.heads", "name columns that are the same in all rows of a label")
    if len(np.unique(pairs[:, 1:], axis=0)) < len(pairs):
        what = f"columns {listing(heads)} do not tell all labels apart"
        raise FoldcraftError(what, f"{KEY}.heads", "name one more column")
    return HeadsLabel((column,), SingleLabel.of(column, classes, truth).space, truth, heads, of_head, pairs[:, 1:])


def _ordinal(
    wanted: TargetConfig, names: CompetitionConfig, columns: Sequence[str], table: pd.DataFrame, path: Path
) -> ReadTarget:
    column = _one(columns, "ordinal")
    labels = table[column].tolist()
    classes = _classes(labels, names, wanted, path)
    if wanted.order is None and names.order is None and not are_numbers(classes.names):
        words = [name for name in classes.names if not are_numbers([name])]
        raise FoldcraftError(
            f"grades need an order, and the labels are no numbers: {listing(words, 5)}",
            "competition.order",
            "name all of them from the least to the most: order: [none, mild, severe]",
        )
    space = SingleLabel.of(column, classes, classes.encode(labels)).space
    cumulative = wanted.cumulative and not wanted.auxiliary
    words = f"grades of {column!r} are learned as classes, as the auxiliary columns are"
    notes = (words,) if wanted.cumulative and not cumulative else ()
    return ReadTarget(Ordinal((column,), space, classes.encode(labels), cumulative), notes=notes)


def _multilabel(
    wanted: TargetConfig, names: CompetitionConfig, columns: Sequence[str], table: pd.DataFrame, path: Path
) -> ReadTarget:
    if wanted.separator is None:
        if len(columns) < 2 and wanted.column is not None:
            hint = 'add separator: " " (or what stands between labels), or name columns of 0 and 1'
            raise FoldcraftError("one column, and no separator of its labels", KEY, hint)
        truth = np.column_stack([_yes_or_no(table[name], name, path) for name in columns])
        return ReadTarget(_checked(MultiLabel.of(tuple(columns), tuple(columns), truth, ""), path))
    column = _one(columns, "multilabel with a separator")
    lists = [[part for part in cell.split(wanted.separator) if part.strip()] for cell in table[column].tolist()]
    labels = Classes.of([label for each in lists for label in each]) if any(lists) else None
    if labels is None:
        hint = "name the columns that are predicted: competition.target"
        raise FoldcraftError(f"column {column!r} has no label in any row", path, hint)
    truth = np.zeros((len(lists), len(labels)))
    for row, each in enumerate(lists):
        truth[row, labels.encode(each)] = 1
    alone = all(len(each) < 2 for each in lists)
    words = f"no cell of column {column!r} has more than one label: is {wanted.separator!r} what stands between them?"
    notes = (f"warning: {words}",) if alone else ()
    return ReadTarget(_checked(MultiLabel.of((column,), labels.names, truth, wanted.separator), path), notes=notes)


def _checked(target: MultiLabel, path: Path) -> MultiLabel:
    known = ~np.isnan(target.truth)
    constant = [n for n, t, k in zip(target.space.names, target.truth.T, known.T, strict=True) if len(set(t[k])) < 2]
    if constant:
        what = f"label {listing(constant, 3)} is the same in all rows, so nothing can be learned of it"
        raise FoldcraftError(what, path, "leave it out of columns")
    return target


def _yes_or_no(cells: pd.Series, name: str, path: Path) -> np.ndarray:
    words = cells.str.strip().str.casefold()
    truth = np.where(words.isin(YES), 1.0, np.where(words.isin(NO), 0.0, np.nan))
    wrong = np.isnan(truth) & ~words.isin(MISSING).to_numpy()
    if wrong.any():
        raise _bad_cells(cells, wrong, name, path, "0 or 1, or empty where it is not known")
    return truth


def _numbers(cells: pd.Series, name: str, path: Path) -> np.ndarray:
    words = cells.str.strip()
    values = pd.to_numeric(words, errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~np.isfinite(values) & ~words.str.casefold().isin(MISSING).to_numpy()
    if wrong.any():
        raise _bad_cells(cells, wrong, name, path, "a number, or empty where it is not known")
    return values


def _bad_cells(cells: pd.Series, wrong: np.ndarray, name: str, path: Path, wanted: str) -> FoldcraftError:
    row = int(np.flatnonzero(wrong)[0])
    where = f"line {row + 2}: {shorten(cells.iloc[row], 40)!r}"
    what = f"{int(wrong.sum())} cells of column {name!r} are not {wanted}; {where}"
    return FoldcraftError(what, path, "mend the cells or the settings of competition.target")


def _soft(
    wanted: TargetConfig, names: CompetitionConfig, columns: Sequence[str], table: pd.DataFrame, path: Path
) -> ReadTarget:
    if len(columns) < 2:
        raise FoldcraftError("votes need a column for each class", KEY, "name columns: [a, b, c]")
    votes = np.column_stack([_numbers(table[name], name, path) for name in columns])
    if np.isnan(votes).any() or (votes < 0).any():
        row = int(np.flatnonzero((np.isnan(votes) | (votes < 0)).any(1))[0])
        raise FoldcraftError(f"votes are missing or negative in line {row + 2}", path, "votes are numbers from 0 on")
    total = votes.sum(1)
    if not (total + wanted.prior * len(columns) > 0).all():
        row = int(np.flatnonzero(total == 0)[0])
        raise FoldcraftError(f"no votes in line {row + 2}", path, f"drop such rows, or set {KEY}.prior above 0")
    truth = votes + wanted.prior
    weights = total / total.mean() if wanted.weight_by_votes else None
    return ReadTarget(Soft.of(tuple(columns), truth / truth.sum(1, keepdims=True)), weights)


def _regression(
    wanted: TargetConfig, names: CompetitionConfig, columns: Sequence[str], table: pd.DataFrame, path: Path
) -> ReadTarget:
    truth = np.column_stack([_numbers(table[name], name, path) for name in columns])
    for name, values in zip(columns, truth.T, strict=True):
        if np.isnan(values).all() or np.nanstd(values) == 0:
            has = "no value in any row" if np.isnan(values).all() else "one value in all rows"
            raise FoldcraftError(f"column {name!r} has {has}", path, f"leave it out of {KEY}")
    low, high = wanted.range or (-np.inf, np.inf)
    if low >= high:
        raise FoldcraftError(f"{low:g} is not below {high:g}", f"{KEY}.range", "write the least value first")
    outside = (truth < low) | (truth > high)
    if outside.any():
        row = int(np.flatnonzero(outside.any(1))[0])
        what = f"{int(outside.sum())} values lie outside {low:g} to {high:g}, the first in line {row + 2}"
        raise FoldcraftError(what, f"{KEY}.range", "widen it, or mend the values")
    return ReadTarget(Regression.of(tuple(columns), truth, low, high))


def _multioutput(
    wanted: TargetConfig, names: CompetitionConfig, columns: Sequence[str], table: pd.DataFrame, path: Path
) -> ReadTarget:
    if len(columns) < 2:
        raise FoldcraftError("several labels need several columns", KEY, "name columns: [a, b], or set kind: single")
    pairs = [_codes(table[name], name, path) for name in columns]
    classes, truth = tuple(pair[0] for pair in pairs), np.column_stack([pair[1] for pair in pairs])
    return ReadTarget(MultiOutput.of(tuple(columns), classes, truth))


def _codes(cells: pd.Series, name: str, path: Path) -> tuple[Classes, np.ndarray]:
    """The classes of a column and their indices, -1 where a cell is empty."""
    known = ~cells.str.strip().str.casefold().isin(MISSING).to_numpy()
    classes = Classes.of(cells[known].tolist()) if known.any() else Classes(())
    if len(classes) < 2:
        raise FoldcraftError(f"column {name!r} has less than two classes", path, f"leave it out of {KEY}")
    codes = np.full(len(cells), -1)
    codes[known] = classes.encode(cells[known].tolist())
    return classes, codes


def _with_auxiliary(target: Target, names: tuple[str, ...], table: pd.DataFrame) -> WithAuxiliary:
    pairs = [_codes(table[name], name, Path(f"{KEY}.auxiliary")) for name in names]
    return WithAuxiliary.of(target, names, tuple(p[0] for p in pairs), np.column_stack([p[1] for p in pairs]))


def _one(columns: Sequence[str], kind: str) -> str:
    if len(columns) != 1:
        raise FoldcraftError(f"{len(columns)} columns, and {kind} is read from one", KEY, "name one column")
    return columns[0]


READERS = {
    "single": _single,
    "ordinal": _ordinal,
    "multilabel": _multilabel,
    "soft": _soft,
    "regression": _regression,
    "multioutput": _multioutput,
}
