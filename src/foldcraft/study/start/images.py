"""Where the image of a row lies: a path with columns in braces, tried against the files that are there."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath

import pandas as pd

from foldcraft.study.start.inventory import Inventory, parent
from foldcraft.study.start.roles import words_of

SAMPLED = 40  # rows by which a path is guessed, and then tried on all
PIXELS = re.compile(r"(.*?)(\d+)")
NUMBERED = re.compile(r"(.+)[_\-]\d{1,4}")  # the name of one of several images


@dataclass(frozen=True)
class Found:
    """How images belong to rows.

    Attributes:
        template: path of the image, with columns in braces; of several images a row a pattern.
        column: that names the row in it.
        coverage: the share of the rows whose image is there.
        channels: what stands in the place of {*} where a row has one file a channel.
        several: has a row a folder of images?
        stem: is the column's cell the name with another extension, to be cut off?
        pixels: what the columns that hold the pixels are like, where there are no files.
        shape: of these pixels.
    """

    template: str = ""
    column: str = ""
    coverage: float = 0.0
    channels: tuple[str, ...] = ()
    several: bool = False
    stem: bool = False
    pixels: str = ""
    shape: tuple[int, ...] = ()


def find(inventory: Inventory, frame: pd.DataFrame, words: Sequence[str], but: Sequence[str] = ()) -> Found | None:
    """The template that fits most rows; of equals the one in a folder that is called by one of some words.

    Args:
        words: as "train".
        but: words of folders that are the other part's.
    """
    if pixels := _pixels(frame):
        return pixels
    index = _Index(inventory)
    guesses = dict.fromkeys(guess for column in frame.columns for guess in index.guesses(frame, column))
    tried = [found for guess in guesses if (found := index.tried(frame, guess)).coverage > 0]
    tried = [found for found in tried if not found.several or frame[found.column].is_unique]  # a folder is one row's
    columns = list(frame.columns)

    def is_others(found: Found) -> bool:
        folder = found.template.partition("{")[0]
        return is_of(folder, but) and not is_of(folder, words)

    def rank(found: Found) -> tuple[float, bool, bool, int, int]:
        folder = found.template.partition("{")[0]
        is_ours = is_of(folder, words) or folder == ""
        place = columns.index(found.column)
        return (round(found.coverage, 3), not found.several, is_ours, -place, -len(found.template))

    best = max((found for found in tried if not is_others(found)), key=rank, default=None)
    return best if best and best.coverage >= 0.5 else None


def is_of(folder: str, words: Sequence[str]) -> bool:
    """Does a word of a folder's path begin with one of these? A contest is no test."""
    return any(part.startswith(word) for part in words_of(folder) for word in words)


def _pixels(frame: pd.DataFrame) -> Found | None:
    """Columns pixel0, pixel1, ...: a square image, grey or in colour."""
    matches = [(name, found) for name in frame.columns if (found := PIXELS.fullmatch(str(name)))]
    prefixes = Counter(found[1] for _, found in matches if not set("*?[") & set(found[1]))
    if not prefixes:
        return None
    prefix, count = prefixes.most_common(1)[0]
    for bands in (1, 3):
        side = round((count / bands) ** 0.5)
        if count >= 64 and side * side * bands == count:
            return Found(
                pixels=f"{prefix}*" if prefix else "[0-9]*",
                shape=(side, side, *([bands] if bands > 1 else [])),
                coverage=1.0,
            )
    return None


