"""Which out-of-fold answers are wrong, the worst first, and where rather the label is to be doubted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foldcraft.metrics.confident_learning import confident_classes


@dataclass(frozen=True)
class Mistake:
    """A row whose answer is not its label.

    Attributes:
        row: its place among the rows that were judged.
        said: class index of the answer.
        sure: probability of the answer.
        own: probability of the label.
        agree: how many members give the same answer, each by itself.
        doubtful: the label is, by confident learning.
    """

    row: int
    said: int
    sure: float
    own: float
    agree: int
    doubtful: bool


def find_mistakes(
    answers: np.ndarray, log_probs: np.ndarray, truth: np.ndarray, members: Sequence[np.ndarray] = ()
) -> list[Mistake]:
    """All wrong answers; the less probable the label, the earlier.

    Args:
        answers: class indices (N,).
        log_probs: calibrated, out-of-fold (N, K).
        truth: class indices of the labels (N,).
        members: log-probabilities (N, K) of each member of the blend by itself.
    """
    is_confident, taken_for = confident_classes(np.exp(log_probs), truth)
    doubted = is_confident & (taken_for != truth)
    agree = sum((member.argmax(1) == answers for member in members), start=np.zeros(len(truth), dtype=int))
    wrong = np.flatnonzero(answers != truth)
    worst = wrong[np.argsort(log_probs[wrong, truth[wrong]], kind="stable")]
    sure, own = np.exp(log_probs[worst, answers[worst]]), np.exp(log_probs[worst, truth[worst]])
    columns = (worst, answers[worst], sure, own, agree[worst], doubted[worst])
    return [Mistake(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
