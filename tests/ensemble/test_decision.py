"""Rules from probabilities to answers: they find what the metric rewards, and do nothing where there is nothing."""

import numpy as np
import pytest
from scipy.special import log_softmax
from tables import class_space

from foldcraft.ensemble import decision_rules
from foldcraft.ensemble.decision_rules import (
    Argmax,
    CutPoints,
    LabelThresholds,
    MinExpectedCost,
    PriorAdjustment,
    Threshold,
)
from foldcraft.metrics import calibration
from foldcraft.metrics.scores import Metric, get
from foldcraft.metrics.spaces import ClassSpace, LabelSpace

MACRO_F1 = get("macro_f1")
SPACES = {count: class_space(count) for count in (2, 3, 4, 5)}


def rows(count: int, prior: list[float], signal: float = 1.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Honest log-probabilities of unevenly frequent classes, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(len(prior), count, p=prior)
    evidence = rng.normal(0, 1, (count, len(prior)))
    evidence[np.arange(count), truth] += signal
    return log_softmax(signal * evidence + np.log(prior), axis=1), truth


def own(count: int) -> np.ndarray:
    return np.arange(count).astype(str)


def test_rare_classes_are_predicted_more_often_for_macro_f1() -> None:
    predicted, truth = rows(1000, [0.86, 0.1, 0.04])
    rule = decision_rules.fit(predicted, truth, own(1000), MACRO_F1, SPACES[predicted.shape[1]])
    assert isinstance(rule, PriorAdjustment)
    assert 0.1 <= rule.tau <= 1
    fresh, answers = rows(20_000, [0.86, 0.1, 0.04], seed=1)
    gain = MACRO_F1(answers, np.exp(rule.apply(fresh))) - MACRO_F1(answers, np.exp(fresh))
    assert gain > 0.02
    bias = calibration.fit_class_bias(predicted, truth, decision_rules.HELD)
    by_hand = log_softmax(fresh + bias - rule.tau * np.log(np.bincount(truth) / 1000), axis=1)
    np.testing.assert_allclose(rule.apply(fresh), by_hand)


def fresh_gain(metric: Metric, prior: list[float], count: int, seed: int, crooked: float = 0.0) -> float:
    """What a rule gains on 20,000 rows that it was not fitted on; `crooked` is added to one class of all."""
    predicted, truth = rows(count, prior, seed=seed)
    fresh, answers = rows(20_000, prior, seed=1000 + seed)
    off = crooked * (np.arange(len(prior)) == 1)
    rule = decision_rules.fit(predicted + off, truth, own(count), metric, SPACES[len(prior)])
    return metric(answers, np.exp(rule.apply(fresh + off))) - metric(answers, np.exp(fresh + off))


def test_equal_classes_lose_nothing() -> None:
    assert np.mean([fresh_gain(MACRO_F1, [1 / 3] * 3, 300, seed) for seed in range(10)]) > -0.002


@pytest.mark.parametrize(
    ("name", "prior", "least"),
    [
        ("macro_f1", [0.8, 0.15, 0.05], 0.015),
        ("balanced_accuracy", [0.8, 0.15, 0.05], 0.11),
        ("f1", [0.8, 0.2], 0.012),
    ],
)
def test_few_rows_are_enough(name: str, prior: list[float], least: float) -> None:
    """The rarest class has a handful of them; what the probabilities expect says more than these do."""
    gains = [fresh_gain(get(name), prior, 130, seed) for seed in range(10)]
    assert np.mean(gains) > least


def test_a_class_that_is_off_by_itself_is_mended() -> None:
    assert fresh_gain(MACRO_F1, [0.6, 0.3, 0.1], 900, 0, crooked=1.0) > 0.02
    predicted, truth = rows(900, [0.6, 0.3, 0.1])
    rule = decision_rules.fit(predicted + np.eye(3)[1], truth, own(900), MACRO_F1, SPACES[3])
    assert rule.shift[1] < min(rule.shift[0], rule.shift[2]) - 0.3, "no power of the prior does that"


def test_labels_count_where_probabilities_are_wrong() -> None:
    """A twentieth of the rows is sure of a random class, which no bias of a class mends."""
    gains = []
    for seed in range(10):
        predicted, truth = rows(300, [0.8, 0.15, 0.05], seed=seed)
        rng = np.random.default_rng(seed)
        sure = log_softmax(8 * np.eye(3)[rng.integers(3, size=300)], axis=1)
        predicted = np.where(rng.random((300, 1)) < 0.05, sure, predicted)
        rule = decision_rules.fit(predicted, truth, own(300), MACRO_F1, SPACES[3])
        gains.append(MACRO_F1(truth, np.exp(rule.apply(predicted))) - MACRO_F1(truth, np.exp(predicted)))
    assert np.mean(gains) > 0.03


def test_the_threshold_of_binary_f1_lies_below_a_half() -> None:
    """At the best of them it is half of the best F1 (arXiv 1402.1892)."""
    predicted, truth = rows(4000, [0.8, 0.2], signal=1.0)
    f1 = get("f1")
    rule = decision_rules.fit(predicted, truth, own(4000), f1, SPACES[predicted.shape[1]])
    assert isinstance(rule, Threshold)
    fresh, answers = rows(50_000, [0.8, 0.2], signal=1.0, seed=1)
    reached = f1(answers, np.exp(rule.apply(fresh)))
    assert rule.threshold == pytest.approx(reached / 2, abs=0.08)
    assert reached > f1(answers, np.exp(fresh)) + 0.02
    said = rule.apply(fresh).argmax(1)
    np.testing.assert_array_equal(said == 1, np.exp(fresh[:, 1]) >= rule.threshold)


def test_kappa_takes_the_class_of_least_expected_distance() -> None:
    unsure = np.log([[0.45, 0.1, 0.45], [0.2, 0.5, 0.3], [0.9, 0.05, 0.05]])
    assert MinExpectedCost().apply(unsure).argmax(1).tolist() == [1, 1, 0]
    assert isinstance(
        decision_rules.fit(unsure, np.array([0, 1, 2]), own(3), get("qwk"), SPACES[unsure.shape[1]]),
        MinExpectedCost,
    )


@pytest.mark.parametrize("name", ["accuracy", "log_loss", "roc_auc", "weighted_f1"])
def test_other_metrics_take_the_likeliest_class(name: str) -> None:
    predicted, truth = rows(200, [0.8, 0.15, 0.05])
    assert isinstance(decision_rules.fit(predicted, truth, own(200), get(name), SPACES[predicted.shape[1]]), Argmax)


def test_order_of_rows_and_classes_makes_no_difference() -> None:
    predicted, truth = rows(500, [0.7, 0.2, 0.1])
    order, classes = np.random.default_rng(0).permutation(500), np.array([2, 0, 1])
    rule = decision_rules.fit(predicted, truth, own(500), MACRO_F1, SPACES[predicted.shape[1]])
    moved = predicted[order][:, classes]
    other = decision_rules.fit(
        moved, np.argsort(classes)[truth[order]], own(500)[order], MACRO_F1, SPACES[moved.shape[1]]
    )
    np.testing.assert_allclose(other.apply(moved), rule.apply(predicted)[order][:, classes])


def test_rules_give_probabilities() -> None:
    predicted, _ = rows(50, [0.7, 0.2, 0.1])
    for rule in (Argmax(), PriorAdjustment((0.1, 0.2, 0.3), 0.5), MinExpectedCost()):
        np.testing.assert_allclose(np.exp(rule.apply(predicted)).sum(1), 1)


def test_each_of_several_labels_has_its_rule_by_its_name() -> None:
    space = ClassSpace(("mask=on", "mask=off", "age=old", "age=young"), (2, 2))
    first, truth = rows(600, [0.9, 0.1])
    second, other = rows(600, [0.5, 0.5])
    both = np.column_stack([truth, np.where(np.arange(600) % 7 == 0, -1, other)])
    metric = get("macro_f1", "multioutput", ("mask", "age"), (2, 2))
    rule = decision_rules.fit(np.hstack([first, second]), both, own(600), metric, space)
    assert str(rule).startswith("mask: prior adjustment")
    scored = [
        metric(both, np.exp(each)) for each in (rule.apply(np.hstack([first, second])), np.hstack([first, second]))
    ]
    assert scored[0] > scored[1]


@pytest.mark.parametrize("name", ["macro_f1", "micro_f1"])
def test_rare_labels_get_a_threshold_of_their_own(name: str) -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((900, 2)) < [0.1, 0.4]).astype(float)
    odds = 1.5 * (2 * truth - 1) + rng.normal(0, 1.5, truth.shape) - [2.5, 0.5]
    metric, space = get(name, "multilabel", ("rare", "common")), LabelSpace(("rare", "common"))
    rule = decision_rules.fit(odds, truth, own(900), metric, space)
    assert isinstance(rule, LabelThresholds)
    assert rule.cuts[0] < 0
    assert metric(truth, space.scored(rule.apply(odds))) > metric(truth, space.scored(odds)) + 0.02


def test_cut_points_are_used_where_grades_outside_the_bags_gain() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(4, 800, p=[0.7, 0.1, 0.1, 0.1])
    flat = 0.25 * (truth[:, None] == np.arange(4)) + rng.dirichlet(np.full(4, 3.0), 800) + 0.6 * (np.arange(4) == 0)
    predicted = np.log(flat / flat.sum(1, keepdims=True))  # too sure of the first grade
    metric = get("qwk")
    rule = decision_rules.fit(predicted, truth, own(800), metric, SPACES[4])
    assert isinstance(rule, CutPoints)
    fresh = MinExpectedCost().apply(predicted)
    assert metric(truth, np.exp(rule.apply(predicted))) > metric(truth, np.exp(fresh))
