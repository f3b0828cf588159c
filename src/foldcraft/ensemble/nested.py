"""A blend and the score it deserves.

Whatever is fitted on out-of-fold predictions (which views to average, temperatures, weights, a decision rule) makes
their score look better than it is. So all of it is fitted once more for every fold, on the rows of the other folds, and
the fold is judged by that: the nested score. Groups lie whole in one fold, so they stay whole here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from foldcraft.common.errors import FoldcraftError
from foldcraft.ensemble import decision_rules, tta_selection
from foldcraft.ensemble.constraints import Constraints, Obeying
from foldcraft.ensemble.decision_rules import Argmax
from foldcraft.ensemble.methods import METHODS, Best, Calibrated, Method, Stacking
from foldcraft.ensemble.plan import BlendMember, BlendPlan
from foldcraft.metrics.gain import Gain, gain_in_loss, gain_in_score
from foldcraft.metrics.intervals import bootstrap_interval
from foldcraft.metrics.scores import Metric
from foldcraft.metrics.spaces import Space

STACKING_UNITS = 200  # from which on stacking is tried
Plain = Mapping[int | None, Sequence[bool]]  # whose views are left out: of each member, by held-out fold; None: of all


@dataclass(frozen=True)
class Labels:
    """What members are judged by.

    Attributes:
        targets: the truth of each row (N,) or (N, ·), as `space` has it.
        fold, units: of each row (N,).
        space: of the predictions.
        weights: how much each row counts in the score (N,); None: all alike.
        constraints: what is known of answers beforehand.
    """

    targets: np.ndarray
    fold: np.ndarray
    units: np.ndarray
    metric: Metric
    space: Space
    weights: np.ndarray | None = None
    constraints: Constraints | None = None

    def rows(self, rows: np.ndarray) -> "Labels":
        """The same of some rows only."""
        weights = None if self.weights is None else self.weights[rows]
        return replace(self, targets=self.targets[rows], fold=self.fold[rows], units=self.units[rows], weights=weights)

    def score(self, predicted: np.ndarray) -> float:
        """Of predictions (N, W), in the metric."""
        return self.metric(self.targets, self.space.scored(predicted), self.weights)

    def fold_wise_score(self, predicted: np.ndarray) -> float:
        """The same, but the mean over folds where the order of rows alone counts."""
        if not self.metric.by_order:
            return self.score(predicted)
        own = [np.flatnonzero(self.fold == fold) for fold in np.unique(self.fold)]
        return float(np.nanmean([self.rows(rows).score(predicted[rows]) for rows in own]))


@dataclass(frozen=True)
class Score:
    """A score with its 95 % interval (bootstrap over whole groups)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class BlendCandidate:
    """A blending method, and how it does.

    Attributes:
        is_ruled: a decision rule was fitted, though it may have turned out to do nothing.
        nested: log-probabilities (N, K) of each row by what was fitted on the other folds.
        plan: fitted on all rows.
        optimistic: score of the plan on the very rows it was fitted on.
    """

    name: str
    nested: np.ndarray
    score: Score
    plan: BlendPlan
    optimistic: float
    is_ruled: bool = False

    @property
    def decides(self) -> bool:
        """Does it take anything but the likeliest class?"""
        return not isinstance(self.plan.rule, Argmax)


@dataclass(frozen=True)
class BlendSelection:
    """What to submit and why.

    Attributes:
        chosen: the candidate that is used; its nested answers are, fold by fold, of what the other folds would choose.
        candidates: simplest first.
        members: each alone, in the order they were given.
        views_gain: what the chosen views give each member over the image as it is, nested, with its standard error.
        words: reasons, a line each.
        undecided: predictions (N, W) behind the nested answers, before any decision rule.
    """

    chosen: BlendCandidate
    candidates: list[BlendCandidate]
    members: list[BlendCandidate]
    views_gain: list[tuple[float, float]]
    words: list[str]
    undecided: np.ndarray

    @property
    def before_rule(self) -> BlendCandidate:
        """The chosen way as it is before its decision rule."""
        chosen = self.chosen.plan.combination
        return next(one for one in _ways(self.candidates)[0] if one.plan.combination is chosen)

    @property
    def worth_showing(self) -> list[BlendCandidate]:
        """Candidates that are neither a member once more nor a rule that turned out to do nothing."""
        alone = len(self.members) == 1
        return [one for one in self.candidates if one.decides or not (alone or one.is_ruled)]


