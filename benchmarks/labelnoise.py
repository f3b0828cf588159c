"""Wrong labels, planted and searched for: how many of those that the audit lists were planted, and how many it misses.

Some share of the training labels of a real competition is changed to another class, drawn evenly; the frozen features
stay as they are, and a closed-form probe on them is solved anew with the changed labels, on the folds that training
uses. A row of the table is a way to choose which rows to list. A label that was wrong from the start counts as a false
alarm, so precision is a lower bound.

  python benchmarks/labelnoise.py --configs configs/maskstates/vit_tiny.yaml configs/signdigits/vit_tiny.yaml
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from foldcraft.common import config_file
from foldcraft.data.host_files.tables import read_tables
from foldcraft.data.images import image_stats
from foldcraft.study.audit import label_errors, run
from foldcraft.study.audit.run import Seen
from foldcraft.views.terminal import Terminal


def flipped(targets: np.ndarray, share: float, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) of which a share is another class's, and a mask (N,) of those."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(targets), round(share * len(targets)), replace=False)
    given = targets.copy()
    given[rows] = (given[rows] + rng.integers(1, classes, len(rows))) % classes
    return given, np.isin(np.arange(len(targets)), rows)


def choices(probabilities: np.ndarray, given: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Ways to choose, each with its mask (N,)."""
    found = label_errors.judge(probabilities, given)
    yield "as the audit does", found.listed
    own = probabilities[np.arange(len(given)), given]
    counted, class_of = label_errors.confident(probabilities, given)
    yield "confident joint", counted & (class_of != given)
    yield "another class is likelier", probabilities.argmax(1) != given
    yield "pruned by noise rate", by_noise_rate(probabilities, given, found.joint)
    wrong = np.rint(found.joint.sum(1) - np.diag(found.joint)).astype(int)
    least = [np.flatnonzero(given == k)[np.argsort(own[given == k], kind="stable")[:n]] for k, n in enumerate(wrong)]
    yield "pruned by class", np.isin(np.arange(len(given)), np.concatenate(least))


def by_noise_rate(probabilities: np.ndarray, given: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """Of each pair of classes as many rows as the joint expects, those of the largest margin."""
    listed = np.zeros(len(given), bool)
    for i in range(len(joint)):
        rows = np.flatnonzero(given == i)
        for j in range(len(joint)):
            margin = probabilities[rows, j] - probabilities[rows, i]
            if i != j and (count := round(joint[i, j])):
                best = np.argsort(-margin, kind="stable")[:count]
                listed[rows[best[margin[best] > 0]]] = True
    return listed


def first(score: np.ndarray, planted: np.ndarray) -> float:
    """Share of planted rows among as many of the least credible as were planted."""
    return float(planted[np.argsort(score, kind="stable")[: planted.sum()]].mean())


def once(seen: Seen, share: float, seed: int) -> Iterator[dict[str, object]]:
    """Every way on one draw of wrong labels."""
    data = seen.experiment.competition
    given, planted = flipped(data.targets, share, len(data.classes), seed)
    experiment = replace(seen.experiment, competition=replace(data, target=data.target.with_truth(given)))
    probabilities = np.exp(run.probe_predictions(replace(seen, experiment=experiment)).astype(np.float64))
    found = label_errors.judge(probabilities, given)
    for name, listed in choices(probabilities, given):
        hits = int((listed & planted).sum())
        yield {
            "data": data.name,
            "planted": int(planted.sum()),
            "way": name,
            "listed": int(listed.sum()),
            "precision": hits / max(1, listed.sum()),
            "recall": hits / planted.sum(),
            "expected": found.expected,
            "first by margin": first(found.margin, planted),
            "first by confidence": first(found.self_confidence, planted),
            "accuracy": float((probabilities.argmax(1) == data.targets).mean()),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, nargs="+", required=True)
    parser.add_argument("--share", type=float, default=0.05, help="of the labels that are changed (default 0.05)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args()
    rows = []
    for path in args.configs:
        settings = config_file.load(path, args.overrides)
        tables, terminal = read_tables(settings), Terminal()
        facts = image_stats.collect(tables, bounds=settings.images.bounds)
        seen = run.look(settings, tables, facts, terminal)
        for seed in range(args.repeats):
            rows += once(seen, args.share, seed)
    table = pd.DataFrame(rows).groupby(["data", "way"], sort=False)
    print(table.mean().round(3).to_string())
    print("spread over draws")
    print(table[["precision", "recall"]].std().round(3).to_string())


if __name__ == "__main__":
    main()
