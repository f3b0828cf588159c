"""Is B really better than A? On the same rows, by whole groups, and as strictly as many experiments ask for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from foldcraft.common.errors import FoldcraftError
from foldcraft.metrics.bootstrap import bootstrap_confusions, bootstrap_scores
from foldcraft.metrics.class_scores import class_scores, confusion
from foldcraft.metrics.intervals import unseen_errors
from foldcraft.metrics.metric import Metric
from foldcraft.metrics.parts import Part, parts_of
from foldcraft.metrics.spaces import Space

REPEATS = 2000
PART_REPEATS = 500  # draws for each label, head or column
LEVEL = 0.95
POWER = ndtri(0.975) + ndtri(0.8)  # 2.8 standard errors: shown in 80 % of cases by a two-sided test at 5 %
NOTHING = 1e-9  # differences below are rounding


@dataclass(frozen=True)
class ScoredRows:
    """What several experiments say of the rows that all of them have predicted; the first is the baseline.

    Attributes:
        space: the form of predictions.
        classes: names of the K classes, or of the labels, heads or columns.
        truth: class indices (N,), or as the space has it (N, ·).
        units: what may be drawn independently (N,): the group of each row, or its id.
        fold: fold of each row (N,).
        predicted: what the metric is given (N, K) of each of the P experiments.
        weights: how much each row counts in the score (N,); None: all alike.
        part: what one of `classes` is called.
        counted: how many rows there are, or answers of how many images.
    """

    names: tuple[str, ...]
    metric: Metric
    space: Space
    classes: tuple[str, ...]
    truth: np.ndarray
    units: np.ndarray
    fold: np.ndarray
    predicted: tuple[np.ndarray, ...]
    weights: np.ndarray | None = None
    part: str = "class"
    counted: str = ""


@dataclass(frozen=True)
class Correction:
    """How many standard errors above zero a difference must be to be called real, and by which rule."""

    factor: float
    rule: str


@dataclass(frozen=True)
class Difference:
    """How much better an experiment is than the baseline; positive is better, whatever the metric's direction.

    Attributes:
        low, high: 95 % interval, of this difference by itself.
        error: standard error.
        chance: share of the draws in which it is better, equal ones counted half.
        bound: one-sided 95 % lower bound, corrected for how many were tried.
        folds_better: number of folds in which its score is better.
        apart: answers other than the baseline's, one a row, of several labels or heads one each; None where an answer
            is not a label.
        baseline_right, right: how many of these the baseline and it get right.
    """

    name: str
    score: float
    value: float
    low: float
    high: float
    error: float
    chance: float
    bound: float
    folds_better: int
    apart: int | None
    baseline_right: int
    right: int

    @property
    def smallest(self) -> float:
        """The smallest true difference that rows like these would show in 80 % of cases."""
        return POWER * self.error

    @property
    def is_real(self) -> bool:
        """Is the corrected bound above zero?"""
        return self.bound > NOTHING

    @property
    def verdict(self) -> str:
        if self.is_real:
            return "better"
        return "worse" if self.high < -NOTHING else "cannot be told"


@dataclass(frozen=True)
class Comparison:
    """Every other experiment against the baseline.

    Attributes:
        baseline: the baseline's score.
    """

    baseline: float
    others: tuple[Difference, ...]
    strictness: Correction

    @property
    def best(self) -> Difference:
        return max(self.others, key=lambda other: other.value)


@dataclass(frozen=True)
class ClassChange:
    """What becomes of one class from the baseline to another experiment, by argmax.

    Attributes:
        rows: rows that are of the class.
        precision, recall, f1: (baseline, other).
        low, high: 95 % interval of the difference of F1, by itself.
    """

    name: str
    rows: int
    precision: tuple[float, float]
    recall: tuple[float, float]
    f1: tuple[float, float]
    low: float
    high: float

    @property
    def gain(self) -> float:
        return self.f1[1] - self.f1[0]


@dataclass(frozen=True)
class RankingTest:
    """Several experiments against the best of them, in the order they were given in; positive is better.

    Attributes:
        best: number of the one with the best score.
        scores: (P,).
        behind: difference to the best (P,).
        behind_low, behind_high: its 95 % interval, of this difference by itself (P,).
        error: its standard error (P,).
        is_worse: is it really worse than the best, paid for by all that are given (P,)?
        factor: of the standard errors that a difference must be larger than.
    """

    best: int
    scores: np.ndarray
    behind: np.ndarray
    behind_low: np.ndarray
    behind_high: np.ndarray
    error: np.ndarray
    is_worse: np.ndarray
    factor: float


def compare(answers: ScoredRows, tried: int | None = None, repeats: int = REPEATS, seed: int = 0) -> Comparison:
    """Each other experiment against the baseline, by a paired bootstrap of whole groups.

    Args:
        tried: of how many experiments, the baseline not counted, these others are the best; None: there were no more.

    Raises:
        FoldcraftError: fewer were tried than are compared.
    """
    metric, truth, predicted = answers.metric, answers.truth, answers.predicted
    scores = np.array([metric(truth, each, answers.weights) for each in predicted])
    drawn = bootstrap_scores(metric, truth, predicted, answers.units, repeats, seed, answers.weights)
    values, moved = metric.sign * (scores[1:] - scores[0]), metric.sign * (drawn[1:] - drawn[0])
    errors = moved.std(1)
    strictness = correction_for(values, moved, errors, tried)
    low, high = np.quantile(moved, [0.025, 0.975], axis=1)
    chance = (moved > NOTHING).mean(1) + (np.abs(moved) <= NOTHING).mean(1) / 2
    others = tuple(
        Difference(
            name=answers.names[k + 1],
            score=float(scores[k + 1]),
            value=float(values[k]),
            low=float(low[k]),
            high=float(high[k]),
            error=float(errors[k]),
            chance=float(chance[k]),
            bound=float(values[k] - strictness.factor * errors[k]),
            folds_better=_folds_better(answers, k + 1),
            **_discord(answers, k + 1),
        )
        for k in range(len(values))
    )
    return Comparison(float(scores[0]), others, strictness)


def correction_for(values: np.ndarray, moved: np.ndarray, errors: np.ndarray, tried: int | None = None) -> Correction:
    """The factor of the standard errors that gives lower bounds which hold for all M differences at once.

    By max-T (Westfall and Young 1993): the 95 % quantile of the largest standardised difference of a draw, so what the
    experiments have in common is not paid for twice. With single bounds the best of several would look better than it
    is (arXiv 2210.13206, which tilts the bootstrap where this standardises). Of experiments that are not here nothing
    can be drawn: Sidak's bound for that many independent ones stands in, where it is the stricter.

    Args:
        values: the differences (M,).
        moved: the differences of R draws (M, R).
        errors: their standard errors (M,).
        tried: as for `compare`.

    Raises:
        FoldcraftError: fewer were tried than are given.
    """
    given = len(values)
    if tried is not None and tried < given:
        raise FoldcraftError(f"{tried} is fewer than the {given} that are compared", "--tried", "the baseline aside")
    steps = np.divide(moved - values[:, None], errors[:, None], out=np.zeros_like(moved), where=errors[:, None] > 0)
    jointly = float(np.quantile(steps.max(0), LEVEL))
    sidak = float(-ndtri(-np.expm1(np.log(LEVEL) / (tried or given))))
    if (tried or given) == 1:
        return Correction(jointly, "no correction: one experiment was tried")
    if (tried or given) == given:
        return Correction(jointly, f"max-T: bounds that hold for all {given} together")
    if sidak > jointly:
        return Correction(sidak, f"Sidak's correction for the {tried} that were tried")
    return Correction(jointly, f"max-T over the {given} given, stricter here than Sidak's correction for {tried}")


def against_the_best(metric: Metric, scores: np.ndarray, drawn: np.ndarray, best: int | None = None) -> RankingTest:
    """Several experiments beside the best of them, and who is really worse.

    The best is picked by these very scores, so bounds that hold for all pairs at once are asked for: max-T (Westfall
    and Young 1993) over every pair, Tukey's range test by bootstrap. Among experiments that are all as good as each
    other, however many, any is called worse in about 5 % of cases (in 6 to 8 of 100 simulated, with few rows).

    Args:
        scores: of each (P,).
        drawn: of each in R bootstrap draws, all on the same (P, R).
        best: who is held to be the best, where that was found on other rows; left out: who is by `scores`.
    """
    best = int(np.argmax(metric.sign * scores)) if best is None else best
    moved = metric.sign * (drawn - drawn[best])
    behind, error = metric.sign * (scores - scores[best]), moved.std(1)
    behind_low, behind_high = np.quantile(moved, [0.025, 0.975], axis=1)
    factor = _of_all_pairs(scores, drawn)
    is_worse = behind + factor * error < -NOTHING
    return RankingTest(best, scores, behind, behind_low, behind_high, error, is_worse, factor)


def _of_all_pairs(scores: np.ndarray, drawn: np.ndarray) -> float:
    """The factor of the standard errors that gives bounds which hold for the differences of all pairs at once."""
    largest = np.zeros(drawn.shape[1])
    apart = drawn - scores[:, None]
    for k in range(len(scores) - 1):
        moved = apart[k + 1 :] - apart[k]
        errors = moved.std(1, keepdims=True)
        steps = np.divide(moved, errors, out=np.zeros_like(moved), where=errors > 0)
        largest = np.maximum(largest, np.abs(steps).max(0))
    return float(np.quantile(largest, LEVEL))


def _folds_better(answers: ScoredRows, k: int) -> int:
    metric, better = answers.metric, 0
    for fold in np.unique(answers.fold):
        rows = answers.fold == fold
        weights = None if answers.weights is None else answers.weights[rows]
        ours, theirs = (metric(answers.truth[rows], answers.predicted[n][rows], weights) for n in (0, k))
        better += metric.better(theirs, ours)
    return better


def _discord(answers: ScoredRows, k: int) -> dict[str, int | None]:
    """Answers in which the two differ, of what is known, and who is right there."""
    if answers.metric.wants != "labels":
        return {"apart": None, "baseline_right": 0, "right": 0}
    both = [answers.space.unscored(answers.predicted[n]) for n in (0, k)]
    wrong = [answers.space.errors(each, answers.truth) for each in both]
    ours, theirs = (answers.space.answered(each).reshape(wrong[0].shape) for each in both)
    apart = (ours != theirs) & ~np.isnan(wrong[0])
    right = [int((apart & (each == 0)).sum()) for each in wrong]
    return {"apart": int(apart.sum()), "baseline_right": right[0], "right": right[1]}


@dataclass(frozen=True)
class PartChange:
    """What becomes of one label, head or column from the baseline to another experiment.

    Attributes:
        rows: rows in which its truth is known.
        measures: of each by its name, (baseline, other); the first is the one that `gain` is of.
        gain: difference of the first; positive is better, whatever its direction.
        low, high: 95 % interval of the gain, by itself.
    """

    name: str
    rows: int
    measures: dict[str, tuple[float, float]]
    gain: float
    low: float
    high: float


def by_part(answers: ScoredRows, repeats: int = PART_REPEATS, seed: int = 0) -> Iterator[list[PartChange]]:
    """For each other experiment, every label, head or column of it against the baseline's; none of one label a row."""
    parts = parts_of(answers.space, answers.truth, answers.classes, answers.metric)
    drawn = []
    for part in parts:
        first, given = part.measures[0], [part.given(each) for each in answers.predicted]
        units = answers.units[part.rows]
        drawn.append(
            first.metric.sign * bootstrap_scores(first.metric, part.truth, given, units, repeats, seed)
            if part.suits(first)
            else np.full((len(given), 1), np.nan)
        )
    for k in range(1, len(answers.predicted)):
        yield [_changed(part, answers, k, scores[k] - scores[0]) for part, scores in zip(parts, drawn, strict=True)]


