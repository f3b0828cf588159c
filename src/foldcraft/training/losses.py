"""The loss of training for each form of target, what is done about rare classes, and R-Drop."""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from foldcraft.common.errors import FoldcraftError
from foldcraft.metrics.spaces import ClassSpace, LabelSpace, Space
from foldcraft.models.inputs import channels_of

FOCUS = 2.0  # the exponent that the focal loss's paper found best


class TrainingLoss(ABC):
    """From what a net puts out, float32 (B, W), and targets to the mean loss of the images, a scalar.

    The mean is a plain one over images, so that the parts of a batch add up to the whole of it. What is not known of an
    image (NaN in its targets) has no loss.
    """

    def __call__(
        self, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss; `weights` (B,) say how much each image counts, 1 in the mean over all rows."""
        losses = self.of_rows(outputs, targets)
        return (losses if weights is None else losses * weights).mean()

    @abstractmethod
    def of_rows(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss of each image (B,)."""

    @abstractmethod
    def disagreement(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """What two draws of a net (B, W) disagree on: the mean of both Kullback-Leibler divergences, nats, a scalar."""


@dataclass(frozen=True)
class ClassLoss(TrainingLoss):
    """Cross-entropy of one label.

    Targets are class indices (B,) or probabilities (B, K). A mixed image has the loss of each of its classes in their
    shares, as in mixup.

    Attributes:
        smoothing: probability mass spread evenly over the classes.
        weights: what an image of each class counts (K,).
        log_prior: added to the logits (K,); the net then learns them without the prior.
        focus: an image whose class has the probability p counts (1 - p) to this power (focal loss, arXiv 1708.02002).
    """

    smoothing: float = 0.0
    weights: torch.Tensor | None = None
    log_prior: torch.Tensor | None = None
    focus: float = 0.0

    def __call__(
        self, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        if weights is None and self.weights is None and not self.focus:  # in one call, which has bits of its own
            return F.cross_entropy(self._adjusted(outputs), targets, label_smoothing=self.smoothing)
        return super().__call__(outputs, targets, weights)

    def of_rows(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = self._adjusted(outputs)
        shares = targets if targets.ndim == 2 else F.one_hot(targets, logits.shape[1])
        log_p = F.log_softmax(logits, dim=1)
        # (B, K): the loss of each image, were it of that class. Weight and focus take hold of an image as a whole.
        # On the smoothed terms one by one, as torch has it, they would let the spread mass of rare classes outweigh
        # the true class of frequent ones.
        losses = -(1 - self.smoothing) * log_p - self.smoothing * log_p.mean(1, keepdim=True)
        if self.weights is not None:
            losses = losses * self.weights
        if self.focus:
            losses = losses * (1 - log_p.exp()) ** self.focus
        return (shares * losses).sum(1)

    def _adjusted(self, logits: torch.Tensor) -> torch.Tensor:
        return logits if self.log_prior is None else logits + self.log_prior

    def disagreement(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        log_p, log_q = F.log_softmax(first, dim=1), F.log_softmax(second, dim=1)
        return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1).mean() / 2  # both divergences in one sum


@dataclass(frozen=True)
class HeadsLoss(TrainingLoss):
    """The mean over several labels of the cross-entropies of those that are known.

    Attributes:
        heads: the columns of each label, and its loss.
    """

    heads: tuple[tuple[slice, ClassLoss], ...]

    def of_rows(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        total, count = outputs.new_zeros(len(outputs)), outputs.new_zeros(len(outputs))
        for columns, loss in self.heads:
            known = ~targets[:, columns].isnan().any(1)
            total = total + loss.of_rows(outputs[:, columns], targets[:, columns].nan_to_num()) * known
            count = count + known
        return total / count.clamp_min(1)

    def disagreement(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        parts = [loss.disagreement(first[:, columns], second[:, columns]) for columns, loss in self.heads]
        return torch.stack(parts).mean()


@dataclass(frozen=True)
class LabelLoss(TrainingLoss):
    """The mean over labels of binary cross-entropies; targets between 0 and 1.

    Attributes:
        smoothing: how far 0 and 1 are moved towards each other, in all.
        positive: what a label that is there counts beside one that is not (L,).
    """

    smoothing: float = 0.0
    positive: torch.Tensor | None = None

    def of_rows(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        known = ~targets.isnan()
        wanted = targets.nan_to_num() * (1 - self.smoothing) + self.smoothing / 2
        cells = F.binary_cross_entropy_with_logits(outputs, wanted, pos_weight=self.positive, reduction="none")
        return (cells * known).sum(1) / known.sum(1).clamp_min(1)

    def disagreement(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return ((first.sigmoid() - second.sigmoid()) * (first - second)).mean() / 2


@dataclass(frozen=True)
class ValueLoss(TrainingLoss):
    """The mean over columns of squared errors, in units of their standard deviation."""

    def of_rows(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        known = ~targets.isnan()
        cells = (outputs - targets.nan_to_num()) ** 2
        return (cells * known).sum(1) / known.sum(1).clamp_min(1)

    def disagreement(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("values have no divergence; settings that ask for it are refused before")


def training_loss(space: Space, truth: np.ndarray, imbalance: str, label_smoothing: float, device: str) -> TrainingLoss:
    """The loss that the settings of these names ask for.

    Args:
        truth: of the training rows, as the space has it.
    """
    if isinstance(space, LabelSpace):
        positive = _odds_against(truth, device) if imbalance == "weighted" else None
        return LabelLoss(label_smoothing, positive)
    if not isinstance(space, ClassSpace):
        return ValueLoss()
    counts = np.nan_to_num(space.matrix(truth)).sum(0)
    parts = [_class_loss(counts[own], imbalance, label_smoothing, device) for own in space.slices]
    return HeadsLoss(tuple(zip(space.slices, parts, strict=True))) if space.widths else parts[0]


def _class_loss(counts: np.ndarray, imbalance: str, label_smoothing: float, device: str) -> ClassLoss:
    """For one label; `counts` are the training rows of each class (K,)."""
    counts = counts.astype(np.float64)
    present = np.maximum(counts, 1)  # a class that this fold's training rows lack is taken to be as rare as can be
    weights = log_prior = None
    if imbalance == "weighted":  # as rare as a class is, so much it counts; 1 in the mean over the rows
        weights = torch.tensor(counts.sum() / (np.count_nonzero(counts) * present), dtype=torch.float32, device=device)
    if imbalance == "logit_adjusted":  # arXiv 2007.07314
        log_prior = torch.tensor(np.log(present / present.sum()), dtype=torch.float32, device=device)
    return ClassLoss(label_smoothing, weights, log_prior, FOCUS if imbalance == "focal" else 0.0)


def _odds_against(truth: np.ndarray, device: str) -> torch.Tensor:
    """How much more often each label (L,) is not there than there, from 0, 1, NaN (N, L)."""
    yes, no = (truth == 1).sum(0), (truth == 0).sum(0)
    return torch.tensor(np.maximum(no, 1) / np.maximum(yes, 1), dtype=torch.float32, device=device)


def rdrop_loss(
    loss: TrainingLoss, outputs: torch.Tensor, targets: torch.Tensor, rdrop: float, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """R-Drop (arXiv 2106.14448): the mean loss of two draws of the net, plus what they disagree on.

    The disagreement is the mean of the two Kullback-Leibler divergences, in nats, times `rdrop`. This is half of the
    paper's sum, so `rdrop` is half of its alpha.

    Args:
        outputs: of the images in one draw, then in another (2B, W).
        targets: of the images (B,) or (B, W).
    """
    first, second = outputs.chunk(2)
    both = (loss(first, targets, weights) + loss(second, targets, weights)) / 2
    return both + rdrop * loss.disagreement(first, second)


def check_has_dropout(model: nn.Module, size: int) -> None:
    """See that the net draws at random in training, with a net that is still on the CPU.

    Some nets call dropout as a function and others hold layers with a probability of 0, so it is tried out.

    Raises:
        FoldcraftError: it does not; R-Drop would compare equal outputs.
    """
    trial = copy.deepcopy(model).train()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        trial(torch.zeros(2, channels_of(model), size, size))
        drawn = not torch.equal(before, torch.get_rng_state())
    if not drawn:
        raise FoldcraftError(
            "nothing in this net is drawn at random, so R-Drop would compare equals",
            "regularize.rdrop",
            "set backbone.drop or backbone.drop_path, or regularize.rdrop=0",
        )
