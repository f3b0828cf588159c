"""Texts with columns in braces: {id} is the cell of that column, {@id} of what the settings call id."""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from foldcraft.common.errors import FoldcraftError, shorten, suggest
from foldcraft.data.host_files.row_places import told

FIELD = re.compile(r"\{([^{}]*)\}")
Aliases = Mapping[str, str]  # {"@id": "ImageID"}
NO_ALIASES: Aliases = {}


def fields(template: str, aliases: Aliases = NO_ALIASES) -> list[str]:
    """Columns that a template speaks of."""
    return [aliases.get(field, field) for field in FIELD.findall(template)]


def columns_of(template: str, rows: pd.DataFrame, key: str, aliases: Aliases = NO_ALIASES) -> list[str]:
    """As `fields`, all of which are columns of the table.

    Raises:
        FoldcraftError: one is not; a brace stands alone.
    """
    if set("{}") & set(FIELD.sub("", template)):
        raise FoldcraftError(f"{shorten(template, 100)!r} has a brace without its other half", key)
    wanted = fields(template, aliases)
    if unknown := [field for field in wanted if field not in rows.columns]:
        what = f"no column for {{{shorten(unknown[0], 60)}}}"
        raise FoldcraftError(what, key, suggest(unknown[0], told(rows)))
    return wanted


def fill(template: str, rows: pd.DataFrame, key: str, aliases: Aliases = NO_ALIASES) -> list[str]:
    """The template filled in for every row.

    Raises:
        FoldcraftError: as `columns_of`.
    """
    columns = [rows[name].tolist() for name in columns_of(template, rows, key, aliases)]
    if not columns:
        return [template] * len(rows)
    between = FIELD.split(template)[::2]
    return [_joined(between, cells) for cells in zip(*columns, strict=True)]


def _joined(between: Sequence[str], cells: Sequence[str]) -> str:
    first, *rest = between
    return first + "".join(f"{cell}{text}" for cell, text in zip(cells, rest, strict=True))
