"""Which labels are probably wrong: confident learning on out-of-fold probabilities; of values, large residuals.

Northcutt, Jiang, Chuang: Confident Learning (JAIR 2021, arXiv 1911.00068). Written from the paper.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.target import Target
from foldcraft.metrics.confident_learning import confident_classes
from foldcraft.metrics.spaces import Part
from foldcraft.study.audit.finding import Finding, ImageRef

TABLE = "label_errors.csv"
FAR = 4.0  # robust standard deviations from which on a residual is doubtful
NORMAL = 1.4826  # standard deviations of a normal distribution that its median absolute deviation is worth
YES_OR_NO = Classes(("0", "1"))


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


@dataclass(frozen=True)
class Doubts:
    """What is doubtful among the labels.

    Attributes:
        table: the worst first: id, label, suggested, score (the less, the more doubtful), margin; where several things
            are judged by themselves, also target: which of them.
        judged: how many labels were judged.
        expected: how many are wrong, as the calibrated joint has it; None where that cannot be said.
    """

    table: pd.DataFrame
    judged: int
    expected: float | None


def doubts(target: Target, predicted: np.ndarray, ids: np.ndarray) -> Doubts:
    """Doubtful labels of any kind of target, each of several labels or values by itself.

    Args:
        predicted: out-of-fold (N, W).
    """
    parts = target.space.parts(target.truth)
    several = len(parts) > 1
    found = [
        _of_part(target, name, part, predicted[part.rows, part.columns], ids[part.rows])
        for name, part in zip(target.heads if several else target.columns[:1], parts, strict=True)
        if len(part.rows)
    ]
    tables = [one.table.assign(target=name) if several else one.table for name, one in found]
    listed = pd.concat(tables, ignore_index=True).sort_values("score", kind="stable") if several else tables[0]
    if several:
        listed = listed[["id", "target", *(name for name in listed if name not in ("id", "target"))]]
    expected = [one.expected for _, one in found]
    whole = None if None in expected else float(sum(expected))
    return Doubts(listed.reset_index(drop=True), sum(one.judged for _, one in found), whole)


def _of_part(target: Target, name: str, part: Part, predicted: np.ndarray, ids: np.ndarray) -> tuple[str, Doubts]:
    if part.space.form == "values":
        return name, _residuals(predicted[:, 0], part.truth[:, 0], ids)
    said = part.space.scored(predicted.astype(np.float64))
    classes, truth = Classes(tuple(each.removeprefix(f"{name}=") for each in part.space.names)), part.truth
    if part.space.form == "labels":
        said, truth, classes = np.concatenate([1 - said, said], axis=1), truth[:, 0].astype(np.int64), YES_OR_NO
    elif truth.ndim > 1:
        truth = truth.argmax(1)  # of votes the class with the most
    suspicion = judge(said, truth)
    listed = table(suspicion, ids, truth, classes)
    if target.is_ordered:
        listed = _far_first(listed, classes)
    return name, Doubts(listed, len(ids), suspicion.expected)


def _far_first(listed: pd.DataFrame, classes: Classes) -> pd.DataFrame:
    """Grades that lie furthest from the suggested one first."""
    if listed.empty:
        return listed
    far = np.abs(classes.encode(listed["label"].tolist()) - classes.encode(listed["suggested"].tolist()))
    return listed.iloc[np.argsort(-far, kind="stable")].reset_index(drop=True)


def _residuals(predicted: np.ndarray, truth: np.ndarray, ids: np.ndarray) -> Doubts:
    """Values (n,) that lie far from what models say, by the median and the median absolute deviation of residuals."""
    residual = truth - predicted
    centre = np.median(residual)
    spread = NORMAL * np.median(np.abs(residual - centre))
    far = np.abs(residual - centre) / (spread or np.inf)
    order = np.argsort(-far, kind="stable")[: int((far > FAR).sum())]
    columns = {
        "id": ids[order],
        "label": [f"{value:.6g}" for value in truth[order]],
        "suggested": [f"{value:.6g}" for value in predicted[order]],
        "score": -far[order].round(6),
        "margin": residual[order].round(6),
    }
    return Doubts(pd.DataFrame(columns), len(ids), None)


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
    # of one label: a class a row
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


def find(doubtful: Doubts, judge_name: str) -> list[Finding]:
    """What there is to say of labels that are probably wrong."""
    listed = doubtful.table
    if listed.empty:
        return []
    if doubtful.expected is None:
        sentence = f"{len(listed)} of {doubtful.judged} values are more than {FAR:g} robust standard deviations from "
        sentence += f"what is expected by {judge_name}"
    else:
        sentence = f"{len(listed)} of {doubtful.judged} labels are probably wrong by {judge_name} "
        sentence += f"({doubtful.expected:.0f} wrong ones are expected, of which some cannot be told from right ones)"
    image_rows = [
        [ImageRef("train", row["id"], f"{row.get('target', '')} {row['label']} > {row['suggested']}".strip())]
        for _, row in listed.iterrows()
    ]
    hint = "look at them from the top and correct what is wrong in the CSV; many are only hard; nothing was changed"
    return [Finding("label_errors", "warning", len(listed), sentence, hint, TABLE, image_rows)]
