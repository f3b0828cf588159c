"""What does a budget of time buy? Four ways to a submission, each on one core, by the score of hidden rows over time.

For each set, share and draw a quarter of the groups is hidden, up to 1,000 rows, and becomes the test set of a small
competition whose training rows are a share of the other groups. Its answers stay here.

bare loop   a fine-tuning as anybody writes it (`benchmarks/by_hand.py`): fold after fold, averaged
timm        the same with a heavy recipe: RandAugment, mixup, cutmix, smoothing, EMA, drop path, thrice as long
advice      `src/diagnose.py`, then the configs that it advises in its order, `src/infer.py` after each
compete     `src/compete.py --minutes`

All start from the same config, ViT-tiny at 160 px; advice and compete choose among all nets of the weights folder.
Seconds are processor time of the commands, which work on one thread, but for compete, whose own budget is of the
clock: give it a core to itself ("core" in the file is the part that it had). Results of one machine are compared, never
those of two. A curve begins with 0, the score of who
has no answer yet. Finished cells are kept in the file and skipped; one that is asked for more minutes than it has is
measured again. Two of these may run at once, on a core each, with one file.

  FOLDCRAFT_WEIGHTS=weights python benchmarks/budget.py --sets maskstates signdigits neusteel --shares .1 1 \\
      --draws 0 --minutes 20 --core 1 --file runs/budget.jsonl
"""

import argparse
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import core
import numpy as np
import pandas as pd
import torch
from hidden import hide
from sklearn.metrics import f1_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.common import checksums
from foldcraft.models import hardware

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "pictures" / "budget.svg"
MOST_HIDDEN = 1000  # rows
READ_AT = (2.0, 5.0, 10.0, 20.0)  # minutes
CEILING = 0.01  # errors, up to which both may be called level: two of some two hundred rows
LEAST_DRAWN = 0.002  # errors, where the logarithmic axis of the picture ends
ALONE = 0.9  # what a command on the clock must have of its core
BARE, TIMM, ADVICE, COMPETE = "bare loop", "timm", "advice", "compete"
COLOURS = {BARE: "#7f7f7f", TIMM: "#9467bd", ADVICE: "#1f77b4", COMPETE: "#d62728"}
BASE = """extends: vit_tiny.yaml
images: {size: 160}
tracking: {wandb: "off"}
"""
Entry = dict[str, Any]  # of a history: "seconds" since the beginning, "submission", a file or None
Point = tuple[float, float]  # seconds, and the hidden score from then on


@dataclass(frozen=True)
class Cell:
    """What is measured once for each contender."""

    set: str
    share: float
    draw: int


@dataclass
class Place:
    """The folder of one contender on one cell, with a competition in `input/`; and what of the budget is used.

    Attributes:
        budget, used: seconds.
        shared: what a command on the clock had of its core; 1: all.
    """

    folder: Path
    competition: str
    core: int
    budget: float
    used: float = 0.0
    shared: float = 1.0

    @property
    def config(self) -> str:
        """The config that everybody begins with, as seen from the folder."""
        return f"configs/{self.competition}/base.yaml"

    def run(self, *words: str | Path, may_say_no: bool = False) -> bool:
        """A Python file with its options, in what is left of the budget; whether it said yes, by exit code 0.

        Raises:
            TimeIsUp: the budget was used before it was done.
        """
        ended = core.run([sys.executable, *words], self.folder, self.core, max(1.0, self.budget - self.used))
        self.used += ended.seconds
        if ended.is_over_limit or self.used >= self.budget:
            raise TimeIsUp
        if ended.code and not (may_say_no and ended.code == 1):
            sys.exit(f"{' '.join(map(str, words))} failed: see {self.folder / 'log.txt'}")
        return not ended.code


class TimeIsUp(Exception):
    """The budget is used."""


def by_hand(place: Place, recipe: str) -> list[Entry]:
    """A loop that ends by itself and keeps a history."""
    minutes = str(place.budget / 60)
    words = ("--config", place.config, "--recipe", recipe, "--minutes", minutes)
    ended = core.run([sys.executable, ROOT / "benchmarks" / "by_hand.py", *words], place.folder, place.core)
    if ended.code:
        sys.exit(f"the {recipe} loop failed: see {place.folder / 'log.txt'}")
    history = place.folder / "history.jsonl"
    return [json.loads(line) for line in history.read_text().splitlines()] if history.is_file() else []


