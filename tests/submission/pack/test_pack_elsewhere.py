"""Packs that are moved to a machine with NumPy, pandas, Pillow and ONNX Runtime alone say there what infer says here."""

from collections.abc import Callable
from pathlib import Path

import kinds_ground
import numpy as np
import pytest
import yaml
from conftest import CONFIG, Outcome
from pack_ground import Machine, bare, packed_elsewhere  # noqa: F401 (a fixture)

pytestmark = pytest.mark.slow
Command = Callable[..., Outcome]
PROBE = {"finetune": {"mode": "linear_probe"}, "train": {"epochs": 0}}
HAS_NO_PLACE_THERE = ("torch", "timm", "scipy", "sklearn", "pydantic", "omegaconf", "pyarrow", "filelock", "cv2")


def trained(command: Command, *configs: Path) -> list[Path]:
    for config in configs:
        done = command("train", "--config", config, "--fold", "all")
        assert done.code == 0, done.err
    return list(configs)


def variant(path: Path, name: str, **settings: object) -> Path:
    """Another experiment beside a config."""
    made = path.with_name(f"{name}.yaml")
    made.write_text(yaml.safe_dump({"extends": path.name, "experiment": name, **settings}))
    return made


@pytest.mark.parametrize("shape", kinds_ground.TARGETS)
def test_every_kind_of_target(workplace: Path, command: Command, bare: Machine, shape: str) -> None:  # noqa: F811
    kinds_ground.write(Path("input/kinds"))
    config = kinds_ground.config(shape, tta={"views": ["identity", "hflip", "scale1.2", "rot90+scale0.8"]})
    found = packed_elsewhere(
        command, bare, workplace / "there", trained(command, config), "--engine", "onnx", data=Path("input/kinds")
    )
    found.check()
    assert not [name for name in HAS_NO_PLACE_THERE if f"'{name}'" in found.modules]


NETS = {
    "vit": {"backbone": {"name": "test_vit", "args": {"img_size": 32}}, "images": {"size": 32}},
    "cnn": {"backbone": {"name": "test_efficientnet"}, "images": {"size": 32, "resize": "pad", "cache_size": 40}},
    "lora": {
        "backbone": {"name": "test_vit", "args": {"img_size": 32}},
        "images": {"size": 32},
        "finetune": {"mode": "lora", "lora_rank": 2},
    },
    "probe": {
        **PROBE,
        "images": {"size": 32},
        "probe": {"nets": ["test_resnet", "test_vit"], "sizes": [32, 48], "augmented": 0},
    },
}


@pytest.mark.parametrize("net", NETS)
def test_every_kind_of_net(shapes: Path, workplace: Path, command: Command, bare: Machine, net: str) -> None:  # noqa: F811
    config = variant(shapes, net, **NETS[net])
    found = packed_elsewhere(
        command, bare, workplace / "there", trained(command, config), "--engine", "onnx", data=Path("input/shapes")
    )
    found.check()
    assert not np.allclose(found.numbers, found.numbers[0]), "rows are told apart"
