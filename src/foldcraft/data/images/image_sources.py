"""What the image of every row is made of, as the settings say: files by templates, items, cells, and parts of these."""

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from foldcraft.common.config import ImageConfig, ImageSetting
from foldcraft.common.errors import FoldcraftError, counted, listing, shorten, suggest
from foldcraft.data.host_files import row_places, templates
from foldcraft.data.images import image_files, sources
from foldcraft.data.images.sources import Channels, CutOut, Hdf5Item, Source, TableRow, TiffLevel, Tile


@dataclass(frozen=True)
class ImageRequest:
    """The images of a part of the competition.

    Attributes:
        setting: how they are read.
        rows: of the table.
        table: its file, for messages.
        aliases: what {@id} means.
    """

    setting: ImageSetting
    rows: pd.DataFrame
    table: str
    aliases: templates.Aliases = field(default_factory=dict)

    @property
    def way(self) -> ImageConfig:
        """The setting, where it is no more than templates as well."""
        return self.setting if isinstance(self.setting, ImageConfig) else ImageConfig(file=self.setting)

    def templates(self, key: str) -> dict[str, str]:
        """Templates of files, by the keys that they are told by."""
        way, given = self.way, isinstance(self.setting, ImageConfig)
        if way.hdf5 is not None:
            return {f"{key}.hdf5": way.hdf5}
        named = way.channels if way.channels is not None else way.file
        name = f"{key}.{'channels' if way.channels is not None else 'file'}" if given else key
        if named is None or isinstance(named, str):
            return {} if named is None else {name: named}
        return {f"{name}[{number}]": template for number, template in enumerate(named)}


def find(
    folder: Path, parts: dict[str, ImageRequest], follow_links: bool, as_floats: bool = False
) -> tuple[list[tuple[Source, ...]], tuple[str, ...], tuple[str, ...]]:
    """The image of every row of each part (by the setting's key), the names of missing files, notes.

    Args:
        as_floats: are pixels in cells to be floats, even if all are bytes?

    Raises:
        FoldcraftError: a template with an unknown column, or one that leaves the folder; cells that are no pixels, or
            no box.
    """
    wanted = {key: request.templates(key) for key, request in parts.items()}
    asked = {
        name: (template, parts[key].rows, parts[key].aliases)
        for key, named in wanted.items()
        for name, template in named.items()
    }
    found, missing, notes = image_files.find(folder, asked, follow_links)
    files = dict(zip(asked, found, strict=True))
    cells, ordered = _cells(parts, as_floats)
    made = [
        cells[key] if key in cells else tuple(_sources(request, key, [files[name] for name in wanted[key]]))
        for key, request in parts.items()
    ]
    if missing:  # of a chain of templates one is enough
        gone = (sources.missing_file(source) for part in made for source in part)
        missing = tuple(sources.name_in(path, folder) for path in gone if path)
    return made, missing, (*notes, *ordered)


def _sources(request: ImageRequest, key: str, files: Sequence[tuple[Path, ...]]) -> list[Source]:
    way, rows = request.way, request.rows
    if way.channels is not None:
        whole: list[Source] = [Channels(paths) for paths in zip(*files, strict=True)]
    elif way.hdf5 is not None:
        keys = templates.fill(way.key or "", rows, f"{key}.key", request.aliases)
        whole = [Hdf5Item(path, name) for path, name in zip(files[0], keys, strict=True)]
    else:
        whole = [_first(paths) for paths in zip(*files, strict=True)]
    if way.tiff_level is not None:
        whole = [TiffLevel(path, way.tiff_level) for path in whole if isinstance(path, Path)]
    if way.tiles is not None:
        places = (divmod(int(tile), way.tiles[1]) for tile in rows[row_places.TILE])
        whole = [Tile(source, way.tiles, place) for source, place in zip(whole, places, strict=True)]
    if way.box is not None:
        whole = [CutOut(source, tuple(box)) for source, box in zip(whole, _boxes(request, key), strict=True)]
    return whole


def _first(paths: Sequence[Path]) -> Path:
    """The first that is there; where none is, that of the first template."""
    return paths[0] if len(paths) == 1 else next(filter(sources.is_there, paths), paths[0])


