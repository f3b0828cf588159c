"""What should a short fine-tuning start from, how fast and how long should it learn, and do pseudo-labels help it?

For each set, share and draw a small competition as in `benchmarks/budget.py`, whose hidden rows are its test images. A
pool of probes comes first; then ViT-tiny is fine-tuned in each way on some folds. The table has log-loss and macro F1
of the net alone and evenly mixed with the pool, out of fold on the rows of these folds and on the hidden rows, and
processor seconds. Finished ways are kept in the file and skipped.

  FOLDCRAFT_WEIGHTS=weights python benchmarks/starts.py --sets signdigits maskstates --shares .1 --draws 0 \\
      --folds 0 1 --core 1 --file runs/starts.jsonl
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import core
import finished_rows
import numpy as np
import pandas as pd
from budget import BASE, ROOT, Cell, write_competition
from sklearn.metrics import f1_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.common import config_file
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.finished import FinishedExperiment
from foldcraft.predictions.store import average_folds
from foldcraft.study import recipes
from foldcraft.study.recipes import Looks, Recipe

NET, POOL, TEACHER = "vit_tiny_patch16_224", ("vit_tiny_patch16_224", "mobilenetv1_100"), "pool"
LR = recipes.ATTENTION_LR
NEW, SOLVED = {"head_init": "random"}, {"head_init": "probe"}
WAYS: dict[str, Mapping[str, Mapping[str, Any]]] = {  # epochs: of those that the short recipe has
    "new head, a sixteenth": {"finetune": NEW, "train": {"epochs": 0.5}},
    "new head, an eighth": {"finetune": NEW},
    "new head, a quarter": {"finetune": NEW, "train": {"epochs": 2}},
    "solved head, an eighth": {"finetune": SOLVED},
    "solved head, a quarter": {"finetune": SOLVED, "train": {"epochs": 2}},
    "a third of the learning rate": {"finetune": SOLVED, "optim": {"lr": LR / 3}},
    "three times the learning rate": {"finetune": SOLVED, "optim": {"lr": LR * 3}},
    "pseudo-labels by the pool": {"finetune": SOLVED, "distill": {"teachers": [TEACHER], "share": 0.0, "pseudo": 0.3}},
    "pseudo-labels, half of an epoch": {
        "finetune": SOLVED,
        "distill": {"teachers": [TEACHER], "share": 0.0, "pseudo": 0.5},
    },
}


@dataclass(frozen=True)
class Bench:
    """One cell's competition, its pool trained.

    Attributes:
        truth: labels of the hidden rows, by id.
    """

    folder: Path
    base: Experiment
    truth: pd.Series
    core: int

    @property
    def learned(self) -> int:
        """Number of rows that each fold learns from."""
        return len(self.base.competition.train_ids) * (self.base.folds.count - 1) // self.base.folds.count

    def train_pool(self) -> list[FinishedExperiment]:
        """Probes that learn from augmented copies too."""
        config, rows = self.base.config, len(self.base.competition.train_ids)
        probes = [recipes.probe(config, [name], Looks.as_configured(config), [config.images.size]) for name in POOL]
        return [self.train(recipes.with_copies(recipe, rows), None)[0] for recipe in probes]

    def train(self, recipe: Recipe, folds: Sequence[int] | None) -> tuple[FinishedExperiment, float]:
        """The experiment of a recipe, and what it took, in processor seconds."""
        file = Path(f"configs/{self.base.competition.name}/{recipe.name}.yaml")
        shared = {"tracking": {"wandb": "off"}, "experiment": recipe.name}
        file.write_text(Recipe(recipe.name, {**recipe.sections, **shared}).text("# tried"))
        which = "all" if folds is None else ",".join(map(str, folds))
        seconds = self.run("train.py", "--quiet", "--config", file, "--fold", which)
        experiment = Experiment.on(config_file.load(file), self.base.competition, self.base.folds)
        return FinishedExperiment(experiment), seconds

    def run(self, command: str, *words: str | Path) -> float:
        """A command; its processor seconds."""
        ended = core.run([sys.executable, ROOT / "src" / command, *words], self.folder, self.core)
        if ended.code:
            sys.exit(f"src/{command} failed: see {self.folder / 'log.txt'}")
        return ended.seconds


def open_bench(cell: Cell, size: int, own_core: int, home: Path) -> Bench:
    """Write the competition of a cell, make its folds, and go there."""
    folder = home / f"{cell.set}-{cell.share:g}-{cell.draw}"
    shutil.rmtree(folder, ignore_errors=True)
    truth = write_competition(cell, ROOT / "input" / cell.set, folder / "input" / cell.set)
    shutil.copytree(ROOT / "configs", folder / "configs")
    file = folder / "configs" / cell.set / "base.yaml"
    file.write_text(BASE.replace("size: 160", f"size: {size}"))
    os.chdir(folder)
    words = [sys.executable, ROOT / "src" / "split.py", "--config", file.relative_to(folder)]
    if core.run(words, folder, own_core).code:
        sys.exit(f"src/split.py failed: see {folder / 'log.txt'}")
    return Bench(folder, Experiment.open(config_file.load(file.relative_to(folder))), truth, own_core)


def compare(bench: Bench, folds: Sequence[int], ways: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each way."""
    config, competition = bench.base.config, bench.base.competition
    looks, rows = Looks.as_configured(config), len(competition.train_ids)
    probes = bench.train_pool()
    files = [f"configs/{competition.name}/{probe.name}.yaml" for probe in probes]
    bench.run("infer.py", "--store", TEACHER, "--config", *files)
    before = mean(bench, [spoken(probe, folds) for probe in probes])
    yield {"way": "the pool", "rows": rows, "seconds": 0.0, **scores(bench, folds, before, before)}
    plain = recipes.shorter(recipes.fine_tuning(config, NET, True, looks, bench.learned))
    for way in ways:
        changes = {section: dict(values) for section, values in WAYS[way].items()}
        if "train" in changes:
            epochs = max(1, round(changes["train"]["epochs"] * plain.sections["train"]["epochs"]))
            changes["train"] = {"epochs": epochs, "validate_every": epochs}
        name = "".join(letter if letter.isalnum() else "_" for letter in way).strip("_")
        member, seconds = bench.train(plain.updated(name, **changes), folds)
        own = spoken(member, folds)
        mixed = mean(bench, [before, own])
        yield {"way": way, "rows": rows, "seconds": seconds, **scores(bench, folds, own, mixed)}


