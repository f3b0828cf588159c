"""Frozen folds: made once, written to a file that belongs in git, checked whenever they are read."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from foldcraft.common import checksums, fingerprint, notices
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, counted, listing, shorten
from foldcraft.common.files import check_readable, parse_json, write_atomic
from foldcraft.common.paths import duplicates_file
from foldcraft.data.competition import Competition

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
    """

    ids: np.ndarray
    fold: np.ndarray
    count: int
    scheme: str
    seed: int
    data: str
    duplicates: str = ""

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
    for key in ("count", "seed"):
        if key in said and getattr(wanted, key) != getattr(made, key):
            yield f"folds.{key}={getattr(wanted, key)} (it has {getattr(made, key)})"
    too_rare = competition.target.most_frequent < made.count  # then nothing can be stratified
    if "scheme" in said and made.scheme not in (MADE_BY["plain"] if too_rare else MADE_BY[wanted.scheme]):
        yield f"folds.scheme={wanted.scheme} (it has {made.scheme})"
    if wanted.merge_duplicates is False and made.duplicates:
        yield "folds.merge_duplicates=false (it keeps copies together)"
    if wanted.merge_duplicates is True and not made.duplicates and _may_have_copies(duplicates_file(config)):
        yield "folds.merge_duplicates=true (it was made without)"


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
    if competition.answering and (torn := competition.answering.torn(found.fold)):
        names = listing([shorten(name, 30) for name in torn], 3)
        raise FoldcraftError(f"{counted(len(torn), 'answer')} with images in several folds: {names}", path, again)
    return found


def _difference(folds: Folds, competition: Competition) -> str:
    ours, theirs = set(competition.train_ids.tolist()), set(folds.ids.tolist())
    if ours == theirs:
        return "was made for other labels or groups"
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
