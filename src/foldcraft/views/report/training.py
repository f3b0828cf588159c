"""What the page says of the works: training, checks, what the nets are, where everything lies."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from foldcraft.common import fingerprint
from foldcraft.common.config import Config
from foldcraft.common.errors import counted, listing
from foldcraft.models import backbones, checkpoint, summary
from foldcraft.models.backbones import Blueprint
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

MOST_NAMES = 4  # of experiments in a sentence
MOST_FOLDS = 100  # rows of the table of files
STATES = ("fail", "note", "pass", "n/a")  # of checks, in the order they are shown in
FILES = ("config", "history", "oof", "test", "model", "manifest")


def training(seen: Evidence) -> PageSection:
    """Learning curves by fold."""
    curves = {member.name: _curves(seen, place) for place, member in enumerate(seen.members)}
    blocks: list[Block] = [block for block in curves.values() if block]
    if without := [name for name, block in curves.items() if block is None]:
        why = "the head was solved in one step, or the weights were averaged from other runs"
        blocks.append(Words(f"No epochs, so no curves: {listing(without, MOST_NAMES)}; {why}.", "note"))
    question = "Did every fold learn, did it learn enough, and did it learn too much by heart?"
    return PageSection("training", "Learning curves", question, blocks)


def _points(history: pd.DataFrame, key: str) -> list[dict[str, int | float]]:
    """Fold, epoch and value of every epoch that has one; not every epoch looks at the held-out images."""
    rows = history.dropna(subset=[key]).to_dict("records")
    return [{"fold": int(row["fold"]), "epoch": int(row["epoch"]), "value": float(row[key])} for row in rows]


def _curves(seen: Evidence, place: int) -> Block | None:
    """Of an experiment; None where it has no epochs."""
    name, history = seen.members[place].name, seen.history(place)
    if history is None or not {"epoch", "score", "loss", "valid_loss"} <= set(history.columns):
        return None
    parts = (("valid_loss", "held-out images"), ("loss", "training images"))
    scores = _points(history, "score")
    losses = [{**point, "part": part} for key, part in parts for point in _points(history, key)]
    return Side(
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
    found = {member.name: read_json(folder / f"{member.name}.json") for member in seen.members}
    blocks: list[Block] = [_checked(name, said) for name, said in found.items() if said is not None]
    if without := [name for name, said in found.items() if said is None]:
        command = "`python src/check.py` with the --config of one does it"
        blocks.append(Words(f"Not checked: {listing(without, MOST_NAMES)}. {command}.", "note"))
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
    """The modules of each net; one that several experiments begin with in the same way is shown once."""
    question = "What is inside the nets, and which part is trained how fast?"
    alike: dict[str, list[FinishedExperiment]] = {}
    for member in seen.members:
        alike.setdefault(_beginning(member.experiment.config), []).append(member)
    blocks = [More(_whose(members), _net(members[0])) for members in alike.values()]
    return PageSection("nets", "Nets", question, blocks)


def _beginning(config: Config) -> str:
    """Digest of what decides which net an experiment begins with, and what is trained of it."""
    settings = config.model_dump(mode="json", include={"backbone", "finetune", "probe"})
    for name in ("augmented", "mirror", "solver", "strengths", "views"):  # of the images and the head that are learned
        settings["probe"].pop(name)
    return fingerprint.of_values([settings, config.images.size, config.optim.lr])


def _whose(members: Sequence[FinishedExperiment]) -> str:
    """The nets' names, and the experiments that begin with them."""
    config = members[0].experiment.config
    nets = listing([config.backbone.name, *config.probe_nets])
    return f"{nets}: {listing([member.name for member in members], MOST_NAMES)}"


def _net(member: FinishedExperiment) -> list[Block]:
    config = member.experiment.config
    blueprint = checkpoint.read_blueprint(member.folder(member.done_folds[0]).model)
    lr = None if config.optim.lr == "auto" else config.optim.lr
    seen = net.look_into(backbones.rebuild(blueprint), blueprint, config, lr)
    words = (
        f"{config.backbone.name} ({config.backbone.source}, weights: {config.backbone.weights}), {seen.input[-1]} px, "
        f"finetune.mode: {config.finetune.mode}; {seen.parameters:,} parameters, of them trainable {seen.trainable:,}, "
        f"{seen.megabytes:.1f} MB."
    )
    if blueprint.stages:
        words += f" The head is solved in closed form, on the features of {_seen_by_head(blueprint)}."
    if blueprint.others:
        words += " The table is of the first net."
    heads = columns("module", "kind", "output", "# parameters", "# trainable", "learning rate|at its peak")
    return [Words(words), Table("Modules", heads, [_part(part) for part in summary.outline(seen.parts)])]


def _seen_by_head(blueprint: Blueprint) -> str:
    """The stages; of several nets, or of several sizes, how many of each."""
    nets = [blueprint.arch, *(other.arch for other in blueprint.others)]
    parts = Counter(stage.partition("/")[0] for stage in blueprint.stages if re.match(r"\d+@\d+/", stage))
    if not parts:
        return ", ".join(blueprint.stages)
    places = [(count, *map(int, part.split("@"))) for part, count in parts.items()]
    return listing([f"{counted(count, 'stage')} of {nets[net]} at {size} px" for count, net, size in places])


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
        settings = member.experiment.config.model_dump(mode="json")
        blocks.append(More(member.name, [_flat(f"Manifest of fold {fold}", manifest), _flat("Settings", settings)]))
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
