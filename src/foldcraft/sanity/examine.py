"""All checks in their order, and what they say."""

import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from foldcraft.audience import Audience
from foldcraft.errors import FoldcraftError, suggest
from foldcraft.sanity import information, judging, learning, net, pace, splits
from foldcraft.sanity.finding import FAIL, Finding, not_applicable
from foldcraft.sanity.opening import Opened
from foldcraft.sanity.subject import Subject
from foldcraft.sanity.timetable import Timetable

MOST = 400  # training images that are looked at

# By name: what it says when it passes, and how it is found out.
CHECKS: dict[str, tuple[str, Callable[[Subject], Finding]]] = {
    "folds": ("folds share no group and fit the data", splits.folds_hold),
    "pairs": ("images and labels belong together", splits.pairs_hold),
    "preprocessing": ("training and inference see the same pixels", judging.preprocessing),
    "constants": ("normalised as the weights want it", judging.constants),
    "draws": ("every draw of the augmentation is another", information.draws_differ),
    "augmentation": ("augmentation keeps labels", information.labels_survive),
    "pixels": ("images tell more than the prior", information.pixels_matter),
    "shuffled": ("shuffled labels give chance", information.shuffled_labels),
    "first_loss": ("the first loss is that of guessing", learning.first_loss),
    "modes": ("training and evaluation mode", learning.modes),
    "statistics": ("BatchNorm as the config says", learning.statistics),
    "logits": ("the net gives logits", net.logits),
    "bias": ("the head has a bias", net.bias),
    "idle_bias": ("no bias before a BatchNorm", net.idle_bias),
    "leaks": ("images of a batch are independent", net.leaks),
    "gradients": ("gradients are zeroed", learning.gradients_zeroed),
    "one_batch": ("one batch is learned by heart", learning.one_batch),
    "repeatable": ("the same answer twice", judging.repeatable),
    "alone": ("the same answer alone and in a batch", judging.alone),
    "judged_alike": ("inference predicts what was validated", judging.judged_alike),
    "precision": ("precision is good enough", pace.precision),
    "workers": ("workers keep up with the net", pace.workers),
    "pinned": ("memory is pinned for CUDA only", pace.memory),
    "waits": ("no step waits for the device", pace.waits),
    "processes": ("folds are processes", pace.processes),
}


@dataclass(frozen=True)
class Line:
    """One check with its finding."""

    check: str
    title: str
    finding: Finding
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
    audience: Audience,
    most: int = MOST,
    only: Collection[str] = (),
    trace: Path | None = None,
    tell: Callable[[Line], object] = lambda line: None,
) -> Report:
    """Carry out the checks; what they write goes to a folder that is gone afterwards.

    Args:
        only: names of the checks to carry out; none: all.
        trace: where a profiler's trace of some steps is written; None: no profiler watches.
        tell: called with each line as it is known.

    Raises:
        FoldcraftError: no such check.
    """
    for name in only:
        if name not in CHECKS:
            raise FoldcraftError(f"no check {name!r}", "--only", suggest(name, list(CHECKS)))
    began, computed = time.perf_counter(), time.process_time()
    with TemporaryDirectory(prefix="foldcraft-check-") as folder:
        subject = Subject(opened, Path(folder), audience, most, trace)
        lines = []
        for name in only or CHECKS:
            lines.append(_carry_out(name, subject, lines))
            tell(lines[-1])
        table = pace.timetable(subject) if subject.trains and (trace or "workers" in (only or CHECKS)) else None
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - computed
        return Report(lines, len(subject.competition.targets), seconds, cpu_seconds, table)


def _carry_out(name: str, subject: Subject, before: list[Line]) -> Line:
    title, check = CHECKS[name]
    began = time.perf_counter()
    try:
        finding = check(subject)
    except Exception as error:  # whatever breaks in the code that is checked is a finding about it
        finding = _broken(error, before)
    return Line(name, title, finding, round(time.perf_counter() - began, 2))


def _broken(error: Exception, before: list[Line]) -> Finding:
    """An error fails the check that meets it first; others that need the same part say that they could not be made."""
    text = str(error) if isinstance(error, FoldcraftError) else f"{type(error).__name__}: {error}"
    told = f"could not be carried out: {' '.join(text.split())[:300]}"
    for line in before:
        if line.finding.number == told:
            return not_applicable(f"could not be carried out for the same reason as {line.title!r}")
    return Finding(FAIL, told, "mend that first")
