"""Training states and finished weights on disk; a file from a stranger cannot run code."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import timm
import torch
from torch import nn

from foldcraft.common import checksums
from foldcraft.common.errors import FoldcraftError, said_by
from foldcraft.common.files import check_readable, parse_json, read_bytes, write_atomic
from foldcraft.models.backbones import Blueprint, rebuild
from foldcraft.models.metadata_head import attach
from foldcraft.models.stage_features import FeaturePool, ProbeNet, parts_of

TRAIN_AGAIN = "copy it again, or delete the fold's folder and train it again"
Said = TypeVar("Said")


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state (tensors and plain values), whole or not at all."""
    stream = io.BytesIO()
    torch.save(state, stream)
    write_atomic(path, checksums.seal(stream.getvalue()))


def load_state(path: Path) -> dict[str, Any]:
    """Read a training state.

    Raises:
        FoldcraftError: the file is damaged, holds anything but tensors and plain values, or cannot be read.
    """
    try:
        data = bytes(checksums.unseal(read_bytes(path)))
        _check_not_packed(data)
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"a {type(state).__name__} where a training state should be")
        return state
    except Exception as error:  # the reader of a damaged file raises errors of every kind
        raise FoldcraftError(
            f"damaged checkpoint: {_reason(error)}", path, "delete it to train the fold anew"
        ) from None


def _check_not_packed(data: bytes) -> None:
    """A training state is stored as it is; one that unpacks to more than its size is not ours, and may fill memory."""
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > len(data):
                raise ValueError("it is compressed")


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):  # torch's own words advise to run whatever is in the file
        return "it holds more than tensors and plain values, or less than whole ones"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def save_model(path: Path, weights: dict[str, torch.Tensor], blueprint: Blueprint, about: dict[str, Any]) -> None:
    """Write weights with their blueprint and a checksum, so that the file alone is enough to use the net."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    # One key only: safetensors writes several in random order, and equal weights must give equal files.
    said = {"blueprint": blueprint.to_json(), "about": about}
    metadata = {"foldcraft": json.dumps({**said, checksums.KEY: _checksum(tensors, said)})}
    write_atomic(path, safetensors.torch.save(tensors, metadata))


def _checksum(tensors: dict[str, torch.Tensor], said: dict[str, Any]) -> str:
    arrays = [
        (name, f"{value.dtype} {tuple(value.shape)}", value.reshape(-1).view(torch.uint8).numpy().data)
        for name, value in tensors.items()
    ]
    return checksums.of_arrays(arrays, said)


def load_model(path: Path) -> tuple[nn.Module, Blueprint, dict[str, Any]]:
    """A net in evaluation mode, its blueprint and what was said about it. Never asks the hub.

    Raises:
        FoldcraftError: the file is missing or damaged, or cannot be read; the installed torch and timm cannot build it.
    """
    try:
        check_readable(path)
        with safetensors.safe_open(path, "pt") as file:
            metadata = parse_json(file.metadata()["foldcraft"])
            about = dict(metadata["about"])
        weights = safetensors.torch.load_file(path)
        checksums.check(metadata.pop(checksums.KEY, None), _checksum(weights, metadata))
        blueprint = Blueprint.from_json(metadata["blueprint"])
    except FoldcraftError:
        raise
    except FileNotFoundError:
        raise FoldcraftError("is missing", path, TRAIN_AGAIN) from None
    except Exception as error:  # what a stranger wrote raises errors of every kind
        raise FoldcraftError(f"damaged weights: {_reason(error)}", path, TRAIN_AGAIN) from None
    model = _built(path, blueprint, weights)
    return model.folded() if isinstance(model, ProbeNet) else model.eval(), blueprint, about


def read_about(path: Path) -> dict[str, Any]:
    """What a file of weights says about itself, without reading the weights.

    Raises:
        FoldcraftError: the file is missing or damaged, or cannot be read.
    """
    return _read_said(path, lambda said: dict(said["about"]))


def read_blueprint(path: Path) -> Blueprint:
    """Of which net a file holds the weights, without reading them.

    Raises:
        FoldcraftError: as `read_about`.
    """
    return _read_said(path, lambda said: Blueprint.from_json(said["blueprint"]))


def _read_said(path: Path, take: Callable[[dict[str, Any]], Said]) -> Said:
    """A part of what stands beside the weights."""
    try:
        check_readable(path)
        with safetensors.safe_open(path, "pt") as file:
            return take(parse_json(file.metadata()["foldcraft"]))
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise FoldcraftError(f"damaged weights: {said_by(error)}", path, TRAIN_AGAIN) from None


def _built(path: Path, blueprint: Blueprint, weights: dict[str, torch.Tensor]) -> nn.Module:
    """The net of a file that is as it was written; other releases of the libraries may not know it."""
    try:
        model = _net(blueprint)
        model.load_state_dict(weights)
    except Exception as error:  # as above: the blueprint may be a stranger's
        what = f"torch {torch.__version__} and timm {timm.__version__} cannot build this net: {_reason(error)}"
        hint = "use the releases that trained it, or pack it with --engine onnx"
        raise FoldcraftError(what, path, hint) from None
    return model


def _net(blueprint: Blueprint) -> nn.Module:
    net, beside = rebuild(blueprint), blueprint.metadata
    if not blueprint.stages:
        return attach(net, beside["width"], blueprint.args["num_classes"], beside["drop"]) if beside else net
    if not blueprint.sizes:
        raise ValueError("a probe on features of version 0.1, which are no longer made")
    blueprints = [blueprint, *blueprint.others]
    nets = [net, *map(rebuild, blueprint.others)]
    pool = FeaturePool(nets, parts_of(blueprints, blueprint.sizes, blueprint.mirror))
    return ProbeNet(pool, blueprint.stages, blueprint.args["num_classes"], beside["width"] if beside else 0)
