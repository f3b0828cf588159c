"""From the amount of data to the numbers of a training; pure, no torch."""

import math
from dataclasses import dataclass

from foldcraft.common.config import AugmentConfig, OptimConfig, TrainConfig

FEWEST_EPOCHS, MOST_EPOCHS = 3, 20
FULL_STEPS = 285  # of a fine-tuning on a few thousand images or fewer


@dataclass(frozen=True)
class Plan:
    """The numbers of one training.

    Attributes:
        batch: images a step.
        steps_per_epoch, steps, warmup_steps: optimizer steps.
        ema_decay: decay a step of the weights' moving average.
        last_mixed_epoch: epochs from this one on are trained without mixup and cutmix.
        first_averaged_epoch: the weights after this epoch and each later one are averaged (SWA); `epochs` where
            nothing is.
        lr_steps: the learning rate follows its cosine for so many steps and stays where it is then, as SWA wants it.
    """

    epochs: int
    batch: int
    steps_per_epoch: int
    steps: int
    warmup_steps: int
    ema_decay: float
    last_mixed_epoch: int
    first_averaged_epoch: int
    lr_steps: int


def plan(rows: int, train: TrainConfig, optim: OptimConfig, augment: AugmentConfig) -> Plan:
    """The plan for `rows` training images.

    The average of the weights has a window of one epoch: long enough to smooth, short enough to follow (EMA of
    weights, arXiv 2411.18704). Mixing stops before the end so that the net settles on real images.
    """
    batch = min(train.batch, rows)
    steps_per_epoch = rows // batch
    epochs = epochs_for(rows, steps_per_epoch) if train.epochs == "auto" else train.epochs
    steps = steps_per_epoch * epochs
    warmup_steps = min(round(optim.warmup * steps), steps - 1)
    decay = optim.ema_decay if optim.ema_decay is not None else 1 - 1 / max(2, steps_per_epoch)
    averaged = min(epochs, max(2, round(epochs * optim.swa))) if optim.swa else 0  # one alone would be no average
    return Plan(
        epochs=epochs,
        batch=batch,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        warmup_steps=warmup_steps,
        ema_decay=decay,
        last_mixed_epoch=round(epochs * (1 - augment.mix_off)),
        first_averaged_epoch=epochs - averaged,
        lr_steps=max(warmup_steps, (epochs - averaged) * steps_per_epoch),
    )


def epochs_for(rows: int, steps_per_epoch: int) -> int:
    """As many epochs as make the steps that `rows` images need, but 3 at least and 20 at most."""
    return min(MOST_EPOCHS, max(FEWEST_EPOCHS, math.ceil(steps_for(rows) / steps_per_epoch)))


def steps_for(rows: int) -> int:
    """Optimizer steps that fine-tuning on `rows` images needs, by BiT-HyperRule (arXiv 1912.11370).

    The rule was made with batches of 512. With smaller ones it is a floor against too few steps on small data rather
    than a claim about the best number.
    """
    if rows < 20_000:
        return 500
    return 10_000 if rows < 500_000 else 20_000


def full_epochs(rows: int, batch: int) -> int:
    """Epochs of a fine-tuning of the whole net: enough for `FULL_STEPS`, 2 at the least.

    Half as many steps were too few on whole competitions, and on a tenth of one, however many epochs they were; with
    half of the data more gained nothing that could be seen (docs/experiments.md).
    """
    return max(2, math.ceil(FULL_STEPS / max(1, rows // batch)))
