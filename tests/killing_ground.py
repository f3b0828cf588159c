"""Trains a fold again and again in child processes, kills them at chosen moments, and lets the last one finish.

Run as a program, because children are forked from it: libraries are imported once, and nothing of a test session is
copied into them. Prints a JSON report.
"""

import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import torch  # noqa: E402

import split  # noqa: E402
import train  # noqa: E402
from foldcraft.data.images import image_cache  # noqa: E402
from foldcraft.ensemble import blend  # noqa: E402, F401
from foldcraft.views import terminal, tracking  # noqa: E402, F401 (imported before the forks)

torch.set_num_threads(1)
EPOCHS = 4
DEADLINE = 600.0  # seconds a child may take


def start(words: list[str]) -> int:
    """A child that trains, slowed down where it writes so that a kill can land there."""
    child = os.fork()
    if child:
        return child
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    decode, fsync = image_cache.decode, os.fsync
    image_cache.decode = lambda *args: (time.sleep(0.002), decode(*args))[1]
    os.fsync = lambda file: (time.sleep(0.02), fsync(file))[1]
    os._exit(train.main(words))


def finish(words: list[str]) -> None:
    """A child that is left alone."""
    _, status = os.waitpid(start(words), 0)
    assert status == 0, f"training failed with status {status}"


def kill_when(words: list[str], ready: Callable[[], bool], delay: float = 0.0) -> bool:
    """Start a child, kill it `delay` seconds after `ready`; False if it finished before that."""
    child, end = start(words), time.monotonic() + DEADLINE
    while not ready() and time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.0005)
    time.sleep(delay)
    if os.waitpid(child, os.WNOHANG)[0]:
        return False
    os.kill(child, signal.SIGKILL)  # only the training itself: its workers are left to find out
    os.waitpid(child, 0)
    return True


def moments(runs: Path, dice: random.Random) -> dict[str, tuple[Callable[[], bool], float]]:
    """Phases of a training, each as the sign that it has begun and how long to wait then."""
    fold = runs / "shapes" / "tiny" / "fold0"

    def lines() -> int:
        return len((fold / "history.csv").read_text().splitlines()) if (fold / "history.csv").exists() else 0

    def epoch_begun(epoch: int) -> Callable[[], bool]:
        return lambda: lines() >= epoch

    def there(pattern: str) -> Callable[[], bool]:
        return lambda: any(fold.parent.parent.glob(pattern))

    return {
        "building the cache": (there("cache/*.npy.tmp-*"), dice.uniform(0, 0.05)),
        "before the first checkpoint": (there("tiny/fold0/config.yaml"), dice.uniform(0, 0.3)),
        "mid-epoch": (epoch_begun(2), dice.uniform(0, 0.15)),
        "writing a checkpoint": (there("tiny/fold0/last.ckpt.tmp-*"), dice.uniform(0, 0.02)),
        "after the last epoch": (epoch_begun(EPOCHS + 1), dice.uniform(0, 0.2)),
        "writing the predictions": (there("tiny/fold0/*.parquet*"), dice.uniform(0, 0.04)),
    }


def outcome(runs: Path) -> dict[str, str]:
    """Digests of what a finished fold leaves behind."""
    fold = runs / "shapes" / "tiny" / "fold0"
    left = sorted(file.name for file in fold.iterdir() if ".tmp-" in file.name)
    names = ("model.safetensors", "oof.parquet", "test.parquet")
    return {"left": str(left)} | {name: hashlib.sha256((fold / name).read_bytes()).hexdigest() for name in names}


def main(config: str, rounds: int) -> None:
    """Undisturbed once, then `rounds` trainings that are killed in every phase."""
    words = ["--config", config, "--fold", "0", f"train.epochs={EPOCHS}"]
    with contextlib.redirect_stdout(sys.stderr):
        split.main(["--config", config])
    finish([*words, "runs=calm"])
    kills: dict[str, int] = {}
    outcomes = []
    for number in range(rounds):
        runs = Path(f"stormy{number}")
        mine = [*words, f"runs={runs}", f"machine.workers={number % 2}"]
        for phase, (ready, delay) in moments(runs, random.Random(number)).items():
            kills[phase] = kills.get(phase, 0) + kill_when(mine, ready, delay)
        finish(mine)
        outcomes.append(outcome(runs))
    print(json.dumps({"calm": outcome(Path("calm")), "stormy": outcomes, "kills": kills}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
