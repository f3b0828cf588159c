"""The host's own folds, from a column of the training rows."""

import pandas as pd

from foldcraft.common import notices
from foldcraft.common.config import FoldsConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data import folds
from foldcraft.data.competition import Competition
from foldcraft.data.folds import Folds


def of_column(competition: Competition, config: FoldsConfig, clusters: pd.Series | None = None) -> Folds:
    """The folds of a column of the training rows, numbered in the order of its values.

    Args:
        clusters: copies by training id; such as lie in several folds are told.

    Raises:
        FoldcraftError: empty cells; one fold, or too many; a group in several; another number is asked for.
    """
    where = "folds.column"
    cells = competition.host_folds
    if cells is None:
        raise FoldcraftError(f"no column {config.column!r}", where, "name one of the training rows")
    made = folds.numbered(competition, [cell.strip() for cell in cells.tolist()], folds.COLUMN, where)
    if "count" in config.model_fields_set and config.count not in (made.count, FoldsConfig().count):
        what = f"folds.count={config.count}, and column {config.column!r} has {made.count}"
        raise FoldcraftError(what, where, "leave folds.count out")
    if config.merge_duplicates is True:
        raise FoldcraftError("the host's folds are taken as they are", "folds.merge_duplicates", "leave it out")
    if config.groups is not None:
        raise FoldcraftError("the host's folds are taken as they are", "folds.groups", "leave it out")
    if clusters is not None and (apart := folds.straddling(made, clusters)):
        notices.tell_once(f"warning: {apart} clusters of copies lie in several of the host's folds")
    return made
