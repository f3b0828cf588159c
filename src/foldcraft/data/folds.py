"""Frozen folds: made once, written to a file that belongs in git, checked whenever they are read."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from foldcraft.common import checksums, fingerprint, notices
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, counted, listing, shorten
from foldcraft.common.files import check_readable, parse_json, write_atomic
from foldcraft.common.paths import duplicates_file
from foldcraft.data.competition import Competition
from foldcraft.data.host_files import table_file

COLUMN, BY_HAND = "column", "by_hand"
MOST = 50
# What the header may say of folds that were made by a scheme.
MADE_BY = {
    "auto": ("stratified", "stratified_group"),
    "stratified": ("stratified", "stratified_group"),
    "stratified_group": ("stratified_group",),
    "plain": ("plain",),
}


@dataclass(frozen=True)
class Folds:
    """Which fold each training row is validated in.

    Attributes:
        ids: training ids (N,), in the competition's order.
        fold: fold of each row (N,), int64 in [0, count).
        data: fingerprint of the ids, labels and groups they were made for.
        duplicates: fingerprint of the clusters of copies that were kept together; "" for none.
        groups: the same of the groups that an audit found.
    """

    ids: np.ndarray
    fold: np.ndarray
    count: int
    scheme: str
    seed: int
    data: str
    duplicates: str = ""
    groups: str = ""

    @property
    def fingerprint(self) -> str:
        """Digest of who is in which fold."""
        return fingerprint.of_rows(zip(self.ids.tolist(), map(str, self.fold.tolist()), strict=True))

    def train_rows(self, fold: int) -> np.ndarray:
        """Rows a model of that fold learns from."""
        return np.flatnonzero(self.fold != fold)

    def valid_rows(self, fold: int) -> np.ndarray:
        """Rows a model of that fold is judged on."""
        return np.flatnonzero(self.fold == fold)


def straddling(folds: Folds, clusters: pd.Series) -> int:
    """How many clusters have copies in several folds."""
    fold = pd.Series(folds.fold, folds.ids).reindex(clusters.index)
    return int((fold.groupby(clusters.to_numpy()).nunique() > 1).sum())


def torn_groups(folds: Folds, competition: Competition) -> int:
    """How many groups have rows in several folds."""
    if competition.groups is None:
        return 0
    return int((pd.Series(folds.fold).groupby(competition.groups).nunique() > 1).sum())


def write(folds: Folds, path: Path) -> None:
    """Write `id,fold` under a header line that says what the folds were made for."""
    header = {
        "scheme": folds.scheme,
        "count": folds.count,
        "seed": folds.seed,
        "data": folds.data,
        "folds": folds.fingerprint,
        **({"duplicates": folds.duplicates} if folds.duplicates else {}),
        **({"groups": folds.groups} if folds.groups else {}),
    }
    header[checksums.KEY] = checksums.of_values(header)  # of what the digest of the folds does not cover
    table = pd.DataFrame({"id": folds.ids, "fold": folds.fold}).to_csv(index=False, lineterminator="\n")
    write_atomic(path, f"# {json.dumps(header)}\n{table}")


def read_for(config: Config, competition: Competition) -> Folds:
    """As `read`; what the config asks for and the frozen folds are not is told, once a command.

    Raises:
        FoldcraftError: as `read`.
    """
    made = read(config.folds_file, competition)
    if differences := list(unlike(made, config, competition)):
        notices.tell_once(
            f"warning: {config.folds_file} is used as it is, not as the config says: {', '.join(differences)}; for new "
            "folds delete it and run `python src/split.py`, then train again what was trained on the old ones"
        )
    return made


def unlike(made: Folds, config: Config, competition: Competition) -> Iterator[str]:
    """What the config says itself of the folds, and they are not; what is left to the defaults asks for nothing."""
    wanted, said = config.folds, config.folds.model_fields_set
    for key in {COLUMN: (), BY_HAND: ("count",)}.get(made.scheme, ("count", "seed")):
        if key in said and getattr(wanted, key) != getattr(made, key):
            yield f"folds.{key}={getattr(wanted, key)} (it has {getattr(made, key)})"
    too_rare = competition.target.most_frequent < made.count  # then nothing can be stratified
    if (
        "scheme" in said
        and wanted.column is None
        and made.scheme not in (MADE_BY["plain"] if too_rare else MADE_BY[wanted.scheme])
    ):
        yield f"folds.scheme={wanted.scheme} (it has {made.scheme})"
    if (wanted.column is not None) != (made.scheme == COLUMN) or not _is_of_column(made, competition):
        yield f"folds.column={wanted.column} (it has {made.scheme} folds)"
    if wanted.merge_duplicates is False and made.duplicates:
        yield "folds.merge_duplicates=false (it keeps copies together)"
    if wanted.merge_duplicates is True and not made.duplicates and _may_have_copies(duplicates_file(config)):
        yield "folds.merge_duplicates=true (it was made without)"
    if "groups" in said and (wanted.groups is None) != (not made.groups):
        yield f"folds.groups={wanted.groups or 'null'} (it was made {'with' if made.groups else 'without'} the audit's)"


def _is_of_column(made: Folds, competition: Competition) -> bool:
    """Are rows in one fold where they are in one of the host's, if such a column is named?"""
    cells = competition.host_folds
    pairs = set() if cells is None else set(zip(cells.tolist(), made.fold.tolist(), strict=True))
    return cells is None or len(pairs) == len(set(cells.tolist())) == made.count


