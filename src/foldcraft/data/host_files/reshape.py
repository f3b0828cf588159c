"""Tables joined to rows, rows that unfold into files, long tables that become wide."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from foldcraft.common.config import PivotConfig
from foldcraft.common.errors import FoldcraftError, counted, listing, shorten, suggest
from foldcraft.data.host_files import file_rows, row_places, templates
from foldcraft.data.host_files.derive import Derived
from foldcraft.data.images.image_files import check_inside, check_links

BETWEEN = "\x1f"  # stands in no cell of a table of text
SHOWN = 40  # characters of a cell in a message
KEY = "competition"


def join(parts: Sequence[Derived], table: pd.DataFrame, path: Path) -> None:
    """Add the columns of a table to the rows that it has: training rows, and test rows where it has any of them.

    Raises:
        FoldcraftError: no shared column; the table has a row twice; it has no training row.
    """
    matches = 0
    for part in parts:
        matches += _join(part, table, path)
    if (left := len(table) - matches) and any(part.needed is None for part in parts):
        parts[0].notes.append(f"{KEY}.join: {left} of {len(table)} rows of {path.name} are of no training or test row")


def _join(part: Derived, table: pd.DataFrame, path: Path) -> int:
    keys = _shared(part, table)
    is_train = part.needed is None
    if not keys:
        if not is_train:
            return 0
        known = f"the rows have {listing(row_places.told(part.frame), 6)}; the table {listing(list(table.columns), 6)}"
        raise FoldcraftError(f"{path.name} shares no column with the training rows", f"{KEY}.join", shorten(known, 200))
    wanted, there = _keys(part.frame, keys), _keys(table, keys)
    place = {key: row for row, key in enumerate(there)}
    found = np.array([place.get(key, -1) for key in wanted])
    if not (found >= 0).any():
        if not is_train:
            return 0
        what = f"no training row is in {path.name}: by {listing(keys, 3)} the first is {_shown(wanted[0])}, its first"
        raise FoldcraftError(f"{what} {_shown(there[0])}", f"{KEY}.join", "derive a column that both write alike")
    twice = pd.Series(there).duplicated(keep=False).to_numpy()
    needed = set(wanted)
    if twins := [key for key, again in zip(there, twice, strict=True) if again and key in needed]:
        what = f"{path.name} has {listing(keys, 3)} {_shown(twins[0])} in several rows, which would multiply ours"
        raise FoldcraftError(
            what, f"{KEY}.join", "name a table with one row each; or begin with this one, and pivot it"
        )
    more = [name for name in table.columns if name not in keys]
    if clash := [name for name in more if name in part.frame.columns and name not in row_places.NEVER_HIDDEN]:
        more = [name for name in more if name not in clash]  # none but `row`, which is ours and not shared
    missing = found < 0
    cells = {name: pd.Series(table[name].to_numpy()[found], dtype=str).mask(missing, "") for name in more}
    part.frame = part.frame.assign(**cells)
    part.own.update(more)
    if missing.any():
        rows = listing([_shown(wanted[row]) for row in np.flatnonzero(missing)[:3]])
        what = f"{int(missing.sum())} of {len(missing)} {part.part} rows are not in {path.name} ({rows}, ...)"
        part.notes.append(f"{KEY}.join: {what}; their cells are empty")
    return len(set(found[found >= 0].tolist()))


def _shared(part: Derived, table: pd.DataFrame) -> list[str]:
    ours = {row_places.ROW, *row_places.NEVER_HIDDEN} - part.own
    return [name for name in table.columns if name in part.frame.columns and name not in ours]


def _keys(frame: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    cells = [frame[name].str.strip().tolist() for name in columns]
    return cells[0] if len(cells) == 1 else [BETWEEN.join(row) for row in zip(*cells, strict=True)]


def _shown(key: str) -> str:
    return repr(shorten(key.replace(BETWEEN, " "), SHOWN))


def unfold(part: Derived, folder: Path, template: str, key: str, follow_links: bool) -> None:
    """Make each row as many rows as files fit its pattern.

    Raises:
        FoldcraftError: a row without files; a file of two rows; a pattern that leaves the folder.
    """
    if "_file" in part.frame.columns:
        raise FoldcraftError("the rows are files already", key, "leave it out")
    columns = set(templates.columns_of(template, part.frame, key, part.aliases))
    escaped = part.frame.assign(**{name: part.frame[name].map(file_rows.escaped) for name in columns})
    check_inside(templates.fill(template, part.frame, key, part.aliases), key)
    patterns = templates.fill(template, escaped, key, part.aliases)
    files = file_rows.Files(folder)
    listed = [files.matching(pattern) for pattern in patterns]
    file_rows.check_names([name for names in listed for name in names], key)
    both = [file_rows.images_among(names, template) for names in listed]
    found = [images for images, _ in both]
    counts = np.array([len(names) for names in found])
    if (counts == 0).any():
        row = int(np.flatnonzero(counts == 0)[0])
        what = f"{int((counts == 0).sum())} of {len(counts)} {part.part} rows have no file, first row {row + 1}"
        what += f" with {shorten(patterns[row], 60)!r}"
        raise FoldcraftError(what, key, file_rows.what_is_there(folder, patterns[row]))
    flat = [name for names in found for name in names]
    if len(set(flat)) < len(flat):
        twin = pd.Series(flat)[pd.Series(flat).duplicated()].iloc[0]
        rows = [str(row + 1) for row, names in enumerate(found) if twin in names]
        what = f"{shorten(twin, 80)} is a file of {len(rows)} {part.part} rows: {listing(rows, 3)}"
        raise FoldcraftError(what, key, "name a pattern that tells them apart, or derive a row's id first")
    if not follow_links:
        check_links(folder, [folder / name for name in flat], key)
    others = list(dict.fromkeys(name for _, names in both for name in names))
    part.notes += [*file_rows.no_rows(others, key), *file_rows.beside(folder, flat, key)]
    repeated = part.frame.iloc[np.repeat(np.arange(len(counts)), counts)].reset_index(drop=True)
    places = file_rows.table(flat)
    part.frame = row_places.with_places(pd.concat([repeated, places], axis=1), part.own)
    part.notes.append(f"{key}: {counted(len(counts), 'row')} unfold into {counted(len(flat), 'file')}")


def pivot(part: Derived, settings: PivotConfig) -> None:
    """Make one row of those with the same key: a column for each target in training; test rows become distinct.

    Raises:
        FoldcraftError: a column is missing; a target twice in one row; a name that is taken.
    """
    is_train, key = part.needed is None, f"{KEY}.pivot"
    wanted = [*settings.rows, *([settings.columns, settings.values] if is_train else [])]
    lacking = [name for name in wanted if name not in part.frame.columns]
    if lacking and not is_train:
        return
    if lacking:
        raise FoldcraftError(f"no column {lacking[0]!r}", key, suggest(lacking[0], row_places.told(part.frame)))
    codes, keys = pd.factorize(pd.Series(_keys(part.frame, settings.rows)))
    first = np.unique(codes, return_index=True)[1]
    kept, dropped = _constant(part.frame, codes, first, [settings.columns, settings.values, *settings.rows])
    whole = part.frame.iloc[first]
    cells = {name: whole[name].str.strip() for name in settings.rows}  # as rows of one key are told from others
    frame = whole[[name for name in whole.columns if name in (*kept, *cells)]].assign(**cells).reset_index(drop=True)
    if is_train:
        written = part.frame[settings.columns]
        names = written.str.strip().tolist()
        if spaces := int((written != names).sum()):
            part.notes.append(f"{key}: spaces around {counted(spaces, 'cell')} of {settings.columns!r} are left out")
        targets = list(dict.fromkeys(names))
        place = {name: number for number, name in enumerate(targets)}
        if "" in place or (taken := [name for name in targets if name in kept]):
            what = "has empty cells" if "" in place else f"names {taken[0]!r}, which is a column already"
            raise FoldcraftError(f"column {settings.columns!r} {what}", key, "mend the table, or derive other names")
        wide = np.full((len(first), len(targets)), "", dtype=object)
        columns = np.array([place[name] for name in names])
        _check_once(codes, columns, keys, targets, key)
        if gaps := wide.size - len(codes):
            part.notes.append(f"{key}: {gaps} of {wide.size} values have no row, and are not known")
        wide[codes, columns] = part.frame[settings.values].to_numpy(dtype=object)
        added = pd.DataFrame(wide, columns=pd.Index(targets, dtype=object)).astype(str)
        frame = pd.concat([frame, added], axis=1)
        part.own.update(targets)
    if len(first) < len(codes):
        gone = f"; {listing(dropped, 4)} differ within a row and are left out" if dropped and is_train else ""
        part.notes.append(f"{key}: {len(codes)} {part.part} rows become {len(first)}{gone}")
    part.frame = row_places.with_places(frame, part.own)


def _constant(
    frame: pd.DataFrame, codes: np.ndarray, first: np.ndarray, spent: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Columns that are the same in all rows that become one, and the host's that are not."""
    places = {row_places.ROW, *row_places.NEVER_HIDDEN, *row_places.OF_FILES}
    same = {}
    for name in (name for name in frame.columns if name not in spent):
        cells = frame[name].to_numpy(dtype=object)
        same[name] = bool((cells == cells[first][codes]).all())
    kept = [name for name, is_same in same.items() if is_same and name != f"_{row_places.ROW}"]
    return kept, [name for name, is_same in same.items() if not is_same and name not in places]


def _check_once(codes: np.ndarray, columns: np.ndarray, keys: pd.Index, targets: Sequence[str], key: str) -> None:
    twice = pd.Series(codes.astype(np.int64) * len(targets) + columns).duplicated().to_numpy()
    if twice.any():
        row = int(np.flatnonzero(twice)[0])
        what = f"row {_shown(str(keys[codes[row]]))} has {shorten(targets[columns[row]], SHOWN)!r} twice"
        raise FoldcraftError(f"{what} (and {int(twice.sum()) - 1} more)", key, "keep one, or name more columns in rows")


def distinct(frame: pd.DataFrame, id_column: str) -> pd.DataFrame:
    """The first row of each id, with the columns that are the same in all of its rows."""
    codes, _ = pd.factorize(frame[id_column])
    first = np.unique(codes, return_index=True)[1]
    kept, _ = _constant(frame, codes, first, [])
    own = set(kept) - {row_places.ROW}
    return row_places.with_places(frame.iloc[first][kept].reset_index(drop=True), own)
