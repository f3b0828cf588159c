"""Actions with what they are worth and how long they take; and which of them fit best into the time that is left."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from foldcraft.study.compete.actions import Action
from foldcraft.study.compete.worth import Belief

SAME_KIND = 0.5  # of what an action is worth in a plan, with each better one of its kind: they gain partly the same
FIRST_FOLD = 0.8  # of what a fine-tuning gains: its first net, mixed evenly into the submission (docs/experiments.md)
MARGIN = 1.25  # how much longer than expected what is worth most may take, and still fit


@dataclass(frozen=True)
class Option:
    """An action that could be next.

    Attributes:
        belief: what it may still gain, as a share of the blend's loss.
        seconds: that its folds which are left will take, blending included.
        reckoned: seconds of the next step of it alone, before they are corrected by what was seen.
        folds: of that step.
        step_seconds: that the step will take.
        step_share: of that gain what is there after that step alone; 0 where it is all that is left.
    """

    action: Action
    belief: Belief
    seconds: float
    reckoned: float
    folds: tuple[int, ...]
    step_seconds: float = 0.0
    step_share: float = 0.0

    @property
    def rate(self) -> float:
        """Expected gain a second: of all of it, or of its next step where that gains faster."""
        whole = self.belief.worth / self.seconds
        return max(whole, self.step_share * self.belief.worth / self.step_seconds) if self.step_share else whole

    @property
    def step(self) -> "Option":
        """The next step alone, for where there is no time for all of it."""
        return replace(self, belief=self.belief.times(self.step_share), seconds=self.step_seconds, step_share=0.0)


def best_plan(options: Sequence[Option], seconds: float) -> list[Option]:
    """Of all that fits into so many seconds what gains most together; [] for nothing.

    First comes what gains most a second; but what is worth most, where it could soon be too late for it.

    Taking what gains most a second, again and again, fills the time with small gains, until the one large action that
    is worth more than all of them does not fit any more. So each action is tried as the one that is surely in, and the
    rest of the time is filled by gain a second (Dantzig's heuristic for a knapsack). Of an action with several steps
    the next one alone may be in a plan, in place of all of it; of alternatives there is one.
    """
    steps = [option.step for option in options if option.step_share]
    by_rate = sorted([*options, *steps], key=lambda option: -option.rate)
    plans = [_filled(first, by_rate, seconds) for first in by_rate if first.seconds <= seconds]
    best = max(plans, key=_worth, default=[])
    return _in_order(sorted(best, key=lambda option: -option.rate), seconds)


def share_given(done: int, folds: int) -> float:
    """Of what a fine-tuning gains the share that its finished folds give, mixed evenly into the submission.

    The first net gives most of it. What averaging several adds is like the variance of their mean, which falls as one
    over their number. The last fold makes it a member of the blend.

    Args:
        folds: in all.
    """
    if done in (0, folds):
        return float(done == folds)
    return 1 - (1 - FIRST_FOLD) / done


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
    plan, left = [first], seconds - first.seconds
    for option in by_rate:
        if option.seconds <= left and not any(option.action.is_alternative_to(other.action) for other in plan):
            left -= option.seconds
            plan.append(option)
    return plan
