"""Comparing experiments: planted differences are found, chance is not taken for one, and a user gets an answer."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIG, write_competition

from foldcraft.common import config_file
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.paths import FoldFolder
from foldcraft.metrics import scores as score_functions
from foldcraft.metrics.significance import Comparison, ScoredRows, by_class, compare, correction_for
from foldcraft.metrics.spaces import ClassSpace
from foldcraft.predictions import store
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.store import Predictions

CLASSES = ("a", "b", "c")


def simulated(
    seed: int, right: tuple[float, ...], units: int = 200, copies: int = 1, metric: str = "macro_f1"
) -> ScoredRows:
    """Experiments, the baseline first, that get each unit right with their own chance; a unit is some alike rows."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, units)
    wrong = (truth + rng.integers(1, 3, (len(right), units))) % 3
    labels = np.where(rng.random((len(right), units)) < np.array(right)[:, None], truth, wrong)
    return ScoredRows(
        names=tuple(f"e{number}" for number in range(len(right))),
        metric=score_functions.get(metric),
        space=ClassSpace(CLASSES),
        classes=CLASSES,
        truth=np.repeat(truth, copies),
        units=np.repeat([f"u{number:04d}" for number in range(units)], copies),
        fold=np.repeat(np.arange(units) % 5, copies),
        predicted=tuple(0.7 * np.eye(3)[np.repeat(said, copies)] + 0.1 for said in labels),
    )


def taken_apart(rows: int, apart: int) -> ScoredRows:
    """An experiment that gets all right, and a baseline that misses the first few."""
    truth = np.arange(rows) % 3
    missed = np.where(np.arange(rows) < apart, (truth + 1) % 3, truth)
    given = simulated(0, (1, 1), units=rows, metric="accuracy")
    return replace(given, truth=truth, predicted=(np.eye(3)[missed], np.eye(3)[truth]))


@pytest.mark.parametrize("metric", sorted(name for name, one in score_functions.METRICS.items() if not one.classes))
def test_a_planted_difference_is_found_in_the_right_direction(metric: str) -> None:
    better = compare(simulated(1, (0.75, 0.86, 0.6), units=800, metric=metric))
    assert [other.verdict for other in better.others] == ["better", "worse"]
    up, down = better.others
    assert better.best is up
    assert up.value > 0 > down.value
    assert up.low < up.value < up.high
    assert 0 < up.bound < up.value
    assert (up.chance, down.chance) == (1, 0)
    assert (up.folds_better, down.folds_better) == (5, 0)


def test_the_numbers_of_a_difference_are_those_of_a_count() -> None:
    answers = simulated(2, (0.8, 0.83), units=2000, metric="accuracy")
    found = compare(answers, repeats=4000).others[0]
    ours, theirs = (each.argmax(1) == answers.truth for each in answers.predicted)
    assert found.value == pytest.approx(theirs.mean() - ours.mean())
    assert found.error == pytest.approx(np.std(theirs.astype(int) - ours) / np.sqrt(2000), rel=0.04)
    assert found.smallest == pytest.approx(2.8 * found.error, rel=1e-3)
    assert found.bound == pytest.approx(found.value - 1.645 * found.error, abs=0.1 * found.error)
    apart = answers.predicted[0].argmax(1) != answers.predicted[1].argmax(1)
    assert (found.apart, found.baseline_right, found.right) == (
        apart.sum(),
        (ours & ~theirs).sum(),
        (theirs & ~ours).sum(),
    )


def test_a_difference_of_a_size_that_could_show_mostly_does() -> None:
    """`smallest` keeps its promise: a true difference of that size is found by 95 % intervals in 80 % of cases."""
    chances = (0.75, 0.83)
    wanted = np.median([compare(simulated(s, chances, 600), repeats=200).others[0].smallest for s in range(20)])
    shown = [compare(simulated(s, (0.75, 0.75 + wanted), 600), repeats=200).others[0].low > 0 for s in range(150)]
    assert 0.7 < np.mean(shown) < 0.9


def test_few_rows_prove_nothing_and_a_dozen_do() -> None:
    """Three of three, where the bound lies on zero but for rounding, is what one in eight coins shows."""
    for seed in range(5):
        assert not compare(taken_apart(300, 3), seed=seed).best.is_real
    assert compare(taken_apart(300, 12)).best.is_real


