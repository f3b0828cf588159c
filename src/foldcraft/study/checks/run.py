"""All checks in their order, and what they say."""

import json
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import write_atomic
from foldcraft.common.paths import check_file
from foldcraft.study.checks import folds, inference, network, signal, throughput, training
from foldcraft.study.checks.opening import Opened
from foldcraft.study.checks.profile import Timetable
from foldcraft.study.checks.result import FAIL, CheckResult, not_applicable
from foldcraft.study.checks.subject import Subject
from foldcraft.study.checks.titles import TITLES

MOST = 400  # training images that are looked at

CHECKS: dict[str, Callable[[Subject], CheckResult]] = {  # in the order of `titles.TITLES`
    "folds": folds.folds_hold,
    "pairs": folds.pairs_hold,
    "preprocessing": inference.preprocessing,
    "constants": inference.constants,
    "draws": signal.draws_differ,
    "augmentation": signal.labels_survive,
    "pixels": signal.pixels_matter,
    "shuffled": signal.shuffled_labels,
    "first_loss": training.first_loss,
    "modes": training.modes,
    "statistics": training.statistics,
    "logits": network.logits,
    "bias": network.bias,
    "idle_bias": network.idle_bias,
    "leaks": network.leaks,
    "gradients": training.gradients_zeroed,
    "one_batch": training.one_batch,
    "repeatable": inference.repeatable,
    "alone": inference.alone,
    "judged_alike": inference.judged_alike,
    "precision": throughput.precision,
    "workers": throughput.workers,
    "pinned": throughput.memory,
    "waits": throughput.waits,
    "processes": throughput.processes,
}


@dataclass(frozen=True)
class Line:
    """One check with its finding."""

    check: str
    title: str
    finding: CheckResult
    seconds: float


@dataclass(frozen=True)
class Report:
    """All findings.

    Attributes:
        images: training images that were looked at.
        seconds, cpu_seconds: that it took, on the clock and of this process's computing.
        timetable: where the time of a step goes; None where nothing is trained or it was not asked for.
    """

    lines: list[Line]
    images: int
    seconds: float
    cpu_seconds: float
    timetable: Timetable | None

    @property
    def sound(self) -> bool:
        """Has nothing failed?"""
        return all(line.finding.status != FAIL for line in self.lines)

    def as_values(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        checks = {
            line.check: {"title": line.title, **asdict(line.finding), "seconds": line.seconds} for line in self.lines
        }
        table = asdict(self.timetable) if self.timetable else None
        return {
            "sound": self.sound,
            "images": self.images,
            "seconds": round(self.seconds, 1),
            "cpu_seconds": round(self.cpu_seconds, 1),
            "checks": checks,
            "step": table,
        }


def examine(
    opened: Opened,
    callback: Callback,
    most: int = MOST,
    only: Collection[str] = tuple(TITLES),
    trace: Path | None = None,
    tell: Callable[[Line], object] = lambda line: None,
) -> Report:
    """Carry out the checks; what they write goes to a folder that is gone afterwards.

    Args:
        only: names of the checks to carry out, as `titles.named` gives them.
        trace: where a profiler's trace of some steps is written; None: no profiler watches.
        tell: called with each line as it is known.
    """
    began, computed = time.perf_counter(), time.process_time()
    with TemporaryDirectory(prefix="foldcraft-check-") as folder:
        subject = Subject(opened, Path(folder), callback, most, trace)
        lines = []
        for name in only:
            lines.append(_carry_out(name, subject, lines))
            tell(lines[-1])
        table = throughput.timetable(subject) if subject.trains and (trace or "workers" in only) else None
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - computed
        return Report(lines, len(subject.competition.targets), seconds, cpu_seconds, table)


def trace_file(config: Config) -> Path:
    """Where a profiler's trace of an experiment's steps is kept."""
    file = check_file(config)
    return file.with_name(f"{file.stem}-trace.json")


def write(report: Report, config: Config) -> Path:
    """Write all findings; where they are."""
    file = check_file(config)
    write_atomic(file, json.dumps({"experiment": config.experiment, **report.as_values()}, indent=1))
    return file


def _carry_out(name: str, subject: Subject, before: list[Line]) -> Line:
    title, check = TITLES[name], CHECKS[name]
    began = time.perf_counter()
    try:
        finding = check(subject)
    except Exception as error:  # whatever breaks in the code that is checked is a finding about it
        finding = _broken(error, before)
    return Line(name, title, finding, round(time.perf_counter() - began, 2))


def _broken(error: Exception, before: list[Line]) -> CheckResult:
    """An error fails the check that meets it first; others that need the same part say that they could not be made."""
    text = str(error) if isinstance(error, FoldcraftError) else f"{type(error).__name__}: {error}"
    told = f"could not be carried out: {' '.join(text.split())[:300]}"
    for line in before:
        if line.finding.number == told:
            return not_applicable(f"could not be carried out for the same reason as {line.title!r}")
    return CheckResult(FAIL, told, "mend that first")
