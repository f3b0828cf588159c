"""What the page says of the works: training, checks, what the nets are, where everything lies."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from foldcraft.models import backbones, checkpoint, summary
from foldcraft.models.summary import Part
from foldcraft.predictions.finished import FinishedExperiment
from foldcraft.views import net
from foldcraft.views.report import charts
from foldcraft.views.report.blocks import (
    Block,
    Cell,
    Chart,
    More,
    PageSection,
    Side,
    Table,
    Words,
    columns,
    number,
    seconds,
    texts,
)
from foldcraft.views.report.evidence import Evidence, read_json

MOST_FOLDS = 100  # rows of the table of files
STATES = ("fail", "note", "pass", "n/a")  # of checks, in the order they are shown in
FILES = ("config", "history", "oof", "test", "model", "manifest")


def training(seen: Evidence) -> PageSection:
    """Learning curves by fold."""
    blocks = [block for place in range(len(seen.members)) for block in _curves(seen, place)]
    question = "Did every fold learn, did it learn enough, and did it learn too much by heart?"
    return PageSection("training", "Learning curves", question, blocks)


def _points(history: pd.DataFrame, key: str) -> list[dict[str, int | float]]:
    """Fold, epoch and value of every epoch that has one; not every epoch looks at the held-out images."""
    rows = history.dropna(subset=[key]).to_dict("records")
    return [{"fold": int(row["fold"]), "epoch": int(row["epoch"]), "value": float(row[key])} for row in rows]


def _curves(seen: Evidence, place: int) -> Iterator[Block]:
    name, history = seen.members[place].name, seen.history(place)
    if history is None or not {"epoch", "score", "loss", "valid_loss"} <= set(history.columns):
        yield Words(
            f"{name} has no epochs: its head was solved in one step, or its weights were averaged from other runs.",
            "note",
        )
        return
    parts = (("valid_loss", "held-out images"), ("loss", "training images"))
    scores = _points(history, "score")
    losses = [{**point, "part": part} for key, part in parts for point in _points(history, key)]
    yield Side(
        [
            Chart(
                f"{name}: score",
                f"{seen.metric_words} on the held-out fold after each epoch.",
                charts.curves(scores, seen.metric_words),
            ),
            Chart(
                f"{name}: loss",
                "Solid: held-out images; dashed: training images, with augmentation and label smoothing, so it may lie "
                "above. Held-out loss that rises while training loss falls is overfitting.",
                charts.curves(losses, "loss", dashed=True),
            ),
        ]
    )


def checks(seen: Evidence) -> PageSection:
    """What the sanity checks of the training code said."""
    question = "Is the training itself sound on these data?"
    folder = seen.study("check")
    blocks: list[Block] = []
    for member in seen.members:
        found = read_json(folder / f"{member.name}.json")
        if found is None:
            text = f"{member.name} has not been checked. `python src/check.py` with its --config does it."
            blocks.append(Words(text, "note"))
        else:
            blocks.append(_checked(member.name, found))
    return PageSection("checks", "Checks", question, blocks)


def _checked(name: str, found: Any) -> Block:
    """A line a check: what failed first, then in the order of the file."""
    checks = found.get("checks", found) if isinstance(found, dict) else found
    lines = list(checks.values()) if isinstance(checks, dict) else checks
    lines = [line for line in lines if isinstance(line, dict)] if isinstance(lines, list) else []
    lines.sort(key=lambda line: STATES.index(line.get("status")) if line.get("status") in STATES else len(STATES))
    rows = [texts(*(line.get(key) or "" for key in ("status", "title", "number", "hint"))) for line in lines]
    return Table(name, columns("status", "check", "what was found", "how to mend it"), rows)


def nets(seen: Evidence) -> PageSection:
    """The modules of each member's net."""
    question = "What is inside the nets, and which part is trained how fast?"
    blocks = [More(f"{member.name}: {member.experiment.config.backbone.name}", _net(member)) for member in seen.members]
    return PageSection("nets", "Nets", question, blocks)


def _net(member: FinishedExperiment) -> list[Block]:
    config = member.experiment.config
    _, blueprint, _ = checkpoint.load_model(member.folder(member.done_folds[0]).model)
    lr = None if config.optim.lr == "auto" else config.optim.lr
    seen = net.look_into(backbones.rebuild(blueprint), blueprint, config, lr)
    words = (
        f"{config.backbone.name} ({config.backbone.source}, weights: {config.backbone.weights}), {seen.input[-1]} px, "
        f"finetune.mode: {config.finetune.mode}; {seen.parameters:,} parameters, of them trainable {seen.trainable:,}, "
        f"{seen.megabytes:.1f} MB."
    )
    if blueprint.stages:
        words += f" The head is solved in closed form, on the features of {', '.join(blueprint.stages)}."
    heads = columns("module", "kind", "output", "# parameters", "# trainable", "learning rate|at its peak")
    return [Words(words), Table("Modules", heads, [_part(part) for part in summary.outline(seen.parts)])]


def _part(part: Part) -> list[Cell]:
    counts = (number(part.parameters, ",d"), number(part.trainable, ",d"))
    return [*texts(part.name or "(all)", part.kind, net.shape(part)), *counts, Cell(net.span(part.lr))]


def files(seen: Evidence) -> PageSection:
    """Every fold with its files, and what each experiment was made of."""
    rows = [
        [
            *texts(member.name, fold),
            number(manifest.get("score")),
            number(manifest.get("epochs") or None, "d"),
            Cell(seconds(manifest.get("seconds", 0)), manifest.get("seconds", 0)),
            *(_file(seen, name, getattr(member.folder(fold), name)) for name in FILES),
        ]
        for member, manifests in zip(seen.members, seen.manifests, strict=True)
        for fold, manifest in manifests.items()
    ]
    heads = columns("experiment", "# fold", "# score|of the fold by itself", "# epochs", "# time", *FILES)
    table = Table("Folds and their files", heads, rows[:MOST_FOLDS], of=len(rows) if len(rows) > MOST_FOLDS else 0)
    blocks: list[Block] = [table]
    for member, manifests in zip(seen.members, seen.manifests, strict=True):
        fold, manifest = next(iter(manifests.items()))
        blocks.append(More(f"{member.name}: manifest of fold {fold}", [_flat("Manifest", manifest)]))
        settings = member.experiment.config.model_dump(mode="json")
        blocks.append(More(f"{member.name}: settings", [_flat("Settings", settings)]))
    return PageSection("files", "Manifest and files", "What exactly was run, with what, and where is it?", blocks)


def _file(seen: Evidence, name: str, path: Path) -> Cell:
    return Cell(name, link=seen.link(path)) if path.is_file() else Cell("–")


def _flat(title: str, values: dict[str, Any]) -> Table:
    return Table(title, columns("key", "value"), [texts(key, value) for key, value in _leaves(values, ())])


def _leaves(value: Any, path: Sequence[str]) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    else:
        yield ".".join(path), value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
