"""A host's table as it stands, all of it text: CSV with comma, semicolon or tab, Parquet; also zipped or gzipped."""

import csv
import gzip
import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from foldcraft.common import csv_file
from foldcraft.common.errors import FoldcraftError, listing

SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".parquet", ".pq")
PACKED = (".zip", ".gz")
MOST_BYTES = 8 << 30  # of a table when it is unpacked
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
SAMPLED = 200  # records by which a separator is judged
NUL = re.compile("\0")
CONTROL = re.compile("[\0-\x08\x0b\x0e-\x1f\x7f]")  # what no text has; \x0c and line breaks may be in one
OTHER_TEXTS = {  # what they begin with
    "JSON": re.compile(r"\s*[\[{]\s*[\[{\"\]}]"),
    "HTML or XML": re.compile(r"\s*<(?:!|\?|html|head|body)", re.IGNORECASE),
    "a pointer of Git LFS": re.compile(r"version https://git-lfs"),
}
MIXED = 10  # of so many letters that are no UTF-8 one may look like it by chance
UTF_8 = "comma-separated UTF-8"


@dataclass(frozen=True)
class TableFile:
    """A table, and in a few words how it was read where it is no plain comma-separated UTF-8."""

    frame: pd.DataFrame
    how: str = ""


def is_table(path: Path) -> bool:
    """Has it the name of a table?"""
    name = path.name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    inner = PurePosixPath(name).suffix
    return inner in SUFFIXES and (inner != ".txt" or name != path.name.lower())


def read(path: Path, id_column: str) -> TableFile:
    """The table of a file; of what kind it is, its content says.

    Args:
        id_column: as `csv_file.parse`.

    Raises:
        FoldcraftError: it cannot be read, or it is no table.
    """
    try:
        data = path.read_bytes()
        data, name, packed = _unpacked(data, path)
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise FoldcraftError(f"not a readable table: {error}", path, "unpack it, and save it again") from None
    if data.startswith(b"PAR1"):
        frame, left_out = _parquet(data, path)
        return TableFile(frame, ", ".join([*packed, "Parquet", *left_out]))
    text, encoding = _decoded(data, path)
    for kind, begins in OTHER_TEXTS.items():
        if begins.match(text):
            raise FoldcraftError(f"is no table, but {kind}", path, "write what it says as CSV, or name another file")
    separator = _separator(text, "\t" if PurePosixPath(name).suffix.lower() in (".tsv", ".tab") else ",")
    frame, nameless = csv_file.parse(text, path, id_column, separator)
    apart = [f"separated by {SEPARATORS[separator]}"] if separator != "," else []
    left_out = [f"CSV without {nameless} columns that have no name and no cell"] if nameless else []
    return TableFile(frame, ", ".join([*packed, *([encoding] if encoding else []), *apart, *left_out]))


def _unpacked(data: bytes, path: Path) -> tuple[bytes, str, list[str]]:
    """The content, the name that tells its kind, and how it was packed."""
    if data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            names = [name for name in packed.namelist() if not _is_hidden(name) and is_table(Path(name))]
            if len(names) != 1:
                raise ValueError(f"it holds {listing(names, 3) if names else 'no table'}, and is to hold one table")
            with packed.open(names[0]) as stream:
                return _bounded(stream.read(MOST_BYTES + 1)), names[0], ["zipped"]
    if data.startswith(b"\x1f\x8b"):
        with gzip.open(io.BytesIO(data)) as stream:
            return _bounded(stream.read(MOST_BYTES + 1)), path.name.lower().removesuffix(".gz"), ["gzipped"]
    return data, path.name, []


def _is_hidden(name: str) -> bool:
    return name.endswith("/") or any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _bounded(data: bytes) -> bytes:
    if len(data) > MOST_BYTES:
        raise ValueError(f"it unpacks to more than {MOST_BYTES >> 30} GB")
    return data


