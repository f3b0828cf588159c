"""The pack's model card: what it answers, how well, what it is made of, whose weights."""

from __future__ import annotations

from collections.abc import Sequence

from foldcraft.models.backbones import Blueprint
from foldcraft.predictions.finished import FinishedExperiment
from foldcraft.submission.pack.outcome import Made
from foldcraft.submission.pack.packed import Packed


def card(made: Made, members: Sequence[FinishedExperiment]) -> str:
    """As Markdown."""
    parts = [_head(made, members), _scores(made), _members(made, members), _tiers(made.packed, made), _use(made)]
    return "\n\n".join(parts) + "\n"


def _head(made: Made, members: Sequence[FinishedExperiment]) -> str:
    data = members[0].experiment.competition
    kind = f"{len(data.classes)} classes" if data.space.form == "classes" else f"{len(data.classes)} {data.space.form}"
    lines = [
        f"# {data.name}: a blend of {len(made.packed.members)}",
        f"Answers the test rows of `{data.name}` ({kind}, judged by {data.metric.name}) from their images.",
        f"Learned from {data.counted()} by Foldcraft; made by `{made.wanted.command}`.",
    ]
    return "\n\n".join(lines)


def _scores(made: Made) -> str:
    score = made.whole.score
    lines = [
        "## How good it is",
        f"- out of fold, nested: {score.value:.4f} ({score.low:.4f} to {score.high:.4f}, 95 %), of "
        f"{made.combined.counted or len(made.combined.rows)}",
    ]
    if made.combined.forecast is not None and not made.left_out:
        lines.append(f"- forecast of the hidden score: {made.combined.forecast}")
    lines += ["", f"Decision rule: {made.packed.tiers[0].plan.rule}.", ""]
    lines += ["Licences of the weights that training began with:", ""]
    licences = {net.arch: net.licence or _unsaid(net) for blueprint in made.blueprints for net in _nets(blueprint)}
    return "\n".join([*lines, *(f"- {name}: {licence}" for name, licence in licences.items())])


def _unsaid(net: Blueprint) -> str:
    return "random weights, none" if net.weights == "none" else "not said by whoever made them"


def _nets(blueprint: Blueprint) -> tuple[Blueprint, ...]:
    return (blueprint, *blueprint.others)


def _tiers(packed: Packed, made: Made) -> str:
    lines = ["## Who answers while time runs out (`--minutes`)"]
    lines += ["| members | fold models | nested score |", "|---|---|---|"]
    for tier in packed.tiers:
        names = ", ".join(packed.members[k].name for k in tier.members)
        score = f"{tier.score:.4f}" if tier.score == tier.score else "not measured"
        lines.append(f"| {names} | {tier.folds} each | {score} |")
    return "\n".join(lines)


def _use(made: Made) -> str:
    needs = "torch and timm" if made.packed.engine == "torch" else "ONNX Runtime"
    return "\n".join(
        [
            "## How to run it",
            f"Needs Python 3.11, NumPy, pandas, Pillow and {needs}; no network, nothing of Foldcraft installed:",
            "",
            "```",
            "python predict.py --data FOLDER_OF_THE_COMPETITION --out submission.csv",
            "```",
        ]
    )