def test_equal_experiments_differ_by_nothing() -> None:
    answers = simulated(3, (0.8, 0.8))
    found = compare(replace(answers, predicted=(answers.predicted[0],) * 2)).others[0]
    assert (found.value, found.error, found.chance, found.apart, found.verdict) == (0, 0, 0.5, 0, "cannot be told")


def share(cases: int, make: Callable[[int], ScoredRows], holds: Callable[[Comparison], bool], **more: int) -> float:
    return float(np.mean([holds(compare(make(seed), repeats=300, seed=seed, **more)) for seed in range(cases)]))


def is_real(found: Comparison) -> bool:
    return found.best.is_real


@pytest.mark.integration
def test_equally_good_experiments_are_called_better_as_rarely_as_promised() -> None:
    assert 0.02 < share(400, lambda seed: simulated(seed, (0.8, 0.8)), is_real) < 0.08


@pytest.mark.integration
def test_rows_of_a_group_count_once() -> None:
    def by_row(seed: int) -> ScoredRows:
        answers = simulated(seed, (0.8, 0.8), copies=4)
        return replace(answers, units=np.arange(len(answers.truth)))

    assert share(150, lambda seed: simulated(seed, (0.8, 0.8), copies=4), is_real) < 0.1
    assert share(150, by_row, is_real) > 0.14


@pytest.mark.slow
@pytest.mark.integration
def test_twenty_nulls_are_paid_for() -> None:
    """The best of twenty that are as good as the baseline: rarely called better, though some often would be alone."""
    found = [compare(simulated(seed, (0.8,) * 21), repeats=400, seed=seed) for seed in range(250)]
    assert 0.02 < np.mean([is_real(each) for each in found]) < 0.09
    assert np.mean([any(other.value > 1.645 * other.error for other in each.others) for each in found]) > 0.25


@pytest.mark.integration
def test_the_best_of_twenty_shown_alone_is_paid_for_by_saying_so() -> None:
    def best(seed: int) -> ScoredRows:
        answers = simulated(seed, (0.8,) * 21)
        scores = [answers.metric(answers.truth, each) for each in answers.predicted[1:]]
        kept = (answers.predicted[0], answers.predicted[1 + int(np.argmax(scores))])
        return replace(answers, names=("a", "b"), predicted=kept)

    assert share(200, best, is_real, tried=20) < 0.08
    assert share(200, best, is_real) > 0.25


def test_strictness_is_by_what_the_experiments_have_in_common() -> None:
    rng = np.random.default_rng(0)
    apart, alike = rng.normal(size=(20, 20_000)), np.repeat(rng.normal(size=(1, 20_000)), 20, axis=0)
    nothing, ones = np.zeros(20), np.ones(20)
    assert correction_for(nothing[:1], apart[:1], ones[:1]).factor == pytest.approx(1.645, abs=0.03)
    assert correction_for(nothing, alike, ones).factor == pytest.approx(1.645, abs=0.03)
    together = correction_for(nothing, apart, ones)
    assert together.factor == pytest.approx(2.80, abs=0.05)
    assert "max-T" in together.rule
    sidak = correction_for(nothing, alike, ones, tried=40)
    assert sidak.factor == pytest.approx(3.016, abs=0.005)
    assert "Sidak" in sidak.rule
    skewed = correction_for(nothing, apart**5, ones, tried=21)
    assert skewed.factor > 10
    assert "max-T" in skewed.rule
    with pytest.raises(FoldcraftError, match=r"--tried: 19 is fewer than the 20"):
        correction_for(nothing, apart, ones, tried=19)


def test_the_order_of_rows_does_not_matter() -> None:
    answers = simulated(5, (0.8, 0.83, 0.79), copies=2)
    order = np.random.default_rng(0).permutation(len(answers.truth))
    other = replace(
        answers,
        truth=answers.truth[order],
        units=answers.units[order],
        fold=answers.fold[order],
        predicted=tuple(each[order] for each in answers.predicted),
    )
    assert compare(other) == compare(answers)
    assert list(by_class(other)) == list(by_class(answers))


