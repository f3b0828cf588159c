"""Which labels are probably wrong: confident learning on out-of-fold probabilities.

Northcutt, Jiang, Chuang: Confident Learning (JAIR 2021, arXiv 1911.00068). Written from the paper.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from foldcraft.data.targets.classes import Classes
from foldcraft.metrics.confident_learning import confident_classes
from foldcraft.study.audit.finding import Finding, ImageRef

TABLE = "label_errors.csv"


@dataclass(frozen=True)
class Suspicion:
    """How credible each row's label is.

    Attributes:
        suggested: class index (N,) of the likeliest class.
        self_confidence: probability (N,) of the given label.
        margin: that probability less the greatest of another class (N,), from -1 to 1.
        listed: mask (N,) of the rows whose label is probably wrong.
        joint: expected number (K, K) of rows with label i whose true class is j.
    """

    suggested: np.ndarray
    self_confidence: np.ndarray
    margin: np.ndarray
    listed: np.ndarray
    joint: np.ndarray

    @property
    def expected(self) -> float:
        """How many labels are wrong, as the calibrated joint has it."""
        return float(self.joint.sum() - np.trace(self.joint))


def judge(probabilities: np.ndarray, targets: np.ndarray) -> Suspicion:
    """Confident learning.

    A class's threshold is the mean probability that its own rows give it: a class that is recognised with less
    certainty needs less of it. A row counts towards the likeliest class whose threshold it reaches; the rows for which
    that is not their label (the confident joint's off-diagonal) say how many labels are wrong. Which ones is asked of
    their self-confidence: as many rows as that whose label has the least probability are listed. On planted errors
    that finds more, and with fewer false alarms, than listing the off-diagonal itself (docs/experiments.md).

    Args:
        probabilities: out-of-fold (N, K): a model that has learned from a label cannot doubt it.
        targets: class indices (N,) as given.
    """
    rows = np.arange(len(targets))
    own = probabilities[rows, targets]
    counted, class_of = confident_classes(probabilities, targets)
    number = int((counted & (class_of != targets)).sum())
    least = np.zeros(len(targets), bool)
    least[np.argsort(own, kind="stable")[:number]] = True
    others = probabilities.copy()
    others[rows, targets] = -1.0
    margin = own - others.max(1)
    joint = _joint(targets, class_of, counted, probabilities.shape[1])
    return Suspicion(probabilities.argmax(1), own, margin, least & (margin < 0), joint)


def _joint(targets: np.ndarray, class_of: np.ndarray, counted: np.ndarray, classes: int) -> np.ndarray:
    """The confident joint, calibrated so that its rows sum to the numbers of given labels (section 3.1)."""
    joint = np.zeros((classes, classes))
    np.add.at(joint, (targets[counted], class_of[counted]), 1)
    given = np.bincount(targets, minlength=classes)
    sums = joint.sum(1)
    joint[sums == 0, sums == 0] = 1.0
    return joint * (given / np.where(sums == 0, 1.0, sums))[:, None]


def table(suspicion: Suspicion, ids: np.ndarray, targets: np.ndarray, classes: Classes) -> pd.DataFrame:
    """The rows whose label is probably wrong, the worst first; score is its self-confidence."""
    order = np.flatnonzero(suspicion.listed)
    order = order[np.argsort(suspicion.self_confidence[order], kind="stable")]
    return pd.DataFrame(
        {
            "id": ids[order],
            "label": classes.decode(targets[order]),
            "suggested": classes.decode(suspicion.suggested[order]),
            "score": suspicion.self_confidence[order].round(6),
            "margin": suspicion.margin[order].round(6),
        }
    )


def find(listed: pd.DataFrame, suspicion: Suspicion, judge_name: str) -> list[Finding]:
    """What there is to say of labels that are probably wrong."""
    if listed.empty:
        return []
    rows = len(suspicion.margin)
    sentence = f"{len(listed)} of {rows} labels are probably wrong by {judge_name} ({suspicion.expected:.0f} expected)"
    image_rows = [[ImageRef("train", row.id, f"{row.label} > {row.suggested}")] for row in listed.itertuples()]
    hint = "look at them from the top and correct what is wrong in the CSV; many are only hard; nothing was changed"
    return [Finding("label_errors", "warning", len(listed), sentence, hint, TABLE, image_rows)]
