"""The ledger: a row for each submission, with its out-of-fold score and what the leaderboard said of it."""

import io
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from foldcraft.common import checksums
from foldcraft.common.errors import FoldcraftError, listing, suggest
from foldcraft.common.files import check_readable, locked, write_atomic
from foldcraft.metrics import catalogue

# `nested` is the score where all that was fitted was fitted on other folds, `optimistic` where it was fitted on the
# rows that it is judged on; `forecast` is what the test set is expected to score; `content` is the checksum of the
# submission.
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
    "forecast",
    "forecast_low",
    "forecast_high",
    "public",
    "private",
    "content",
]
BOARDS = ("public", "private")
CHECK = "check"  # last column of the file: a checksum of a row's other columns but for the boards, which are the user's
FORECAST = ("forecast", "forecast_low", "forecast_high")
NUMBERS = ("nested", "nested_low", "nested_high", "optimistic", "rows", *FORECAST)
LATER = {*FORECAST, "content", CHECK}  # columns that ledgers were once written without
DECIMAL_COMMA = r"^\s*([+-]?\d+),(\d+(?:[eE][+-]?\d+)?)\s*$"
FOLDS = Path("folds")
SUBMISSIONS = Path("submissions")  # the folder in which they all lie, with the ledger

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


def read(path: Path, competition: str | None = None) -> pd.DataFrame:
    """All submissions so far, every column as text; an older ledger as if it had been written today.

    Args:
        competition: whose rows must be as they were written; rows of others that are not are left out. None: all.

    Raises:
        FoldcraftError: the file is not a ledger, or such a row has changed since it was written.
    """
    rows = _load(path)
    changed = rows[rows[CHECK] != ""]
    for row in changed.itertuples():
        if competition in (None, row.competition):
            raise _has_changed(path, row.file)
    return rows.drop(changed.index)[COLUMNS].reset_index(drop=True)


def checksums_of(path: Path, competition: str) -> dict[str, str]:
    """The checksum of each submission as it was written, by the name of its file; `read` says what is raised."""
    rows = read(path, competition)
    return dict(zip(rows["file"], rows["content"], strict=True))


def sound(path: Path) -> pd.DataFrame:
    """The submissions of those competitions of which no row has changed since it was written."""
    rows = _load(path)
    changed = rows["competition"][rows[CHECK] != ""]
    return rows[~rows["competition"].isin(changed)][COLUMNS].reset_index(drop=True)


def submissions(folder: Path, competition: str | None = None) -> pd.DataFrame:
    """The submissions that can be shown: of one competition, or of each that `sound` gives.

    Raises:
        FoldcraftError: there are none; a row of the competition has changed since it was written.
    """
    path = path_in(folder)
    rows = sound(path) if competition is None else read(path, competition)
    if rows.empty and read(path).empty:
        raise FoldcraftError("no submission yet", folder, "`python src/infer.py` writes one")
    if competition is None:
        return rows
    known = sorted(set(rows["competition"]) - {""})
    if competition not in known:
        raise FoldcraftError(f"no submission of {competition!r}", "--competition", suggest(competition, known))
    return rows[rows["competition"] == competition]


def _has_changed(path: Path, file: str) -> FoldcraftError:
    hint = f"restore it, or take it as it is: python src/infer.py --ledger --take {file}"
    return FoldcraftError(f"the row of {file} has changed since it was written", path, hint)


def _load(path: Path) -> pd.DataFrame:
    """All rows and the column `CHECK`: a row's checksum as found where it does not fit, else empty."""
    if not path.exists() or os.path.getsize(path) == 0:
        return pd.DataFrame(columns=[*COLUMNS, CHECK], dtype=str)
    rows = _parse(path)
    if list(rows.columns) == _OLD_COLUMNS:
        known = sorted(file.stem for file in FOLDS.glob("*.csv"))
        guessed = [competition_of(file, known) for file in rows["file"]]
        rows = rows.rename(columns=_RENAMED).assign(competition=guessed, optimistic="")
        rows = rows[[name for name in COLUMNS if name in rows]]
    if list(rows.columns) != [name for name in (*COLUMNS, CHECK) if name in rows or name not in LATER]:
        raise FoldcraftError("columns are not those of a ledger", path, "mend or rename it")
    rows = rows.reindex(columns=[*COLUMNS, CHECK], fill_value="")
    for column in (*NUMBERS, *BOARDS):
        rows[column] = rows[column].str.replace(DECIMAL_COMMA, r"\1.\2", regex=True)
    return rows.assign(**{CHECK: ["" if _fits(row) else row[CHECK] for row in rows.to_dict("records")]})


def _parse(path: Path) -> pd.DataFrame:
    """The table, as it was written or as a spreadsheet has saved it: other separators, another encoding."""
    check_readable(path)
    try:
        data = path.read_bytes()
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", "replace")  # what that spoils does not fit its row's checksum
        separator = max(",;\t", key=text.partition("\n")[0].count)
        rows = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False).fillna("")
    except (ValueError, OSError) as error:
        raise FoldcraftError(f"not a readable ledger: {error}", path, "mend or rename it") from None
    return rows[(rows != "").any(axis=1)].reset_index(drop=True)


