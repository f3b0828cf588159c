"""Does the advice of `src/diagnose.py` pay? Against the advice of version 0.1, and against one net by its own config.

For each seed of the folds all of it runs as a user types it, in a folder of its own: split, diagnose, train what is
advised and the config itself, infer each. What is advised is the pool, and beside it a fine-tuning whose first fold is
not behind the pool; version 0.1 advised that fine-tuning and one probe on a few blocks of plain images. Scores are
nested, as the ledger has them. CPU seconds are user and system time of the training commands; the diagnosis, whose
features the probes use, is counted apart. A benchmark that was killed goes on where it was; what it had spent is lost
from its seconds.

  python benchmarks/advice.py --config configs/signdigits/vit_tiny.yaml --seeds 1 2 3 4 5 --jobs 2 --folder runs/advice
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import core

from foldcraft.common import config_file
from foldcraft.study.advice import MARK

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("single", "version 0.1", "pool", "advice")
COLUMNS = ("seed", *SIDES, *(f"s {side}" for side in SIDES), "s diagnosis", "fine-tuning goes on")
OLD_PROBE = """extends: {path}
backbone: {{name: {net}}}
finetune: {{mode: linear_probe}}
probe: {{stages: coarse, views: [identity], mirror: false, augmented: 0}}
tta: {{views: [identity]}}
"""


@dataclass(frozen=True)
class Place:
    """The folder of one seed, and the core that its commands run on."""

    folder: Path
    core: int

    def prepare(self) -> None:
        """Configs of its own, for advice is written among them; the data are shared."""
        if not (self.folder / "input").exists():
            shutil.copytree(ROOT / "configs", self.folder / "configs", dirs_exist_ok=True)
            (self.folder / "input").symlink_to(ROOT / "input")

    def run(self, *words: str, may_say_no: bool = False) -> bool:
        """A command of src/, and whether it exits with 0; its CPU seconds are added to those that it took before."""
        ended = core.run([sys.executable, ROOT / "src" / f"{words[0]}.py", *words[1:]], self.folder, self.core)
        if ended.code and not (may_say_no and ended.code == 1):
            sys.exit(f"{' '.join(words)} failed: see {self.folder / 'log.txt'}")
        spent = self._spent()
        spent[" ".join(words)] = self.seconds(*words) + ended.seconds
        (self.folder / "spent.json").write_text(json.dumps(spent, indent=1))
        return not ended.code

    def seconds(self, *words: str) -> float:
        """What a command took of the processor, in all."""
        return self._spent().get(" ".join(words), 0.0)

    def _spent(self) -> dict[str, float]:
        file = self.folder / "spent.json"
        return json.loads(file.read_text()) if file.is_file() else {}

    def advised(self, competition: str) -> list[str]:
        """Configs that the diagnosis wrote, seen from the folder."""
        files = sorted((self.folder / "configs" / competition).glob("*.yaml"))
        return [str(file.relative_to(self.folder)) for file in files if file.read_text().startswith(MARK)]

    def old_probe(self, path: str, competition: str) -> str:
        """The probe that version 0.1 put beside a fine-tuning: of the net with the best probe."""
        measured = json.loads((self.folder / "runs" / competition / "diagnose" / "diagnosis.json").read_text())
        file = self.folder / Path(path).with_name("old_probe.yaml")
        file.write_text(OLD_PROBE.format(path=Path(path).name, net=measured["nets"][0]["name"]))
        return str(file.relative_to(self.folder))

    def score(self, name: str, configs: Sequence[str]) -> float:
        """The nested score of a submission made of these."""
        self.run("infer", "--name", name, "--config", *configs)
        ledger = pd.read_csv(self.folder / "submissions" / "ledger.csv")
        return float(ledger.loc[ledger["file"] == f"{name}.csv", "nested"].iloc[-1])


def repeat(path: str, seed: int, folds: str, home: Path, cores: SimpleQueue) -> dict[str, object]:
    """One seed, on the next core that is free, as a row of the table."""
    own = cores.get()
    try:
        competition = config_file.load(ROOT / path).competition.name
        return played(path, competition, seed, folds, Place(home.resolve() / competition / f"seed{seed}", own))
    finally:
        cores.put(own)


def played(path: str, competition: str, seed: int, folds: str, place: Place) -> dict[str, object]:
    def train(config_file: str, which: str = folds) -> tuple[str, ...]:
        return "train", "--quiet", "--config", config_file, "--fold", which

    place.prepare()
    if not (place.folder / "folds" / f"{competition}.csv").is_file():
        place.run("split", "--config", path, f"folds.seed={seed}")
    diagnosis = "diagnose", "--config", path
    if not place.advised(competition):
        place.run(*diagnosis)
    advised = place.advised(competition)
    full = [each for each in advised if Path(each).stem.startswith("full_")]
    pool = [each for each in advised if each not in full]
    for each in pool:
        place.run(*train(each))
    goes_on = [each for each in full if keeps_up(place, pool, each, train(each, "0"))]
    old = place.old_probe(path, competition)
    for each in [path, old, *full]:
        place.run(*train(each))
    made = {"single": [path], "version 0.1": [*full, old] if full else pool, "pool": pool, "advice": [*pool, *goes_on]}
    scores = {side: place.score(side.replace(" ", ""), configs) for side, configs in made.items()}
    spent = {side: sum(place.seconds(*train(each)) for each in configs) for side, configs in made.items()}
    first = {each: place.seconds(*train(each, "0")) for each in full}
    for side in ("version 0.1", "advice"):
        spent[side] += sum(first.values())  # the first fold of what was given up was paid for as well
    row = (seed, *(f"{scores[side]:.4f}" for side in SIDES), *(f"{spent[side]:.0f}" for side in SIDES))
    said = "yes" if goes_on else "no" if full else "not advised"
    return dict(zip(COLUMNS, (*row, f"{place.seconds(*diagnosis):.0f}", said), strict=True))


def keeps_up(place: Place, pool: Sequence[str], net: str, first_fold: tuple[str, ...]) -> bool:
    """Train a first fold and compare it with the pool's, once: later there would be more folds to compare."""
    file = place.folder / f"keeps_up_{Path(net).stem}.txt"
    if not file.is_file():
        place.run(*first_fold)
        joint = next((each for each in pool if Path(each).stem == "pool"), pool[0])
        file.write_text(str(place.run("compare", joint, net, "--not-behind", may_say_no=True)))
    return file.read_text() == "True"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="the single net's; seen from the repository's root")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="of the folds")
    parser.add_argument("--fold", default="all", help="as for train.py: all, or 0,1")
    parser.add_argument("--jobs", type=int, default=1, help="seeds side by side, each on a core of its own")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "advice", help="where all of it is kept")
    args = parser.parse_args()
    cores: SimpleQueue[int] = SimpleQueue()
    for own in sorted(os.sched_getaffinity(0))[: args.jobs]:
        cores.put(own)
    with ThreadPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(lambda seed: repeat(args.config, seed, args.fold, args.folder, cores), args.seeds))
    print(pd.DataFrame(rows, columns=list(COLUMNS)).to_string(index=False))


if __name__ == "__main__":
    main()
