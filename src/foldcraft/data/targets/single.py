"""A single label: one class a row. Grades are classes in an order; heads are columns that together fix the class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.target import Target
from foldcraft.metrics.logits import expit, log_softmax
from foldcraft.metrics.spaces import ClassSpace, LabelSpace, Space

if TYPE_CHECKING:
    import torch

LEAST = 1e-7  # probability of a class between two cuts that cross


@dataclass(frozen=True)
class SingleLabel(Target):
    """One class a row; truth is class indices (N,)."""

    kind: ClassVar[str] = "single"

    @classmethod
    def of(cls, column: str, classes: Classes, truth: np.ndarray) -> SingleLabel:
        """From class indices (N,)."""
        return cls((column,), ClassSpace(classes.names), truth)

    @property
    def written(self) -> list[str]:
        return self.classes.decode(self.truth)

    @property
    def identity(self) -> list[object]:
        return []

    def answers(self, predicted: np.ndarray) -> Mapping[str, list[str]]:
        return {self.columns[0]: self.classes.decode(predicted.argmax(1))}  # the likeliest class

    def in_words(self, values: np.ndarray) -> list[str]:
        return self.classes.decode(values)

    @property
    def vocabulary(self) -> Mapping[str, Classes]:
        return {self.columns[0]: self.classes}


@dataclass(frozen=True)
class Ordinal(SingleLabel):
    """Grades: classes in their order.

    Attributes:
        cumulative: nets and probes learn, for each grade but the last, whether a row lies above it (Niu et al.,
            CVPR 2016), in place of the class.
    """

    kind: ClassVar[str] = "ordinal"
    cumulative: bool = False

    @property
    def identity(self) -> list[object]:
        return ["cumulative"] if self.cumulative else []

    @property
    def learned_space(self) -> Space:
        return LabelSpace(tuple(f"above {name}" for name in self.space.names[:-1])) if self.cumulative else self.space

    @cached_property
    def learned(self) -> np.ndarray:
        if not self.cumulative:
            return self.truth
        return (self.truth[:, None] > np.arange(self.space.width - 1)).astype(np.float64)

    def from_learned(self, predicted: np.ndarray) -> np.ndarray:
        """Log-probabilities of the grades from log-odds of lying above each; cuts that cross are set in order."""
        if not self.cumulative:
            return predicted
        above = np.minimum.accumulate(expit(predicted), axis=-1)
        ends = np.ones_like(above[..., :1])
        steps = np.concatenate([ends, above], axis=-1) - np.concatenate([above, 0 * ends], axis=-1)
        return log_softmax(np.log(np.maximum(steps, LEAST)), axis=-1)

    def to_learned(self, targets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The probability of lying above each grade."""
        if not self.cumulative:
            return targets
        return (1 - np.cumsum(targets, axis=1)[:, :-1]).clip(0, 1).astype(np.float32)

    def predictions(self, outputs: torch.Tensor) -> torch.Tensor:
        if not self.cumulative:
            return super().predictions(outputs)
        return outputs.new_tensor(self.from_learned(outputs.double().cpu().numpy()))

    @property
    def is_ordered(self) -> bool:
        return True

    def outputs_behind(self, columns: np.ndarray) -> np.ndarray:
        """For a grade speaks whatever says that a row lies above those below it, and not above it."""
        if not self.cumulative:
            return columns
        grades = np.arange(self.space.width)
        return columns @ np.where(grades[:, None] > grades[:-1], 1.0, -1.0)


