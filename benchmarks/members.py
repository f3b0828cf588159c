"""Members to blend: probes of real nets on draws of a competition, with out-of-fold and hidden predictions.

A quarter of the groups is hidden; of the others as many are drawn as make so many rows; five folds are made, and
probes of every net learn: of all stages, with the mirror image and with an augmented copy, of a few stages, of the
last, and one over all nets. What each says, out of fold and of the hidden rows (the five folds' answers averaged), is
one file a cell, which `benchmarks/ensemble.py --cells` reads. Finished cells are skipped.

  FOLDCRAFT_WEIGHTS=weights python benchmarks/members.py --config configs/signdigits/vit_tiny.yaml images.size=96 \
      --rows 100 200 500 --draws 0 1 2 --out runs/members
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

sys.path.insert(0, str(Path(__file__).resolve().parent))

import pool
from pool import FOLDS, HIDDEN, Table, Way

from foldcraft.common import allocator, config_file
from foldcraft.predictions.experiment import Experiment

NETS = (
    *("vit_tiny_patch16_224", "mobilenetv1_100", "mobilenetv2_100", "mobilenetv2_035"),
    *("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2"),
)
# The first is the one that is used by default; the others are its near copies, or weaker.
WAYS = {
    "copy": Way(copies=1),
    "mirror": Way(),
    "plain": Way(mirror="no"),
    "coarse": Way("coarse", mirror="no"),
    "last": Way("last", mirror="no"),
}


def split(units: np.ndarray, stratum: np.ndarray, parts: int, seed: int) -> np.ndarray:
    """The part of each row (N,); groups stay whole, classes are spread."""
    several = len(np.unique(stratum)) < len(stratum) / 4
    splitter = (StratifiedGroupKFold if several else GroupKFold)(parts, shuffle=True, random_state=seed)
    found = np.empty(len(units), np.int64)
    for k, (_, rows) in enumerate(splitter.split(units, stratum, units)):
        found[rows] = k
    return found


def cell(experiment: Experiment, rows: int, draw: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows that are kept, the fold of each, and hidden rows."""
    units, stratum = experiment.competition.units, experiment.competition.target.stratum
    part = split(units, stratum, HIDDEN, draw)
    order = np.random.default_rng(draw).permutation(np.unique(units[part > 0]))
    size = dict(zip(*np.unique(units, return_counts=True), strict=True))
    last = int(np.searchsorted(np.cumsum([size[unit] for unit in order]), rows)) + 1
    kept = np.flatnonzero(np.isin(units, order[:last]))
    return kept, split(units[kept], stratum[kept], FOLDS, draw), np.flatnonzero(part == 0)


def members(table: Table, kept: np.ndarray, fold: np.ndarray, hidden: np.ndarray) -> dict[str, pool.Answers]:
    """What each probe says."""
    found = {}
    for name, way in WAYS.items():
        if name == "mirror" and not table.mirrored:
            continue
        for net in table.names:
            found[f"{net}, {name}"] = pool.answers(table, [net], way, kept, fold, hidden)
    found["all nets"] = pool.answers(table, table.names, Way(), kept, fold, hidden)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the config's")
    parser.add_argument("--nets", nargs="+", default=list(NETS))
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 200, 500])
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/members"))
    args = parser.parse_intermixed_args()
    allocator.keep_freed_memory()
    experiment = Experiment.open(config_file.load(args.config, args.overrides))
    table, data = Table(experiment, args.nets), experiment.competition
    args.out.mkdir(parents=True, exist_ok=True)
    for draw in args.draws:
        for rows in args.rows:
            file, start = args.out / f"{data.name}-{rows}-{draw}.npz", time.perf_counter()
            if file.is_file():
                continue
            kept, fold, hidden = cell(experiment, rows, draw)
            made = members(table, kept, fold, hidden)
            np.savez(
                file,
                names=list(made),
                oof=np.stack([oof for oof, _ in made.values()]).astype(np.float32),
                later=np.stack([later for _, later in made.values()]).astype(np.float32),
                **{"truth": data.targets[kept], "hidden_truth": data.targets[hidden]},
                **{"units": data.units[kept], "hidden_units": data.units[hidden], "fold": fold},
                **{"metric": data.metric.name, "form": data.space.form, "columns": list(data.space.names)},
                widths=getattr(data.space, "widths", ()),
            )
            print(f"{file}: {len(kept)} rows, {len(hidden)} hidden, {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
