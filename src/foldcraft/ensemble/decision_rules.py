"""From probabilities to answers: rules fitted on out-of-fold predictions for what the metric rewards.

A rule gives predictions in the same space, of which `Target.answers` takes the likeliest class, or the labels that are
likelier than not. Rules of few numbers, held towards doing nothing: on some hundred rows a threshold a class fits the
noise of those very rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from foldcraft.common.fingerprint import seed_from
from foldcraft.metrics.bootstrap import bootstrap_labels, bootstrap_scores
from foldcraft.metrics.calibration import MOST_ROWS, fit_class_bias
from foldcraft.metrics.logits import log_softmax
from foldcraft.metrics.scores import Metric, get
from foldcraft.metrics.spaces import ClassSpace, LabelSpace, Space

DRAWS = 50  # bootstrap draws that a score is averaged over
STRENGTHS = np.linspace(0, 1.5, 31)  # of the prior's adjustment
HELD = 30.0  # rows that hold the bias of a class to none
EXPECTED = 1_000.0  # rows that the score counts for which probabilities expect, beside that of the labels
BAGS, ROUNDS = 10, 2
RIDGE = 1e-3  # score that a cut moved by one grade must earn
MOVES = np.linspace(-0.4, 0.4, 17)  # steps of one cut point, grades
SHARED_CUTS = 25  # that are tried for all labels together


class Rule(ABC):
    """What is done to predictions (N, W) before answers are taken of them."""

    name: ClassVar[str]

    @abstractmethod
    def apply(self, predicted: np.ndarray) -> np.ndarray:
        """Predictions (N, W) of which answers are taken."""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Argmax(Rule):
    """Nothing is done: the likeliest class is the best there is for accuracy, and what every other rule has to beat."""

    name: ClassVar[str] = "argmax"

    def apply(self, predicted: np.ndarray) -> np.ndarray:
        return predicted


@dataclass(frozen=True)
class ClassBias(Rule):
    """A number added to the log-probability of each class, `shift` (K,)."""

    name: ClassVar[str] = "bias a class"
    shift: tuple[float, ...]

    def apply(self, predicted: np.ndarray) -> np.ndarray:
        return log_softmax(predicted + np.array(self.shift), axis=1)


@dataclass(frozen=True)
class PriorAdjustment(ClassBias):
    """The share `tau` of the classes' log-frequencies is taken out (logit adjustment, arXiv 2007.07314).

    `shift` has what calibrates each class as well.
    """

    name: ClassVar[str] = "prior adjustment"
    tau: float = 0.0

    def __str__(self) -> str:
        return f"{self.name} {self.tau:.2f}"


@dataclass(frozen=True)
class Threshold(ClassBias):
    """The second of two classes is the answer from a probability of `threshold` on."""

    name: ClassVar[str] = "threshold"
    threshold: float = 0.5

    def __str__(self) -> str:
        return f"{self.name} {self.threshold:.3f}"


@dataclass(frozen=True)
class MinExpectedCost(Rule):
    """The class whose expected distance to the truth is least: squared for quadratic kappa, plain for the error."""

    name: ClassVar[str] = "least expected distance"
    power: int = 2

    def apply(self, predicted: np.ndarray) -> np.ndarray:
        place = np.arange(predicted.shape[1])
        return log_softmax(-np.exp(predicted) @ (np.abs(place[:, None] - place) ** self.power), axis=1)


@dataclass(frozen=True)
class CutPoints(Rule):
    """Grades by where the expected grade lies between cut points (K - 1,)."""

    name: ClassVar[str] = "cut points"
    cuts: tuple[float, ...]

    def apply(self, predicted: np.ndarray) -> np.ndarray:
        grades = np.arange(predicted.shape[1])
        expected = np.exp(predicted) @ grades
        known = [0.0, *self.cuts, float(grades[-1])]
        at = np.interp(expected, known, [0.0, *(np.arange(len(self.cuts)) + 0.5), float(grades[-1])])
        return log_softmax(-((at[:, None] - grades) ** 2), axis=1)

    def __str__(self) -> str:
        return f"{self.name} {' '.join(f'{cut:.2f}' for cut in self.cuts)}"


@dataclass(frozen=True)
class LabelThresholds(Rule):
    """A label is there from a log-odds of `cuts` (L,) on."""

    name: ClassVar[str] = "thresholds"
    cuts: tuple[float, ...]

    def apply(self, predicted: np.ndarray) -> np.ndarray:
        return predicted - np.array(self.cuts)

    def __str__(self) -> str:
        low, high = (f"{1 / (1 + np.exp(-cut)):.3f}" for cut in (min(self.cuts), max(self.cuts)))
        return f"threshold {low}" if low == high else f"{self.name} {low} to {high}"


@dataclass(frozen=True)
class HeadRules(Rule):
    """A rule for each of several labels, by their names, of which `slices` are the columns."""

    name: ClassVar[str] = "a rule a label"
    slices: tuple[slice, ...]
    rules: tuple[Rule, ...]
    labels: tuple[str, ...]

    def apply(self, predicted: np.ndarray) -> np.ndarray:
        parts = zip(self.slices, self.rules, strict=True)
        return np.concatenate([rule.apply(predicted[:, columns]) for columns, rule in parts], axis=1)

    def __str__(self) -> str:
        return "; ".join(f"{label}: {rule}" for label, rule in zip(self.labels, self.rules, strict=True))


@dataclass(frozen=True)
class AtPriors(Rule):
    """A rule at other class priors; `shift` (K,), added to log-probabilities, makes them of the learned ones."""

    name: ClassVar[str] = "class priors"
    shift: tuple[float, ...]
    rule: Rule

    def apply(self, predicted: np.ndarray) -> np.ndarray:
        return self.rule.apply(log_softmax(predicted + np.array(self.shift), axis=1))

    def __str__(self) -> str:
        return f"{self.name}, {self.rule}"


def fit(predicted: np.ndarray, truth: np.ndarray, units: np.ndarray, metric: Metric, space: Space) -> Rule:
    """The rule that the metric asks for, as strong as the rows bear.

    Args:
        predicted: predictions (N, W), of rows that nothing before was fitted on.
        truth: of the rows, as the space has it.
        units: what may be drawn independently of each other (N,).
    """
    some = slice(None, None, max(1, -(-len(truth) // MOST_ROWS)))
    rows = (predicted[some], truth[some], units[some])
    if isinstance(space, LabelSpace):
        return _label_thresholds(*rows, metric, space) if _wants_a_cut(metric) else Argmax()
    if not isinstance(space, ClassSpace) or (truth.ndim > 1 and not space.widths):
        return Argmax()
    return _head_rules(*rows, metric, space) if space.widths else _class_rule(*rows, metric)


def _wants_a_cut(metric: Metric) -> bool:
    """Are labels wanted? A score that takes long is not asked for thousands of thresholds."""
    return metric.wants == "labels" and metric.draws is None


def _class_rule(predicted: np.ndarray, truth: np.ndarray, units: np.ndarray, metric: Metric) -> Rule:
    """For one label."""
    rows = (predicted, truth, units)
    if metric.name == "f1":
        return _threshold(*rows, metric)
    if metric.name == "qwk":
        return _cut_points(*rows, metric)
    if metric.name == "ordinal_mae":
        return MinExpectedCost(power=1)
    if metric.name in ("macro_f1", "balanced_accuracy", "macro_recall"):
        return _prior_adjustment(*rows, metric)
    return Argmax()


def _prior_adjustment(predicted: np.ndarray, truth: np.ndarray, units: np.ndarray, metric: Metric) -> Rule:
    bias, calibrated = _calibrated(predicted, truth)
    prior = np.log(np.bincount(truth, minlength=predicted.shape[1]).clip(1) / len(truth))
    labels = [(calibrated - tau * prior).argmax(1) for tau in STRENGTHS]
    tau = STRENGTHS[_best(labels, np.exp(calibrated), truth, units, metric)]
    if not tau and np.array_equal(labels[0], predicted.argmax(1)):
        return Argmax()
    shift = tuple((bias - tau * prior).tolist())
    return PriorAdjustment(shift, float(tau)) if tau else ClassBias(shift)


def _calibrated(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A bias of each class (K,), and log-probabilities with it."""
    bias = fit_class_bias(predicted, truth, HELD)
    return bias, log_softmax(predicted + bias, axis=1)