def methods_for(truth: Labels) -> list[Method]:
    """The blending methods that are tried, simplest first.

    The best single member is none of them: on few rows it is mostly the luckiest one. Nor is stacking where units are
    few, whose pool of logarithms may be wide of the mark on groups like none of these (docs/experiments.md).
    """
    found = [method() for method in METHODS.values() if method.suits(truth.metric) and method is not Best]
    units = len(np.unique(truth.units))
    return [method for method in found if units >= STACKING_UNITS or not isinstance(method, Stacking)]


def judge(members: Sequence[BlendMember], truth: Labels, methods: Sequence[Method] | None = None) -> BlendSelection:
    """Fit all blending methods, score them, and say which is used.

    Views, a way and a rule whose nested gain is really negative (`is_really_worse`) are left out.

    The way with the best nested answers is used, of equals the simpler one, and always with the decision rule that the
    metric asks for. Where the metric looks at labels alone, ways are compared by log-loss. A score of a few hundred
    labels hangs on a handful of rows: the best of several is mostly the luckiest, and a rule that must first show a
    gain is mostly left out where it helps (docs/experiments.md).

    Args:
        methods: left out: those of `methods_for`.
    """
    if methods is None:
        methods = methods_for(truth)
    for method in methods:
        if why := method.lack(truth.space):
            raise FoldcraftError(why, f"--method {method.name!r}", "use weighted mean, greedy or stacking")
    alone = [_evaluate([member], truth, [Best()], rules=False)[0] for member in members]
    named = [replace(candidate, name=member.name) for member, candidate in zip(members, alone, strict=True)]
    gains = [_views_gain(member, candidate, truth) for member, candidate in zip(members, alone, strict=True)]
    plain = _without_views(members, alone, truth)
    for place, member in enumerate(members):
        if plain[None][place]:
            own = {fold: [flags[place]] for fold, flags in plain.items()}
            named[place] = replace(_evaluate([member], truth, [Best()], False, own)[0], name=member.name)
    if len(members) == 1:
        methods = [Best()]
    found = _evaluate(members, truth, methods, rules=True, plain=plain)
    chosen, words = _choose(found, truth)
    answers, undecided = _chosen_elsewhere(found, truth)
    optimistic = truth.score(chosen.plan.apply(members)) if isinstance(chosen.plan.rule, Obeying) else chosen.optimistic
    used = replace(chosen, nested=answers, score=score_of(answers, truth), optimistic=optimistic)
    left_out = [member.name for member, is_plain in zip(members, plain[None], strict=True) if is_plain]
    if left_out:
        plainly = "the image as it is" + (", combined by mean" if members[0].ways > 1 else "")
        words.append(f"views are really worse than {plainly}, and are not used: {', '.join(left_out)}")
    return BlendSelection(used, found, named, gains, words, undecided)


def plan_without(
    members: Sequence[BlendMember], truth: Labels, fold: int, methods: Sequence[Method] | None = None
) -> tuple[str, BlendPlan]:
    """The method that is used, by name, and its plan without a decision rule, as if there were no rows of that fold.

    `judge` may choose the method of a fold by nested answers that were fitted with its labels, which is good enough to
    judge a choice by. What teaches must not: here the choice is made, nested, among the other folds alone.

    Raises:
        FoldcraftError: as `judge`; all rows are of that fold.
    """
    others = np.flatnonzero(truth.fold != fold)
    if not len(others):
        raise FoldcraftError("there are no out-of-fold predictions of other folds to fit a blend on", f"fold {fold}")
    found = judge([member.rows(others) for member in members], truth.rows(others), methods)
    plan = replace(found.chosen.plan, rule=Argmax())
    # Candidates stand in the order of methods, then the same with rules: the plain one of the same combination.
    name = next(one.name for one in found.candidates if one.plan.combination is plan.combination)
    return name, plan


