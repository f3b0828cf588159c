"""Rows that are files: found by a pattern inside the competition's folder, in an order that people expect."""

import fnmatch
import os
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from foldcraft.common.errors import FoldcraftError, counted, listing, shorten
from foldcraft.data.host_files.row_places import FILE, FOLDER, STEM
from foldcraft.data.images.image_files import check_inside, check_links
from foldcraft.data.images.image_kinds import IMAGE_SUFFIXES, OTHER_SUFFIXES

MARKS = frozenset("*?[")
HIDDEN = frozenset(("thumbs.db", "desktop.ini", "__macosx"))  # and all names that begin with a dot
SHOWN = 60  # characters of a file or a pattern in a message
LOOKED_AT = 20_000  # files, by those who look for what may be meant


def is_pattern(name: str) -> bool:
    """Is it one of files, and not the name of a table?"""
    return bool(MARKS & set(name))


class Files:
    """The files of a competition's folder; each folder is listed once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[str, tuple[list[str], list[str]]] = {}

    def matching(self, pattern: str) -> list[str]:
        """Those that fit a pattern, `**` for any number of folders; hidden ones do not count."""
        parts = [part for part in PurePosixPath(pattern).parts if part != "."]
        return sorted(set(self._matching("", parts)), key=natural) if parts else []

    def _matching(self, place: str, parts: Sequence[str]) -> Iterator[str]:
        first, *rest = parts
        if first == "**":
            yield from self._matching(place, rest or ["*"])
            for name in self._names(place)[1]:
                inner = self.folder / place / name
                if os.path.isdir(inner) and not os.path.islink(inner):
                    yield from self._matching(f"{place}{name}/", parts)
            return
        for name in self._fitting(place, first) if is_pattern(first) else [first]:
            if rest and os.path.isdir(self.folder / place / name):
                yield from self._matching(f"{place}{name}/", rest)
            elif not rest and os.path.isfile(self.folder / place / name):
                yield f"{place}{name}"

    def _fitting(self, place: str, part: str) -> Iterator[str]:
        keys, names = self._names(place)
        wanted = nfc(part)
        start = wanted[: min(wanted.find(mark) for mark in MARKS if mark in wanted)]
        for number in range(bisect_left(keys, start), len(keys)):
            if not keys[number].startswith(start):
                return
            if fnmatch.fnmatchcase(keys[number], wanted):
                yield names[number]

    def _names(self, place: str) -> tuple[list[str], list[str]]:
        """What is in a folder, as tables compose it, sorted, and as the file system does."""
        if place not in self._listed:
            pairs = sorted((nfc(name), name) for name in _names(self.folder / place))
            self._listed[place] = [key for key, _ in pairs], [name for _, name in pairs]
        return self._listed[place]


def _names(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not is_hidden(name)]
    except OSError:
        return []


def escaped(cell: str) -> str:
    """A cell as a part of a pattern that fits nothing but it."""
    return re.sub(r"([*?\[])", r"[\1]", cell)


def is_hidden(name: str) -> bool:
    """Is it what an operating system leaves in a folder?"""
    return name.startswith(".") or name.casefold() in HIDDEN


def nfc(text: str) -> str:
    """The text as most tables compose it; file systems may not."""
    return unicodedata.normalize("NFC", text)


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """What sorts 2 before 10."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(part[:4000]), "") if part.isdecimal() else (1, 0, part) for part in parts if part], name


def table(files: Sequence[str]) -> pd.DataFrame:
    """A row for each file: `_file`, `_stem`, `_folder`."""
    paths = [PurePosixPath(nfc(file)) for file in files]
    cells = {FILE: map(str, paths), STEM: (path.stem for path in paths), FOLDER: (path.parent.name for path in paths)}
    return pd.DataFrame({f"_{name}": pd.Series(list(column), dtype=str) for name, column in cells.items()})


