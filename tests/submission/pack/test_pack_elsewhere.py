"""Packs that are moved to a machine with NumPy, pandas, Pillow and ONNX Runtime alone say what infer says here."""

from collections.abc import Callable
from pathlib import Path

import kinds_ground
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import CONFIG, Outcome, draw_shape
from pack_ground import Machine, bare, packed_elsewhere  # noqa: F401 (a fixture)

pytestmark = pytest.mark.slow
Command = Callable[..., Outcome]
PROBE = {"finetune": {"mode": "linear_probe"}}
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
        "probe": {"nets": ["test_vit"], "sizes": [16, 32], "augmented": 0},
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


def test_a_blend_with_a_soup_and_a_broken_image(
    shapes: Path,
    workplace: Path,
    command: Command,
    bare: Machine,  # noqa: F811
) -> None:
    """The soup's members are not of the blend; a broken image gets what infer gives it, and is counted."""
    seeds = [variant(shapes, f"seed{seed}", seed=seed) for seed in (1, 2)]
    probe = variant(shapes, "probe", **PROBE)
    trained(command, *seeds, probe)
    done = command("infer", "--soup", "--keep", "--config", *seeds)
    assert done.code == 0, done.err
    Path("input/shapes/test/050.png").write_bytes(b"no image")
    configs = [shapes.with_name("soup.yaml"), probe]
    for path in configs:
        settings = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**settings, "images": {**settings.get("images", {}), "on_error": "baseline"}}))
    words = ("--engine", "onnx", "--method", "weighted mean")
    found = packed_elsewhere(command, bare, workplace / "there", configs, *words, data=Path("input/shapes"))
    assert "warning: 1 test image cannot be read" in found.said
    assert "050.png, for one); 1 answer by the baseline" in found.said
    found.check()


def test_images_that_make_one_answer_and_metadata_beside_them(workplace: Path, command: Command, bare: Machine) -> None:  # noqa: F811
    """Each answer is of two photos; one more column says half of it."""
    folder = workplace / "input" / "pairs"
    each = [(f"{who:02d}", "cross" if who % 2 else "dot", who % 2 + who % 3) for who in range(30)]
    rows = [(who, f"{who}{view}", label, size) for who, label, size in each for view in "ab"]
    frame = pd.DataFrame(rows, columns=["who", "image", "label", "size"]).astype(str)
    for part, some in (("train", frame[:48]), ("test", frame[48:])):
        (folder / part).mkdir(parents=True)
        for place, row in some.iterrows():
            draw_shape(row["label"], int(place)).save(folder / part / f"{row['image']}.png")
    frame[:48].to_csv(folder / "train.csv", index=False)
    frame[48:].drop(columns="label").to_csv(folder / "test.csv", index=False)
    frame[48::2][["who"]].assign(label="dot").to_csv(folder / "sample_submission.csv", index=False)
    names = (
        "{name: pairs, metric: accuracy, id: image, target: label, group: who, answer: {by: who}, "
        'metadata: {numeric: [size]}, image: "train/{image}", test_image: "test/{image}"}'
    )
    config = workplace / "configs" / "pairs.yaml"
    config.parent.mkdir()
    config.write_text(CONFIG.replace("{name: shapes, metric: accuracy}", names))
    found = packed_elsewhere(
        command,
        bare,
        workplace / "there",
        trained(command, config),
        "--engine",
        "onnx",
        "--method",
        "best single",
        data=folder,
    )
    found.check()
