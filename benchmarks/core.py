"""A command on a core of its own, as benchmarks that compare processor time run it."""

import math
import os
import resource
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; minus the signal's number where it was killed.
        seconds: user and system time of it, and of all that it has started and waited for.
    """

    code: int
    seconds: float

    @property
    def is_over_limit(self) -> bool:
        """Did the system end it at its limit? What it has used may be counted as a little less than that."""
        return self.code == -signal.SIGXCPU


def run(words: Sequence[str | Path], folder: Path, core: int, most: float | None = None) -> Ended:
    """Run a command in a folder, on one thread; what it says goes to the folder's log.txt.

    Args:
        most: seconds of processor time after which the system ends it.
    """

    def confine() -> None:
        os.sched_setaffinity(0, {core})
        if most is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(most), math.ceil(most) + 5))

    with open(folder / "log.txt", "ab") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "FOLDCRAFT_WEIGHTS": str(weights())}
        child = subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log, preexec_fn=confine)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)  # it is waited for: Popen has nothing left to do
    return Ended(child.returncode, usage.ru_utime + usage.ru_stime)


def weights() -> Path:
    """The folder of pretrained weights, from wherever a command runs."""
    return Path(os.environ.get("FOLDCRAFT_WEIGHTS", Path(__file__).resolve().parents[1] / "weights")).resolve()