def advised(place: Place) -> list[Entry]:
    """Diagnose, then train what is advised, in the order of the commands that are printed, and blend after each."""
    entries: list[Entry] = []
    done: list[str] = []

    def train(config: str, folds: str) -> None:
        place.run(ROOT / "src" / "train.py", "--quiet", "--config", config, "--fold", folds, "tracking.wandb=off")

    def blend(*mixed_in: str) -> None:
        name = f"after{len(entries)}"
        words = ("--config", *done, *mixed_in, "tracking.wandb=off")
        place.run(ROOT / "src" / "infer.py", "--name", name, *words)
        entries.append({"seconds": place.used, "submission": f"submissions/{name}.csv"})

    try:
        place.run(ROOT / "src" / "diagnose.py", "--config", place.config)
        pool, fine_tunings = commands((place.folder / "log.txt").read_text())
        for config in pool:
            train(config, "all")
            done.append(config)
            blend()
        for config in fine_tunings:
            train(config, "0")
            if place.run(ROOT / "src" / "compare.py", pool[-1], config, "--not-behind", may_say_no=True):
                blend("--mix-in", config)
                train(config, "all")
                done.append(config)
                blend()
    except TimeIsUp:
        pass
    return entries


def commands(said: str) -> tuple[list[str], list[str]]:
    """Configs of the pool and of the fine-tunings, as src/diagnose.py says them in its commands."""
    pool = re.search(r"src/train\.py --config (.+) --fold all", said)
    if pool is None:
        sys.exit("src/diagnose.py has printed no commands")
    return pool[1].split(), re.findall(r"src/train\.py --config (\S+) --fold 0", said)


def competing(place: Place) -> list[Entry]:
    """The command that schedules by itself; its seconds are of the clock."""
    minutes = str(place.budget / 60)
    words, began = ("--config", place.config, "--minutes", minutes), time.monotonic()
    ended = core.run([sys.executable, ROOT / "src" / "compete.py", *words], place.folder, place.core)
    if ended.code:
        sys.exit(f"src/compete.py failed: see {place.folder / 'log.txt'}")
    entries = compete_entries(place.folder / "runs" / place.competition / "compete" / "history.json")
    place.shared = ended.seconds / (time.monotonic() - began)
    return entries


def compete_entries(file: Path) -> list[Entry]:
    """The entries of a history that src/compete.py keeps."""
    return checksums.read_json(file)["entries"]


CONTENDERS: dict[str, Callable[[Place], list[Entry]]] = {
    BARE: lambda place: by_hand(place, "bare"),
    TIMM: lambda place: by_hand(place, "heavy"),
    ADVICE: advised,
    COMPETE: competing,
}


def write_competition(cell: Cell, source: Path, folder: Path) -> pd.Series:
    """A competition in `folder` of a share of the training rows of another, and the labels of its test rows by id.

    Args:
        source: a folder with train.csv (id, label, perhaps group) and the images in train/.
    """
    rows = pd.read_csv(source / "train.csv", dtype=str)
    units = rows["group"].to_numpy() if "group" in rows else rows["id"].to_numpy()
    targets = np.unique(rows["label"], return_inverse=True)[1]
    known, hidden = hide(units, targets, cell.share, cell.draw, most=MOST_HIDDEN)
    parts = {"train": rows.iloc[np.sort(known)], "test": rows.iloc[hidden]}
    for part, of_part in parts.items():
        (folder / part).mkdir(parents=True)
        for name in of_part["id"]:
            shutil.copyfile(source / "train" / name, folder / part / name)  # links out of the folder are not followed
    parts["train"].to_csv(folder / "train.csv", index=False)
    parts["test"][["id"]].to_csv(folder / "test.csv", index=False)
    sample = parts["test"][["id"]].assign(label=rows["label"].iloc[0])
    sample.to_csv(folder / "sample_submission.csv", index=False)
    return parts["test"].set_index("id")["label"]


def curve(entries: Iterable[Entry], folder: Path, truth: pd.Series) -> list[Point]:
    """The hidden macro F1 over time: 0 from the beginning, then that of each submission from its seconds on.

    Args:
        folder: that the names of submissions are seen from.
        truth: labels by id.
    """
    points = [(0.0, 0.0)]
    for entry in sorted(entries, key=lambda entry: entry["seconds"]):
        if entry["submission"]:
            answers = pd.read_csv(folder / entry["submission"], dtype=str).set_index("id")["label"]
            score = f1_score(truth, answers.loc[truth.index], average="macro")
            points.append((float(entry["seconds"]), float(score)))
    return points


