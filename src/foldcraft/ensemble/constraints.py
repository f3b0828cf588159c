"""What is known of answers beforehand: a value that is the sum of others, labels that never go together.

Answers that break it are moved as little as it takes: values to the nearest ones that obey, in units of the columns'
scale; of labels that do not go together the less sure one gives way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foldcraft.common.errors import FoldcraftError, shorten, suggest
from foldcraft.ensemble.decision_rules import Rule
from foldcraft.metrics.spaces import Space, ValueSpace

PLACE = "competition.constraints"
OF_VALUES, OF_LABELS = 'write "total = a + 2*b"', 'write "A excludes B, C", "A excludes all" or "A implies B"'
TOKEN = re.compile(r'\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)|"([^"]+)"|([^\W\d][\w.]*)|([-+*()]))')
HARDLY = 1e-3  # log-odds by which a label that gives way is out, or in


class Constraints(Rule):
    """Answers are moved to where they obey."""

    name = "constraints"


@dataclass(frozen=True)
class Linear(Constraints):
    """Values between which linear equations hold: `matrix @ values = right`.

    Attributes:
        matrix: (C, W).
        right: (C,).
        scale: of each column (W,); a column moves the more, the wider it varies.
    """

    matrix: np.ndarray
    right: np.ndarray
    scale: np.ndarray

    def apply(self, predicted: np.ndarray) -> np.ndarray:
        """The nearest values (N, W) that obey."""
        spread = self.matrix * self.scale**2
        error = predicted @ self.matrix.T - self.right
        return predicted - error @ np.linalg.pinv(spread @ self.matrix.T) @ spread


@dataclass(frozen=True)
class Logical(Constraints):
    """Labels that exclude or imply each other.

    Attributes:
        excludes: a label, and those that are not there where it is.
        implies: a label, and one that is there where it is.
    """

    excludes: tuple[tuple[int, tuple[int, ...]], ...]
    implies: tuple[tuple[int, int], ...]

    def apply(self, predicted: np.ndarray) -> np.ndarray:
        """Log-odds (N, W) of which the answers obey."""
        odds = np.array(predicted, np.float64)
        for one, other in self.implies:
            odds[(odds[:, one] > 0) & (odds[:, other] <= 0) & (odds[:, one] > -odds[:, other]), other] = HARDLY
        before = None
        while before is None or (before != odds).any():  # from here on labels only go, so there is an end
            before = odds.copy()
            for one, others in self.excludes:
                self._exclude(odds, one, list(others))
            for one, other in self.implies:
                odds[(odds[:, one] > 0) & (odds[:, other] <= 0), one] = -HARDLY
        return odds

    @staticmethod
    def _exclude(odds: np.ndarray, one: int, others: list[int]) -> None:
        surest = odds[:, others].max(1)
        both = (odds[:, one] > 0) & (surest > 0)
        stays = odds[:, one] >= surest
        odds[both & ~stays, one] = -HARDLY
        rows = np.flatnonzero(both & stays)
        odds[np.ix_(rows, others)] = np.minimum(odds[np.ix_(rows, others)], -HARDLY)


@dataclass(frozen=True)
class Obeying(Rule):
    """A decision rule, and constraints after it."""

    name = "constraints"
    rule: Rule
    constraints: Constraints

    def apply(self, predicted: np.ndarray) -> np.ndarray:
        return self.constraints.apply(self.rule.apply(predicted))

    def __str__(self) -> str:
        return f"{self.rule}, {self.name}"


def read(texts: Sequence[str], space: Space) -> Constraints | None:
    """Constraints from what the settings say; None where they say nothing.

    Raises:
        FoldcraftError: a name that is not there, an expression that is not linear, constraints that contradict each
            other; a target that they are not made for.
    """
    if not texts:
        return None
    if space.form == "values":
        return _linear(texts, space)
    if space.form == "labels":
        return _logical(texts, space.names)
    raise FoldcraftError("are for values and for labels that are each there or not", PLACE, "leave them out")


def _linear(texts: Sequence[str], space: ValueSpace) -> Linear:
    rows = []
    for text in texts:
        sides = text.split("=")
        if len(sides) != 2:
            raise FoldcraftError(f"{shorten(text, 60)!r} is no equation", PLACE, OF_VALUES)
        left, right = (_Expression(side, space.names, text).value() for side in sides)
        if not (left - right)[:-1].any():
            raise FoldcraftError(f"{shorten(text, 60)!r} says nothing of any column", PLACE, OF_VALUES)
        rows.append(left - right)
    matrix = np.array(rows)
    known, whole = (np.linalg.matrix_rank(part) for part in (matrix[:, :-1], matrix))
    if known < whole:
        raise FoldcraftError(f"{shorten('; '.join(texts), 100)}: contradict each other", PLACE, "leave one out")
    return Linear(matrix[:, :-1], -matrix[:, -1], np.asarray(space.scale, np.float64))


class _Expression:
    """Names, numbers, + - * and parentheses: coefficients of the columns and a number at the end (W + 1,)."""

    def __init__(self, side: str, names: Sequence[str], text: str) -> None:
        self.names, self.text, self.tokens, place = names, text, [], 0
        side = side.rstrip()
        while place < len(side):
            if not (found := TOKEN.match(side, place)):
                self.fail(f"{shorten(side[place:].strip(), 20)!r} is not understood")
            self.tokens.append(found.groups())
            place = found.end()

    def fail(self, why: str, hint: str = OF_VALUES) -> None:
        raise FoldcraftError(f"{shorten(self.text, 60)!r}: {why}", PLACE, hint)

    def value(self) -> np.ndarray:
        total = self.sum()
        if self.tokens:
            self.fail("something is left over at the end")
        return total

    def takes(self, signs: str) -> str:
        """The sign that comes next, where it is one of these; "" else."""
        return self.tokens.pop(0)[3] if self.tokens and self.tokens[0][3] and self.tokens[0][3] in signs else ""

    def sum(self) -> np.ndarray:
        total = self.product()
        while sign := self.takes("+-"):
            total = total + self.product() * (1 if sign == "+" else -1)
        return total

    def product(self) -> np.ndarray:
        total = self.factor()
        while self.takes("*"):
            other = self.factor()
            if total[:-1].any() and other[:-1].any():
                self.fail("two columns are multiplied, which is not linear")
            total = total * other[-1] if total[:-1].any() else other * total[-1]
        return total

    def factor(self) -> np.ndarray:
        if sign := self.takes("+-"):
            return self.factor() * (1 if sign == "+" else -1)
        if self.takes("("):
            inner = self.sum()
            if not self.takes(")"):
                self.fail("a parenthesis is not closed")
            return inner
        if not self.tokens or self.tokens[0][3]:
            self.fail("a name or a number is missing")
        number, quoted, bare, _ = self.tokens.pop(0)
        found = np.zeros(len(self.names) + 1)
        if number:
            found[-1] = float(number)
        else:
            found[_place(quoted or bare, self.names)] = 1
        return found


def _place(name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise FoldcraftError(f"no column or label {shorten(name, 60)!r}", PLACE, suggest(name, list(names)))
    return list(names).index(name)


def _logical(texts: Sequence[str], names: Sequence[str]) -> Logical:
    excludes, implies = [], []
    for text in texts:
        found = re.fullmatch(r"\s*(.+?)\s+(excludes|implies)\s+(.+?)\s*", text)
        if not found:
            raise FoldcraftError(f"{shorten(text, 60)!r} is not understood", PLACE, OF_LABELS)
        one = _place(found[1].strip('"'), names)
        listed = [found[3]] if found[3] in names else found[3].split(",")
        all_others = found[2] == "excludes" and found[3] == "all" and "all" not in names
        others = [_place(name.strip().strip('"'), names) for name in ([] if all_others else listed)]
        others = [k for k in range(len(names)) if k != one] if all_others else others
        if one in others:
            raise FoldcraftError(f"{shorten(text, 60)!r}: a label stands on both sides", PLACE, OF_LABELS)
        if found[2] == "excludes":
            excludes.append((one, tuple(others)))
        else:
            implies += [(one, other) for other in others]
    _check_possible(excludes, implies, names)
    return Logical(tuple(excludes), tuple(implies))


def _check_possible(
    excludes: Sequence[tuple[int, tuple[int, ...]]], implies: Sequence[tuple[int, int]], names: Sequence[str]
) -> None:
    """See that each label can be there at all."""
    for label in range(len(names)):
        there = {label}
        while more := {other for one, other in implies if one in there} - there:
            there |= more
        if any(one in there and there & set(others) for one, others in excludes):
            what = f"contradict each other: with {shorten(names[label], 60)!r} comes a label that is excluded"
            raise FoldcraftError(what, PLACE, "leave one of them out")
