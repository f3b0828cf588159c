"""The net that training begins with: its modules, what is trained how fast, whether gradients reach all of it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import nn

from foldcraft.common.config import Config
from foldcraft.common.errors import counted, listing
from foldcraft.common.files import write_atomic
from foldcraft.models import backbones, finetune, summary
from foldcraft.models.backbones import Blueprint
from foldcraft.models.summary import Group, ModelSummary, Part
from foldcraft.training import initialization
from foldcraft.views.terminal import Terminal

MOST_PARTS, MOST_GROUPS = 24, 6  # rows of tables that fit on a screen together, with what is said beside them
STAND_IN_LR = 1e-3  # for `optim.lr: auto`, which is found out when training begins


def look(config: Config, classes: int) -> ModelSummary:
    """The summary of the net that training begins with."""
    return look_into(*initialization.fresh_net(config, classes), config, peak_lr(config))


def look_into(model: nn.Module, blueprint: Blueprint, config: Config, lr: float | None) -> ModelSummary:
    """The summary of a net, made ready to be trained as the config says.

    Args:
        lr: of the head, at its peak; None: it is not known, and no learning rates are told.
    """
    finetune.prepare(model, config.finetune)
    optimizer = None
    if config.finetune.mode != "linear_probe" and lr is not None:
        optim = config.optim.model_copy(update={"lr": lr})
        optimizer = finetune.create_optimizer(model, config.finetune, optim, blueprint.weights != "none")
    return summary.summarize(model, optimizer, backbones.head_names(model), config.images.size)


def show(config: Config, classes: Sequence[str], depth: int | None, file: Path | None, terminal: Terminal) -> None:
    """Look at the net, and tell of it.

    Args:
        depth: levels of modules that are shown; 0: all; None: as an outline.
        file: where all of it is written as JSON.
    """
    anatomy = look(config, len(classes))
    if file:
        write_atomic(file, as_json(anatomy, config, classes))
    tell(anatomy, config, depth, terminal)
    if file:
        terminal.say(f"wrote {file}")


def as_json(anatomy: ModelSummary, config: Config, classes: Sequence[str]) -> str:
    """All of it, every level."""
    about = {"experiment": config.experiment, "settings": config.training_settings(), "classes": classes}
    return json.dumps({**about, "peak_lr": peak_lr(config), **asdict(anatomy)}, indent=1, allow_nan=False)


def peak_lr(config: Config) -> float:
    """The learning rate of the head, or what stands in for it."""
    return STAND_IN_LR if config.optim.lr == "auto" else config.optim.lr


def tell(anatomy: ModelSummary, config: Config, depth: int | None, terminal: Terminal) -> None:
    """Print what the net is, its modules, how to read them, its parameter groups, and what is wrong with it."""
    for line in heading(anatomy, config):
        terminal.say(line)
    shown = shown_parts(anatomy.parts, depth)
    modules_table(shown, terminal)
    for line in legend(config):
        terminal.say(line)
    if len(shown) < len(anatomy.parts):
        deepest = max(part.depth for part in anatomy.parts)
        terminal.say(
            f"{len(anatomy.parts) - len(shown)} modules inside of these: --depth N, up to {deepest}; all: --depth 0"
        )
    if anatomy.groups:
        groups_table(
            [[group] for group in anatomy.groups] if depth is not None else _together(anatomy.groups), terminal
        )
    if anatomy.without_gradient:
        terminal.say(f"warning: to be trained, but the loss does not reach {listing(anatomy.without_gradient, 5)}")


def heading(anatomy: ModelSummary, config: Config) -> Iterator[str]:
    net, size, mode = config.backbone, config.images.size, config.finetune.mode
    count = anatomy.input[0]
    yield f"{config.experiment}: {net.name} ({net.source}, weights: {net.weights}), finetune.mode: {mode}"
    of_noise = f"{count} images of noise went through the net and back"
    yield f"input       {size} × {size} px, {counted(anatomy.input[1], 'channel')}; {of_noise}"
    yield f"parameters  {anatomy.parameters:,}, of them trainable {anatomy.trainable:,}; {anatomy.megabytes:.1f} MB"
    yield f"classifier  {', '.join(anatomy.classifier)}"
    yield f"stages      {', '.join(folded(anatomy.stages))}: names for finetune.freeze_until"


def legend(config: Config) -> Iterator[str]:
    """How the columns are to be read."""
    finetune = config.finetune
    yield "output: shape for those images; empty where the module was not called"
    freed = f", once all is set free after {finetune.unfreeze_epochs} epochs" if finetune.unfreeze_epochs else ""
    yield f"trainable: how many parameters training changes{freed}"
    if finetune.mode == "linear_probe":
        yield "learning rate: none, as the head is solved in closed form, on the features that probe.stages names"
    else:
        guess = f" (optim.lr is auto; {short(STAND_IN_LR)} stands in)" if config.optim.lr == "auto" else ""
        yield f"learning rate: at its peak{guess}, of the slowest to the fastest layer in the module"
    start = "; LoRA's A has 0 until B has moved" if finetune.mode == "lora" else ""
    yield f"gradient: its norm; noise tells which modules it reaches, not how large it will be{start}"


def folded(stages: Sequence[str]) -> Iterator[str]:
    """Stages with what they hold in brackets: blocks (blocks.0 … blocks.11)."""
    for stage in (name for name in stages if "." not in name):
        held = [name for name in stages if name.startswith(f"{stage}.")]
        yield f"{stage} ({' … '.join(dict.fromkeys((held[0], held[-1])))})" if held else stage


def shown_parts(parts: Sequence[Part], depth: int | None) -> list[Part]:
    """Modules down to a depth; 0: all; None: an outline that fits on a screen."""
    if depth is None:
        return summary.outline(parts, MOST_PARTS)
    return [part for part in parts if not depth or part.depth <= depth]


def modules_table(shown: Sequence[Part], terminal: Terminal) -> None:
    width = max(len(label(part)) for part in shown)
    rows = [
        (
            f"{label(part):{width}}  {part.kind}",
            shape(part),
            f"{part.parameters:,}" if part.parameters else "",
            trained(part),
            span(part.lr),
            part.flaw or ("" if part.gradient is None else f"{part.gradient:.2g}"),
        )
        for part in shown
    ]
    terminal.table("modules", ("module", "output", "parameters", "trainable", "learning rate", "gradient"), rows)


def label(part: Part) -> str:
    return "  " * max(0, part.depth - 1) + (part.name or "(all)")


def shape(part: Part) -> str:
    """What its last call gave; empty where there was none."""
    return "×".join(map(str, part.output or ()))


def span(values: Sequence[float]) -> str:
    """From the least to the largest of rising numbers; one where they are the same, nothing where there are none."""
    return "–".join(dict.fromkeys(map(short, (*values[:1], *values[-1:]))))


def trained(part: Part) -> str:
    """How many of a part's parameters are trained, in a word where that says it."""
    if not part.parameters:
        return ""
    return {0: "frozen", part.parameters: "all"}.get(part.trainable, f"{part.trainable:,}")


def short(value: float) -> str:
    """A number with two digits, 3.2e-5."""
    return f"{value:.1e}".replace("e-0", "e-").replace("e+00", "")


def _together(groups: Sequence[Group]) -> list[Sequence[Group]]:
    """Groups of each row: one, or, where there are many, all that differ in the learning rate of their layer alone."""
    if len(groups) <= MOST_GROUPS:
        return [[group] for group in groups]
    decays = dict.fromkeys(group.weight_decay for group in groups)
    return [[group for group in groups if group.weight_decay == decay] for decay in decays]


def groups_table(rows: Sequence[Sequence[Group]], terminal: Terminal) -> None:
    """What the optimizer treats alike.

    Args:
        rows: groups that are shown together.
    """
    columns = ("parameter groups, by their first tensor", "tensors", "parameters", "learning rate", "weight decay")
    cells = [
        (
            " … ".join(dict.fromkeys((groups[0].names[0], groups[-1].names[0]))),
            sum(len(group.names) for group in groups),
            f"{sum(group.parameters for group in groups):,}",
            span(sorted(group.lr for group in groups)),
            f"{groups[0].weight_decay:g}",
        )
        for groups in rows
    ]
    terminal.table("what the optimizer treats alike", columns, cells)
