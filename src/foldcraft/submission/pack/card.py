"""The pack's model card: what it answers, how well, what it is made of, whose weights."""

from collections.abc import Iterable, Sequence

from foldcraft.common.errors import counted
from foldcraft.data.competition import Competition
from foldcraft.models.backbones import Blueprint
from foldcraft.submission.pack.outcome import Made
from foldcraft.submission.pack.packed import ONNX

NEEDS = "Python 3.11 or newer, NumPy, pandas, Pillow and"


def card(made: Made, data: Competition) -> str:
    """As Markdown."""
    return "\n\n".join("\n".join(part(made, data)) for part in (_head, _scores, _members, _tiers, _use)) + "\n"


def _head(made: Made, data: Competition) -> Sequence[str]:
    kind = f"{len(data.classes)} classes" if data.space.form == "classes" else f"{len(data.classes)} {data.space.form}"
    return [
        f"# {data.name}: a blend of {counted(len(made.packed.members), 'member')}",
        "",
        f"Answers the test rows of `{data.name}` ({kind}, judged by {data.metric.name}) from their images. "
        f"Learned from {data.counted()}, by Foldcraft. Made by `{made.wanted.command}`.",
        "",
        "It holds ids, labels and groups of the training rows (`pack.json`): share it with whom may have those.",
    ]


def _scores(made: Made, data: Competition) -> Sequence[str]:
    score = made.whole.score
    of = made.combined.counted or f"{len(made.combined.rows)} rows"
    nested = f"{score.value:.4f} ({score.low:.4f} to {score.high:.4f}, 95 %), of {of}"
    lines = ["## How good it is", "", f"- out of fold, nested: {nested}"]
    if made.combined.forecast is not None and not made.left_out:
        lines.append(f"- forecast of the hidden score: {made.combined.forecast}")
    return [*lines, *(f"- to keep the size: {one}" for one in made.left_out)]


def _members(made: Made, data: Competition) -> Sequence[str]:
    rows = []
    shares = made.packed.tiers[0].plan.combination.shares
    about = zip(made.packed.members, made.blueprints, made.parities, shares, strict=True)
    for member, blueprint, parity, share in about:
        names, size = ", ".join(net.arch for net in _nets(blueprint)), f"{member.bytes / 1e6:.1f}"
        rows.append((member.name, names, len(member.models), ", ".join(member.views), f"{share:.3f}", size, parity))
    header = ("member", "nets", "models", "views", "weight", "MB", "packed beside trained models")
    lines = ["## What it is made of", "", *_table(header, rows), ""]
    lines += [f"Decision rule: {made.packed.tiers[0].plan.rule}.", ""]
    licences = {net.arch: _licence(net) for blueprint in made.blueprints for net in _nets(blueprint)}
    lines += ["Licences of the weights that training began with:", ""]
    return [*lines, *(f"- {name}: {licence}" for name, licence in licences.items())]


def _nets(blueprint: Blueprint) -> tuple[Blueprint, ...]:
    return (blueprint, *blueprint.others)


def _licence(net: Blueprint) -> str:
    return net.licence or ("none, they were random" if net.weights == "none" else "not said by whoever made them")


def _tiers(made: Made, data: Competition) -> Sequence[str]:
    rows = []
    for tier in made.packed.tiers:
        names = ", ".join(made.packed.members[k].name for k in tier.members)
        score = f"{tier.score:.4f}" if tier.score == tier.score else "not measured"
        rows.append((names, f"{tier.folds} each", score))
    header = ("members", "fold models", "nested score")
    return ["## Who answers while time runs out (`--minutes`)", "", *_table(header, rows)]


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """As lines of Markdown."""
    return [
        f"| {' | '.join(header)} |",
        "|---" * len(header) + "|",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]


def _use(made: Made, data: Competition) -> Sequence[str]:
    engine = "ONNX Runtime" if made.packed.engine == ONNX else "torch with timm"
    return [
        "## How to run it",
        "",
        f"Needs {NEEDS} {engine}; no network, and nothing of Foldcraft installed:",
        "",
        "```",
        "python predict.py --data FOLDER_OF_THE_COMPETITION --out submission.csv",
        "```",
    ]
