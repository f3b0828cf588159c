"""The ledger: a row for each submission, with its out-of-fold score and what the leaderboard said of it."""

import io
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from foldcraft import sealed
from foldcraft.errors import FoldcraftError, listing
from foldcraft.files import check_readable, locked, write_atomic
from foldcraft.metrics import METRICS

# `nested` is the score where all that was fitted was fitted on other folds, `optimistic` where it was fitted on the
# rows that it is judged on; `content` is the checksum of the submission.
COLUMNS = [
    "file",
    "time",
    "competition",
    "experiments",
    "weights",
    "metric",
    "nested",
    "nested_low",
    "nested_high",
    "optimistic",
    "rows",
    "public",
    "private",
    "content",
]
BOARDS = ("public", "private")
CHECK = "check"  # last column of the file: a checksum of a row's other columns but for the boards, which are the user's
FOLDS = Path("folds")

# Ledgers were once written without a competition, and with one kind of score: weights fitted on other folds.
_RENAMED = {"oof": "nested", "oof_low": "nested_low", "oof_high": "nested_high"}
_OLD_COLUMNS = [
    *("file", "time", "experiments", "weights", "metric"),
    *("oof", "oof_low", "oof_high", "rows", "public", "private"),
]


def path_in(submissions: Path) -> Path:
    """Where the ledger of a folder of submissions lies."""
    return submissions / "ledger.csv"


def lock_in(submissions: Path) -> Path:
    """The lock to hold while that folder or its ledger is changed."""
    return submissions / ".lock"


def read(path: Path) -> pd.DataFrame:
    """All submissions so far, every column as text; an older ledger as if it had been written today.

    Raises:
        FoldcraftError: the file is not a ledger, or a row has changed since it was written.
    """
    if not path.exists() or os.path.getsize(path) == 0:
        return pd.DataFrame(columns=COLUMNS, dtype=str)
    check_readable(path)
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise FoldcraftError(f"not a readable ledger: {error}", path, "mend or rename it") from None
    if list(rows.columns) == _OLD_COLUMNS:
        known = sorted(file.stem for file in FOLDS.glob("*.csv"))
        guessed = [competition_of(file, known) for file in rows["file"]]
        rows = rows.rename(columns=_RENAMED).assign(competition=guessed, optimistic="")[COLUMNS[:-1]]
    # Ledgers were once written without checksums.
    rows = rows.assign(**{name: "" for name in ("content", CHECK) if name not in rows})
    if list(rows.columns) != [*COLUMNS, CHECK]:
        raise FoldcraftError("columns are not those of a ledger", path, "mend or rename it")
    if changed := [file for file, fits in zip(rows["file"], _fitting(rows), strict=True) if not fits]:
        mend = f"restore it, or empty its column {CHECK!r} to take the row as it is"
        raise FoldcraftError(f"the row of {changed[0]} has changed since it was written", path, mend)
    return rows[COLUMNS].copy()


def _fitting(rows: pd.DataFrame) -> list[bool]:
    return [found in ("", made) for found, made in zip(rows[CHECK], _checks(rows), strict=True)]


def _checks(rows: pd.DataFrame) -> list[str]:
    """The checksum of each row."""
    lasting = rows[[column for column in COLUMNS if column not in BOARDS]]
    return [sealed.checksum(*cells)[:8] for cells in lasting.itertuples(index=False, name=None)]


def competition_of(file: str, known: Sequence[str]) -> str:
    """The longest of the `known` competitions that the name of a submission begins with; none: ""."""
    stem = file.removesuffix(".csv")
    fitting = [name for name in known if re.fullmatch(rf"{re.escape(name)}(_.*|-\d+)?", stem, re.DOTALL)]
    return max(fitting, key=len, default="")


def enter(path: Path, entry: Mapping[str, object], is_new: bool) -> None:
    """Add a row; a submission that is not new, or the same as before, has one already, which stays as it is.

    Args:
        entry: every column but time, public and private.
    """
    rows = read(path)
    there = rows[rows["file"] == entry["file"]]
    if len(there) and (not is_new or there["content"].iloc[-1] == entry["content"]):
        return
    row = {"time": time.strftime("%Y-%m-%d %H:%M:%S"), "public": "", "private": "", **entry}
    rows.loc[len(rows)] = [str(row[column]) for column in COLUMNS]
    _write(path, rows)


def _write(path: Path, rows: pd.DataFrame) -> None:
    stream = io.StringIO()
    rows.assign(**{CHECK: _checks(rows)}).to_csv(stream, index=False, lineterminator="\n")
    write_atomic(path, stream.getvalue())


def fill(submissions: Path, file: str, scores: Mapping[str, str]) -> list[str]:
    """Fill in what the leaderboard says of a submission.

    Args:
        file: name or path of a submission in the folder, with or without .csv.
        scores: public or private, or both, as they were typed.

    Returns:
        a line for each score: what it is, and what it was.

    Raises:
        FoldcraftError: no such submission; no score; a score that is no number, or that the metric cannot have.
    """
    with locked(lock_in(submissions)):
        rows = read(path_in(submissions))
        name = _name(submissions, file, rows["file"].tolist())
        place = rows.index[rows["file"] == name][-1]  # a deleted submission may have had the name before
        checked = {board: _number(board, score, rows.loc[place, "metric"]) for board, score in scores.items()}
        if not checked:
            raise FoldcraftError("no score is given", "--score", "add public=0.812, private=0.805 or both")
        said = []
        for board, score in checked.items():
            before = rows.loc[place, board]
            change = f", was {before}" if before not in ("", score) else ""
            said.append(f"{name}: {board} score {score}{change}")
            rows.loc[place, board] = score
        _write(path_in(submissions), rows)
    return said


def _name(submissions: Path, file: str, known: Sequence[str]) -> str:
    """The name that the ledger has for a submission."""
    given = Path(file)
    name = given.name if given.name.endswith(".csv") else f"{given.name}.csv"
    elsewhere = given.parent != Path(".") and given.parent.resolve() != submissions.resolve()
    if name in known and not elsewhere:
        return name
    close = get_close_matches(name, sorted(set(known)), n=3, cutoff=0.5)
    mend = f"did you mean {listing(close)}?" if close else f"known: {listing(sorted(set(known))) or 'none yet'}"
    raise FoldcraftError(f"no submission {str(file)!r}", path_in(submissions), mend)


def _number(board: str, score: str, metric: str) -> str:
    """The score as it was typed, once it is one."""
    if board not in BOARDS:
        raise FoldcraftError(f"{board!r} is no leaderboard", "--score", "write public=0.812 or private=0.805")
    try:
        value = float(score)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise FoldcraftError(f"{score!r} is not a number", f"--score {board}", f"for instance {board}=0.812")
    lowest, highest = METRICS[metric].bounds if metric in METRICS else (-math.inf, math.inf)
    if not lowest <= value <= highest:
        raise FoldcraftError(f"{metric} cannot be {score}", f"--score {board}", f"it is from {lowest:g} to {highest:g}")
    return score.strip()
