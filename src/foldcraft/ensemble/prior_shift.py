"""Class priors of a test set whose classes are not as frequent as those of the training rows.

Probabilities that were learned with some priors are re-weighted to others, which are those that make the test images
likeliest: EM of Saerens, Latinne and Decaestecker (Neural Computation 14, 2002). It needs probabilities whose mean is
right class by class, so they are calibrated first with a temperature and a bias a class (Alexandari, Kundaje and
Shrikumar, ICML 2020, arXiv 1901.06852). EM finds other priors always; whether they have moved is asked of draws from
rows whose priors have not.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from foldcraft.common.fingerprint import seed_from
from foldcraft.ensemble import decision_rules
from foldcraft.ensemble.decision_rules import Argmax, AtPriors, Rule
from foldcraft.ensemble.nested import Labels
from foldcraft.metrics.space import TINY
from foldcraft.metrics.spaces import ClassSpace

LEVEL = 0.01  # share of test sets with nothing moved that are taken to be moved
DRAWS = 200  # test sets with nothing moved that the real one is compared with
MOST_ROWS = 3_000  # of each part that are looked at
ITERATIONS = 100
HELD = 0.2  # share of the training rows' priors in those that are used: no class is ruled out
RIDGE = 1.0  # rows by which a bias of a class is held to none


@dataclass(frozen=True)
class PriorShift:
    """What a test set says of its class priors.

    Attributes:
        names: of the classes.
        before, after: priors of the training rows and of the test set (K,).
        gain: log-likelihood of a test row by the one over that by the other, in nats.
        p: share of test sets with nothing moved that gain as much.
    """

    names: tuple[str, ...]
    before: np.ndarray
    after: np.ndarray
    gain: float
    p: float

    @property
    def is_real(self) -> bool:
        """Is it more than chance?"""
        return self.p <= LEVEL

    @property
    def ratio(self) -> np.ndarray:
        """What probabilities of each class are multiplied by (K,); held to one, for priors are found on few rows."""
        return (1 - HELD) * self.after / self.before + HELD

    def apply(self, predicted: np.ndarray) -> np.ndarray:
        """Log-probabilities (N, K) near the priors of the test set."""
        return log_softmax(predicted + np.log(self.ratio), axis=1)  # `suits` has asked

    def rule(self, nested: np.ndarray, truth: Labels, rule: Rule) -> Rule:
        """`apply`, and `moved_rule` after it."""
        return AtPriors(tuple(np.log(self.ratio).tolist()), self.moved_rule(nested, truth, rule))

    def moved_rule(self, nested: np.ndarray, truth: Labels, rule: Rule) -> Rule:
        """A decision rule for the priors of the test set, from one that was fitted on the training rows.

        It is fitted anew on these rows, drawn so that classes are as frequent as in the test set.

        Args:
            nested: log-probabilities (N, K) that no rule was applied to, of rows that they were not fitted on.
        """
        if isinstance(rule, Argmax):
            return rule
        weights = self.ratio[truth.targets]
        ends = np.cumsum(weights) / weights.sum() * len(weights)
        drawn = np.searchsorted(ends, np.arange(len(weights)) + 0.5)  # evenly spread, no chance in it
        rows = truth.rows(drawn)
        return decision_rules.fit(self.apply(nested[drawn]), rows.targets, rows.units, truth.metric, truth.space)

    def __str__(self) -> str:
        if not self.is_real:
            return f"class priors of the test set: not moved, p={self.p:.3f}; not used"
        most = np.argsort(-np.abs(self.after - self.before), kind="stable")[:3]
        said = ", ".join(f"{self.names[k]} {self.before[k]:.2f} -> {self.after[k]:.2f}" for k in most)
        return f"class priors of the test set: moved, p={self.p:.3f}: {said}; used"


def suits(truth: Labels) -> bool:
    """Is there one label a row, of classes? Of other predictions no priors are asked."""
    # Shares of votes have no frequencies to count, and labels side by side would have priors that go together.
    return isinstance(truth.space, ClassSpace) and not truth.space.widths and truth.targets.ndim == 1


def find(nested: np.ndarray, truth: Labels, test: np.ndarray) -> PriorShift:
    """The class priors of a test set, and whether they have moved.

    Args:
        nested: log-probabilities (N, K) of training rows by what was fitted on other folds, without a decision rule.
        truth: of these rows.
        test: log-probabilities (T, K) of the test images, made in the same way.
    """
    some, rows = nested[_spread(len(nested))], truth.rows(np.arange(len(nested))[_spread(len(nested))])
    test = test[_spread(len(test))]
    hits = np.eye(nested.shape[1])[rows.targets]
    fitted, before = _calibration(some, hits), _frequencies(hits)
    after, gain = _likeliest(_calibrated(test, fitted) / before, np.ones(len(test)), before)
    drawn = _unmoved(some, hits, rows.units, fitted, len(test))
    p = (1 + (drawn >= gain).sum()) / (1 + len(drawn))  # never zero, for the value itself is one of the draws
    return PriorShift(truth.space.names, before, after, gain, float(p))


def _spread(rows: int) -> slice:
    return slice(None, None, max(1, -(-rows // MOST_ROWS)))


def _frequencies(hits: np.ndarray) -> np.ndarray:
    """Of the classes (K,), each met half a time more than it was, so that none is impossible."""
    counts = hits.sum(0) + 0.5
    return counts / counts.sum()


def _calibrated(logs: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Probabilities (N, K) with a bias of each class and the logarithm of what all are multiplied by, (K + 1,)."""
    return softmax(logs * np.exp(at[-1]) + at[:-1], axis=1)  # `suits` has asked