def _changed(part: Part, answers: ScoredRows, k: int, moved: np.ndarray) -> PartChange:
    pair = [answers.predicted[n] for n in (0, k)]
    measures = {one.name: tuple(part.score(one, each) for each in pair) for one in part.measures}
    first = part.measures[0]
    ours, theirs = measures[first.name]
    low, high = np.quantile(moved, [0.025, 0.975])
    return PartChange(part.name, len(part.rows), measures, first.metric.sign * (theirs - ours), float(low), float(high))


def by_class(answers: ScoredRows, repeats: int = REPEATS, seed: int = 0) -> Iterator[list[ClassChange]]:
    """For each other experiment, every class of it against the baseline's."""
    found = np.stack([class_scores(confusion(answers.truth, each)) for each in answers.predicted])
    chunks = bootstrap_confusions(answers.truth, answers.predicted, answers.units, repeats, seed)
    f1 = np.concatenate([class_scores(counts)[2] for counts in chunks], axis=1)
    rows = np.bincount(answers.truth, minlength=len(answers.classes))
    for k in range(1, len(found)):
        low, high = np.quantile(f1[k] - f1[0], [0.025, 0.975], axis=0)
        pairs = np.stack([found[0], found[k]]).transpose(1, 2, 0).tolist()
        yield [
            ClassChange(name, int(rows[c]), *(tuple(scores[c]) for scores in pairs), float(low[c]), float(high[c]))
            for c, name in enumerate(answers.classes)
        ]


