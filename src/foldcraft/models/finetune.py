"""What of a net is trained, from when on, and how fast each part of it."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from typing import Any

import torch
from timm.models import group_parameters
from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from foldcraft.common.config import FinetuneConfig, OptimConfig
from foldcraft.common.errors import FoldcraftError, listing, suggest
from foldcraft.models import lora, metadata_head
from foldcraft.models.backbones import head_names
from foldcraft.models.inputs import Inputs, forward

# Layer-wise decay of the learning rate: deeper layers of a pretrained net hold more general features and change less.
# Transformers are customarily given more decay than CNNs (BEiT, arXiv 2106.08254; ConvNeXt, arXiv 2201.03545).
AUTO_LAYER_DECAY = {"transformer": 0.85, "cnn": 0.9}

# Classes of torch, timm and torchvision; asked of a module's bases too. timm's NormFreeBlock, for one, is no norm.
_NORM = re.compile(r"(batch|layer|group|instance|rms|response|simple|evo)norm")
_LAYER = 12  # parameters that make a layer of a net that does not say what its layers are; timm's number


def prepare(model: nn.Module, config: FinetuneConfig) -> None:
    """Put in what the mode adds to the net, and let nothing be trained but what the config asks for; in place.

    The head is always trained. Beside it, of what does not come before `freeze_until`: everything (full); scales of
    norms and all biases (norm; arXiv 2003.00152, 2106.10199); low-rank changes (lora); nothing (linear_probe). A net
    prepared twice is as if prepared once.

    Raises:
        FoldcraftError: no module is called `freeze_until`; LoRA finds nothing to change.
    """
    before = _before(model, config.freeze_until)
    if config.mode == "lora":
        heads = {name for name, _ in model.named_modules() if _in_head(model, name)}
        lora.insert(model, config.lora_rank, before | heads)
    _train_only(model, _trained(model, config))


def unfreeze_for_epoch(model: nn.Module, config: FinetuneConfig, epoch: int) -> None:
    """Gradual unfreezing (ULMFiT, arXiv 1801.06146): let what `prepare` chose be trained, as far as its turn has come.

    In epoch 0 the head is trained alone; the other layers join it at an even pace, those nearest to it first, and from
    epoch `unfreeze_epochs` on all are trained. Nothing but the arguments matters, so a training that is taken up again
    goes on alike.

    Args:
        model: a net that `prepare` has seen.
        epoch: the epoch that begins, from 0.
    """
    chosen = _trained(model, config)
    if epoch < config.unfreeze_epochs:
        depth, names = depths(model), lora.plain_names(model)
        trunk = {name for name in chosen if not _in_head(model, names[name])}
        layers = sorted({depth[name] for name in trunk}, reverse=True)
        free = set(layers[: len(layers) * epoch // config.unfreeze_epochs])
        chosen -= {name for name in trunk if depth[name] not in free}
    _train_only(model, chosen)


def _train_only(model: nn.Module, chosen: set[str]) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
        if name not in chosen:
            parameter.grad = None  # AdamW leaves alone, weight decay included, what has no gradient; zero is one


def _trained(model: nn.Module, config: FinetuneConfig) -> set[str]:
    """Names of the parameters that are trained once all have thawed."""
    before, names = _before(model, config.freeze_until), lora.plain_names(model)
    wanted = {
        "full": names.keys,
        "norm": lambda: _norms_and_biases(model),
        "lora": lambda: lora.changes(model),
        "linear_probe": set,
    }[config.mode]()
    return {
        name
        for name, plain in names.items()
        if _in_head(model, plain) or (name in wanted and lora.owner(plain) not in before)
    }


def _in_head(model: nn.Module, name: str) -> bool:
    """Is the module or parameter of that name a classifier, or in one?"""
    heads = [*head_names(model), *([metadata_head.NAME] if metadata_head.takes_metadata(model) else [])]
    return any(name == head or name.startswith(f"{head}.") for head in heads)


def _norms_and_biases(model: nn.Module) -> set[str]:
    return {
        f"{name}.{parameter}" if name else parameter
        for name, module in model.named_modules()
        for parameter, _ in module.named_parameters(recurse=False)
        if parameter.endswith("bias") or _is_norm(module)
    }


def _is_norm(module: nn.Module) -> bool:
    return any(_NORM.search(base.__name__.lower()) for base in type(module).__mro__)


def _before(model: nn.Module, point: str | None) -> set[str]:
    """Names of the modules whose own parameters precede those of the module `point`.

    Raises:
        FoldcraftError: there is no such module, or it holds no parameter.
    """
    if not point:
        return set()
    modules = dict(model.named_modules())
    if point not in modules or not any(True for _ in modules[point].parameters()):
        known = list(parts(model))
        close = suggest(point, known)
        parts_known = f"known: {listing(known, 20)}"  # in the net's order
        advice = [close, parts_known] if close.startswith("did") else [parts_known]
        raise FoldcraftError(
            f"{type(model).__name__} has no module {point!r}", "finetune.freeze_until", "; ".join(advice)
        )
    names = list(modules)
    return set(names[: names.index(point)])


def parts(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """Names of the modules that one would freeze a net up to: its children and theirs, and what stands in a row."""
    for name, child in module.named_children():
        if any(True for _ in child.parameters()):
            yield f"{prefix}{name}"
            if not prefix or isinstance(child, nn.Sequential | nn.ModuleList):
                yield from parts(child, f"{prefix}{name}.")


def is_transformer(model: nn.Module) -> bool:
    """Does the net hold attention over tokens?"""
    return any("attention" in type(module).__name__.lower() for module in model.modules())


def layer_decay(config: FinetuneConfig, model: nn.Module, pretrained: bool) -> float:
    """Learning rate of a layer over that of the next layer towards the head."""
    if config.layer_decay != "auto":
        return config.layer_decay
    if not pretrained:
        return 1.0
    return AUTO_LAYER_DECAY["transformer" if is_transformer(model) else "cnn"]


def depths(model: nn.Module) -> dict[str, int]:
    """The layer of each parameter, by its name: 0 the stem, the largest the head; LoRA changes none of them."""
    matcher = model.group_matcher(coarse=False) if hasattr(model, "group_matcher") else _by_number(model)
    return group_parameters(model, matcher, reverse=True)


def _by_number(model: nn.Module) -> Callable[[str], float]:
    """Layers of a net that does not name them (torchvision's): so many parameters each, and the head."""
    names = lora.plain_names(model)
    trunk = dict.fromkeys(plain for plain in names.values() if not _in_head(model, plain))
    layer = {plain: number // _LAYER for number, plain in enumerate(trunk)}
    return lambda name: layer.get(names[name], float("inf"))


def create_optimizer(
    model: nn.Module, finetune: FinetuneConfig, optim: OptimConfig, pretrained: bool, scaled: bool = False
) -> Optimizer:
    """AdamW of what is trained, with layer decay; biases and norms are not decayed.

    All that is ever to be trained must be so now: call it after `prepare` and before `unfreeze_for_epoch`.

    Args:
        scaled: gradients are scaled, as fp16 needs it on a GPU; a fused step would undo that itself, too late to clip.
    """
    groups = _groups(model, layer_decay(finetune, model, pretrained), optim.weight_decay)
    # Unless it is told to take them together, torch steps through one parameter after another on a processor, and on a
    # GPU through several passes over all of them.
    device = next(model.parameters()).device.type
    fused = device == "cpu" or (device == "cuda" and not scaled)
    more = {"fused": True} if fused else {}
    return create_optimizer_v2(groups, opt="adamw", lr=optim.lr, weight_decay=optim.weight_decay, **more)


def _groups(model: nn.Module, decay: float, weight_decay: float) -> list[dict[str, Any]]:
    """Trained parameters by learning rate (`lr_scale`, which timm's schedules mind) and weight decay."""
    depth, names = depths(model), lora.plain_names(model)
    deepest = max(depth.values())
    spared = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim <= 1 or any(fnmatch(names[name], pattern) for pattern in spared)
            key = (decay ** (deepest - depth[name]), 0.0 if plain else weight_decay)
            group = groups.setdefault(key, {"params": [], "lr_scale": key[0], "weight_decay": key[1]})
            group["params"].append(parameter)
    return list(groups.values())


def train_mode(model: nn.Module, finetune: FinetuneConfig) -> None:
    """Training mode, with BatchNorm left in evaluation mode where its statistics are frozen.

    That is everywhere where the config says so or the mode trains no norm, and else in the layers that are frozen or
    have not thawed yet.
    """
    model.train()
    learning = learning_norms(model, finetune)
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            module.train(name in learning)


def learning_norms(model: nn.Module, finetune: FinetuneConfig) -> list[str]:
    """Names of the BatchNorms whose statistics follow the batches."""
    if finetune.batchnorm != "train" or finetune.mode not in ("full", "norm"):
        return []
    before = _before(model, finetune.freeze_until)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        and name not in before
        and all(value.requires_grad for value in module.parameters(recurse=False))
    ]


def adapt_batchnorm(model: nn.Module, batches: Iterable[Inputs]) -> bool:
    """Measure the statistics of all BatchNorms anew (AdaBN, arXiv 1603.04779); leaves the net in evaluation mode.

    Means and variances of the batches are averaged, each batch counting the same. Nothing else acts as in training:
    no dropout, no gradient.

    Args:
        batches: what enters the net; a batch of one is passed over, having no variance.

    Returns:
        Whether the net has BatchNorms with statistics; if not, no batch is asked for.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return False
    measure(model, norms, batches)
    return True


def measure(model: nn.Module, norms: Sequence[_BatchNorm], batches: Iterable[Inputs]) -> None:
    """Measure the statistics of `norms` anew, as `adapt_batchnorm` does with all of them."""
    model.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the plain average over batches
        norm.training = True  # not .train(): a norm with an activation may hold a dropout
    try:
        with torch.no_grad():
            for inputs in batches:
                if len(inputs) > 1:
                    forward(model, inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()


def plain_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict that an unprepared net loads to compute the same: LoRA is merged into the weights.

    The model itself is left as it is.
    """
    return lora.plain_state(model)
