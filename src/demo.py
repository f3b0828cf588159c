"""The whole pipeline on a data set that comes with scikit-learn: two experiments, five folds, one submission.

A second run goes on where the first left off and does no work twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from foldcraft import cli
from foldcraft.config import load

EXPERIMENTS = ["configs/digits/convnet.yaml", "configs/digits/mobilenet.yaml"]


def main(arguments: Sequence[str]) -> int:
    args = cli.parser(__doc__).parse_intermixed_args(arguments)
    configs = [load(Path(name), args.overrides) for name in EXPERIMENTS]

    import infer
    import split
    import train
    from foldcraft.members import open_members

    terminal = cli.terminal(args)
    quiet = ["--quiet"] if args.quiet else []
    steps = [(split, [EXPERIMENTS[0]]), *((train, [name, "--fold", "all"]) for name in EXPERIMENTS)]
    for command, words in steps:
        terminal.note(f"\n$ python src/{command.__name__}.py --config {' '.join([*words, *args.overrides])}")
        if code := command.main([*quiet, "--config", *words, *args.overrides]):
            return code
    terminal.note(f"\n$ python src/infer.py --config {' '.join([*EXPERIMENTS, *args.overrides])}")
    path, result = infer.submit(open_members(configs), None, terminal)
    score = result.verdict.chosen.score
    true = true_accuracy(path, configs[0].folder)
    row = [f"{score.value:.4f}", f"{score.low:.4f}–{score.high:.4f}", f"{true:.4f}"]
    terminal.table(
        "the estimate beside the truth", ["out-of-fold accuracy", "95 % interval", "true test accuracy"], [row]
    )
    return 0


def true_accuracy(submission: Path, folder: Path) -> float:
    """The share of test rows that the submission has right: the only place that looks at the answers."""
    import pandas as pd

    answers = pd.read_csv(folder / "answers.csv", dtype=str)
    given = pd.read_csv(submission, dtype=str)
    both = answers.merge(given, on="id", suffixes=("", "_given"), validate="one_to_one")
    return float((both["label"] == both["label_given"]).mean())


if __name__ == "__main__":
    cli.run(main)
