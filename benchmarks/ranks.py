"""Mean ranks as they are, and made probabilities by a logistic curve: order and loss on fresh rows, members drawn.

  python benchmarks/ranks.py --rows 200 1000 --draws 20

Three members of unequal knowledge and loudness see some rows of classes of unequal frequency; 5,000 fresh rows judge
the blend by the mean area under the ROC curve over classes, and by log-loss.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, log_softmax
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.ensemble.methods import Combination, RankMean, RankPool, WeightedMean
from foldcraft.metrics.spaces import ClassSpace

KINDS = {"one class of 20": (0.95, 0.05), "four classes": (0.55, 0.30, 0.10, 0.05)}
KNOWLEDGE, LOUDNESS = (1.5, 1.2, 0.8), (0.5, 3.0, 1.0)
FRESH = 5000


def draw(truth: np.ndarray, frequency: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Log-probabilities (N, K) of each member, which knows how frequent classes are."""
    members = []
    for signal, loudness in zip(KNOWLEDGE, LOUDNESS, strict=True):
        evidence = rng.normal(0, 1, (len(truth), len(frequency)))
        evidence[np.arange(len(truth)), truth] += signal
        members.append(log_softmax(loudness * (signal * evidence + np.log(frequency)), axis=1))
    return members


def as_ranks(found: RankPool, members: list[np.ndarray]) -> np.ndarray:
    """What ranks alone say, normalised."""
    used = zip(found.used, found.temperatures, strict=True)
    shares = expit(found.odds(np.stack([found.space.at_temperature(members[k], t) for k, t in used])))
    return np.log(shares / shares.sum(1, keepdims=True))


def judged(said: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Mean area under the curve over classes, and log-loss."""
    areas = [roc_auc_score(truth == k, said[:, k]) for k in range(said.shape[1])]
    return float(np.mean(areas)), float(-said[np.arange(len(truth)), truth].mean())


def repeat(kind: str, rows: int, seed: int) -> dict[str, object]:
    frequency, rng = np.array(KINDS[kind]), np.random.default_rng(seed)
    truth, fresh = (rng.choice(len(frequency), n, p=frequency) for n in (rows, FRESH))
    members, new = (draw(each, frequency, rng) for each in (truth, fresh))
    space = ClassSpace(tuple(map(str, range(len(frequency)))))
    ranks, mean = (way.fit(members, truth, np.arange(rows), space) for way in (RankMean(), WeightedMean()))
    said: dict[str, np.ndarray] = {"ranks": as_ranks(ranks, new)}
    ways: dict[str, Combination] = {"curve": ranks, "weighted mean": mean}
    said |= {name: way.apply(new) for name, way in ways.items()}
    scores = {name: judged(each, fresh) for name, each in said.items()}
    about = {"classes": kind, "rows": rows}
    areas = {f"AUC {name}": area for name, (area, _) in scores.items()}
    return {**about, **areas, **{f"loss {name}": loss for name, (_, loss) in scores.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 1000], help="that are fitted on")
    parser.add_argument("--draws", type=int, default=20)
    args = parser.parse_args()
    drawn = [repeat(kind, rows, seed) for kind in KINDS for rows in args.rows for seed in range(args.draws)]
    groups = pd.DataFrame(drawn).groupby(["classes", "rows"], sort=False)
    print(groups.mean().round(4).to_string())
    print("standard deviation over draws")
    print(groups.std().round(4).to_string())


if __name__ == "__main__":
    main()
