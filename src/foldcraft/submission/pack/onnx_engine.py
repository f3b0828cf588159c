"""The models of a pack by ONNX Runtime: no torch, no timm."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from foldcraft.common.errors import FoldcraftError
from foldcraft.data.images.inference_size import resize_for_inference
from foldcraft.data.targets.target import Target
from foldcraft.submission.pack.looks import look
from foldcraft.submission.pack.packed import PackedModel, Question

BATCH = 64
PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


class OnnxEngine:
    """Exported nets.

    Args:
        device: "auto", "cpu" or "cuda".

    Raises:
        FoldcraftError: the device is not there.
    """

    def __init__(self, folder: Path, target: Target, device: str) -> None:
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)  # warnings of graphs that were made elsewhere help nobody
        there = set(onnxruntime.get_available_providers())
        chosen = "cuda" if device == "auto" and PROVIDERS["cuda"] in there else "cpu" if device == "auto" else device
        if PROVIDERS[chosen] not in there:
            raise FoldcraftError(f"ONNX Runtime has no {PROVIDERS[chosen]}", "--device", "install onnxruntime-gpu")
        self.runtime, self.providers = onnxruntime, list(dict.fromkeys([PROVIDERS[chosen], PROVIDERS["cpu"]]))
        self.folder, self.target = folder, target
        self.sessions: dict[str, onnxruntime.InferenceSession] = {}

    def __str__(self) -> str:
        return f"ONNX Runtime {self.runtime.__version__}, {self.providers[0]}"

    def predict(self, asked: Question) -> list[np.ndarray]:
        """As `Engine.predict`."""
        firsts = range(0, len(asked.pixels), BATCH)
        parts = [self._batch(asked.of(slice(first, first + BATCH))) for first in firsts]
        return [np.concatenate([part[k] for part in parts], axis=1) for k in range(len(asked.models))]

    def _batch(self, asked: Question) -> list[np.ndarray]:
        member = asked.member
        floats = np.stack([resize_for_inference(one, member.config.images) for one in asked.pixels])
        floats = floats.transpose(0, 3, 1, 2).astype(np.float32)
        prepared: dict[tuple, np.ndarray] = {}
        seen: dict[tuple, np.ndarray] = {}
        found: list[list[np.ndarray]] = [[] for _ in asked.models]
        for k, (model, own) in enumerate(zip(asked.models, asked.beside, strict=True)):
            how = (model.mean, model.std)
            if how not in prepared:
                prepared[how] = _normalised(floats, *how)
            for view in member.views:
                if (how, view) not in seen:
                    seen[how, view] = look(prepared[how], view)
                said = self.target.of_array(self._outputs(model, seen[how, view], own))
                found[k].append(member.swaps.restored(view, said).astype(np.float32))
        return [np.stack(views) for views in found]

    def _outputs(self, model: PackedModel, images: np.ndarray, beside: np.ndarray | None) -> np.ndarray:
        if model.file not in self.sessions:
            path = str(self.folder / model.file)
            self.sessions[model.file] = self.runtime.InferenceSession(path, providers=self.providers)
        asked = {"images": images} if beside is None else {"images": images, "beside": beside}
        return self.sessions[model.file].run(None, asked)[0]


def _normalised(floats: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Pixels float32 (B, C, S, S), 0 to 255, as a net wants them."""
    centre, spread = (np.array(values, np.float32).reshape(1, -1, 1, 1) * 255 for values in (mean, std))
    return (floats - centre) / spread
