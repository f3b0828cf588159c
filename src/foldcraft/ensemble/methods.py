"""From the predictions of several members to one: methods that find out how much each should count.

A method is a class with a `fit`; what it gives back combines any rows of the same members. Members come as
predictions (N, W) in one space, perhaps as memory maps; nothing here holds all of them in memory at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from foldcraft.common.errors import FoldcraftError, listing, suggest
from foldcraft.common.fingerprint import of_bytes, seed_from
from foldcraft.metrics.calibration import MOST_ROWS
from foldcraft.metrics.scores import Metric
from foldcraft.metrics.space import TINY
from foldcraft.metrics.spaces import Space

CHUNK = 2**22  # numbers that are looked at together
MIN_Z = 3.0
LEAST_SLOPE = 0.01  # of the curve that makes ranks probabilities; above zero it keeps their order
Members = Sequence[np.ndarray]  # predictions (N, W) of each


@dataclass(frozen=True)
class Combination(ABC):
    """What a method has found: of each member that takes part, how much it counts and at which temperature.

    Attributes:
        used: places of the members that take part, among those that were given.
        temperatures, weights: of each of them; weights sum to one.
        given: number of members that were given.
        space: of all predictions.
        overall: temperature of the whole: members that err differently are surer together than each alone.
    """

    used: tuple[int, ...]
    temperatures: tuple[float, ...]
    weights: tuple[float, ...]
    given: int
    space: Space
    overall: float = 1.0

    @property
    def shares(self) -> tuple[float, ...]:
        """The weight of every member that was given."""
        found = dict(zip(self.used, self.weights, strict=True))
        return tuple(found.get(place, 0.0) for place in range(self.given))

    def apply(self, members: Members) -> np.ndarray:
        """Predictions (N, W) from those of each member that was given."""
        size = max(1, CHUNK // (members[0].shape[1] * len(self.used)))
        parts = range(0, len(members[0]), size)
        return np.concatenate([self.pool([members[k][first : first + size] for k in self.used]) for first in parts])

    def pool(self, members: Members) -> np.ndarray:
        """Predictions (n, W) from those (n, W) of each member that takes part."""
        calibrated = [self.space.at_temperature(one, t) for one, t in zip(members, self.temperatures, strict=True)]
        return self.space.at_temperature(self._pool(np.stack(calibrated)), self.overall)

    @abstractmethod
    def _pool(self, members: np.ndarray) -> np.ndarray:
        """Predictions (n, W) from calibrated ones (M, n, W)."""


class LogPool(Combination):
    """The weighted geometric mean of probabilities, the plain one of values."""

    def _pool(self, members: np.ndarray) -> np.ndarray:
        return self.space.pooled(members, self.weights)


class LinearPool(Combination):
    """The weighted arithmetic mean of probabilities."""

    def _pool(self, members: np.ndarray) -> np.ndarray:
        return self.space.mixed(members, np.array(self.weights))


@dataclass(frozen=True)
class RankPool(Combination):
    """The mean of each column's ranks among the rows that were fitted on, made a probability by a logistic curve.

    Attributes:
        known: calibrated log-probabilities of these rows, each class's in rising order (M, n, K).
        slopes, offsets: of each column's curve (K,).
    """

    known: np.ndarray = field(default_factory=lambda: np.empty(0))
    slopes: np.ndarray = field(default_factory=lambda: np.ones(1))
    offsets: np.ndarray = field(default_factory=lambda: np.zeros(1))

    def _pool(self, members: np.ndarray) -> np.ndarray:
        return self.space.normalised(self.slopes * self.odds(members) + self.offsets)

    def odds(self, members: np.ndarray) -> np.ndarray:
        """Log-odds of the mean ranks (n, W) of calibrated predictions (M, n, W)."""
        ranks = np.zeros(members.shape[1:])
        for member, known in zip(members, self.known, strict=True):
            for k, column in enumerate(known.T):
                below = np.searchsorted(column, member[:, k], "left") + np.searchsorted(column, member[:, k], "right")
                ranks[:, k] += (below + 1) / (2 * len(column) + 2)  # never zero and never one
        return np.log(ranks) - np.log(len(members) - ranks)


@dataclass(frozen=True)
class Calibrated:
    """Members that are worth combining, each with its temperature, in an order that only their predictions decide.

    Attributes:
        members: log-probabilities (N, K) of those that were given.
        used: places of those that are worth it.
        temperatures: of these.
        losses: of the calibrated members, a row each (M, N).
        space: of all predictions.
    """

    members: Members
    truth: np.ndarray
    units: np.ndarray
    used: tuple[int, ...]
    temperatures: tuple[float, ...]
    losses: np.ndarray
    space: Space

    @classmethod
    def of(cls, members: Members, truth: np.ndarray, units: np.ndarray, space: Space) -> "Calibrated":
        """Leave out copies of a member, and members whose predictions have nothing to do with the truth.

        Where none has, the best of them is kept.
        """
        temperatures = [space.fit_temperature(member, truth) for member in members]
        losses = {k: _losses(member, temperatures[k], truth, space) for k, member in enumerate(members)}
        order = sorted(
            losses, key=lambda k: (round(float(np.nanmean(losses[k])), 9), of_bytes(np.sort(losses[k]).tobytes()))
        )
        distinct = [k for n, k in enumerate(order) if not any(_same(members[k], members[j]) for j in order[:n])]
        used = [k for k in distinct if _has_signal(members[k], truth, units, space)] or distinct[:1]
        own = np.stack([losses[k] for k in used])
        return cls(members, truth, units, tuple(used), tuple(temperatures[k] for k in used), own, space)

    def rows(self, most: int = MOST_ROWS) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated predictions (M, n, W) and truth of all rows, or of so many spread evenly over them."""
        some = slice(None, None, max(1, -(-len(self.truth) // most)))
        used = zip(self.used, self.temperatures, strict=True)
        return np.stack([self.space.at_temperature(self.members[k][some], t) for k, t in used]), self.truth[some]

    def combined(self, kind: type[Combination], weights: np.ndarray) -> Combination:
        """A combination by weights (M,) of those in use; members of no weight are left out."""
        kept = np.flatnonzero(weights > 0)
        shares = weights[kept] / weights[kept].sum()
        used = tuple(self.used[k] for k in kept)
        temperatures, weights = tuple(self.temperatures[k] for k in kept), tuple(shares.tolist())
        found = kind(used, temperatures, weights, len(self.members), self.space)
        some = slice(None, None, max(1, -(-len(self.truth) // MOST_ROWS)))
        blend = found.apply([m[some] for m in self.members])
        return replace(found, overall=self.space.fit_temperature(blend, self.truth[some]))


def _losses(member: np.ndarray, temperature: float, truth: np.ndarray, space: Space) -> np.ndarray:
    """Of each row (N,) once the member is calibrated."""
    size = max(1, CHUNK // member.shape[1])
    parts = (slice(first, first + size) for first in range(0, len(truth), size))
    return np.concatenate([space.losses(space.at_temperature(member[p], temperature), truth[p]) for p in parts])


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    size = max(1, CHUNK // a.shape[1])
    return all(np.array_equal(a[first : first + size], b[first : first + size]) for first in range(0, len(a), size))


def _has_signal(member: np.ndarray, truth: np.ndarray, units: np.ndarray, space: Space) -> bool:
    """Does a member say more of a row's own truth than of one drawn from all rows?

    By more than `MIN_Z` standard errors of the mean over rows; rows of one unit are not independent. How frequent a
    member thinks the classes are, and how sure it is, have no say in it.
    """
    size = max(1, CHUNK // member.shape[1])
    parts = [slice(first, first + size) for first in range(0, len(truth), size)]
    mean = space.mean_truth(truth)
    gain = np.concatenate(
        [
            (np.nan_to_num(space.matrix(truth[p]) - mean) * space.natural(np.asarray(member[p], np.float64))).sum(1)
            for p in parts
        ]
    )
    _, unit = np.unique(units, return_inverse=True)
    error = np.sqrt((np.bincount(unit, gain - gain.mean()) ** 2).sum()) / len(gain)
    return bool(gain.mean() > MIN_Z * error)


class Method(ABC):
    """A way to combine members."""

    name: ClassVar[str]

    @classmethod
    def suits(cls, metric: Metric) -> bool:
        """Is it tried for that metric?"""
        return True

    def lack(self, space: Space) -> str:
        """Why predictions of this form cannot be combined so; "" where they can."""
        return ""

    def fit(self, members: Members, truth: np.ndarray, units: np.ndarray, space: Space) -> Combination:
        """Find out how to combine.

        Args:
            members: predictions (N, W) of each, in the space.
            truth: of the rows, as the space has it.
            units: what may be drawn independently of each other (N,): the group of each row, or its id.
        """
        return self.combine(Calibrated.of(members, truth, units, space))

    @abstractmethod
    def combine(self, found: Calibrated) -> Combination:
        """The same from members that have their temperature."""


class Best(Method):
    """The one member with the least loss."""

    name = "best single"

    def combine(self, found: Calibrated) -> Combination:
        return found.combined(LogPool, np.arange(len(found.used)) == 0)


class WeightedMean(Method):
    """All members, the better the more, as `quality_shares` has it."""

    name = "weighted mean"

    def combine(self, found: Calibrated) -> Combination:
        return found.combined(LogPool, quality_shares(found.losses))


def quality_shares(losses: np.ndarray, steep: float = 4.0) -> np.ndarray:
    """Shares (M,) that say how good members are: one of twice the least loss has e^-`steep` of the share of the best.

    No less even than some hundred rows bear, and nearly nothing for what is far worse (docs/experiments.md).

    Args:
        losses: of each member's rows (M, N).
    """
    mean = np.nanmean(losses, axis=1)
    shares = np.exp(-steep * (mean - mean.min()) / max(float(mean.min()), TINY))
    return shares / shares.sum()


class RankMean(Method):
    """All members' ranks alike: for metrics that look at the order of rows only, such as the area under the curve.

    Ranks are evenly spread, and a class may be rare. So a logistic curve, which keeps their order, makes them
    probabilities: forecasts, comparisons of losses and mixtures take what a blend says at its word. It is held to
    the ranks and to how frequent each class is by a ridge as strong as one row.
    """

    name = "rank mean"

    @classmethod
    def suits(cls, metric: Metric) -> bool:
        """For metrics that look at the order of rows alone."""
        return metric.by_order and metric.wants != "values"

    def lack(self, space: Space) -> str:
        return "ranks say nothing of the size of values, which are predicted here" if space.form == "values" else ""

    def combine(self, found: Calibrated) -> Combination:
        from scipy.optimize import minimize  # a packed blend, which fits nothing, does without

        known, truth = found.rows()
        every = (found.used, found.temperatures, (1 / len(known),) * len(known), len(found.members), found.space)
        pool = RankPool(*every, known=np.sort(known, axis=1))
        odds, width = pool.odds(known), known.shape[2]
        rates = (np.nan_to_num(found.space.mean_truth(truth)) * len(truth) + 0.5) / (len(truth) + 1)  # none is 0 or 1
        start = np.concatenate([np.ones(width), found.space.of_shares(rates[None])[0]])

        def loss(curve: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = found.space.loss_of_natural(curve[:width] * odds + curve[width:], truth)
            gradient = np.concatenate([(slope * odds).sum(0), slope.sum(0)])
            apart = (curve - start) / len(truth)
            return value + len(truth) * (apart**2).sum() / 2, gradient + apart

        bounds = [(LEAST_SLOPE, None)] * width + [(None, None)] * width
        curve = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
        return replace(pool, slopes=curve[:width], offsets=curve[width:])  # no temperature is left to find


@dataclass(frozen=True)
class Greedy(Method):
    """Bagged greedy selection with replacement on the proper loss (Caruana et al., ICML 2004; bags: ICDM 2006).

    Each bag sees a bootstrap of the units and some of the members, takes the member that lowers the loss of the mean
    of those taken so far the most, again and again, and keeps the best prefix. The mean is one of probabilities, so
    only those of the truth are needed, whatever the number of classes; of values it is one of their errors. What the
    bags have taken is mixed with the weighted mean, for few rows say little of a member (docs/experiments.md).

    Attributes:
        held: share of the weighted mean.
        bags: number of bags.
        share: of the members that a bag sees, two at the least.
        picks: most that a bag takes.
    """

    name: ClassVar[str] = "greedy"
    held: float = 0.5
    bags: int = 20
    share: float = 0.6
    picks: int = 25

    def combine(self, found: Calibrated) -> Combination:
        space, count = found.space, len(found.used)
        pairs = zip(found.used, found.temperatures, strict=True)
        cells = [space.cells(space.at_temperature(found.members[k], t), found.truth) for k, t in pairs]
        values, weights = np.stack([each.values for each in cells]), cells[0].weights
        names, unit = np.unique(found.units, return_inverse=True)
        unit = unit[cells[0].rows]
        votes = np.zeros(count)
        for bag in range(self.bags):
            rng = np.random.default_rng(seed_from("greedy", bag))
            drawn = rng.poisson(1.0, len(names))[unit].astype(np.float64)
            rows = np.flatnonzero(drawn) if drawn.any() else np.arange(len(drawn))
            some = np.sort(rng.permutation(count)[: max(2, round(self.share * count))])
            counted = (drawn[rows] if drawn.any() else 1.0) * weights[rows]
            picked = self._pick(values[some][:, rows], counted, space)
            votes[some] += picked / picked.sum()
        shares = self.held * quality_shares(found.losses) + (1 - self.held) * votes / votes.sum()
        return found.combined(LinearPool, shares)

    def _pick(self, values: np.ndarray, weights: np.ndarray, space: Space) -> np.ndarray:
        """How often each member (M,) is taken, from what is mixed in each cell (M, n) and the cells' weights (n,)."""
        total = np.zeros(values.shape[1])
        taken: list[int] = []
        losses: list[float] = []
        for count in range(1, self.picks + 1):
            tried = [space.loss_of_sum(total + one, count, weights) for one in values]
            best = int(np.argmin(np.round(tried, 9)))
            taken.append(best)
            losses.append(tried[best])
            total = total + values[best]
        length = int(np.argmin(np.round(losses, 9))) + 1
        return np.bincount(taken[:length], minlength=len(values)).astype(np.float64)


@dataclass(frozen=True)
class Stacking(Method):
    """Weights of predictions, none below zero, that minimise the proper loss: a constrained linear stacker.

    As many numbers as there are members. They are held to those of the weighted mean, where they start, by a ridge as
    strong as `held` rows a member would hold them: few rows say little about weights.
    """

    name: ClassVar[str] = "stacking"
    held: float = 1.0

    def combine(self, found: Calibrated) -> Combination:
        from scipy.optimize import minimize  # a packed blend, which fits nothing, does without

        predicted, truth = found.rows()
        stack, count = found.space.natural(predicted), len(predicted)
        ridge, start = self.held / count / len(truth), count * quality_shares(found.losses)

        def loss(relative: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = found.space.loss_of_natural(np.tensordot(relative / count, stack, axes=1), truth)
            gradient = np.tensordot(stack, slope, axes=([1, 2], [0, 1])) / count
            return value + ridge * ((relative - start) ** 2).sum() / 2, gradient + ridge * (relative - start)

        found_at = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * count).x / count
        weights = np.where(found_at > 1e-3, found_at, 0)
        if not weights.any():
            weights = start
        return found.combined(LogPool, weights)  # what they lack to a sum of one is a temperature of the whole


# Those that can be asked for, simplest first.
METHODS: dict[str, type[Method]] = {method.name: method for method in (Best, WeightedMean, RankMean, Greedy, Stacking)}


def named(name: str, metric: Metric) -> Method:
    """The blending method of that name.

    Raises:
        FoldcraftError: there is none, or it is not for that metric.
    """
    if name not in METHODS:
        raise FoldcraftError(f"no blending method is called {name!r}", "--method", suggest(name, list(METHODS)))
    if not METHODS[name].suits(metric):
        suited = [each for each, method in METHODS.items() if method.suits(metric)]
        raise FoldcraftError(f"{name} is not for {metric.title}", "--method", f"choose one of {listing(suited)}")
    return METHODS[name]()
