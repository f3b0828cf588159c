"""Which of several steps is quickest: what is far too slow is dropped after one step, the others are timed in turns."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

TOO_SLOW = 3.0  # times as long as the quickest
Step = Callable[[], object]


@dataclass(frozen=True)
class Timed:
    """What was found.

    Attributes:
        seconds: the quickest step of each that was timed.
        dropped: how many times as long as the quickest took the first step of each that was not.
    """

    seconds: dict[str, float]
    dropped: dict[str, float]


def clocked(step: Step) -> float:
    """Seconds that a step takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def quickest(steps: Mapping[str, Step], limit: float) -> Timed:
    """Time the steps, the one that surely works first, for about `limit` seconds; each that stays once at the least.

    The first step of each is not timed: code is made for its shapes. First steps are compared with each other, so that
    nothing is dropped for that. A step that is too slow is dropped at once if it has used up more than its share of the
    time; in less time it may have met with a busy moment, and is asked again. From then on turns are taken, so that a
    busy moment hits none alone, by all that are not too slow.
    """
    end = time.perf_counter() + limit
    share = limit / len(steps)
    first: dict[str, float] = {}
    dropped: dict[str, float] = {}
    for name, step in steps.items():
        took = clocked(step)
        times = took / min(first.values(), default=took)
        if times > TOO_SLOW and took > share:
            dropped[name] = times
        else:
            first[name] = took
    seconds = {name: clocked(steps[name]) for name in first}
    while time.perf_counter() < end:
        for name in seconds:
            if seconds[name] <= TOO_SLOW * min(seconds.values()):
                seconds[name] = min(seconds[name], clocked(steps[name]))
    return Timed(seconds, dropped)
