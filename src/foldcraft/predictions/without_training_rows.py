"""Finished experiments where the training rows are gone, or no more than a stub, as on a host's machine.

What trained folds keep (`trained_rows`) stands in for them. Rows that are there and are others than those that were
learned from are refused as ever: whoever changes labels must train again.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from foldcraft.common import notices
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, shorten
from foldcraft.common.paths import FoldFolder, experiment_folder, rows_file
from foldcraft.data import competition
from foldcraft.data.competition import Competition
from foldcraft.data.host_files import file_rows, host_rows, table_file
from foldcraft.predictions import trained_rows
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.trained_rows import TrainedRows

STUB = 0.5  # share of the rows that were learned from, below which those that are there are a stub
SHOWN = 120  # characters of a reason
FIELD = re.compile(r"\{[^{}]*\}")


def opened(config: Config) -> Experiment:
    """The experiment on its training rows; where they or the folds file are gone, on those that its folds keep.

    Raises:
        FoldcraftError: as `Experiment.open`; what is gone is not kept either.
    """
    Experiment.check_views(config)
    if config.competition.train == host_rows.NONE:
        return _on_kept(config, trained_rows.read(rows_file(config)), "competition.train=none")
    try:
        data = competition.read(config, ())
    except FoldcraftError as error:
        return _on_kept(config, _instead(config, error), f"{error.where}: {error.what}")
    if _learned_from_others(config, data) and (kept := _kept(config)):
        return _on_others(config, data, kept)
    if not config.folds_file.exists() and (kept := _kept(config)) and kept.folds.data == data.fingerprint:
        notices.tell_once(f"no {config.folds_file}: the folds are those in {rows_file(config)}")
        return Experiment.on(config, data, kept.folds)
    return Experiment.on(config, data)


def _on_others(config: Config, data: Competition, kept: TrainedRows) -> Experiment:
    """On what is kept, where the rows that are there are a stub.

    Raises:
        FoldcraftError: they are not, and the folds are of others.
    """
    if _is_stub(len(data.train_ids), kept):
        return _on_kept(config, kept, f"of these rows {config.competition.train} has {len(data.train_ids)}")
    try:
        return Experiment.on(config, data)
    except FoldcraftError as error:
        hint = f"{error.hint or 'train again'}; or, for the rows that were learned from, set competition.train=none"
        raise FoldcraftError(error.what, error.where, hint) from None


def _on_kept(config: Config, kept: TrainedRows, why: str) -> Experiment:
    experiment = Experiment.on(config, competition.read(config, (), kept.rows), kept.folds)
    count, file = len(kept.folds.ids), rows_file(config)
    notices.tell_once(f"{count} training rows, their labels and folds are those in {file}: {shorten(why, SHOWN)}")
    return experiment


def _kept(config: Config) -> TrainedRows | None:
    """What the folds keep; None of old ones, which keep nothing."""
    return trained_rows.read(rows_file(config)) if rows_file(config).is_file() else None


def _instead(config: Config, error: FoldcraftError) -> TrainedRows:
    """What stands in for training rows that cannot be read, if they are gone or a stub.

    Raises:
        FoldcraftError: they are not, and the error stands; or nothing is kept.
    """
    count, file = _rows_there(config), rows_file(config)
    if count is None or not FoldFolder.of(config, 0).path.parent.is_dir():
        raise error
    if not file.is_file():
        if count:
            raise error
        raise FoldcraftError(f"{error.what}, and the folds keep no copy of the rows", error.where, trained_rows.AGAIN)
    kept = trained_rows.read(file)
    column = config.competition.train_id  # of several rows of one id a table may have one
    if not _is_stub(count, kept, kept.rows.frame[column].nunique() if column in kept.rows.frame else None):
        raise error
    return kept


def _is_stub(count: int, kept: TrainedRows, learned: int | None = None) -> bool:
    return count < STUB * (learned or len(kept.folds.ids))


def _rows_there(config: Config) -> int | None:
    """How many training rows the host brings; None where that cannot be told."""
    names, folder = config.competition, config.folder
    if not os.path.isdir(folder):
        return None
    if any(_table(config, name) is None for name in names.join):
        return 0
    pattern = names.train if file_rows.is_pattern(names.train) else names.files and FIELD.sub("*", names.files)
    with suppress(FoldcraftError, OSError):
        table = None if file_rows.is_pattern(names.train) else _table(config, names.train)
        if not file_rows.is_pattern(names.train) and not (table and os.path.getsize(table)):
            return 0
        return len(file_rows.Files(folder).matching(pattern)) if pattern else len(table_file.read(table, "").frame)
    return None


def _table(config: Config, name: str) -> Path | None:
    """The path of a table that is there, packed or not."""
    paths = [config.folder / f"{name}{end}" for end in ("", *table_file.PACKED)]
    return next((path for path in paths if os.path.isfile(path)), None)


def _learned_from_others(config: Config, data: Competition) -> bool:
    """Did finished folds learn from other rows than these?"""
    for file in experiment_folder(config).glob("fold*/manifest.json"):
        with suppress(FoldcraftError):  # what is damaged is told by whoever needs it
            noted = FoldFolder(file.parent, -1).read_manifest().get("fingerprints", {})
            return noted.get("data", data.fingerprint) != data.fingerprint
    return False
