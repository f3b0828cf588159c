"""The forecast of the hidden score: what averaging fold models gains, other rows, and what the audit found."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax

from foldcraft.common.errors import FoldcraftError
from foldcraft.ensemble import nested, shift
from foldcraft.ensemble.averaging import Averaging, ambiguity, averaging
from foldcraft.ensemble.forecast import Forecast, forecast
from foldcraft.ensemble.nested import BlendMember, BlendSelection, Labels
from foldcraft.ensemble.shift import Shift
from foldcraft.metrics import other_rows, scores
from foldcraft.metrics.spaces import ClassSpace, LabelSpace, Space, ValueSpace

FOLDS, ROWS, HIDDEN, CLASSES = 5, 600, 8_000, 4
NAMES = tuple("abcd")
VALUES = ValueSpace(NAMES[:2], np.array([1.0, -3.0]), np.array([2.0, 0.5]))
SHARED, OWN = 0.8, 1.2  # noise that all fold models have, and that of each


def of_classes(rng: np.random.Generator, rows: int, models: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth (N,) and log-probabilities (F, N, K) of models that err together, and each by itself."""
    truth = rng.choice(CLASSES, rows, p=[0.4, 0.3, 0.2, 0.1])
    evidence = SHARED * rng.normal(size=(rows, CLASSES)) + OWN * rng.normal(size=(models, rows, CLASSES))
    evidence[:, np.arange(rows), truth] += 2
    return truth, log_softmax(evidence, axis=2)


def of_labels(rng: np.random.Generator, rows: int, models: int) -> tuple[np.ndarray, np.ndarray]:
    truth = (rng.random((rows, CLASSES)) < 0.3).astype(float)
    noise = SHARED * rng.normal(size=truth.shape) + OWN * rng.normal(size=(models, *truth.shape))
    return truth, 3 * truth - 2 + noise


def of_values(rng: np.random.Generator, rows: int, models: int) -> tuple[np.ndarray, np.ndarray]:
    truth = VALUES.centre + VALUES.scale * rng.normal(size=(rows, 2))
    noise = SHARED * rng.normal(size=truth.shape) + OWN * rng.normal(size=(models, *truth.shape))
    return truth, truth + VALUES.scale * noise / 2


KINDS = {
    "single": (of_classes, ClassSpace(NAMES)),
    "multilabel": (of_labels, LabelSpace(NAMES)),
    "regression": (of_values, VALUES),
}


def member(predicted: np.ndarray) -> list[BlendMember]:
    return [BlendMember("a", ("identity",), predicted[None])]


@cache
def judged(kind: str, metric: str) -> tuple[Labels, BlendSelection, np.ndarray, np.ndarray]:
    """A blend of one experiment; truth of many hidden rows, and what its fold models say of them (F, M, W)."""
    draw, space = KINDS[kind]
    rng = np.random.default_rng(0)
    targets, oof = draw(rng, ROWS, 1)
    judge = scores.get(metric, kind, NAMES[: space.width])
    truth = Labels(targets, np.arange(ROWS) % FOLDS, np.arange(ROWS).astype(str), judge, space)
    return truth, nested.judge(member(oof[0]), truth), *draw(rng, HIDDEN, FOLDS)


@pytest.mark.parametrize("kind", KINDS)
def test_ambiguity_is_mean_loss_minus_the_loss_of_the_pool_whatever_the_truth(kind: str) -> None:
    draw, space = KINDS[kind]
    truth, single = draw(np.random.default_rng(1), 50, FOLDS)
    pooled = space.pooled(single)
    for other in (truth, truth[::-1]):
        lower = np.mean([space.loss(one, other) for one in single]) - space.loss(pooled, other)
        assert ambiguity(space, pooled, single) == pytest.approx(lower, abs=1e-9)


