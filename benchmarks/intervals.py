"""How often a 95 % interval of macro F1 holds the true score: plain percentiles beside `intervals.bootstrap_interval`.

    python benchmarks/intervals.py --rows 200 500 2000 --classes 5 18 --repeats 150

Rows in pairs (two images of one subject, half of them with the same answer), classes ten times as frequent as others.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.metrics import scores
from foldcraft.metrics.bootstrap import bootstrap_scores
from foldcraft.metrics.intervals import bootstrap_interval

METRIC = scores.get("macro_f1")


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 500, 2000])
    parser.add_argument("--classes", type=int, nargs="+", default=[5, 18])
    parser.add_argument("--right", type=float, nargs="+", default=[0.995, 0.93, 0.8], help="share of right answers")
    parser.add_argument("--repeats", type=int, default=150)
    args = parser.parse_args()
    print("  rows  classes  true  percentiles (width)     ours (width)")
    for classes in args.classes:
        for rows in args.rows:
            for right in args.right:
                coverage(rows, classes, right, args.repeats)


if __name__ == "__main__":
    main()
