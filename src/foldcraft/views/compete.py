"""A competition while it runs: what was done, what runs, what is next and why; and what it came to."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from foldcraft.common.errors import counted, listing
from foldcraft.study.compete.history import of_kept_blend
from foldcraft.views import tracking
from foldcraft.views.terminal import duration

if TYPE_CHECKING:
    from foldcraft.common.config import Config
    from foldcraft.study.compete.history import Entry
    from foldcraft.study.compete.options import Option
    from foldcraft.study.compete.run import Outcome, Show, Standing
    from foldcraft.views.terminal import Terminal

SHOWN = 8  # actions that are shown as done while others run
COLUMNS = ["", "action", "time", "gain", "nested OOF", "95 % interval", "why, or what came of it"]
HELPED, WORTH_NAMING = 3, 0.005  # actions that are named at the end, and the share of the loss that they took at least


@contextmanager
def shown(config: Config, terminal: Terminal) -> Iterator[Show]:
    """What is told how it stands: a line each time, on a terminal a table above the bars, and W&B where it is on."""
    told, tracker = 0, tracking.tracker_of_compete(config)

    def show(standing: Standing) -> None:
        nonlocal told
        for entry in standing.entries[max(told, standing.before) :]:
            terminal.note(_line(entry, standing))
            if tracker and entry.is_whole:
                tracker.competes(config, _row_of_curve(entry))
        told = len(standing.entries)
        if standing.running:
            terminal.note(_begins(standing.running, standing))
        terminal.pin(partial(_title, standing), COLUMNS, _rows(standing))

    try:
        yield show
    except Exception as error:
        if tracker:
            tracker.failed(error)
        raise
    finally:
        terminal.unpin()
        if tracker and (warning := tracker.close()):
            terminal.say(warning)


def _row_of_curve(entry: Entry) -> dict[str, float]:
    """What W&B draws over time."""
    known = {"score": entry.score, "low": entry.low, "high": entry.high, "loss": entry.loss, "gain": entry.gain}
    forecast = dict(zip(("forecast", "forecast_low", "forecast_high"), entry.forecast or (), strict=False))
    return {"minutes": entry.seconds / 60, **{name: x for name, x in {**known, **forecast}.items() if x is not None}}


def _title(standing: Standing) -> str:
    left = f"{duration(max(0.0, standing.clock.left))} left"
    whole = [entry for entry in standing.entries if entry.is_whole]
    if not whole:
        return f"no submission yet; {left}"
    last = whole[-1]
    return f"{standing.metric} {last.score:.4f} ({last.low:.4f}–{last.high:.4f}), nested; {_forecast(last)}{left}"


def _forecast(entry: Entry) -> str:
    if entry.forecast is None:
        return ""
    value, low, high = entry.forecast
    return f"forecast of the hidden score {value:.4f} ({low:.4f}–{high:.4f}); "


def _rows(standing: Standing) -> list[tuple[str, ...]]:
    rows = [("done", *_cells(entry)) for entry in standing.entries[-SHOWN:]]
    running = [standing.running] if standing.running else []
    for state, options in (("running", running), ("next", standing.next)):
        rows += [(state, *_expected(option)) for option in options]
    return rows


def _cells(entry: Entry) -> tuple[str, ...]:
    score = ("", "") if not entry.is_whole else (f"{entry.score:.4f}", f"{entry.low:.4f}–{entry.high:.4f}")
    return (entry.name, duration(entry.took), _gain(entry), *score, entry.submission or "")


def _expected(option: Option) -> tuple[str, ...]:
    action, belief = option.action, option.belief
    expected = "" if belief.mean > 1 else f"{belief.mean:+.1%} ± {belief.error:.1%}"
    return (action.name, duration(option.seconds), expected, "", "", action.why)


def _gain(entry: Entry) -> str:
    return "" if entry.gain is None else f"{entry.gain:+.1%} ± {entry.error:.1%}"


def _begins(option: Option, standing: Standing) -> str:
    name, belief = option.action.name, option.belief
    folds = f", fold {listing(option.folds)}" if option.action.fold_by_fold else ""
    expected = f"; expected to take {belief.mean:+.1%} ± {belief.error:.1%} off the loss" if belief.mean <= 1 else ""
    left = duration(max(0.0, standing.clock.left))
    return f"next: {name}{folds}: {option.action.why}{expected}, in {duration(option.seconds)}; {left} left"


def _line(entry: Entry, standing: Standing) -> str:
    gain = f"{_gain(entry)} of the loss, " if entry.gain is not None else ""
    began = f"{entry.name}: {gain}in {duration(entry.took)}"
    kept = _what_is_submitted(entry, standing.entries)
    if not entry.is_whole:
        return f"{began}; {kept}"
    score = f"{standing.metric} {entry.score:.4f} ({entry.low:.4f}–{entry.high:.4f})"
    return f"{began}; {score}; {_forecast(entry)}{kept}"


def _what_is_submitted(entry: Entry, entries: Sequence[Entry]) -> str:
    if not entry.submission:
        return "the submission stays"
    first = next(one for one in entries if one.submission == entry.submission)
    return f"wrote {entry.submission}" if first is entry else f"its answers are those of {entry.submission}"


def tell(outcome: Outcome, terminal: Terminal) -> None:
    """What was done, what helped, and what to type to have it again."""
    history = outcome.history
    if not history.whole:
        return
    columns = ["", "at", "took", "forecast", "loss alone", "gain", "nested OOF", "95 % interval", "submission"]
    terminal.table(f"what was done, by {outcome.metric}", columns, [_row(entry) for entry in history.entries])
    terminal.say(" ".join(summary(history.entries)))
    terminal.say(f"the same submission once more: {shlex.join(_command(history.entries))}")


def _command(entries: Sequence[Entry]) -> list[str]:
    """That makes the last submission from the experiments as they are."""
    configs = [entry.config for entry in of_kept_blend(entries)]
    mixed_in = [entry for entry in entries if entry.submission][-1].mixed_in
    part = [entry.config for entry in entries if mixed_in.startswith(f"{entry.experiment}, ")][:1]
    return ["python", "src/infer.py", "--config", *configs, *(["--mix-in", *part] if part else [])]


def _row(entry: Entry) -> tuple[str, ...]:
    action, took, gain, score, interval, submission = _cells(entry)
    alone = "" if entry.alone is None else f"{entry.alone:.4f}"
    return (action, duration(entry.seconds), took, duration(entry.expected), alone, gain, score, interval, submission)


def summary(entries: Sequence[Entry]) -> list[str]:
    """What was submitted, what helped and what did not, in a few sentences."""
    whole = [entry for entry in entries if entry.is_whole]
    kept = [entry for entry in whole if entry.is_kept]
    written = [entry for entry in entries if entry.submission][-1]
    last = whole[-1]
    score = f"{last.score:.4f} ({last.low:.4f}–{last.high:.4f})"
    sentences = [
        f"The one to upload is {written.submission}. Nested, with the choice among all blends: {score}"
        f"{'; ' + _forecast(last).rstrip('; ') if last.forecast else ''}.",
        f"{counted(len(whole), 'experiment')} in {duration(entries[-1].seconds)}; {len(kept)} made a better blend.",
    ]
    if written.mixed_in:
        sentences.append(f"Mixed into it evenly, and not yet in that score: {written.mixed_in}.")
    gains = sorted(
        (entry for entry in kept[1:] if (entry.gain or 0) >= WORTH_NAMING), key=lambda entry: -(entry.gain or 0)
    )
    if gains:
        helped = [f"{entry.action} ({entry.gain:.0%} of the loss: {entry.why})" for entry in gains[:HELPED]]
        sentences.append(f"What helped most: {'; '.join(helped)}.")
    if useless := [entry.action for entry in whole if not entry.is_kept]:
        sentences.append(f"No better when they came: {listing(useless, 5)}.")
    if worse := [entry.action for entry in whole if not entry.is_member]:
        sentences.append(f"Left out of what came later, for they made the blend worse: {listing(worse, 5)}.")
    names = {entry.action for entry in whole}
    left = {entry.action: entry for entry in entries if entry.action not in names}
    for entry in left.values():
        sentences.append(f"{entry.name}: {_gain(entry)} of the loss there, and not gone on with.")
    return sentences
