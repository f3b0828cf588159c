"""The nested score: a fold has no say in what it is judged by, the simpler way stays unless it is beaten."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax
from tables import class_space

from foldcraft.ensemble import decision_rules, nested, tta_selection
from foldcraft.ensemble.blend import Combined
from foldcraft.ensemble.decision_rules import MinExpectedCost
from foldcraft.ensemble.methods import Best, Calibrated, Combination, Greedy, LogPool, Stacking, WeightedMean
from foldcraft.ensemble.nested import BlendMember, BlendSelection, Labels, judge
from foldcraft.metrics.scores import get
from foldcraft.views import blend
from foldcraft.views.terminal import Terminal

ROWS, CLASSES, FOLDS = 300, 3, 5
RNG = np.random.default_rng(0)
SPACE = class_space(CLASSES)
TARGETS = RNG.integers(0, CLASSES, ROWS)
UNITS = np.array([f"u{row // 3}" for row in range(ROWS)])
FOLD = (np.arange(ROWS) // 3) % FOLDS
TRUTH = Labels(TARGETS, FOLD, UNITS, get("macro_f1"), SPACE)


def seen(signal: float, seed: int, targets: np.ndarray = TARGETS) -> np.ndarray:
    evidence = np.random.default_rng(seed).normal(0, 1, (len(targets), CLASSES))
    evidence[np.arange(len(targets)), targets] += signal
    return log_softmax(signal * evidence, axis=1)


def member(name: str, signal: float, seed: int) -> BlendMember:
    return BlendMember(name, ("identity",), seen(signal, seed)[None])


STRONG, MIDDLE, WEAK = member("strong", 1.6, 1), member("middle", 1.4, 2), member("weak", 0.5, 3)


def test_a_fold_is_judged_by_what_was_fitted_on_the_others() -> None:
    """With the labels of one fold moved round, its own answers stay; those of the other folds do not."""
    moved = TARGETS.copy()
    moved[FOLD == 0] = (moved[FOLD == 0] + 1) % CLASSES
    members = [STRONG, MIDDLE, WEAK]
    honest = judge(members, TRUTH)
    lied_to = judge(members, Labels(moved, FOLD, UNITS, TRUTH.metric, SPACE))
    for a, b in zip(honest.candidates, lied_to.candidates, strict=True):
        np.testing.assert_array_equal(a.nested[FOLD == 0], b.nested[FOLD == 0])
    assert any(
        np.abs(a.nested[FOLD != 0] - b.nested[FOLD != 0]).max() > 0.01
        for a, b in zip(honest.candidates, lied_to.candidates, strict=True)
    )


@pytest.mark.slow
@pytest.mark.integration
def test_the_nested_score_is_below_the_optimistic_one_where_much_is_chosen() -> None:
    gaps = []
    for seed in range(6):
        crowd = [member(f"m{k}", 0.35, 100 * seed + k) for k in range(12)]
        selection = judge(crowd, TRUTH, [Best()])
        gaps.append(selection.candidates[0].optimistic - selection.candidates[0].score.value)
    assert np.mean(gaps) > 0.02, "the best of twelve alike is the luckiest"


@pytest.mark.parametrize(("metric", "judge_name"), [("macro_f1", "log_loss"), ("roc_auc", "roc_auc")])
def test_the_best_way_is_used_and_the_simpler_one_of_equals(metric: str, judge_name: str) -> None:
    """Labels hang on a handful of rows, so they are not what ways are compared by."""
    wanted = get(judge_name)
    selection = judge([STRONG, MIDDLE, WEAK], Labels(TARGETS, FOLD, UNITS, get(metric), SPACE))
    assert "beats" in selection.words[0]
    worth = {
        one.name: wanted.sign * wanted(TARGETS, np.exp(one.nested)) for one in selection.candidates if not one.is_ruled
    }
    assert worth[selection.before_rule.name] == max(worth.values())
    alone = [wanted.sign * wanted(TARGETS, np.exp(one.nested)) for one in selection.members]
    assert worth[selection.before_rule.name] > max(alone), "members that err differently are better together"
    twins = judge([STRONG, BlendMember("twin", STRONG.views, STRONG.predicted)], TRUTH)
    assert twins.before_rule.name == "weighted mean", "of equals the simplest"
    assert "nothing beats it" in twins.words[0]


def test_the_plan_applies_to_new_rows_of_the_same_members() -> None:
    selection = judge([STRONG, MIDDLE, WEAK], TRUTH, [Best(), WeightedMean(), Greedy(), Stacking()])
    targets = np.random.default_rng(7).integers(0, CLASSES, 5000)
    fresh = [
        BlendMember(name, ("identity",), seen(signal, seed, targets)[None])
        for name, signal, seed in (("strong", 1.6, 11), ("middle", 1.4, 12), ("weak", 0.5, 13))
    ]
    true = TRUTH.metric(targets, np.exp(selection.chosen.plan.apply(fresh)))
    assert selection.chosen.score.low < true < selection.chosen.score.high
    assert true == pytest.approx(selection.chosen.score.value, abs=0.05)


def test_the_rule_that_the_metric_asks_for_is_always_used() -> None:
    """Choosing anew for each fold between a rule and none costs more than a rule that does too much."""
    seen_even = judge([member(f"m{k}", 0.7, 80 + k) for k in range(3)], TRUTH)
    ruled = [one for one in seen_even.candidates if one.is_ruled]
    for fold in range(FOLDS):
        own = fold == FOLD
        assert any(np.array_equal(seen_even.chosen.nested[own], one.nested[own]) for one in ruled)
    plain = judge([STRONG], Labels(TARGETS, FOLD, UNITS, get("accuracy"), SPACE))
    assert plain.chosen.plan.rule.name == "argmax"
    assert plain.chosen.name == "best single", "a rule that does nothing is not named"
    rng = np.random.default_rng(1)
    prior = [0.88, 0.08, 0.04]
    targets = rng.choice(3, 1500, p=prior)
    predicted = log_softmax(seen(1.3, 5, targets) + np.log(prior), axis=1)
    truth = Labels(targets, np.arange(1500) % FOLDS, np.arange(1500).astype(str), TRUTH.metric, SPACE)
    uneven = judge([BlendMember("one", ("identity",), predicted[None])], truth)
    assert uneven.chosen.plan.rule.name == "prior adjustment"
    assert uneven.chosen.score.value > uneven.members[0].score.value + 0.02
    assert any("in macro_f1 over taking the likeliest class" in line for line in uneven.words)


def drawn(targets: np.ndarray, margin: np.ndarray, noise: float) -> np.ndarray:
    """Log-probabilities whose evidence for the truth is `margin` (N,)."""
    evidence = np.random.default_rng(len(targets)).normal(0, noise, (len(targets), CLASSES))
    evidence[np.arange(len(targets)), targets] += margin
    return log_softmax(evidence, axis=1)


def test_a_rule_that_is_really_worse_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grades at both ends only: the class of least expected distance lies between, where no row is."""
    monkeypatch.setattr(decision_rules, "_cut_points", lambda *_: MinExpectedCost())
    rng, rows = np.random.default_rng(0), 1500
    sure, targets = rng.uniform(0.5, 0.8, rows), rng.choice([0, 4], rows)
    said = np.where(rng.random(rows) < sure, targets, 4 - targets)
    chances = np.full((rows, 5), 0.005)
    chances[np.arange(rows), said], chances[np.arange(rows), 4 - said] = sure, 1 - sure
    predicted = log_softmax(np.log(chances), axis=1)
    truth = Labels(targets, np.arange(rows) % FOLDS, np.arange(rows).astype(str), get("qwk"), class_space(5))
    selection = judge([BlendMember("one", ("identity",), predicted[None])], truth)
    assert selection.chosen.plan.rule.name == "argmax"
    assert selection.chosen.name == "best single"
    assert selection.chosen.score.value == pytest.approx(get("qwk")(targets, np.exp(predicted)))
    assert selection.words[-1].startswith("the decision rule, least expected distance, loses 0.")
    assert selection.words[-1].endswith("over taking the likeliest class, and is not used")


