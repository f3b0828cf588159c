"""Frozen features of every block of a net, and the net that a linear probe on them makes.

On data unlike those of the pretraining the last layer has lost much of what separates the classes; earlier blocks keep
it (Head2Toe, arXiv 2201.03529). Each block's map is pooled to the mean and the standard deviation of every channel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

from foldcraft.common.errors import FoldcraftError, suggest
from foldcraft.models import backbones, blocks
from foldcraft.models.backbones import Blueprint
from foldcraft.models.batchnorm_folding import folded
from foldcraft.models.blocks import Maps, Watch
from foldcraft.models.inputs import channels_of
from foldcraft.models.linear_heads import Heads

HEAD = "head"  # what the classifier sees


@dataclass(frozen=True)
class Stage:
    """A block of a net, or what its classifier sees, by its name, and how many features it gives.

    Attributes:
        is_coarse: one of the few that stand for all where there are very many images.
        part: of a pool that it belongs to; empty where there is one.
    """

    name: str
    width: int
    is_coarse: bool = True
    part: str = ""

    def __str__(self) -> str:
        return f"{self.part}/{self.name}" if self.part else self.name


class StageFeatures(nn.Module):
    """Pooled features of every block of a net and of what its classifier sees, side by side.

    A transformer's class token counts as well. The net's classifier is removed, the net itself is shared.

    Args:
        net: a classification net of timm or torchvision, pretrained or not.
        size: side of the image that the net sees, in pixels; a larger one is reduced to it.

    Raises:
        FoldcraftError: the net gives no features of its blocks.
    """

    def __init__(self, net: nn.Module, size: int) -> None:
        super().__init__()
        remove_classifier(net)
        self.net, self.size = net.eval(), size
        try:
            self.blocks = blocks.find_blocks(net, size)
            with torch.no_grad():
                pooled = self._pooled(
                    torch.zeros(1, channels_of(net), size, size, device=next(net.parameters()).device)
                )
        except (AttributeError, NotImplementedError, AssertionError, TypeError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise FoldcraftError(
                f"{type(net).__name__} gives no features of its blocks: {reason}", "backbone.name", "choose another"
            ) from None
        few = {block.name for block in blocks.coarse(self.blocks)} | {HEAD}
        self.stages = tuple(
            Stage(name, features.shape[1], name.removesuffix(".token") in few) for name, features in pooled.items()
        )
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Prepared images (B, C, S, S), S at least `size`, to float32 (B, D), stage by stage."""
        return torch.cat(list(self._pooled(reduced(images, self.size)).values()), dim=1)

    def _pooled(self, images: torch.Tensor) -> Maps:
        with Watch(self.net, self.blocks) as found:
            last = self.net(images)
        return {**found, HEAD: last.float()}


@dataclass(frozen=True)
class Part:
    """One net at one size, of a pool.

    Attributes:
        net: its place among the pool's nets.
        mean, std: of each channel, for images scaled to [0, 1], as its weights want them.
        mirror: average its features with those of the mirror image.
    """

    net: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirror: bool = False


def parts_of(blueprints: Sequence[Blueprint], sizes: Sequence[int], mirror: bool) -> list[Part]:
    """Each net at each size; the mirror image is looked at in the smallest, where it costs least."""
    return [
        Part(k, size, blueprint.mean, blueprint.std, mirror and size == min(sizes))
        for k, blueprint in enumerate(blueprints)
        for size in sizes
    ]


class FeaturePool(nn.Module):
    """Features of one or more frozen nets, each at one or more sizes, side by side.

    Args:
        nets: classification nets; their classifiers are removed.
        parts: which net looks at which size; images come prepared for the first of them.
    """

    def __init__(self, nets: Sequence[nn.Module], parts: Sequence[Part]) -> None:
        super().__init__()
        self.nets, self.parts = nn.ModuleList(nets), tuple(parts)
        self.looks = [StageFeatures(nets[part.net], part.size) for part in parts]  # a list: the nets are kept once
        self.stages = stages_of([look.stages for look in self.looks], parts)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Prepared images (B, C, S, S) to float32 (B, D), part by part."""
        found = []
        for part, look in zip(self.parts, self.looks, strict=True):
            own = _renormalised(images, self.parts[0], part)
            found.append((look(own) + look(own.flip(3))) / 2 if part.mirror else look(own))
        return torch.cat(found, dim=1)

    def folded(self) -> "FeaturePool":
        """The same, faster, with BatchNorm folded into convolutions."""
        sizes = {part.net: part.size for part in self.parts}
        return FeaturePool([folded(net, sizes[k]) for k, net in enumerate(self.nets)], self.parts)

    def alone(self, place: int) -> "FeaturePool":
        """One part without the others, and without the mirror image."""
        part = self.parts[place]
        return FeaturePool([self.nets[part.net]], [replace(part, net=0, mirror=False)])


def stages_of(of_parts: Sequence[Sequence[Stage]], parts: Sequence[Part]) -> tuple[Stage, ...]:
    """The stages of several parts in a row, with names that tell them apart where there are several."""
    if len(parts) == 1:
        return tuple(of_parts[0])
    named = zip(parts, of_parts, strict=True)
    return tuple(replace(stage, part=f"{part.net}@{part.size}") for part, stages in named for stage in stages)


def reduced(images: torch.Tensor, size: int) -> torch.Tensor:
    """Images (B, C, S, S) at that size, as they are where they have it."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)


