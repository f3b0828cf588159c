"""How far to adapt a pretrained net: every way gets the same seconds on the same rows, repeated with other folds.

For each competition, share of its groups and repeat: a fifth of the groups is set aside to judge by, the same for all
shares; the net learns from fold 0 of five of a share of the others. Fine-tuning gets as many epochs as fit the seconds;
probes need less and are given no more. "Advice" is what `src/diagnose.py` advises for the share, trained by the configs
that it writes; its seconds hold the diagnosis.

  python benchmarks/transfer.py --configs configs/maskstates/vit_tiny.yaml configs/neusteel/vit_tiny.yaml \\
    --pool mobilenetv2_100 mobilenetv1_100 --size 96 --seconds 60 --repeats 3 --shares 0.1 0.3 1
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from hidden import hide

from foldcraft.common import config_file
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.paths import FoldFolder
from foldcraft.data import splitting
from foldcraft.ensemble.methods import Stacking
from foldcraft.predictions import store
from foldcraft.predictions.experiment import Experiment
from foldcraft.study import diagnose
from foldcraft.study.advice import advise
from foldcraft.training import initialization
from foldcraft.training.distributed import Processes
from foldcraft.training.fold import train_fold

MOST_JUDGED = 600  # rows
FOLDS = 5
LPFT = "full, LP-FT"
ALL = "probe, all stages"
PROBES = {"probe, last stage": (["finetune.mode=linear_probe"], "last"), ALL: (["finetune.mode=linear_probe"], "all")}
FINETUNED = {
    "norm": ["finetune.mode=norm"],
    "LoRA": ["finetune.mode=lora"],
    "full, random head": ["finetune.mode=full", "finetune.head_init=random"],
    LPFT: ["finetune.mode=full"],
}
LR = {"norm": 3e-3, "LoRA": 1e-3}
MEMBERS = (ALL, "norm", "LoRA", LPFT)
EVERYTHING = "blend of all stages, norm, LoRA, LP-FT"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", type=Path, required=True, help="one config a competition")
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument("--pool", nargs="+", default=[], help="more backbones that the advice may choose from")
    parser.add_argument("--size", type=int, default=96, help="side of the images in pixels")
    parser.add_argument("--lr", default="5e-4", help="learning rate of full fine-tuning")
    parser.add_argument("--seconds", type=float, default=60, help="for each way to adapt, on one fold")
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
        place = (f"runs={folder}", f"images.size={args.size}", "tracking.wandb=off")
        full = Experiment.open(config_file.load(path, place))
        for repeat in range(args.seed, args.seed + args.repeats):
            for share in args.shares:
                about = {"data": path.parent.name, "share": share, "repeat": repeat}
                for way, score, seconds in compare(Subset(path, full, place, share, repeat), args):
                    yield {**about, "way": way, "score": score, "seconds": seconds}


@dataclass(frozen=True)
class Subset:
    """A share of a competition's groups; its test set is rows of groups that are in no fold of it.

    Attributes:
        path: config of the competition.
        place: key=value words that hold for all experiments.
    """

    path: Path
    full: Experiment
    place: Sequence[str]
    share: float
    seed: int

    def experiment(self, words: Sequence[str] = ()) -> Experiment:
        """With the competition's own config, and more words."""
        return self.of(config_file.load(self.path, [*self.place, *words]))

    def of(self, settings: Config) -> Experiment:
        """With any config."""
        data = self.full.competition
        known, judged = hide(data.units, data.targets, self.share, self.seed, FOLDS, MOST_JUDGED)
        smaller = replace(
            data,
            train_ids=data.train_ids[known],
            target=data.target.at(known),
            groups=data.groups[known] if data.groups is not None else None,
            train_paths=tuple(data.train_paths[row] for row in known),
            test_ids=data.train_ids[judged],
            test_paths=tuple(data.train_paths[row] for row in judged),
        )
        return Experiment(
            settings, smaller, splitting.make(smaller, settings.folds.model_copy(update={"seed": self.seed}))
        )


