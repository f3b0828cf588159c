"""By which settings a pack reads test rows."""

from collections.abc import Sequence

from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.data.competition import Competition
from foldcraft.metrics import host_metric
from foldcraft.metrics.catalogue import ENTRIES
from foldcraft.predictions.experiment import Experiment
from foldcraft.submission.pack.packed import Reading


def of(experiments: Sequence[Experiment]) -> tuple[list[Reading], list[int]]:
    """The settings by which rows are read, each once; and which of them each experiment's are."""
    found: list[Reading] = []
    places: list[int] = []
    for experiment in experiments:
        config = _readable(experiment.config, experiment.competition)
        known = next((k for k, one in enumerate(found) if one.config.competition == config.competition), None)
        if known is None:
            found.append(Reading(config, experiment.competition.tables.training_rows))
        places.append(len(found) - 1 if known is None else known)
    return found, places


def _readable(config: Config, data: Competition) -> Config:
    """The settings with a metric that needs no code of the host's, and asks for answers of the same form."""
    metric = data.metric
    if not host_metric.is_one(config.competition.metric):
        return config
    suits = [
        entry
        for entry in ENTRIES
        if data.target.kind in entry.kinds and entry.wants == metric.wants and entry.classes is None
    ]
    if not suits:
        what = "no metric of docs/metrics.md is written as the host's code wants it"
        raise FoldcraftError(what, "competition.metric")
    plain = next((entry for entry in suits if not entry.options or "k" not in entry.options), suits[0])
    names = config.competition.model_copy(update={"metric": plain.name})
    return config.model_copy(update={"competition": names})
