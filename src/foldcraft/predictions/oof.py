"""What an experiment's out-of-fold predictions are worth: the truth beside them, their score, the worst mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from foldcraft.common.errors import FoldcraftError
from foldcraft.data.competition import Competition
from foldcraft.metrics.intervals import bootstrap_interval
from foldcraft.predictions import store

OTHERS = "other classes"


@dataclass(frozen=True)
class Scorecard:
    """Rows that were predicted by models that never saw them.

    Attributes:
        rows: their places among the competition's training rows (N,).
        probabilities: (N, K), the normalised geometric mean over the views.
    """

    competition: Competition
    rows: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def of(cls, files: Sequence[Path], views: Sequence[str], competition: Competition) -> "Scorecard":
        """From the OOF files of some folds of one experiment.

        Raises:
            FoldcraftError: a file is missing or damaged, they do not belong together, or are of other data.
        """
        joined = store.join_folds([store.read(file) for file in files], views)
        if (joined.origin.data, joined.origin.classes) != (competition.fingerprint, competition.classes.names):
            raise FoldcraftError("was predicted for other ids, labels or groups", files[0], "train the fold again")
        place = {row: number for number, row in enumerate(competition.train_ids.tolist())}
        rows = np.array([place[row] for row in joined.ids.tolist()])
        return cls(competition, rows, np.exp(joined.mean(views)))

    @cached_property
    def truth(self) -> np.ndarray:
        """Class indices (N,)."""
        return self.competition.targets[self.rows]

    @property
    def predicted(self) -> np.ndarray:
        """The likeliest classes (N,)."""
        return self.probabilities.argmax(1)

    @cached_property
    def score(self) -> float:
        return self.competition.metric(self.truth, self.probabilities)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the score, by a bootstrap of whole groups."""
        units = self.competition.units[self.rows]
        return bootstrap_interval(self.competition.metric, self.truth, self.probabilities, units)

    def worst(self, most: int) -> np.ndarray:
        """Places of the wrong answers (M,), M at most `most`: those first whose true class seemed least likely."""
        wrong = np.flatnonzero(self.predicted != self.truth)
        of_truth = self.probabilities[wrong, self.truth[wrong]]
        return wrong[np.argsort(of_truth, kind="stable")[:most]]

    def labels(self, most: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """True and predicted class indices (N,) and the names of the classes, of which there are at most `most`.

        Where there are more, those with the fewest mistakes become one, so that a confusion matrix stays small.
        """
        names = list(self.competition.classes.names)
        if len(names) <= most:
            return self.truth, self.predicted, names
        wrong = self.predicted != self.truth
        mistakes = np.bincount(self.truth[wrong], minlength=len(names))
        mistakes += np.bincount(self.predicted[wrong], minlength=len(names))
        kept = np.sort(np.argsort(-mistakes, kind="stable")[: most - 1])
        new = np.full(len(names), most - 1)
        new[kept] = np.arange(most - 1)
        return new[self.truth], new[self.predicted], [*(names[k] for k in kept), OTHERS]
