"""Ways to blend and to decide: what they score on rows never seen, and whether the score they report holds there.

Synthetic members with a known truth: their evidence for the true class is blurred by noise that all share and noise of
their own, they differ in how much they know and how loudly they say it, and rows come in pairs (groups). A row of the
table is a method with what it scores on 20,000 fresh rows (mean and standard error over repeats), the nested and
the optimistic score it reports, and how often the 95 % interval of each covers the true score.

With --cells the members are what `benchmarks/members.py` made: probes of real nets and hidden rows. So many are taken
of them: 4 and 8 of different nets, each with a copy, 16 of all, 40: all, near copies, and some that know nothing. The
table has the log-loss of the hidden rows against that of the even mean, in percent, and the metric against its own.

With --configs the members are finished experiments of a competition: so many rows (whole groups) of their out-of-fold
predictions are fitted on, the others are what was never seen.

  python benchmarks/ensemble.py --rows 200 500 2000 8000 --classes 5 18 --repeats 40 20 10 5
  python benchmarks/ensemble.py --rows 200 500 --repeats 20 20 --configs configs/maskstates/probe_*.yaml
  python benchmarks/ensemble.py --cells runs/members/*.npz --members 4 8 16 40
  python benchmarks/ensemble.py --large          # time and memory of a selection over 1,000,000 rows
"""

import argparse
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from scipy.special import log_softmax

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from foldcraft.common import config_file
from foldcraft.ensemble import nested
from foldcraft.ensemble.methods import (
    Best,
    Calibrated,
    Combination,
    Greedy,
    LogPool,
    Method,
    Stacking,
    WeightedMean,
)
from foldcraft.ensemble.nested import BlendCandidate, BlendMember, Labels
from foldcraft.metrics.scores import get
from foldcraft.metrics.spaces import ClassSpace, Space, ValueSpace, of_form
from foldcraft.predictions.finished import open_finished
from foldcraft.predictions.oof import common_rows

MEMBERS, FOLDS, FRESH = 12, 5, 20_000
WAYS = [Best(), WeightedMean(), Greedy(), Stacking()]


