"""Of blends that come one after another, the one that is kept, and whether its score holds on rows that nobody saw."""

import numpy as np
from scipy.special import log_softmax

from foldcraft.ensemble.best_so_far import BestSoFar, Step
from foldcraft.ensemble.nested import Labels
from foldcraft.metrics import scores
from foldcraft.metrics.class_space import ClassSpace

SPACE = ClassSpace(("a", "b"))


def labels(rows: int, seed: int, metric: str = "accuracy") -> Labels:
    rng = np.random.default_rng(seed)
    fold, units = np.arange(rows) % 5, np.array([f"r{k}" for k in range(rows)])
    return Labels(rng.integers(2, size=rows), fold, units, scores.get(metric), SPACE)


def said(truth: Labels, knows: float, seed: int) -> Step:
    """Predictions that know so much of the truth."""
    rng = np.random.default_rng(seed)
    signal = knows * (2 * truth.targets - 1) + rng.normal(size=len(truth.targets))
    predicted = log_softmax(np.stack([-signal, signal], 1), axis=1)
    return Step(predicted, predicted)


def test_the_first_is_kept_and_then_what_is_really_better() -> None:
    truth = labels(200, 0)
    best = BestSoFar(truth)
    assert [best.add(said(truth, knows, k)) for k, knows in enumerate((0.5, 0.5, 2.0, 0.5))][::2] == [True, True]
    assert best.place == 2
    assert not best.add(said(truth, 0.5, 9))
    assert np.array_equal(best.answers, said(truth, 2.0, 2).answers)
    assert best.score.value == truth.score(said(truth, 2.0, 2).answers)


def test_each_fold_is_judged_by_what_the_others_keep() -> None:
    truth = labels(50, 1)
    good, bad = said(truth, 3.0, 0), said(truth, -3.0, 1)
    only_in_fold_0 = np.where((truth.fold == 0)[:, None], good.answers, bad.answers)
    best = BestSoFar(truth)
    best.add(said(truth, 0.0, 2))
    best.add(Step(only_in_fold_0, only_in_fold_0))  # good where nobody else may look
    assert np.array_equal(best.answers[truth.fold == 0], said(truth, 0.0, 2).answers[truth.fold == 0])


def test_forty_useless_tries_gain_nothing() -> None:
    """They are as good as one another, and whoever picks the best by its own rows thinks that it is better."""
    shown, naive = [], []
    for seed in range(30):
        truth = labels(60, seed)
        tries = [said(truth, 0.5, 100 * seed + k) for k in range(40)]
        best = BestSoFar(truth, better=0.0)
        for one in tries:
            best.add(one)
        shown.append(truth.score(best.answers))
        naive.append(truth.score(tries[best.place].answers))
    true = 0.691  # of a normal draw with mean .5, the share above 0
    assert abs(np.mean(shown) - true) < 0.025  # four standard errors
    assert np.mean(naive) > true + 0.06


def test_a_metric_of_the_order_is_compared_by_itself() -> None:
    truth = labels(120, 3, "roc_auc")
    best = BestSoFar(truth)
    best.add(said(truth, 0.5, 0))
    assert best.add(said(truth, 2.0, 1))
    assert best.score.value == truth.metric(truth.targets, SPACE.scored(best.answers))
