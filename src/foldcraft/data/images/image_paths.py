"""Which file of a competition's folder a name means; one that is spelled otherwise is found where nothing else fits."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path, PurePosixPath

from foldcraft.common.errors import FoldcraftError, counted, fitting, listing, shorten
from foldcraft.data.images.image_kinds import ALL_SUFFIXES, IMAGE_SUFFIXES

MOST_FILES = 200_000  # that are looked through for one that is missing
NEAREST, SHOWN = 3, 40  # files that a message names for a missing one, and characters of each
LONGEST_LIST = 60  # characters of such files together
MOST_NAMES = 2000  # of a folder that are compared with a missing one's


@dataclass(frozen=True)
class ResolvedFiles:
    """The file of each name.

    Attributes:
        paths: one a name; None where there is none.
        respelled: (name, path) of those that are spelled otherwise.
    """

    paths: tuple[Path | None, ...]
    respelled: tuple[tuple[str, Path], ...]


def key_of(name: str) -> str:
    """What names that differ in case, in spaces around, or in how their letters are composed, have in common."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def with_slashes(name: str) -> str:
    """A path with backslashes as it is written elsewhere."""
    return name.replace("\\", "/")


class Folder:
    """The files of a competition's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listed: dict[Path, list[Path]] = {}
        self._known: dict[Path, dict[str, list[Path]]] = {}

    def find(self, names: Sequence[str]) -> ResolvedFiles:
        """The file of each name: by its path, or without its extension; else by the only spelling that is there.

        Raises:
            FoldcraftError: a name without extension could be any of several files.
        """
        stems = self._by_stem({(self.path / name).parent for name in names})
        paths = [_resolve(self.path / name, stems) for name in names]
        missing = {name for name, path in zip(names, paths, strict=True) if path is None}
        taken = {path for path in paths if path}
        guesses = {name: path for name in missing if (path := self._respelled(name)) and path not in taken}
        times = Counter(guesses.values())
        one_each = {name: path for name, path in guesses.items() if times[path] == 1}
        whole = tuple(path or one_each.get(name) for name, path in zip(names, paths, strict=True))
        return ResolvedFiles(whole, tuple(sorted(one_each.items())))

    def _by_stem(self, folders: set[Path]) -> dict[Path, list[Path]]:
        """Image files by their path, and by that without extension."""
        found: dict[Path, list[Path]] = {}
        for path in (path for folder in folders for path in self._files(folder)):
            found.setdefault(path, []).append(path)
            if path.suffix.lower() in IMAGE_SUFFIXES:
                found.setdefault(path.with_suffix(""), []).append(path)
        return found

    def _entries(self, folder: Path) -> list[Path]:
        if folder not in self._listed:
            self._listed[folder] = sorted(folder.iterdir()) if os.path.isdir(folder) else []
        return self._listed[folder]

    def _files(self, folder: Path) -> list[Path]:
        return [path for path in self._entries(folder) if os.path.isfile(path)]

    def _respelled(self, name: str) -> Path | None:
        """The only file that is called so but for case, Unicode form, slashes, or a rare extension that is left out."""
        *parents, last = PurePosixPath(with_slashes(name)).parts or ("",)
        folder = self.path
        for parent in parents:
            exact = folder / parent
            alike = [exact] if os.path.isdir(exact) else [p for p in self._alike(folder, parent) if os.path.isdir(p)]
            if len(alike) != 1:
                return None
            folder = alike[0]
        for wanted in (unicodedata.normalize("NFC", last), key_of(last)):  # of two that differ in case, the right one
            spelled = (lambda text: unicodedata.normalize("NFC", text)) if wanted != key_of(last) else key_of
            alike = [path for path in self._alike(folder, last) if os.path.isfile(path)]
            chosen = [path for path in alike if wanted in (spelled(path.name), spelled(path.stem))]
            if len(chosen) == 1:
                return chosen[0]
        return None

    def _alike(self, folder: Path, name: str) -> list[Path]:
        """Entries of a folder with that name, or without their extension, as `key_of` has them."""
        if folder not in self._known:
            self._known[folder] = {}
            for path in self._entries(folder):
                self._known[folder].setdefault(key_of(path.name), []).append(path)
                if path.suffix.lower() in ALL_SUFFIXES:
                    self._known[folder].setdefault(key_of(path.stem), []).append(path)
        return self._known[folder].get(key_of(name), [])

    def nearest(self, name: str) -> str:
        """What may be meant by the name of a missing file, up to three, in words; "" where nothing is like it."""
        wanted = PurePosixPath(with_slashes(name))
        keys = {key_of(wanted.name), key_of(wanted.stem) if wanted.suffix.lower() in IMAGE_SUFFIXES else ""}
        same = [path for key in keys - {""} for path in self._everywhere.get(key, [])]
        if same:
            inside = self.path / wanted.parent
            same = [path for path in same if path.is_relative_to(inside)] or same
            same = sorted(set(same), key=lambda path: (len(path.parts), path))
            there = [shorten(str(path.relative_to(self.path)), SHOWN) for path in same[:NEAREST]]
            if name in there:
                return f"{shorten(name, SHOWN)} is a link to nowhere"
            return f"for {shorten(name, SHOWN)} there is {fitting(there, LONGEST_LIST)}"
        folder = self.path / wanted.parent
        if not os.path.isdir(folder):
            names = [path.name for path in self._entries(self.path) if os.path.isdir(path)]
            shown = fitting([shorten(one, SHOWN) for one in names], LONGEST_LIST, 5)
            return f"there is no folder {shorten(str(wanted.parent), 30)}, only {shown}" if names else ""
        files = self._files(folder)[:MOST_NAMES]
        names = {(path.name if wanted.suffix else path.stem): path.name for path in files}
        close = get_close_matches(wanted.name, names, NEAREST, 0.7)
        found = [shorten(str(wanted.parent / names[one]), SHOWN) for one in close]
        return f"nearest to {shorten(name, SHOWN)} is {fitting(found, LONGEST_LIST)}" if close else ""

    @cached_property
    def _everywhere(self) -> dict[str, list[Path]]:
        """Image files of the whole folder by their names, with and without extension."""
        found: dict[str, list[Path]] = {}
        for number, path in enumerate(_walk(self.path)):
            if number == MOST_FILES:
                break
            if path.suffix.lower() in ALL_SUFFIXES:
                for name in (path.name, path.stem):
                    found.setdefault(key_of(name), []).append(path)
        return found


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        yield from (Path(place) / name for name in sorted(files))


def _resolve(path: Path, stems: dict[Path, list[Path]]) -> Path | None:
    candidates = stems.get(path, [])
    if path in candidates:
        return path
    if len(candidates) > 1:
        names = listing([candidate.name for candidate in candidates])
        raise FoldcraftError(f"could be any of {names}", path, "put the extension into the image path template")
    return candidates[0] if candidates else None


def describe(respelled: Sequence[tuple[str, Path]], folder: Path, key: str) -> str:
    """Files that were found under another spelling, in one line."""
    (name, path), *_ = respelled
    return (
        f"{key}: {counted(len(respelled), 'image')} found under another spelling (case, spaces, Unicode form, slashes "
        f"or extension), as {str(path.relative_to(folder))!a} for {name!a}"
    )
