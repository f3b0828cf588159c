"""Does the audit know of a test set that is unlike the training rows? Then the out-of-fold score says less of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

TABLE, QUESTION, BY = "leaks.csv", "train or test", "frozen features"  # where adversarial validation is noted


@dataclass(frozen=True)
class Shift:
    """Test images can be told from training images by what a net sees.

    Attributes:
        auc: of telling them apart.
        chance: what whole groups of training rows, taken for a test set, reach.
    """

    auc: float
    chance: float

    @property
    def share(self) -> float:
        """Of the test rows that must lie where no training row does, at the least, over what chance gives.

        Two distributions that are a total variation t apart cannot be told apart better than with an area of
        1/2 + t - t^2 / 2 under the ROC curve, so an area A needs t = 1 - sqrt(2 - 2 A).
        """
        apart = [1 - np.sqrt(2 - 2 * np.clip(area, 0.5, 1)) for area in (self.auc, self.chance)]
        return float(max(apart[0] - apart[1], 0.0))

    @property
    def words(self) -> str:
        """What there is to say of it."""
        return (
            f"the audit found test images unlike training images (AUC {self.auc:.2f}, by chance {self.chance:.2f}): "
            f"the worse end allows for {self.share:.0%} of them answered as if unseen"
        )


def found_by_audit(folder: Path) -> Shift | None:
    """What the audit of a competition has found, in its folder; None: no shift, or no audit that looked for one."""
    try:
        table = pd.read_csv(folder / TABLE)
        own = table[(table["question"] == QUESTION) & (table["by"] == BY) & table["found"].astype(bool)]
        return Shift(float(own["auc"].iloc[0]), float(own["chance"].iloc[0])) if len(own) else None
    except (OSError, ValueError, KeyError):
        return None
