"""Linear probes: no row has a say in its own prediction, and every setting does what it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from tables import class_space

from foldcraft.common.config import ProbeConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.models.stage_features import Stage
from foldcraft.predictions import linear_probe
from foldcraft.predictions.linear_probe import Probe, Rows

FOLDS, CLASSES = 3, 3
STAGES = (Stage("early", 12), Stage("head", 18))


def data(rows: int = 90, apart: float = 1.0, shares: tuple[float, ...] | None = None, seed: int = 0) -> Rows:
    """Features of two stages, of classes that lie `apart`."""
    rng = np.random.default_rng(seed)
    targets = rng.choice(CLASSES, rows, p=shares)
    width = sum(stage.width for stage in STAGES)
    centres = rng.normal(0, apart, (CLASSES, width))
    features = (rng.normal(0, 1, (rows, width)) + centres[targets]).astype(np.float16)
    return Rows(STAGES, [features], features, targets, np.arange(rows) % FOLDS, class_space(CLASSES))


def direction(solved: Probe, fold: int) -> torch.Tensor:
    """A fold's head without its scale."""
    return torch.nn.functional.normalize(solved.folds[fold].head.weight.flatten(), dim=0)


def loss(solved: Probe, rows: Rows) -> float:
    return -float(solved.predicted[np.arange(len(rows.targets)), rows.targets].mean())


def balanced(solved: Probe, rows: Rows) -> float:
    return balanced_accuracy_score(rows.targets, solved.predicted.argmax(1))


def relabelled(rows: Rows, row: int) -> Rows:
    targets = rows.targets.copy()
    targets[row] = (targets[row] + 1) % CLASSES
    return replace(rows, targets=targets)


# Clean folds


@pytest.mark.parametrize("solver", ["ridge", "logistic"])
def test_a_rows_label_has_no_say_in_the_head_that_judges_it(solver: str) -> None:
    rows, config = data(), ProbeConfig(solver=solver, strengths=[0.01])
    before, after = linear_probe.solve(rows, config), linear_probe.solve(relabelled(rows, 0), config)
    assert rows.fold[0] == 0
    torch.testing.assert_close(direction(before, 0), direction(after, 0), atol=1e-6, rtol=0)
    assert before.predicted[0].argsort().tolist() == after.predicted[0].argsort().tolist()
    for other in (1, 2):
        assert (direction(before, other) - direction(after, other)).abs().max() > 1e-4, "it is learned from elsewhere"


def test_copies_of_an_image_stay_in_its_fold() -> None:
    """Each image has a feature of its own: a head that saw a copy of it knows the label by heart."""
    rng = np.random.default_rng(0)
    count = 60
    marks = np.eye(count, dtype=np.float16)
    rows = Rows(
        (Stage("head", count),),
        [marks, marks + rng.normal(0, 1e-3, marks.shape).astype(np.float16), marks],
        marks,
        rng.integers(0, CLASSES, count),
        np.arange(count) % FOLDS,
        class_space(CLASSES),
    )
    solved = linear_probe.solve(rows, ProbeConfig(strengths=[1e-3]))
    assert np.mean(solved.predicted.argmax(1) == rows.targets) < 0.6

    leaky = replace(rows, fold=np.zeros(count, int))  # one fold of all rows, and a second one of none that learns all
    leaky.fold[0] = 1
    known = solved_logits(leaky, fold=1)
    assert np.mean(known[1:].argmax(1) == rows.targets[1:]) == 1, "the marks can be learned by heart"


def solved_logits(rows: Rows, fold: int) -> np.ndarray:
    return linear_probe.solve(rows, ProbeConfig(strengths=[1e-3])).outputs(fold, [rows.plain])[0].numpy()


def test_every_copy_keeps_the_label_of_its_image() -> None:
    rows = data()
    once = linear_probe.solve(rows, ProbeConfig())
    thrice = linear_probe.solve(replace(rows, learned=[rows.plain] * 3), ProbeConfig())
    np.testing.assert_allclose(thrice.predicted, once.predicted, atol=1e-3)