class World:
    """Members of one synthetic competition, from which any number of rows can be drawn."""

    def __init__(self, classes: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.rng, self.classes = rng, classes
        self.prior = np.geomspace(1, 0.1, classes)
        self.prior /= self.prior.sum()
        self.signal = rng.uniform(1.2, 2.6, MEMBERS)
        self.loudness = np.exp(rng.normal(0, 0.5, MEMBERS))

    def draw(self, rows: int) -> tuple[list[BlendMember], np.ndarray, np.ndarray]:
        """Members on so many rows, the truth, and the pair that each row is of."""
        units = np.arange(rows) // 2
        truth = self.rng.choice(self.classes, units[-1] + 1, p=self.prior)[units]
        shared = self._noise(units)
        members = []
        for k in range(MEMBERS):
            evidence = 0.7 * shared + 0.7 * self.rng.normal(0, 1, shared.shape)
            evidence[np.arange(rows), truth] += self.signal[k]
            logits = (evidence * self.signal[k] + np.log(self.prior)) * self.loudness[k]
            members.append(BlendMember(f"m{k}", ("identity",), log_softmax(logits, axis=1)[None].astype(np.float32)))
        return members, truth, units.astype(str)

    def _noise(self, units: np.ndarray) -> np.ndarray:
        """Noise of a row, half of it that of its pair."""
        own = self.rng.normal(0, 1, (len(units), self.classes))
        return 0.7 * own + 0.7 * self.rng.normal(0, 1, (units[-1] + 1, self.classes))[units]


def once(rows: int, classes: int, seed: int) -> Iterator[dict[str, object]]:
    """Each way on one synthetic competition."""
    world = World(classes, seed)
    known, targets, units = world.draw(rows)
    fold = (np.unique(units, return_inverse=True)[1] + seed) % FOLDS
    truth = Labels(targets, fold, units, get("macro_f1"), ClassSpace(tuple(map(str, range(classes)))))
    fresh, answers, _ = world.draw(FRESH)
    yield from _rows(known, truth, fresh, answers)


def recorded(configs: list[Path], rows: int, seed: int) -> Iterator[dict[str, object]]:
    """Each way on a draw of the groups of a real competition."""
    members, truth = _recorded(tuple(configs))
    order = np.random.default_rng(seed).permutation(np.unique(truth.units))
    size = {unit: int(count) for unit, count in zip(*np.unique(truth.units, return_counts=True), strict=True)}
    last = int(np.searchsorted(np.cumsum([size[unit] for unit in order]), rows)) + 1
    inside = np.isin(truth.units, order[:last])
    known, fresh = np.flatnonzero(inside), np.flatnonzero(~inside)
    yield from _rows(
        [one.rows(known) for one in members],
        truth.rows(known),
        [one.rows(fresh) for one in members],
        truth.targets[fresh],
    )


@cache
def _recorded(configs: tuple[Path, ...]) -> tuple[list[BlendMember], Labels]:
    runs = open_finished([config_file.load(path) for path in configs])
    oofs = [run.oof() for run in runs]
    rows = common_rows(oofs)
    members = [BlendMember(run.name, oof.views, oof.at(rows).predicted) for run, oof in zip(runs, oofs, strict=True)]
    data = runs[0].experiment.competition
    return members, Labels(
        data.targets[rows], runs[0].experiment.folds.fold[rows], data.units[rows], data.metric, data.space
    )


def _rows(
    known: list[BlendMember], truth: Labels, fresh: list[BlendMember], answers: np.ndarray
) -> Iterator[dict[str, object]]:
    selection = nested.judge(known, truth, WAYS)
    for place, candidate in enumerate(selection.candidates):
        ruled = "argmax" if place < len(WAYS) else "rule"
        yield _row(WAYS[place % len(WAYS)].name, ruled, candidate, known, truth, fresh, answers)
    yield _row("used", "", selection.chosen, known, truth, fresh, answers)


def _row(
    way: str,
    rule: str,
    found: BlendCandidate,
    known: list[BlendMember],
    truth: Labels,
    fresh: list[BlendMember],
    answers: np.ndarray,
) -> dict[str, object]:
    true = truth.metric(answers, np.exp(found.plan.apply(fresh)))
    optimistic = nested.score_of(found.plan.apply(known), truth)
    return {
        "way": way,
        "rule": rule,
        "true": true,
        "nested": found.score.value,
        "optimistic": optimistic.value,
        "nested covers": found.score.low <= true <= found.score.high,
        "optimistic covers": optimistic.low <= true <= optimistic.high,
    }


def table(args: argparse.Namespace) -> None:
    rows = []
    for classes in args.classes if not args.configs else [0]:
        for count, repeats in zip(args.rows, args.repeats, strict=True):
            start = time.perf_counter()
            for seed in range(repeats):
                found = recorded(args.configs, count, seed) if args.configs else once(count, classes, seed)
                rows += [{"classes": classes, "rows": count, **row} for row in found]
            every = pd.DataFrame(rows)
            mine = every[(every["classes"] == classes) & (every["rows"] == count)]
            grouped = mine.drop(columns=["classes", "rows"]).groupby(["way", "rule"], sort=False)
            shown = grouped.mean().assign(error=grouped["true"].sem())
            what = f"{classes} classes" if classes else args.configs[0].parent.name
            print(f"\n{what}, {count} rows, {repeats} repeats, {time.perf_counter() - start:.0f} s")
            print(shown.round(4).to_string(), flush=True)
    if args.out:
        pd.DataFrame(rows).to_csv(args.out, index=False)


class EvenMean(Method):
    """All members alike: what the others are compared with."""

    name = "even mean"

    def combine(self, found: Calibrated) -> Combination:
        return found.combined(LogPool, np.ones(len(found.used)))


CELL_WAYS = [Best(), EvenMean(), WeightedMean(), Greedy(), Stacking()]


def of_cell(file: Path, count: int) -> Iterator[dict[str, object]]:
    """Each way on so many members of a cell of `benchmarks/members.py`, and the one that nested losses speak for."""
    known = np.load(file)
    kind = {"classes": "single", "labels": "multilabel", "values": "regression"}[str(known["form"])]
    names, truth, hidden = known["columns"].tolist(), known["truth"], known["hidden_truth"]
    if kind == "regression":
        space = ValueSpace(tuple(names), np.nanmean(truth, 0), np.nanstd(truth, 0))
    else:
        space = of_form(str(known["form"]), names, known["widths"].tolist())
    metric, folds = get(str(known["metric"]), kind), known["fold"]
    oof, later = _members_of(known, count, space)
    nested_losses = []
    for way in CELL_WAYS:
        later_said = way.fit(oof, truth, known["units"], space).apply(later)
        said = np.empty(oof[0].shape)
        for fold in np.unique(folds):
            learned, own = folds != fold, folds == fold
            fitted = way.fit([one[learned] for one in oof], truth[learned], known["units"][learned], space)
            said[own] = fitted.apply([one[own] for one in oof])
        nested_losses.append(space.loss(said, truth))
        score = metric.sign * metric(hidden, space.scored(later_said))
        yield {"way": way.name, "loss": space.loss(later_said, hidden), "score": score, "nested": nested_losses[-1]}


def _members_of(known: Mapping[str, np.ndarray], count: int, space: Space) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Predictions of so many members (N, W), out of fold and hidden."""
    rng, names = np.random.default_rng(count), known["names"].tolist()
    parts = [list(known["oof"]), list(known["later"])]
    copies = [k for k, name in enumerate(names) if name.endswith(", copy")]
    if count <= len(copies) + 1:
        some = rng.permutation(copies)[:count].tolist()
        some += [names.index("all nets")] * (count > len(copies))
    else:
        some = rng.permutation(len(names))[:count].tolist()
    parts = [[part[k] for k in some] for part in parts]
    while len(parts[0]) < count:
        k, is_useless = int(rng.integers(len(some))), len(parts[0]) % 3 == 0
        for part in parts:
            noise = 0.1 * part[k].std() * rng.standard_normal(part[k].shape)
            part.append(rng.permutation(part[k]) if is_useless else space.normalised(part[k] + noise))
    return parts[0], parts[1]


def cells(args: argparse.Namespace) -> None:
    """The table of --cells."""
    rows = []
    for file in args.cells:
        for count in args.members:
            found = list(of_cell(file, count))
            known = np.load(file)
            about = Labels(known["truth"], known["fold"], known["units"], get("accuracy"), ClassSpace(("any",)))
            tried = {way.name for way in nested.methods_for(about)}
            used = min((one for one in found if one["way"] in tried), key=lambda one: one["nested"])
            found.append({**used, "way": "used"})
            even = next(one for one in found if one["way"] == EvenMean.name)
            data, size, draw = file.stem.rsplit("-", 2)
            about = {"set": data, "rows": int(size), "draw": int(draw), "members": count}
            for one in found:
                rows.append({**about, **one, "loss, %": 100 * np.log(one["loss"] / even["loss"])})
                rows[-1]["score, +"] = one["score"] - even["score"]
    every = pd.DataFrame(rows)
    if args.out:
        every.to_csv(args.out, index=False)
    print(every.groupby("way", sort=False)[["loss, %", "score, +"]].agg(["mean", "sem", "max"]).round(4).to_string())
    for by in (["set", "rows"], ["members"]):
        means = every.pivot_table(index="way", columns=by, values=["loss, %", "score, +"], sort=False)
        print(f"\n{means.round(4).T.to_string()}")


class Watch(threading.Thread):
    """The most memory of its own, in KiB, that this process takes meanwhile; pages of mapped files do not count."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.ended = 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.1):
            status = Path("/proc/self/status").read_text()
            self.peak = max(self.peak, int(re.search(r"RssAnon:\s+(\d+)", status)[1]))

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()


def large(rows: int = 1_000_000, classes: int = 100, members: int = 30) -> None:
    """Greedy selection over members that lie on disk as memory maps."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, classes, rows)
    with TemporaryDirectory(dir=Path.cwd()) as folder:
        maps = []
        for k in range(members):
            path = Path(folder) / f"{k}.npy"
            made = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(rows, classes))
            for first in range(0, rows, 50_000):
                some = truth[first : first + 50_000]
                evidence = rng.standard_normal((len(some), classes), dtype=np.float32)
                evidence[np.arange(len(some)), some] += 2 + k / members
                made[first : first + 50_000] = log_softmax(evidence, axis=1)
            made.flush()
            maps.append(np.load(path, mmap_mode="r"))
            del made
        start = time.perf_counter()
        with Watch() as watch:
            found = Greedy().fit(maps, truth, np.arange(rows))
        seconds = time.perf_counter() - start
        print(f"{rows:,} rows x {classes} classes x {members} members: {seconds:.0f} s, {watch.peak / 2**20:.1f} GiB")
        print(
            f"(the maps of {members * rows * classes * 2 / 2**30:.1f} GiB do not count: the system drops their pages)"
        )
        print("weights:", " ".join(f"{share:.2f}" for share in found.shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[200, 500, 2000, 8000])
    parser.add_argument("--classes", nargs="+", type=int, default=[5, 18])
    parser.add_argument("--repeats", nargs="+", type=int, default=[40, 20, 10, 5], help="one for each of --rows")
    parser.add_argument("--configs", nargs="+", type=Path, default=[], help="finished experiments, as members")
    parser.add_argument("--cells", nargs="+", type=Path, default=[], help="files of benchmarks/members.py")
    parser.add_argument("--members", nargs="+", type=int, default=[4, 8, 16, 40], help="how many, with --cells")
    parser.add_argument("--large", action="store_true", help="a selection over 1,000,000 rows instead")
    parser.add_argument("--out", type=Path, help="CSV of all single results")
    args = parser.parse_args()
    large() if args.large else cells(args) if args.cells else table(args)


if __name__ == "__main__":
    main()