def score_at(points: Iterable[Point], seconds: float) -> float:
    """The score of the last submission that was there by then."""
    return max(point for point in points if point[0] <= seconds)[1]


def measure(cell: Cell, contender: str, minutes: float, own_core: int, home: Path) -> tuple[list[Point], float]:
    """One contender's curve on one cell, begun anew, and what it had of its core, if its seconds are of the clock."""
    folder = home / f"{cell.set}-{cell.share:g}-{cell.draw}" / contender.replace(" ", "_")
    shutil.rmtree(folder, ignore_errors=True)
    truth = write_competition(cell, ROOT / "input" / cell.set, folder / "input" / cell.set)
    shutil.copytree(ROOT / "configs", folder / "configs")
    place = Place(folder, cell.set, own_core, 60 * minutes)
    (folder / place.config).write_text(BASE)
    points = curve(CONTENDERS[contender](place), folder, truth)
    for part in ("input", "runs", "scratch"):  # images, features, nets: gigabytes over all cells
        shutil.rmtree(folder / part, ignore_errors=True)
    return points, place.shared


def this_machine() -> str:
    """The processor, and whether it computes in 16 bits: where it does training is twice as fast and more."""
    return f"{torch.cpu.get_capabilities()['cpu_name']}, {'bf16' if hardware.has_bf16() else '32 bits'}"


@dataclass
class Measured:
    """The file of results: for each cell and contender a line for each point of the curve.

    Args:
        machine: whose results count, as `this_machine` names it; seconds of another are no measure for its own.
    """

    file: Path
    machine: str

    def curves(self) -> dict[tuple[Cell, str], tuple[float, list[Point]]]:
        """Minutes that were measured and the curve; of several measurements the longest, of equals the last."""
        found: dict[tuple[Cell, str], tuple[float, list[Point]]] = {}
        for line in self.file.read_text().splitlines() if self.file.is_file() else []:
            row = json.loads(line)
            if row["machine"] != self.machine:
                continue
            key = Cell(row["set"], row["share"], row["draw"]), row["contender"]
            point = (row["seconds"], row["score"])
            minutes, points = found.get(key, (0.0, []))
            if row["minutes"] < minutes:
                continue
            begins = row["seconds"] == 0  # as every measurement does
            found[key] = row["minutes"], [point] if begins else [*points, point]
        return found

    def lacks(self, cell: Cell, contender: str, minutes: float) -> bool:
        """Is there no curve of that many minutes?"""
        return self.curves().get((cell, contender), (0.0, []))[0] < minutes

    def add(self, cell: Cell, contender: str, minutes: float, points: Sequence[Point], shared: float = 1.0) -> None:
        """A curve, whole in one write, as another process may add to the same file."""
        about = {"set": cell.set, "share": cell.share, "draw": cell.draw, "contender": contender, "minutes": minutes}
        about |= {"core": round(shared, 3), "machine": self.machine}
        lines = [json.dumps({**about, "seconds": seconds, "score": score}) + "\n" for seconds, score in points]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, "a") as file:
            file.write("".join(lines))


def errors(measured: Measured, times: Sequence[float]) -> pd.DataFrame:
    """1 - hidden macro F1: rows (set, share), columns (contender, minutes), means over draws; NaN: not measured."""
    rows = [
        (cell.set, cell.share, contender, at, 1 - score_at(points, 60 * at))
        for (cell, contender), (minutes, points) in measured.curves().items()
        for at in times
        if at <= minutes
    ]
    table = pd.DataFrame(rows, columns=["set", "share", "contender", "minutes", "errors"])
    means = table.groupby(["set", "share", "contender", "minutes"], sort=False)["errors"].mean()
    return means.unstack(["contender", "minutes"]).reindex(columns=pd.MultiIndex.from_product([CONTENDERS, times]))