def truth_of(experiment: Experiment, full: Experiment) -> np.ndarray:
    """Class indices of the rows that a subset is judged on."""
    label = dict(zip(full.competition.train_ids.tolist(), full.competition.targets.tolist(), strict=True))
    return np.array([label[row] for row in experiment.competition.test_ids.tolist()])


@dataclass(frozen=True)
class Way:
    """What one way of adapting predicts, and what it cost.

    Attributes:
        oof: log-probabilities of the held-out rows of fold 0 (n, K).
        test: of the rows that are judged (N, K).
        seconds: of processor time of this process.
    """

    oof: np.ndarray
    test: np.ndarray
    seconds: float


def compare(data: Subset, args: argparse.Namespace) -> Iterator[tuple[str, float, float]]:
    """Score and seconds of each way on one subset."""
    common = [f"backbone.name={args.backbone}", "finetune.head_init=auto", "finetune.batchnorm=auto"]
    plain = data.experiment(common)
    ways = {
        name: run(data.experiment([*common, *words, f"probe.stages={stages}"]))
        for name, (words, stages) in PROBES.items()
    }
    for name, words in FINETUNED.items():
        words = [*common, *words, f"optim.lr={LR.get(name, args.lr)}"]
        ways[name] = run(data.experiment([*words, f"train.epochs={epochs_for(data, words, args.seconds)}"]))
    ways["advice"] = advised(data, plain, args.pool)
    ways[EVERYTHING] = blended([ways[name] for name in MEMBERS], plain)
    truth = truth_of(plain, data.full)
    for name, way in ways.items():
        yield name, plain.competition.metric(truth, np.exp(way.test)), way.seconds


def run(experiment: Experiment) -> Way:
    """Fold 0 of an experiment, which gets a folder of its own."""
    experiment = replace(experiment, config=experiment.config.model_copy(update={"experiment": f"e{time.time_ns()}"}))
    start = time.process_time()
    train_fold(experiment, 0, Processes(), Callback())
    seconds = time.process_time() - start
    folder = FoldFolder.of(experiment.config, 0)
    oof, test = store.read(folder.oof), store.read(folder.test)
    return Way(oof.mean(oof.views), test.mean(test.views), seconds)


def advised(data: Subset, plain: Experiment, pool: Sequence[str]) -> Way:
    """What a diagnosis of the subset advises, blended."""
    start = time.process_time()
    experiments = [plain, *(data.of(initialization.config_for(plain.config, name)) for name in pool)]
    advice = advise(diagnose.measure(experiments, Callback()), plain.config)
    diagnosed = time.process_time() - start
    with TemporaryDirectory() as folder:
        members = []
        for experiment in [*advice.pool, *advice.tried]:
            file = Path(folder) / f"{experiment.name}.yaml"
            file.write_text(experiment.text)
            members.append(run(data.of(config_file.load(file, data.place))))
    both = blended(members, plain)
    return replace(both, seconds=diagnosed + both.seconds)


def blended(members: Sequence[Way], plain: Experiment) -> Way:
    """Members weighed by the held-out rows of fold 0."""
    held = plain.folds.valid_rows(0)
    targets, units = plain.competition.targets[held], plain.competition.units[held]
    found = Stacking().fit([way.oof for way in members], targets, units)
    oof, test = ([getattr(way, part) for way in members] for part in ("oof", "test"))
    return Way(found.apply(oof), found.apply(test), sum(way.seconds for way in members))


def epochs_for(data: Subset, words: Sequence[str], seconds: float) -> int:
    """How many epochs of training fit; measured on the second of two."""
    experiment = data.experiment([*words, "train.epochs=2", f"experiment=timing-{time.time_ns()}"])
    train_fold(experiment, 0, Processes(), Callback())
    history = pd.read_csv(FoldFolder.of(experiment.config, 0).history)
    return max(1, round(seconds / max(0.01, float(history["seconds"].diff().iloc[-1]))))


if __name__ == "__main__":
    main()
