"""Metrics of every kind of target: their values by another way, weights of rows, options, intervals."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics.test_metrics import host_partial_auc, host_pf1, host_weighted_log_loss
from scipy import stats
from sklearn import metrics as sk

from foldcraft.common.errors import FoldcraftError
from foldcraft.metrics import catalogue
from foldcraft.metrics.bootstrap import bootstrap_scores
from foldcraft.metrics.gain import gain_in_score
from foldcraft.metrics.intervals import bootstrap_interval
from foldcraft.metrics.scores import METRICS, Metric, get

pytestmark = pytest.mark.integration

NAMES = {
    "single": ("a", "b", "c", "d"),
    "soft": ("a", "b", "c"),
    "multilabel": ("a", "b", "c", "d"),
    "regression": ("a", "b", "c"),
    "multioutput": ("a", "b"),
}
WIDTHS = (3, 2)
SHARES = {"a": 2, "c": 0.5}  # the others have 1


def answers(kind: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction with ties, missing cells, a constant column, a class or label that no row may have."""
    rng = np.random.default_rng(seed)
    count = len(NAMES.get(kind, "ab"))
    if kind in ("single", "two"):
        return rng.integers(0, min(3, count), rows), probabilities(rng, rows, count)
    if kind == "soft":
        truth = np.floor(probabilities(rng, rows, count) * 4)
        truth[:, 0] += truth.sum(1) == 0
        return truth / truth.sum(1, keepdims=True), probabilities(rng, rows, count)
    if kind == "multilabel":
        truth = (rng.random((rows, count)) < rng.random(count)).astype(float)
        truth[rng.random((rows, count)) < 0.15] = np.nan
        truth[:, -1] = rng.choice([0, 1, np.nan])
        return truth, rng.integers(1, 10, (rows, count)) / 10
    if kind == "regression":
        truth = rng.integers(0, 6, (rows, count)) + 0.1
        truth[:, -1] = 0.3
        truth[rng.random((rows, count)) < 0.15] = np.nan
        return truth, rng.integers(0, 8, (rows, count)) / 2 + 0.1
    truth = np.stack([rng.integers(-1, width, rows) for width in WIDTHS], axis=1)
    return truth, np.concatenate([probabilities(rng, rows, width) for width in WIDTHS], axis=1)


def probabilities(rng: np.random.Generator, rows: int, classes: int) -> np.ndarray:
    ticks = rng.integers(1, 5, (rows, classes))
    return ticks / ticks.sum(1, keepdims=True)


def average(pairs: list[tuple[float, float]], empty: float = np.nan) -> float:
    """Of values and their weights."""
    return np.average([value for value, _ in pairs], weights=[weight for _, weight in pairs]) if pairs else empty


def mean_of(parts: list, shares: dict, names: tuple[str, ...], empty: float = np.nan) -> float:
    """Over the columns that have a score."""
    there = [(part, shares.get(name, 1)) for part, name in zip(parts, names, strict=True) if part is not None]
    return average(there, empty)


def each_column(score: Callable, asked: Callable = lambda truth: len(truth) > 0, empty: float = np.nan) -> Callable:
    """The mean over columns of another library's score of the cells known; None for what it is not asked."""

    def reference(truth: np.ndarray, predicted: np.ndarray, kind: str, shares: dict) -> float:
        known = [~np.isnan(column) for column in truth.T]
        cells = [(truth[rows, k], predicted[rows, k]) for k, rows in enumerate(known)]
        parts = [score(true, said) if asked(true) else None for true, said in cells]
        return mean_of(parts, shares, NAMES[kind], empty)

    return reference


def each_row(
    score: Callable, asked: Callable = lambda truth: len(truth) > 0, weight: Callable | None = None
) -> Callable:
    def reference(truth: np.ndarray, predicted: np.ndarray, kind: str, shares: dict) -> float:
        cells = [(true[~np.isnan(true)], said[~np.isnan(true)]) for true, said in zip(truth, predicted, strict=True)]
        there = [(score(true, said), weight(true) if weight else 1) for true, said in cells if asked(true)]
        return average(there)

    return reference


