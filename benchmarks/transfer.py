"""How far to adapt a pretrained net: every way gets the same seconds on the same rows, repeated with other folds.

For each competition, share of its groups and repeat: the net learns from four fifths of the share and is judged on rows
of groups that it never saw, those outside the share among them, so a small share is judged on as many rows as a large
one. Fine-tuning gets as many epochs as fit the seconds of one fold; probes need less and are given no more.

  python benchmarks/transfer.py --configs configs/maskstates/vit_tiny.yaml configs/neusteel/vit_tiny.yaml \\
    --backbone mobilenetv2_035 --size 96 --seconds 20 --repeats 3 --shares 0.1 0.3 1
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from foldcraft import config, diagnose, predictions
from foldcraft.advice import NOTHING_TO_GAIN
from foldcraft.audience import Audience
from foldcraft.config import Config
from foldcraft.foldrun import train_fold
from foldcraft.folds import Folds
from foldcraft.predictions import log_mean
from foldcraft.processes import Processes
from foldcraft.rundir import FoldFolder
from foldcraft.workspace import Workspace

MOST_JUDGED = 600  # rows
EVERYTHING = "blend of all stages, norm, LoRA, LP-FT"
FOLDS = 5
LR = {"norm": "3e-3", "lora": "1e-3"}
FINETUNED = {
    "norm": ["finetune.mode=norm"],
    "LoRA": ["finetune.mode=lora"],
    "full, random head": ["finetune.mode=full", "finetune.head_init=random"],
    "full, LP-FT": ["finetune.mode=full"],
}
Make = Callable[[Sequence[str]], Workspace]  # the subset with more key=value words
PROBES = {
    "probe, last stage": ["finetune.mode=linear_probe", "probe.stages=last"],
    "probe, all stages": ["finetune.mode=linear_probe"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", type=Path, required=True, help="one config a competition")
    parser.add_argument("--backbone", default="mobilenetv2_035")
    parser.add_argument("--pool", nargs="+", default=[], help="backbones that the advice may choose from")
    parser.add_argument("--size", type=int, default=96, help="side of the images in pixels")
    parser.add_argument("--lr", default="1.5e-3", help="learning rate of full fine-tuning")
    parser.add_argument("--seconds", type=float, default=20, help="for each way to adapt, on one fold")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.1, 0.3, 1.0], help="of the groups")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the first repeat")
    parser.add_argument("--out", type=Path, help="CSV of all single results")
    args = parser.parse_args()
    rows = []
    for path in args.configs:
        for row in results(path, args):
            rows.append(row)
            print("  ".join(map(str, row.values())), flush=True)
            if args.out:
                pd.DataFrame(rows).to_csv(args.out, index=False)
    table = pd.DataFrame(rows)
    grouped = table.groupby(["data", "share", "way"], sort=False)
    summary = grouped.agg(mean=("score", "mean"), spread=("score", "std"), seconds=("seconds", "mean"))
    print(summary.round(4).to_string())
    ranks = table.groupby(["data", "share", "repeat"])["score"].rank(ascending=False)
    print(table.assign(rank=ranks).groupby("way", sort=False)["rank"].mean().round(2).to_string())


def results(path: Path, args: argparse.Namespace) -> Iterator[dict]:
    """A row for each share, repeat and way."""
    with TemporaryDirectory() as folder:
        common = [
            f"runs={folder}",
            f"backbone.name={args.backbone}",
            f"images.size={args.size}",
            "tracking.wandb=off",
            "finetune.head_init=auto",
            "finetune.batchnorm=auto",
            f"train.lr={args.lr}",
        ]
        for repeat in range(args.seed, args.seed + args.repeats):
            for share in args.shares:

                def make(words: Sequence[str], share: float = share, repeat: int = repeat) -> Workspace:
                    return subset(config.load(path, [*common, *words]), share, repeat)

                about = {"data": path.parent.name, "share": share, "repeat": repeat}
                for way, score, seconds in compare(make, args):
                    yield {**about, "way": way, "score": score, "seconds": seconds}


def subset(settings: Config, share: float, seed: int) -> Workspace:
    """A competition cut down to a share of its groups, with rows to be judged on as fold 0."""
    work = Workspace.open(settings)
    data = work.competition
    kept = diagnose.some_groups(data.units, data.targets, share, seed)
    fold = np.zeros(len(kept), int)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    inside = np.flatnonzero(kept)
    for k, (_, valid) in enumerate(splitter.split(inside, data.targets[inside], data.units[inside])):
        fold[inside[valid]] = k
    judged = np.flatnonzero(fold == 0)
    judged = np.random.default_rng(seed).permutation(judged)[:MOST_JUDGED]
    rows = np.sort(np.concatenate([judged, np.flatnonzero(fold > 0)]))
    smaller = replace(
        data,
        train_ids=data.train_ids[rows],
        targets=data.targets[rows],
        groups=data.groups[rows] if data.groups is not None else None,
        train_paths=tuple(data.train_paths[row] for row in rows),
        test_ids=data.test_ids[:1],
        test_paths=data.test_paths[:1],
    )
    folds = Folds(smaller.train_ids, fold[rows], FOLDS, "benchmark", seed, smaller.fingerprint)
    return Workspace(settings, smaller, folds)


def compare(make: Make, args: argparse.Namespace) -> Iterator[tuple[str, float, float]]:
    """Score and seconds of each way on one subset."""
    predicted: dict[str, np.ndarray] = {}
    plain = make([])
    tag = plain.folds.fingerprint
    truth = plain.competition.targets[plain.folds.valid_rows(0)]
    metric = plain.competition.metric
    spent: dict[str, float] = {}

    def run(way: str, words: list[str]) -> None:
        name = "".join(letter if letter.isalnum() else "_" for letter in way)
        work = make([*words, f"experiment={name}-{tag}"])
        start = time.perf_counter()
        manifest = train_fold(work, 0, Processes(), Audience())
        spent[way] = manifest["seconds"] if manifest["epochs"] else time.perf_counter() - start
        part = predictions.read(FoldFolder.of(work.config, 0).oof)
        predicted[way] = part.mean(part.views)

    for way, words in PROBES.items():
        run(way, words)
    for way, words in FINETUNED.items():
        lr = [f"train.lr={LR[mode]}" for mode in LR if f"finetune.mode={mode}" in words]
        run(way, [*words, *lr, f"train.epochs={epochs_for(make, [*words, *lr], args.seconds)}"])
    start = time.perf_counter()
    works = [make([f"backbone.name={name}"]) for name in args.pool or [args.backbone]]
    nets, chosen, scores = diagnose.rank(works, Audience())
    pool = [net.log_probs[plain.folds.valid_rows(0)] for net in nets if net.name in chosen]
    spent["advice"] = time.perf_counter() - start
    if scores[-1] < NOTHING_TO_GAIN:
        pool.append(predicted["full, LP-FT"])
        spent["advice"] += spent["full, LP-FT"]
    predicted["advice"] = log_mean(np.stack(pool))
    everything = [predicted[way] for way in ("probe, all stages", "norm", "LoRA", "full, LP-FT")]
    predicted[EVERYTHING] = log_mean(np.stack(everything))
    spent[EVERYTHING] = sum(spent[way] for way in ("norm", "LoRA", "full, LP-FT"))
    for way, log_probs in predicted.items():
        yield way, metric(truth, np.exp(log_probs)), spent[way]


def epochs_for(make: Make, words: Sequence[str], seconds: float) -> int:
    """How many epochs fit; measured on one."""
    work = make([*words, "train.epochs=1", f"experiment=timing-{time.time_ns()}"])
    manifest = train_fold(work, 0, Processes(), Audience())
    return max(1, round(seconds / max(0.05, manifest["seconds"])))


if __name__ == "__main__":
    main()
