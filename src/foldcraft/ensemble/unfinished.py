"""An experiment that lacks folds, mixed evenly into a blend: its nets may help long before all of them are there.

What it should count cannot be fitted yet, for it has predicted the rows of its own folds alone. So it counts as much as
the whole blend, at the temperature that suits those rows.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from foldcraft.common.errors import FoldcraftError, listing
from foldcraft.common.rows import positions
from foldcraft.ensemble import blend
from foldcraft.ensemble.blend import Combined
from foldcraft.metrics.gain import Gain, gain_in_loss
from foldcraft.predictions.finished import FinishedExperiment


def check(members: Sequence[FinishedExperiment], part: FinishedExperiment) -> None:
    """See that an experiment lacks folds, and that a blend of others has those that it has.

    Raises:
        FoldcraftError: it is not so.
    """
    if not part.missing_folds:
        raise FoldcraftError(f"{part.name} has all folds", "--mix-in", "name it with the others after --config")
    if lacking := [fold for fold in part.done_folds if any(fold in member.missing_folds for member in members)]:
        raise FoldcraftError(
            f"{part.name} has fold {listing(lacking)}, which the blend has not",
            "--mix-in",
            "train this fold of all experiments after --config",
        )


def gain(member: FinishedExperiment, rows: np.ndarray, undecided: np.ndarray) -> Gain:
    """Share of a blend's proper loss that the mixture takes off, on the rows of the folds that are finished.

    Args:
        rows: of the blend (N,), places among the training rows, or answers.
        undecided: what the blend says of them (N, W), nested, before any decision rule.
    """
    found = member.oof()
    space, truth = found.competition.space, found.targets
    before = undecided[positions(rows, found.rows)]
    mixture = space.pooled(np.stack([before, space.calibrated(found.mean, truth)]))
    seen, loss = gain_in_loss(space, truth, mixture, before, found.units), space.loss(before, truth)
    return Gain(seen.value / loss, seen.error / loss)


def mixed(result: Combined, member: FinishedExperiment) -> Combined:
    """The blend with its predictions of the test set mixed so; its scores stay those of the blend without.

    The blend's decision rule is kept. What the experiment predicts of the test set must be there (`blend.complete`).
    """
    found, said = member.oof(), member.test_answers()
    space = result.truth.space
    temperature = space.fit_temperature(found.mean, found.targets)
    own = space.at_temperature(space.pooled(said.predicted[: len(member.views)]), temperature)
    undecided = space.pooled(np.stack([result.undecided, own]))
    blind = np.isin(said.ids, [*result.blind, *said.baseline])
    answers = blend.decided(result.plan, undecided, blind, member.experiment.competition.answers.target.baseline())
    return replace(result, test=answers, undecided=undecided, blind=said.ids[blind], beside=0.5)