def test_classes_tell_where_the_difference_is() -> None:
    """An experiment that knows class c better, and the others as well as before."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 900)
    labels = [np.where((truth == 2) & (rng.random(900) < miss), 0, truth) for miss in (0.5, 0.1)]
    answers = replace(simulated(0, (1, 1), units=900), truth=truth, predicted=tuple(np.eye(3)[said] for said in labels))
    (changes,) = by_class(answers)
    assert [(change.name, change.rows) for change in changes] == list(zip(CLASSES, np.bincount(truth), strict=True))
    a, b, c = changes
    assert (b.f1, b.low, b.high) == ((1, 1), 0, 0)
    assert c.recall[1] == pytest.approx((labels[1][truth == 2] == 2).mean())
    assert c.precision == (1, 1)
    assert a.recall == (1, 1)
    assert 0 < c.low < c.gain < c.high
    assert a.gain == pytest.approx(a.f1[1] - a.f1[0])
    assert a.precision[0] == pytest.approx((truth[labels[0] == 0] == 0).mean())


@pytest.fixture
def leave_run(workplace: Path, command) -> Callable[..., Path]:
    """Put finished folds of a competition of 120 shapes into a run folder, right as often as asked; the folder."""
    write_competition(Path("input/shapes"), train=120, group=True)
    base = CONFIG.replace("metric: accuracy", "metric: accuracy, group: group")
    for name in ("plain", "good", "same"):
        path = Path("configs") / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(base)
    assert command("split", "--config", "configs/plain.yaml").code == 0

    def leave(name: str, right: float, folds: tuple[int, ...] = (0, 1, 2), seed: int = 0) -> Path:
        experiment = Experiment.open(config_file.load(Path(f"configs/{name}.yaml")))
        data, rng = experiment.competition, np.random.default_rng(seed)
        for fold in folds:
            rows, folder = experiment.folds.valid_rows(fold), FoldFolder.of(experiment.config, fold)
            said = np.where(rng.random(len(rows)) < right, data.targets[rows], (data.targets[rows] + 1) % 3)
            predicted = np.log(0.7 * np.eye(3)[said] + 0.1)[None].astype(np.float32)
            origin = experiment.origin(fold, weights="none")
            views = tuple(experiment.config.tta.views)
            oof = Predictions(data.train_ids[rows], views, np.repeat(predicted, len(views), axis=0), origin)
            store.write(folder.oof, oof)
            folder.config.write_text(experiment.config.to_yaml())
            folder.manifest.write_text(json.dumps({"identity": experiment.identity.of_fold(fold)}))
        return folder.path.parent

    return leave


def test_trained_experiments_are_compared(shapes: Path, command) -> None:
    """The whole way: two trainings, one of which has learned nothing, named by a config and by a run folder."""
    command("split", "--config", shapes)
    learning = ["train.epochs=8", "optim.lr=0.005", "augment.preset=none", "regularize.label_smoothing=0"]
    command("train", "--config", shapes, "--fold", "0,1")
    command("train", "--config", shapes, "--fold", "1,2", "experiment=longer", *learning)

    done = command("compare", shapes, "runs/shapes/longer")

    assert done.code == 0, done.err
    assert "accuracy on 16 rows, fold 1, each judged by a model that never saw it" in done.out
    assert "warning: tiny lacks fold 2" in done.out
    assert "warning: longer lacks fold 0" in done.out
    assert "no correction: one experiment was tried" in done.out
    assert " better " in done.out
    assert "classes, tiny → longer" in done.out


def test_runs_are_found_by_config_and_by_folder(leave_run, command) -> None:
    plain, good = leave_run("plain", 0.6), leave_run("good", 0.95, seed=1)
    moved = Path("elsewhere/kept")
    moved.parent.mkdir()
    good.rename(moved)
    by_folder = command("compare", plain, f"{moved}/")
    assert by_folder.code == 0, by_folder.err
    assert "accuracy on 120 rows of 60 groups, fold 0, 1, 2" in by_folder.out
    moved.rename(good)
    by_config = command("compare", "--config", "configs/plain.yaml", "configs/good.yaml", "tta.views=[hflip]")
    assert by_config.out == by_folder.out, "both views hold the same here"


@pytest.mark.slow
def test_acceptance_is_an_exit_code_and_a_line(leave_run, command) -> None:
    plain, good, same = (
        leave_run("plain", 0.7, seed=3),
        leave_run("good", 0.95, seed=1),
        leave_run("same", 0.72, seed=4),
    )
    yes = command("compare", plain, same, good, "--accept")
    assert (yes.code, yes.out.count("\n")) == (0, 1)
    assert yes.out.startswith("accepted: accuracy of good is 0.9")
    assert "max-T: bounds that hold for all 2 together" in yes.out
    for words in ([plain, same], [good, plain], [plain, good, "--tried", 10**15]):
        no = command("compare", *words, "--accept")
        assert (no.code, no.out.count("\n")) == (1, 1)
        assert no.out.startswith("not accepted: ")
    assert command("compare", plain, good).code == command("compare", plain, same).code == 0


def test_predictions_for_other_folds_are_refused(leave_run, command) -> None:
    plain = leave_run("plain", 0.7)
    Path("folds/shapes.csv").unlink()
    command("split", "--config", "configs/plain.yaml", "folds.seed=1")
    good = leave_run("good", 0.9)
    for ours in (plain, "configs/plain.yaml"):
        done = command("compare", ours, good)
        assert done.code == 2
        assert "error: plain and good were made for different folds" in done.err


def test_a_config_that_is_not_what_was_trained_is_refused(leave_run, command) -> None:
    plain, good = leave_run("plain", 0.7), leave_run("good", 0.9)
    Path("configs/good.yaml").write_text(Path("configs/good.yaml").read_text() + "seed: 7\n")
    done = command("compare", plain, "configs/good.yaml")
    assert done.code == 2
    assert "runs/shapes/good/fold0: holds a finished fold made otherwise" in done.err
    leave_run("good", 0.9, folds=(1,))
    assert "were trained with different settings" in command("compare", plain, good).err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["runs/shapes/plain"], "command line: there is nothing to compare"),
        (["configs/plain.yaml", "--accept"], "--accept: needs a baseline and one or more others"),
        (["runs/shapes/plain", "configs/good.yaml", "--sort", "cost"], "--sort: is of the table of all experiments"),
        ([], "configs/default.yaml"),
        (["runs/shapes/plain", "configs/plain.yaml"], "configs/plain.yaml is named twice"),
        (["runs/shapes/plain", "runs/shapes/good/fold1"], "holds no fold*/config.yaml; name runs/shapes/good"),
        (["runs/shapes/plain", "runs/shapes"], "runs/shapes: holds no fold*/config.yaml"),
        (["runs/shapes/plain", "good"], "'good' is neither a run folder, nor a YAML file"),
        (["runs/shapes/plain", "configs/none.yaml"], "configs/none.yaml: no such config"),
        (["runs/shapes/plain", "configs/same.yaml"], "runs/shapes/same: no fold is trained yet"),
        (["runs/shapes/plain", "runs/shapes/good"], "no row is predicted by all of plain, good"),
        (["runs/shapes/plain", "runs/shapes/good", "seed=4"], "was trained with other settings than the key=value"),
        (["runs/shapes/plain", "runs/shapes/good", "tta.views=[vflip]"], "has no predictions for view 'vflip'"),
        (["runs/shapes/plain", "runs/shapes/good", "--tried", "0"], "--tried: 0 is not a number"),
        (["runs/shapes/plain", "configs/accuracy.yaml"], "competition.metric: runs/shapes/plain has accuracy, "),
    ],
)
def test_a_mistake_is_one_line(leave_run, command, words: list[str], told: str) -> None:
    leave_run("plain", 0.7, folds=(0,))
    leave_run("good", 0.7, folds=(1, 2))
    Path("configs/accuracy.yaml").write_text(CONFIG.replace("metric: accuracy", "metric: log_loss"))
    done = command("compare", *words)
    assert done.code == 2
    assert told in done.err
    assert done.err.count("\n") == 1


def test_not_behind_is_an_exit_code_and_a_line(leave_run, command) -> None:
    """What the advice asks of a first fold: a score that is as good is enough, one that is lower is not."""
    plain = leave_run("plain", 0.7, seed=3)
    good, same = leave_run("good", 0.95, folds=(0,), seed=1), leave_run("same", 0.7, seed=3)
    yes = command("compare", plain, good, "--not-behind")
    assert (yes.code, yes.out.count("\n")) == (0, 1)
    assert re.fullmatch(r"good 0\.[89]\d+, plain 0\.[67]\d+ on fold 0\n", yes.out)
    assert command("compare", plain, same, "--not-behind").code == 0, "equal is not behind"
    no = command("compare", good, plain, "--not-behind")
    assert (no.code, no.out.count("\n")) == (1, 1)
