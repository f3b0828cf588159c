"""The blend of all finished experiments while more of them come: judged, kept where it is better, submitted.

An experiment that lacks folds is mixed into what is submitted where its rows say that this is better; it has no part in
what is judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from foldcraft.common.callbacks import Callback
from foldcraft.ensemble import blend, unfinished
from foldcraft.ensemble.best_so_far import BETTER, BestSoFar, Step
from foldcraft.ensemble.blend import Combined
from foldcraft.metrics.gain import REALLY, gain_in_loss
from foldcraft.predictions.finished import FinishedExperiment
from foldcraft.predictions.oof import OOF
from foldcraft.study.compete.worth import Belief
from foldcraft.submission import build

# Share of the loss that even mixtures with a first fold took off (docs/experiments.md).
EVEN_MIXTURE = Belief(0.20, 0.20)
Forecast = tuple[float, float, float]  # of the hidden score, with the ends of its interval


@dataclass(frozen=True)
class Judged:
    """What became of the blend with one more experiment.

    Attributes:
        gain: share of the loss that it takes off the blend before it; None where there was none.
        is_kept: does it take the place of the one that was kept?
        is_member: is the experiment in the blends that come? Not where it makes the blend really worse.
        forecast: of the blend's hidden score, the choice among blends taken in.
    """

    step: Step
    gain: Belief | None
    is_kept: bool
    is_member: bool
    forecast: Forecast | None


@dataclass
class BlendSoFar:
    """All finished experiments of a competition, and which blend of them is kept.

    Attributes:
        members: of the blends that come, in the order in which they came.
        kept: of the blend that is kept.
        unfinished: experiments that lack folds, by name.
    """

    members: list[FinishedExperiment] = field(default_factory=list)
    kept: list[FinishedExperiment] = field(default_factory=list)
    unfinished: dict[str, FinishedExperiment] = field(default_factory=dict, init=False)
    _kept_result: Combined | None = field(default=None, init=False)
    _last: np.ndarray | None = field(default=None, init=False)
    _best: BestSoFar | None = field(default=None, init=False)
    _rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64), init=False)

    @property
    def standing(self) -> dict[str, float]:
        """Nested score of what is kept, with its interval, and its loss; nothing before there is a blend."""
        if self._best is None:
            return {}
        score = self._best.score
        return {"score": score.value, "low": score.low, "high": score.high, "loss": self._best.loss}

    def take_up(self, found: Sequence[tuple[FinishedExperiment, bool, Step]]) -> None:
        """Go on from what earlier runs judged: each experiment, whether it is a member, and the step that it was."""
        if not found:
            return
        result = blend.combine([member for member, is_member, _ in found if is_member])
        for member, is_member, step in found:
            self._take(member, is_member, step, result)

    def judge(self, member: FinishedExperiment, callback: Callback) -> Judged:
        """Blend all that is there and one more, and see whether that is better."""
        members = [*self.members, member]
        blend.complete(members, callback)
        result = blend.combine(members)
        step = Step(result.selection.chosen.nested, result.selection.undecided)
        gain = self._gain(step, result)
        is_member = gain is None or gain.mean > -REALLY * gain.error
        is_kept = self._take(member, is_member, step, result)
        if is_kept:
            self._kept_result = result
        return Judged(step, gain, is_kept, is_member, self._forecast(result))

    def submit(self, part: FinishedExperiment | None, name: str, callback: Callback) -> str:
        """Write the submission of the blend that is kept, a part mixed in; where it is."""
        if self._kept_result is None:
            self._kept_result = blend.combine(self.kept)
        if part:
            blend.complete([part], callback)
        return str(build.submit_blend(self.kept, self._kept_result, name, callback, part=part).written.path)

    def gain_of_part(self, member: FinishedExperiment) -> Belief:
        """Share of the loss that an even mixture with an experiment takes off, on the rows of its finished folds."""
        return Belief(*unfinished.gain(member, self._rows, self._best.undecided))

    @property
    def mixed_in(self) -> FinishedExperiment | None:
        """Of the experiments that lack folds the one whose mixture with the blend gains most; None: none is better.

        The rows of a fold may be few; so what they say is taken together with what is known beforehand.
        """
        gains = {name: EVEN_MIXTURE.after([self.gain_of_part(member)]) for name, member in self.unfinished.items()}
        better = [name for name, gain in gains.items() if gain.mean > BETTER * gain.error]
        return self.unfinished[max(better, key=lambda name: gains[name].mean)] if better else None

    def _take(self, member: FinishedExperiment, is_member: bool, step: Step, result: Combined) -> bool:
        """Take a step in; whether its blend is kept."""
        if self._best is None:
            self._best, self._rows = BestSoFar(result.truth), result.rows
        self.unfinished.pop(member.name, None)
        tried = [*self.members, member]
        if is_kept := self._best.add(step):
            self.kept = tried
        if is_member:
            self.members, self._last = tried, step.undecided
        return is_kept

    def _gain(self, step: Step, result: Combined) -> Belief | None:
        if self._last is None:
            return None
        truth = result.truth
        loss = truth.space.loss(self._last, truth.targets, truth.weights)
        found = gain_in_loss(truth.space, truth.targets, step.undecided, self._last, truth.units)
        return Belief(found.value / loss, found.error / loss)

    def _forecast(self, result: Combined) -> Forecast | None:
        found, truth = result.forecast, result.truth
        if found is None:
            return None
        luck = truth.fold_wise_score(self._best.answers) - truth.fold_wise_score(result.selection.chosen.nested)
        value, low, high = (
            float(np.clip(one + luck, *truth.metric.bounds)) for one in (found.value, found.low, found.high)
        )
        return value, low, high


def loss_alone(found: OOF) -> float:
    """Proper loss of an experiment by itself, on its rows."""
    space = found.competition.space
    return space.loss(space.calibrated(found.mean, found.targets), found.targets)
