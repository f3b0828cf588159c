"""Large images that are read in tiles: a row becomes a row for each, and all of them have one answer."""

from dataclasses import replace

import numpy as np
import pandas as pd

from foldcraft.common.config import AnswerColumns, AnswerConfig, CompetitionConfig, ImageConfig
from foldcraft.data.host_files.host_rows import HostRows
from foldcraft.data.host_files.row_places import TILE

Grid = tuple[int, int]


def unfolded(rows: HostRows, has_tiles: bool = False) -> HostRows:
    """The rows with one for each tile, as the settings of images say; as they are where these know no tiles.

    Without settings of answers the tiles of an image have one, named by its id.

    Args:
        has_tiles: have the training rows theirs already?
    """
    names = rows.names
    grids = [_grid(setting) for setting in (names.image, names.test_image)]
    if grids == [None, None]:
        return rows
    notes = list(rows.notes)
    if names.answer is None:
        names = names.model_copy(update={"answer": _by_ids(names)})
        notes.append("competition.answer: the tiles of an image have one answer, from the mean of theirs")
    train, test = (_repeated(part, grid) for part, grid in zip((rows.train, rows.test), grids, strict=True))
    train = rows.train if has_tiles else train
    return replace(rows, names=names, train=train, test=test, notes=tuple(notes))


def _grid(setting: object) -> Grid | None:
    return setting.tiles if isinstance(setting, ImageConfig) else None


def _by_ids(names: CompetitionConfig) -> AnswerConfig:
    train, test = names.train_id, names.test_id
    return AnswerConfig(by=[train] if train == test else AnswerColumns(train=[train], test=[test]))


def _repeated(table: pd.DataFrame, grid: Grid | None) -> pd.DataFrame:
    """Each row as often as it has tiles, with their number from 0, row by row."""
    if grid is None:
        return table
    tiles = grid[0] * grid[1]
    many = table.loc[table.index.repeat(tiles)].reset_index(drop=True)
    return many.assign(**{TILE: np.tile(np.arange(tiles).astype(str), len(table))})
