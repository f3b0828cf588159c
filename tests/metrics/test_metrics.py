"""Metrics: the numbers of scikit-learn, the right direction, and an interval that knows about groups."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta
from sklearn import metrics as sk

from foldcraft.common.errors import FoldcraftError
from foldcraft.metrics import bootstrap
from foldcraft.metrics import scores as score_functions
from foldcraft.metrics.bootstrap import bootstrap_scores
from foldcraft.metrics.intervals import bootstrap_interval
from foldcraft.metrics.scores import METRICS


def kappa(
    truth: np.ndarray,
    labels: np.ndarray,
    classes: int,
    weights: np.ndarray | None = None,
    cost: str | None = "quadratic",
) -> float:
    if np.array_equal(truth, labels):
        return 1.0  # where there is one class only, scikit-learn divides zero by zero
    return sk.cohen_kappa_score(truth, labels, labels=range(classes), weights=cost, sample_weight=weights)


def host_partial_auc(truth: np.ndarray, probabilities: np.ndarray, min_tpr: float = 0.8) -> float:
    """As ISIC 2024 had it: classes and scores turned round, the curve cut at a false positive rate of 1 - min_tpr."""
    fpr, tpr, _ = sk.roc_curve(1 - truth, -probabilities[:, 1])
    stop = np.searchsorted(fpr, 1 - min_tpr, "right")
    last = np.interp(1 - min_tpr, fpr[stop - 1 : stop + 1], tpr[stop - 1 : stop + 1])
    return sk.auc(np.append(fpr[:stop], 1 - min_tpr), np.append(tpr[:stop], last))


def host_weighted_log_loss(truth: np.ndarray, probabilities: np.ndarray, weights: dict[int, float]) -> float:
    """As PLAsTiCC had it: each class's mean, times its weight, over the sum of the weights."""
    met = [k for k in range(probabilities.shape[1]) if (truth == k).any()]
    losses = [-np.log(probabilities[truth == k, k]).mean() for k in met]
    return np.average(losses, weights=[weights.get(k, 1) for k in met])


