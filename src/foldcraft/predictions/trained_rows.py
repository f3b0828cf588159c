"""The training rows and folds that an experiment learned from, kept in its run folder.

A host's machine has the hidden test rows, and perhaps nothing of the training rows: to blend there as at home, their
ids, truth, groups and folds are needed, which say what out-of-fold predictions are worth.
"""

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from foldcraft.common import checksums
from foldcraft.common.errors import FoldcraftError, said_by
from foldcraft.common.files import locked, parse_json, read_bytes, remove_leftovers, write_atomic
from foldcraft.common.paths import rows_file
from foldcraft.data.folds import Folds
from foldcraft.data.training_rows import TrainingRows
from foldcraft.predictions.experiment import Experiment

ID, FOLD, FILE, MADE, CELLS = "id", "fold", "file", "made", "cell:"  # columns; a host's may have any name


@dataclass(frozen=True)
class TrainedRows:
    """Training rows with their folds."""

    rows: TrainingRows
    folds: Folds


def keep(experiment: Experiment) -> None:
    """Write what an experiment learns from into its run folder, unless it is there."""
    path = rows_file(experiment.config)
    if experiment.competition.tables is None:
        return
    columns, about = _content(TrainedRows(experiment.competition.tables.training_rows, experiment.folds))
    digest = _digest(columns, about)
    if _noted(path) == digest:
        return
    with locked(path.with_suffix(".lock")):  # folds that end side by side write the same
        _write(path, columns, about, digest)


def _write(path: Path, columns: dict[str, list[Any]], about: str, digest: str) -> None:
    remove_leftovers(path.parent, path.name)
    metadata = {"foldcraft": about, checksums.KEY: digest}
    arrays = {name: pa.array(cells) for name, cells in columns.items()}
    stream = io.BytesIO()
    pq.write_table(pa.table(arrays).replace_schema_metadata(metadata), stream)
    write_atomic(path, stream.getvalue())


def _content(kept: TrainedRows) -> tuple[dict[str, list[Any]], str]:
    frame, made = kept.rows.frame, kept.folds
    cells = {f"{CELLS}{name}": frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in frame}
    columns = {
        ID: made.ids.tolist(),
        FOLD: made.fold.tolist(),
        FILE: list(kept.rows.files),
        MADE: list(kept.rows.is_made),
        **cells,
    }
    header = {key: value for key, value in asdict(made).items() if key not in ("ids", "fold")}
    about = {"folds": header, "left_out": list(kept.rows.left_out), "as_floats": kept.rows.as_floats}
    return columns, json.dumps(about)


def _digest(columns: dict[str, list[Any]], about: str) -> str:
    return checksums.checksum(about, *(part for name, cells in columns.items() for part in (name, json.dumps(cells))))


def _noted(path: Path) -> str | None:
    """The checksum of what lies there, if it is sound."""
    try:
        return _digest(*_parsed(path))
    except (FoldcraftError, OSError):
        return None


def _parsed(path: Path) -> tuple[dict[str, list[Any]], str]:
    try:
        table = pq.read_table(io.BytesIO(read_bytes(path)))
        metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        columns = {name: table[name].to_pylist() for name in table.column_names}
        about = metadata["foldcraft"]
        checksums.check(metadata.get(checksums.KEY, ""), _digest(columns, about))
    except (FoldcraftError, FileNotFoundError):
        raise
    except Exception as error:  # a reader of damaged files raises errors of every kind
        raise FoldcraftError(f"damaged training rows: {said_by(error)}", path, f"delete it; {AGAIN}") from None
    return columns, about


AGAIN = "`python src/train.py --fold all` with the same --config, where the training rows are, writes it"


def read(path: Path) -> TrainedRows:
    """Read what `keep` wrote.

    Raises:
        FoldcraftError: the file is missing or damaged.
    """
    try:
        columns, text = _parsed(path)
    except FileNotFoundError:
        raise FoldcraftError("these folds keep no training rows", path, AGAIN) from None
    try:
        about = parse_json(text)
        cells = {name.removeprefix(CELLS): values for name, values in columns.items() if name.startswith(CELLS)}
        frame = pd.DataFrame({name: pd.Series(values, dtype=str) for name, values in cells.items()})
        images = (tuple(columns[FILE]), tuple(columns[MADE]))
        rows = TrainingRows(frame, *images, tuple(about["left_out"]), about["as_floats"])
        fold = np.array(columns[FOLD], dtype=np.int64)
        return TrainedRows(rows, Folds(np.array(columns[ID], dtype=str), fold, **about["folds"]))
    except (KeyError, TypeError, ValueError) as error:
        raise FoldcraftError(f"damaged training rows: {said_by(error)}", path, f"delete it; {AGAIN}") from None