def _slopes(logs: np.ndarray, hits: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Of each row's log-loss by what `_calibrated` is given (N, K + 1)."""
    slope = _calibrated(logs, at) - hits
    return np.column_stack([slope, (slope * logs).sum(1) * np.exp(at[-1])])


def _calibration(logs: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """What `_calibrated` is given (K + 1,), of least log-loss; a ridge holds it to what changes nothing."""

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        value = -np.log(_calibrated(logs, at)[hits > 0] + TINY).sum() + RIDGE * (at**2).sum() / 2
        return value / len(logs), (_slopes(logs, hits, at).sum(0) + RIDGE * at) / len(logs)

    return minimize(loss, np.zeros(logs.shape[1] + 1), jac=True, method="L-BFGS-B").x


def _likeliest(odds: np.ndarray, counts: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, float]:
    """The priors (K,) that make rows likeliest, and the log-likelihood that a row gains by them, by EM.

    Args:
        odds: probabilities over the priors that they were learned with (N, K).
        counts: how often each row is met (N,).
        before: the priors that it starts from (K,), which are worth one more row.
    """
    total, priors = counts.sum(), before
    for _ in range(ITERATIONS):
        last = priors
        priors = (priors * ((counts / (odds @ priors)) @ odds) + before) / (total + 1)
        if np.abs(priors - last).max() < 1e-4:
            break
    return priors, float(counts @ (np.log(odds @ priors) - np.log(odds @ before)) / total)


def _unmoved(logs: np.ndarray, hits: np.ndarray, units: np.ndarray, fitted: np.ndarray, size: int) -> np.ndarray:
    """What test sets of so many rows gain by other priors (B,) where nothing has moved.

    Whole groups are drawn, for a test set as for the training rows that it is held against, their priors and their
    calibration: both are but samples of what they come from. The calibration of a draw is one Newton step away.
    """
    names, unit = np.unique(units, return_inverse=True)
    rng, even = np.random.default_rng(seed_from("prior shift", size)), np.full(len(names), 1 / len(names))
    tests = rng.multinomial(max(1, round(size * len(names) / len(logs))), even, DRAWS)[:, unit].astype(float)
    others = rng.multinomial(len(names), even, DRAWS)[:, unit].astype(float)
    steps = (others - 1) @ _slopes(logs, hits, fitted) @ np.linalg.inv(_curvature(logs, fitted))
    gains = np.empty(DRAWS)
    for draw, (counts, learned) in enumerate(zip(tests, others, strict=True)):
        before = _frequencies(hits * learned[:, None])
        gains[draw] = _likeliest(_calibrated(logs, fitted - steps[draw]) / before, counts, before)[1]
    return gains


def _curvature(logs: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The second derivative of the loss of all rows by what `_calibrated` is given (K + 1, K + 1), with the ridge."""
    said, scaled = _calibrated(logs, at), logs * np.exp(at[-1])
    mean = (said * scaled).sum(1, keepdims=True)
    inner = np.diag(said.sum(0)) - said.T @ said
    edge = (said * (scaled - mean)).sum(0)
    corner = (said * (scaled - mean) ** 2).sum()
    return np.block([[inner, edge[:, None]], [edge[None], np.array([[corner]])]]) + RIDGE * np.eye(len(at))