def _threshold(predicted: np.ndarray, truth: np.ndarray, units: np.ndarray, metric: Metric) -> Rule:
    bias, calibrated = _calibrated(predicted, truth)
    odds = calibrated[:, 1] - calibrated[:, 0]
    cuts = np.unique([0.0, *np.quantile(odds, np.linspace(0.01, 0.99, 99))])
    cuts = cuts[np.argsort(np.abs(cuts), kind="stable")]
    labels = [(odds >= cut).astype(np.int64) for cut in cuts]
    cut = cuts[_best(labels, np.exp(calibrated), truth, units, metric)] - (bias[1] - bias[0])
    if np.array_equal(predicted[:, 1] - predicted[:, 0] >= cut, predicted.argmax(1)):
        return Argmax()
    return Threshold((0.0, float(-cut)), float(1 / (1 + np.exp(-cut))))


def _best(
    labels: Sequence[np.ndarray], probabilities: np.ndarray, truth: np.ndarray, units: np.ndarray, metric: Metric
) -> int:
    """Which answers are best, of equals the first: by their score and by the score that the probabilities expect.

    A few hundred labels say little of a rule, for rare classes are a handful of them. What calibrated probabilities
    expect hangs on all rows, and is wrong where these are. So both count, the labels the more of them there are
    (docs/experiments.md).

    Args:
        labels: answers of each rule (N,).
        probabilities: calibrated, (N, K).
    """
    drawn = bootstrap_labels(truth, labels, probabilities.shape[1], units, DRAWS)  # smooths what single rows make jump
    scores = np.concatenate([metric.of_confusion(counts) for counts in drawn], axis=1).mean(1)
    expected = np.array([metric.of_confusion(_expected_counts(said, probabilities)) for said in labels])
    return int((metric.sign * (len(truth) * scores + EXPECTED * expected)).argmax())