@dataclass(frozen=True)
class HeadsLabel(SingleLabel):
    """One class a row that several columns fix together, with a head for each column.

    Attributes:
        head_names: the columns.
        head_classes: of each column.
        parts: class index of each column, for each class of the label (K, H).
    """

    kind: ClassVar[str] = "single"
    head_names: tuple[str, ...] = ()
    head_classes: tuple[Classes, ...] = ()
    parts: np.ndarray | None = None

    @property
    def identity(self) -> list[object]:
        return ["heads", [[name, list(c.names)] for name, c in zip(self.head_names, self.head_classes, strict=True)]]

    @property
    def learned_space(self) -> Space:
        return side_by_side(self.head_names, self.head_classes)

    @cached_property
    def learned(self) -> np.ndarray:
        return self.parts[self.truth]

    @cached_property
    def _outputs_of_class(self) -> np.ndarray:
        """The output of each head that a class is made of (K, H)."""
        firsts = np.cumsum([0, *(len(classes) for classes in self.head_classes[:-1])])
        return self.parts + firsts

    @cached_property
    def _outputs_behind_class(self) -> np.ndarray:
        """1 where an output is one of those that a class is made of, float32 (K, outputs)."""
        members = np.zeros((self.space.width, self.outputs), np.float32)
        np.put_along_axis(members, self._outputs_of_class, 1, axis=1)
        return members

    def from_learned(self, predicted: np.ndarray) -> np.ndarray:
        """The heads' log-probabilities joined: their sum, over the classes that there are."""
        return log_softmax(predicted[..., self._outputs_of_class].sum(-1), axis=-1)

    def to_learned(self, targets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The share of each head's classes in a distribution over labels."""
        return targets @ self._outputs_behind_class

    def predictions(self, outputs: torch.Tensor) -> torch.Tensor:
        logp = self.learned_space.of_outputs(outputs)
        return logp[..., self._outputs_of_class].sum(-1).log_softmax(-1)

    def outputs_behind(self, columns: np.ndarray) -> np.ndarray:
        return columns @ self._outputs_behind_class


@dataclass(frozen=True)
class WithAuxiliary(Target):
    """A label with more columns beside it that are learned and not predicted.

    Attributes:
        main: what is predicted.
        names, more: the columns, and class indices of each training row (N, A); -1 where it is not known.
    """

    main: Target
    names: tuple[str, ...]
    more_classes: tuple[Classes, ...]
    more: np.ndarray

    @classmethod
    def of(cls, main: Target, names: tuple[str, ...], classes: tuple[Classes, ...], more: np.ndarray) -> WithAuxiliary:
        """Add columns to a target."""
        return cls(main.columns, main.space, main.truth, main, names, classes, more)

    @property
    def kind(self) -> str:  # type: ignore[override]
        return self.main.kind

    @property
    def heads(self) -> tuple[str, ...]:
        return self.main.heads

    @property
    def written(self) -> list[str]:
        return self.main.written

    @property
    def strata(self) -> np.ndarray:  # type: ignore[override]
        return self.main.strata

    @property
    def identity(self) -> list[object]:
        more = [[name, list(c.names)] for name, c in zip(self.names, self.more_classes, strict=True)]
        return [*self.main.identity, "auxiliary", more]

    @property
    def learned_space(self) -> Space:
        own = self.main.learned_space
        more = side_by_side(self.names, self.more_classes)
        return ClassSpace((*own.names, *more.names), (*(own.widths or (own.width,)), *more.widths))

    @cached_property
    def learned(self) -> np.ndarray:
        own = self.main.learned
        return np.concatenate([own.reshape(len(own), -1), self.more], axis=1)

    def from_learned(self, predicted: np.ndarray) -> np.ndarray:
        return self.main.from_learned(predicted[..., : self.main.outputs])

    def to_learned(self, targets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """What is learned of the label, and the auxiliary columns of training rows; of others these are not known."""
        more = np.full((len(rows), self.outputs - self.main.outputs), np.nan, np.float32)
        more[rows >= 0] = side_by_side(self.names, self.more_classes).matrix(self.more[rows[rows >= 0]])
        return np.concatenate([self.main.to_learned(targets, rows), more], axis=1)

    def predictions(self, outputs: torch.Tensor) -> torch.Tensor:
        return self.main.predictions(outputs[..., : self.main.outputs])

    def of_array(self, outputs: np.ndarray) -> np.ndarray:
        return self.main.of_array(outputs[..., : self.main.outputs])

    def answers(self, predicted: np.ndarray) -> Mapping[str, list[str]]:
        return self.main.answers(predicted)

    @property
    def separable(self) -> tuple[str, ...]:
        return self.main.separable

    def only(self, names: Sequence[str]) -> tuple[Target, np.ndarray]:
        return self.main.only(names) if self.main.separable else (self, np.arange(self.space.width))

    def at(self, rows: np.ndarray) -> Target:
        return replace(self, truth=self.truth[rows], main=self.main.at(rows), more=self.more[rows])

    def with_truth(self, truth: np.ndarray) -> Target:
        return replace(self, truth=truth, main=self.main.with_truth(truth))

    @property
    def part(self) -> str:  # type: ignore[override]
        return self.main.part

    @property
    def is_ordered(self) -> bool:
        return self.main.is_ordered

    def answered(self, predicted: np.ndarray) -> np.ndarray:
        return self.main.answered(predicted)

    def in_words(self, values: np.ndarray) -> list[str]:
        return self.main.in_words(values)

    def outputs_behind(self, columns: np.ndarray) -> np.ndarray:
        own = self.main.outputs_behind(columns)
        return np.pad(own, ((0, 0), (0, self.outputs - own.shape[1])))

    @property
    def vocabulary(self) -> Mapping[str, Classes]:
        return self.main.vocabulary


def side_by_side(names: tuple[str, ...], classes: tuple[Classes, ...]) -> ClassSpace:
    """The space of several labels."""
    columns = tuple(f"{name}={one}" for name, each in zip(names, classes, strict=True) for one in each.names)
    return ClassSpace(columns, tuple(len(each) for each in classes))
