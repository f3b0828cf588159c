"""Of blends that come one after another, the one to submit, and the score that such a choice deserves.

The best of forty tries is partly luck. So the choice is made once on all rows, for the test set, and once more for
every fold on the rows of the other folds, for the score: each fold is judged by the blend that the others would have
kept.
"""

from dataclasses import dataclass, field

import numpy as np

from foldcraft.ensemble.nested import Labels, Score, elsewhere, is_judged_by_loss, score_of
from foldcraft.ensemble.nested import gain as gain_in_metric
from foldcraft.metrics.gain import Gain, gain_in_loss

BETTER = 0.5  # standard errors by which a blend must be better than the one before it (docs/experiments.md)


@dataclass(frozen=True)
class Step:
    """A blend as it was judged.

    Attributes:
        answers: nested (N, W).
        undecided: predictions (N, W) behind them, before any decision rule.
    """

    answers: np.ndarray
    undecided: np.ndarray


@dataclass
class BestSoFar:
    """The blend that is kept while others come.

    Attributes:
        truth: what all of them are judged by; the same rows for each.
        better: standard errors by which one must be better than the one that is kept.
        place: of the one that is kept, among all that came.
        answers: nested answers (N, W) of the choice, each fold's of what the other folds kept.
        undecided: the predictions behind them.
    """

    truth: Labels
    better: float = BETTER
    place: int = field(default=-1, init=False)
    answers: np.ndarray = field(default_factory=lambda: np.empty(0), init=False)
    undecided: np.ndarray = field(default_factory=lambda: np.empty(0), init=False)
    _count: int = field(default=0, init=False)
    _kept: dict[int | None, Step] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._rows = elsewhere(self.truth)

    @property
    def score(self) -> Score:
        """Of the choice, with its 95 % interval."""
        return score_of(self.answers, self.truth)

    @property
    def loss(self) -> float:
        """Proper loss of the choice."""
        return self.truth.space.loss(self.undecided, self.truth.targets, self.truth.weights)

    def add(self, step: Step) -> bool:
        """Look at one more; whether it is kept from now on. The first always is."""
        is_kept = False
        for part, rows in self._rows.items():
            before = self._kept.get(part)
            if before is None or self._is_better(self._gain(step, before, rows)):
                self._kept[part] = step
                if part is None:
                    is_kept, self.place = True, self._count
        self._count += 1
        self.answers, self.undecided = (self._nested(name) for name in ("answers", "undecided"))
        return is_kept

    def _is_better(self, gain: Gain) -> bool:
        return gain.value > self.better * gain.error

    def _gain(self, step: Step, before: Step, rows: np.ndarray) -> Gain:
        """In the proper loss, where the metric counts labels; else in the metric."""
        some = self.truth.rows(rows)
        if is_judged_by_loss(self.truth.metric):
            both = (step.undecided[rows], before.undecided[rows])
            return gain_in_loss(some.space, some.targets, *both, some.units)
        return gain_in_metric(step.answers[rows], before.answers[rows], some)

    def _nested(self, what: str) -> np.ndarray:
        found = np.empty_like(getattr(self._kept[None], what))
        for fold in np.unique(self.truth.fold):
            held = self.truth.fold == fold
            found[held] = getattr(self._kept[int(fold)], what)[held]
        return found