def _evaluate(
    members: Sequence[BlendMember], truth: Labels, methods: Sequence[Method], rules: bool, plain: Plain | None = None
) -> list[BlendCandidate]:
    """A candidate for each method, then, with `rules`, another for each with its decision rule."""
    plain = plain or {}
    everything = _fit(members, truth, methods, rules, plain.get(None))
    nested = [np.empty(members[0].predicted.shape[1:]) for _ in everything]
    folds = np.unique(truth.fold)
    for fold in folds:
        # With a single fold there is no other to fit on, and nothing is nested.
        learned = np.flatnonzero(truth.fold != fold) if len(folds) > 1 else np.arange(len(truth.fold))
        held = np.flatnonzero(truth.fold == fold)
        own = [member.left_out(int(fold)) for member in members] if len(folds) > 1 else members
        some = [member.rows(learned) for member in own]
        plans = _fit(some, truth.rows(learned), methods, rules, plain.get(int(fold)))
        for answers, (_, plan) in zip(nested, plans, strict=True):
            answers[held] = plan.apply([member.rows(held) for member in own])
    return [
        BlendCandidate(
            name,
            answers,
            score_of(answers, truth),
            plan,
            truth.score(plan.apply(members)),
            is_ruled=place >= len(methods),
        )
        for place, ((name, plan), answers) in enumerate(zip(everything, nested, strict=True))
    ]


def _fit(
    members: Sequence[BlendMember],
    truth: Labels,
    methods: Sequence[Method],
    rules: bool,
    plain: Sequence[bool] | None = None,
) -> list[tuple[str, BlendPlan]]:
    """A plan for each method, and with `rules` another.

    Args:
        plain: of which members the image as it is stands alone.
    """
    views = tuple(
        tta_selection.only_first(member.views)
        if is_plain
        else tta_selection.choose(member.views, member.predicted, truth.targets, truth.space, member.ways, _cost(truth))
        for member, is_plain in zip(members, plain or [False] * len(members), strict=True)
    )
    space = truth.space
    averaged = [tta_selection.average(m.predicted, weights, space) for m, weights in zip(members, views, strict=True)]
    known = Calibrated.of(averaged, truth.targets, truth.units, space)
    combinations = [method.combine(known) for method in methods]
    found = [(m.name, BlendPlan(views, c, Argmax())) for m, c in zip(methods, combinations, strict=True)]
    for method, combination in zip(methods, combinations, strict=True) if rules else ():
        rule = decision_rules.fit(combination.apply(averaged), truth.targets, truth.units, truth.metric, space)
        found.append((f"{method.name}, {rule.name}", BlendPlan(views, combination, rule)))
    return found


def _cost(truth: Labels) -> Callable[[np.ndarray], float] | None:
    """What ways to combine images are compared by, as blending methods are: the loss, or the metric."""
    if is_judged_by_loss(truth.metric):
        return None
    return lambda predicted: -truth.metric.sign * truth.fold_wise_score(predicted)


def score_of(predicted: np.ndarray, truth: Labels) -> Score:
    """Score of predictions (N, W), with its interval."""
    scored = truth.space.scored(predicted)
    interval = bootstrap_interval(truth.metric, truth.targets, scored, truth.units, row_weights=truth.weights)
    return Score(truth.score(predicted), *interval)


def gain(a: np.ndarray, b: np.ndarray, truth: Labels) -> Gain:
    """How much better predictions `a` (N, W) score than `b`, and the standard error of that.

    Where the order of rows alone counts it is the mean over folds: each is predicted by another fit, on another scale.
    """
    if not truth.metric.by_order:
        return _gain_on(a, b, truth)
    own = [np.flatnonzero(truth.fold == fold) for fold in np.unique(truth.fold)]
    parts = [_gain_on(a[rows], b[rows], truth.rows(rows)) for rows in own]
    errors = np.array([part.error for part in parts])
    return Gain(float(np.mean([part.value for part in parts])), float(np.sqrt((errors**2).sum()) / len(parts)))


def _gain_on(a: np.ndarray, b: np.ndarray, truth: Labels) -> Gain:
    scored = truth.space.scored
    return gain_in_score(truth.metric, truth.targets, scored(a), scored(b), truth.units, row_weights=truth.weights)


def is_really_worse(a: np.ndarray, b: np.ndarray, truth: Labels) -> bool:
    """Do predictions `a` (N, W) score worse than `b`, by more than two standard errors of the difference?

    The rule by which views, a blending method and a decision rule are left out: none has to show a gain, but none is
    used against what out-of-fold rows say.
    """
    if not truth.metric.better(truth.fold_wise_score(b), truth.fold_wise_score(a)):
        return False  # mostly; it spares the bootstrap
    return gain(a, b, truth).is_real_loss


def elsewhere(truth: Labels) -> dict[int | None, np.ndarray]:
    """The rows that speak for what a fold is judged by: those of the others; None: for what is submitted, all."""
    every, folds = np.arange(len(truth.fold)), np.unique(truth.fold)
    parts: dict[int | None, np.ndarray] = {None: every}
    for fold in folds:
        parts[int(fold)] = np.flatnonzero(truth.fold != fold) if len(folds) > 1 else every
    return parts


