"""Memory of a long training, and of a process that does several things, with the project's allocator and the system's.

`long` trains 200 epochs on few images and tells the memory after epochs 10, 50, 100 and 200. `phases` decodes large
images, gathers features, solves a head, trains and predicts in one process, and tells it after each. Every way is a
process of its own, `FOLDCRAFT_ALLOCATOR` alone differs.

  python benchmarks/longrun.py [long] [phases]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from foldcraft import allocator

LOOKS = (1, 10, 50, 100, 200)
WAYS = {"system": allocator.SYSTEM, "kept": ""}
SETTINGS = {
    "long": """
competition: {name: long}
folds: {count: 3}
images: {size: 64}
backbone: {name: mobilenetv2_035, weights: none}
train: {epochs: 200, batch: 32, lr: 0.0001, workers: 0, precision: 32-true, memory_format: channels_last}
""",
    "phases": """
competition: {name: phases}
folds: {count: 3}
images: {size: 160}
backbone: {name: mobilenetv2_100, weights: none}
finetune: {head_init: probe}
train: {epochs: 3, batch: 32, workers: 1, precision: 32-true, memory_format: channels_last}
""",
}
IMAGES = {"long": (96, (80, 80)), "phases": (400, (3000, 2000))}  # how many, and (width, height) in pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="long, phases; left out: both")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child)
        return
    for what in args.what or list(SETTINGS):
        show(what, {name: measured(what, switch) for name, switch in WAYS.items()})


def measured(what: str, switch: str) -> list[tuple[str, int]]:
    """Resident bytes after each step, by a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, allocator.SWITCH: switch, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, os.path.abspath(__file__), "--child", what, folder]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def show(what: str, found: dict[str, list[tuple[str, int]]]) -> None:
    print(f"| {what} | " + " | ".join(found) + " |\n|---|" + "---|" * len(found))
    for row in zip(*found.values(), strict=True):
        print(f"| {row[0][0]} | " + " | ".join(f"{size / 2**20:.0f} MiB" for _, size in row) + " |", flush=True)


def child(what: str, folder: str) -> None:
    """Do it, and print what the memory was."""
    allocator.keep_freed_memory()
    import torch

    torch.set_num_threads(1)
    os.chdir(folder)
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, sys.argv[1]); import longrun; longrun.write_competition(sys.argv[2])",
            str(Path(__file__).parent),
            what,
        ],
        check=True,
    )
    from foldcraft import config
    from foldcraft.audience import Audience
    from foldcraft.foldrun import train_fold
    from foldcraft.processes import Processes
    from foldcraft.workspace import Workspace

    seen = [("libraries", resident("VmRSS"))]

    class Watch(Audience):
        """Writes the memory down when something is done."""

        @contextmanager
        def progress(self, title: str, total: int) -> Iterator[Callable[[int], object]]:
            yield lambda done: None
            if what == "phases":
                seen.append((f"{title} ({total})", resident("VmRSS")))

        def epoch_ended(self, row: dict[str, Any]) -> None:
            if row["epoch"] in LOOKS:
                seen.append((f"epoch {row['epoch']}", resident("VmRSS")))

    work = Workspace.open(config.load(Path(f"{what}.yaml")))
    train_fold(work, 0, Processes(), Watch())
    seen += [("end", resident("VmRSS")), ("peak", resident("VmHWM"))]
    print(json.dumps(seen))


def resident(key: str) -> int:
    """Bytes of this process in memory now ("VmRSS") or at most ("VmHWM")."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def write_competition(what: str) -> None:
    """Images drawn for the occasion, with their folds."""
    import numpy as np
    import pandas as pd
    from PIL import Image

    import split

    count, size = IMAGES[what]
    rng = np.random.default_rng(0)
    home = Path("input") / what
    for part in ("train", "test"):
        (home / part).mkdir(parents=True)
    frame = pd.DataFrame({"id": [f"{row:04d}.jpg" for row in range(count)], "label": np.arange(count) % 4})
    tests = count // 4
    for row, name in enumerate(frame["id"]):
        noise = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        noise.resize(size, Image.Resampling.BICUBIC).save(home / ("test" if row < tests else "train") / name)
    frame[tests:].to_csv(home / "train.csv", index=False)
    frame[:tests][["id"]].to_csv(home / "test.csv", index=False)
    frame[:tests].to_csv(home / "sample_submission.csv", index=False)
    Path(f"{what}.yaml").write_text(SETTINGS[what] + 'tracking: {wandb: "off"}\n')
    split.main(["--quiet", "--config", f"{what}.yaml"])


if __name__ == "__main__":
    main()
