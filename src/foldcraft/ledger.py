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

from foldcraft.errors import FoldcraftError, listing
from foldcraft.files import locked, write_atomic
from foldcraft.metrics import METRICS

# `nested` is the score where all that was fitted was fitted on other folds, `optimistic` where it was fitted on the
# rows that it is judged on.
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
]
BOARDS = ("public", "private")
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
        FoldcraftError: the file is not a ledger.
    """
    if not path.exists() or os.path.getsize(path) == 0:
        return pd.DataFrame(columns=COLUMNS, dtype=str)
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise FoldcraftError(f"not a readable ledger: {error}", path, "mend or rename it") from None
    if list(rows.columns) == _OLD_COLUMNS:
        known = sorted(file.stem for file in FOLDS.glob("*.csv"))
        guessed = [competition_of(file, known) for file in rows["file"]]
        rows = rows.rename(columns=_RENAMED).assign(competition=guessed, optimistic="")[COLUMNS]
    if list(rows.columns) != COLUMNS:
        raise FoldcraftError("columns are not those of a ledger", path, "mend or rename it")
    return rows


def competition_of(file: str, known: Sequence[str]) -> str:
    """The longest of the `known` competitions that the name of a submission begins with; none: ""."""
    stem = file.removesuffix(".csv")
    fitting = [name for name in known if re.fullmatch(rf"{re.escape(name)}(_.*|-\d+)?", stem, re.DOTALL)]
    return max(fitting, key=len, default="")


def enter(path: Path, entry: Mapping[str, object], is_new: bool) -> None:
    """Add a row; a submission that is not new has one already, which stays as it is.

    Args:
        entry: every column but time, public and private.
    """
    rows = read(path)
    if not is_new and (rows["file"] == entry["file"]).any():
        return
    row = {"time": time.strftime("%Y-%m-%d %H:%M:%S"), "public": "", "private": "", **entry}
    rows.loc[len(rows)] = [str(row[column]) for column in COLUMNS]
    _write(path, rows)


def _write(path: Path, rows: pd.DataFrame) -> None:
    stream = io.StringIO()
    rows.to_csv(stream, index=False, lineterminator="\n")
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
