"""What the image of a row is made of: a file, a part of one, several files, an item in a file, cells of a table.

A plain file is a `Path`; all else is a `MadeSource`. `image_reading` reads either.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from foldcraft.common import fingerprint


@dataclass(frozen=True)
class MadeSource:
    """An image that is more, or less, than one file."""

    @property
    def files(self) -> tuple[Path, ...]:
        """What it is read from."""
        raise NotImplementedError

    @property
    def how(self) -> list[object]:
        """What is done with the files, in values that JSON can hold."""
        raise NotImplementedError

    def named(self, name: Callable[[Path], str]) -> str:
        """What messages call it, given what they call its files."""
        raise NotImplementedError

    def is_file(self) -> bool:
        """Are all its files there?"""
        return all(map(os.path.isfile, self.files))

    def digest(self, of_file: Callable[[Path], str]) -> str:
        """Of what it shows, given those of its files."""
        return fingerprint.of_values([*self.how, [of_file(path) for path in self.files]])

    def __str__(self) -> str:
        return self.named(str)


Source = Path | MadeSource


@dataclass(frozen=True)
class GoneSource(MadeSource):
    """An image of which no more is known than what it was called."""

    path: Path

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    @property
    def how(self) -> list[object]:
        return ["gone"]

    def named(self, name: Callable[[Path], str]) -> str:
        return name(self.path)

    def is_file(self) -> bool:
        return False


@dataclass(frozen=True)
class CutOut(MadeSource):
    """A box of another image, upright: left, top, width and height in pixels."""

    of: Source
    box: tuple[float, float, float, float]

    @property
    def files(self) -> tuple[Path, ...]:
        return files_of(self.of)

    @property
    def how(self) -> list[object]:
        return ["cut", list(self.box), *_how(self.of)]

    def named(self, name: Callable[[Path], str]) -> str:
        return f"{_named(self.of, name)} [{', '.join(f'{value:g}' for value in self.box)}]"

    def within(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in an image of that size; what sticks out is cut off.

        Raises:
            ValueError: nothing is left.
        """
        x, y, w, h = self.box
        left, top = max(0, round(x)), max(0, round(y))
        right, bottom = min(width, max(round(x + w), left + 1)), min(height, max(round(y + h), top + 1))
        if left >= right or top >= bottom or x + w <= 0 or y + h <= 0:
            raise ValueError(f"the box lies outside the image of {width} x {height} pixels")
        return left, top, right, bottom


@dataclass(frozen=True)
class Tile(MadeSource):
    """One of the tiles of another image: a grid of (rows, columns), and the place in it, from 0."""

    of: Source
    grid: tuple[int, int]
    place: tuple[int, int]

    @property
    def files(self) -> tuple[Path, ...]:
        return files_of(self.of)

    @property
    def how(self) -> list[object]:
        return ["tile", list(self.grid), list(self.place), *_how(self.of)]

    def named(self, name: Callable[[Path], str]) -> str:
        row, column = self.place
        return f"{_named(self.of, name)} (tile {row + 1}, {column + 1} of {self.grid[0]} x {self.grid[1]})"

    def within(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in an image of that size.

        Raises:
            ValueError: it has fewer pixels than tiles.
        """
        (rows, columns), (row, column) = self.grid, self.place
        if width < columns or height < rows:
            raise ValueError(f"{width} x {height} pixels do not make {rows} x {columns} tiles")
        return (
            width * column // columns,
            height * row // rows,
            width * (column + 1) // columns,
            height * (row + 1) // rows,
        )


@dataclass(frozen=True)
class Channels(MadeSource):
    """Several grey files of one size, each a channel."""

    of: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        return self.of

    @property
    def how(self) -> list[object]:
        return ["channels"]

    def named(self, name: Callable[[Path], str]) -> str:
        return f"{name(self.of[0])} and {len(self.of) - 1} more"


@dataclass(frozen=True)
class TiffLevel(MadeSource):
    """A level of a TIFF that holds its image several times; 0 is the largest."""

    path: Path
    level: int

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    @property
    def how(self) -> list[object]:
        return ["level", self.level]

    def named(self, name: Callable[[Path], str]) -> str:
        return f"{name(self.path)} (level {self.level})"


@dataclass(frozen=True)
class Hdf5Item(MadeSource):
    """A dataset in an HDF5 file: an array, or the bytes of a JPEG or PNG."""

    path: Path
    key: str

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    @property
    def how(self) -> list[object]:
        return ["hdf5", self.key]

    def named(self, name: Callable[[Path], str]) -> str:
        return f"{name(self.path)} {self.key}"


@dataclass(frozen=True)
class TableRow(MadeSource):
    """Pixels that stand in the cells of a table's row."""

    table: str
    row: int
    pixels: np.ndarray = field(compare=False, repr=False)

    @property
    def files(self) -> tuple[Path, ...]:
        return ()

    @property
    def how(self) -> list[object]:
        pixels = self.pixels
        return ["row", str(pixels.dtype), list(pixels.shape), fingerprint.of_bytes(np.ascontiguousarray(pixels))]

    def named(self, name: Callable[[Path], str]) -> str:
        return f"{self.table}, row {self.row}"


def files_of(source: Source) -> tuple[Path, ...]:
    """The files that an image is read from."""
    return (source,) if isinstance(source, Path) else source.files


def is_part(source: Source) -> bool:
    """Is it less than its files, which other images may lie in as well?"""
    return isinstance(source, CutOut | Tile | Hdf5Item | TableRow)


def name_in(source: Source, folder: Path) -> str:
    """What messages call an image, with files as they are called in the competition's folder."""

    def name(path: Path) -> str:
        return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)

    return name(source) if isinstance(source, Path) else source.named(name)


def key_of(source: Source) -> str:
    """What caches know an image by: its whole path, and what is done with it."""
    if isinstance(source, Path):
        return os.path.abspath(source)
    if isinstance(source, TableRow):
        return f"{source.table}\n{source.row}"
    return "\n".join([*map(os.path.abspath, source.files), json.dumps(source.how)])


def stamp_of(source: Source) -> list[int]:
    """Size and times of its files, by which a change is noticed; empty where some are not there."""
    if isinstance(source, TableRow):
        return [source.pixels.nbytes, int(source.digest(str)[:12], 16), 0]
    try:
        stats = [os.stat(path) for path in files_of(source)]
    except OSError:
        return []
    sizes, written, changed = zip(*((s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in stats), strict=True)
    return [sum(sizes), max(written), max(changed)]


def is_there(source: Source) -> bool:
    """Are all files there?"""
    return os.path.isfile(source) if isinstance(source, Path) else source.is_file()


def missing_file(source: Source) -> Path | None:
    """The first of its files that is not there."""
    return next((path for path in files_of(source) if not os.path.isfile(path)), None)


def all_files(sources: Sequence[Source]) -> list[Path]:
    """The files of some images, each once, in order."""
    return list(dict.fromkeys(path for source in sources for path in files_of(source)))


def _how(source: Source) -> list[object]:
    return [] if isinstance(source, Path) else source.how


def _named(source: Source, name: Callable[[Path], str]) -> str:
    return name(source) if isinstance(source, Path) else source.named(name)