def _image_as_it_is(member: BlendMember) -> np.ndarray:
    return member.predicted[tta_selection.first(member.views)].astype(np.float64)


def _views_gain(member: BlendMember, with_views: BlendCandidate, truth: Labels) -> tuple[float, float]:
    if len(member.views) == 1:
        return 0.0, 0.0
    return gain(with_views.nested, _image_as_it_is(member), truth)


def _without_views(members: Sequence[BlendMember], alone: Sequence[BlendCandidate], truth: Labels) -> Plain:
    """Of which members the views are really worse than the image as it is."""
    return {
        fold: [
            len(member.views) > 1 and is_really_worse(one.nested[rows], _image_as_it_is(member)[rows], truth.rows(rows))
            for member, one in zip(members, alone, strict=True)
        ]
        for fold, rows in elsewhere(truth).items()
    }


def _ways(found: Sequence[BlendCandidate]) -> tuple[list[BlendCandidate], list[BlendCandidate]]:
    """The ways at the likeliest class, and the same with their rules."""
    return [one for one in found if not one.is_ruled], [one for one in found if one.is_ruled]


def is_judged_by_loss(metric: Metric) -> bool:
    """Are blending methods compared by the proper loss? Labels and ranks hang on a handful of rows."""
    return metric.wants in ("labels", "ranks")


def _is_better(metric: Metric, a: float, b: float) -> bool:
    """Is `a` better than `b`, both as `_worth` has them?"""
    return a < b if is_judged_by_loss(metric) else metric.better(a, b)


def _worth(found: Sequence[BlendCandidate], truth: Labels, rows: np.ndarray) -> tuple[int, list[float]]:
    """Which way the nested answers of some rows speak for, and the scores by which they do."""
    some = truth.rows(rows)
    plain = [one.nested[rows] for one in _ways(found)[0]]
    if is_judged_by_loss(truth.metric):
        scores = [truth.space.loss(one, some.targets, some.weights) for one in plain]
    else:
        scores = [some.fold_wise_score(one) for one in plain]
    best = 0
    for place, score in enumerate(scores):
        if _is_better(truth.metric, score, scores[best]):  # of equals the simpler
            best = place
    return best, scores


def _answer(found: Sequence[BlendCandidate], place: int, truth: Labels, rows: np.ndarray) -> BlendCandidate:
    """A way with its rule, or without it where some rows say that it is really worse with it; then constraints."""
    decided = _decided(found, place, truth, rows)
    if truth.constraints is None:
        return decided
    obeying, some = _obeying(found, place, decided, truth.constraints), truth.rows(rows)
    is_gain = truth.metric.better(some.score(obeying.nested[rows]), some.score(decided.nested[rows]))
    return obeying if is_gain else decided


def _decided(found: Sequence[BlendCandidate], place: int, truth: Labels, rows: np.ndarray) -> BlendCandidate:
    plain, ruled = (some[place] for some in _ways(found))
    return plain if is_really_worse(ruled.nested[rows], plain.nested[rows], truth.rows(rows)) else ruled


def _obeying(
    found: Sequence[BlendCandidate], place: int, decided: BlendCandidate, constraints: Constraints
) -> BlendCandidate:
    """The same with answers that obey; nothing is fitted, so nested answers stay nested."""
    name = decided.name if decided.decides else _ways(found)[0][place].name
    plan = replace(decided.plan, rule=Obeying(decided.plan.rule, constraints))
    nested = constraints.apply(decided.nested)
    return replace(decided, name=f"{name}, {constraints.name}", plan=plan, nested=nested)


def _used(found: Sequence[BlendCandidate], truth: Labels, rows: np.ndarray) -> tuple[int, BlendCandidate]:
    """The way that some rows speak for, its place and itself; the simplest where it is really worse than that."""
    best, _ = _worth(found, truth, rows)
    chosen = _answer(found, best, truth, rows)
    if best:
        simplest = _answer(found, 0, truth, rows)
        if is_really_worse(chosen.nested[rows], simplest.nested[rows], truth.rows(rows)):
            return 0, simplest
    return best, chosen


