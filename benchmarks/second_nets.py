"""What does a second fine-tuned net add: another seed of the first one, the same for longer, or another backbone?

For each set, share and draw a small competition as in `benchmarks/budget.py`, whose hidden rows are its test images. A
pool of probes comes first, then a short fine-tuning of ViT-tiny, then each of the others, on some folds. The table has
log-loss of the even mean of what is named, the pool being one of it, out of fold and on the hidden rows, and what that
takes off the mean of the pool and the first net. Finished cells are kept in the file and skipped.

  FOLDCRAFT_WEIGHTS=weights python benchmarks/second_nets.py --sets signdigits maskstates --shares .1 --draws 0 \\
      --folds 0 1 --core 1 --file runs/second_nets.jsonl
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import finished_rows
import pandas as pd
from starts import NET, Bench, cells_of, command_line, mean, open_bench, scores, spoken

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.study import recipes
from foldcraft.study.recipes import Looks, Recipe

CNNS = ("mobilenetv2_100", "mobilenetv1_100", "tf_efficientnet_lite0")
FIRST, SEED, WHOLE = "first", "another seed", "the whole recipe"


def ways(bench: Bench) -> dict[str, Recipe]:
    """Fine-tunings by name, the first one's among them."""
    config, learned = bench.base.config, bench.learned
    looks = Looks.as_configured(config)
    whole = recipes.fine_tuning(config, NET, True, looks, learned)
    first = recipes.shorter(whole)
    others = {
        name: recipes.shorter(recipes.fine_tuning(config, name, False, looks, learned)).updated(f"short_{name}")
        for name in CNNS
    }
    return {
        FIRST: first.updated("first"),
        SEED: first.updated("seed1", seed=1),
        **others,
        WHOLE: whole.updated("whole"),
    }


def compare(bench: Bench, folds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A row for the first net with the pool, and for what one or two more add to both."""
    said, seconds = {"pool": mean(bench, [spoken(probe, folds) for probe in bench.train_pool()])}, {}
    for name, recipe in ways(bench).items():
        member, seconds[name] = bench.train(recipe, folds)
        said[name] = spoken(member, folds)
    more = [name for name in said if name not in ("pool", FIRST)]
    for names in ((), *combinations(more, 1), *combinations(more, 2)):
        together = mean(bench, [said["pool"], said[FIRST], *(said[name] for name in names)])
        alone = said[names[0]] if len(names) == 1 else together
        took = sum(seconds[name] for name in names)
        yield {"added": " + ".join(names) or "nothing", "seconds": took, **scores(bench, folds, alone, together)}


def main() -> None:
    parser = command_line(__doc__, "runs/second_nets")
    parser.add_argument("--file", type=Path, default=Path("runs/second_nets.jsonl"))
    args = parser.parse_args()
    file, home = args.file.resolve(), args.folder.resolve()
    done = finished_rows.read(file)
    for cell in cells_of(args):
        about = {"set": cell.set, "share": cell.share, "draw": cell.draw, "size": args.size}
        if not any(about.items() <= row.items() for row in done):
            done += [{**about, **row} for row in compare(open_bench(cell, args.size, args.core, home), args.folds)]
            finished_rows.write(file, done)
    frame = pd.DataFrame(done)
    cell = ["set", "share", "draw", "size"]
    for where in ("OOF", "hidden"):
        before = frame[frame["added"] == "nothing"].set_index(cell)[f"mixed {where} log-loss"]
        frame[f"{where} gain"] = 1 - frame[f"mixed {where} log-loss"] / frame[cell].join(before, on=cell).iloc[:, -1]
    shown = ["seconds", "net hidden log-loss", "mixed OOF log-loss", "mixed hidden log-loss", "OOF gain", "hidden gain"]
    print(frame.groupby(["set", "share", "size", "added"], sort=False)[shown].mean().round(3).to_string())


if __name__ == "__main__":
    main()
