"""The experiment that is to be checked, with its data and folds; read before torch is imported."""

from dataclasses import dataclass

from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.predictions import lineage
from foldcraft.predictions.experiment import Experiment
from foldcraft.study import make_folds


@dataclass(frozen=True)
class Opened:
    """An experiment as the checks find it.

    Attributes:
        folds_problem: what is wrong with its folds, for which others stand in then; "" where nothing is.
    """

    experiment: Experiment
    folds_problem: str = ""


def read(config: Config) -> Opened:
    """Read competition and folds.

    Raises:
        FoldcraftError: a soup; no folds yet; and all else that `Experiment.open` raises but folds that do not fit.
    """
    if lineage.soup_members(config):
        raise FoldcraftError(
            "is the mean of other experiments' weights, which is not trained", config.experiment, "check those"
        )
    try:
        return Opened(Experiment.open(config))
    except FoldcraftError as error:
        if error.where != config.folds_file or not config.folds_file.is_file():
            raise
        return Opened(make_folds.with_folds_unkept(config), str(error))
