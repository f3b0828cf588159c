"""How often a 95 % interval of macro F1 holds the true score: plain percentiles beside `intervals.bootstrap_interval`.

    python benchmarks/intervals.py --rows 200 500 2000 --classes 5 18 --repeats 150

Rows in pairs (two images of one subject, half of them with the same answer), classes ten times as frequent as others.

With `--kinds`: how often the nested interval of a blend of three members holds what that blend scores on 20,000 fresh
rows, for each kind of target.

    python benchmarks/intervals.py --kinds single ordinal multilabel soft regression multioutput --rows 400
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.ensemble.nested import BlendMember, Labels, judge
from foldcraft.metrics import scores
from foldcraft.metrics.bootstrap import bootstrap_scores
from foldcraft.metrics.intervals import bootstrap_interval
from foldcraft.metrics.spaces import ClassSpace, LabelSpace, Space, ValueSpace

METRIC = scores.get("macro_f1")
FRESH, FOLDS, NOISE = 20_000, 5, (0.8, 1.2, 2.0)  # rows, folds, noise of the three members
KINDS = {
    "single": ["macro_f1", "log_loss", "roc_auc"],
    "ordinal": ["qwk"],
    "multilabel": ["mean_average_precision", "macro_f1", "log_loss"],
    "soft": ["kl"],
    "regression": ["rmse_over_std", "r2"],
    "multioutput": ["mean_accuracy"],
}


def world(classes: int, right: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Class prior (K,), and what is said of each true class (K, K)."""
    prior = np.geomspace(1, 0.1, classes)
    wrong = rng.dirichlet(np.full(classes, 0.5), classes)
    return prior / prior.sum(), right * np.eye(classes) + (1 - right) * wrong


def draw(rows: int, prior: np.ndarray, said: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Class indices, one-hot answers and pairs of so many rows."""
    truth = np.repeat(rng.choice(len(prior), rows // 2, p=prior), 2)
    guess = (rng.random(len(truth))[:, None] > said[truth].cumsum(1)).sum(1)
    same = rng.random(rows // 2) < 0.5
    guess[1::2] = np.where(same, guess[::2], guess[1::2])
    return truth, np.eye(len(prior))[guess], np.repeat(np.arange(rows // 2), 2)


def coverage(rows: int, classes: int, right: float, repeats: int) -> None:
    rng = np.random.default_rng(0)
    prior, said = world(classes, right, rng)
    true = METRIC.of_confusion((prior[:, None] * said)[None])[0]
    held, widths = np.zeros(2), np.zeros(2)
    for _ in range(repeats):
        sample = draw(rows, prior, said, rng)
        truth, answers, pairs = sample
        drawn = bootstrap_scores(METRIC, truth, [answers], pairs)[0]
        ends = np.array([np.quantile(drawn, [0.025, 0.975]), bootstrap_interval(METRIC, *sample)])
        held += (ends[:, 0] <= true) & (true <= ends[:, 1])
        widths += ends[:, 1] - ends[:, 0]
    (plain, ours), (narrow, wide) = held / repeats, widths / repeats
    print(f"{rows:6} {classes:8} {true:.3f} {plain:8.3f} {narrow:6.3f} {ours:8.3f} {wide:6.3f}", flush=True)


def sample_of(kind: str, rows: int, rng: np.random.Generator) -> tuple[Space, np.ndarray, list[np.ndarray]]:
    """Space, truth and what three members predict of so many rows in pairs, which share half of their noise."""
    outputs = {"single": 5, "ordinal": 4, "multilabel": 4, "soft": 4, "regression": 2, "multioutput": 5}[kind]
    signal = 1.5 * rng.normal(0, 1, (rows // 2, outputs)).repeat(2, 0) + 0.7 * rng.normal(0, 1, (rows, outputs))
    if kind in ("single", "soft"):
        signal = signal + np.linspace(0, 2, outputs)  # classes of different sizes
    if kind == "ordinal":
        signal = -((signal[:, :1] + 1.5 - np.arange(outputs)) ** 2)
    noise = [
        level * (rng.normal(0, 0.7, (rows // 2, outputs)).repeat(2, 0) + rng.normal(0, 0.7, signal.shape))
        for level in NOISE
    ]
    names = tuple(f"{k}" for k in range(outputs))
    if kind == "regression":
        space = ValueSpace(names, np.zeros(outputs), np.full(outputs, 1.7))
        return space, signal + rng.normal(0, 0.5, signal.shape), [signal + each for each in noise]
    if kind == "multilabel":
        truth = (signal + rng.logistic(0, 1, signal.shape) > 1).astype(float)
        return LabelSpace(names), truth, [signal - 1 + each for each in noise]
    space = ClassSpace(names, (2, 3) if kind == "multioutput" else ())
    if kind == "soft":
        votes = rng.multinomial(5, np.exp(space.normalised(signal)))
        return space, votes / 5, [space.normalised(signal + each) for each in noise]
    gumbel = signal + rng.gumbel(0, 1, signal.shape)
    truth = np.column_stack([gumbel[:, own].argmax(1) for own in space.slices])
    return space, truth if space.widths else truth[:, 0], [space.normalised(signal + each) for each in noise]


def nested_coverage(kind: str, name: str, rows: int, repeats: int) -> None:
    held = above = widths = 0.0
    for repeat in range(repeats):
        rng = np.random.default_rng(repeat)
        space, truth, members = sample_of(kind, rows, rng)
        heads = ("a", "b") if kind == "multioutput" else space.names
        metric = scores.get(name, kind, heads, getattr(space, "widths", ()))
        pairs = np.arange(rows) // 2
        known = [BlendMember(f"{k}", ("identity",), one[None]) for k, one in enumerate(members)]
        chosen = judge(known, Labels(truth, pairs % FOLDS, pairs.astype(str), metric, space)).chosen
        _, fresh, answers = sample_of(kind, FRESH, rng)
        asked = [BlendMember(f"{k}", ("identity",), one[None]) for k, one in enumerate(answers)]
        true = metric(fresh, space.scored(chosen.plan.apply(asked)))
        held += chosen.score.low <= true <= chosen.score.high
        above += true > chosen.score.value
        widths += chosen.score.high - chosen.score.low
    print(
        f"{kind:12} {name:24} {rows:5} {held / repeats:6.2f} {above / repeats:6.2f} {widths / repeats:6.3f}", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 500, 2000])
    parser.add_argument("--classes", type=int, nargs="+", default=[5, 18])
    parser.add_argument("--right", type=float, nargs="+", default=[0.995, 0.93, 0.8], help="share of right answers")
    parser.add_argument("--repeats", type=int, default=150)
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=[], help="nested intervals of these kinds of target"
    )
    args = parser.parse_args()
    if args.kinds:
        print("kind         metric                    rows   held  above  width")
        for kind in args.kinds:
            for name in KINDS[kind]:
                for rows in args.rows:
                    nested_coverage(kind, name, rows, args.repeats)
        return
    print("  rows  classes  true  percentiles (width)     ours (width)")
    for classes in args.classes:
        for rows in args.rows:
            for right in args.right:
                coverage(rows, classes, right, args.repeats)


if __name__ == "__main__":
    main()