def aims(table: pd.DataFrame) -> Iterator[str]:
    """For each set and share: at most half of the bare loop's errors, or level at the ceiling; and is 2 before 10?"""
    times = list(table[COMPETE].columns)
    for (name, share), row in table.iterrows():
        for at in times:
            ours, bare = row[COMPETE, at], row[BARE, at]
            if np.isfinite(ours + bare):
                reached = "yes" if ours <= bare / 2 or max(ours, bare) <= CEILING else "no"
                yield f"{name} {share:g}, {at:g} min: at most half of the errors: {reached} ({ours:.4f}, {bare:.4f})"
        if {2.0, 10.0} <= set(times) and np.isfinite(row[COMPETE, 2.0] + row[BARE, 10.0]):
            ours, bare = row[COMPETE, 2.0], row[BARE, 10.0]
            reached = "yes" if ours < bare or max(ours, bare) <= CEILING else "no"
            yield f"{name} {share:g}: after 2 min ahead of the bare loop after 10: {reached} ({ours:.4f}, {bare:.4f})"


def draw_curves(measured: Measured, picture: Path) -> None:
    """Errors over minutes, a small plot for each set and share, a line for each contender and draw."""
    rows, curves = [], measured.curves()
    for (cell, contender), (minutes, points) in curves.items():
        answered = points[1:]  # from the first answer on
        last = [(60 * minutes, answered[-1][1])] if answered else []
        rows += [
            (cell.set, cell.share, cell.draw, contender, seconds / 60, max(LEAST_DRAWN, 1 - score))
            for seconds, score in [*answered, *last]
        ]
    table = pd.DataFrame(rows, columns=["set", "share", "draw", "contender", "minutes", "errors"])
    there = {contender for _, contender in curves}
    colours = {name: colour for name, colour in COLOURS.items() if name in there}
    sets = list(dict.fromkeys(table["set"]))
    # Plots beside each other, and no facets: where a set lacks a share these come under the wrong names.
    chart = alt.vconcat(
        *(
            alt.hconcat(*(_plot(table[(table["set"] == name) & (table["share"] == share)], colours) for name in sets))
            for share in sorted(set(table["share"]))
        )
    )
    picture.parent.mkdir(parents=True, exist_ok=True)
    chart.save(picture)


def _plot(table: pd.DataFrame, colours: dict[str, str]) -> alt.Chart:
    """The curves of one set and share; an empty place where there are none."""
    if table.empty:
        nothing = alt.Chart(pd.DataFrame({"none": [""]})).mark_text().encode(text="none:N")
        return nothing.properties(width=220, height=150, view=alt.ViewBackground(stroke=None))
    return (
        alt.Chart(table, title=f"{table['set'].iat[0]}, {table['share'].iat[0]:.0%} of the groups")
        .mark_line(interpolate="step-after")
        .encode(
            x=alt.X("minutes:Q", title="minutes of one core", scale=alt.Scale(domain=[0, READ_AT[-1]])),
            y=alt.Y("errors:Q", title="1 - hidden macro F1", scale=alt.Scale(type="log", nice=False)),
            color=alt.Color(
                "contender:N", scale=alt.Scale(domain=list(colours), range=list(colours.values())), title=None
            ),
            strokeWidth=alt.condition(alt.datum["contender"] == COMPETE, alt.value(3), alt.value(1.5)),
            detail="draw:N",
        )
        .properties(width=220, height=150)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["maskstates", "signdigits", "neusteel"])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 1.0], help="of the groups that are not hidden")
    parser.add_argument("--draws", type=int, nargs="+", default=[0])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="that everything runs on")
    parser.add_argument("--file", type=Path, default=Path("runs/budget.jsonl"))
    parser.add_argument("--folder", type=Path, default=Path("runs/budget"), help="where contenders work")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--machine", help="whose results are shown, and nothing measured; left out: this one's")
    args = parser.parse_args()
    measured = Measured(args.file, args.machine or this_machine())
    for share in args.shares:
        for name in args.sets:
            for one in args.draws:
                for contender in args.contenders:
                    if not args.machine and measured.lacks(cell := Cell(name, share, one), contender, args.minutes):
                        points, shared = measure(cell, contender, args.minutes, args.core, args.folder.resolve())
                        measured.add(cell, contender, args.minutes, points, shared)
                        told = "" if shared > ALONE else f" with only {shared:.0%} of the core: measure it again"
                        print(f"{name} {share:g} {one} {contender}: {points[-1][1]:.4f}{told}", flush=True)
    table = errors(measured, [*(at for at in READ_AT if at < args.minutes), args.minutes])
    print(table.round(4).to_string())
    for line in aims(table):
        print(line)
    draw_curves(measured, args.picture)


if __name__ == "__main__":
    main()