def each_head(score: Callable) -> Callable:
    def reference(truth: np.ndarray, predicted: np.ndarray, kind: str, shares: dict) -> float:
        parts, start = [], 0
        for head, width in enumerate(WIDTHS):
            rows, part = truth[:, head] >= 0, predicted[:, start : start + width]
            parts.append(score(truth[rows, head], part[rows]) if rows.any() else None)
            start += width
        return mean_of(parts, shares, NAMES[kind])

    return reference


def f1(empty: int) -> Callable:
    return lambda true, said: sk.f1_score(true, said > 0.5, zero_division=empty)


def all_cells(score: Callable) -> Callable:
    def reference(truth: np.ndarray, predicted: np.ndarray, kind: str, shares: dict) -> float:
        weights = np.broadcast_to([shares.get(name, 1) for name in NAMES[kind]], truth.shape)
        known = ~np.isnan(truth)
        return score(truth[known], predicted[known], weights[known]) if known.any() else np.nan

    return reference


def pooled_r2(true: np.ndarray, said: np.ndarray, weights: np.ndarray) -> float:
    """As CSIRO Biomass had it, word for word."""
    middle = (weights * true).sum() / weights.sum()
    spread = (weights * (true - middle) ** 2).sum()
    return 1 - (weights * (true - said) ** 2).sum() / spread if np.ptp(true) else float(np.array_equal(true, said))


def plain_r2(true: np.ndarray, said: np.ndarray) -> float:
    return sk.r2_score(true, said) if np.ptp(true) else float(np.array_equal(true, said))


def correlation(of: Callable) -> Callable:
    return lambda true, said: of(true, said).statistic if np.ptp(said) else 0.0


def varies(truth: np.ndarray) -> bool:
    return len(np.unique(truth)) > 1


def of_list(score: Callable) -> Callable:
    """By the place of the true class in the list that a host would be sent."""

    def reference(truth: np.ndarray, predicted: np.ndarray, kind: str, shares: dict) -> float:
        lists = [sorted(range(len(row)), key=lambda k, row=row: (-row[k], k)) for row in predicted]
        return np.mean([score(ranked[:2], true) for ranked, true in zip(lists, truth, strict=True)])

    return reference


def weighted_recall(true: np.ndarray, said: np.ndarray, kind: str, shares: dict) -> float:
    met = np.union1d(true, said.argmax(1))
    recalls = sk.recall_score(true, said.argmax(1), labels=met, average=None, zero_division=0)
    return np.average(recalls, weights=[shares.get(NAMES[kind][k], 1) for k in met])


def of_rows(score: Callable) -> Callable:
    return lambda truth, predicted, kind, shares: score(truth, predicted)


@dataclass(frozen=True)
class Case:
    spec: dict
    kind: str
    reference: Callable

    @property
    def metric(self) -> Metric:
        kind = "single" if self.kind == "two" else self.kind
        return get(self.spec, kind, NAMES.get(self.kind, ()), WIDTHS)

    def wanted(self, truth: np.ndarray, predicted: np.ndarray) -> float:
        return float(self.reference(truth, predicted, self.kind, self.spec.get("weights", {})))

    def __str__(self) -> str:
        return "-".join([self.kind, *(str(value) for value in self.spec.values() if value is not SHARES)])


