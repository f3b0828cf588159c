"""Actions with what they are worth and how long they take; and which of them fit best into the time that is left."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from foldcraft.study.compete.actions import Action
from foldcraft.study.compete.worth import Belief

SAME_KIND = 0.5  # of what an action is worth in a plan, with each better one of its kind: they gain partly the same
MARGIN = 1.25  # how much longer than expected what is worth most may take, and still fit


@dataclass(frozen=True)
class Option:
    """An action that could be next.

    Attributes:
        belief: what it may gain, as a share of the blend's loss.
        seconds: that its folds which are left will take, blending included.
        reckoned: seconds of the next step of it alone, before they are corrected by what was seen.
        folds: of that step.
    """

    action: Action
    belief: Belief
    seconds: float
    reckoned: float
    folds: tuple[int, ...]

    @property
    def rate(self) -> float:
        """Expected gain a second."""
        return self.belief.worth / self.seconds


def best_plan(options: Sequence[Option], seconds: float) -> list[Option]:
    """Of all that fits into so many seconds what gains most together; [] for nothing.

    First comes what gains most a second; but what is worth most, where it could soon be too late for it.

    Taking what gains most a second, again and again, fills the time with small gains, until the one large action that
    is worth more than all of them does not fit any more. So each action is tried as the one that is surely in, and the
    rest of the time is filled by gain a second (Dantzig's heuristic for a knapsack).
    """
    by_rate = sorted(options, key=lambda option: -option.rate)
    plans = [_filled(first, by_rate, seconds) for first in by_rate if first.seconds <= seconds]
    best = max(plans, key=_worth, default=[])
    return _in_order(sorted(best, key=lambda option: -option.rate), seconds)


def _worth(plan: Sequence[Option]) -> float:
    """Of all of a plan together."""
    total, seen = 0.0, Counter[str]()
    for option in sorted(plan, key=lambda option: -option.belief.worth):
        total += option.belief.worth * SAME_KIND ** seen[option.action.kind]
        seen[option.action.kind] += 1
    return total


def _in_order(plan: list[Option], seconds: float) -> list[Option]:
    largest = max(plan, key=lambda option: option.belief.worth, default=None)
    if largest is None or seconds - plan[0].seconds >= MARGIN * largest.seconds:
        return plan
    return [largest, *(option for option in plan if option is not largest)]


def _filled(first: Option, by_rate: Sequence[Option], seconds: float) -> list[Option]:
    return [first, *_fitting((option for option in by_rate if option is not first), seconds - first.seconds)]


def _fitting(options: Iterator[Option], seconds: float) -> Iterator[Option]:
    for option in options:
        if option.seconds <= seconds:
            seconds -= option.seconds
            yield option
