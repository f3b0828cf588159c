"""Frozen features of every stage of a net, and the net that a linear probe on them makes.

On data unlike those of the pretraining the last layer has lost much of what separates the classes; earlier stages keep
it (Head2Toe, arXiv 2201.03529). Each stage's map is pooled to the mean and the standard deviation of every channel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from foldcraft import backbones
from foldcraft.errors import FoldcraftError, suggest
from foldcraft.heads import Heads

HEAD = "head"  # the stage that the classifier sees
MOST_STAGES = 4

Maps = dict[str, torch.Tensor]  # by stage: (B, C, H, W), or (B, C) what needs no pooling


@dataclass(frozen=True)
class Stage:
    """A stage by its name, and how many features it gives."""

    name: str
    width: int


class StageFeatures(nn.Module):
    """Pooled features of a net's last four stages and of what its classifier sees, side by side.

    Stages are those of `forward_intermediates` for timm's nets (of a ViT, four blocks spread evenly; its class token
    counts too), and for torchvision's the last modules at each resolution. The net's classifier is removed.

    Args:
        net: a classification net of timm or torchvision, pretrained or not.
        size: side of its input in pixels.

    Raises:
        FoldcraftError: the net gives no features of its stages.
    """

    def __init__(self, net: nn.Module, source: str, size: int) -> None:
        super().__init__()
        remove_classifier(net)
        self.net = net.eval()
        try:
            self._maps = _timm_maps(net, size) if source == "timm" else _torchvision_maps(net, size)
            with torch.no_grad():
                pooled = self._pooled(torch.zeros(1, 3, size, size))
        except (AttributeError, NotImplementedError, AssertionError, TypeError) as error:
            raise FoldcraftError(
                f"{type(net).__name__} gives no features of its stages: {error}", "backbone.name", "choose another"
            ) from None
        self.stages = tuple(Stage(name, features.shape[1]) for name, features in pooled.items())
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Prepared images (B, 3, size, size) to float32 (B, D), stage by stage."""
        return torch.cat(list(self._pooled(images).values()), dim=1)

    def _pooled(self, images: torch.Tensor) -> Maps:
        maps = self._maps(images)
        return {name: pool(features.float()) for name, features in maps.items()}


class ProbeNet(nn.Module):
    """A frozen net with one linear layer on the features of some of its stages."""

    def __init__(self, features: StageFeatures, chosen: Sequence[str], classes: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("columns", columns_of(features.stages, chosen), persistent=False)
        self.head = nn.Linear(len(self.columns), classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Prepared images (B, 3, size, size) to logits (B, K)."""
        with torch.autocast(images.device.type, enabled=False):  # as the head was solved
            return self.head(self.features(images.float())[:, self.columns])

    def set_head(self, heads: Heads) -> None:
        """Take over the first of some solved heads."""
        with torch.no_grad():
            self.head.weight.copy_(heads.weight[0])
            self.head.bias.copy_(heads.bias[0])


def choose_stages(stages: Sequence[Stage], wanted: str | Sequence[str]) -> list[str]:
    """Names of the stages that "all", "last" or a list of names means.

    Raises:
        FoldcraftError: no such stage; those that exist are listed.
    """
    known = [stage.name for stage in stages]
    if isinstance(wanted, str):
        return known if wanted == "all" else [HEAD]
    for name in wanted:
        if name not in known:
            raise FoldcraftError(f"no stage {name!r}", "probe.stages", suggest(name, known))
    return [name for name in known if name in wanted]


def columns_of(stages: Sequence[Stage], chosen: Sequence[str]) -> torch.Tensor:
    """Columns of the features that belong to the chosen stages."""
    first, columns = 0, []
    for stage in stages:
        if stage.name in chosen:
            columns.append(torch.arange(first, first + stage.width))
        first += stage.width
    return torch.cat(columns)


def pool(features: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation over the places of (B, C, H, W) as (B, 2 C); (B, C) stays."""
    if features.ndim == 2:
        return features
    std, mean = torch.std_mean(features.flatten(2), dim=2, correction=0)
    return torch.cat([mean, std], dim=1)


def remove_classifier(net: nn.Module) -> None:
    """Let the net end with what its classifier sees."""
    if hasattr(net, "reset_classifier"):
        net.reset_classifier(0)
        return
    for name in backbones.head_names(net):
        parent, _, child = name.rpartition(".")
        setattr(net.get_submodule(parent), child, nn.Identity())


def _timm_maps(net: nn.Module, size: int) -> Callable[[torch.Tensor], Maps]:
    with torch.no_grad():
        everything = _intermediates(net, torch.zeros(1, 3, size, size))[1]
    chosen = _spread([tuple(features.shape[2:]) for features, _ in everything])
    flat = len({tuple(features.shape[1:]) for features, _ in everything}) == 1
    kind = "block" if flat else "stage"

    def maps(images: torch.Tensor) -> Maps:
        final, found = _intermediates(net, images)
        result: Maps = {}
        for index in chosen:
            features, tokens = found[index]
            result[f"{kind}{index + 1}"] = features
            if tokens is not None and tokens.shape[1]:
                result[f"{kind}{index + 1}.token"] = tokens[:, 0]
        result[HEAD] = net.forward_head(final, pre_logits=True)
        return result

    return maps


def _intermediates(
    net: nn.Module, images: torch.Tensor
) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor | None]]]:
    """The last map, and each stage's with its class tokens (B, T, C) where there are any."""
    if getattr(net, "num_prefix_tokens", 0):
        final, found = net.forward_intermediates(images, return_prefix_tokens=True)
        return final, [tuple(item) for item in found]
    final, found = net.forward_intermediates(images)
    return final, [(item, None) for item in found]