def rows(folder: Path, pattern: str, key: str, follow_links: bool) -> tuple[pd.DataFrame, list[str]]:
    """A row for each file that fits the pattern, and what there is to say of others beside them.

    Raises:
        FoldcraftError: the pattern leaves the folder; nothing fits it.
    """
    check_inside([pattern], key)
    files = Files(folder).matching(pattern)
    if not files:
        raise FoldcraftError(f"{shorten(pattern, SHOWN)!r} fits no file", key, what_is_there(folder, pattern))
    check_names(files, key)
    files, others = images_among(files, pattern)
    if not files:
        raise FoldcraftError(f"{shorten(pattern, SHOWN)!r} fits no image, only {_first(others)}", key)
    if not follow_links:
        check_links(folder, [folder / file for file in files], key)
    return table(files), [*no_rows(others, key), *beside(folder, files, key)]


def check_names(files: Sequence[str], key: str) -> None:
    """See that all names are text: a file system may hold any bytes, and tables and configs cannot name them."""
    if odd := [file for file in files if not is_text(file)]:
        what = f"the name of {counted(len(odd), 'file')} is no UTF-8, as {shorten(odd[0], SHOWN)}"
        raise FoldcraftError(what, key, "rename such files")


def is_text(name: str) -> bool:
    """Is a file's name UTF-8?"""
    return not any("\udc80" <= char <= "\udcff" for char in name)


def images_among(files: Sequence[str], pattern: str) -> tuple[list[str], list[str]]:
    """Files that fit a pattern, and those of them that are no images, unless it asks for their kind: *.xml."""
    if PurePosixPath(pattern).suffix.lower() in OTHER_SUFFIXES:
        return list(files), []
    others = [file for file in files if PurePosixPath(file).suffix.lower() in OTHER_SUFFIXES]
    taken = set(others)
    return [file for file in files if file not in taken], others


def no_rows(files: Sequence[str], key: str) -> list[str]:
    """What there is to say of files that are no images, in a line."""
    return [f"{key}: {counted(len(files), 'file')} left out, being no image: {_first(files)}"] if files else []


def _first(files: Sequence[str]) -> str:
    return listing([shorten(name, SHOWN) for name in files], 2)


def beside(folder: Path, files: Sequence[str], key: str) -> list[str]:
    """Image files that lie beside those of a pattern and do not fit it, in a line."""
    taken, places = set(files), sorted({file.rpartition("/")[0] for file in files})
    others = [
        f"{place}/{name}".lstrip("/")
        for place in places
        for name in sorted(_names(folder / place))
        if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and f"{place}/{name}".lstrip("/") not in taken
    ]
    if not others:
        return []
    return [f"{key}: {counted(len(others), 'image')} beside those that fit the pattern are no rows: {_first(others)}"]


def what_is_there(folder: Path, pattern: str) -> str:
    """What a pattern may have meant: what lies in the deepest folder of it that there is."""
    place = folder
    for part in PurePosixPath(pattern).parts[:-1]:
        if is_pattern(part) or not os.path.isdir(place / part):
            break
        place = place / part
    names = sorted(_names(place), key=natural)
    shown = [shorten(f"{name}/" if os.path.isdir(place / name) else name, 30) for name in names]
    inside = place.relative_to(folder).as_posix()
    where = "the folder" if inside == "." else f"{shorten(inside, SHOWN)}/"
    example = next(iter(_images(place)), None)
    like = f"; a file is {shorten(example.relative_to(folder).as_posix(), SHOWN)}" if example else ""
    return f"{where} holds {listing(shown, 4) if shown else 'nothing'}{like}"


def _images(place: Path) -> Iterator[Path]:
    seen = 0
    for inside, folders, names in os.walk(place):
        folders[:] = sorted((name for name in folders if not is_hidden(name)), key=natural)
        for name in sorted(names, key=natural):
            seen += 1
            if not is_hidden(name) and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(inside) / name
        if seen > LOOKED_AT:
            return
