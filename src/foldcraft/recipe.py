"""From the amount of data to the numbers of a training; pure, no torch."""

from dataclasses import dataclass

from foldcraft.config import AugmentConfig, TrainConfig


@dataclass(frozen=True)
class Plan:
    """The numbers of one training.

    Attributes:
        batch: images a step.
        steps_per_epoch, steps, warmup_steps: optimizer steps.
        ema_decay: decay a step of the weights' moving average.
        last_mixed_epoch: epochs from this one on are trained without mixup and cutmix.
    """

    epochs: int
    batch: int
    steps_per_epoch: int
    steps: int
    warmup_steps: int
    ema_decay: float
    last_mixed_epoch: int


def plan(rows: int, train: TrainConfig, augment: AugmentConfig) -> Plan:
    """The plan for `rows` training images.

    The average of the weights has a window of one epoch: long enough to smooth, short enough to follow (EMA of
    weights, arXiv 2411.18704). Mixing stops before the end so that the net settles on real images.
    """
    batch = min(train.batch, rows)
    steps_per_epoch = rows // batch
    steps = steps_per_epoch * train.epochs
    decay = train.ema_decay if train.ema_decay is not None else 1 - 1 / max(2, steps_per_epoch)
    return Plan(
        epochs=train.epochs,
        batch=batch,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        warmup_steps=min(round(train.warmup * steps), steps - 1),
        ema_decay=decay,
        last_mixed_epoch=round(train.epochs * (1 - augment.mix_off)),
    )
