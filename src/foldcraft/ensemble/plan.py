"""A fitted blend: from what its members say of any rows to the predictions that answers are taken of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from foldcraft.ensemble import tta_selection
from foldcraft.ensemble.decision_rules import Rule
from foldcraft.ensemble.methods import Combination


@dataclass(frozen=True)
class BlendMember:
    """One experiment's predictions.

    Attributes:
        predicted: (V, N, K), a view after the other.
        ways: to combine images to answers; there are all views for one, then all for the next.
    """

    name: str
    views: tuple[str, ...]
    predicted: np.ndarray
    ways: int = 1

    def rows(self, rows: np.ndarray) -> "BlendMember":
        """The same of some rows only."""
        return replace(self, predicted=self.predicted[:, rows])

    def left_out(self, fold: int) -> "BlendMember":
        """The same where a fold is judged; for members that are fitted on out-of-fold predictions."""
        return self


@dataclass(frozen=True)
class BlendPlan:
    """Everything that was fitted, ready for any rows of the same members.

    Attributes:
        views: a weight for each view of each member.
        combination: of the members.
        rule: from the blend to answers.
    """

    views: tuple[tuple[float, ...], ...]
    combination: Combination
    rule: Rule

    def apply(self, members: Sequence[BlendMember]) -> np.ndarray:
        """Predictions (N, W) of which `Target.answers` makes answers."""
        return self.rule.apply(self.blended(members))

    def blended(self, members: Sequence[BlendMember]) -> np.ndarray:
        """Predictions (N, W) before the decision rule."""
        space = self.combination.space
        averaged = [tta_selection.average(m.predicted, w, space) for m, w in zip(members, self.views, strict=True)]
        return self.combination.apply(averaged)
