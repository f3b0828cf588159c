"""Experiments against a baseline, as tables and as one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from foldcraft.common.errors import listing, plural
from foldcraft.metrics import significance

if TYPE_CHECKING:
    from foldcraft.metrics.significance import ClassChange, Comparison, Correction, PartChange, ScoredRows
    from foldcraft.study.compare import Run
    from foldcraft.views.terminal import Terminal

MOST_CLASSES = 20  # shown of each experiment
FEW = 30  # groups; below, the intervals of simulations hold in 90 % of cases instead of 95 %


def show(runs: Sequence[Run], answers: ScoredRows, comparison: Comparison, terminal: Terminal) -> None:
    """All of it: what is compared, the differences, rows with other answers, and what became of each class."""
    for line in heading(runs, answers):
        terminal.say(line)
    show_differences(answers, comparison, terminal)
    for line in legend(comparison.strictness):
        terminal.note(line)
    if answers.metric.wants == "labels":
        show_discord(answers, comparison, terminal)
    if answers.truth.ndim == 1:
        for name, changes in zip(answers.names[1:], significance.by_class(answers), strict=True):
            show_classes(answers.names[0], name, changes, terminal)
    else:
        show_correlation(answers, terminal)
        for name, changes in zip(answers.names[1:], significance.by_part(answers), strict=True):
            show_parts(answers, name, changes, terminal)
    terminal.say(f"intervals of {plural(answers.part)} stand each for itself: one in twenty misses")


def heading(runs: Sequence[Run], answers: ScoredRows) -> Iterator[str]:
    """What is compared, and what is not."""
    folds = sorted(set(answers.fold.tolist()))
    groups = len(set(answers.units.tolist()))
    grouped = runs[0].member.experiment.competition.answers.groups is not None
    counted = answers.counted or f"{len(answers.truth)} rows"
    of_groups = f" of {groups} groups" if grouped else ""
    yield (
        f"{answers.metric.title} on {counted}{of_groups}, fold {listing(folds)}, "
        "each judged by a model that never saw it"
    )
    for run in runs:
        if missing := run.member.missing_folds:
            yield f"warning: {run.name} lacks fold {listing(missing)}; only rows that all have are compared"
    if groups < FEW:
        yield f"warning: {groups} {'groups' if grouped else 'rows'} are few; intervals come out too narrow"


def show_differences(answers: ScoredRows, comparison: Comparison, terminal: Terminal) -> None:
    folds = len(set(answers.fold.tolist()))
    columns = ("experiment", answers.metric.title, "difference", "95 % interval", "P(better)", "folds better")
    columns += ("std. error", "could show", "bound", "verdict")
    rows = [(answers.names[0], f"{comparison.baseline:.4f}", *[""] * 7, "baseline")]
    rows += [
        (
            other.name,
            f"{other.score:.4f}",
            f"{other.value:+.4f}",
            f"{other.low:+.4f} to {other.high:+.4f}",
            f"{other.chance:.3f}",
            f"{other.folds_better} of {folds}",
            f"{other.error:.4f}",
            f"{other.smallest:.4f}",
            f"{other.bound:+.4f}",
            other.verdict,
        )
        for other in comparison.others
    ]
    terminal.table(f"against {answers.names[0]}; + is better", columns, rows)


def legend(strictness: Correction) -> Iterator[str]:
    """How the columns are to be read, and which correction was made."""
    yield "interval, P(better), std. error: of each by itself, from draws of whole groups with both on the same draws"
    yield "could show: the true difference that such rows show in 80 % of cases, 2.8 standard errors"
    down = f"{strictness.factor:.2f} standard errors down"
    yield f"bound: with 95 % the true difference is above it; {down}, {strictness.rule}"
    yield "verdict: better where the bound is above zero, worse where the whole interval is below it"


def show_discord(answers: ScoredRows, comparison: Comparison, terminal: Terminal) -> None:
    """Answers in which two experiments differ, and who is right there."""
    baseline, single = answers.names[0], answers.truth.ndim == 1
    rows = [
        (other.name, other.apart, other.baseline_right, other.right, other.apart - other.baseline_right - other.right)
        for other in comparison.others
    ]
    columns = ("experiment", "rows" if single else "answers", f"{baseline} is right", "it is right", "neither is")
    title = f"rows with another answer than {baseline}'s"
    if not single:
        title = f"answers that are others than {baseline}'s, one a row and {answers.part}"
    terminal.table(title, columns, rows)


def show_correlation(answers: ScoredRows, terminal: Terminal) -> None:
    """How far experiments err alike with the baseline."""
    stored = [answers.space.unscored(each) for each in answers.predicted]
    found = significance.error_correlation(answers.space, answers.truth, stored)[0, 1:]
    rows = [
        (name, "–" if value != value else f"{value:.3f}")
        for name, value in zip(answers.names[1:], found.tolist(), strict=True)
    ]
    title = f"correlation of errors with {answers.names[0]}; the lower, the more a blend gains"
    terminal.table(title, ("experiment", "correlation"), rows)


def show_parts(answers: ScoredRows, name: str, changes: Sequence[PartChange], terminal: Terminal) -> None:
    """A line a label, head or column; of many those that change most."""
    shown, title = list(changes), f"{plural(answers.part)}, {answers.names[0]} → {name}; + is better"
    if len(changes) > MOST_CLASSES:
        most = sorted(changes, key=lambda change: -abs(np.nan_to_num(change.gain)))[:MOST_CLASSES]
        shown = [change for change in changes if change in most]
        title += f": the {MOST_CLASSES} of {len(changes)} that change most"
    measures = list(changes[0].measures)
    rows = [
        (
            change.name,
            change.rows,
            *(" → ".join(digits(value) for value in change.measures[measure]) for measure in measures),
            digits(change.gain, "+"),
            f"{digits(change.low, '+')} to {digits(change.high, '+')}",
        )
        for change in shown
    ]
    columns = [answers.part, "rows", *measures, f"{measures[0]} difference", "95 % interval"]
    terminal.table(title, columns, rows)


def digits(value: float, sign: str = "") -> str:
    """A number as precise as it is worth: values have their own units; a dash for none."""
    if value != value:
        return "–"
    return f"{value:{sign}.3f}" if abs(value) < 100 else f"{value:{sign}.4g}"


def show_classes(baseline: str, name: str, changes: Sequence[ClassChange], terminal: Terminal) -> None:
    """A line a class; of many classes those that change most."""
    shown, title = list(changes), f"classes, {baseline} → {name}"
    if len(changes) > MOST_CLASSES:
        most = sorted(changes, key=lambda change: -abs(change.gain))[:MOST_CLASSES]
        shown = [change for change in changes if change in most]
        title += f": the {MOST_CLASSES} of {len(changes)} whose F1 changes most"
    rows = [
        (
            change.name,
            change.rows,
            *(f"{a:.3f} → {b:.3f}" for a, b in (change.precision, change.recall, change.f1)),
            f"{change.gain:+.3f}",
            f"{change.low:+.3f} to {change.high:+.3f}",
        )
        for change in shown
    ]
    terminal.table(title, ["class", "rows", "precision", "recall", "F1", "F1 difference", "95 % interval"], rows)


def reason(answers: ScoredRows, comparison: Comparison) -> str:
    """Whether the best of the others is really better than the baseline, in one line."""
    best = comparison.best
    word, where = ("accepted", "above") if best.is_real else ("not accepted", "not above")
    scores = f"{best.name} is {best.score:.4f}, of {answers.names[0]} {comparison.baseline:.4f}"
    return (
        f"{word}: {answers.metric.title} of {scores}, "
        f"difference {best.value:+.4f}; its bound {best.bound:+.4f} is {where} zero ({comparison.strictness.rule})"
    )


def behind_or_not(answers: ScoredRows, comparison: Comparison) -> str:
    """The scores of the best of the others and of the baseline, in one line."""
    best, folds = comparison.best, listing(sorted(set(answers.fold.tolist())))
    return f"{best.name} {best.score:.4f}, {answers.names[0]} {comparison.baseline:.4f} on fold {folds}"