def test_a_blend_that_is_really_worse_is_not_used() -> None:
    """The second way has the better log-loss, by being surer where it is right, and fewer right answers."""
    rng, rows = np.random.default_rng(0), 600
    targets = rng.integers(0, CLASSES, rows)
    often, seldom = (np.where(rng.random(rows) < share, high, -0.1) for share, high in ((0.75, 0.3), (0.6, 5.0)))
    truth = Labels(targets, np.arange(rows) % FOLDS, np.arange(rows).astype(str), get("accuracy"), SPACE)

    class First(Best):
        name, member = "first", 0

        def combine(self, found: Calibrated) -> Combination:
            return found.combined(LogPool, np.array(found.used) == self.member)

    class Second(First):
        name, member = "second", 1

    members = [
        BlendMember(n, ("identity",), drawn(targets, m, 0.01)[None]) for n, m in (("often", often), ("seldom", seldom))
    ]
    selection = judge(members, truth, [First(), Second()])
    assert "second" in selection.words[0]
    assert selection.words[1].startswith("second loses 0.1")
    assert selection.chosen.name == "first"
    assert selection.chosen.score.value == pytest.approx((often > 0).mean(), abs=0.01)


def test_views_that_are_really_worse_are_not_used() -> None:
    """The other view is sure of a third of the rows, which pays in log-loss, and turns many of the rest."""
    rng, rows = np.random.default_rng(1), 900
    targets = rng.integers(0, CLASSES, rows)
    as_it_is = drawn(targets, np.full(rows, 0.3), 0.3)
    other = drawn(targets, np.where(rng.random(rows) < 0.7, -0.4, 5.0), 0.3)
    truth = Labels(targets, np.arange(rows) % FOLDS, np.arange(rows).astype(str), get("accuracy"), SPACE)
    selection = judge([BlendMember("one", ("identity", "hflip"), np.stack([as_it_is, other]))], truth)
    value, error = selection.views_gain[0]
    assert value < -2 * error
    assert selection.chosen.plan.views == selection.members[0].plan.views == ((1.0, 0.0),)
    assert selection.chosen.score.value == pytest.approx(get("accuracy")(targets, np.exp(as_it_is)))
    assert selection.words == ["views are really worse than the image as it is, and are not used: one"]