Spoken = tuple[np.ndarray, np.ndarray]  # log-probabilities out of fold, of the rows of some folds, and of hidden rows


def spoken(member: FinishedExperiment, folds: Sequence[int]) -> Spoken:
    """What some folds of an experiment say, at the temperature that suits their own rows."""
    space, oof = member.experiment.competition.space, member.oof()
    own = oof.at(np.flatnonzero(np.isin(member.experiment.folds.fold, folds)))
    warm = space.fit_temperature(own.mean, own.targets)
    parts = [member.test()[member.done_folds.index(fold)] for fold in folds]
    later = average_folds(parts, member.views).mean(member.views)
    return space.at_temperature(own.mean, warm), space.at_temperature(later, warm)


def mean(bench: Bench, each: Sequence[Spoken]) -> Spoken:
    """The even mean of what several say."""
    space = bench.base.competition.space
    return tuple(space.pooled(np.stack([one[part] for one in each])) for part in (0, 1))


def scores(bench: Bench, folds: Sequence[int], alone: Spoken, mixed: Spoken) -> dict[str, float]:
    """Log-loss and macro F1 of both, out of fold and on the hidden rows."""
    competition, own = bench.base.competition, np.isin(bench.base.folds.fold, folds)
    hidden = competition.classes.encode(list(bench.truth.loc[list(competition.test_ids)]))
    truths = (competition.targets[own], hidden)
    return {
        f"{who} {where} {what}": float(score)
        for who, said in (("net", alone), ("mixed", mixed))
        for where, part, truth in zip(("OOF", "hidden"), said, truths, strict=True)
        for what, score in (
            ("log-loss", competition.space.loss(part, truth)),
            ("F1", f1_score(truth, part.argmax(1), average="macro")),
        )
    }


def command_line(about: str | None, folder: str) -> argparse.ArgumentParser:
    """Options of a benchmark on some folds of small competitions."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["signdigits", "maskstates"])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1], help="of the groups that are not hidden")
    parser.add_argument("--draws", type=int, nargs="+", default=[0])
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--size", type=int, default=96, help="side of an image, in pixels")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="that training runs on")
    parser.add_argument("--folder", type=Path, default=Path(folder), help="where it works")
    return parser


def cells_of(args: argparse.Namespace) -> list[Cell]:
    """What is asked for."""
    return [Cell(name, share, draw) for name in args.sets for share in args.shares for draw in args.draws]


def main() -> None:
    parser = command_line(__doc__, "runs/starts")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
    parser.add_argument("--file", type=Path, default=Path("runs/starts.jsonl"))
    args = parser.parse_args()
    file, home = args.file.resolve(), args.folder.resolve()
    done = finished_rows.read(file)
    for cell in cells_of(args):
        about = {"set": cell.set, "share": cell.share, "draw": cell.draw, "size": args.size}
        there = {row["way"] for row in done if about.items() <= row.items()}
        if ways := [way for way in args.ways if way not in there]:
            for row in compare(open_bench(cell, args.size, args.core, home), args.folds, ways):
                if row["way"] not in there:
                    done.append({**about, **row})
                    finished_rows.write(file, done)
    frame = pd.DataFrame(done)
    numbers = frame.columns.drop(["set", "share", "draw", "size", "way"])
    print(frame.groupby(["set", "share", "size", "way"], sort=False)[list(numbers)].mean().round(3).to_string())


if __name__ == "__main__":
    main()