def test_ambiguity_of_several_heads_is_that_of_their_mean_loss() -> None:
    space = ClassSpace(("h=a", "h=b", "g=a", "g=b", "g=c"), (2, 3))
    rng = np.random.default_rng(2)
    single = space.normalised(rng.normal(size=(3, 40, 5)))
    pooled, truth = space.pooled(single), np.stack([rng.integers(2, size=40), rng.integers(3, size=40)], axis=1)
    lower = np.mean([space.loss(one, truth) for one in single]) - space.loss(pooled, truth)
    assert ambiguity(space, pooled, single) == pytest.approx(lower, abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        ("single", "accuracy"),
        ("single", "macro_f1"),
        ("single", "log_loss"),
        ("single", "roc_auc"),
        ("multilabel", "macro_f1"),
        ("regression", "rmse"),
    ],
)
def test_the_gain_of_averaging_is_found_without_labels(kind: str, metric: str) -> None:
    truth, selection, targets, single = judged(kind, metric)

    def score(predicted: np.ndarray) -> float:
        answers = selection.chosen.plan.apply(member(predicted))
        return truth.metric(targets, truth.space.scored(answers))

    pooled = truth.space.pooled(single)
    true = score(pooled) - np.mean([score(one) for one in single])
    found = averaging(selection, truth, member(pooled), [member(one) for one in single])
    assert found.models == FOLDS
    assert truth.metric.sign * true > 0.02
    assert found.gain == pytest.approx(true, rel=0.3)


def of(rows: int, models: int = FOLDS, **more: object) -> Forecast:
    truth, selection, _, single = judged("single", "accuracy")
    some = single[:models, :300]
    return forecast(
        selection, truth, member(truth.space.pooled(some)), [member(one) for one in some], rows=rows, **more
    )


def test_the_hidden_score_lies_in_the_forecast_and_above_the_nested_score() -> None:
    truth, selection, targets, single = judged("single", "accuracy")
    answers = selection.chosen.plan.apply(member(truth.space.pooled(single)))
    hidden, found = truth.metric(targets, truth.space.scored(answers)), of(HIDDEN)
    assert found.nested == selection.chosen.score.value
    assert found.value == pytest.approx(found.nested + found.averaging.gain + found.spread.shift)
    assert found.low < hidden < found.high
    assert abs(found.value - hidden) < abs(found.nested - hidden)
    assert str(found).endswith(f"95 %, {HIDDEN} test rows)")


def test_one_fold_model_gains_nothing() -> None:
    found = of(300, models=1)
    assert found.averaging == Averaging(0.0, 0.0, 1)
    assert found.value == found.nested + found.spread.shift


def test_more_test_rows_make_it_narrower_down_to_what_out_of_fold_rows_leave_open() -> None:
    few, more, many = (of(rows, models=1) for rows in (50, 500, 50_000))
    widths = [one.high - one.low for one in (few, more, many)]
    assert widths[0] > 2 * widths[1]
    assert widths[1] > 1.3 * widths[2]
    _, selection, *_ = judged("single", "accuracy")
    score = selection.chosen.score
    assert widths[2] == pytest.approx(score.high - score.low, rel=0.25)


