"""New columns from those that are there, by the settings of `competition.derive`."""

import fnmatch
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pandas as pd

from foldcraft.common.config import CompetitionConfig, DeriveConfig
from foldcraft.common.errors import FoldcraftError, listing, shorten, suggest
from foldcraft.data.host_files import expression, file_rows, regex_groups, row_places, templates
from foldcraft.data.host_files.expression import Expression

KEY = "competition.derive"
WAYS = ("map", "regex", "bins", "value", "format")
OF_ONE = ("map", "regex", "bins")  # that look at one column
SHOWN = 40  # characters of a cell in a message


@dataclass(frozen=True)
class Derivation:
    """How one column is made.

    Attributes:
        sources: columns that must be there, where {@id} is not resolved yet.
    """

    name: str
    settings: DeriveConfig
    sources: tuple[str, ...]
    parsed: Expression | None = None

    @property
    def where(self) -> str:
        """The setting, for messages."""
        return f"{KEY}.{shorten(self.name, SHOWN)}"


@dataclass
class Derived:
    """A table on its way: what is made of it as soon as its sources are there.

    Attributes:
        frame: as it is now.
        own: columns that the host's tables have.
        pending: what is not made yet, in order.
        needed: columns that no row may lack; None: all of them.
        notes: what there is to say, a line each.
    """

    frame: pd.DataFrame
    own: set[str]
    pending: list[Derivation]
    part: str
    id_column: str
    needed: Collection[str] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def aliases(self) -> dict[str, str]:
        """What a template calls by another name."""
        return {"@id": self.id_column}

    def make(self) -> None:
        """Make what can be made now.

        Raises:
            FoldcraftError: rows without a value; a column of that name is there already.
        """
        while ready := next((one for one in self.pending if self._lacking(one) is None), None):
            self.pending = [one for one in self.pending if one is not ready]
            self._make(ready)

    def _lacking(self, one: Derivation) -> str | None:
        """The first of its sources that is not there yet."""
        return next((name for name in one.sources if self.aliases.get(name, name) not in self.frame.columns), None)

    def _make(self, one: Derivation) -> None:
        is_train = self.needed is None
        if one.name in self.frame.columns and one.name not in (*row_places.OF_FILES, row_places.ROW):
            if is_train:
                what = f"the {self.part} rows have a column of that name already"
                raise FoldcraftError(what, one.where, "choose another name")
            self.notes.append(f"{one.where}: the {self.part} rows have such a column of their own, which is taken")
            return
        cells = _cells(one, self.frame, self.aliases, is_train)
        if is_train and (unused := _unused(one, self.frame)):
            words = listing([repr(shorten(pattern, SHOWN)) for pattern in unused], 3)
            self.notes.append(f"{one.where}: no {self.part} row comes to {words}")
        empty = np.array([cell is None or cell == "" for cell in cells], dtype=bool)
        if empty.any() and one.settings.default is not None:
            cells = [one.settings.default if gone else cell for cell, gone in zip(cells, empty, strict=True)]
        elif empty.any():
            what = _nothing(one, self.frame, empty, self.aliases, self.part)
            if is_train or one.name in self.needed:
                raise FoldcraftError(what, one.where, _hint(one))
            self.notes.append(f"{one.where}: left out of the {self.part} rows: {what}")
            return
        self.frame = self.frame.assign(**{one.name: pd.Series(cells, dtype=str, index=self.frame.index)})

    def check_all_made(self) -> None:
        """See that nothing is left that must be there.

        Raises:
            FoldcraftError: a source never came.
        """
        for one in self.pending:
            if self.needed is None or (one.name in self.needed and one.name not in self.own):  # the host's own will do
                lacking = self._lacking(one) or ""
                what = f"the {self.part} rows have no column {shorten(lacking, SHOWN)!r}"
                raise FoldcraftError(what, one.where, suggest(lacking, row_places.told(self.frame)))