def _boxes(request: ImageRequest, key: str) -> list[list[float]]:
    """Left, top, width and height of every row.

    Raises:
        FoldcraftError: no such column; cells that are no numbers; a box without area.
    """
    rows, columns = request.rows, []
    for side in request.way.box or ():
        if isinstance(side, str) and side not in rows.columns:
            raise FoldcraftError(f"no column {side!r}", f"{key}.box", suggest(side, row_places.told(rows)))
        columns.append(_numbers(rows[side]) if isinstance(side, str) else np.full(len(rows), float(side)))
    boxes = np.stack(columns, axis=1)
    no_box = ~np.isfinite(boxes).all(axis=1)
    no_box[~no_box] = (boxes[~no_box, 2:] <= 0).any(axis=1)
    _check(request, f"{key}.box", no_box, "no box", lambda row: [f"{value:g}" for value in boxes[row]])
    return boxes.tolist()


def _columns(request: ImageRequest, key: str) -> list[str]:
    """Columns that hold pixels, in the table's order.

    Raises:
        FoldcraftError: none does, or too many or too few for the shape.
    """
    pattern, shape = request.way.pixels or "", request.way.shape or []
    known = row_places.told(request.rows)
    found = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise FoldcraftError(f"no column is like {pattern!r}", f"{key}.pixels", suggest(pattern, known))
    if len(found) != (needed := int(np.prod(shape))):
        what = f"{len(found)} columns are like {pattern!r}, and {' x '.join(map(str, shape))} pixels need {needed}"
        raise FoldcraftError(what, f"{key}.shape", "mend the pattern or the shape")
    return found


def _cells(parts: dict[str, ImageRequest], as_floats: bool) -> tuple[dict[str, tuple[TableRow, ...]], list[str]]:
    """The images of the parts whose pixels stand in cells: bytes, if all of all parts are; else floats. And notes."""
    wanted = {key: _columns(request, key) for key, request in parts.items() if request.way.pixels is not None}
    notes = _in_one_order(wanted, parts)
    pixels = {key: _pixels(parts[key], key, columns) for key, columns in wanted.items()}
    every = pixels.values()
    are_bytes = all(some.min() >= 0 and some.max() <= 255 and (some == np.rint(some)).all() for some in every)
    are_bytes = are_bytes and not as_floats
    made = {}
    for key, values in pixels.items():
        table, (height, width, *channels) = parts[key].table, parts[key].way.shape or ()
        shape = (height, width, *(channels if channels != [1] else ()))
        images = values.astype(np.uint8 if are_bytes else np.float32).reshape(-1, *shape)
        made[key] = tuple(TableRow(table, row, image) for row, image in enumerate(images, start=1))
    return made, notes


def _in_one_order(wanted: dict[str, list[str]], parts: dict[str, ImageRequest]) -> list[str]:
    """Put columns of pixels that stand elsewhere in another table into the order of the first; say so."""
    first, *others = wanted or ("",)
    notes = []
    for key in others:
        if wanted[key] != wanted[first] and sorted(wanted[key]) == sorted(wanted[first]):
            wanted[key] = wanted[first]
            there, here = parts[key].table, parts[first].table
            notes.append(f"{key}: {there} has the columns of pixels in another order; that of {here} is taken")
    return notes


def _pixels(request: ImageRequest, key: str, columns: Sequence[str]) -> np.ndarray:
    """Pixels of every row (N, P).

    Raises:
        FoldcraftError: cells that are none.
    """
    pixels = np.stack([_numbers(request.rows[name]) for name in columns], axis=1)
    wrong = ~np.isfinite(pixels).all(axis=1)
    _check(request, f"{key}.pixels", wrong, "no pixels", lambda row: _odd(request, columns, row))
    return pixels


def _odd(request: ImageRequest, columns: Sequence[str], row: int) -> list[str]:
    cells = request.rows.iloc[row][list(columns)]
    odd = cells[~np.isfinite(_numbers(cells))]
    return [f"{odd.index[0]} is {shorten(str(odd.iloc[0]), 20)!r}"]


def _numbers(cells: pd.Series) -> np.ndarray:
    return pd.to_numeric(cells.str.strip(), errors="coerce").to_numpy(dtype=np.float64)


def _check(request: ImageRequest, key: str, wrong: np.ndarray, what: str, shown: Callable[[int], list[str]]) -> None:
    """See that no row is wrong; which are is told by their lines in the table."""
    if wrong.any():
        rows = np.flatnonzero(wrong)
        lines = listing([str(row + 2) for row in rows], 5)
        shown_row = ", ".join(shown(int(rows[0])))
        said = f"{what} in {counted(len(rows), 'row')} of {request.table}, line {lines}: {shown_row}"
        raise FoldcraftError(said, key, "mend the cells or drop the rows")