def test_draws_of_other_rows_spread_as_the_binomial_says() -> None:
    truth = np.zeros(1000, np.int64)
    predicted = np.eye(2)[(np.arange(1000) < 200).astype(int)]  # an accuracy of .8
    groups, accuracy = np.arange(1000), scores.get("accuracy")
    found = other_rows.spread(accuracy, truth, predicted, groups, 100)
    assert found.shift == pytest.approx(0, abs=0.006)
    assert (found.below, found.above) == (pytest.approx(0.078, abs=0.012), pytest.approx(0.078, abs=0.012))
    in_tens = other_rows.spread(accuracy, truth, predicted, groups // 10, 100)  # all ten right, or all ten wrong
    assert in_tens.below == pytest.approx(0.078 * 10**0.5, abs=0.06)


def test_macro_f1_of_few_rows_is_lower_in_the_mean() -> None:
    truth = (np.arange(1000) % 50 == 0).astype(int)
    predicted = np.eye(2)[np.where(np.arange(1000) % 10 == 5, 1 - truth, truth)]
    macro_f1 = scores.get("macro_f1")
    about = (macro_f1, truth, predicted, np.arange(1000))
    assert other_rows.spread(*about, 60).shift < -0.02
    assert other_rows.spread(*about, 1000).shift == pytest.approx(0, abs=0.005)


def test_a_hosts_metric_that_cannot_score_few_rows_spreads_as_a_mean_does() -> None:
    known = scores.get("accuracy")

    def score(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
        if (weights.sum(0) < len(truth)).any():
            raise FoldcraftError("too few rows")
        return ((truth == predicted.argmax(1)) @ weights) / weights.sum(0)

    host = replace(known, of_confusion=None, of_weights=score, draws=500)
    truth, predicted = np.zeros(1000, np.int64), np.eye(2)[(np.arange(1000) < 200).astype(int)]
    about = (truth, predicted, np.arange(1000))
    few = other_rows.spread(host, *about, 250)
    assert (few.below, few.above) == (pytest.approx(0.05, abs=0.012), pytest.approx(0.05, abs=0.012))
    with pytest.raises(FoldcraftError, match="too few rows"):
        other_rows.spread(replace(host, draws=None), *about, 250)


def test_a_shift_lowers_the_worse_end_alone() -> None:
    found = Shift(auc=0.82, chance=0.5)
    assert found.share == pytest.approx(0.4)  # 1 - sqrt(2 - 2 * .82)
    assert Shift(auc=0.7, chance=0.7).share == 0
    plain, moved = of(300), of(300, shift=found)
    truth = judged("single", "accuracy")[0]
    likeliest = np.bincount(truth.targets).max() / ROWS  # what answers without an image score
    assert plain.low - moved.low == pytest.approx(0.4 * (plain.nested - likeliest))
    assert (moved.value, moved.high) == (plain.value, plain.high)
    assert "AUC 0.82, by chance 0.50" in moved.words[-1]


def test_the_shift_is_read_from_the_audit(tmp_path: Path) -> None:
    assert shift.found_by_audit(tmp_path) is None
    row = {"question": "train or test", "by": "frozen features", "auc": 0.9, "chance": 0.6, "found": True}
    other = {**row, "by": "bytes", "auc": 1.0}
    pd.DataFrame([other, row]).to_csv(tmp_path / "leaks.csv", index=False)
    assert shift.found_by_audit(tmp_path) == Shift(0.9, 0.6)
    pd.DataFrame([other, {**row, "found": False}]).to_csv(tmp_path / "leaks.csv", index=False)
    assert shift.found_by_audit(tmp_path) is None


def test_shares_of_votes_are_averaged_as_classes_are() -> None:
    rng = np.random.default_rng(3)
    space: Space = ClassSpace(NAMES)
    votes = rng.dirichlet([0.5] * CLASSES, ROWS)
    noise = rng.normal(size=(FOLDS + 1, ROWS, CLASSES))
    said = space.normalised(np.log(votes + 0.02) + noise)
    judge = scores.get("kl", "soft", NAMES)
    truth = Labels(votes, np.arange(ROWS) % FOLDS, np.arange(ROWS).astype(str), judge, space)
    selection = nested.judge(member(said[0]), truth)
    pooled = space.pooled(said[1:])
    found = averaging(selection, truth, member(pooled), [member(one) for one in said[1:]])

    def score(predicted: np.ndarray) -> float:
        return judge(votes, space.scored(selection.chosen.plan.apply(member(predicted))))

    true = score(pooled) - np.mean([score(one) for one in said[1:]])
    assert found.gain == pytest.approx(true, rel=0.3)
    assert found.gain == pytest.approx(-found.ambiguity, rel=0.05)  # the loss is the metric here
