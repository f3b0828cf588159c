"""The models of a pack by torch and timm: safetensors, as training wrote them."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from foldcraft.data.images.image_cache import ImageStore
from foldcraft.data.plain_images import PlainImages
from foldcraft.data.targets.target import Target
from foldcraft.models import checkpoint
from foldcraft.models.hardware import Hardware, this_machine
from foldcraft.models.preprocessing import Preparation, predictions
from foldcraft.predictions.inference import InferenceModel, predict
from foldcraft.submission.pack.packed import PackedModel, Question


class TorchEngine:
    """Models in 32 bits, on the device.

    Args:
        device: "auto", "cpu" or "cuda".
    """

    def __init__(self, folder: Path, target: Target, device: str) -> None:
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.folder, self.target = folder, target
        self.hardware = Hardware(chosen, "32-true", "contiguous", this_machine())
        self.nets: dict[str, torch.nn.Module] = {}

    def __str__(self) -> str:
        return f"torch {torch.__version__}, {self.hardware.device}"

    def predict(self, asked: Question) -> list[np.ndarray]:
        """As `Engine.predict`."""
        member = asked.member
        images = PlainImages(ImageStore(asked.pixels, Path(member.name)), member.config.images)
        output = partial(predictions, of_outputs=self.target.predictions)
        models = [
            InferenceModel(
                self._net(model),
                Preparation(model.mean, model.std, self.hardware.device, self.hardware.memory_format),
                self.hardware,
                images,
                member.views,
                output,
                member.swaps,
                own,
            )
            for model, own in zip(asked.models, asked.beside, strict=True)
        ]
        return predict(models, np.arange(len(asked.pixels)))

    def _net(self, model: PackedModel) -> torch.nn.Module:
        if model.file not in self.nets:
            self.nets[model.file] = self.hardware.place(checkpoint.load_model(self.folder / model.file)[0])
        return self.nets[model.file]