def _renormalised(images: torch.Tensor, given: Part, wanted: Part) -> torch.Tensor:
    """Images normalised with one mean and deviation as if with others."""
    if (given.mean, given.std) == (wanted.mean, wanted.std):
        return images
    mean, std, own_mean, own_std = (
        torch.tensor(values, device=images.device).view(1, -1, 1, 1)
        for values in (given.mean, given.std, wanted.mean, wanted.std)
    )
    return (images * std + mean - own_mean) / own_std


class ProbeNet(nn.Module):
    """Frozen nets with one linear layer on the features of some of their stages, and on metadata beside them.

    Args:
        beside: columns of metadata; where none are handed in they are 0.
    """

    def __init__(self, features: FeaturePool, chosen: Sequence[str], classes: int, beside: int = 0) -> None:
        super().__init__()
        self.features, self.chosen, self.beside = features, tuple(chosen), beside
        self.register_buffer("columns", columns_of(features.stages, chosen), persistent=False)
        self.head = nn.Linear(len(self.columns) + beside, classes)

    def forward(self, images: torch.Tensor, beside: torch.Tensor | None = None) -> torch.Tensor:
        """Prepared images (B, 3, size, size), and encoded metadata (B, d), to logits (B, K)."""
        with torch.autocast(images.device.type, enabled=False):  # as the head was solved
            seen = self.features(images.float())[:, self.columns]
            if self.beside:
                own = seen.new_zeros(len(seen), self.beside) if beside is None else beside.float()
                seen = torch.cat([seen, own], dim=1)
            return self.head(seen)

    def set_head(self, heads: Heads) -> None:
        """Take over the first of some solved heads."""
        with torch.no_grad():
            self.head.weight.copy_(heads.weight[0])
            self.head.bias.copy_(heads.bias[0])

    def folded(self) -> "ProbeNet":
        """The same, faster, with BatchNorm folded into convolutions."""
        made = ProbeNet(self.features.folded(), self.chosen, self.head.out_features, self.beside)
        made.head = self.head
        return made.eval()

    def alone(self, place: int) -> "ProbeNet":
        """What one part of the pool contributes to the logits, but for a constant."""
        features = self.features.alone(place)
        before = sum(len(look.stages) for look in self.features.looks[:place])
        first = sum(stage.width for stage in self.features.stages[:before])
        # Metadata are no part of what a net contributes.
        inside = (self.columns >= first) & (self.columns < first + sum(stage.width for stage in features.stages))
        whole = self.features.stages[before : before + len(features.stages)]
        names = [str(own) for own, stage in zip(features.stages, whole, strict=True) if str(stage) in self.chosen]
        made = ProbeNet(features, names, self.head.out_features)
        with torch.no_grad():
            made.head.weight.copy_(self.head.weight[:, : len(inside)][:, inside])
            made.head.bias.copy_(self.head.bias)
        return made.eval()


def choose_stages(stages: Sequence[Stage], wanted: str | Sequence[str]) -> list[str]:
    """The stages that "all", "coarse", "last" or a list of names means; a plain name means that of every net and size.

    Raises:
        FoldcraftError: no such stage; those that exist are listed.
    """
    if isinstance(wanted, str):
        meant = {"all": lambda _: True, "coarse": lambda stage: stage.is_coarse, "last": lambda s: s.name == HEAD}
        return [str(stage) for stage in stages if meant[wanted](stage)]
    known = {name for stage in stages for name in (stage.name, str(stage))}
    for name in wanted:
        if name not in known:
            plain = list(dict.fromkeys(stage.name for stage in stages))
            raise FoldcraftError(f"no stage {name!r}", "probe.stages", suggest(name, plain))
    return [str(stage) for stage in stages if stage.name in wanted or str(stage) in wanted]


def columns_of(stages: Sequence[Stage], chosen: Sequence[str]) -> torch.Tensor:
    """Columns of the features that belong to the chosen stages, named in full."""
    first, columns = 0, []
    for stage in stages:
        if str(stage) in chosen:
            columns.append(torch.arange(first, first + stage.width))
        first += stage.width
    return torch.cat(columns)


def remove_classifier(net: nn.Module) -> None:
    """Let the net end with what its classifier sees."""
    if hasattr(net, "reset_classifier"):
        net.reset_classifier(0)
        return
    for name in backbones.head_names(net):
        parent, _, child = name.rpartition(".")
        setattr(net.get_submodule(parent), child, nn.Identity())