MACRO = {"average": "macro", "zero_division": 0}
CASES = [
    Case({"name": "macro_recall", "weights": SHARES}, "single", weighted_recall),
    Case({"name": "top_k_accuracy", "k": 2}, "single", of_list(lambda ranked, true: true in ranked)),
    Case(
        {"name": "map_at_k", "k": 2},
        "single",
        of_list(lambda ranked, true: 1 / (1 + ranked.index(true)) if true in ranked else 0),
    ),
    Case(
        {"name": "weighted_log_loss", "weights": SHARES},
        "single",
        of_rows(lambda t, p: host_weighted_log_loss(t, p, {0: 2, 2: 0.5})),
    ),
    Case({"name": "pf1"}, "two", of_rows(host_pf1)),
    Case(
        {"name": "partial_auc", "min_tpr": 0.55},
        "two",
        of_rows(lambda t, p: host_partial_auc(t, p, 0.55) if varies(t) else 0.45**2 / 2),
    ),
    Case(
        {"name": "kl"}, "soft", of_rows(lambda t, p: np.mean([stats.entropy(*row) for row in zip(t, p, strict=True)]))
    ),
    Case(
        {"name": "log_loss"},
        "soft",
        of_rows(lambda t, p: np.mean([-(a @ np.log(b)) for a, b in zip(t, p, strict=True)])),
    ),
    Case({"name": "macro_f1", "weights": SHARES}, "multilabel", each_column(f1(0))),
    Case({"name": "macro_f1", "zero_division": 1}, "multilabel", each_column(f1(1))),
    Case({"name": "micro_f1"}, "multilabel", all_cells(lambda true, said, w: f1(0)(true, said))),
    Case({"name": "sample_f1"}, "multilabel", each_row(f1(0))),
    Case({"name": "sample_f1", "zero_division": 1}, "multilabel", each_row(f1(1))),
    Case({"name": "accuracy"}, "multilabel", each_row(lambda true, said: np.array_equal(true, said > 0.5))),
    Case({"name": "mean_auc", "weights": SHARES}, "multilabel", each_column(sk.roc_auc_score, varies, 0.5)),
    Case(
        {"name": "mean_average_precision", "weights": SHARES},
        "multilabel",
        each_column(sk.average_precision_score, lambda truth: (truth == 1).any()),
    ),
    Case(
        {"name": "lwlrap"},
        "multilabel",
        each_row(
            lambda true, said: sk.label_ranking_average_precision_score([true], [said]),
            lambda true: (true == 1).any(),
            np.sum,
        ),
    ),
    Case(
        {"name": "log_loss", "weights": SHARES},
        "multilabel",
        each_column(lambda t, p: sk.log_loss(t, p, labels=[0, 1])),
    ),
    Case({"name": "rmse", "weights": SHARES}, "regression", each_column(sk.root_mean_squared_error)),
    Case(
        {"name": "rmse", "weights": SHARES, "pooled": True},
        "regression",
        all_cells(lambda t, p, w: sk.root_mean_squared_error(t, p, sample_weight=w)),
    ),
    Case({"name": "mae", "weights": SHARES}, "regression", each_column(sk.mean_absolute_error)),
    Case({"name": "r2", "weights": SHARES}, "regression", each_column(plain_r2)),
    Case({"name": "r2", "weights": SHARES, "pooled": True}, "regression", all_cells(pooled_r2)),
    Case({"name": "rmsle", "weights": SHARES}, "regression", each_column(sk.root_mean_squared_log_error)),
    Case({"name": "pearson", "weights": SHARES}, "regression", each_column(correlation(stats.pearsonr), varies, 0)),
    Case({"name": "spearman", "weights": SHARES}, "regression", each_column(correlation(stats.spearmanr), varies, 0)),
    Case(
        {"name": "rmse_over_std", "weights": SHARES},
        "regression",
        each_column(lambda t, p: sk.root_mean_squared_error(t, p) / np.std(t), varies),
    ),
    Case(
        {"name": "mean_accuracy", "weights": {"a": 2}}, "multioutput", each_head(lambda t, p: (t == p.argmax(1)).mean())
    ),
    Case(
        {"name": "macro_recall", "weights": {"a": 2}},
        "multioutput",
        each_head(lambda t, p: sk.recall_score(t, p.argmax(1), **MACRO)),
    ),
    Case({"name": "macro_f1"}, "multioutput", each_head(lambda t, p: sk.f1_score(t, p.argmax(1), **MACRO))),
    Case(
        {"name": "log_loss", "weights": {"a": 2}},
        "multioutput",
        each_head(lambda t, p: sk.log_loss(t, p, labels=range(p.shape[1]))),
    ),
]

every = pytest.mark.parametrize("case", CASES, ids=str)


def test_every_metric_has_a_second_way() -> None:
    """Those of one label a row that need no option have theirs in test_metrics."""
    there = {(case.spec["name"], case.metric.kinds) for case in CASES}
    plain = {(name, one.kinds) for name, one in METRICS.items()}
    assert {(entry.name, entry.kinds) for entry in catalogue.ENTRIES} == there | plain


