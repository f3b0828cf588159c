"""Out-of-fold predictions of whatever experiments of a competition are finished."""

from dataclasses import dataclass

import numpy as np

from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.paths import FoldFolder
from foldcraft.data.competition import Competition
from foldcraft.predictions import store
from foldcraft.predictions.store import Predictions, join_folds, log_mean


@dataclass(frozen=True)
class Finished:
    """What finished experiments say of the training rows.

    Attributes:
        names: of the experiments.
        log_probs: their mean in log space, (N, K).
        left_out: why others are not among them.
    """

    names: list[str]
    log_probs: np.ndarray | None
    left_out: list[str]


def gather(config: Config, competition: Competition) -> Finished:
    """Every experiment of which all folds are done and whose rows, labels and groups are the competition's."""
    names, found, left_out = [], [], []
    for folder in sorted(
        {path.parent.parent for path in (config.runs / config.competition.name).glob("*/fold*/manifest.json")}
    ):
        try:
            joined = _joined([FoldFolder(path, -1) for path in sorted(folder.glob("fold*"))])
        except FoldcraftError as error:
            left_out.append(str(error))
            continue
        if (joined.origin.data, joined.origin.classes) != (competition.fingerprint, competition.classes.names):
            left_out.append(f"{folder.name} was trained on other rows, labels or groups")
        elif len(joined.ids) < len(competition.train_ids):
            left_out.append(f"{folder.name} has folds that are not trained yet")
        else:
            names.append(folder.name)
            found.append(log_mean(joined.of_rows(competition.train_ids)))
    return Finished(names, log_mean(np.stack(found)) if found else None, left_out)


def _joined(folders: list[FoldFolder]) -> Predictions:
    parts = [store.read(folder.oof) for folder in folders if folder.is_done]
    return join_folds(parts, parts[0].views)
