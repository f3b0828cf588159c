"""Metrics: the numbers of scikit-learn, the right direction, and an interval that knows about groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from foldcraft import metrics
from foldcraft.errors import FoldcraftError
from foldcraft.metrics import METRICS, bootstrap_interval

REFERENCES = {
    "macro_f1": lambda truth, p: sk.f1_score(truth, p.argmax(1), average="macro"),
    "weighted_f1": lambda truth, p: sk.f1_score(truth, p.argmax(1), average="weighted"),
    "accuracy": lambda truth, p: sk.accuracy_score(truth, p.argmax(1)),
    "balanced_accuracy": lambda truth, p: sk.balanced_accuracy_score(truth, p.argmax(1)),
    "qwk": lambda truth, p: sk.cohen_kappa_score(truth, p.argmax(1), weights="quadratic"),
    "log_loss": lambda truth, p: sk.log_loss(truth, p, labels=range(p.shape[1])),
    "roc_auc": lambda truth, p: sk.roc_auc_score(truth, p if p.shape[1] > 2 else p[:, 1], multi_class="ovr"),
}


def guesses(seed: int, rows: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Class indices, each of them met, and probabilities that know something of them."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.r_[np.arange(classes), rng.integers(0, classes, rows - classes)])
    probabilities = rng.dirichlet(np.ones(classes), rows) + np.eye(classes)[truth] * rng.random((rows, 1))
    return truth, probabilities / probabilities.sum(1, keepdims=True)


def test_every_metric_has_a_reference() -> None:
    assert set(REFERENCES) == set(METRICS)


@pytest.mark.parametrize("name", METRICS)
@given(seed=st.integers(0, 2**16), classes=st.integers(2, 5))
@settings(deadline=None, max_examples=15)
def test_scores_are_those_of_scikit_learn(name: str, seed: int, classes: int) -> None:
    truth, probabilities = guesses(seed, classes=classes)
    assert metrics.get(name)(truth, probabilities) == pytest.approx(REFERENCES[name](truth, probabilities), abs=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_better_guesses_have_better_scores(name: str) -> None:
    metric = metrics.get(name)
    truth, probabilities = guesses(0)
    sure = 0.97 * np.eye(4)[truth] + 0.01
    good, bad = metric(truth, sure), metric(truth, probabilities)
    assert metric.better(good, bad)
    assert not metric.better(bad, good)
    assert not metric.better(good, good)


@pytest.mark.parametrize("name", METRICS)
def test_a_fold_without_some_class_still_has_a_score(name: str) -> None:
    """Small folds, and draws of a bootstrap, may hold a single class."""
    _, probabilities = guesses(0, rows=8)
    for truth, p in (
        (np.full(8, 2), probabilities),
        (np.full(8, 2), np.eye(4)[np.full(8, 2)]),
        (np.arange(8) % 2, np.eye(4)[np.arange(8) % 2]),
    ):
        assert np.isfinite(metrics.get(name)(truth, p))


def test_a_sure_mistake_costs_much_but_not_all() -> None:
    log_loss = metrics.get("log_loss")
    assert log_loss(np.array([0]), np.array([[1e-6, 1 - 1e-6]])) == pytest.approx(6 * np.log(10))
    assert 30 < log_loss(np.array([0]), np.array([[0.0, 1.0]])) < 40


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(FoldcraftError, match=r"competition\.metric.*makro_f1.*'macro_f1'"):
        metrics.get("makro_f1")


@pytest.mark.parametrize("name", METRICS)
def test_the_interval_contains_the_score_and_is_always_the_same(name: str) -> None:
    metric = metrics.get(name)
    truth, probabilities = guesses(1, rows=120)
    own = np.arange(120)
    low, high = bootstrap_interval(metric, truth, probabilities, own, repeats=60)
    assert low < metric(truth, probabilities) < high
    assert bootstrap_interval(metric, truth, probabilities, own, repeats=60) == (low, high)


def test_copies_in_a_group_do_not_make_a_score_surer() -> None:
    """40 rows, each six times: by groups the interval is that of the 40, by rows it is far too narrow."""
    metric = metrics.get("accuracy")
    truth, probabilities = guesses(2, rows=40)
    alone = np.subtract(*bootstrap_interval(metric, truth, probabilities, np.arange(40)))
    source = np.random.default_rng(0).permutation(np.repeat(np.arange(40), 6))
    copies = truth[source], probabilities[source]
    by_group = np.subtract(*bootstrap_interval(metric, *copies, np.array([f"person {n}" for n in source])))
    by_row = np.subtract(*bootstrap_interval(metric, *copies, np.arange(240)))
    assert by_group == pytest.approx(alone, rel=0.15)
    assert by_group / by_row == pytest.approx(np.sqrt(6), rel=0.2)


@pytest.mark.parametrize("name", METRICS)
def test_few_groups_of_one_class_each_still_have_an_interval(name: str) -> None:
    truth = np.repeat([0, 1, 2], 5)
    sure = 0.97 * np.eye(3)[truth] + 0.01
    low, high = bootstrap_interval(metrics.get(name), truth, sure, groups=truth, repeats=60)
    assert low <= metrics.get(name)(truth, sure) <= high  # neither is NaN
