"""Peak memory of every step against the number of images: the bytes that an image costs beyond its row in the tables.

Each step runs in a child of its own on 1,000 and 10,000 small images (with --large also 100,000). Counted is
anonymous memory, of the process itself (RssAnon) and of it with its workers (what they alone see). Pages of
memory-mapped files are not: the system takes them back when it needs them.

  python benchmarks/scale.py [--large] [--steps tables decode ...]
"""

import argparse
import contextlib
import importlib
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
os.environ["WANDB_MODE"] = "offline"

import numpy as np
import pandas as pd
import torch
from PIL import Image

import infer  # noqa: F401 (imported before the forks)
import split  # noqa: F401
import train  # noqa: F401
from foldcraft.common import config_file
from foldcraft.common.callbacks import Callback
from foldcraft.predictions.experiment import Experiment
from foldcraft.training import initialization

torch.set_num_threads(1)

SIDE, CLASSES, TEST_SHARE = 32, 4, 0.2
INTERVAL = 0.05  # seconds between looks at the memory
CONFIG = """
competition: {name: scale, image: "train/{id}", test_image: "test/{id}"}
folds: {count: 2}
images: {size: 16}
augment: {preset: light}
backbone: {name: test_resnet, weights: none}
finetune: {head_init: random}
train: {epochs: 1, batch: 128}
machine: {workers: 1, device: cpu, precision: 32-true, memory_format: contiguous}
tta: {views: [identity]}
tracking: {wandb: "off"}
"""


def tables() -> None:
    """Ids, labels, paths and folds: what every step holds."""
    workspace()


def decode() -> None:
    """Every image decoded into the cache."""
    experiment = workspace()
    _, blueprint = initialization.fresh_net(experiment.config, experiment.competition.target.outputs)
    experiment.open_images([experiment.image_spec(blueprint)], Callback())


def features() -> None:
    """Frozen features of every image."""
    experiment = workspace()
    initialization.features_of(experiment, initialization.build(experiment, Callback()), Callback())


def probe() -> None:
    """Closed-form heads on these features, and their predictions."""
    command("train", "--fold", "0", "experiment=probe", "finetune.mode=linear_probe")


def training() -> None:
    """One epoch on half of the training images with one worker; the other half is judged, the test set predicted."""
    command("train", "--fold", "0")


def inference() -> None:
    """Predictions made anew, blended and submitted."""
    for file in Path("runs").glob("scale/config/fold*/*.parquet"):
        file.unlink()
    command("infer")


def audit() -> None:
    """The audit of the data."""
    command("audit")


STEPS: dict[str, Callable[[], None]] = {
    step.__name__: step for step in (tables, decode, features, probe, training, inference, audit)
}


def workspace() -> Experiment:
    return Experiment.open(config_file.load(Path("config.yaml")))


def command(name: str, *words: str) -> None:
    code = importlib.import_module(name).main(["--config", "config.yaml", *words])
    if code:
        raise SystemExit(code)


@dataclass(frozen=True)
class Peak:
    """The most memory that a step had.

    Attributes:
        own: anonymous bytes of its process.
        together: of it and its workers; a page that a worker shares with it counts once.
    """

    own: int
    together: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="with 100,000 images too")
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    args = parser.parse_args()
    sizes = [1_000, 10_000, *([100_000] if args.large else [])]
    peaks: dict[str, list[Peak]] = {name: [] for name in args.steps}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            measured(lambda size=size: write_images(size), Path(folder))
            for name in args.steps:
                peaks[name].append(measured(STEPS[name], Path(folder)))
                show(name, sizes, peaks[name])


def show(name: str, sizes: Sequence[int], peaks: Sequence[Peak]) -> None:
    """The last of some peaks, and how much each image more has cost."""
    size, peak = sizes[len(peaks) - 1], peaks[-1]
    line = f"{name:10} {size:7} images {peak.seconds:6.1f} s  own {peak.own / 1e6:7.1f} MB"
    line += f"  with workers {peak.together / 1e6:7.1f} MB"
    if len(peaks) > 1:
        before, more = peaks[-2], size - sizes[len(peaks) - 2]
        line += f"  slope {(peak.own - before.own) / more:7.0f} bytes an image"
        line += f", with workers {(peak.together - before.together) / more:7.0f}"
    print(line, flush=True)


def write_images(count: int) -> None:
    """A competition of small noisy JPEG files whose class shows in their brightness, with its folds."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, count)
    first_test = round(count * (1 - TEST_SHARE))
    home = Path("input/scale")
    for part in ("train", "test"):
        (home / part).mkdir(parents=True)
    names = [f"{row:06d}.jpg" for row in range(count)]
    for row, name in enumerate(names):
        pixels = rng.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8) + np.uint8(60 * labels[row])
        Image.fromarray(pixels).save(home / ("train" if row < first_test else "test") / name)
    frame = pd.DataFrame({"id": names, "label": [f"class {label}" for label in labels]})
    frame[:first_test].to_csv(home / "train.csv", index=False)
    frame[first_test:][["id"]].to_csv(home / "test.csv", index=False)
    frame[first_test:][["id"]].assign(label="class 0").to_csv(home / "sample_submission.csv", index=False)
    Path("config.yaml").write_text(CONFIG)
    command("split")


def measured(step: Callable[[], None], folder: Path) -> Peak:
    """Run a step in a child and watch its memory."""
    start = time.perf_counter()
    child = os.fork()
    if not child:
        run(step, folder)
    own = together = 0
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        (mine, _), *workers = [memory_of(pid) for pid in tree(child)]
        own, together = max(own, mine), max(together, mine + sum(private for _, private in workers))
        time.sleep(INTERVAL)
    if ended[1]:
        sys.exit(f"failed:\n{(folder / 'log.txt').read_text()[-3000:]}")
    return Peak(own, together, time.perf_counter() - start)


def run(step: Callable[[], None], folder: Path) -> NoReturn:
    """In the child: do the step, what it prints goes to a file."""
    os.chdir(folder)
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        step()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def tree(root: int) -> list[int]:
    """A process and all that come from it."""
    found = [root]
    for pid in found:
        with contextlib.suppress(OSError):
            tasks = Path(f"/proc/{pid}/task").iterdir()
            found += [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return found


def memory_of(pid: int) -> tuple[int, int]:
    """Anonymous bytes of a process: all that it sees, and those that it alone sees."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        shares = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0, 0
    return _bytes("RssAnon", status), _bytes("Private_Dirty", shares)


def _bytes(key: str, text: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    main()
