"""The whole pipeline in about a minute: real handwritten digits, a pretrained net, folds, a submission, a page.

What it runs are the commands of a real competition, in one process. A second run goes on where the first left off and
does no work twice. The test labels of these digits are known, so the score that the folds promise stands beside the
true one at the end.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foldcraft.common.config_file import load_all
from foldcraft.common.errors import FoldcraftError
from foldcraft.views import cli

if TYPE_CHECKING:
    from foldcraft.common.config import Config
    from foldcraft.ensemble.blend import Combined
    from foldcraft.views.terminal import Terminal

PROBE, FINETUNE = "configs/digits/probe.yaml", "configs/digits/finetune.yaml"
WORDS = {
    "split": "Folds first. Every training image lies in one of three, and is predicted by a model that has seen only "
    "the two others.",
    "probe": "A pretrained net as it is: one look at every image, then a linear head on its features, solved rather "
    "than trained. The cheapest experiment there is, and the floor for all others.",
    "finetune": "The same net fine-tuned, from that head, three epochs a fold.",
    "infer": "Both are blended. What the blend fits is fitted without the fold that judges it, so its out-of-fold "
    "(OOF) score is an honest estimate of the leaderboard's.",
    "report": "One page about all of it: scores, classes, every mistake as a picture with what the net looked at.",
}
NEXT = """
What next, with images of your own:
  put the host's CSVs and images into input/NAME/ and write a config of four lines, as README.md shows
  python src/audit.py    --config CONFIG      are the data sound: labels, copies, leaks?
  python src/diagnose.py --config CONFIG      which backbone, which views, is there enough data?
  then split, train, infer and report as above; docs/guide.md goes through a whole competition"""


def main(arguments: Sequence[str]) -> int:
    args = cli.parser(__doc__).parse_intermixed_args(arguments)
    if args.config:
        raise FoldcraftError("the demo has its own configs", "--config", "leave it out; key=value words may stay")
    words = args.overrides
    if not any(word.startswith("tracking.wandb=") for word in words):
        words = [*words, "tracking.wandb=off"]
    configs = load_all([Path(PROBE), Path(FINETUNE)], words)

    import report
    import split
    import train
    from foldcraft.predictions.finished import open_finished

    terminal, began = cli.terminal(args), time.perf_counter()
    quiet = ["--quiet"] if args.quiet else []
    steps = [
        (split, "split", [PROBE]),
        (train, "probe", [PROBE, "--fold", "all"]),
        (train, "finetune", [FINETUNE, "--fold", "all"]),
    ]
    for command, step, named in steps:
        announce(terminal, step, command.__name__, [*named, *words])
        if code := command.main([*quiet, "--config", *named, *words]):
            return code

    from foldcraft.views.submission import submit

    announce(terminal, "infer", "infer", [PROBE, FINETUNE, *words])
    submission, combined = submit(open_finished(configs), None, terminal)
    announce(terminal, "report", "report", [PROBE, FINETUNE, *words])
    if is_current(page := page_of(configs[0]), submission, configs):
        terminal.say(f"{page} is there and current")
    else:
        report.main([*quiet, "--config", PROBE, FINETUNE, *words])
    show(combined, true_accuracy(submission, configs[0].folder), terminal)
    terminal.note(f"\nAll of it took {time.perf_counter() - began:.0f} s. Open {page} in a browser.{NEXT}")
    return 0


def announce(terminal: Terminal, step: str, command: str, named: Sequence[str]) -> None:
    """Say in plain words what comes, and how to run it by hand."""
    text = textwrap.fill(f"{list(WORDS).index(step) + 1}/{len(WORDS)}  {WORDS[step]}", 100)
    terminal.note(f"\n{text}\n$ python src/{command}.py --config {' '.join(named)}")


def page_of(config: Config) -> Path:
    """Where the page lies."""
    from foldcraft.common.paths import report_file

    return report_file(config)


def is_current(page: Path, submission: Path, configs: Sequence[Config]) -> bool:
    """Is the page younger than all that it shows?"""
    from foldcraft.common.paths import experiment_folder

    shown = [submission, *(file for one in configs for file in experiment_folder(one).glob("fold*/manifest.json"))]
    return page.is_file() and page.stat().st_mtime > max(file.stat().st_mtime for file in shown)


def show(combined: Combined, truth: float, terminal: Terminal) -> None:
    """The estimate beside the truth, as a table and in words."""
    selection = combined.selection
    scores = [(one.name, one.score, "") for one in selection.members]
    scores.append((f"submission ({selection.chosen.name})", selection.chosen.score, f"{truth:.4f}"))
    rows = [(name, f"{one.value:.4f}", f"{one.low:.4f}–{one.high:.4f}", true) for name, one, true in scores]
    columns = ("accuracy", "out-of-fold", "95 % interval", "true, on the test set")
    terminal.table("the estimate beside the truth", columns, rows)
    score = selection.chosen.score
    where = "inside" if score.low <= truth <= score.high else "outside"
    terminal.say(f"The true score lies {where} the interval that was known before the test labels were looked at.")


def true_accuracy(submission: Path, folder: Path) -> float:
    """The share of test rows that the submission has right: the only place that looks at the answers."""
    import pandas as pd

    answers = pd.read_csv(folder / "answers.csv", dtype=str)
    given = pd.read_csv(submission, dtype=str)
    both = answers.merge(given, on="id", suffixes=("", "_given"), validate="one_to_one")
    return float((both["label"] == both["label_given"]).mean())


if __name__ == "__main__":
    cli.run(main)