@dataclass(frozen=True)
class ClassScore:
    """How well one class is told from the others, by argmax; each measure with its 95 % interval (value, low, high).

    Attributes:
        rows, said: rows that are of the class, and rows that were given it.
    """

    name: str
    rows: int
    said: int
    precision: tuple[float, float, float]
    recall: tuple[float, float, float]
    f1: tuple[float, float, float]


def each_class(
    truth: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    units: np.ndarray,
    repeats: int = 500,
    seed: int = 0,
) -> list[ClassScore]:
    """Every class's measures, with intervals from a bootstrap of whole groups.

    The lower end allows for half an error (of a whole group) that was not seen, as `intervals.bootstrap_interval` does:
    a class without a mistake among twenty rows is not known to be without any.

    Args:
        truth: class indices (N,).
        probabilities: (N, K).
        units: what may be drawn independently (N,).
    """
    counts = confusion(truth, probabilities)
    values = np.stack(class_scores(counts))
    drawn = np.concatenate([each[0] for each in bootstrap_confusions(truth, [probabilities], units, repeats, seed)])
    rng = np.random.default_rng([seed, 1])
    unseen = unseen_errors((len(drawn), len(counts)), units, rng)
    low, high = np.quantile(np.stack(class_scores(drawn)), [0.025, 0.975], axis=1)
    low = np.minimum(low, np.quantile(np.stack(class_scores(drawn, unseen)), 0.025, axis=1))
    found = np.stack([values, low, high], axis=-1).tolist()
    return [
        ClassScore(name, int(counts[k].sum()), int(counts[:, k].sum()), *(tuple(measure[k]) for measure in found))
        for k, name in enumerate(classes)
    ]


def error_correlation(space: Space, truth: np.ndarray, predicted: Sequence[np.ndarray]) -> np.ndarray:
    """How far experiments err alike: Pearson's correlation (P, P) of being wrong, or of errors of values and shares.

    Of several labels, heads or columns all together, each around its own mean. NaN where one of the two is never wrong.
    Members that err on different rows have the more to give to a blend.

    Args:
        truth: as the space has it.
        predicted: (N, W) of each of the P.
    """
    errors = np.stack([space.errors(each, truth) for each in predicted]).astype(np.float64)
    known = ~np.isnan(errors[0])
    errors = np.where(known, errors, 0)
    mean = errors.sum(1, keepdims=True) / np.maximum(known.sum(0), 1)
    centred = np.where(known, errors - mean, 0).reshape(len(errors), -1)
    norm = np.sqrt((centred**2).sum(1))
    scale = np.outer(norm, norm)
    return np.divide(centred @ centred.T, scale, out=np.full(scale.shape, np.nan), where=scale > 0)
