"""A task on a machine of a cluster: is the machine fit for it? Then its command, on cores of its own, line by line."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from foldcraft.common import executor, shared_folder

UNFIT = 2  # exit code where the machine is not set up as it must be, which its user mends


@dataclass(frozen=True)
class Order:
    """What is to be run.

    Attributes:
        words: arguments for Python, the script first.
        folder: to run it in.
        shared: folder that all machines share.
        mark: what that folder is known by.
        code: `code_digest` of the script.
        environment: variables beside those of the machine.
        cores: that it may use.
    """

    words: Sequence[str]
    folder: str
    shared: str
    mark: str
    code: str
    environment: Mapping[str, str]
    cores: int


def carry_out(order: Order, owned: int) -> Iterator[str | int]:
    """Run it here; gives each line that it prints, and its exit code last. It ends when this process does.

    Args:
        owned: cores of this machine that the cluster may use.
    """
    if why := _unfit(order):
        yield f"error: {why}"
        yield UNFIT
        return
    with reserved_cores(order.cores, owned) as cores:
        process = executor.started(order.words, {**os.environ, **order.environment}, cores, order.folder)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                yield line.rstrip()
            yield process.wait()
        finally:
            process.kill()


def _unfit(order: Order) -> str:
    """Why this machine cannot do it, and how to mend that; "" where it can."""
    here = os.uname().nodename
    mark = Path(order.shared) / shared_folder.MARK
    if not shared_folder.appears(mark, 5.0) or mark.read_text() != order.mark:
        return f"{here} does not see the folder {order.shared} that the machines share; mount it there under that path"
    if order.code != code_digest(order.words[0]):
        return f"{here} has other code beside {order.words[0]} than it began with; use one version, and begin again"
    return ""


@cache
def code_digest(script: str) -> str:
    """Digest of a script and of all Python files below its folder; "" of words that are none."""
    if not script.endswith(".py") or not os.path.isfile(script):
        return ""
    folder, digest = Path(script).parent, hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


@contextmanager
def reserved_cores(count: int, owned: int) -> Iterator[set[int]]:
    """So many cores that no other task on this machine has.

    None where so many are not free, or where the machine shows more cores than the cluster owns of it, as in a
    container: which are meant is then the system's to say.
    """
    there = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if owned < len(there):
        yield set()
        return
    folder = Path(tempfile.gettempdir()) / f"foldcraft-cores-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    mine: set[int] = set()
    with ExitStack() as held:
        with open(folder / "gate", "a") as gate:  # one chooses at a time
            fcntl.flock(gate, fcntl.LOCK_EX)
            for core in there:
                stream = open(folder / str(core), "a")  # noqa: SIM115 (held until the task has ended)
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    stream.close()
                    continue
                held.callback(stream.close)
                mine.add(core)
                if len(mine) == count:
                    break
        yield mine if len(mine) == count else set()
