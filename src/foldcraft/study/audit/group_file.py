"""The hidden groups that an audit found, in a file that the folds are made by. SciPy is not needed to read it."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from foldcraft.common.errors import FoldcraftError, listing, shorten
from foldcraft.data.host_files import table_file

COLUMNS = ["id", "group", "evidence"]
AGAIN = "run `python src/audit.py` with the same --config, or leave folds.groups out"


def whole(found: pd.DataFrame, train_ids: Sequence[str]) -> pd.DataFrame:
    """The proposed groups, then all other training rows, each a group by itself.

    So it can be told whether the file is of the rows that there are.
    """
    grouped = set(found["id"])
    alone = [row for row in train_ids if row not in grouped]
    return pd.concat([found[COLUMNS], pd.DataFrame({"id": alone, "group": alone, "evidence": ""})], ignore_index=True)


def read(path: Path, train_ids: Sequence[str]) -> pd.Series:
    """Group by id of all rows that do not stand alone.

    Raises:
        FoldcraftError: no such file, or none of these rows; it has no group of several rows.
    """
    if not path.is_file():
        raise FoldcraftError("no audit yet", path, AGAIN)
    table = table_file.read(path, "id").frame
    if not {"id", "group"} <= set(table.columns):
        raise FoldcraftError("has no columns id and group", path, AGAIN)
    ids, ours = table["id"].tolist(), set(train_ids)
    if set(ids) != ours or len(ids) != len(ours):
        strange = sorted(ours ^ set(ids)) or sorted(table["id"][table["id"].duplicated()])
        shown = listing([shorten(name, 30) for name in strange], 3)
        raise FoldcraftError(f"was made for other training rows ({shown})", path, AGAIN)
    group = table.set_index("id")["group"].str.strip()
    group = group[(group != "") & group.duplicated(keep=False)]
    if group.empty:
        raise FoldcraftError("has no group of several rows", path, "leave folds.groups out")
    return group
