"""The files of a pack's models: weights as training wrote them, or exported graphs; in 32 bits or with half of that."""

import copy
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from foldcraft.common.errors import FoldcraftError
from foldcraft.models import checkpoint
from foldcraft.models.backbones import Blueprint
from foldcraft.models.inputs import channels_of
from foldcraft.submission.pack.packed import ONNX

SUFFIXES = {"torch": ".safetensors", ONNX: ".onnx"}
OPSET = 17  # what ONNX Runtime reads from 1.13 on
SMALL, LARGEST = 1024, 6e4  # a tensor of fewer numbers, or with a larger one, keeps its 32 bits
ASKED_FOR = "run `pip install -r requirements-pack.txt`, or use --engine torch"


def check_engine(engine: str) -> None:
    """See that nets can be packed for an engine.

    Raises:
        FoldcraftError: a package is missing.
    """
    for package in ("onnx", "onnxruntime") if engine == ONNX else ():
        if importlib.util.find_spec(package) is None:
            raise FoldcraftError(
                f"{package} is not installed, and no net is exported without it", "--engine onnx", ASKED_FOR
            )


def write(source: Path, target: Path, engine: str, size: int, half: bool) -> None:
    """Write the net of a fold's weights file for an engine.

    Args:
        size: side of its images in pixels.
        half: keep large tensors in 16 bits; nets compute in 32 all the same.

    Raises:
        FoldcraftError: the weights are damaged, or the net cannot be exported.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if engine == ONNX:
        net, blueprint, _ = checkpoint.load_model(source)
        _export(net, blueprint, target, size)
        if half:
            _halve_graph(target)
    elif half:
        _halve_weights(source, target)
    else:
        target.write_bytes(source.read_bytes())


def _halve_weights(source: Path, target: Path) -> None:
    import safetensors.torch

    _, blueprint, about = checkpoint.load_model(source)  # which looks at the checksum as well
    weights = safetensors.torch.load_file(source)
    kept = {name: value.half() if _is_large(value) else value for name, value in weights.items()}
    checkpoint.save_model(target, kept, blueprint, about)


def _is_large(value: torch.Tensor) -> bool:
    return value.dtype == torch.float32 and value.numel() >= SMALL and float(value.abs().max()) < LARGEST


def _export(net: nn.Module, blueprint: Blueprint, target: Path, size: int) -> None:
    """By torch's older exporter: it takes a second a net where the newer one takes half a minute and more."""
    made = copy.deepcopy(net).float().cpu().eval()
    images = torch.randn(2, channels_of(made), size, size)
    named = {"images": images}
    if blueprint.metadata:
        named["beside"] = torch.zeros(2, blueprint.metadata["width"])
    axes = {name: {0: "rows"} for name in (*named, "outputs")}
    try:
        with _plain_operators(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                made,
                tuple(named.values()),
                str(target),
                dynamo=False,
                input_names=list(named),
                output_names=["outputs"],
                dynamic_axes=axes,
                opset_version=OPSET,
            )
    except Exception as error:  # exporters raise errors of every kind
        reason = str(error).strip().partition("\n")[0][:120] or type(error).__name__
        raise FoldcraftError(f"{blueprint.arch} cannot be exported: {reason}", "--engine onnx", "use torch") from None


@contextmanager
def _plain_operators() -> Iterator[None]:
    """Resizing with antialiasing as two products with matrices, for ONNX has no operator that is like torch's."""
    resize, fused = F.interpolate, torch.backends.mha.get_fastpath_enabled()

    def interpolate(
        images: torch.Tensor, size: object = None, *args: object, antialias: bool = False, **more: object
    ) -> torch.Tensor:
        if not antialias or size is None:
            return resize(images, size, *args, antialias=antialias, **more)
        height, width = (size, size) if isinstance(size, int) else map(int, size)
        mode = str(more.get("mode", args[1] if len(args) > 1 else "bilinear"))
        down, across = (
            _matrix(int(before), after, mode) for before, after in zip(images.shape[-2:], (height, width), strict=True)
        )
        return down.to(images) @ images @ across.T.to(images)

    def _matrix(before: int, after: int, mode: str) -> torch.Tensor:
        """What each old pixel counts in each new one (after, before), as torch itself has it."""
        return resize(torch.eye(before)[None, None], (after, before), mode=mode, antialias=True)[0, 0].detach()

    F.interpolate = interpolate
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        F.interpolate = resize
        torch.backends.mha.set_fastpath_enabled(fused)


def _halve_graph(path: Path) -> None:
    """Keep a graph's large constants in 16 bits, each with a cast to 32 behind it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    casts, kept = [], []
    for constant in model.graph.initializer:
        values = numpy_helper.to_array(constant)
        if values.dtype != np.float32 or values.size < SMALL or np.abs(values).max() >= LARGEST:
            kept.append(constant)
            continue
        kept.append(numpy_helper.from_array(values.astype(np.float16), f"{constant.name}_half"))
        casts.append(helper.make_node("Cast", [f"{constant.name}_half"], [constant.name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)
    onnx.save(model, str(path))