@pytest.mark.parametrize("solver", ["ridge", "logistic"])
def test_strength_and_scale_are_chosen_by_the_other_folds_rows(solver: str) -> None:
    """What the plain rows look like matters to the choice alone: heads learn from `learned`."""
    rows, config = data(), ProbeConfig(solver=solver)
    before = linear_probe.solve(rows, config)
    plain = rows.plain.copy()
    plain[rows.fold == 0] = np.random.default_rng(1).normal(0, 3, plain[rows.fold == 0].shape)
    after = linear_probe.solve(replace(rows, plain=plain), config)

    assert after.folds[0].strength == before.folds[0].strength
    torch.testing.assert_close(after.folds[0].head.weight, before.folds[0].head.weight)
    for other in (1, 2):
        assert after.folds[other].head.weight.norm() < 0.5 * before.folds[other].head.weight.norm(), "less sure"


@pytest.mark.parametrize(
    ("count", "strengths", "best"), [(300, [1e-5, 1.0], 1e-5), (45, [1e-5, 0.1], 0.1)], ids=["many rows", "few rows"]
)
def test_the_strength_of_least_loss_is_chosen(count: int, strengths: list[float], best: float) -> None:
    rows = data(count, apart=0.5)
    losses = {
        strength: loss(linear_probe.solve(rows, ProbeConfig(strengths=[strength])), rows) for strength in strengths
    }
    chosen = linear_probe.solve(rows, ProbeConfig(strengths=strengths))
    assert min(losses, key=losses.__getitem__) == best
    assert [fold.strength for fold in chosen.folds] == [best] * FOLDS
    assert loss(chosen, rows) == pytest.approx(losses[best], abs=1e-6)


def test_what_is_kept_of_each_row_is_the_prediction_of_its_folds_head() -> None:
    rows = data()
    solved = linear_probe.solve(rows, ProbeConfig(stages=["early"]))
    assert solved.stages == ["early"]
    assert solved.columns.tolist() == list(range(12))
    for fold in range(FOLDS):
        predicted = solved.outputs(fold, [rows.plain, rows.plain]).log_softmax(2).numpy()
        assert predicted.shape == (2, len(rows.targets), CLASSES)
        np.testing.assert_allclose(predicted[1][rows.fold == fold], solved.predicted[rows.fold == fold], atol=1e-5)
        np.testing.assert_allclose(np.exp(predicted).sum(2), 1, atol=1e-5)


# Rare classes


RARE = (0.8, 0.15, 0.05)


@pytest.mark.parametrize("solver", ["ridge", "logistic"])
def test_weighted_and_sampler_let_all_classes_count_alike(solver: str) -> None:
    rows, config = data(300, 0.4, RARE), ProbeConfig(solver=solver)
    plain, weighted, sampler = (linear_probe.solve(rows, config, kind) for kind in ("none", "weighted", "sampler"))
    assert balanced(weighted, rows) > balanced(plain, rows) + 0.1
    np.testing.assert_array_equal(sampler.predicted, weighted.predicted)

    counts = np.bincount(rows.targets)  # a weight is a row that comes more than once
    rare = np.resize(np.flatnonzero(rows.targets == 2), counts[0])
    middle = np.resize(np.flatnonzero(rows.targets == 1), counts[0])
    level = np.concatenate([np.flatnonzero(rows.targets == 0), middle, rare])
    same = replace(rows, learned=[rows.plain[level]], plain=rows.plain[level], targets=rows.targets[level])
    assert (
        balanced(linear_probe.solve(replace(same, fold=rows.fold[level]), config), same) > balanced(plain, rows) + 0.1
    )


@pytest.mark.parametrize(
    "solver",
    [
        "logistic",
        pytest.param(
            "ridge",
        ),
    ],
)
def test_logit_adjusted_takes_the_prior_out_and_spoils_nothing_clear(solver: str) -> None:
    config = ProbeConfig(solver=solver)
    blurred = data(300, 0.4, RARE)
    assert balanced(linear_probe.solve(blurred, config, "logit_adjusted"), blurred) > (
        balanced(linear_probe.solve(blurred, config), blurred) + 0.05
    )
    clear = data(300, 4.0, RARE)
    assert balanced(linear_probe.solve(clear, config, "logit_adjusted"), clear) > 0.99


def test_focal_loss_has_no_closed_form() -> None:
    with pytest.raises(FoldcraftError, match="focal loss has no closed-form head") as error:
        linear_probe.solve(data(), ProbeConfig(), "focal")
    assert error.value.where == "train.imbalance"


# Stages


