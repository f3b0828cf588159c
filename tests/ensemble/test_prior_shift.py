"""Class priors of the test set: found where they moved, left alone where they did not. Classes are known Gaussians."""

import numpy as np
import pytest
from scipy.special import log_softmax

from foldcraft.ensemble import decision_rules, prior_shift
from foldcraft.ensemble.decision_rules import Argmax, ClassBias
from foldcraft.ensemble.nested import Labels
from foldcraft.metrics.scores import get
from foldcraft.metrics.spaces import ClassSpace

BEFORE, AFTER = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
SPACE = ClassSpace(("a", "b", "c"))


def drawn(rows: int, priors: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities (N, 3) that are right where the priors are BEFORE, and the truth (N,); two rows a group."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, rows // 2, p=priors).repeat(2)
    seen = rng.normal(0, 1, (rows, 3)) + 1.5 * np.eye(3)[truth]
    return log_softmax(1.5 * seen + np.log(BEFORE), axis=1), truth


def labels(truth: np.ndarray, metric: str = "accuracy") -> Labels:
    units = np.arange(len(truth)) // 2
    return Labels(truth, units % 5, units.astype(str), get(metric), SPACE)


@pytest.mark.parametrize(("loudness", "bias"), [(1.0, 0.0), (2.0, 0.0), (1.5, 0.7)])
def test_priors_that_moved_are_found(loudness: float, bias: float) -> None:
    """Also by members that are too loud and favour a class: they are calibrated first."""
    oof, truth = drawn(2000, BEFORE, 0)
    test, _ = drawn(3000, AFTER, 1)
    spoilt = [log_softmax(loudness * part + np.array([bias, 0, 0]), axis=1) for part in (oof, test)]
    found = prior_shift.find(spoilt[0], labels(truth), spoilt[1])
    np.testing.assert_allclose(found.before, BEFORE, atol=0.03)
    np.testing.assert_allclose(found.after, AFTER, atol=0.04)
    assert found.is_real
    assert str(found).startswith("class priors of the test set: moved, p=0.005: ")


def test_the_test_set_is_predicted_as_its_own_priors_would_have_it() -> None:
    oof, truth = drawn(2000, BEFORE, 0)
    test, answers = drawn(3000, AFTER, 1)
    moved = prior_shift.find(oof, labels(truth), test).apply(test)
    best = log_softmax(test + np.log(AFTER / BEFORE), axis=1)
    kept, held, least = (SPACE.loss(one, answers) for one in (test, moved, best))
    assert least < held < least + 0.2 * (kept - least)
    assert kept > least + 0.05


def test_of_test_sets_with_nothing_moved_a_level_of_them_is_taken_to_be_moved() -> None:
    ps = []
    for seed in range(40):
        oof, truth = drawn(160, BEFORE, seed)
        test, _ = drawn(400, BEFORE, 1000 + seed)
        ps.append(prior_shift.find(oof, labels(truth), test).p)
    assert np.mean(np.array(ps) < 0.05) < 0.12
    assert np.mean(np.array(ps) < prior_shift.LEVEL) < 0.05
    assert 0.3 < np.mean(ps) < 0.7, "draws are neither much wider nor much narrower than what they stand for"


def test_a_rule_is_fitted_for_the_priors_of_the_test_set() -> None:
    """Balanced accuracy does not see priors: the rule takes out of log-probabilities what the new priors put in."""
    oof, truth = drawn(2000, BEFORE, 0)
    test, _ = drawn(3000, AFTER, 1)
    known = labels(truth, "balanced_accuracy")
    rule = decision_rules.fit(oof, truth, known.units, known.metric, SPACE)
    found = prior_shift.find(oof, known, test)
    new = found.moved_rule(oof, known, rule)
    assert isinstance(new, ClassBias)
    assert np.argmax(new.shift) == 0, "the class that was the most frequent is now the rarest"
    assert np.mean(new.apply(found.apply(test)).argmax(1) != rule.apply(test).argmax(1)) < 0.1, "both are flat there"
    assert isinstance(found.moved_rule(oof, known, Argmax()), Argmax)


def test_a_class_that_seems_to_be_gone_is_not_ruled_out() -> None:
    found = prior_shift.PriorShift(("a", "b"), np.array([0.5, 0.5]), np.array([1.0, 0.0]), 0.5, 0.005)
    np.testing.assert_allclose(found.ratio, [1.8, 0.2])
    np.testing.assert_allclose(np.exp(found.apply(np.log([[0.5, 0.5]]))), [[0.9, 0.1]])


def test_only_one_label_of_classes_has_priors() -> None:
    two = ClassSpace(("x=a", "x=b", "y=a", "y=b"), (2, 2))
    truth = labels(np.zeros(4, int))
    assert prior_shift.suits(truth)
    assert not prior_shift.suits(Labels(np.zeros((4, 2), int), truth.fold, truth.units, truth.metric, two))