@pytest.mark.filterwarnings("ignore")  # of the other libraries, where a class or a value is alone
@every
@given(seed=st.integers(0, 2**16), rows=st.sampled_from([1, 2, 3, 24]))
@settings(max_examples=8)
def test_scores_are_those_of_another_way_and_weights_are_repeated_rows(case: Case, seed: int, rows: int) -> None:
    metric = case.metric
    truth, predicted = answers(case.kind, rows, seed)
    weights = np.random.default_rng(seed).integers(0, 4, (rows, 3))
    weights[0] += 1
    again = [np.repeat(np.arange(rows), column) for column in weights.T]
    wanted = [case.wanted(truth[place], predicted[place]) for place in again]

    assert metric(truth, predicted) == pytest.approx(case.wanted(truth, predicted), abs=1e-9, nan_ok=True)
    assert [metric(truth, predicted, column) for column in weights.T] == pytest.approx(wanted, abs=1e-9, nan_ok=True)
    if metric.of_weights:
        at_once = metric.of_weights(truth, predicted, weights.astype(float))
        assert at_once == pytest.approx(wanted, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", ["macro_f1", "qwk", "mcc", "ordinal_mae", "log_loss", "roc_auc"])
def test_rows_of_one_label_are_weighted_as_well(name: str) -> None:
    truth, predicted = answers("single", 50, 1)
    weights = np.random.default_rng(2).integers(0, 4, 50)
    again = np.repeat(np.arange(50), weights)
    assert get(name)(truth, predicted, weights) == pytest.approx(get(name)(truth[again], predicted[again]), abs=1e-12)


@every
def test_a_draw_of_weighted_rows_and_its_interval(case: Case) -> None:
    metric = case.metric
    truth, a = answers(case.kind, 60, 3)
    _, b = answers(case.kind, 60, 4)
    groups, weights = np.arange(60) // 3, np.random.default_rng(5).integers(1, 4, 60)
    drawn = bootstrap_scores(metric, truth, [a, b], groups, 30, 6, weights)
    unit = np.random.default_rng(6).integers(20, size=(30, 20))[0]
    rows = np.concatenate([np.repeat(np.flatnonzero(groups == group), weights[groups == group]) for group in unit])
    assert drawn[:, 0] == pytest.approx([metric(truth[rows], each[rows]) for each in (a, b)], abs=1e-9)
    low, high = bootstrap_interval(metric, truth, a, groups, repeats=60, row_weights=weights)
    assert low <= metric(truth, a, weights) <= high
    assert low < high
    value, error = gain_in_score(metric, truth, a, b, groups, repeats=30, row_weights=weights)
    assert value == metric.sign * (metric(truth, a, weights) - metric(truth, b, weights))
    assert error > 0


@pytest.mark.parametrize("name", ["macro_f1", "log_loss", "mean_average_precision"])
def test_a_draw_without_a_known_label_has_the_score_of_all(name: str) -> None:
    truth = np.full((4, 2), np.nan)
    truth[0] = 1, 0
    metric = get(name, "multilabel", ("a", "b"))
    predicted = np.array([[0.8, 0.6]] * 4)
    drawn = bootstrap_scores(metric, truth, [predicted], np.arange(4), 50)
    assert drawn == pytest.approx(np.full((1, 50), metric(truth, predicted)))
    assert np.isnan(metric(np.full((4, 2), np.nan), predicted)), "nothing is known: no score"


def test_a_loss_by_labels_is_not_proven_to_be_nought_by_few_rows() -> None:
    """Of a loss the upper end allows for errors that were not seen; of a score, and so far, the lower one."""
    truth = np.arange(40) % 4
    low, high = bootstrap_interval(get("ordinal_mae"), truth, np.eye(4)[truth], np.arange(40))
    assert low == 0
    assert 0.03 < high < 0.3


def test_an_order_is_all_that_some_metrics_look_at() -> None:
    """Those are the same when all predictions of a column are squeezed, and the others are not."""
    for case in CASES:
        if case.kind in ("multilabel", "regression", "two"):
            truth, predicted = answers(case.kind, 80, 7)
            squeezed = predicted**3 / 100
            same = case.metric(truth, predicted) == pytest.approx(case.metric(truth, squeezed), abs=1e-12)
            assert same == (case.metric.by_order or case.spec["name"] == "lwlrap"), case


def test_large_values_keep_their_digits() -> None:
    rng = np.random.default_rng(8)
    truth = 1e7 + rng.normal(size=(200, 1))
    predicted = truth + 0.5 * rng.normal(size=(200, 1))
    assert get("r2", "regression")(truth, predicted) == pytest.approx(sk.r2_score(truth, predicted), abs=1e-6)
    wanted = stats.pearsonr(truth[:, 0], predicted[:, 0]).statistic
    assert get("pearson", "regression")(truth, predicted) == pytest.approx(wanted, abs=1e-6)


def test_a_value_below_zero_has_no_logarithmic_error() -> None:
    with pytest.raises(FoldcraftError, match=r"competition\.metric: rmsle takes no values below 0, and -3 is among"):
        get("rmsle", "regression")(np.array([[1.0], [-3.0]]), np.ones((2, 1)))


@pytest.mark.parametrize(
    ("spec", "kind", "said"),
    [
        ("makro_f1", "single", r"unknown metric 'makro_f1'; did you mean 'macro_f1'\?"),
        ("rsme", "regression", r"unknown metric 'rsme'; did you mean 'rmse'\?"),
        ("rmse", "single", "rmse scores targets of the kind regression, and this one is single; for single: macro_f1"),
        ("qwk", "multilabel", "qwk scores targets of the kind single or ordinal, and this one is multilabel"),
        ({"name": "map_at_k"}, "single", r"map_at_k needs the option 'k'; write {name: map_at_k, k: 5}"),
        ({"name": "map_at_k", "k": 0}, "single", "k of map_at_k is a whole number from 1 on, not 0"),
        ({"name": "map_at_k", "k": True}, "single", "k of map_at_k is a whole number from 1 on, not True"),
        ({"name": "map_at_k", "k": 2.5}, "single", "k of map_at_k is a whole number from 1 on, not 2.5"),
        ({"name": "map_at_k", "k": 5, "kk": 1}, "single", "map_at_k has no option 'kk'; known: k"),
        ({"name": "macro_f1", "weights": {"a": 2}}, "single", "macro_f1 has no option 'weights'; it takes none"),
        (
            {"name": "partial_auc", "min_tpr": 1},
            "single",
            "min_tpr of partial_auc is a number from 0 to below 1, not 1",
        ),
        ({"name": "r2", "pooled": "yes"}, "regression", "pooled of r2 is true or false, not 'yes'"),
        ({"name": "sample_f1", "zero_division": 2}, "multilabel", "zero_division of sample_f1 is 0 or 1, not 2"),
        ({"name": "mae", "weights": {"aa": 1}}, "regression", r"weights: 'aa' is not there; known: a, b"),
        ({"name": "mae", "weights": {"a": -1}}, "regression", "weights: the weight of 'a' is -1; it must be a number"),
        ({"name": "mae", "weights": {"a": "x"}}, "regression", "weights: the weight of 'a' is 'x'"),
        ({"name": "mae", "weights": {"a": float("nan")}}, "regression", "weights: the weight of 'a' is nan"),
        ({"name": "mae", "weights": {"a": 0, "b": 0}}, "regression", "weights: 2 weights, and all are 0"),
        ({"name": "mae", "weights": [1, 2]}, "regression", r"weights: \[1, 2\] are no weights"),
        ({"k": 5}, "single", r".*names no metric; write a name, or {name: map_at_k, k: 5}"),
        (None, "single", "'None' names no metric"),
        ("pf1", "ordinal", r"pf1 is made for 2 classes, there are 3"),
        ("x" * 900, "single", "unknown metric 'xxx"),
    ],
)
def test_what_is_no_metric_is_told_in_one_line(spec: object, kind: str, said: str) -> None:
    names = ("a", "b") if kind in ("regression", "multilabel") else ("a", "b", "c")
    with pytest.raises(FoldcraftError, match=rf"^competition\.metric: {said}") as told:
        get(spec, kind, names)
    assert len(str(told.value)) < 300


def test_one_name_has_one_direction_and_options_are_said() -> None:
    for entry in catalogue.ENTRIES:
        known = catalogue.known(entry.name)
        assert (known.greater_is_better, known.bounds) == (entry.greater_is_better, entry.bounds)
    chosen = get({"name": "r2", "weights": {"a": 0.5, "b": 2}, "pooled": True}, "regression", ("a", "b"))
    assert (chosen.name, chosen.options) == ("r2", "weights of a 0.5, b 2, pooled true")
    assert get("macro_f1", "ordinal") is get({"name": "macro_f1"}, names=("a", "b")) is get("macro_f1")
    assert get("partial_auc").bounds == (0, 0.2)
    assert pickle.loads(pickle.dumps(chosen)).options == chosen.options
