"""mixup and cutmix, by timm, made exact: the same draw for the same step, on any number of devices."""

from dataclasses import replace

import numpy as np
import torch
from timm.data import Mixup
from torch.nn import functional as F

from foldcraft.common.config import AugmentConfig
from foldcraft.common.fingerprint import seed_from
from foldcraft.models.inputs import Inputs


class Mix:
    """Mixes each image of a batch with its mirror place (first with last, and so on).

    Sources: mixup, arXiv 1710.09412; cutmix, arXiv 1905.04899.
    """

    def __init__(self, config: AugmentConfig, outputs: int, seed: int) -> None:
        self.seed, self.outputs = seed, outputs
        self.mixup = Mixup(config.mixup, config.cutmix, prob=config.mix_prob, num_classes=outputs)

    def __call__(self, images: torch.Tensor, targets: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix (B, C, H, W) in place; class indices (B,) or targets (B, W) become targets (B, W).

        What is not known of one image (NaN) is not known of the mix.
        """
        state = np.random.get_state()  # timm draws from numpy's global stream; it is left as it was found
        np.random.seed(seed_from(self.seed, "mix", step) % 2**32)
        try:
            # Not Mixup's own call, which refuses odd batches; the middle image of one is simply mixed with itself.
            share = self.mixup._mix_batch(images)
        finally:
            np.random.set_state(state)
        # class indices are of one label; all else comes as a matrix
        shares = targets if targets.ndim == 2 else F.one_hot(targets, self.outputs).float()
        return images, shares * share + shares.flip(0) * (1.0 - share)

    def with_weights(
        self, images: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same, and weights of images (B,) mixed in the same shares."""
        # class indices are of one label; all else comes as a matrix
        matrix = targets if targets.ndim == 2 else F.one_hot(targets, self.outputs).float()
        images, both = self(images, torch.cat([matrix, weights[:, None]], dim=1), step)
        return images, both[:, :-1], both[:, -1]

    def of_inputs(
        self, inputs: Inputs, targets: torch.Tensor, weights: torch.Tensor | None, step: int
    ) -> tuple[Inputs, torch.Tensor, torch.Tensor | None]:
        """The same of all that enters the net; metadata (B, d) are mixed in the shares of the targets."""
        if inputs.beside is None and weights is None:
            images, targets = self(inputs.images, targets, step)
            return replace(inputs, images=images), targets, None
        if inputs.beside is None:
            images, targets, weights = self.with_weights(inputs.images, targets, weights, step)
            return replace(inputs, images=images), targets, weights
        # class indices are of one label; all else comes as a matrix
        matrix = targets if targets.ndim == 2 else F.one_hot(targets, self.outputs).float()
        parts = [matrix, inputs.beside, *([] if weights is None else [weights[:, None]])]
        images, mixed = self(inputs.images, torch.cat(parts, dim=1), step)
        targets, beside, *more = mixed.split([part.shape[1] for part in parts], dim=1)
        return Inputs(images, beside), targets, more[0][:, 0] if more else None


def mix_of(config: AugmentConfig, outputs: int, seed: int) -> Mix | None:
    """The mixing that the config asks for, if any, for a net with so many outputs."""
    return Mix(config, outputs, seed) if config.mixup > 0 or config.cutmix > 0 else None