def _expected_counts(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How often each class, as the probabilities have it, is answered by each: (K, K), the true one first."""
    from scipy.sparse import csr_array  # a packed blend, which fits nothing, does without

    rows, classes = probabilities.shape
    said = csr_array((np.ones(rows), (labels, np.arange(rows))), shape=(classes, rows))
    return (said @ probabilities).T


def _gentlest_of(scores: np.ndarray, order: Sequence[int]) -> int:
    """The first, in `order`, that is not really worse than the best: less than one standard error of the difference.

    Args:
        scores: of bootstrap draws (P, R), more is better.
    """
    best = int(scores.mean(1).argmax())
    behind = scores[best] - scores
    return next(int(k) for k in order if behind[k].mean() <= behind[k].std())


def _head_rules(predicted: np.ndarray, truth: np.ndarray, units: np.ndarray, metric: Metric, space: ClassSpace) -> Rule:
    if metric.name not in ("macro_f1", "macro_recall"):
        return Argmax()
    own = get("macro_f1" if metric.name == "macro_f1" else "balanced_accuracy")
    rules = []
    for columns, labels in zip(space.slices, truth.T, strict=True):
        known = labels >= 0
        rules.append(_class_rule(predicted[known][:, columns], labels[known], units[known], own))
    if all(isinstance(rule, Argmax) for rule in rules):
        return Argmax()
    labels = tuple(space.names[own.start].partition("=")[0] for own in space.slices)
    return HeadRules(tuple(space.slices), tuple(rules), labels)


def _label_thresholds(log_odds: np.ndarray, truth: np.ndarray, units: np.ndarray, metric: Metric, space: Space) -> Rule:
    """A threshold a label where the metric is a mean over labels, else one for all."""
    if metric.name == "macro_f1":
        cuts = [_label_cut(odds, label, units) for odds, label in zip(log_odds.T, truth.T, strict=True)]
    else:
        cuts = [_shared_cut(log_odds, truth, units, metric, space)] * log_odds.shape[1]
    return LabelThresholds(tuple(cuts)) if any(cuts) else Argmax()


def _label_cut(odds: np.ndarray, label: np.ndarray, units: np.ndarray) -> float:
    """Of one label, for its F1."""
    known = ~np.isnan(label)
    both = np.stack([np.zeros(known.sum()), odds[known]], axis=1)
    rule = _threshold(both, label[known].astype(np.int64), units[known], get("f1"))
    return -rule.shift[1] if isinstance(rule, Threshold) else 0.0


def _shared_cut(log_odds: np.ndarray, truth: np.ndarray, units: np.ndarray, metric: Metric, space: Space) -> float:
    cuts = np.unique([0.0, *np.quantile(log_odds, np.linspace(0.02, 0.98, SHARED_CUTS))])
    said = [space.scored(log_odds - cut) for cut in cuts]
    scores = metric.sign * bootstrap_scores(metric, truth, said, units, DRAWS)
    return float(cuts[_gentlest_of(scores, np.argsort(np.abs(cuts), kind="stable"))])


def _cut_points(predicted: np.ndarray, truth: np.ndarray, units: np.ndarray, metric: Metric) -> Rule:
    """Cut points by coordinate ascent, averaged over bags of units; used where units outside the bags gain by them."""
    names, unit = np.unique(units, return_inverse=True)
    plain, gains, found = MinExpectedCost(), [], []
    for bag in range(BAGS):
        drawn = np.random.default_rng(seed_from("cuts", bag)).poisson(1.0, len(names))[unit].astype(np.float64)
        rule = CutPoints(_climb_cuts(predicted, truth, drawn, metric))
        found.append(rule.cuts)
        if (outside := drawn == 0).any():
            said = [np.exp(each.apply(predicted[outside])) for each in (rule, plain)]
            gains.append(metric.sign * (metric(truth[outside], said[0]) - metric(truth[outside], said[1])))
    if len(gains) < 2 or np.mean(gains) <= np.std(gains):
        return plain
    return CutPoints(tuple(np.mean(found, axis=0).tolist()))


def _climb_cuts(predicted: np.ndarray, truth: np.ndarray, weights: np.ndarray, metric: Metric) -> tuple[float, ...]:
    classes = predicted.shape[1]
    expected, start = np.exp(predicted) @ np.arange(classes), np.arange(classes - 1) + 0.5
    cuts = start.copy()
    for _ in range(ROUNDS):
        for k in range(classes - 1):
            tried = np.tile(cuts, (len(MOVES), 1))
            tried[:, k] = start[k] + MOVES
            said = np.stack([np.searchsorted(np.sort(each), expected, side="right") for each in tried])
            counts = [np.bincount(truth * classes + one, weights, classes**2) for one in said]
            scores = metric.sign * metric.of_confusion(np.reshape(counts, (-1, classes, classes)))
            cuts = np.sort(tried[(scores - RIDGE * MOVES**2).argmax()])
    return tuple(cuts.tolist())