def better_of(more: BlendSelection, fewer: BlendSelection, truth: Labels) -> tuple[bool, np.ndarray]:
    """Do all nested answers speak for the first of two blends, and answers (N, W), each fold's of what the others say?

    It must be better in the proper loss by more than two standard errors, and no worse in the metric.
    """

    def is_better(rows: np.ndarray) -> bool:
        some = truth.rows(rows)
        best = [_ways(blend.candidates)[0][_worth(blend.candidates, truth, rows)[0]] for blend in (more, fewer)]
        gained = gain_in_loss(truth.space, some.targets, *(way.nested[rows] for way in best), some.units)
        mine, theirs = (some.fold_wise_score(blend.chosen.nested[rows]) for blend in (more, fewer))
        return gained.is_real and not truth.metric.better(theirs, mine)

    answers = fewer.chosen.nested.copy()
    for fold, others in elsewhere(truth).items():
        if fold is not None and is_better(others):
            answers[truth.fold == fold] = more.chosen.nested[truth.fold == fold]
    return is_better(np.arange(len(truth.fold))), answers


def _choose(found: Sequence[BlendCandidate], truth: Labels) -> tuple[BlendCandidate, list[str]]:
    """The candidate that all nested answers speak for, and why."""
    plain, ruled = _ways(found)
    every = np.arange(len(truth.fold))
    judge = truth.space.loss_name if is_judged_by_loss(truth.metric) else truth.metric.title
    best, scores = _worth(found, truth, every)
    place, used = _used(found, truth, every)
    chosen = used if used.decides else replace(used, name=plain[place].name)
    names = [f"{one.name} {score:.4f}" for one, score in zip(plain, scores, strict=True)]
    is_behind = [_is_better(truth.metric, scores[best], score) for score in scores]
    words = _ladder(names, best, is_behind, judge)
    if place != best:
        value, error = gain(_answer(found, best, truth, every).nested, used.nested, truth)
        over = f"against {plain[place].name} in {truth.metric.title}"
        words.append(f"{plain[best].name} {_change(value, error)} {over}, and is not used")
    if ruled[place].decides:
        value, error = gain(ruled[place].nested, plain[place].nested, truth)
        luck = ", which may be luck" if value < 0 else ""
        so = luck if used.is_ruled else ", and is not used"
        over = f"in {truth.metric.title} over taking {truth.space.by_default}"
        changed = "changes no nested answer" if not (value or error) else f"{_change(value, error)} {over}"
        words.append(f"the decision rule, {ruled[place].plan.rule}, {changed}{so}")
    if truth.constraints is not None:
        words.append(_about_constraints(found, place, used, truth))
    return chosen, words


def _about_constraints(found: Sequence[BlendCandidate], place: int, used: BlendCandidate, truth: Labels) -> str:
    decided = _decided(found, place, truth, np.arange(len(truth.fold)))
    obeying = truth.constraints.apply(decided.nested)
    moved = int((np.abs(obeying - decided.nested) > 1e-9).any(1).sum())
    value, error = gain(obeying, decided.nested, truth)
    so = "are used" if isinstance(used.plan.rule, Obeying) else "are not used"
    return f"constraints move {moved} of {len(obeying)} rows, {_change(value, error, 'gain', 'lose')}, and {so}"


def _change(value: float, error: float, up: str = "gains", down: str = "loses") -> str:
    return f"{up if value >= 0 else down} {abs(value):.4f} ± {error:.4f}"


def _ladder(names: Sequence[str], best: int, is_behind: Sequence[bool], judge: str) -> list[str]:
    """Which method is used, and which it beats; nothing where there is only one."""
    others = [place for place in range(len(names)) if place != best]
    if not others:
        return []
    if not best:
        return [f"by {judge}: {names[best]} is used, for nothing beats it: {', '.join(names[k] for k in others)}"]
    level = [names[place] for place in others if not is_behind[place]]
    beaten = f"by {judge}: {names[best]} beats {', '.join(names[place] for place in others if is_behind[place])}"
    return [f"{beaten}; no better, and less simple: {', '.join(level)}" if level else beaten]


def _chosen_elsewhere(found: Sequence[BlendCandidate], truth: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Nested answers (N, K), each fold's of the candidate that the other folds speak for: the choice is judged too.

    And the predictions behind them, before that candidate's decision rule.
    """
    answers, undecided = np.empty_like(found[0].nested), np.empty_like(found[0].nested)
    for fold, others in elsewhere(truth).items():
        if fold is not None:
            held = truth.fold == fold
            place, used = _used(found, truth, others)
            answers[held] = used.nested[held]
            undecided[held] = _ways(found)[0][place].nested[held]
    return answers, undecided
