"""Which out-of-fold answers are wrong, the worst first, and where rather the label is to be doubted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foldcraft.data.targets.target import Target
from foldcraft.metrics.confident_learning import confident_classes


@dataclass(frozen=True)
class Mistake:
    """A row whose answer is not its truth.

    Attributes:
        row: its place among the rows that were judged.
        loss: how bad it is.
        sure, own: probability of the answer and of the label, of one label a row; else None.
        agree: how many members give the same answer, each by itself; None where no two answers are the same.
        doubtful: the label is, by confident learning.
    """

    row: int
    loss: float
    sure: float | None = None
    own: float | None = None
    agree: int | None = None
    doubtful: bool = False


def find_mistakes(
    answers: np.ndarray, predicted: np.ndarray, truth: np.ndarray, members: Sequence[np.ndarray] = ()
) -> list[Mistake]:
    """All wrong answers; the less probable the label, the earlier.

    Args:
        answers: class indices (N,).
        predicted: calibrated, out-of-fold (N, K).
        truth: class indices of the labels (N,).
        members: log-probabilities (N, K) of each member of the blend by itself.
    """
    is_confident, taken_for = confident_classes(np.exp(predicted), truth)
    doubted = is_confident & (taken_for != truth)
    # of a single label; `find_worst` is for the others
    agree = sum((member.argmax(1) == answers for member in members), start=np.zeros(len(truth), dtype=int))
    wrong = np.flatnonzero(answers != truth)
    worst = wrong[np.argsort(predicted[wrong, truth[wrong]], kind="stable")]
    of_answer, of_label = predicted[worst, answers[worst]], predicted[worst, truth[worst]]
    columns = (worst, -of_label, np.exp(of_answer), np.exp(of_label), agree[worst], doubted[worst])
    return [Mistake(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def find_worst(
    target: Target, answers: np.ndarray, calibrated: np.ndarray, truth: np.ndarray, members: Sequence[np.ndarray] = ()
) -> list[Mistake]:
    """Rows in which anything is wrong, where a row has more than one label; the greater the loss, the earlier.

    Args:
        answers: predictions (N, W) after the decision rule.
        calibrated: before it.
        truth: (N, ·).
        members: predictions (N, W) of each member of the blend by itself.
    """
    errors = np.nan_to_num(target.space.errors(answers, truth))
    losses = target.row_losses(calibrated, truth)
    wrong = np.flatnonzero((errors != 0).any(1))
    worst = wrong[np.argsort(-losses[wrong], kind="stable")].tolist()
    if not target.is_right_or_wrong:
        return [Mistake(row, float(losses[row])) for row in worst]
    said = target.answered(answers)
    agree = sum((target.answered(member) == said).all(1) for member in members) + np.zeros(len(truth), dtype=int)
    return [Mistake(row, float(losses[row]), agree=int(agree[row])) for row in worst]