def host_pf1(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """As RSNA 2022 had it: from probabilistic precision and recall."""
    found, wrong = probabilities[truth == 1, 1].sum(), probabilities[truth == 0, 1].sum()
    precision, recall = found / (found + wrong), found / max((truth == 1).sum(), 1)
    return 2 * precision * recall / (precision + recall) if precision and recall else 0.0


LABEL_REFERENCES = {
    "macro_f1": lambda truth, said, k, w=None: sk.f1_score(
        truth, said, average="macro", sample_weight=w, zero_division=0
    ),
    "weighted_f1": lambda truth, said, k, w=None: sk.f1_score(
        truth, said, average="weighted", sample_weight=w, zero_division=0
    ),
    "f1": lambda truth, said, k, w=None: sk.f1_score(truth, said, sample_weight=w, zero_division=0),
    "accuracy": lambda truth, said, k, w=None: sk.accuracy_score(truth, said, sample_weight=w),
    "balanced_accuracy": lambda truth, said, k, w=None: sk.balanced_accuracy_score(truth, said, sample_weight=w),
    "qwk": kappa,
    "cohen_kappa": lambda truth, said, k, w=None: kappa(truth, said, k, w, cost=None),
    "mcc": lambda truth, said, k, w=None: sk.matthews_corrcoef(truth, said, sample_weight=w),
    "macro_recall": lambda truth, said, k, w=None: sk.recall_score(
        truth, said, average="macro", sample_weight=w, zero_division=0
    ),
    "ordinal_mae": lambda truth, said, k, w=None: sk.mean_absolute_error(truth, said, sample_weight=w),
}
REFERENCES = {
    name: lambda truth, p, reference=reference: reference(truth, p.argmax(1), p.shape[1])
    for name, reference in LABEL_REFERENCES.items()
} | {
    "log_loss": lambda truth, p: sk.log_loss(truth, p, labels=range(p.shape[1])),
    "roc_auc": lambda truth, p: sk.roc_auc_score(truth, p if p.shape[1] > 2 else p[:, 1], multi_class="ovr"),
    "partial_auc": host_partial_auc,
    "weighted_log_loss": lambda truth, p: host_weighted_log_loss(truth, p, {}),
    "pf1": host_pf1,
}


def guesses(seed: int, rows: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Class indices, each of them met, and probabilities that know something of them."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.r_[np.arange(classes), rng.integers(0, classes, rows - classes)])
    probabilities = rng.dirichlet(np.ones(classes), rows) + np.eye(classes)[truth] * rng.random((rows, 1))
    return truth, probabilities / probabilities.sum(1, keepdims=True)


def classes_for(name: str, most: int) -> int:
    return score_functions.get(name).classes or most


def test_every_metric_has_a_reference() -> None:
    assert set(REFERENCES) == set(METRICS)
    assert {name for name, metric in METRICS.items() if metric.wants == "labels"} == set(LABEL_REFERENCES)


@pytest.mark.parametrize("name", METRICS)
@given(seed=st.integers(0, 2**16), classes=st.integers(2, 5))
@settings(max_examples=15)
def test_scores_are_those_of_scikit_learn(name: str, seed: int, classes: int) -> None:
    truth, probabilities = guesses(seed, classes=classes_for(name, classes))
    assert score_functions.get(name)(truth, probabilities) == pytest.approx(
        REFERENCES[name](truth, probabilities), abs=1e-9
    )


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
@pytest.mark.parametrize("name", LABEL_REFERENCES)
@given(data=st.data(), classes=st.integers(2, 5))
@settings(max_examples=40)
def test_few_weighted_labels_are_scored_as_scikit_learn_does(name: str, data: st.DataObject, classes: int) -> None:
    """Classes may lack in truth, in prediction or in both; many weightings are scored in one call."""
    classes = classes_for(name, classes)
    label = st.integers(0, classes - 1)
    rows = data.draw(st.lists(st.tuples(label, label), min_size=1, max_size=6))
    weights = data.draw(st.lists(st.sampled_from([0.25, 1, 3]), min_size=len(rows), max_size=len(rows)))
    truth, said = np.array(rows).T
    counts = np.zeros((2, classes, classes))
    np.add.at(counts[0], (truth, said), 1)
    np.add.at(counts[1], (truth, said), weights)

    scores = score_functions.get(name).of_confusion(counts)

    reference = LABEL_REFERENCES[name]
    wanted = [reference(truth, said, classes), reference(truth, said, classes, np.array(weights))]
    assert scores == pytest.approx(wanted, abs=1e-9)


def test_a_score_of_one_class_of_two_refuses_more() -> None:
    with pytest.raises(ValueError, match="2 classes, not 4"):
        score_functions.get("f1")(*guesses(0))


@pytest.mark.parametrize("name", METRICS)
def test_better_guesses_have_better_scores(name: str) -> None:
    metric = score_functions.get(name)
    classes = classes_for(name, 4)
    truth, probabilities = guesses(0, classes=classes)
    sure = 0.96 * np.eye(classes)[truth] + 0.04 / classes
    good, bad = metric(truth, sure), metric(truth, probabilities)
    assert metric.better(good, bad)
    assert not metric.better(bad, good)
    assert not metric.better(good, good)


@pytest.mark.parametrize("name", METRICS)
def test_a_fold_without_some_class_still_has_a_score(name: str) -> None:
    """Small folds, and draws of a bootstrap, may hold a single class."""
    classes = classes_for(name, 4)
    _, probabilities = guesses(0, rows=8, classes=classes)
    for truth, p in (
        (np.ones(8, int), probabilities),
        (np.ones(8, int), np.eye(classes)[np.ones(8, int)]),
        (np.arange(8) % 2, np.eye(classes)[np.arange(8) % 2]),
    ):
        assert np.isfinite(score_functions.get(name)(truth, p))


def test_a_sure_mistake_costs_much_but_not_all() -> None:
    log_loss = score_functions.get("log_loss")
    assert log_loss(np.array([0]), np.array([[1e-6, 1 - 1e-6]])) == pytest.approx(6 * np.log(10))
    assert 30 < log_loss(np.array([0]), np.array([[0.0, 1.0]])) < 40


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(FoldcraftError, match=r"competition\.metric.*makro_f1.*'macro_f1'"):
        score_functions.get("makro_f1")


@pytest.mark.parametrize("name", METRICS)
def test_the_interval_contains_the_score_and_is_always_the_same(name: str) -> None:
    metric = score_functions.get(name)
    truth, probabilities = guesses(1, rows=120, classes=classes_for(name, 4))
    own = np.arange(120)
    low, high = bootstrap_interval(metric, truth, probabilities, own, repeats=60)
    assert low < metric(truth, probabilities) < high
    assert bootstrap_interval(metric, truth, probabilities, own, repeats=60) == (low, high)


def test_copies_in_a_group_do_not_make_a_score_surer() -> None:
    """40 rows, each six times: by groups the interval is that of the 40, by rows it is far too narrow."""
    metric = score_functions.get("accuracy")
    truth, probabilities = guesses(2, rows=40)
    alone = np.subtract(*bootstrap_interval(metric, truth, probabilities, np.arange(40), repeats=5000))
    source = np.random.default_rng(0).permutation(np.repeat(np.arange(40), 6))
    copies = truth[source], probabilities[source]
    people = np.array([f"person {n}" for n in source])
    by_group = np.subtract(*bootstrap_interval(metric, *copies, people, repeats=5000))
    by_row = np.subtract(*bootstrap_interval(metric, *copies, np.arange(240), repeats=5000))
    assert by_group == pytest.approx(alone, rel=0.15)
    assert by_group / by_row == pytest.approx(np.sqrt(6), rel=0.2)


@pytest.mark.parametrize("name", METRICS)
def test_few_groups_of_one_class_each_still_have_an_interval(name: str) -> None:
    classes = classes_for(name, 3)
    truth = np.repeat(np.arange(classes), 5)
    sure = 0.97 * np.eye(classes)[truth] + 0.03 / classes
    low, high = bootstrap_interval(score_functions.get(name), truth, sure, groups=truth, repeats=60)
    assert low <= score_functions.get(name)(truth, sure) <= high  # neither is NaN


def test_no_error_among_few_rows_is_no_proof_that_there_is_none() -> None:
    """Jeffreys' interval of 0 wrong in 200 ends at 0.0125; ten times the rows of the same groups prove no more."""
    truth = np.arange(200) % 4
    accuracy = score_functions.get("accuracy")
    low, high = bootstrap_interval(accuracy, truth, np.eye(4)[truth], np.arange(200), repeats=2000)
    assert high == 1
    assert 1 - low == pytest.approx(beta.ppf(0.975, 0.5, 200.5), rel=0.25)
    truth, groups = np.tile(truth, 10), np.tile(np.arange(200), 10)
    assert bootstrap_interval(accuracy, truth, np.eye(4)[truth], groups)[0] == pytest.approx(low, abs=0.004)


@pytest.mark.parametrize(("classes", "rows", "right"), [(5, 200, 0.995), (5, 200, 0.9), (18, 400, 0.85)])
def test_nineteen_of_twenty_intervals_hold_the_truth(classes: int, rows: int, right: float) -> None:
    """Classes ten times as frequent as others; plain percentiles hold it in .5, .85 and .85 of these."""
    rng = np.random.default_rng(5)
    prior = np.geomspace(1, 0.1, classes)
    prior /= prior.sum()
    said = right * np.eye(classes) + (1 - right) * rng.dirichlet(np.full(classes, 0.5), classes)
    macro_f1 = score_functions.get("macro_f1")
    true_score = macro_f1.of_confusion((prior[:, None] * said)[None])[0]
    held = 0
    for _ in range(60):
        truth = rng.choice(classes, rows, p=prior)
        guess = (rng.random(rows)[:, None] > said[truth].cumsum(1)).sum(1)
        low, high = bootstrap_interval(macro_f1, truth, np.eye(classes)[guess], np.arange(rows), repeats=200)
        held += low <= true_score <= high
    assert held >= 54


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("cells", [1, 200, 2**18])
def test_a_draw_is_the_score_of_the_rows_drawn(name: str, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted out with rows copied as often as their group is drawn; however few draws are held at once."""
    monkeypatch.setattr(bootstrap, "CELLS", cells)
    metric = score_functions.get(name)
    classes = classes_for(name, 4)
    truth, a = guesses(3, rows=50, classes=classes)
    _, b = guesses(4, rows=50, classes=classes)
    groups = np.array([f"person {n}" for n in np.random.default_rng(5).integers(0, 12, 50)])
    names = np.unique(groups)

    scores = bootstrap_scores(metric, truth, [a, b], groups, repeats=20, seed=6)

    assert scores.shape == (2, 20)
    rng = np.random.default_rng(6)
    for each in scores.T:
        drawn = names[rng.integers(len(names), size=len(names))]
        rows = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
        assert each == pytest.approx([metric(truth[rows], a[rows]), metric(truth[rows], b[rows])], abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_rows_does_not_matter(name: str) -> None:
    truth, probabilities = guesses(7, rows=90, classes=classes_for(name, 3))
    groups = np.array([f"person {n}" for n in np.random.default_rng(8).integers(0, 30, 90)])
    order = np.random.default_rng(9).permutation(90)
    given_order = bootstrap_scores(score_functions.get(name), truth, [probabilities], groups, repeats=40)
    other = bootstrap_scores(score_functions.get(name), truth[order], [probabilities[order]], groups[order], repeats=40)
    if name in ("log_loss", "weighted_log_loss", "pf1"):  # sums of fractions are rounded
        assert other == pytest.approx(given_order, rel=1e-12)
    else:
        assert np.array_equal(other, given_order)


def test_a_hundred_classes_and_many_rows_take_little_memory() -> None:
    rows, classes = 30_000, 100
    rng = np.random.default_rng(0)
    truth = rng.integers(0, classes, rows)
    probabilities = rng.random((rows, classes), dtype=np.float32)
    tracemalloc.start()
    bootstrap_scores(score_functions.get("macro_f1"), truth, [probabilities] * 3, np.arange(rows), repeats=30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
