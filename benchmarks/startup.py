"""How long it takes to tell a mistake: processor seconds of each command without its input folder, and of --help.

Best of the repeats. With --beside, the commands of another checkout are measured in turns with these.

  python benchmarks/startup.py --beside ../before/src
"""

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

SRC = Path(__file__).resolve().parents[1] / "src"
CONFIG = "competition: {name: nowhere}\nbackbone: {name: test_resnet}\n"
SPACE = "{method: grid, metric: {name: oof, goal: maximize}, parameters: {optim.lr: {values: [0.1, 0.2]}}}"
TWO = ("compare", "infer", "report")
COMMANDS = ("audit", "check", "diagnose", "split", "sweep", "train", *TWO)


def seconds(src: Path, command: str, *words: str) -> float:
    """Processor seconds of a command, all of its threads and children together."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, src / f"{command}.py", *words], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "--help" in words or "no such input folder" in done.stderr, done.stderr
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def words_of(command: str) -> list[str]:
    files = ["a.yaml", "b.yaml"] if command in TWO else ["a.yaml"]
    return ["--config", *files, *(["--space", "space.yaml"] if command == "sweep" else [])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, help="folder `src` of another checkout")
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS))
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    sides = {"here": SRC, **({"beside": args.beside.resolve()} if args.beside else {})}
    os.environ["OMP_NUM_THREADS"] = "1"
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        for name in ("a", "b"):
            Path(f"{name}.yaml").write_text(CONFIG)
        Path("space.yaml").write_text(SPACE)
        asked = {**{command: words_of(command) for command in args.commands}, "train --help": ["--help"]}
        found: dict[str, dict[str, list[float]]] = {name: {side: [] for side in sides} for name in asked}
        for _ in range(args.repeats):
            for name, words in asked.items():
                for side, src in sides.items():
                    found[name][side].append(seconds(src, name.split()[0], *words))
    best = {name: {side: min(each) for side, each in of_sides.items()} for name, of_sides in found.items()}
    print(pd.DataFrame(best).T.round(2).to_string())


if __name__ == "__main__":
    main()