class _Index:
    """The image files by what may stand in a table for them."""

    def __init__(self, inventory: Inventory) -> None:
        self.paths = set(inventory.images)
        self.rows: dict[int, dict[str, str]] = {}
        self.by_name: dict[str, list[str]] = defaultdict(list)
        self.folders: dict[str, list[str]] = defaultdict(list)
        for path in inventory.images:
            pure = PurePosixPath(path)
            for name in {pure.name, pure.stem}:
                self.by_name[name].append(path)
            for part in {pure.parent.name, *pure.parent.parts} - {""}:
                self.folders[part].append(path)
        self.numbered: dict[str, list[str]] = defaultdict(list)
        self.heads: dict[str, list[str]] = defaultdict(list)  # by the part before the last _
        for path in inventory.images:
            stem = PurePosixPath(path).stem
            if "_" in stem:
                self.heads[stem.rpartition("_")[0]].append(path)
            if found := NUMBERED.fullmatch(stem):
                self.numbered[found[1]].append(path)

    def guesses(self, frame: pd.DataFrame, column: str) -> Iterator[Found]:
        """What fits some row; how many it fits is not looked at yet."""
        if set("{}") & set(column):  # no template can name it
            return
        first = frame.index[~frame[column].duplicated() & (frame[column] != "")].tolist()
        step = max(1, len(first) // SAMPLED)
        for row in first[::step]:
            cell, others = str(frame.at[row, column]), partial(self._cells, frame, row)
            path = cell.replace("\\", "/").removeprefix("./")
            if path in self.paths:
                yield Found("{" + column + "}", column)
                continue
            name = path.rpartition("/")[2]
            hits = self.by_name.get(name, [])
            for hit in hits[:4]:
                for template in _with_columns(hit, name, column, others, path):
                    yield Found(template, column)
            stem = PurePosixPath(name).stem
            if not hits and stem != name:
                for hit in self.by_name.get(stem, [])[:4]:
                    for template in _with_columns(hit, stem, column, others, ""):
                        yield Found(template, column, stem=True)
            if not hits and (parts := self.numbered.get(name)):
                for template in {f"{parent(path)}/{{{column}}}{path.rpartition('/')[2][len(name)]}*" for path in parts}:
                    yield Found(template.removeprefix("/"), column, several=True)
            elif not hits and (parts := self.heads.get(name)):
                yield from self._channels(parts, name, column)
            for key, cut in ((name, False), (stem, True)):
                if not hits and (inside := self.folders.get(key)) and (not cut or stem != name):
                    top = inside[0].split("/")
                    before = "/".join(top[: top.index(key)])
                    head = f"{before}/" if before else ""
                    template = f"{head}{{{column}}}/{_depth(inside, key)}"
                    yield Found(template, column, several=True, stem=cut)
                    break

    def _cells(self, frame: pd.DataFrame, row: int) -> dict[str, str]:
        """What stands in a row, by the columns that a template can name."""
        if row not in self.rows:
            cells = zip(frame.columns, frame.loc[row].tolist(), strict=True)
            self.rows[row] = {name: cell for name, cell in cells if not set("{}") & set(name)}
        return self.rows[row]

    def _channels(self, parts: list[str], name: str, column: str) -> Iterator[Found]:
        by_folder: dict[str, list[str]] = defaultdict(list)
        for path in parts:
            by_folder[parent(path)].append(path)
        for folder, paths in by_folder.items():
            ends = tuple(sorted(path.rpartition("/")[2].removeprefix(name + "_") for path in paths))
            if len(ends) > 1:
                suffixes = {end.rpartition(".")[2] for end in ends}
                if len(suffixes) == 1:
                    suffix = suffixes.pop()
                    kinds = tuple(end.removesuffix(f".{suffix}") for end in ends)
                    head = f"{folder}/" if folder else ""
                    yield Found(f"{head}{{{column}}}_{{*}}.{suffix}", column, channels=kinds)

    def tried(self, frame: pd.DataFrame, guess: Found) -> Found:
        """The guess, with the share of the rows that it finds images for."""
        fields = re.findall(r"\{([^{}*]+)\}", guess.template)
        there = 0
        for row in frame[fields].to_dict("records"):
            values = {name: str(value).removeprefix("./") for name, value in row.items()}
            if guess.stem:
                values[guess.column] = PurePosixPath(values[guess.column]).stem
            name = re.sub(r"\{([^{}*]+)\}", lambda found, values=values: values[found[1]], guess.template)
            there += self._is_there(name, guess)
        return replace(guess, coverage=there / max(1, len(frame)))

    def _is_there(self, name: str, guess: Found) -> bool:
        if guess.several:
            top, _, last = name.partition("*")[0].rpartition("/")
            if last:  # a name that several images begin with
                return any(parent(path) == top for path in self.numbered.get(last[:-1], []))
            return any(path.startswith(top + "/") for path in self.folders.get(top.rpartition("/")[2], []))
        if guess.channels:
            return all(name.replace("{*}", kind) in self.paths for kind in guess.channels)
        return name in self.paths


def _depth(paths: Sequence[str], folder: str) -> str:
    """A pattern of the files below a folder: *, or */* where they are a folder deeper, or ** where some are."""
    parts = [path.split("/") for path in paths]
    depths = {len(each) - each.index(folder) - 1 for each in parts}
    return "/".join(["*"] * depths.pop()) if len(depths) == 1 else "**"


def _with_columns(hit: str, name: str, column: str, others: Callable[[], dict[str, str]], path: str) -> set[str]:
    """The path of a file with the column in it, and with other columns in the place of what the row's cells say."""
    folder, _, last = hit.rpartition("/")
    if path and hit.endswith(path) and "/" in path:
        return {hit.removesuffix(path) + "{" + column + "}"}
    named = last.replace(name, "{" + column + "}", 1)
    parts = folder.split("/") if folder else []
    cells = others().items() if parts else ()
    alike = {part: [key for key, cell in cells if cell == part and key != column] for part in parts}
    filled = ["{" + str(alike[part][0]) + "}" if alike[part] else part for part in parts]
    return {"/".join([*parts, named]), "/".join([*filled, named])}
