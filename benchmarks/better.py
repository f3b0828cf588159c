"""By how much must a blend be better to be kept? Simulated: blends come one after another, some better, most not.

Each try has the noise of the blend before it, a share of it drawn anew, and knows a little more, or not. Which of
them is kept is decided by `ensemble/best_so_far` at several thresholds, in standard errors of the gain. Told are the
log-loss and the accuracy of what is kept in the end, on 20,000 rows that nobody saw, how often it was changed, and by
how much the accuracy that is shown lies above the true one.

  python benchmarks/better.py --rows 100 400 1600 --tries 20 --repeats 100
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import log_softmax

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.ensemble.best_so_far import BestSoFar, Step
from foldcraft.ensemble.nested import Labels
from foldcraft.metrics import scores
from foldcraft.metrics.class_space import ClassSpace

SPACE, FOLDS, HIDDEN = ClassSpace(("a", "b", "c")), 5, 20_000
KNOWS, SHARPNESS = 1.2, 1.5  # standard deviations between classes in the first blend; of its logits
GAIN = 0.06  # a try that is really better knows so much more, one that is really worse a third of it less
HARMS = 0.25  # share of tries that are really worse
ANEW = 0.1  # share of the variance that is drawn anew by each try


@dataclass
class Tries:
    """Blends that come one after another: their noise, and how much they know."""

    targets: np.ndarray
    helps: float
    rng: np.random.Generator

    def __iter__(self) -> Iterator[np.ndarray]:
        """Log-probabilities (N, 3) of one after another, for ever."""
        count, knows = len(self.targets), KNOWS
        noise = self.rng.normal(size=(count, 3))
        while True:
            signal = knows * np.eye(3)[self.targets] + noise
            yield log_softmax(SHARPNESS * signal, axis=1)
            own = self.rng.normal(size=(count, 3))
            noise = (1 - ANEW) ** 0.5 * noise + ANEW**0.5 * own
            knows += GAIN * (self.rng.random() < self.helps) - GAIN / 3 * (self.rng.random() < HARMS)


def play(rows: int, tries: int, helps: float, seed: int, better: list[float]) -> Iterator[dict[str, float]]:
    """One series of tries, at each threshold."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(3, size=rows + HIDDEN)
    series = [said for said, _ in zip(Tries(targets, helps, rng), range(tries), strict=False)]
    fold, units = np.arange(rows) % FOLDS, np.array([f"r{k}" for k in range(rows)])
    truth, hidden = Labels(targets[:rows], fold, units, scores.get("accuracy"), SPACE), targets[rows:]
    for threshold in better:
        best = BestSoFar(truth, better=threshold)
        changes = sum(best.add(Step(said[:rows], said[:rows])) for said in series) - 1
        kept = series[best.place][rows:]
        accuracy = float((kept.argmax(1) == hidden).mean())
        yield {
            "really better": helps,
            "rows": rows,
            "standard errors": threshold,
            "hidden log-loss": SPACE.loss(kept, hidden),
            "hidden accuracy": accuracy,
            "changes": changes,
            "shown above true": best.score.value - accuracy,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 400, 1600])
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--helps", type=float, nargs="+", default=[0.05, 0.25], help="shares of tries that are better")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--better", type=float, nargs="+", default=[0.0, 0.5, 1.0, 2.0])
    args = parser.parse_args()
    found = [
        row
        for helps in args.helps
        for rows in args.rows
        for seed in range(args.repeats)
        for row in play(rows, args.tries, helps, seed, args.better)
    ]
    table = pd.DataFrame(found).groupby(["really better", "rows", "standard errors"])
    print(table.mean().round(4).to_string())
    print("standard errors of these means")
    print(table.sem().round(4).to_string())


if __name__ == "__main__":
    main()