def read(names: CompetitionConfig) -> list[Derivation]:
    """What is to be derived, checked.

    Raises:
        FoldcraftError: settings that do not go together; a pattern or an expression that is none.
    """
    made = []
    for name, settings in names.derive.items():
        where = f"{KEY}.{shorten(name, SHOWN)}"
        if not name or set("{}") & set(name) or name in row_places.NEVER_HIDDEN:
            raise FoldcraftError("is no name for a column", where, "choose another")
        given = [way for way in WAYS if getattr(settings, way) is not None]
        if len(given) > 1 or (not given and settings.source is None):
            what = f"says {listing(given)}" if given else "says nothing"
            raise FoldcraftError(what, where, f"name one of {listing(WAYS)}")
        if given and (given[0] in OF_ONE) != (settings.source is not None):
            lacks = f"{given[0]} looks at one column" if given[0] in OF_ONE else f"{given[0]} names its columns itself"
            hint = "add from: COLUMN" if given[0] in OF_ONE else "leave from out"
            raise FoldcraftError(lacks, where, hint)
        made.append(_read(name, settings, where))
    return made


def _read(name: str, settings: DeriveConfig, where: str) -> Derivation:
    if settings.value is not None:
        parsed = expression.read(settings.value, f"{where}.value")
        return Derivation(name, settings, parsed.columns, parsed)
    if settings.format is not None:
        return Derivation(name, settings, tuple(templates.fields(settings.format)))
    if settings.regex is not None:
        regex_groups.check(settings.regex, f"{where}.regex")
    return Derivation(name, settings, (str(settings.source),))


def _cells(one: Derivation, frame: pd.DataFrame, aliases: dict[str, str], is_train: bool) -> Sequence[str | None]:
    """The new column; None where nothing fits."""
    settings = one.settings
    if one.parsed is not None:
        return expression.evaluate(one.parsed, frame, is_train)
    if settings.format is not None:
        return templates.fill(settings.format, frame, f"{one.where}.format", aliases)
    source = frame[str(settings.source)]
    if settings.map is not None:
        return _mapped(settings.map, source.tolist())
    if settings.regex is not None:
        return regex_groups.first_groups(settings.regex, source.tolist(), f"{one.where}.regex")
    if settings.bins is not None:
        numbers = pd.to_numeric(source.str.strip(), errors="coerce").to_numpy(dtype=np.float64)
        places = np.searchsorted(settings.bins, numbers, side="right")
        known = np.isfinite(numbers).tolist()
        return [str(place) if there else None for place, there in zip(places.tolist(), known, strict=True)]
    return source.tolist()


def _mapped(values: dict[str, str], cells: Sequence[str]) -> list[str | None]:
    fitting = [
        (re.compile(fnmatch.translate(file_rows.nfc(pattern))).match, value) for pattern, value in values.items()
    ]

    @cache
    def of(cell: str) -> str | None:
        return next((value for fits, value in fitting if fits(file_rows.nfc(cell))), None)

    return [of(cell) for cell in cells]


def _unused(one: Derivation, frame: pd.DataFrame) -> list[str]:
    """Patterns of a map that fit no row, or come behind others that fit; one for all others may."""
    places = {pattern: str(number) for number, pattern in enumerate(one.settings.map or ())}
    met = set(_mapped(places, frame[str(one.settings.source)].tolist())) if places else set()
    return [pattern for pattern, place in places.items() if place not in met and pattern != "*"]


def _nothing(one: Derivation, frame: pd.DataFrame, empty: np.ndarray, aliases: dict[str, str], part: str) -> str:
    """Which rows have no value, and what they have instead."""
    row = int(np.flatnonzero(empty)[0])
    sources = [aliases.get(name, name) for name in one.sources][:3]
    having = listing([f"{name} {shorten(str(frame[name].iloc[row]), SHOWN)!r}" for name in sources])
    rows = listing([str(number + 1) for number in np.flatnonzero(empty)], 3)
    return (
        f"{int(empty.sum())} of {len(empty)} {part} rows get no value: row {rows}{f', with {having}' if having else ''}"
    )


def _hint(one: Derivation) -> str:
    if one.settings.map is not None:
        return 'add a pattern for them, "*" for all others, or default:'
    return "mend it, or say what they get: default:"
