"""What an action may gain, as a share of the blend's loss: what is known beforehand, and what was seen here.

An action is worth the mean of what it gains where it gains (expected improvement, Jones et al. 1998): one that costs
score leaves the blend as it is. What is known beforehand is from docs/experiments.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Belief:
    """A share of the blend's loss that an action may take off: a normal distribution.

    Attributes:
        error: its standard deviation.
    """

    mean: float
    error: float

    def after(self, seen: Sequence["Belief"], spread: float = 0.0) -> "Belief":
        """The same when gains were seen, each with its own error and, besides, a spread between one action and another.

        The product of normal densities.
        """
        weights = [1 / self.error**2, *(1 / (each.error**2 + spread**2) for each in seen)]
        means = [self.mean, *(each.mean for each in seen)]
        total = sum(weights)
        return Belief(sum(w * m for w, m in zip(weights, means, strict=True)) / total, total**-0.5)

    def times(self, factor: float) -> "Belief":
        """Of an action of which so much less is expected."""
        return Belief(self.mean * factor, self.error * factor)

    @property
    def worth(self) -> float:
        """Expected improvement."""
        at = self.mean / self.error
        density = math.exp(-(at**2) / 2) / math.sqrt(2 * math.pi)
        below = (1 + math.erf(at / math.sqrt(2))) / 2
        return self.mean * below + self.error * density
