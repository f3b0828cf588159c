"""How strong should a decision rule be? What it gains on rows never seen, by what it was chosen by.

The share of the log-frequencies that is taken out of log-probabilities (macro F1, balanced accuracy), or the threshold
(F1 of two classes), is chosen on out-of-fold predictions of a weighted mean of members. Ways to choose:

labels, the gentlest   of the strengths that are not really worse by the labels the gentlest (version 0.2)
labels                 the best by the labels
expected               the best by what the calibrated probabilities expect of it
product                as `decision_rules.fit` does: by both

Members are synthetic (`benchmarks/ensemble.py`), of which a share of the rows may be sure of a random class, or those
of --cells, which `benchmarks/members.py` made of real nets. A row of the table is a way, with its score on rows never
seen over that of the likeliest class: mean and standard error over worlds or cells.

  python benchmarks/rules.py --rows 200 500 2000 --classes 3 5 --scale .6 --repeats 16
  python benchmarks/rules.py --cells runs/members/maskstates-*.npz --metric macro_f1 balanced_accuracy
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import ensemble  # puts src on the path
import numpy as np
import pandas as pd
from scipy.special import log_softmax

from foldcraft.ensemble import decision_rules, nested
from foldcraft.ensemble.methods import WeightedMean
from foldcraft.ensemble.nested import BlendMember, Labels
from foldcraft.metrics.bootstrap import bootstrap_labels
from foldcraft.metrics.scores import Metric, get
from foldcraft.metrics.spaces import ClassSpace

MEMBERS = 6
Shift = np.ndarray  # what is added to log-probabilities (K,)
Parts = tuple[list[BlendMember], list[BlendMember], Labels, np.ndarray]  # known, fresh, truth, answers of the fresh


def strengths(predicted: np.ndarray, truth: Labels) -> list[Shift]:
    """What strengths of the rule add, the gentlest first."""
    if truth.metric.name == "f1":
        odds = predicted[:, 1] - predicted[:, 0]
        cuts = np.unique([0.0, *np.quantile(odds, np.linspace(0.01, 0.99, 99))])
        return [np.array([0.0, -cut]) for cut in cuts[np.argsort(np.abs(cuts), kind="stable")]]
    prior = np.log(np.bincount(truth.targets, minlength=predicted.shape[1]).clip(1) / len(predicted))
    return [-tau * prior for tau in decision_rules.STRENGTHS]


def by_labels(predicted: np.ndarray, truth: Labels) -> tuple[list[Shift], np.ndarray]:
    """Strengths and their scores in draws of the groups, (P, R)."""
    shifts = strengths(predicted, truth)
    labels = [(predicted + shift).argmax(1) for shift in shifts]
    drawn = bootstrap_labels(truth.targets, labels, predicted.shape[1], truth.units, decision_rules.DRAWS)
    return shifts, np.concatenate([truth.metric.of_confusion(counts) for counts in drawn], axis=1)


def gentlest(predicted: np.ndarray, truth: Labels) -> Shift:
    shifts, scores = by_labels(predicted, truth)
    return shifts[decision_rules._gentlest_of(scores, range(len(shifts)))]


def best_by_labels(predicted: np.ndarray, truth: Labels) -> Shift:
    shifts, scores = by_labels(predicted, truth)
    return shifts[int(scores.mean(1).argmax())]


def expected(predicted: np.ndarray, truth: Labels) -> Shift:
    bias, calibrated = decision_rules._calibrated(predicted, truth.targets)
    shifts = strengths(calibrated, truth)
    counts = [decision_rules._expected_counts((calibrated + shift).argmax(1), np.exp(calibrated)) for shift in shifts]
    return bias + shifts[int(np.argmax([truth.metric.of_confusion(each) for each in counts]))]


def product(predicted: np.ndarray, truth: Labels) -> Shift:
    rule = decision_rules.fit(predicted, truth.targets, truth.units, truth.metric, truth.space)
    return np.array(getattr(rule, "shift", np.zeros(predicted.shape[1])))


WAYS: dict[str, Callable[[np.ndarray, Labels], Shift]] = {
    "labels, the gentlest": gentlest,
    "labels": best_by_labels,
    "expected": expected,
    "product": product,
}


def gains(parts: Parts) -> dict[str, float]:
    """Of each way over the likeliest class, on the fresh rows."""
    known, fresh, truth, answers = parts
    plan = nested.judge(known, truth, [WeightedMean()]).before_rule.plan
    predicted, later = (np.asarray(plan.blended(members), np.float64) for members in (known, fresh))
    plain = truth.metric(answers, np.exp(later))
    scores = {name: truth.metric(answers, np.exp(later + way(predicted, truth))) for name, way in WAYS.items()}
    return {"likeliest class": plain, **{name: score - plain for name, score in scores.items()}}


def synthetic(args: argparse.Namespace, rows: int, classes: int, metric: Metric) -> Iterator[Parts]:
    """Worlds whose members know less than those of `benchmarks/ensemble.py`, and are wrong in some rows."""
    space = ClassSpace(tuple(map(str, range(classes))))
    for seed in range(args.repeats):
        world = ensemble.World(classes, seed)
        world.signal = world.signal * args.scale
        rng = np.random.default_rng(seed)
        known, targets, units = world.draw(rows)
        fresh, answers, _ = world.draw(ensemble.FRESH)
        known, fresh = (wrong_in_some(members[:MEMBERS], args.wrong, rng) for members in (known, fresh))
        fold = np.unique(units, return_inverse=True)[1] % ensemble.FOLDS
        yield known, fresh, Labels(targets, fold, units, metric, space), answers


def wrong_in_some(members: Sequence[BlendMember], share: float, rng: np.random.Generator) -> list[BlendMember]:
    """Members that are all sure of one random class in that share of the rows."""
    rows, classes = members[0].predicted.shape[1:]
    sure = log_softmax(8 * np.eye(classes)[rng.integers(classes, size=rows)], axis=1)
    is_wrong = rng.random((rows, 1)) < share
    return [BlendMember(one.name, one.views, np.where(is_wrong, sure, one.predicted)) for one in members]


def real(file: Path, metric: Metric) -> Parts:
    """Some members of a cell."""
    cell = np.load(file)
    some = np.sort(np.random.default_rng(0).permutation(len(cell["names"]))[:MEMBERS])
    known, fresh = (
        [BlendMember(str(cell["names"][k]), ("identity",), cell[part][k][None]) for k in some]
        for part in ("oof", "later")
    )
    space = ClassSpace(tuple(cell["columns"].tolist()))
    truth = Labels(cell["truth"], cell["fold"], cell["units"].astype(str), metric, space)
    return known, fresh, truth, cell["hidden_truth"]


def show(title: str, found: Sequence[dict[str, float]]) -> None:
    table = pd.DataFrame(found).agg(["mean", "sem"]).T
    print(f"\n{title}, {len(found)} times\n{table.round(4).to_string()}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metric", nargs="+", default=["macro_f1"], help="macro_f1, balanced_accuracy, f1")
    parser.add_argument("--rows", nargs="+", type=int, default=[200, 500, 2000])
    parser.add_argument("--classes", nargs="+", type=int, default=[3, 5])
    parser.add_argument("--scale", type=float, default=0.6, help="of what members know")
    parser.add_argument("--wrong", type=float, default=0.0, help="share of rows in which all are sure of any class")
    parser.add_argument("--repeats", type=int, default=16)
    parser.add_argument("--cells", nargs="+", type=Path, default=[], help="files of benchmarks/members.py")
    args = parser.parse_args()
    for metric in map(get, args.metric):
        if args.cells:
            show(f"{metric.name}, cells", [gains(real(file, metric)) for file in args.cells])
            continue
        for classes in args.classes:
            for rows in args.rows:
                found = [gains(parts) for parts in synthetic(args, rows, classes, metric)]
                show(f"{metric.name}, {classes} classes, {rows} rows", found)


if __name__ == "__main__":
    main()