def test_ways_are_compared_with_the_rules_that_suit_them() -> None:
    """A net that knows the prior by heart is best at argmax; nets that have more to say need the rule for it."""
    rng = np.random.default_rng(2)
    prior = [0.85, 0.1, 0.05]
    targets = rng.choice(3, 1500, p=prior)
    truth = Labels(targets, np.arange(1500) % FOLDS, np.arange(1500).astype(str), TRUTH.metric, SPACE)
    members = [
        BlendMember(f"m{k}", ("identity",), log_softmax(seen(1.1, 60 + k, targets) + np.log(prior), axis=1)[None])
        for k in range(4)
    ]
    selection = judge(members, truth, [Best(), WeightedMean(), Greedy(), Stacking()])
    assert selection.chosen.decides
    ruled = {one.name: one.score.value for one in selection.candidates if one.is_ruled}
    assert ruled[selection.chosen.name] > max(ruled.values()) - 0.01
    assert ruled[selection.chosen.name] > ruled["best single, prior adjustment"] + 0.2


def test_the_choice_between_ways_is_judged_by_folds_that_did_not_make_it() -> None:
    """A fold whose labels are moved round changes what is chosen, not by what it is judged itself."""
    moved = TARGETS.copy()
    moved[FOLD == 0] = (moved[FOLD == 0] + 1) % CLASSES
    members = [member(f"m{k}", 0.7, 80 + k) for k in range(5)]
    ways, lie = [Best(), WeightedMean()], Labels(moved, FOLD, UNITS, TRUTH.metric, SPACE)  # no near equals
    honest, lied_to = judge(members, TRUTH, ways), judge(members, lie, ways)
    np.testing.assert_array_equal(honest.chosen.nested[FOLD == 0], lied_to.chosen.nested[FOLD == 0])
    for fold in range(FOLDS):
        own = fold == FOLD
        assert any(np.array_equal(honest.chosen.nested[own], one.nested[own]) for one in honest.candidates)


def test_views_are_chosen_on_the_log_loss_and_identity_keeps_half() -> None:
    plain, other, broken = seen(1.0, 21), seen(1.0, 22), seen(0.0, 23)
    views = ("hflip", "identity", "vflip")
    weights = tta_selection.choose_views(views, np.stack([other, plain, broken]), TARGETS, SPACE)
    assert weights == (0.5, 0.5, 0)
    many = np.stack([plain, *(seen(1.0, 30 + k) for k in range(6))])
    weights = tta_selection.choose_views(("identity", *"abcdef"), many, TARGETS, SPACE)
    assert weights[0] == 0.5
    assert sum(weight > 0 for weight in weights) == tta_selection.MOST
    assert sum(weights) == pytest.approx(1)
    assert tta_selection.choose_views(("identity",), plain[None], TARGETS, SPACE) == (1.0,)