def _may_have_copies(audited: Path) -> bool:
    """Whether the audit found copies within the training rows, or there was none."""
    return not audited.is_file() or "train-train" in audited.read_text(encoding="utf-8", errors="replace")


def read(path: Path, competition: Competition) -> Folds:
    """Read frozen folds and make sure that they are what was frozen, for these data.

    Raises:
        FoldcraftError: no file; not a folds file; edited since; made for other ids, labels or groups.
    """
    again = (
        "restore it from git, or delete it and run `python src/split.py` (earlier runs will not blend with new ones)"
    )
    if not path.exists():
        raise FoldcraftError("no folds yet", path, "run `python src/split.py` with the same --config")
    check_readable(path)
    if not path.read_bytes()[:100].lstrip().startswith(b"#") and (known := _by_hand(path, competition)):
        return known
    try:
        with open(path, encoding="utf-8") as stream:
            header = dict(parse_json(stream.readline().removeprefix("#")))
            checksums.check(header.pop(checksums.KEY, None), checksums.of_values(header))
            table = pd.read_csv(stream, dtype={"id": str, "fold": "int64"}, keep_default_na=False)
        folds = Folds(
            table["id"].to_numpy(dtype=str),
            table["fold"].to_numpy(),
            int(header["count"]),
            header["scheme"],
            header["seed"],
            header["data"],
            str(header.get("duplicates", "")),
            str(header.get("groups", "")),
        )
        frozen = header["folds"]
    except checksums.ChecksumMismatch:
        raise FoldcraftError("has been edited since it was made", path, again) from None
    except (ValueError, KeyError, TypeError, OSError, OverflowError) as error:
        raise FoldcraftError(f"not a folds file: {error}", path, again) from None
    numbers = np.unique(folds.fold).tolist()
    if folds.fingerprint != frozen or len(numbers) != folds.count or numbers != list(range(len(numbers))):
        raise FoldcraftError("has been edited since it was made", path, again)
    if folds.data != competition.fingerprint:
        raise FoldcraftError(_difference(folds, competition), path, again)
    if sorted(folds.ids.tolist()) != sorted(competition.train_ids.tolist()):
        raise FoldcraftError("has been edited since it was made", path, again)
    found = _in_order(folds, competition)
    _check_answers(found, competition, path, again)
    return found


def _check_answers(made: Folds, competition: Competition, where: object, hint: str) -> None:
    """See that the images of an answer are in one fold.

    Raises:
        FoldcraftError: some are not.
    """
    if competition.answering and (torn := competition.answering.torn(made.fold)):
        names = listing([shorten(name, 30) for name in torn], 3)
        raise FoldcraftError(f"{counted(len(torn), 'answer')} with images in several folds: {names}", where, hint)


def _by_hand(path: Path, competition: Competition) -> Folds | None:
    """Folds in a file `id,fold` without a header line that says what they were made for; None where it is none.

    It is given that line, and this is told.

    Raises:
        FoldcraftError: other ids than the training rows'; as `numbered`.
    """
    try:
        table = table_file.read(path, "id").frame
    except FoldcraftError:
        return None
    table = table.rename(columns=str.strip)
    if sorted(table.columns) != ["fold", "id"] or table.empty:
        shown = listing([shorten(name, 30) for name in table.columns], 4)
        what = f"not a folds file: it has no header of ours, and the columns {shown}"
        what = "not a folds file: it has no rows" if table.empty else what
        raise FoldcraftError(what, path, "one written by hand has id,fold; or delete it: src/split.py makes folds")
    ids, ours = table["id"].tolist(), set(competition.train_ids.tolist())
    if set(ids) != ours or len(ids) != len(ours):
        lacking, extra = sorted(ours - set(ids)), sorted(set(ids) - ours)
        twice = len(ids) - len(set(ids))
        again = sorted({name for name in ids if ids.count(name) > 1}) if twice and not (lacking or extra) else []
        shown = listing([shorten(name, 30) for name in (lacking or extra or again)], 3)
        what = f"lacks {len(lacking)} training ids, has {len(extra)} others and {twice} twice ({shown})"
        what = f"not a folds file of these rows: {what}"
        raise FoldcraftError(what, path, "name each training row once, or delete it: src/split.py makes folds")
    fold_of = dict(zip(ids, table["fold"].str.strip(), strict=True))
    made = numbered(competition, [fold_of[name] for name in competition.train_ids.tolist()], BY_HAND, path)
    write(made, path)
    notices.tell_once(f"{path} has no header of ours: taken as {made.count} folds written by hand, and given one")
    return made


