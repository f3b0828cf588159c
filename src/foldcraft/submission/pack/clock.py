"""Who answers while time runs out: the whole blend as long as the cheapest members can do the rest in time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from foldcraft.submission.pack.packed import Tier

SPARE = 0.03  # share of the budget that is kept for writing, and for rows slower than those before


@dataclass
class Clock:
    """Measures what members take, and says which tier answers next.

    Attributes:
        tiers: the best first, the cheapest last.
        models: how many each member has.
        seconds: the budget, from now on; None: there is none.
        guessed: what an image takes in each member, all folds, until it is measured.
    """

    tiers: Sequence[Tier]
    models: Sequence[int]
    seconds: float | None = None
    guessed: Sequence[float] = ()
    begun: float = field(default_factory=lambda: time.monotonic())
    _of_member: dict[int, tuple[int, float]] = field(default_factory=dict)
    _nets: float = 0.0
    _rows: int = 0
    _whole: float = 0.0

    def took(self, member: int, images: int, seconds: float) -> None:
        """A member has looked at so many images, counted once for each of its models."""
        before = self._of_member.get(member, (0, 0.0))
        self._of_member[member] = (before[0] + images, before[1] + seconds)
        self._nets += seconds

    def passed(self, rows: int, seconds: float) -> None:
        """So many rows are answered, with waiting for their images."""
        self._rows, self._whole = self._rows + rows, self._whole + seconds

    def tier(self, rows: int, left: int) -> int | None:
        """Which tier is to answer so many rows, of those that are left; None: there is no time for any."""
        if self.seconds is None or (not self._rows and not self.guessed):
            return 0
        remaining = self.seconds * (1 - SPARE) - (time.monotonic() - self.begun)
        costs = [self.cost(tier) for tier in self.tiers]
        cheapest = min(costs)
        for place, cost in enumerate(costs):
            if cost * rows + cheapest * (left - rows) <= remaining:
                return place
        return len(costs) - 1 if cheapest * rows <= remaining and remaining > 0 else None

    def cost(self, tier: Tier) -> float:
        """Seconds that a row takes."""
        beside = max(0.0, self._whole - self._nets) / self._rows if self._rows else 0.0
        return beside + sum(self._each(member) * min(tier.folds, self.models[member]) for member in tier.members)

    def _each(self, member: int) -> float:
        """Seconds that an image takes in one model."""
        if member in self._of_member:
            images, seconds = self._of_member[member]
            return seconds / images
        return self.guessed[member] / self.models[member] if self.guessed else 0.0
