"""Class priors of a test set: false alarms, and what is gained where they moved.

Reads the cells of `benchmarks/members.py`. The first eight members are blended by greedy selection, nested, with the
decision rule of the metric. Of the hidden rows test sets are made: random halves of their groups (nothing moved), and
rows of which each class is kept by a chance of its own, .1 to 1 (moved). The table has how often the priors were said
to have moved, and log-loss and metric as they were, with what `test_prior: auto` does, and with the true priors.

  python benchmarks/prior_shift.py runs/members/maskstates-*.npz --draws 5
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import log_softmax

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from foldcraft.ensemble import nested, prior_shift
from foldcraft.ensemble.methods import Greedy
from foldcraft.ensemble.nested import BlendMember, Labels
from foldcraft.metrics.scores import get
from foldcraft.metrics.spaces import ClassSpace

MEMBERS = 8


def test_rows(truth: np.ndarray, units: np.ndarray, is_moved: bool, rng: np.random.Generator) -> np.ndarray:
    """Rows of a test set (N,), a mask."""
    if is_moved:
        return rng.random(len(truth)) < rng.uniform(0.1, 1, truth.max() + 1)[truth]
    names = np.unique(units)
    return np.isin(units, rng.permutation(names)[: len(names) // 2])


def of_cell(file: Path, draws: int) -> Iterator[dict[str, object]]:
    """Each test set of a cell."""
    known = np.load(file)
    space, metric = ClassSpace(tuple(known["columns"].tolist())), get(str(known["metric"]))
    truth = Labels(known["truth"], known["fold"], known["units"], metric, space)
    oofs, tests = (
        [BlendMember(str(k), ("identity",), one[None]) for k, one in enumerate(known[part][:MEMBERS])]
        for part in ("oof", "later")
    )
    selection = nested.judge(oofs, truth, [Greedy()])
    before, rule = selection.before_rule, selection.chosen.plan.rule
    every = before.plan.apply(tests)
    rng = np.random.default_rng(0)
    for is_moved in (False, True):
        for _ in range(draws):
            rows = test_rows(known["hidden_truth"], known["hidden_units"], is_moved, rng)
            test, answers = every[rows], known["hidden_truth"][rows]
            found = prior_shift.find(before.nested, truth, test)
            counts = np.bincount(answers, minlength=space.width) + 0.5
            true = log_softmax(test + np.log(counts / counts.sum() / found.before), axis=1)
            moved = found.apply(test) if found.is_real else test
            new = found.moved_rule(before.nested, truth, rule) if found.is_real else rule
            yield {
                "set": file.stem.split("-")[0],
                "rows": int(file.stem.split("-")[1]),
                "moved": is_moved,
                "said so": found.is_real,
                "p < .05": found.p < 0.05,
                **{
                    f"loss {name}": space.loss(one, answers)
                    for name, one in (("kept", test), ("auto", moved), ("true", true))
                },
                "metric kept": metric(answers, np.exp(rule.apply(test))),
                "metric auto": metric(answers, np.exp(new.apply(moved))),
                "metric, rule kept": metric(answers, np.exp(rule.apply(moved))),
                "accuracy kept": float((test.argmax(1) == answers).mean()),
                "accuracy auto": float((moved.argmax(1) == answers).mean()),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--draws", type=int, default=5)
    args = parser.parse_args()
    found = pd.DataFrame([row for file in args.files for row in of_cell(file, args.draws)])
    groups = found.groupby(["set", "rows", "moved"])
    print(groups.mean().assign(tests=groups.size()).round(4).T.to_string())


if __name__ == "__main__":
    main()
