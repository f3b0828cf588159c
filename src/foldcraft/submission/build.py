"""The submission: experiments blended, made on the host's sample, checked, and entered in the ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from foldcraft.common import checksums
from foldcraft.common.callbacks import Callback
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import check_file_name, locked, write_atomic
from foldcraft.data.competition import Competition
from foldcraft.data.images.sources import is_there
from foldcraft.ensemble import blend, unfinished
from foldcraft.ensemble.blend import Combined
from foldcraft.ensemble.forecast import Forecast
from foldcraft.ensemble.methods import Method
from foldcraft.predictions.finished import FinishedExperiment, joined_name
from foldcraft.submission import contents, form_inference, ledger, out_file, shuffle_check
from foldcraft.submission.shuffle_check import ShuffleWarning


def make(competition: Competition, ids: np.ndarray, predicted: np.ndarray) -> pd.DataFrame:
    """The sample submission with its answers replaced, everything else left as it is.

    Args:
        ids: of the test rows, or answers (N,).
        predicted: predictions (N, W).

    Raises:
        FoldcraftError: ids missing, extra or doubled; NaN; probabilities that do not sum to one; a sample whose columns
            are not understood.
    """
    (file,) = form_inference.files(competition).files
    return file.fill(ids, predicted)


def meaning(competition: Competition) -> list[str]:
    """What the columns of a submission hold, a line each file, where the sample leaves that open."""
    files = form_inference.files(competition)
    if len(files.files) == 1:
        return [] if files.goes_without_saying else [files.files[0].form.describe()]
    return files.lines()


def check(frame: pd.DataFrame, competition: Competition) -> None:
    """Look at a finished submission as the host will.

    Raises:
        FoldcraftError: other columns, ids or order than the sample; empty cells; answers that the host does not know.
    """
    (file,) = form_inference.files(competition).files
    file.check(frame)


class Written(NamedTuple):
    """A submission on disk.

    Attributes:
        is_new: False: the very same has been written before.
        doubt: why its rows may be shuffled; None: nothing speaks for it.
        is_entered: has the ledger a row of it?
    """

    path: Path
    is_new: bool
    doubt: ShuffleWarning | None
    is_entered: bool = True


def write(
    frames: pd.DataFrame | Mapping[str, pd.DataFrame], folder: Path, name: str, entry: Mapping[str, object]
) -> Written:
    """Write the submission and its row in the ledger; an earlier submission is never overwritten.

    Args:
        frames: one, or several by their names in the zip that they become.
        entry: the ledger's columns beside file, time, public and private.
    """
    check_file_name(name)
    text, suffix = contents.of({"": frames} if isinstance(frames, pd.DataFrame) else frames)
    with locked(ledger.lock_in(folder)):
        noted = ledger.checksums_of(ledger.path_in(folder), str(entry["competition"]))
        path, is_new = _free_name(folder, name, suffix, text, noted)
        if is_new:
            write_atomic(path, text)
        entered = {"file": path.name, "content": checksums.checksum(text), **entry}
        ledger.enter(ledger.path_in(folder), entered, is_new)
        rows = ledger.read(ledger.path_in(folder), str(entry["competition"]))
    comparable = rows[rows["competition"].isin(["", str(entry["competition"])]) & (rows["metric"] == entry["metric"])]
    found = shuffle_check.find_shuffled(folder, comparable, only=path.name)
    return Written(path, is_new, found[0] if found else None)


def _free_name(folder: Path, name: str, suffix: str, text: bytes, noted: Mapping[str, str]) -> tuple[Path, bool]:
    """A name for a submission, and whether it is a new one; the one before it must be what the ledger noted of it.

    A name of the ledger stays that of its submission where this was deleted, or moved: the leaderboard may know it.
    """
    own, path, number = checksums.checksum(text), folder / f"{name}{suffix}", 1
    while path.exists() or noted.get(path.name, own) != own:
        if path.exists():
            if path.read_bytes() == text:
                return path, False
            _check_unchanged(path, noted.get(path.name))
        number += 1
        path = folder / f"{name}-{number}{suffix}"
    return path, True


def check_unchanged(path: Path, competition: str) -> None:
    """See that a submission is as it was written; one that the ledger does not know may be anything.

    Raises:
        FoldcraftError: it has changed.
    """
    _check_unchanged(path, ledger.checksums_of(ledger.path_in(path.parent), competition).get(path.name))


def _check_unchanged(path: Path, noted: str | None) -> None:
    if noted not in ("", None, checksums.checksum(path.read_bytes())):
        hint = "delete it and run again, or rename it to keep your changes"
        raise FoldcraftError("has changed since it was written", path, hint)


@dataclass(frozen=True)
class Submission:
    """A submission that was made, or was there already.

    Attributes:
        written: where it is.
        combined: what it is made of, with its scores.
        entry: its row in the ledger, beside file, time and the leaderboard's scores.
        rows: of all files.
    """

    written: Written
    combined: Combined
    entry: Mapping[str, object]
    rows: int
    files: int = 1


def submit(
    members: Sequence[FinishedExperiment],
    name: str | None,
    callback: Callback,
    methods: Sequence[Method] | None = None,
    folder: Path = ledger.SUBMISSIONS,
    out: Path | None = None,
    part: FinishedExperiment | None = None,
) -> Submission:
    """Blend finished experiments of one competition, score them nested, write the checked submission.

    Args:
        name: of the file; None: competition and experiments.
        methods: ways to blend; None: all, of which the best honest one is taken.
        out: where the file is to be, in place of a new one in the folder.
        part: an experiment that lacks folds, mixed evenly into the blend; scores are those of the blend without.

    Raises:
        FoldcraftError: `part` lacks no fold, or has one that the blend lacks; what `blend.complete` and `blend.combine`
            raise; the submission is not as the host wants it; the file, or its row in the ledger, has changed since it
            was written.
    """
    _warn_of_gaps(members, callback)
    if part:
        unfinished.check(members, part)
    blend.complete([*members, part] if part else members, callback)
    return submit_blend(members, blend.combine(members, methods), name, callback, folder, out, part)


def submit_blend(
    members: Sequence[FinishedExperiment],
    result: Combined,
    name: str | None,
    callback: Callback,
    folder: Path = ledger.SUBMISSIONS,
    out: Path | None = None,
    part: FinishedExperiment | None = None,
) -> Submission:
    """The same of a blend that is known, and of a part whose predictions are complete; `submit` says what is raised."""
    names = [member.name for member in members]
    if part:
        result = unfinished.mixed(result, part)
        name = name or f"{joined_name([*members, part])}-mixed"
        names.append(f"+{part.name}")
    competition = members[0].experiment.competition
    frames = form_inference.files(competition).filled(competition.answers.test_ids, result.test)
    name = name or joined_name(members)
    entry = _entry(names, competition, result)
    if out is None:
        written = write(frames, folder, name, entry)
    else:
        written = Written(out, True, None, out_file.write(frames, out, folder, entry))
    if len(result.blind):
        members[0].experiment.tell_unreadable(result.blind.tolist(), callback)
    return Submission(written, result, entry, sum(map(len, frames.values())), len(frames))


def _entry(names: Sequence[str], competition: Competition, result: Combined) -> dict[str, object]:
    """What the ledger says of a blend of experiments of these names."""
    chosen = result.selection.chosen
    return {
        "competition": competition.name,
        "experiments": " ".join(names),
        "weights": " ".join(f"{share:.3f}" for share in result.shares),
        "metric": competition.metric.name,
        "nested": f"{chosen.score.value:.5f}",
        "nested_low": f"{chosen.score.low:.5f}",
        "nested_high": f"{chosen.score.high:.5f}",
        "optimistic": f"{chosen.optimistic:.5f}",
        "rows": len(result.rows),
        **_forecast(result.forecast),
    }


def _forecast(found: Forecast) -> dict[str, str]:
    return {
        "forecast": f"{found.value:.5f}",
        "forecast_low": f"{found.low:.5f}",
        "forecast_high": f"{found.high:.5f}",
    }


def _warn_of_gaps(members: Sequence[FinishedExperiment], callback: Callback) -> None:
    """Say what some experiments lack: folds, or training images by which their data can be told."""
    for member in members:
        paths = member.experiment.competition.train_paths
        if not member.experiment.train_images and (there := sum(map(is_there, paths))):
            callback.say(
                f"warning: {len(paths) - there} of {len(paths)} training images are missing: whether "
                f"{member.name} learned from those that are there cannot be told"
            )
        if missing := member.missing_folds:
            callback.say(
                f"warning: {member.name} has only fold {', '.join(map(str, member.done_folds))}; "
                f"train {', '.join(map(str, missing))} too for a score over all rows"
            )
