"""A blend as tables: what it is made of, what it and the others score, and why it was chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from foldcraft.common.errors import listing
from foldcraft.ensemble import unfinished

if TYPE_CHECKING:
    from foldcraft.ensemble.blend import Combined
    from foldcraft.ensemble.nested import BlendCandidate
    from foldcraft.predictions.finished import FinishedExperiment
    from foldcraft.views.terminal import Terminal


def show(result: Combined, terminal: Terminal) -> None:
    """Members and ways to blend with their nested scores, the views that were chosen, and why."""
    selection, metric = result.selection, result.truth.metric
    folds = [f"fold {fold}" for fold in result.folds]
    pooled = ["mean over folds", "nested OOF, pooled"] if metric.by_order else ["nested OOF"]
    columns = ["", "weight", *folds, *pooled, "95 % interval", "optimistic"]
    shares = selection.chosen.plan.combination.shares
    rows = [_row(result, one, f"{share:.2f}") for one, share in zip(selection.members, shares, strict=True)]
    used = selection.chosen
    others = [_row(result, one, "") for one in selection.worth_showing]
    rows += [row for row in others if row != _row(result, used, "")]
    rows.append(_row(result, replace(used, name=f"used: {used.name}"), ""))
    title = (
        f"{metric.title} on {result.counted or f'{len(result.rows)} rows'}, all fitted without the fold that is judged"
    )
    terminal.table(title, columns, rows)
    if any(len(member.plan.views[0]) > 1 for member in selection.members):
        terminal.table("views, chosen on OOF", ["experiment", "what it gains, nested", "weights"], _views(result))
    if used.name in [row[0] for row in rows]:
        terminal.say(f"used: each fold is judged by what the other folds choose, which is not always {used.name}")
    if metric.by_order and len(result.folds) > 1:
        terminal.note("pooled: all folds in one order, though outputs of different folds need not be on one scale")
    if len(result.folds) == 1:
        terminal.say("warning: with one fold nothing can be nested; the score above is optimistic")
    for reason in selection.words:
        terminal.say(f"- {reason}")
    if result.forecast:
        terminal.say(f"forecast of the hidden score: {result.forecast}")
        for line in result.forecast.words:
            terminal.say(f"- {line}")


def mixed_in(result: Combined, part: FinishedExperiment) -> str:
    """What an experiment that lacks folds does to the blend it is mixed into."""
    gain = unfinished.gain(part, result.rows, result.selection.undecided)
    found, space = part.oof(), result.truth.space
    counted = part.experiment.competition.counted(found.rows)
    size = f"{abs(gain.value):.1%} ± {gain.error:.1%}"
    effect = f"takes {size} off" if gain.value >= 0 else f"adds {size} to"
    warning, mend = ("warning: ", "; leave --mix-in out") if gain.is_real_loss else ("", "")
    return (
        f"{warning}{part.name}, fold {listing(part.done_folds)}, is mixed in evenly: it {effect} the "
        f"{space.loss_name} of its {counted}; the scores above are of the blend without it{mend}"
    )


def _row(result: Combined, candidate: BlendCandidate, note: str) -> tuple[str, ...]:
    score = candidate.score
    return (
        candidate.name,
        note,
        *(f"{one:.4f}" for one in result.fold_scores(candidate)),
        *([f"{result.mean_of_folds(candidate):.4f}"] if result.truth.metric.by_order else []),
        f"{score.value:.4f}",
        f"{score.low:.4f}–{score.high:.4f}",
        f"{candidate.optimistic:.4f}",
    )


def _views(result: Combined) -> list[tuple[str, ...]]:
    rows = []
    for member, (value, error), views in zip(
        result.selection.members, result.selection.views_gain, result.views, strict=True
    ):
        used = [f"{view} {share:.2f}" for view, share in zip(views, member.plan.views[0], strict=True) if share]
        rows.append((member.name, f"{value:+.4f} ± {error:.4f}", ", ".join(used)))
    return rows
