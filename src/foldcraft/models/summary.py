"""What a net is made of, and what one forward and one backward pass show of each of its parts."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

from foldcraft.models.finetune import parts
from foldcraft.models.inputs import Inputs, channels_of, forward

CONTAINERS = ("Sequential", "ModuleList")  # plain ones: they only hold others

BATCH = 2
LEVELS = 2  # of an outline
PARAMETER = "Parameter"  # kind of a tensor that lies beside modules; a class token, for instance


@dataclass(frozen=True)
class Part:
    """A module with all that is in it, or a parameter that lies beside modules.

    Attributes:
        name: as in `named_modules`; empty for the whole net.
        depth: modules around it; 0 for the whole net.
        kind: name of its class.
        output: shape of what its last call gave, or of the parameter; None for a module that was never called.
        parameters, trainable: numbers, not tensors.
        lr: the different learning rates of its trainable parameters, lowest first.
        gradient: norm over its trainable parameters; None where there is none or it is no number.
        flaw: what is wrong with it; empty where nothing is.
    """

    name: str
    depth: int
    kind: str
    output: list[int] | None
    parameters: int
    trainable: int
    lr: list[float]
    gradient: float | None
    flaw: str


@dataclass(frozen=True)
class Group:
    """Parameters that the optimizer treats alike.

    Attributes:
        names: of its tensors.
        parameters: numbers, not tensors.
        lr: at the peak of the schedule.
    """

    names: list[str]
    parameters: int
    lr: float
    weight_decay: float


@dataclass(frozen=True)
class ModelSummary:
    """All there is to see in a net before it is trained.

    Attributes:
        input: shape of the batch that went through it.
        parts: every module, each before what it holds; the first is the whole net.
        stages: modules to freeze up to, in the order of the net.
        without_gradient: names of trainable parameters that the loss does not depend on.
        megabytes: parameters and buffers, in millions of bytes.
    """

    input: list[int]
    classifier: list[str]
    parameters: int
    trainable: int
    megabytes: float
    stages: list[str]
    without_gradient: list[str]
    groups: list[Group]
    parts: list[Part]


def summarize(model: nn.Module, optimizer: Optimizer | None, classifier: Sequence[str], size: int) -> ModelSummary:
    """Look into a net by one forward and one backward pass of a batch of noise.

    The net is left in evaluation mode: nothing is drawn, and BatchNorm takes its own statistics rather than those of a
    batch of two. Noise stands for normalised images; with zeros the first layer would get no gradient.

    Args:
        optimizer: what trains it; None where no gradient does.
        classifier: names of its last modules; distilled nets have two.
        size: side of its input in pixels.
    """
    images = torch.randn(BATCH, channels_of(model), size, size, generator=torch.Generator().manual_seed(0))
    model.eval().zero_grad(set_to_none=True)
    shapes = _forward_and_backward(model, images)
    groups = optimizer.param_groups if optimizer else []
    lr = {id(value): _lr(group) for group in groups for value in group["params"]}
    anatomy = ModelSummary(
        input=list(images.shape),
        classifier=list(classifier),
        parameters=_count(model.parameters()),
        trainable=_count(value for value in model.parameters() if value.requires_grad),
        megabytes=sum(value.nbytes for value in (*model.parameters(), *model.buffers())) / 1e6,
        stages=list(parts(model)),
        without_gradient=[name for name, value in model.named_parameters() if _lacks_gradient(value)],
        groups=_groups(model, groups),
        parts=list(_parts(model, shapes, lr)),
    )
    model.zero_grad(set_to_none=True)
    return anatomy


def _forward_and_backward(model: nn.Module, images: torch.Tensor) -> dict[str, list[int]]:
    """Leave gradients of a cross-entropy in the parameters; gives the shapes of the modules' outputs."""
    shapes: dict[str, list[int]] = {}

    def note(name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        if (tensor := _first_tensor(output)) is not None:
            shapes[name] = list(tensor.shape)

    hooks = [module.register_forward_hook(partial(note, name)) for name, module in model.named_modules()]
    try:
        logits = forward(model, Inputs(images))
    finally:
        for hook in hooks:
            hook.remove()
    wanted = torch.arange(len(images)) % logits.shape[1]
    # any loss has a gradient to look at, but for that of a single class
    loss = F.cross_entropy(logits, wanted) if logits.shape[1] > 1 else logits.square().mean()
    if loss.requires_grad:  # it does not where everything is frozen
        loss.backward()
    return shapes


def _first_tensor(output: object) -> torch.Tensor | None:
    """The output, or the first tensor in a tuple, list or dict of them."""
    if isinstance(output, torch.Tensor):
        return output
    values = output.values() if isinstance(output, dict) else output if isinstance(output, list | tuple) else ()
    return next((tensor for value in values if (tensor := _first_tensor(value)) is not None), None)


def _parts(model: nn.Module, shapes: dict[str, list[int]], lr: dict[int, float]) -> Iterator[Part]:
    for name, module in model.named_modules():
        depth = len(name.split(".")) if name else 0
        kind = type(module).__name__
        yield Part(name, depth, kind, shapes.get(name), **_of_parameters(list(module.parameters()), lr))
        if any(_count(child.parameters()) for child in module.children()):  # else the module's own line says it all
            for key, value in module.named_parameters(prefix=name, recurse=False):
                yield Part(key, depth + 1, PARAMETER, list(value.shape), **_of_parameters([value], lr))


def _of_parameters(values: list[nn.Parameter], lr: dict[int, float]) -> dict[str, Any]:
    """The fields of a part that depend on its parameters only."""
    trained = [value for value in values if value.requires_grad]
    gradients = [value.grad for value in trained if value.grad is not None]
    norm = math.hypot(*(float(value.double().norm()) for value in gradients))
    return {
        "parameters": _count(values),
        "trainable": _count(trained),
        "lr": sorted({lr[id(value)] for value in trained if id(value) in lr}),
        "gradient": norm if gradients and math.isfinite(norm) else None,
        "flaw": _flaw(trained, lr),
    }


def _flaw(trained: list[nn.Parameter], lr: dict[int, float]) -> str:
    without = sum(map(_lacks_gradient, trained))
    if without:
        return "no gradient" if without == len(trained) else f"no gradient: {without} of {len(trained)} tensors"
    if not all(value.grad.isfinite().all() for value in trained):
        return "gradient is no number"
    if lr and not all(id(value) in lr for value in trained):
        return "no learning rate"
    return ""


def _lacks_gradient(value: nn.Parameter) -> bool:
    return value.requires_grad and value.grad is None


def _groups(model: nn.Module, groups: list[dict[str, Any]]) -> list[Group]:
    names = {id(value): name for name, value in model.named_parameters()}
    return [
        Group([names[id(value)] for value in values], _count(values), _lr(group), group["weight_decay"])
        for group in groups
        for values in [group["params"]]
    ]


def _lr(group: dict[str, Any]) -> float:
    """Peak learning rate of a group; timm's schedulers multiply it by the scale of the group's layer."""
    return group["lr"] * group.get("lr_scale", 1.0)


def _count(values: Iterator[torch.Tensor] | Sequence[torch.Tensor]) -> int:
    return sum(value.numel() for value in values)


def outline(parts: Sequence[Part], most: int | None = None) -> list[Part]:
    """Stages and their blocks; only the stages, or only what holds them, where that would be too many parts.

    Args:
        most: parts that fit; None: any number does.
    """
    ways = ((LEVELS, True), (LEVELS, False), (1, False))  # the most first
    outlines = [list(_outline(parts, *way)) for way in ways]
    return next((shown for shown in outlines if most is None or len(shown) <= most), outlines[-1])


def _outline(parts: Sequence[Part], levels: int, opens: bool) -> Iterator[Part]:
    """So many levels; with `opens` what plain containers on them hold; no small parts without parameters."""
    opened = set()
    for part in parts:
        if part.depth > levels and part.name.rpartition(".")[0] not in opened:
            continue
        if opens and part.kind in CONTAINERS:
            opened.add(part.name)
        if part.parameters or (part.depth < LEVELS and part.kind != "Identity"):
            yield part
