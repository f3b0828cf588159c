"""What does each rarely used option do to the out-of-fold score? A baseline against each option alone, many times over.

For each seed, competition and backbone there is a small competition: folds 0 and 1 of five are judged whole, and of the
groups of the other three as many are kept as make `--rows` images to learn from. The baseline is LP-FT with few looks
and one view; every option is trained on the same folds with the same seed, and judged on the same rows. A soup is
compared with the mean of its two ingredients, weights of stages with a plain linear probe, and R-Drop, which needs
dropout, with the dropout alone as well. "Another seed" changes nothing else: it shows how large chance is.

Finished cells are kept in the file and skipped, failed ones too, until their lines are deleted. A cell that was killed
begins anew. Seconds are this process's processor time for both folds, from the net to the predictions; decoded images
and the features that heads are solved on are there before.

  OMP_NUM_THREADS=1 FOLDCRAFT_WEIGHTS=weights python benchmarks/options.py \\
    --configs configs/neusteel/vit_tiny.yaml configs/signdigits/vit_tiny.yaml \\
    --backbones mobilenetv2_035 vit_tiny_patch16_224 --folder runs/options --out runs/options.csv
  python benchmarks/options.py --table --out runs/options.csv
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.common import allocator, config_file
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.files import write_atomic
from foldcraft.common.paths import FoldFolder, experiment_folder, hardware_file
from foldcraft.data import competition, folds, splitting
from foldcraft.data.folds import Folds
from foldcraft.data.host_files.tables import read_tables
from foldcraft.ensemble import model_soup, soup_ingredients
from foldcraft.metrics.bootstrap import bootstrap_scores
from foldcraft.metrics.calibration import calibrated
from foldcraft.metrics.scores import get as metric_of
from foldcraft.models import hardware
from foldcraft.predictions import store
from foldcraft.predictions.experiment import Experiment
from foldcraft.study.diagnose import some_groups
from foldcraft.training import initialization as begin
from foldcraft.training.distributed import Processes
from foldcraft.training.fold import train_fold

JUDGED = (0, 1)  # folds
FOLDS = 5
TEST_ROWS = 300  # for pseudo-labels
REPEATS = 1000  # of the bootstrap
OTHER_SEED = 1000  # added to a seed
LR = {"vit_tiny_patch16_224": 5e-4}
LR_CNN = 1.5e-3
MEASURES = ("metric", "loss", "calibrated")
KEY = ("recipe", "data", "backbone", "seed", "option", "values")
COMPARED = tuple(f"{measure}_{what}" for measure in MEASURES for what in ("better", "error"))
COLUMNS = (*KEY, "metric_name", *MEASURES, *COMPARED, "seconds", "ratio", "failed")


@dataclass(frozen=True)
class Option:
    """Something that is switched on.

    Attributes:
        words: key=value words on top of the recipe's; {name} is a value that hangs on the cell.
        against: what it is compared with, the mean of several; none: it is compared with nothing.
        about: what the table says in place of the words.
    """

    title: str
    words: tuple[str, ...] = ()
    against: tuple[str, ...] = ("baseline",)
    about: str = ""

    @property
    def values(self) -> str:
        return self.about or " ".join(self.words)


PROBE = "finetune.mode=linear_probe"
TEACHER = "distill.teachers=[{teacher}]"
OPTIONS = {
    "baseline": Option("baseline (LP-FT)", against=(), about="LP-FT"),
    "seed": Option("another seed", ("seed={other_seed}",), about="nothing else"),
    "swa": Option("SWA", ("optim.swa=0.3",)),
    "dropout": Option("dropout", ("backbone.drop=0.2",)),
    "rdrop": Option("R-Drop and dropout", ("regularize.rdrop=0.3", "backbone.drop=0.2")),
    "rdrop_alone": Option("R-Drop beside dropout alone", against=("dropout",), about="regularize.rdrop=0.3"),
    "interpolate": Option("interpolation", ("finetune.interpolate=true",)),
    "unfreeze": Option("gradual unfreezing", ("finetune.unfreeze_epochs=3",)),
    "mixup": Option("mixup", ("augment.mixup=0.2",)),
    "cutmix": Option("cutmix", ("augment.cutmix=0.5",)),
    "erase": Option("random erasing", ("augment.erase=0.25",)),
    "norm": Option("norms and biases only", ("finetune.mode=norm", "optim.lr=3e-3")),
    "lora": Option("LoRA", ("finetune.mode=lora", "optim.lr=1e-3")),
    "distill": Option(
        "distillation", (TEACHER, "distill.share=0.3"), about="distill.teachers=[baseline] distill.share=0.3"
    ),
    "pseudo": Option(
        "pseudo-labels",
        (TEACHER, "distill.share=0", "distill.pseudo=0.2"),
        about="distill.teachers=[baseline] distill.share=0 distill.pseudo=0.2",
    ),
    "soup": Option("soup of two seeds", against=("baseline", "seed"), about="beside the mean of its ingredients"),
    "probe": Option("linear probe", (PROBE,), against=()),
    "late_stages": Option(
        "late stages weigh more", (PROBE, "{rising}"), ("probe",), "probe.stage_weights from 0.5 (first) to 2 (last)"
    ),
    "early_stages": Option(
        "early stages weigh more", (PROBE, "{falling}"), ("probe",), "probe.stage_weights from 2 (first) to 0.5 (last)"
    ),
}
SAME_RUN = {"rdrop_alone": "rdrop"}  # another comparison of what was trained for the other
NEEDED = {name for option in OPTIONS.values() for name in option.against} | set(SAME_RUN.values())
# What trains nothing of its own, and whose training it has the time of.
MADE_OF = {"soup": ("baseline", "seed"), "rdrop_alone": ("rdrop",)}


@dataclass(frozen=True)
class Recipe:
    """What all trainings have in common.

    Attributes:
        size: side of the images in pixels.
        rows: images to learn from, about.
    """

    size: int
    epochs: int
    batch: int
    rows: int

    def __str__(self) -> str:
        return f"{self.size} px, {self.epochs} epochs, batch {self.batch}, {self.rows} images"

    @property
    def words(self) -> list[str]:
        return [
            f"images.size={self.size}",
            f"train.epochs={self.epochs}",
            f"train.batch={self.batch}",
            f"train.validate_every={self.epochs}",
            "machine.workers=0",
            "finetune.head_init=auto",
            "finetune.batchnorm=auto",
            "tta.views=[identity]",
            "tracking.wandb=off",
        ]


@dataclass(frozen=True)
class Cells:
    """All options on one competition with one backbone and one seed.

    Attributes:
        path: config of the competition.
        source: folder of its data.
        home: where the small competition and all runs are kept; the current folder, for folds are found from there.
    """

    path: Path
    source: Path
    home: Path
    recipe: Recipe
    backbone: str
    seed: int

    @property
    def data(self) -> str:
        return self.path.parent.name

    @property
    def name(self) -> str:
        """Of the small competition."""
        return f"{self.data}-{self.recipe.rows}-{self.seed}"

    @property
    def key(self) -> dict[str, object]:
        return {"recipe": str(self.recipe), "data": self.data, "backbone": self.backbone, "seed": self.seed}

    @property
    def folder(self) -> Path:
        """Of the small competition's data."""
        return self.home / "input" / self.name

    @property
    def kept_hardware(self) -> Path:
        """What this backbone is computed on, in all cells alike."""
        return self.home / f"hardware-{self.backbone}.json"

    def config(self, name: str) -> Config:
        """Settings of an option's experiment, which is named after them."""
        own = [word.format_map(Late(self)) for word in OPTIONS[SAME_RUN.get(name, name)].words]
        words = [
            *(f"runs={self.home / 'runs'}", f"seed={self.seed}", f"competition.name={self.name}"),
            *(f"competition.folder={self.folder}", "competition.follow_links=true", f"backbone.name={self.backbone}"),
            *(f"optim.lr={LR.get(self.backbone, LR_CNN)}", *self.recipe.words, *own, f"experiment={self.backbone}"),
        ]
        return config_file.load(self.path, words).as_trial()

    def make_competition(self) -> None:
        """Write the small competition and its folds, which come last; nothing is done where they are there."""
        small = self.config("baseline")
        if small.folds_file.is_file():
            return
        whole = config_file.load(self.path, [f"competition.folder={self.source}"])
        tables = read_tables(whole)
        data = competition.read(whole)
        made = splitting.make(data, whole.folds.model_copy(update={"seed": self.seed, "count": FOLDS}))
        kept = self.kept(made, data.units, data.targets)
        tests = np.random.default_rng(self.seed).permutation(len(data.test_ids)) < TEST_ROWS
        part = tables.only(kept, tests)
        names = whole.competition
        sample = tables.sample[tables.sample[names.id].isin(part.test_ids)]
        self.folder.mkdir(parents=True, exist_ok=True)
        for file, table in ((names.train, part.train), (names.test, part.test), (names.sample, sample)):
            write_atomic(self.folder / file, table.to_csv(index=False))
        for entry in self.source.iterdir():
            if not (self.folder / entry.name).exists():
                (self.folder / entry.name).symlink_to(entry)
        digest = competition.read(small).fingerprint
        own = Folds(data.train_ids[kept], made.fold[kept], FOLDS, made.scheme, self.seed, digest)
        folds.write(own, small.folds_file)

    def kept(self, made: Folds, units: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """A mask of the rows that are judged, and of those that make up the images to learn from."""
        judged = np.isin(made.fold, JUDGED)
        lacking = self.recipe.rows - judged.sum() / len(JUDGED)
        share = float(np.clip(lacking / (~judged).sum(), 0, 1))
        kept = judged.copy()
        for fold in range(len(JUDGED), FOLDS):
            rows = made.valid_rows(fold)
            kept[rows] = some_groups(units[rows], targets[rows], share, self.seed)
        return kept

    def warm(self, names: Sequence[str]) -> None:
        """Decode images, choose the hardware and gather features, so that no option pays for what all use."""
        experiment = Experiment.open(self.config("baseline"))
        start = begin.build(experiment, Callback())
        config = experiment.config
        hardware.choose(config.machine, start.model, config.images.size, config.train.part, self.kept_hardware)
        begin.set_probe_head(experiment, begin.copy_of(start, experiment), JUDGED[0], Callback())
        if "probe" in names:
            experiment = Experiment.open(self.config("probe"))
            start = begin.build(experiment, Callback())
            other = experiment.config.probe.model_copy(update={"strengths": [1.0]})  # or the heads too would be known
            begin.solve_probe(experiment, start, other, Callback())
            begin.features_of(experiment, start, Callback())

    def clear(self, name: str) -> None:
        """Begin an option's experiment anew, on the hardware of all."""
        own = self.config(name)
        shutil.rmtree(experiment_folder(own), ignore_errors=True)
        experiment_folder(own).mkdir(parents=True)
        shutil.copy(self.kept_hardware, hardware_file(own))

    def predicted(self, name: str) -> np.ndarray:
        """Out-of-fold log-probabilities (N, K) of the judged folds, one after the other; trains what is not trained."""
        if name == "soup":
            candidates = model_soup.open_candidates(
                soup_ingredients.find_ingredients([self.config(each) for each in MADE_OF[name]]), Callback()
            )
            return candidates.predicted(candidates.all, JUDGED)
        experiment = Experiment.open(self.config(name))
        for fold in JUDGED:
            train_fold(experiment, fold, Processes(), Callback())
        parts = [store.read(FoldFolder.of(experiment.config, fold).oof) for fold in JUDGED]
        return np.concatenate([part.mean(part.views) for part in parts])

    def measure(self, name: str, spent: dict[str, float]) -> dict[str, object]:
        """Scores of an option, and how much better it is than what it is compared with.

        Args:
            spent: seconds of the options that are measured already.
        """
        others = [self.predicted(each) for each in OPTIONS[name].against]
        if name not in MADE_OF:
            self.clear(name)
        began = time.process_time()
        own = self.predicted(name)
        seconds = time.process_time() - began + sum(spent[each] for each in MADE_OF.get(name, ()))
        experiment = Experiment.open(self.config("baseline"))
        rows = np.concatenate([experiment.folds.valid_rows(fold) for fold in JUDGED])
        truth, units = experiment.competition.targets[rows], experiment.competition.units[rows]
        found: dict[str, object] = {"metric_name": experiment.competition.metric.name}
        for measure in MEASURES:
            metric = experiment.competition.metric if measure == "metric" else metric_of("log_loss")
            asked = [calibrated(each, truth) if measure == "calibrated" else each for each in (own, *others)]
            probabilities = [np.exp(each) for each in asked]
            scores = [metric(truth, each) for each in probabilities]
            found[measure] = scores[0]
            if others:
                drawn = bootstrap_scores(metric, truth, probabilities, units, REPEATS)
                found[f"{measure}_better"] = metric.sign * (scores[0] - np.mean(scores[1:]))
                found[f"{measure}_error"] = float((drawn[0] - drawn[1:].mean(0)).std())
        against = OPTIONS[name].against
        ratio = seconds / np.mean([spent[each] for each in against]) if against else 1.0
        if name not in NEEDED and name not in MADE_OF:
            shutil.rmtree(experiment_folder(self.config(name)))
        return {**found, "seconds": seconds, "ratio": ratio, "failed": ""}


@dataclass(frozen=True)
class Late:
    """Values that hang on the cell, for `str.format_map`; each is found when it is asked for."""

    cells: Cells

    def __getitem__(self, name: str) -> str:
        return str(getattr(self, name))

    @property
    def other_seed(self) -> int:
        return self.cells.seed + OTHER_SEED

    @property
    def teacher(self) -> str:
        return self.cells.config("baseline").experiment

    @property
    def rising(self) -> str:
        return self._weights(0.5, 2.0)

    @property
    def falling(self) -> str:
        return self._weights(2.0, 0.5)

    def _weights(self, first: float, last: float) -> str:
        stages = FoldFolder.of(self.cells.config("probe"), JUDGED[0]).read_manifest()["probe"]["stages"]
        weights = np.geomspace(first, last, len(stages))
        pairs = (f"{stage}: {weight:.4f}" for stage, weight in zip(stages, weights, strict=True))
        return f"probe.stage_weights={{{', '.join(pairs)}}}"


@dataclass(frozen=True)
class Book:
    """The file of finished cells, one a line."""

    file: Path

    @cached_property
    def rows(self) -> list[dict[str, object]]:
        if not self.file.is_file():
            return []
        return pd.read_csv(self.file, dtype=str, keep_default_na=False).to_dict("records")

    def find(self, key: dict[str, object]) -> dict[str, object] | None:
        """The line of a cell, if it is finished."""
        return next((row for row in self.rows if all(row[name] == str(key[name]) for name in KEY)), None)

    def add(self, row: dict[str, object]) -> None:
        """Keep a line; the file is whole at any moment."""
        self.rows.append(
            {name: f"{value:.6f}" if isinstance(value, float) else str(value) for name, value in row.items()}
        )
        write_atomic(self.file, pd.DataFrame(self.rows, columns=list(COLUMNS)).to_csv(index=False))

    @property
    def table(self) -> pd.DataFrame:
        return pd.read_csv(self.file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", type=Path, default=[], help="one config a competition")
    parser.add_argument("--backbones", nargs="+", default=["mobilenetv2_035", "vit_tiny_patch16_224"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="of folds and trainings alike")
    parser.add_argument("--options", nargs="+", choices=OPTIONS, default=list(OPTIONS), help="and what these need")
    parser.add_argument("--size", type=int, default=96, help="side of the images in pixels")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--rows", type=int, default=320, help="images to learn from, about")
    parser.add_argument("--folder", type=Path, default=Path("runs/options"), help="where all of it is kept")
    parser.add_argument("--out", type=Path, default=Path("runs/options.csv"), help="CSV of the finished cells")
    parser.add_argument("--table", action="store_true", help="show the table of the CSV and train nothing")
    args = parser.parse_args()
    book = Book(args.out.resolve())
    if not args.table:
        if not args.configs:
            parser.error("--configs is missing")
        allocator.keep_freed_memory()
        run(args, book)
    print(markdown(book.table))


def run(args: argparse.Namespace, book: Book) -> None:
    """All cells that are not in the book yet; each seed, competition and backbone is done before the next begins."""
    names, recipe = with_needed(args.options), Recipe(args.size, args.epochs, args.batch, args.rows)
    competitions = [(path.resolve(), config_file.load(path).folder.resolve()) for path in args.configs]
    if "FOLDCRAFT_WEIGHTS" in os.environ:
        os.environ["FOLDCRAFT_WEIGHTS"] = str(Path(os.environ["FOLDCRAFT_WEIGHTS"]).resolve())
    home = args.folder.resolve()
    home.mkdir(parents=True, exist_ok=True)
    os.chdir(home)  # folds are found from the current folder
    for seed, (path, source), backbone in product(args.seeds, competitions, args.backbones):
        for row in missing(Cells(path, source, home, recipe, backbone, seed), names, book):
            book.add(row)
            print(told(row), flush=True)


def with_needed(names: Sequence[str]) -> list[str]:
    """The options with those that they are compared with or made of, in the order of all."""
    wanted = set(names)
    for name in reversed(OPTIONS):
        if name in wanted:
            wanted |= {*OPTIONS[name].against, *MADE_OF.get(name, ())}
            wanted |= {"baseline"} if any(TEACHER in word for word in OPTIONS[name].words) else set()
    return [name for name in OPTIONS if name in wanted]


def missing(cells: Cells, names: Sequence[str], book: Book) -> Iterator[dict[str, object]]:
    """A row of each option that the book lacks; one that fails is told in one line, and the next goes on."""
    keys = {name: {**cells.key, "option": name, "values": OPTIONS[name].values} for name in names}
    left = [name for name in names if not book.find(keys[name])]
    if left:
        cells.make_competition()
        cells.warm(names)
    for name in left:
        known = {each: row for each in names if (row := book.find(keys[each]))}
        needed = {*OPTIONS[name].against, *MADE_OF.get(name, ())}
        if broken := [each for each in sorted(needed) if known[each]["failed"]]:
            yield {**keys[name], "failed": f"{broken[0]} has failed"}
            continue
        try:
            spent = {each: float(row["seconds"]) for each, row in known.items() if not row["failed"]}
            yield {**keys[name], **cells.measure(name, spent)}
        except Exception as error:  # whatever it is, the other options can be measured
            yield {**keys[name], "failed": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def told(row: dict[str, object]) -> str:
    """A line for people."""
    where = f"{row['data']} {row['backbone']} seed {row['seed']} {row['option']}:"
    if row["failed"]:
        return f"{where} failed: {row['failed']}"
    values = [f"{measure} {row[measure]:.4f}" for measure in MEASURES]
    better = [f"{row[f'{measure}_better']:+.4f}" for measure in MEASURES if f"{measure}_better" in row]
    return " ".join([where, ", ".join(values), f"better by {', '.join(better)}" if better else "", seconds_of(row)])


def seconds_of(row: dict[str, object]) -> str:
    return f"({row['seconds']:.1f} s, {row['ratio']:.2f})"


def markdown(table: pd.DataFrame) -> str:
    """The effect of each option over all cells, and its log-loss on each competition with each backbone."""
    return "\n\n".join(f"{recipe}\n\n{effects(part)}\n\n{places(part)}" for recipe, part in table.groupby("recipe"))


def effects(table: pd.DataFrame) -> str:
    """A line for each option: how much better it is in the mean over cells, and what that costs."""
    done = table[table["failed"].isna()]
    metric = " / ".join(done["metric_name"].unique())
    head = ["option", "values", metric, "log-loss", "log-loss, calibrated", "better in", "time", "cells"]
    rows = []
    for (name, values), cells in grouped(table):
        good = cells[cells["failed"].isna()]
        failed = f" ({len(cells) - len(good)} failed)" if len(cells) > len(good) else ""
        title, said = OPTIONS[name].title if name in OPTIONS else name, f"{len(good)}{failed}"
        if good.empty or good["loss_better"].isna().all():
            means = [unsigned(good[measure].mean()) if len(good) else "" for measure in MEASURES]
            rows.append([title, in_code(values), *means, "", "", said])
            continue
        better = f"{(good['calibrated_better'] > 0).sum()} of {len(good)}"
        effect = [shown(good[f"{measure}_better"], good[f"{measure}_error"]) for measure in MEASURES]
        rows.append([title, in_code(values), *effect, better, f"{good['ratio'].mean():.2f}", said])
    about = (
        "Positive is better, in the log-loss too. Mean over cells ± its standard error over the cells, training's "
        "chance included; in brackets that of the judged rows alone, by a bootstrap of whole groups. Better in: cells, "
        "by the calibrated log-loss. Lines without a sign are the scores that the others are compared with."
    )
    return f"{lines(head, rows)}\n\n{about}"


def places(table: pd.DataFrame) -> str:
    """How much better each option's calibrated log-loss is on each competition with each backbone."""
    good = table[table["failed"].isna()]
    pairs = good[["data", "backbone"]].drop_duplicates().to_numpy().tolist()
    rows = []
    for (name, _), cells in grouped(good):
        row = [OPTIONS[name].title if name in OPTIONS else name]
        for data, backbone in pairs:
            here = cells[(cells["data"] == data) & (cells["backbone"] == backbone)]
            compared = here["calibrated_better"].notna().any()
            value = here["calibrated_better" if compared else "calibrated"].mean()
            row.append(signed(value) if compared else unsigned(value))
        rows.append(row)
    return lines(["log-loss, calibrated", *(f"{data}, {backbone}" for data, backbone in pairs)], rows)


def grouped(table: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    """Cells by option and values, in the order of the options."""
    place = {name: number for number, name in enumerate(OPTIONS)}
    groups = table.groupby(["option", "values"], sort=False)
    yield from sorted(groups, key=lambda group: place.get(group[0][0], len(place)))


def shown(values: pd.Series, errors: pd.Series) -> str:
    """Mean, its standard error over cells, and that of the rows alone."""
    over_cells = unsigned(values.sem()) if len(values) > 1 else "?"
    of_rows = unsigned(float(np.sqrt((errors**2).sum())) / len(errors))
    return f"{signed(values.mean())} ± {over_cells} ({of_rows})"


def in_code(values: str) -> str:
    """Words for the command line as such."""
    return f"`{values}`" if "=" in values else values


def signed(value: float) -> str:
    text = f"{value:+.4f}"
    return "" if np.isnan(value) else text.replace("0.", ".", 1) if abs(value) < 0.99995 else text


def unsigned(value: float) -> str:
    return signed(value).lstrip("+")


def lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as GitHub reads it."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


if __name__ == "__main__":
    main()
