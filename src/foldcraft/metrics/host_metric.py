"""A host's own metric: a function of two tables, in a file, run in a process of its own where that is allowed."""

import ast
import atexit
import json
import math
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from foldcraft.common import allowed_code, fingerprint, notices
from foldcraft.common.errors import FoldcraftError, shorten, suggest
from foldcraft.metrics.metric import Metric, Wants

PLACE = "competition.metric"
EXAMPLE = "write metric: {code: metric.py:score, greater_is_better: true}"
OPTIONS = ("code", "greater_is_better", "seconds", "wants")
BESIDE = "beside"  # the folder of the config that names the file; put in when the config is read
GIVEN = {"ranks": "labels, the likeliest first"}
DRAWS = 50  # of a bootstrap: each is a call
SECONDS = 60.0
START = 120.0  # seconds, until its process must have read the libraries
WORKER = Path(__file__).with_name("host_worker.py")
SECRET = re.compile(r"(?i)^(wandb|kaggle|aws|hf|hugging_?face|github|azure|google|openai)_|token|secret|passw|api_?key")
Columns = Mapping[str, Sequence[object]]


@dataclass(frozen=True)
class HostCode:
    """Where a host's metric is, and how it is called.

    Attributes:
        seconds: that a call may take.
        wants: whether labels or probabilities are to be written; None: as the sample submission shows.
    """

    file: Path
    function: str
    greater_is_better: bool
    seconds: float = SECONDS
    wants: str | None = None

    @property
    def name(self) -> str:
        """As it is shown."""
        return f"{self.file.name}:{self.function}"

    @property
    def digest(self) -> str:
        """Of the file."""
        return fingerprint.of_file(self.file)


class Tables(Protocol):
    """Fills the tables that a host's metric is given.

    Attributes:
        key: name of the id column.
        id_pieces: what stands around a row's number in the ids of each line that it has in a table.
    """

    @property
    def key(self) -> str: ...

    @property
    def id_pieces(self) -> Sequence[Sequence[str]]: ...

    def of_truth(self, truth: np.ndarray) -> Columns:
        """The other columns of the solution."""

    def of_predicted(self, scored: np.ndarray) -> Columns:
        """Those of the submission, from what a metric is given."""


def is_one(spec: object) -> bool:
    """Does a setting of the metric name code?"""
    return isinstance(spec, Mapping) and "code" in spec


