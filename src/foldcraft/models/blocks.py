"""The blocks of a net: which modules they are, and what each of them gives, pooled over the places of the image."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from foldcraft.models.hooks import listen

TINY = 1e-12  # a variance of 0 has no slope that Grad-CAM could follow
COARSE = 4  # blocks that stand for all where there are very many images
Maps = dict[str, torch.Tensor]  # by name: features (B, D)


@dataclass(frozen=True)
class Block:
    """A module whose output is looked at.

    Attributes:
        name: of the module in its net.
        side: places on a side of its map.
        layout: of its output: (B, C, H, W), (B, H, W, C) or tokens (B, T, C).
        prefix: tokens that are no place, the class token first.
    """

    name: str
    side: int
    layout: str
    prefix: int = 0

    def pool(self, output: torch.Tensor) -> Maps:
        """Mean and standard deviation of every channel over the places (B, 2 C), and the class token (B, C)."""
        if self.layout == "BCHW":
            output = output.permute(0, 2, 3, 1)
        places = output if self.layout == "BTC" else output.flatten(1, 2)
        found = {self.name: mean_and_std(places[:, self.prefix :].float())}
        return {**found, f"{self.name}.token": output[:, 0].float()} if self.prefix else found


def mean_and_std(places: torch.Tensor) -> torch.Tensor:
    """(B, P, C) to (B, 2 C); in two passes, as exact as `torch.std_mean` and eight times as fast."""
    mean = places.mean(1, keepdim=True)
    deviation = places - mean
    square = deviation.square() if deviation.requires_grad else deviation.square_()
    return torch.cat([mean[:, 0], square.mean(1).clamp_min(TINY).sqrt()], dim=1)


class Watch:
    """Collects the pooled output of some blocks while their net runs."""

    def __init__(self, net: nn.Module, blocks: Sequence[Block]) -> None:
        self.found: Maps = {}
        self.handles = [net.get_submodule(block.name).register_forward_hook(self._keep(block)) for block in blocks]

    def _keep(self, block: Block) -> Any:
        return lambda module, inputs, output: self.found.update(block.pool(_tensor(output)))

    def __enter__(self) -> Maps:
        return self.found

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


def find_blocks(net: nn.Module, size: int, names: Sequence[str] | None = None) -> list[Block]:
    """The blocks of a net, in the order in which an image of that size passes them.

    Args:
        names: of the modules that count as blocks; left out: as `block_names` has them.

    Raises:
        RuntimeError, AssertionError: the net does not take that size.
    """
    shapes = _output_shapes(net, block_names(net) if names is None else names, size)
    square = [shape[1:] for shape in shapes.values() if len(shape) == 4]
    # A map has two equal sides. Where it has as many channels as places, the net's other maps tell which is which.
    last = any(a == b != c for a, b, c in square) and not any(a != b == c for a, b, c in square)
    found = [_block(net, name, shape, last) for name, shape in shapes.items()]
    return [block for block in found if block]


def coarse(blocks: Sequence[Block]) -> list[Block]:
    """The last block at each of the last four resolutions, or four blocks spread evenly where all have the same."""
    if len({block.side for block in blocks}) == 1:
        count = len(blocks)
        return [blocks[round((k + 1) * count / COARSE) - 1] for k in range(COARSE)] if count > COARSE else list(blocks)
    return list({block.side: block for block in blocks}.values())[-COARSE:]


def block_names(net: nn.Module) -> list[str]:
    """Names of a net's blocks.

    timm's nets say themselves which modules are their blocks (`group_matcher`, which layer decay asks too). Of others
    they are what stands in plain lists along the trunk: modules of several layers, or else single layers, or else all
    that the net consists of.
    """
    named = _named_by_timm(net) if hasattr(net, "group_matcher") else []
    listed = list(_along_the_trunk(net))
    built = [name for name in listed if _is_built(net.get_submodule(name))]
    children = [name for name, child in net.named_children() if _is_built(child)]
    only_lists = all(_is_list(net.get_submodule(name)) for name in children)
    return named or built or (listed if only_lists else children)


def _named_by_timm(net: nn.Module) -> list[str]:
    groups = net.group_matcher(coarse=False)
    patterns = groups.get("blocks", []) if isinstance(groups, dict) else []  # some nets give a function
    texts = [patterns] if isinstance(patterns, str) else [pattern for pattern, _ in patterns]
    numbered = [pattern for pattern in map(re.compile, texts) if pattern.groups]
    names = [name for name, _ in net.named_modules()]
    return [name for name in names if any(pattern.fullmatch(name) for pattern in numbered)]


def _along_the_trunk(module: nn.Module, name: str = "") -> Iterator[str]:
    for child_name, child in module.named_children():
        place = f"{name}.{child_name}" if name else child_name
        if _is_list(child) or type(child).__name__.endswith("Encoder"):
            yield from _along_the_trunk(child, place)
        elif _is_list(module):
            yield place


def _is_list(module: nn.Module) -> bool:
    return type(module) in (nn.Sequential, nn.ModuleList)


def _is_built(module: nn.Module) -> bool:
    return any(True for _ in module.children())


def _output_shapes(net: nn.Module, names: Sequence[str], size: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def remember(name: str) -> Any:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if (tensor := _tensor(output)) is not None:
                shapes[name] = tuple(tensor.shape)

        return hook

    handles = [net.get_submodule(name).register_forward_hook(remember(name)) for name in names]
    listen(net, size, handles)
    return shapes


def _tensor(output: object) -> torch.Tensor | None:
    first = output[0] if isinstance(output, tuple | list) and output else output
    return first if isinstance(first, torch.Tensor) else None


def _block(net: nn.Module, name: str, shape: tuple[int, ...], channels_last: bool) -> Block | None:
    if len(shape) == 4:
        return Block(name, shape[1], "BHWC") if channels_last else Block(name, shape[2], "BCHW")
    if len(shape) != 3:
        return None
    tokens = shape[1]
    is_grid = int(tokens**0.5) ** 2 == tokens
    prefix = 0 if is_grid else getattr(net, "num_prefix_tokens", int(hasattr(net, "class_token")))
    return Block(name, int((tokens - prefix) ** 0.5), "BTC", prefix)
