"""Folds side by side: a process each, with its share of the cores, and a GPU each where there are GPUs."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import torch

from foldcraft.common import child_processes
from foldcraft.models.hardware import cores


def run_side_by_side(commands: dict[int, Sequence[str]], jobs: int, say: Callable[[str], object]) -> dict[int, int]:
    """Run one command a fold, `jobs` at a time; exit codes by fold. One that fails does not stop the others.

    Args:
        commands: arguments for Python, by fold.
        say: takes each line that a command prints, with its fold before it.
    """
    running: set[subprocess.Popen[str]] = set()
    slots: SimpleQueue[int] = SimpleQueue()
    for slot in range(jobs):
        slots.put(slot)

    def work(fold: int) -> int:
        slot = slots.get()
        try:
            process = _start(commands[fold], slot, jobs)
            running.add(process)
            assert process.stdout is not None
            for line in process.stdout:
                say(f"[{fold}] {line.rstrip()}")
            return process.wait()
        finally:
            slots.put(slot)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            return dict(zip(commands, pool.map(work, commands), strict=True))
        except BaseException:  # Ctrl-C reaches all of them on a terminal, and this one alone where `kill -INT` sends it
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise


def _start(command: Sequence[str], slot: int, jobs: int) -> "subprocess.Popen[str]":
    """A process on its share of the machine, which ends when this one does."""
    share = share_of_cores(slot, jobs)
    heard = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", child_processes.MARK: "stdin"}
    environment = {**os.environ, **heard, "OMP_NUM_THREADS": str(len(share))}
    if gpus := torch.cuda.device_count():
        environment["CUDA_VISIBLE_DEVICES"] = _visible_gpus(gpus)[slot % gpus]
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=environment,
    )
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, share)
    return process


def _visible_gpus(count: int) -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(count)]


def share_of_cores(slot: int, jobs: int) -> set[int]:
    """The cores of one of `jobs` slots; at least one, and each core in one slot where there are enough."""
    there = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(cores()))
    first, last = slot * len(there) // jobs, (slot + 1) * len(there) // jobs
    return set(there[first:last]) or {there[slot % len(there)]}