def test_a_stage_of_weight_nought_is_a_stage_left_out() -> None:
    rows = data()
    without = linear_probe.solve(rows, ProbeConfig(stages=["head"]))
    zero = linear_probe.solve(rows, ProbeConfig(stage_weights={"early": 0}))
    np.testing.assert_allclose(zero.predicted, without.predicted, atol=1e-4)
    assert zero.folds[0].head.weight[..., :12].abs().max() == 0
    both = linear_probe.solve(rows, ProbeConfig())
    assert np.abs(both.predicted - without.predicted).max() > 0.01


def test_a_heavier_stage_bears_more_of_the_head() -> None:
    rows, strong = data(), [0.03]

    def share(weights: dict[str, float]) -> float:
        weight = linear_probe.solve(rows, ProbeConfig(stage_weights=weights, strengths=strong)).folds[0].head.weight
        return float(weight[..., :12].norm() / weight.norm())

    assert share({"early": 0.3}) < share({}) < share({"early": 3})


@pytest.mark.parametrize("weights", [{"haed": 2.0}, {"early": 0.0, "head": 0.0}], ids=["no such stage", "all zero"])
def test_stage_weights_that_cannot_be(weights: dict[str, float]) -> None:
    with pytest.raises(FoldcraftError, match="stage_weights"):
        linear_probe.solve(data(), ProbeConfig(stage_weights=weights))


# Metadata beside the features


def encoded(rows: Rows, telling: bool, width: int = 3) -> list[np.ndarray]:
    """Metadata of each fold's head: noise, or the class in one column and noise in the others."""
    rng = np.random.default_rng(5)
    values = rng.normal(0, 1, (len(rows.targets), width)).astype(np.float32)
    if telling:
        values[:, 0] = rows.targets
    return [values + fold for fold in range(FOLDS)]  # each fold's are on a scale of their own


def flat(rows: int) -> Rows:
    """Features that know nothing."""
    found = data(rows)
    return replace(found, targets=np.random.default_rng(9).integers(0, CLASSES, rows))


@pytest.mark.parametrize("solver", ["ridge", "logistic"])
@pytest.mark.parametrize("count", [24, 150], ids=["fewer rows than features", "more"])
def test_metadata_that_tell_the_class_are_used(solver: str, count: int) -> None:
    rows, config = flat(count), ProbeConfig(solver=solver)
    rows = replace(rows, beside=encoded(rows, telling=True))
    before, solved = linear_probe.solve(replace(rows, beside=None), config), linear_probe.solve(rows, config)
    assert min(fold.share for fold in solved.folds) >= 0.5
    assert loss(solved, rows) < loss(before, rows) - 0.2
    for fold in range(FOLDS):
        own = rows.fold == fold
        outputs = solved.outputs(fold, [rows.plain[own]], rows.beside[fold][own])[0]
        np.testing.assert_allclose(outputs.log_softmax(1).numpy(), solved.predicted[own], atol=1e-2)


@pytest.mark.parametrize("count", [24, 300])
def test_metadata_that_tell_nothing_hardly_harm(count: int) -> None:
    rows = data(count, 0.5)
    before = linear_probe.solve(rows, ProbeConfig())
    after = linear_probe.solve(replace(rows, beside=encoded(rows, telling=False)), ProbeConfig())
    assert loss(after, rows) < loss(before, rows) + 0.03


def test_a_share_of_zero_is_the_images_alone() -> None:
    rows = data()
    before = linear_probe.solve(rows, ProbeConfig())
    after = linear_probe.solve(replace(rows, beside=encoded(rows, True), shares=(0.0,)), ProbeConfig())
    np.testing.assert_allclose(after.predicted, before.predicted, atol=1e-5)
    assert (after.folds[0].head.weight[..., -3:] == 0).all()


def test_both_ways_to_solve_agree_about_metadata() -> None:
    """From the products of rows, and from those of features."""
    rows, config = flat(24), ProbeConfig()
    rows = replace(rows, beside=encoded(rows, telling=True), shares=(0.5,))
    prepared = linear_probe.prepare(rows, config)
    assert prepared.products is not None
    one = linear_probe.solve(rows, config, prepared=prepared)
    other = linear_probe.solve(rows, config, prepared=replace(prepared, products=None))
    np.testing.assert_allclose(one.predicted, other.predicted, atol=2e-3)