def _fits(row: Mapping[str, str]) -> bool:
    """Is a row what was written? One without a checksum is taken as it is."""
    found = row[CHECK]
    return not found or any(_plain(found.casefold()) == _plain(made) for made in (_check(row), *_older_checks(row)))


def _check(row: Mapping[str, str]) -> str:
    """The checksum of a row: numbers count by their value, and the time, which spreadsheets write anew, not at all."""
    return _check_of(row, COLUMNS)


def _check_of(row: Mapping[str, str], columns: Sequence[str]) -> str:
    return checksums.checksum(*(_plain(row[column]) for column in columns if column not in ("time", *BOARDS)))[:8]


def _older_checks(row: Mapping[str, str]) -> Iterator[str]:
    """Checksums as they once were: without forecasts, of the text, and of the text that the numbers once were."""
    if any(row[column] for column in FORECAST):
        return
    columns = [column for column in COLUMNS if column not in FORECAST]
    yield _check_of(row, columns)
    for digits in (None, 5):
        cells = {column: row[column] for column in columns if column not in BOARDS}
        if digits:
            cells |= {c: _with_digits(row[c], digits) for c in NUMBERS if c not in ("rows", *FORECAST)}
            cells["weights"] = _with_digits(row["weights"], 3)
        yield checksums.checksum(*cells.values())[:8]


def _with_digits(cell: str, digits: int) -> str:
    values = [_value(word) for word in cell.split()]
    return cell if None in values else " ".join(f"{value:.{digits}f}" for value in values)


def _plain(cell: str) -> str:
    """A cell with each number in it written in one way."""
    values = [(word, _value(word)) for word in cell.split()]
    return " ".join(word if value is None else repr(value) for word, value in values)


def _value(word: str) -> float | None:
    try:
        return float(re.sub(DECIMAL_COMMA, r"\1.\2", word))
    except ValueError:
        return None


def competition_of(file: str, known: Sequence[str]) -> str:
    """The longest of the `known` competitions that the name of a submission begins with; none: ""."""
    stem = file.removesuffix(".csv").removesuffix(".zip")
    fitting = [name for name in known if re.fullmatch(rf"{re.escape(name)}(_.*|-\d+)?", stem, re.DOTALL)]
    return max(fitting, key=len, default="")


def enter(path: Path, entry: Mapping[str, object], is_new: bool) -> None:
    """Add a row; a submission that is not new, or the same as before, has one already, which stays as it is.

    Args:
        entry: every column but time, public and private; those of a forecast may be left out.
    """
    rows = _load(path)
    there = rows[rows["file"] == entry["file"]]
    if len(there) and (not is_new or there["content"].iloc[-1] == entry["content"]):
        return
    empty = dict.fromkeys((*FORECAST, *BOARDS, CHECK), "")
    row = {"time": time.strftime("%Y-%m-%d %H:%M:%S"), **empty, **entry}
    rows.loc[len(rows)] = [str(row[column]) for column in (*COLUMNS, CHECK)]
    _write(path, rows)


def _write(path: Path, rows: pd.DataFrame) -> None:
    """Write all rows; one that has changed keeps the checksum that does not fit it."""
    stream = io.StringIO()
    checks = [row[CHECK] or _check(row) for row in rows.to_dict("records")]
    rows.assign(**{CHECK: checks}).to_csv(stream, index=False, lineterminator="\n")
    write_atomic(path, stream.getvalue())


def take(submissions: Path, files: Sequence[str]) -> list[str]:
    """Take the rows of some submissions as they now are; a line for each.

    Raises:
        FoldcraftError: no such submission.
    """
    with locked(lock_in(submissions)):
        rows = _load(path_in(submissions))
        names = [_name(submissions, file, rows["file"].tolist()) for file in files]
        told = {name: (rows[CHECK][rows["file"] == name] != "").any() for name in names}
        rows.loc[rows["file"].isin(names), CHECK] = ""
        _write(path_in(submissions), rows)
    return [f"{name}: {'taken as it is' if changed else 'was as it was written'}" for name, changed in told.items()]


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
        rows = _load(path_in(submissions))
        name = _name(submissions, file, rows["file"].tolist())
        place = rows.index[rows["file"] == name][-1]  # a deleted submission may have had the name before
        if rows.loc[place, CHECK]:
            raise _has_changed(path_in(submissions), name)
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
    name = given.name if given.suffix in (".csv", ".zip") else f"{given.name}.csv"  # the suffix may be left out
    name = name if name in known or f"{given.name}.zip" not in known else f"{given.name}.zip"
    elsewhere = given.parent != Path(".") and given.parent.resolve() != submissions.resolve()
    if name in known and not elsewhere:
        return name
    close = get_close_matches(name, sorted(set(known)), n=3, cutoff=0.5)
    hint = f"did you mean {listing(close)}?" if close else f"known: {listing(sorted(set(known))) or 'none yet'}"
    raise FoldcraftError(f"no submission {str(file)!r}", path_in(submissions), hint)


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
    judge = catalogue.known(metric)
    lowest, highest = judge.bounds if judge else (-math.inf, math.inf)
    if not lowest <= value <= highest:
        raise FoldcraftError(f"{metric} cannot be {score}", f"--score {board}", f"it is from {lowest:g} to {highest:g}")
    return score.strip()