def test_what_views_gain_is_told_by_rows_that_did_not_choose_them() -> None:
    views = BlendMember("one", ("identity", "hflip", "vflip"), np.stack([seen(0.9, 41), seen(0.9, 42), seen(0.0, 43)]))
    selection = judge([views], TRUTH)
    value, error = selection.views_gain[0]
    assert value > 2 * error > 0
    by_hand = TRUTH.metric(TARGETS, np.exp(selection.members[0].nested)) - TRUTH.metric(
        TARGETS, np.exp(views.predicted[0])
    )
    assert value == pytest.approx(by_hand)


def test_the_average_of_views_is_a_geometric_mean() -> None:
    three = np.stack([seen(1.0, 51), seen(1.0, 52), seen(1.0, 53)])
    product = np.exp(0.5 * three[0] + 0.5 * three[2])
    found = tta_selection.average(three, (0.5, 0, 0.5), SPACE)
    np.testing.assert_allclose(np.exp(found), product / product.sum(1, keepdims=True))


def test_a_single_fold_is_judged_by_itself() -> None:
    rows = np.flatnonzero(FOLD == 1)
    selection = judge([STRONG.rows(rows), WEAK.rows(rows)], TRUTH.rows(rows))
    assert np.isfinite(selection.chosen.nested).all()


def test_ways_follow_the_metric_and_the_number_of_units() -> None:
    def names(metric: str, units: int) -> list[str]:
        rows = np.arange(2 * units)
        truth = Labels(rows % CLASSES, rows % FOLDS, (rows // 2).astype(str), get(metric), SPACE)
        return [way.name for way in nested.methods_for(truth)]

    assert names("macro_f1", 200) == ["weighted mean", "greedy", "stacking"]
    assert names("macro_f1", 199) == ["weighted mean", "greedy"]
    assert names("roc_auc", 200) == ["weighted mean", "rank mean", "greedy", "stacking"]


class Table(Terminal):
    """A terminal that keeps the rows of its tables and what it says."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self.lines: list[str] = []

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        self.rows += [tuple(map(str, row)) for row in rows]

    def say(self, text: str) -> None:
        self.lines.append(text)


def shown(selection: BlendSelection) -> Table:
    terminal = Table()
    blend.show(Combined(np.arange(ROWS), TRUTH, [("identity",)] * 3, selection, np.empty((0, CLASSES))), terminal)
    return terminal


def test_what_is_used_is_a_row_of_its_own_name() -> None:
    """The same method once more, where the choice of it is judged as well; once only where that changes nothing."""
    selection = judge([STRONG, MIDDLE, WEAK], TRUTH, [WeightedMean(), Stacking()])
    stacking = next(one for one in selection.candidates if one.name == "stacking")
    other = replace(selection, chosen=replace(stacking, nested=STRONG.predicted[0], score=selection.members[0].score))
    apart, alike = shown(other), shown(replace(selection, chosen=stacking))
    assert (
        [row[0] for row in apart.rows].count("stacking") == [row[0] for row in apart.rows].count("used: stacking") == 1
    )
    assert "not always stacking" in apart.lines[0]
    names = [row[0] for row in alike.rows]
    assert ("stacking" in names, names[-1], "not always" in alike.lines[0]) == (False, "used: stacking", False)


def test_where_order_alone_counts_folds_on_other_scales_are_no_loss() -> None:
    """Fits of different folds differ in scale; pooled, the better order of each fold would look worse."""
    rng, rows = np.random.default_rng(0), 400
    targets, fold = rng.integers(0, 2, rows), np.arange(rows) % 4
    sure, less_sure = (level * (2 * targets - 1) + rng.normal(0, 1, rows) for level in (0.9, 0.6))
    shifted = sure + np.array([-4.0, 4.0, -2.0, 2.0])[fold]
    odds = {"shifted": shifted, "plain": less_sure}
    said = {name: log_softmax(np.stack([np.zeros(rows), one], axis=1), axis=1) for name, one in odds.items()}
    truth = Labels(targets, fold, np.arange(rows).astype(str), get("roc_auc"), class_space(2))
    assert truth.score(said["shifted"]) < truth.score(said["plain"])
    assert not nested.is_really_worse(said["shifted"], said["plain"], truth)
    assert nested.gain(said["shifted"], said["plain"], truth).value > 0
