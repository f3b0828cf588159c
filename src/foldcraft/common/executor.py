"""Where work runs: tasks, each a command of its own, here on the machine, or elsewhere by the same interface."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

from foldcraft.common import child_processes

Say = Callable[[str], object]
IS_TASK = "FOLDCRAFT_TASK"  # in the environment of a task: what concerns all of them has been said before
# In the environment of a task: its lines are heard at once, and it ends when its standard input is closed.
HEARD = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", child_processes.MARK: "stdin", IS_TASK: "1"}


@dataclass(frozen=True)
class Task:
    """A command that can be repeated: killed with its machine, it is started again and goes on.

    Attributes:
        name: its own among the tasks that run together; stands before each line that it prints.
        words: arguments for Python, the script first.
        cores, gpus: that it asks of a cluster; None: what the place gives. This machine is shared out evenly.
    """

    name: str
    words: Sequence[str]
    cores: int | None = None
    gpus: int | None = None


class Executor(Protocol):
    """A place where tasks run."""

    def run(self, tasks: Sequence[Task], say: Say) -> dict[str, int]:
        """Run all tasks; exit codes by name, -N where signal N killed it. One that fails does not stop the others.

        Args:
            say: takes each line that a task prints, with its name before it; called from several threads.
        """
        ...


def run(tasks: Sequence[Task], where: Executor, say: Say) -> dict[str, int]:
    """Run tasks at a place; exit codes by name, in the order of the tasks, as `Executor.run` gives them.

    Raises:
        ValueError: two tasks have one name.
    """
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise ValueError(f"tasks share names: {names}")
    codes = where.run(tasks, say)
    return {name: codes[name] for name in names}


@dataclass(frozen=True)
class SideBySide:
    """This machine: a process a task, with its share of the cores, and a GPU each where there are GPUs.

    All of them end when this process does, however it ends.

    Attributes:
        jobs: tasks at a time; 1: one after another.
        gpus: how many this process may use.
        seconds: that all of it may take; then what runs is ended, and the rest is not begun. None: as long as it takes.
    """

    jobs: int = 1
    gpus: int = 0
    seconds: float | None = None

    def run(self, tasks: Sequence[Task], say: Say) -> dict[str, int]:
        """As `Executor.run`; Ctrl-C, or an error here, ends the tasks that run."""
        running: set[subprocess.Popen[str]] = set()
        over = threading.Event()
        slots: SimpleQueue[int] = SimpleQueue()
        for slot in range(self.jobs):
            slots.put(slot)

        def work(task: Task) -> int:
            slot = slots.get()
            try:
                if over.is_set():
                    return -signal.SIGTERM
                process = self._start(task, slot)
                running.add(process)
                if over.is_set():
                    process.terminate()
                assert process.stdout is not None
                for line in process.stdout:
                    say(f"[{task.name}] {line.rstrip()}")
                return process.wait()
            finally:
                slots.put(slot)

        def end() -> None:
            over.set()
            for process in list(running):
                process.terminate()

        timer = threading.Timer(threading.TIMEOUT_MAX if self.seconds is None else max(0.0, self.seconds), end)
        timer.daemon = True
        timer.start()
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                return dict(zip([task.name for task in tasks], pool.map(work, tasks), strict=True))
            except BaseException:  # Ctrl-C reaches all on a terminal, and this one alone where `kill -INT` sends it
                pool.shutdown(wait=False, cancel_futures=True)
                end()
                raise
            finally:
                timer.cancel()

    def _start(self, task: Task, slot: int) -> "subprocess.Popen[str]":
        """A process on its share of the machine, which ends when this one does."""
        share = share_of_cores(slot, self.jobs)
        environment = {**os.environ, **HEARD, "OMP_NUM_THREADS": str(len(share))}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = _visible_gpus(self.gpus)[slot % self.gpus]
        return started(task.words, environment, share)


def started(
    words: Sequence[str], environment: Mapping[str, str], cores: Collection[int], folder: str | None = None
) -> "subprocess.Popen[str]":
    """Python at work on some words, what it prints in one pipe; it ends when its standard input is closed.

    Args:
        environment: all of it.
        cores: that it is kept to, where the system can; none: any.
        folder: to run in; left out: the current one.
    """
    process = subprocess.Popen(
        [sys.executable, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        cwd=folder,
        env=environment,
    )
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, cores)
    return process


def _visible_gpus(count: int) -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(count)]


def cores_here() -> list[int]:
    """The cores that this process may use, in order."""
    return sorted(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def share_of_cores(slot: int, jobs: int) -> set[int]:
    """The cores of one of `jobs` slots; at least one, and each core in one slot where there are enough."""
    there = cores_here()
    first, last = slot * len(there) // jobs, (slot + 1) * len(there) // jobs
    return set(there[first:last]) or {there[slot % len(there)]}