def numbered(competition: Competition, cells: Sequence[str], scheme: str, where: object) -> Folds:
    """Folds by what they are called (N,), in the order of these names.

    Raises:
        FoldcraftError: empty cells; one fold, or too many; a group in several; names where numbers are asked for.
    """
    cells = list(cells)
    if "" in cells:
        raise FoldcraftError(f"row {cells.index('') + 1} has no fold", where, "fill it in")
    numbers = pd.to_numeric(pd.Series(cells), errors="coerce")
    values = sorted(set(cells)) if numbers.isna().any() else sorted(set(cells), key=lambda cell: (float(cell), cell))
    if not numbers.isna().any() and (alike := [two for two in pairwise(values) if float(two[0]) == float(two[1])]):
        what = f"{' and '.join(map(repr, alike[0]))} are the same number"
        raise FoldcraftError(what, where, "write each fold in one way")
    if not 2 <= len(values) <= MOST:
        what = f"{len(values)} folds ({listing([shorten(value, 20) for value in values], 3)})"
        raise FoldcraftError(what, where, f"there may be 2 to {MOST}")
    if scheme == BY_HAND and values != [str(number) for number in range(len(values))]:
        what = f"folds are called {listing([shorten(value, 20) for value in values], 5)}"
        raise FoldcraftError(what, where, f"number them from 0 to {len(values) - 1}")
    place = {value: number for number, value in enumerate(values)}
    fold = np.array([place[cell] for cell in cells], dtype=np.int64)
    made = Folds(competition.train_ids, fold, len(values), scheme, 0, competition.fingerprint)
    _check_answers(made, competition, where, "put an answer's images into one, or leave the folds out")
    if torn := torn_groups(made, competition):
        group = pd.Series(fold).groupby(competition.groups).nunique().idxmax()
        what = f"{torn} groups lie in several folds, {shorten(str(group), 40)!r} among them"
        raise FoldcraftError(what, where, "leave competition.group out, or the folds; rows of one file are a group too")
    return made


def _difference(folds: Folds, competition: Competition) -> str:
    ours, theirs = set(competition.train_ids.tolist()), set(folds.ids.tolist())
    if ours == theirs:
        return "was made for other labels or groups than the tables have now"
    return f"was made for other data ({len(ours - theirs)} ids are new, {len(theirs - ours)} are gone)"


def _in_order(folds: Folds, competition: Competition) -> Folds:
    fold_of = dict(zip(folds.ids.tolist(), folds.fold.tolist(), strict=True))
    fold = np.array([fold_of[train_id] for train_id in competition.train_ids.tolist()])
    return replace(folds, ids=competition.train_ids, fold=fold)


def balance(folds: Folds, competition: Competition) -> pd.DataFrame:
    """Rows, groups where there are any, and rows of each class or means of values (lines), in every fold and in all."""
    columns, target, grouped = {}, competition.target, competition.groups is not None
    for fold in [*range(folds.count), None]:
        rows = folds.valid_rows(fold) if fold is not None else np.arange(len(folds.fold))
        groups = [len(set(competition.units[rows]))] if grouped else []
        columns["all" if fold is None else f"fold {fold}"] = [len(rows), *groups, *target.totals(rows)]
    return pd.DataFrame(columns, index=["rows", *(["groups"] if grouped else []), *target.of_totals])


def warnings(split: Folds, competition: Competition, counts: pd.DataFrame) -> Iterator[str]:
    """What is wrong with folds that can be used all the same.

    Args:
        counts: `balance` of these folds.
    """
    if torn := torn_groups(split, competition):
        yield (
            f"{torn} groups lie in several folds, so the OOF score is too good; delete the folds file and split again "
            "(earlier runs will not blend with new ones)"
        )
    if competition.space.form == "values":
        return
    rare = counts.iloc[-len(competition.target.of_totals) :]
    absent = rare[(rare == 0).any(axis=1)]
    lines = [f"{name!r} in {', '.join(row.index[row == 0])}" for name, row in absent.iterrows()]
    if lines:
        yield f"no row of class {listing(lines, 5)}"
    whole = [name for name, row in absent.iterrows() if (row.iloc[:-1] == row["all"]).any()]
    if whole:
        yield (
            f"class {listing([repr(name) for name in whole], 5)} lies in one fold as a whole: the model that is judged "
            "on it never saw it; use fewer folds, or merge classes"
        )