def read(spec: Mapping[str, Any], folder: Path) -> HostCode:
    """What the setting says, checked; nothing is run.

    Args:
        folder: of the competition.

    Raises:
        FoldcraftError: options are missing or wrong; the file is missing or lies elsewhere; code is not allowed.
    """
    for key in spec:
        if key not in (*OPTIONS, BESIDE):
            raise FoldcraftError(
                f"a host's metric has no option {shorten(str(key), 60)!r}", PLACE, suggest(key, OPTIONS)
            )
    if not isinstance(spec.get("greater_is_better"), bool):
        raise FoldcraftError("greater_is_better must be true or false", PLACE, EXAMPLE)
    seconds = spec.get("seconds", SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 86400:
        raise FoldcraftError(f"seconds is a number above 0, not {shorten(repr(seconds), 40)}", PLACE, EXAMPLE)
    if spec.get("wants") not in (None, "labels", "probabilities"):
        raise FoldcraftError("wants is labels or probabilities", PLACE, "leave it out to go by the sample submission")
    name, _, function = str(spec["code"]).rpartition(":")
    if not name.endswith(".py") or not function.isidentifier():
        raise FoldcraftError(f"{shorten(str(spec['code']), 60)!r} is not FILE.py:FUNCTION", PLACE, EXAMPLE)
    file = _found(name, [folder, Path(str(spec.get(BESIDE, folder)))])
    if not allowed_code.is_allowed():
        what = f"{name} is code of the host, and is run only where the command line says so"
        raise FoldcraftError(what, PLACE, "read the file, then add --allow-code to the command")
    _check_defined(file, function)
    return HostCode(file, function, spec["greater_is_better"], float(seconds), spec.get("wants"))


def _check_defined(file: Path, function: str) -> None:
    """See that the file defines or imports the function, without running it."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError) as error:
        raise FoldcraftError(f"cannot be read as Python: {shorten(str(error), 80)}", file, "mend the file") from None
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        else:
            names |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    if function not in names and "*" not in names:
        raise FoldcraftError(f"has no function {function!r}", file, suggest(function, sorted(names)))


def _found(name: str, folders: Sequence[Path]) -> Path:
    """The file in the first folder that has it, links followed, where that does not lead out."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name:
        raise FoldcraftError(f"{shorten(name, 60)!r} leaves the folder", PLACE, "put it into the competition's folder")
    for folder in folders:
        home, real = (Path(os.path.realpath(path)) for path in (folder, folder / name))
        if real.is_file():
            if not real.is_relative_to(home):
                raise FoldcraftError(f"{shorten(name, 60)!r} lies elsewhere, behind a link", PLACE, "copy it there")
            return real
    places = " or ".join(dict.fromkeys(map(str, folders)))
    raise FoldcraftError(f"no file {shorten(name, 60)!r} in {shorten(places, 100)}", PLACE, "put it there")


def metric(code: HostCode, kind: str, wants: Wants, tables: Tables) -> Metric:
    """The metric.

    Args:
        kind: of the target.
        wants: what is written into the tables.
    """
    given = GIVEN.get(wants, wants)
    note = f"{code.name}, the host's own metric, is given {given}; intervals are of {DRAWS} draws of rows"
    return Metric(
        name=code.name,
        greater_is_better=code.greater_is_better,
        kinds=(kind,),
        wants=wants,
        of_weights=partial(_scores, code, tables),
        bounds=(-math.inf, math.inf),
        options="the host's code",
        notes=(note,),
        draws=DRAWS,
        code=code.digest,
    )


def _scores(
    code: HostCode, tables: Tables, truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Of each column of weights (N, R), which say how often a row is drawn.

    A draw that the metric cannot score (it may lack a class) is NaN; all rows must have a score.
    """
    worker = _worker(code)
    key, pieces = tables.key, tables.id_pieces
    ids = [str(row).join(around) for row in range(len(truth)) for around in pieces]
    both = {"solution": tables.of_truth(truth), "submission": tables.of_predicted(predicted)}
    filled = {name: {key: ids, **columns} for name, columns in both.items()}
    counts = weights.astype(np.int64)
    if not np.array_equal(counts, weights):
        raise FoldcraftError("a host's code knows no weights of rows", "competition.metric_weight", "set it to false")
    with worker.lock:
        worker.ask({"tables": filled, "id": key, "pieces": pieces})
        if (counts == 1).all():
            return np.full(counts.shape[1], worker.score(None))
        found = np.full(counts.shape[1], np.nan)
        failed: FoldcraftError | None = None
        for draw, often in enumerate(counts.T):
            try:
                found[draw] = worker.score(np.repeat(np.arange(len(often)), often).tolist())
            except _NoScore as error:
                failed = error
    if failed and np.isnan(found).mean() > 0.5:
        raise FoldcraftError(f"most draws of a bootstrap have no score: {failed.what}", code.name, failed.hint)
    return found


class _NoScore(FoldcraftError):
    """The metric said no number of some rows."""


class _Worker:
    """The process that runs a metric's file; started at the first question."""

    def __init__(self, code: HostCode) -> None:
        self.code, self.lock, self.rest, self.has_told = code, threading.Lock(), b"", False
        environment = {name: value for name, value in os.environ.items() if not SECRET.search(name)}
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(WORKER), str(code.file), code.function],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=code.file.parent,
        )
        atexit.register(self.end)
        self._line(time.monotonic() + START)

    def end(self) -> None:
        """Stop it, whatever it does."""
        self.process.kill()
        self.process.wait()

    def score(self, rows: list[int] | None) -> float:
        """Of some rows of the tables that it was given last, or of all."""
        answer = self.ask({"rows": rows})
        if (printed := str(answer.get("printed", "")).strip()) and not self.has_told:
            self.has_told = True
            start = shorten(" ".join(printed.split()), 80)
            notices.tell_once(f"{self.code.name} prints, which is not shown: {start}")
        if "error" in answer:
            said = shorten(" ".join(str(answer["error"]).split()), 140)
            raise _NoScore(f"fails: {said}", self.code.name, "call it on the sample submission by hand")
        value = answer.get("score")
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise _NoScore(f"returns {value}, which is no score", self.code.name, "see what it does with empty cells")
        return float(value)

    def ask(self, question: Mapping[str, object]) -> Mapping[str, Any]:
        """Its answer.

        Raises:
            FoldcraftError: it takes too long, or ends.
        """
        line = (json.dumps(question) + "\n").encode()
        until = time.monotonic() + self.code.seconds
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
            return json.loads(self._line(until))
        except TimeoutError:
            self._forget()
            what = f"is not done after {self.code.seconds:g} seconds"
            raise FoldcraftError(what, self.code.name, f"raise {PLACE}.seconds, or mend it") from None
        except (OSError, ValueError):
            self._forget()
            raise FoldcraftError("its process has ended, or says what is no answer", self.code.name, EXAMPLE) from None

    def _line(self, until: float) -> bytes:
        pipe = self.process.stdout
        while b"\n" not in self.rest:
            if not select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError
            if not (more := os.read(pipe.fileno(), 65536)):
                raise OSError("ended")
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\n")
        return line

    def _forget(self) -> None:
        self.end()
        _worker_of.cache_clear()


@cache
def _worker_of(code: HostCode, _: int) -> _Worker:
    return _Worker(code)


def _worker(code: HostCode) -> _Worker:
    """The one that is alive, in this process and not in one that it was copied from."""
    return _worker_of(code, os.getpid())
