"""What of a net is trained, and how fast each part of it."""

from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from foldcraft.config import FinetuneConfig, TrainConfig

# Layer-wise decay of the learning rate: deeper layers of a pretrained net hold more general features and change less.
# Transformers are customarily given more decay than CNNs (BEiT, arXiv 2106.08254; ConvNeXt, arXiv 2201.03545).
AUTO_LAYER_DECAY = {"transformer": 0.85, "cnn": 0.9}


def is_transformer(model: nn.Module) -> bool:
    """Does the net hold attention over tokens?"""
    return any("attention" in type(module).__name__.lower() for module in model.modules())


def layer_decay(config: FinetuneConfig, model: nn.Module, pretrained: bool) -> float:
    """Learning rate of a layer over that of the next layer towards the head."""
    if config.layer_decay != "auto":
        return config.layer_decay
    if not pretrained:
        return 1.0
    return AUTO_LAYER_DECAY["transformer" if is_transformer(model) else "cnn"]


def create_optimizer(model: nn.Module, finetune: FinetuneConfig, train: TrainConfig, pretrained: bool) -> Optimizer:
    """AdamW with layer decay; biases and norms are not decayed."""
    decay = layer_decay(finetune, model, pretrained)
    return create_optimizer_v2(
        model,
        opt="adamw",
        lr=train.lr,
        weight_decay=train.weight_decay,
        layer_decay=decay if decay < 1 else None,
    )


def train_mode(model: nn.Module, finetune: FinetuneConfig) -> None:
    """Training mode, with BatchNorm left in evaluation mode where its statistics are frozen."""
    model.train()
    if finetune.batchnorm == "frozen":
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