def _spread(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Which stages to take: the last four resolutions, or four spread evenly where all have the same."""
    count = len(shapes)
    if len(set(shapes)) == 1 and count > MOST_STAGES:
        return [round((k + 1) * count / MOST_STAGES) - 1 for k in range(MOST_STAGES)]
    return list(range(max(0, count - MOST_STAGES), count))


def _torchvision_maps(net: nn.Module, size: int) -> Callable[[torch.Tensor], Maps]:
    classifier = backbones.head_names(net)[0]
    stages, channels_last = _torchvision_stages(net, size)
    nodes = {**stages, classifier: HEAD}
    extractor = create_feature_extractor(net, return_nodes=nodes)

    def maps(images: torch.Tensor) -> Maps:
        found = extractor(images)
        result: Maps = {}
        for name, features in found.items():
            if features.ndim == 3:  # tokens (B, T, C) of a transformer, the class token first
                result[name] = features[:, 1:].transpose(1, 2).unsqueeze(3)
                result[f"{name}.token"] = features[:, 0]
            else:
                result[name] = features.permute(0, 3, 1, 2) if name in channels_last else features
        return {name: result[name] for name in sorted(result, key=lambda name: name == HEAD)}

    return maps


def _torchvision_stages(net: nn.Module, size: int) -> tuple[dict[str, str], set[str]]:
    """Modules after which a stage ends, with the names of the stages; and those whose maps are (H, W, C), as Swin's."""
    shapes: dict[str, tuple[int, ...]] = {}

    def remember(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.ndim in (3, 4):
                shapes.pop(name, None)
                shapes[name] = tuple(output.shape[1:])

        return hook

    parts = [(name, module) for name, module in net.named_modules() if name and name.count(".") <= 2]
    handles = [module.register_forward_hook(remember(name)) for name, module in parts]
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, 3, size, size))
    finally:
        for handle in handles:
            handle.remove()
    blocks = [name for name in shapes if name.rpartition(".")[2].startswith("encoder_layer_")]
    if blocks:
        return {blocks[i]: f"block{i + 1}" for i in _spread([(1,)] * len(blocks))}, set()
    # The second number is a side both in (C, H, W) and in (H, W, C); of each side the last module counts.
    ends = {shape[1]: name for name, shape in shapes.items() if len(shape) == 3 and shape[1] > 1}
    chosen = {list(ends.values())[i]: f"stage{i + 1}" for i in _spread([(side,) for side in ends])}
    # Where a map has as many channels as places, the net's other maps tell which is which.
    clear = any(shape[0] == shape[1] != shape[2] for shape in shapes.values() if len(shape) == 3 and shape[1] > 1)
    return chosen, {chosen[name] for name in chosen if clear and shapes[name][0] == shapes[name][1]}
