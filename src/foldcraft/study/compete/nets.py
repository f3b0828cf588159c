"""The nets that there are, and how fast each is on this machine: what an action costs is reckoned from it."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from foldcraft.common import checksums
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, listing
from foldcraft.models import finetune, hardware
from foldcraft.models.inputs import Inputs
from foldcraft.predictions.feature_cache import frozen_features
from foldcraft.study.recipes import BATCH
from foldcraft.training import initialization
from foldcraft.training.initialization import SourceNet

SECONDS = 0.5  # that a net is timed for
IMAGES = 16  # a batch


@dataclass(frozen=True)
class Net:
    """A pretrained net.

    Attributes:
        transformer: does it attend?
        rate: images/s whose frozen features it gives, at the config's size.
        width: number of features of an image.
    """

    name: str
    transformer: bool
    rate: float
    width: int


def known_or_measured(
    config: Config, outputs: int, names: Sequence[str], seconds: float, memory: Path, callback: Callback
) -> list[Net]:
    """Build each net and time it, the fastest first; what is measured is kept in a file for the next run.

    One that cannot be had, or gives no features, is told and left out; so are those for which there is no time.

    Args:
        outputs: of a net.
        seconds: after which no further net is timed, but for the first one.

    Raises:
        FoldcraftError: none can be had.
    """
    asked = {"machine": hardware.this_machine(), "size": config.images.size}
    known = _recall(memory, asked)
    found = [known[name] for name in names if name in known]
    if missing := [name for name in names if name not in known]:
        found += _measure_all(config, outputs, missing, seconds, not found, callback)
        known |= {net.name: net for net in found}
        checksums.write_json(memory, {"asked": asked, "nets": [asdict(net) for net in known.values()]}, indent=1)
    return sorted(found, key=lambda net: -net.rate)


def _measure_all(
    config: Config, outputs: int, names: Sequence[str], seconds: float, must: bool, callback: Callback
) -> list[Net]:
    """As many as there is time for, of those that can be had; one at the least where there must be one."""
    found, errors, began = [], [], time.monotonic()
    with callback.progress("timing nets", len(names)) as advance:
        for place, name in enumerate(names):
            if (found or not must) and time.monotonic() - began > seconds:
                untimed = f"no time to try {listing(names[place:])}: timing nets may take {seconds:.0f} s"
                callback.say(f"warning: {untimed}; they are timed when the command goes on")
                break
            try:
                found.append(_measure(of_name(config, name), outputs))
            except FoldcraftError as error:
                errors.append(error)
                callback.say(f"warning: {name} is left out: {error}")
            advance(1)
    if must and not found:
        raise errors[0]
    return found


def _recall(memory: Path, asked: dict[str, Any]) -> dict[str, Net]:
    """The nets of an earlier run on the same machine, by name."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = checksums.read_json(memory)
        if kept["asked"] == asked:
            return {each["name"]: Net(**each) for each in kept["nets"]}
    return {}


def of_name(config: Config, name: str) -> Config:
    """The config of a probe with a backbone of that name; as it is where that is its own."""
    own = config if name == config.backbone.name else initialization.config_for(config, name)
    return own.model_copy(update={"finetune": own.finetune.model_copy(update={"mode": "linear_probe"})})


def training_rate(config: Config, outputs: int, name: str) -> float:
    """Images/s that a net is trained on at the config's size, every weight of it.

    It is no multiple of `Net.rate`: features are always computed in 32 bits, and training in 16 where that is faster.

    Args:
        outputs: of the net.
    """
    own = of_name(config, name)
    net = initialization.fresh_net(own, outputs)[0]
    return hardware.training_rate(own.machine, net, own.images.size, BATCH)


def _measure(config: Config, outputs: int) -> Net:
    source = SourceNet(*initialization.fresh_net(config, outputs), config)
    size = config.images.size
    net = source.frozen(size)
    images = torch.zeros(IMAGES, size, size, config.images.bands, dtype=torch.uint8)
    count, began = 0, time.perf_counter()
    while count < 2 * IMAGES or time.perf_counter() - began < SECONDS:
        if count == IMAGES:  # the first batch is for what is set up once
            began = time.perf_counter()
        frozen_features(net.features, Inputs(net.preparation(images)), net.hardware).sum().item()
        count += IMAGES
    rate = (count - IMAGES) / (time.perf_counter() - began)
    width = sum(stage.width for stage in net.stages)
    return Net(config.backbone.name, finetune.is_transformer(source.model), rate, width)