def _decoded(data: bytes, path: Path) -> tuple[str, str]:
    """The text, and its encoding where it is not UTF-8.

    Raises:
        FoldcraftError: it is no text, or damaged UTF-8.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text, encoding = data.decode("utf-16", "replace"), "UTF-16"
        if "\ufffd" in text:
            raise FoldcraftError("not a readable CSV: its UTF-16 is damaged", path, f"save it as {UTF_8}")
    else:
        try:
            text, encoding = data.decode("utf-8-sig"), ""
        except UnicodeDecodeError as error:
            text, encoding = _older(data, error, path)
    if found := (CONTROL if encoding else NUL).search(text):
        line = text.count("\n", 0, found.start()) + 1
        what = "NUL bytes, as damaged files do" if found[0] == "\0" else "control characters, as no text does"
        raise FoldcraftError(f"not a readable CSV: it holds {what}, in line {line}", path, f"save it as {UTF_8}")
    return text, encoding


def _older(data: bytes, error: UnicodeDecodeError, path: Path) -> tuple[str, str]:
    """Text that is no UTF-8: CP949 where its bytes above 127 stand in pairs, as Korean has them, else Latin-1."""
    lossy = data.decode("utf-8", "replace")
    lost = lossy.count("\ufffd")
    whole = sum(ord(char) > 127 for char in lossy) - lost
    line = data.count(b"\n", 0, error.start) + 1
    if whole > lost:
        raise FoldcraftError(f"not a readable CSV: damaged UTF-8 in line {line}", path, f"save it as {UTF_8}")
    high = np.frombuffer(data, dtype=np.uint8) >= 0x80
    paired = np.zeros_like(high)
    paired[1:] |= high[:-1]
    paired[:-1] |= high[1:]
    if (paired & high).sum() * 2 > high.sum():
        try:
            return data.decode("cp949"), "CP949"
        except UnicodeDecodeError:
            pass
    if whole * MIXED > lost:  # in Latin-1 alone letters hardly ever stand so that they are UTF-8 as well
        what = f"not a readable CSV: some of it is UTF-8, line {line} is not"
        raise FoldcraftError(what, path, f"save all of it as {UTF_8}")
    try:
        return data.decode("cp1252"), "Latin-1"  # what is called so holds curly quotes more often than not
    except UnicodeDecodeError:
        return data.decode("latin-1"), "Latin-1"


def _separator(text: str, usual: str) -> str:
    """What stands between cells: what splits the header, and the rows into as many cells."""
    header = csv_file.LINE_BREAK.split(text[:1_000_000], maxsplit=1)[0]
    possible = [mark for mark in SEPARATORS if mark in header]
    if not possible or possible == [usual]:
        return usual

    def fitting(mark: str) -> tuple[float, int, bool]:
        records = _first_records(text, mark)
        width = len(records[0]) if records else 1
        if width < 2:
            return 0.0, 0, False
        return sum(len(cells) == width for cells in records) / len(records), width, mark == usual

    best = max(possible, key=fitting)
    return best if fitting(best)[1] else usual


def _first_records(text: str, mark: str) -> list[list[str]]:
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
        return [cells for cells, _ in zip(reader, range(SAMPLED), strict=False) if cells]
    except csv.Error:
        return []


def _parquet(data: bytes, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The columns of a Parquet as text, and what is left out of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
        names = table.column_names
        if twins := sorted({name for name in names if names.count(name) > 1}):
            raise FoldcraftError(f"more than one column is called {twins[0]!r}", path, "rename or drop one of them")
        cells = {name: _as_text(column) for name, column in zip(names, table.columns, strict=True)}
    except (pa.ArrowException, OSError) as error:
        raise FoldcraftError(f"not a readable Parquet: {error}", path, f"save it again, or as {UTF_8}") from None
    nested = [name for name, column in cells.items() if column is None]
    kept = {name: column for name, column in cells.items() if column is not None}
    frame = pd.DataFrame(kept, columns=pd.Index(list(kept), dtype=object))
    return frame, [f"without {listing(nested, 3)}, which hold no plain cells"] if nested else []


def _as_text(column: "object") -> pd.Series | None:
    """A column as text, numbers that are whole without a point; None of lists, bytes and the like."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return None
    if pa.types.is_floating(kind):
        return _floats_as_text(column.to_numpy().astype(np.float64), kind.bit_width)
    if pa.types.is_boolean(kind):
        column = pc.if_else(column, "True", "False")
    return pd.Series(pc.fill_null(pc.cast(column, pa.string()), "").to_pandas(), dtype=str).reset_index(drop=True)


def _floats_as_text(values: np.ndarray, bits: int) -> pd.Series:
    known = values[np.isfinite(values)]
    if (
        len(known)
        and (known == np.floor(known)).all()
        and (abs(known) < 2**53).all()
        and np.isfinite(values).sum() == (~np.isnan(values)).sum()
    ):
        words = [str(int(value)) if value == value else "" for value in values.tolist()]
    else:
        short = np.float32 if bits == 32 else np.float64  # .1 of 32 bits is .1, not .10000000149
        words = [str(short(value)) if value == value else "" for value in values.tolist()]
    return pd.Series(words, dtype=str)
