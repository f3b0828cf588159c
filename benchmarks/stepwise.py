"""Parts of a benchmark as processes of their own: one that fails, hangs or takes the machine along costs no other."""

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A part of a benchmark, and the seconds that it may take."""

    run: Callable[[Any], Iterator[Row]]
    limit: float

    @property
    def name(self) -> str:
        return self.run.__name__


@dataclass
class Result:
    """What became of a step.

    Attributes:
        about: what it says of itself.
        seconds, cpu_seconds: that it took, on the clock and of computing by it and the processes that it started.
        error: why it ended early, if it did.
    """

    about: str
    rows: list[Row]
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    error: str | None = None


def carry_out(step: Step, ground: Any, folder: Path, limit: float, log: Path) -> Result:
    """A step in a process of its own; what it found before it failed or its time was up is kept."""
    rows = folder / f"{step.name}.jsonl"
    start = time.monotonic()
    child = os.fork()
    if not child:
        _be(step, ground, folder, rows, log)
    ended, status, used = os.wait4(child, os.WNOHANG)
    while not ended and time.monotonic() < start + limit:
        time.sleep(0.05)
        ended, status, used = os.wait4(child, os.WNOHANG)
    error = None
    if not ended:
        end(child, *descendants(child))
        _, _, used = os.wait4(child, 0)
        error = f"stopped after {limit:.0f} s"
    elif code := os.waitstatus_to_exitcode(status):
        error = f"ended with exit code {code}"
    found = list(_read(rows))
    failed = [row["failed"] for row in found if "failed" in row]
    known = [row for row in found if "failed" not in row]
    seconds, cpu_seconds = time.monotonic() - start, used.ru_utime + used.ru_stime
    return Result(step.run.__doc__ or "", known, seconds, cpu_seconds, failed[0] if failed else error)


def _read(rows: Path) -> Iterator[Row]:
    for line in rows.read_text().splitlines() if rows.is_file() else ():
        with contextlib.suppress(ValueError):  # the last one may be cut off
            yield json.loads(line)


def end(*processes: int) -> None:
    """SIGKILL."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _be(step: Step, ground: Any, folder: Path, rows: Path, log: Path) -> None:
    """The child: a line of JSON for each row as soon as it is known. Never returns."""
    code = 1
    try:
        with open(log, "a") as stream, open(rows, "w") as found:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
            os.chdir(folder)
            print(f"--- {step.name}", flush=True)
            try:
                for row in step.run(ground):
                    print(json.dumps(row, default=str), file=found, flush=True)
                code = 0
            except BaseException as error:
                traceback.print_exc()
                print(json.dumps({"failed": f"{type(error).__name__}: {error}"[:500]}), file=found, flush=True)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        end(*descendants(os.getpid()))
        os._exit(code)


def descendants(process: int) -> list[int]:
    """Ids of the processes that come from this one."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(stat.parent.name))
    children = parents.get(process, [])
    return [*children, *(other for child in children for other in descendants(child))]


def alive(process: int) -> bool:
    """Is it there, and more than an entry that nobody has looked at?"""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def section(name: str, result: Result) -> str:
    """A step as Markdown."""
    columns = list(dict.fromkeys(key for row in result.rows for key in row))
    about = " ".join(result.about.split())
    lines = [f"## {name}", "", f"{about} ({result.seconds:.0f} s, processors {result.cpu_seconds:.0f} s)", ""]
    if result.error:
        lines += [f"**Failed**: {' '.join(result.error.split())}", ""]
    if columns:
        lines += [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        lines += [f"| {' | '.join(_cell(row.get(column)) for column in columns)} |" for row in result.rows]
    return "\n".join([*lines, ""])


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return " ".join(str(value).split()).replace("|", "/")
