"""What lies in a host's folder: tables, images, texts."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import pandas as pd

from foldcraft.common.errors import FoldcraftError
from foldcraft.data.host_files import file_rows, table_file
from foldcraft.data.images.image_kinds import ALL_SUFFIXES

MOST_FILES = 1_000_000  # that are listed
MOST_TABLES = 40  # that are read, the ones nearest to the top first
LONGEST_TEXT = 200_000  # bytes of a description
TEXTS = (".md", ".txt", ".html", ".htm", ".rst")
OTHERS = (".json", ".jsonl", ".geojson", ".xml", ".xlsx", ".xls", ".mat", ".pkl", ".db", ".sqlite")


@dataclass(frozen=True)
class Inventory:
    """The files of a folder, by their paths within it.

    Attributes:
        tables: all as text, by path; the ones nearest to the top first.
        images: paths, sorted.
        texts: contents of descriptions.
        unread: tables that could not be read, and why.
        others: files that may say something and are no tables.
    """

    folder: Path
    tables: dict[str, pd.DataFrame]
    images: tuple[str, ...]
    texts: tuple[str, ...]
    unread: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @cached_property
    def folders(self) -> dict[str, list[str]]:
        """Paths of the images by the folder that they are in; "" for the top."""
        found: dict[str, list[str]] = {}
        for path in self.images:
            found.setdefault(parent(path), []).append(path)
        return found

    @cached_property
    def suffixes(self) -> Counter[str]:
        """How many images there are by the end of their names."""
        return Counter(PurePosixPath(path).suffix for path in self.images)


def parent(path: str) -> str:
    """The folder that a file is in, "" for the top."""
    return path.rpartition("/")[0]


def look(folder: Path) -> Inventory:
    """List a folder and read its tables.

    Raises:
        FoldcraftError: there is no such folder, or neither a table nor an image in it.
    """
    if not os.path.isdir(folder):
        raise FoldcraftError("no such folder", folder, "name the folder that holds what the host hands out")
    files = sorted(_files(folder), key=lambda path: (path.count("/"), path))
    tables, unread = {}, [f"{path}: its name is no UTF-8" for path in files if not file_rows.is_text(path)][:1]
    files = [path for path in files if file_rows.is_text(path)]
    for path in [path for path in files if table_file.is_table(Path(path))][:MOST_TABLES]:
        try:
            tables[path] = table_file.read(folder / path, "").frame
        except FoldcraftError as error:
            unread.append(str(error))
    images = tuple(path for path in files if PurePosixPath(path).suffix.lower() in ALL_SUFFIXES)
    if not tables and not images:
        raise FoldcraftError("holds neither a table nor an image", folder, "unpack what the host hands out into it")
    texts = [path for path in files if PurePosixPath(path).suffix.lower() in TEXTS and path not in tables]
    others = [path for path in files if PurePosixPath(path).suffix.lower() in OTHERS]
    said = tuple(_text(folder / path) for path in texts[:20])
    return Inventory(folder, tables, images, said, tuple(unread), tuple(others))


def _files(folder: Path) -> Iterator[str]:
    """Paths within the folder; of hidden files and folders none, nor of links that lead to folders."""
    count = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not file_rows.is_hidden(name))
        for name in sorted(names):
            if not file_rows.is_hidden(name) and os.path.isfile(os.path.join(place, name)):  # a pipe is none
                count += 1
                if count > MOST_FILES:
                    raise FoldcraftError(f"more than {MOST_FILES:,} files", folder, "write the config by hand")
                yield (Path(place) / name).relative_to(folder).as_posix()


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as stream:
            return stream.read(LONGEST_TEXT).decode("utf-8", "replace")
    except OSError:
        return ""
