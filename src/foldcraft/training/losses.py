"""The loss of training: cross-entropy, what is done about rare classes, and R-Drop."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from foldcraft.common.errors import FoldcraftError

FOCUS = 2.0  # the exponent that the focal loss's paper found best


@dataclass(frozen=True)
class TrainingLoss:
    """From logits float32 (B, K) and targets to the mean loss of the images, a scalar.

    Targets are class indices (B,) or probabilities (B, K). A mixed image has the loss of each of its classes in their
    shares, as in mixup. The mean is a plain one over images, so that the parts of a batch add up to the whole of it.

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

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self.log_prior is not None:
            logits = logits + self.log_prior
        if self.weights is None and not self.focus:
            return F.cross_entropy(logits, targets, label_smoothing=self.smoothing)
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
        return (shares * losses).sum(1).mean()


def training_loss(imbalance: str, label_smoothing: float, counts: np.ndarray, device: str) -> TrainingLoss:
    """The loss that the settings of these names ask for; `counts` are the training rows of each class (K,)."""
    present = np.maximum(counts, 1)  # a class that this fold's training rows lack is taken to be as rare as can be
    weights = log_prior = None
    if imbalance == "weighted":  # as rare as a class is, so much it counts; 1 in the mean over the rows
        weights = torch.tensor(counts.sum() / (np.count_nonzero(counts) * present), dtype=torch.float32, device=device)
    if imbalance == "logit_adjusted":  # arXiv 2007.07314
        log_prior = torch.tensor(np.log(present / present.sum()), dtype=torch.float32, device=device)
    return TrainingLoss(label_smoothing, weights, log_prior, FOCUS if imbalance == "focal" else 0.0)


def rdrop_loss(loss: TrainingLoss, logits: torch.Tensor, targets: torch.Tensor, rdrop: float) -> torch.Tensor:
    """R-Drop (arXiv 2106.14448): the mean loss of two draws of the net, plus what they disagree on.

    The disagreement is the mean of the two Kullback-Leibler divergences, in nats, times `rdrop`. This is half of the
    paper's sum, so `rdrop` is half of its alpha.

    Args:
        logits: of the images in one draw, then in another (2B, K).
        targets: of the images (B,) or (B, K).
    """
    first, second = logits.chunk(2)
    log_p, log_q = F.log_softmax(first, dim=1), F.log_softmax(second, dim=1)
    disagreement = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1).mean() / 2  # both divergences in one sum
    return (loss(first, targets) + loss(second, targets)) / 2 + rdrop * disagreement


def check_has_dropout(model: nn.Module, size: int) -> None:
    """See that the net draws at random in training, with a net that is still on the CPU.

    Some nets call dropout as a function and others hold layers with a probability of 0, so it is tried out.

    Raises:
        FoldcraftError: it does not; R-Drop would compare equal outputs.
    """
    trial = copy.deepcopy(model).train()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        trial(torch.zeros(2, 3, size, size))
        drawn = not torch.equal(before, torch.get_rng_state())
    if not drawn:
        raise FoldcraftError(
            "nothing in this net is drawn at random, so R-Drop would compare equals",
            "regularize.rdrop",
            "set backbone.drop or backbone.drop_path, or regularize.rdrop=0",
        )
