"""What a cluster costs: overhead a task, the driver's time and memory, and what many runs do to a folder.

No work is done in the tasks, so all that is measured is what stands between them. `--machines` simulates machines on
this one; what a hundred of them would do is reckoned in docs/cluster.md from what eight do.

  python benchmarks/cluster.py --trials 1000 --folds 5 --machines 1 2 4 8     # an hour; --trials 20 takes minutes
  python benchmarks/cluster.py --only folders locks ledger sweep
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "src"), str(Path(__file__).parents[1] / "tests")]
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}

import optuna  # noqa: E402

from foldcraft.common import executor, files, shared_folder  # noqa: E402
from foldcraft.common.executor import SideBySide, Task  # noqa: E402
from foldcraft.common.ray_executor import OnRay  # noqa: E402
from foldcraft.study import sweep_storage  # noqa: E402
from foldcraft.submission import ledger  # noqa: E402

PARTS = ("tasks", "folders", "locks", "ledger", "sweep")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--machines", type=int, nargs="+", default=[1, 2, 4, 8], help="how many are simulated")
    parser.add_argument("--experiments", type=int, default=100_000, help="folders, and rows of the ledger")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        shared_folder.settle()
        if "tasks" in args.only:
            tasks(args.trials * args.folds, args.machines)
        if "folders" in args.only:
            folders(args.experiments)
        if "locks" in args.only:
            locks()
        if "ledger" in args.only:
            rows_of_ledger(args.experiments)
        if "sweep" in args.only:
            trials(args.trials)
        os.chdir("/")


def tasks(count: int, machines: list[int]) -> None:
    """Tasks that do nothing: bare processes here, then on clusters of several sizes."""
    nothing = [Task(str(number), ["-c", ""]) for number in range(count)]
    few = nothing[: min(count, 200)]
    say("here, one after another", timed(lambda: executor.run(few, SideBySide(1), print)), len(few))
    for number in machines:
        with cluster(number) as address:
            place = OnRay(address, cores=1)
            executor.run(nothing[:number], place, print)  # processes of Ray are there then
            before = memory()
            used, began = os.times(), time.perf_counter()
            executor.run(nothing, place, print)
            took, now = time.perf_counter() - began, os.times()
            own = now.user + now.system - used.user - used.system
            say(f"{number} machines of one core", took, count)
            print(f"    driver: {1e3 * own / count:.2f} ms of a core a task, {memory() - before:+.0f} MB in all")


@contextmanager
def cluster(machines: int) -> Iterator[str]:
    """A cluster of so many machines with a core each."""
    import ray
    import ray_ground

    with ray_ground.cluster(machines) as ground:
        ray.init(ground.cluster.address, log_to_driver=False, logging_level="ERROR")
        yield ground.cluster.address


def folders(count: int) -> None:
    """Listing many experiments, as the board and the choice of members do."""
    runs = Path("runs")
    began = time.perf_counter()
    for number in range(count):
        (runs / f"e{number:06d}" / "fold0").mkdir(parents=True)
        (runs / f"e{number:06d}" / "fold0" / "manifest.json").touch()
    say(f"making {count:,} experiments", time.perf_counter() - began, count)
    say("listing their names", timed(lambda: os.listdir(runs)), count)
    say("finding their manifests", timed(lambda: list(runs.glob("*/fold*/manifest.json"))), count)


def locks() -> None:
    """A lock of the system's, and one that machines share."""

    def hold(path: Path) -> None:
        with files.locked(path):
            pass

    for name, shared in (("the system's lock", False), ("a lease", True)):
        os.environ.pop(shared_folder.VARIABLE, None)
        if shared:
            shared_folder.settle()
        say(name, timed(lambda: [hold(Path("locks") / ".lock") for _ in range(200)]), 200)


def rows_of_ledger(most: int) -> None:
    """Adding a submission to a ledger that is long already."""
    for count in (1_000, most // 10, most):
        rows = "\n".join(f"2026-01-01T00:00:00,s{number}.csv,one,,0.5,,," for number in range(count))
        Path("submissions").mkdir(exist_ok=True)
        header = ",".join(ledger.COLUMNS)
        Path("submissions/ledger.csv").write_text(f"{header}\n{rows}\n")
        say(f"reading a ledger of {count:,} rows", timed(lambda: ledger.read(Path("submissions/ledger.csv"))), 1)


def trials(count: int) -> None:
    """Asking and telling a study, its journal growing."""
    study = sweep_storage.open_study(Path.cwd(), "bench", maximize=True)
    for end in (count // 10, count):
        began, before = time.perf_counter(), len(study.get_trials(deepcopy=False))
        while len(study.get_trials(deepcopy=False)) < end:
            study.sampler = optuna.samplers.TPESampler(seed=len(study.get_trials(deepcopy=False)))
            study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 0.5)
        say(f"trials {before} to {end} of a study", time.perf_counter() - began, end - before)
    say("opening it again", timed(lambda: sweep_storage.open_study(Path.cwd(), "bench", maximize=True)), 1)


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def say(what: str, seconds: float, count: int) -> None:
    print(f"{what}: {seconds:.2f} s, {1e3 * seconds / max(1, count):.3f} ms each", flush=True)


def memory() -> float:
    """Most memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
