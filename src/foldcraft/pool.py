"""The pool of frozen nets that a competition is met with first: which sizes they see, and how the nets are made."""

from collections.abc import Sequence

from foldcraft import startingpoint
from foldcraft.config import Config
from foldcraft.errors import FoldcraftError
from foldcraft.probe import MOST_ROWS
from foldcraft.startingpoint import SourceNet
from foldcraft.workspace import Workspace

LARGER = 1.4  # the second size over the first: what one cannot see the other does, at three times the time of the first
STEP = 32  # sizes are multiples of it, so that nets which halve an image five times see all of it


def sizes(config: Config, rows: int) -> list[int]:
    """Sides at which the pool's nets see an image, in pixels: two, or one where there are very many rows."""
    if config.probe.sizes:
        return config.probe.sizes
    size = config.images.size
    return [size] if rows > MOST_ROWS else [size, max(size + STEP, STEP * round(LARGER * size / STEP))]


def config_of(config: Config, wanted: Sequence[int]) -> Config:
    """The config of a linear probe that sees images at these sizes."""
    return config.model_copy(
        update={
            "finetune": config.finetune.model_copy(update={"mode": "linear_probe"}),
            "images": config.images.model_copy(update={"size": max(wanted), "cache_size": None}),
            "probe": config.probe.model_copy(update={"sizes": list(wanted), "nets": []}),
        }
    )


def sources(works: Sequence[Workspace]) -> list[SourceNet]:
    """A net for each config of one competition, made for the pool's sizes, or for the first where one takes no other.

    Raises:
        FoldcraftError: a net cannot be made.
    """
    wanted = sizes(works[0].config, len(works[0].competition.targets))
    try:
        return [_source(work, wanted) for work in works]
    except FoldcraftError:
        if len(wanted) == 1:
            raise
        return [_source(work, wanted[:1]) for work in works]


def _source(work: Workspace, wanted: Sequence[int]) -> SourceNet:
    config = config_of(work.config, wanted)
    return SourceNet(*startingpoint.fresh_net(config, len(work.competition.classes)), config)
