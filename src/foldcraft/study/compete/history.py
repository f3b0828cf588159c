"""What was done so far, an entry an action, and the nested predictions of each blend that was judged."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from foldcraft.common import checksums
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, listing, said_by
from foldcraft.common.files import read_bytes, write_atomic
from foldcraft.common.paths import study_folder
from foldcraft.ensemble.best_so_far import Step
from foldcraft.study.compete.worth import Belief

FOLDER = "compete"


@dataclass(frozen=True)
class Entry:
    """An action that was carried out: a whole experiment, or one fold of it.

    Attributes:
        action: name of its recipe.
        kind: of the action, as beliefs are kept by it.
        nets: that it is of.
        experiment: name of the experiment.
        folds: that were trained.
        is_whole: are all folds there now, so that the blend was judged with it?
        seconds: since the beginning, when it was done.
        took, expected: seconds of the work itself, and the forecast of them.
        reckoned: the same before it was corrected by what was seen here.
        features: what was gathered for it, as `seconds.feature_name` names it.
        alone: proper loss of the experiment by itself, on its rows.
        gain, error: share of the loss that it takes off the blend before it, if there was one, and its standard error.
        is_kept: is the blend with it the one that is submitted?
        is_member: is it in the blends that come? Not where it made the blend really worse.
        score, low, high, loss: nested, of what is submitted so far.
        forecast: of the hidden score, with its bounds.
        submission: file that was written.
        mixed_in: experiment that lacks folds and is mixed into that file, with its folds; "" for none.
        why: the reason for doing it.
    """

    action: str
    kind: str
    nets: tuple[str, ...]
    experiment: str
    folds: tuple[int, ...]
    is_whole: bool
    seconds: float
    took: float
    expected: float
    reckoned: float
    features: tuple[str, ...] = ()
    alone: float | None = None
    gain: float | None = None
    error: float | None = None
    is_kept: bool = False
    is_member: bool = True
    score: float | None = None
    low: float | None = None
    high: float | None = None
    loss: float | None = None
    forecast: tuple[float, float, float] | None = None
    submission: str | None = None
    mixed_in: str = ""
    config: str = ""
    why: str = ""

    @property
    def name(self) -> str:
        """What was done, with its folds where they are not all of it."""
        return self.action if self.is_whole else f"{self.action}, fold {listing(self.folds)}"

    @property
    def seen(self) -> Belief | None:
        """The gain as something that was seen."""
        return None if self.gain is None or self.error is None else Belief(self.gain, self.error)


@dataclass
class History:
    """The entries of a competition's `runs/<competition>/compete`, and what the steps of its blend said.

    Attributes:
        data: digest of the data, folds and metric that all of it is for.
        settings: that all experiments are made with, values by name, as `run.shared_settings` gives them.
        notes: what was found once, such as how fast nets are.
    """

    folder: Path
    data: str
    settings: Mapping[str, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, config: Config, data: str, settings: Mapping[str, str]) -> "History":
        """What there is; an empty one where there is nothing yet.

        Raises:
            FoldcraftError: it is damaged, or of other data, folds or settings.
        """
        found = cls(study_folder(config, FOLDER), data, settings)
        if found.file.is_file():
            kept = _read(found.file)
            if kept["data"] != data:
                raise FoldcraftError("is of other data, folds or metric", found.file, anew(found.folder))
            if kept["settings"] != settings:
                raise FoldcraftError(_what_differs(kept["settings"], settings), found.file, anew(found.folder))
            found.notes, found.entries = kept["notes"], kept["entries"]
        return found

    @property
    def file(self) -> Path:
        """Where the entries are kept."""
        return self.folder / "history.json"

    @property
    def used(self) -> float:
        """Seconds of all that was done, up to the beginning of what was not finished."""
        return max(float(self.notes.get("seconds", 0.0)), self.entries[-1].seconds if self.entries else 0.0)

    @property
    def whole(self) -> list[Entry]:
        """Of each step of the blend."""
        return [entry for entry in self.entries if entry.is_whole]

    def add(self, entry: Entry, step: Step | None) -> None:
        """Keep an entry, with the step of the blend that it was."""
        if step is not None:
            content = io.BytesIO()
            np.savez(content, answers=step.answers, undecided=step.undecided)
            write_atomic(self._step(len(self.whole)), content.getvalue())
        self.entries.append(entry)
        self.write()

    def note_time(self, seconds: float) -> None:
        """Keep how much time is used, for the case that what begins now is never finished."""
        self.note(seconds=seconds)

    def note(self, **notes: Any) -> None:
        """Keep what was found once."""
        self.notes |= notes
        self.write()

    def write(self) -> None:
        """Put all of it on disk at once."""
        entries = [asdict(entry) for entry in self.entries]
        about = {"data": self.data, "settings": self.settings}
        checksums.write_json(self.file, {**about, "notes": self.notes, "entries": entries}, indent=1)

    def steps(self) -> list[Step]:
        """Of all blends that were judged.

        Raises:
            FoldcraftError: one is missing or damaged.
        """
        return [self._read_step(number) for number in range(len(self.whole))]

    def _step(self, number: int) -> Path:
        return self.folder / "steps" / f"{number}.npz"

    def _read_step(self, number: int) -> Step:
        path = self._step(number)
        try:
            with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as found:
                return Step(found["answers"], found["undecided"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise FoldcraftError(f"damaged: {said_by(error)}", path, anew(self.folder)) from None


def of_kept_blend(entries: Iterable[Entry]) -> list[Entry]:
    """Those whose experiments are the blend that is submitted; none where there is none yet."""
    whole = [entry for entry in entries if entry.is_whole]
    last = max((place for place, entry in enumerate(whole) if entry.is_kept), default=-1)
    return [entry for place, entry in enumerate(whole[: last + 1]) if entry.is_member or place == last]


def read_entries(config: Config) -> list[Entry]:
    """All entries of a competition, whatever data they are of; none where nothing was done.

    Raises:
        FoldcraftError: they are damaged.
    """
    file = History(study_folder(config, FOLDER), "").file
    return _read(file)["entries"] if file.is_file() else []


def _read(file: Path) -> dict[str, Any]:
    try:
        kept = checksums.read_json(file)
        about = {"data": kept["data"], "settings": kept.get("settings", {})}
        return {**about, "notes": kept["notes"], "entries": list(map(_entry, kept["entries"]))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FoldcraftError(f"damaged: {said_by(error)}", file, anew(file.parent)) from None


def _what_differs(before: object, now: Mapping[str, str]) -> str:
    """The first setting that all experiments are made with and that was another one."""
    if not isinstance(before, Mapping):
        return "is of an earlier version of Foldcraft"
    name = next(name for name in {**now, **before} if before.get(name) != now.get(name))
    was, is_now = (settings.get(name, "not set") for settings in (before, now))
    return f"was made with {name.partition(': ')[2]} {was}, not {is_now}"


def anew(folder: Path) -> str:
    """How to begin without what earlier runs did."""
    return f"delete {folder} to begin anew; experiments that fit are taken over"


def _entry(kept: dict[str, Any]) -> Entry:
    lists = {name: tuple(value) for name, value in kept.items() if isinstance(value, list)}
    return Entry(**{**kept, **lists})
