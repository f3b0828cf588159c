"""What the mean of all fold models gains over one of them, found without a label.

An out-of-fold row is answered by one model, a test row by the mean of all, in log space where there are probabilities.
The loss of such a mean is the mean loss of its members minus their ambiguity, which no label has a part in (Krogh and
Vedelsby, NIPS 1994; of log-probabilities Heskes, Neural Computation 10, 1998). To have the gain in the competition's
metric a truth is drawn by what the mean says of the test rows, again and again; by it the mean is scored, and rows that
are answered by one model each. What the mean says is made so sure that single models have the loss that out-of-fold
rows have found: only then are as many of the drawn rows hard.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from foldcraft.common.errors import FoldcraftError
from foldcraft.ensemble.nested import BlendCandidate, BlendMember, BlendSelection, Labels
from foldcraft.metrics.spaces import Space

DRAWS = 50  # of the truth
MOST_ROWS = 4000  # of the test set that are looked at
TEMPERATURES = (0.1, 10.0)  # at which the mean is taken at its word


@dataclass(frozen=True)
class Averaging:
    """What averaging gains.

    Attributes:
        gain: in the metric: score of the mean minus score of single models, so below 0 where less is better.
        ambiguity: how much lower the proper loss of the mean is than the mean loss of single models.
        models: how many are averaged.
    """

    gain: float = 0.0
    ambiguity: float = 0.0
    models: int = 1


Members = Sequence[BlendMember]


def averaging(selection: BlendSelection, truth: Labels, mean: Members, by_fold: Sequence[Members]) -> Averaging:
    """What the mean of F fold models gains over one of them on rows that none has seen.

    Args:
        truth: of the out-of-fold rows that the blend was judged by.
        mean: what the means of the members' fold models say of rows that none has seen.
        by_fold: what the members' models of each fold say of them.
    """
    if len(by_fold) < 2 or not (count := mean[0].predicted.shape[1]):
        return Averaging()
    rows = np.arange(count)[:: -(-count // MOST_ROWS)]
    asked = [[one.rows(rows) for one in members] for members in (mean, *by_fold)]
    surest, space = _least_loss(selection, truth), truth.space
    pooled, *single = (surest.plan.blended(members) for members in asked)
    likely, errors = _as_hard(pooled, np.stack(single), surest.nested, truth)
    answer, *answers = (selection.chosen.plan.apply(members) for members in asked)
    gain = _gain(answer, np.stack(answers), likely, errors, truth)
    return Averaging(gain, ambiguity(space, pooled, np.stack(single)), len(single))


def ambiguity(space: Space, pooled: np.ndarray, single: np.ndarray) -> float:
    """Mean loss of single predictions (F, N, W) minus that of their pool (N, W), whatever the truth is."""
    return float(np.mean([space.expected_loss(one, pooled) for one in single]) - space.expected_loss(pooled, pooled))


def _least_loss(selection: BlendSelection, truth: Labels) -> BlendCandidate:
    """The blend that can best be taken at its word; one that is used for its ranks or labels need not be."""
    plain = [one for one in selection.candidates if not one.is_ruled]
    return min(plain, key=lambda one: truth.space.loss(one.nested, truth.targets, truth.weights))


def _as_hard(
    pooled: np.ndarray, single: np.ndarray, nested: np.ndarray, truth: Labels
) -> tuple[np.ndarray, np.ndarray]:
    """What makes rows as hard for single predictions (F, N, W) as out-of-fold rows were.

    Returns:
        What the truth is drawn by (N, W), and errors (n, ·) of which values are drawn, as `Space.drawn` takes them.
    """
    space, loss = truth.space, truth.space.loss(nested, truth.targets, truth.weights)
    errors = space.errors(nested, truth.targets).reshape(len(nested), -1)
    if space.form == "values":
        return pooled, errors * np.sqrt(max(1 - ambiguity(space, pooled, single) / max(loss, 1e-12), 0.0))

    def too_much(log_temperature: float) -> float:
        likely = space.at_temperature(pooled, np.exp(log_temperature))
        return float(np.mean([space.expected_loss(one, likely) for one in single])) - loss

    low, high = np.log(TEMPERATURES)
    if too_much(low) >= 0 or too_much(high) <= 0:
        return pooled, errors  # no sureness fits: rows of another kind
    return space.at_temperature(pooled, np.exp(brentq(too_much, low, high, xtol=1e-3))), errors


def _gain(answer: np.ndarray, answers: np.ndarray, likely: np.ndarray, errors: np.ndarray, truth: Labels) -> float:
    """What answers (N, W) score above those of single models (F, N, W): the mean over draws of the truth."""
    rng, gains = np.random.default_rng(0), []
    for _ in range(min(DRAWS, truth.metric.draws or DRAWS)):
        drawn = truth.space.drawn(likely, errors, rng)
        one = _by_single(answers, truth.metric.by_order, rng)
        gains.append(_score(truth, drawn, answer) - _score(truth, drawn, one))
    known = [gain for gain in gains if gain == gain]
    return float(np.mean(known)) if known else 0.0


def _by_single(answers: np.ndarray, by_order: bool, rng: np.random.Generator) -> np.ndarray:
    """Predictions (N, W) of (F, N, W): each row's by one model; all by the same where the order of rows counts."""
    if by_order:
        return answers[rng.integers(len(answers))]
    count = answers.shape[1]
    return answers[rng.integers(len(answers), size=count), np.arange(count)]


def _score(truth: Labels, drawn: np.ndarray, predicted: np.ndarray) -> float:
    try:
        return truth.metric(drawn, truth.space.scored(predicted))
    except FoldcraftError:
        if truth.metric.draws is None:
            raise
        return np.nan  # a host's own code may not score each truth, one without some class for instance
