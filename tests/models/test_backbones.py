"""Nets: from either library, with new heads, from local weights, on disk and back, and how fast their parts learn."""

import json
import math
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision.models as tv
from conftest import real_weights
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from foldcraft.common import fingerprint
from foldcraft.common.config import BackboneConfig, FinetuneConfig, OptimConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.models import backbones, checkpoint, finetune
from foldcraft.models.backbones import Blueprint

RANDOM = [
    ("timm", "test_resnet", 64),
    ("timm", "mobilenetv2_035", 64),
    ("timm", "vit_tiny_patch16_224", 64),
    ("torchvision", "resnet18", 64),
    ("torchvision", "mobilenet_v3_small", 64),
]
UNUSUAL = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "crop_pct": 0.7}


def config(name: str, source: str = "timm", weights: str = "none", **more: Any) -> BackboneConfig:
    return BackboneConfig(name=name, source=source, weights=weights, **more)


def images(count: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def put_timm(folder: Path) -> dict[str, torch.Tensor]:
    """A pretrained test_resnet of ten classes in `folder`, laid out as on the hub; its weights."""
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", pretrained=False, num_classes=10)
    state = {name: value + 0.01 for name, value in model.state_dict().items() if value.is_floating_point()}
    cfg = {**model.pretrained_cfg, **UNUSUAL, "num_classes": 10, "tag": "mine"}
    described = {"architecture": "test_resnet", "num_classes": 10, "pretrained_cfg": cfg}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(described))
    counters = {name: value for name, value in model.state_dict().items() if not value.is_floating_point()}
    save_file({**state, **counters}, folder / "model.safetensors")
    return state


def put_torchvision(folder: Path, suffix: str) -> dict[str, torch.Tensor]:
    """A pretrained resnet18 of a thousand classes in `folder`; its weights."""
    torch.manual_seed(1)
    state = tv.resnet18(weights=None).state_dict()
    folder.mkdir(parents=True)
    if suffix == ".pth":
        torch.save(state, folder / "resnet18-mine.pth")
    else:
        save_file(state, folder / "model.safetensors")
    return state


class Bomb:
    """Whoever unpickles it, makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(("source", "name", "size"), RANDOM)
def test_a_net_gives_one_logit_a_class_and_can_be_made_again(source: str, name: str, size: int) -> None:
    model, blueprint = backbones.build(config(name, source), 5, size)
    assert model.eval()(images(size=size)).shape == (2, 5)
    backbones.check_forward(model, 5, size)
    assert blueprint.weights == "none"
    assert Blueprint.from_json(blueprint.to_json()) == blueprint
    again = backbones.rebuild(Blueprint.from_json(blueprint.to_json()))
    assert {n: v.shape for n, v in again.state_dict().items()} == {n: v.shape for n, v in model.state_dict().items()}
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(images(size=size)), model(images(size=size)))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("timm", "mobilenetv2_035"),
        ("timm", "resnet10t"),
        ("timm", "vit_tiny_patch16_224"),
        ("timm", "test_convnext"),
        ("torchvision", "mobilenet_v3_small"),
    ],
)
def test_the_first_loss_is_that_of_guessing(source: str, name: str) -> None:
    torch.manual_seed(0)
    model, _ = backbones.build(config(name, source), 6, 64)
    with torch.no_grad():
        loss = F.cross_entropy(model.train()(images(12)), torch.arange(12) % 6).item()
    assert loss == pytest.approx(math.log(6), rel=0.05)


def test_arguments_reach_the_net_and_its_blueprint() -> None:
    more = {"drop": 0.3, "drop_path": 0.2, "args": {"global_pool": "max"}}
    model, blueprint = backbones.build(config("test_convnext", **more), 3, 64)
    for net in (model, backbones.rebuild(blueprint)):
        assert net.head.drop.p == 0.3
        assert net.head.global_pool.pool_type == "max"
        assert any(getattr(module, "drop_prob", 0) for module in net.modules())


def test_patches_are_left_out_in_training_only() -> None:
    model, blueprint = backbones.build(config("test_vit", patch_drop=0.25), 3, 64)
    for net in (model, backbones.rebuild(blueprint)):
        seen: list[int] = []
        net.blocks[0].register_forward_pre_hook(lambda _, tokens, seen=seen: seen.append(tokens[0].shape[1]))
        net.train()(images(2))
        net.eval()(images(2))
        assert seen == [1 + 12, 1 + 16], "the class token, and 3/4 or all of 4 x 4 patches"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (config("test_resnet", patch_drop=0.2), "test_resnet: .*patch_drop"),
        (config("vit_b_16", "torchvision", patch_drop=0.2), r"backbone\.patch_drop"),
        (config("test_resnot"), "did you mean 'test_resnet'"),
        (config("resnet81", "torchvision"), "did you mean 'resnet"),
        (config("resnet18", "torchvision", drop_path=0.1), r"backbone\.drop_path"),
        (config("resnet18", "torchvision", args={"depth": 3}), "resnet18: .*depth"),
        (config("test_resnet", args={"depth": 3}), "test_resnet: .*depth"),
    ],
)
def test_what_a_library_does_not_have_is_refused(wrong: BackboneConfig, said: str) -> None:
    with pytest.raises(FoldcraftError, match=said):
        backbones.build(wrong, 3, 64)


def test_an_input_that_the_net_does_not_take_is_refused() -> None:
    model, _ = backbones.build(config("test_vit"), 3, 64)
    with pytest.raises(FoldcraftError, match=r"images\.size: the net does not take 72 px"):
        backbones.check_forward(model, 3, 72)
    with pytest.raises(FoldcraftError, match=r"backbone\.name.*one logit a class"):
        backbones.check_forward(model, 4, 64)


@pytest.mark.parametrize("classes", [3, 10])
def test_local_weights_bring_their_own_preprocessing_and_lose_only_their_head(alone: Path, classes: int) -> None:
    pretrained = put_timm(alone / "mine")  # a name that no library knows
    model, blueprint = backbones.build(config("mine", weights="pretrained"), classes, 64)
    assert blueprint.arch == "test_resnet"
    assert blueprint.weights == fingerprint.of_file(alone / "mine" / "model.safetensors")
    assert (blueprint.mean, blueprint.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (blueprint.interpolation, blueprint.crop_pct) == ("bilinear", 0.7)
    loaded = model.state_dict()
    changed = {
        name
        for name, value in pretrained.items()
        if loaded[name].shape != value.shape or not torch.equal(loaded[name], value)
    }
    assert changed == {"fc.weight", "fc.bias"}
    assert loaded["fc.weight"].shape[0] == classes
    backbones.rebuild(blueprint).load_state_dict(loaded)


def test_a_weights_folder_without_safetensors_loads_too(alone: Path) -> None:
    """Some folders of the hub hold a state dict of torch instead."""
    pretrained = put_timm(alone / "mine")
    (alone / "mine" / "model.safetensors").unlink()
    torch.save(pretrained, alone / "mine" / "pytorch_model.bin")
    model, blueprint = backbones.build(config("mine", weights="pretrained"), 3, 64)
    assert torch.equal(model.state_dict()["conv1.0.weight"], pretrained["conv1.0.weight"])
    assert blueprint.weights == fingerprint.of_file(alone / "mine" / "pytorch_model.bin")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_torchvisions_weights_come_through_the_same_door(alone: Path, suffix: str) -> None:
    pretrained = put_torchvision(alone / "resnet18", suffix)
    model, blueprint = backbones.build(config("resnet18", "torchvision", "pretrained"), 3, 64)
    (file,) = (alone / "resnet18").iterdir()
    assert blueprint.weights == fingerprint.of_file(file)
    assert blueprint.mean == (0.485, 0.456, 0.406)
    assert blueprint.crop_pct == pytest.approx(224 / 256)
    loaded = model.state_dict()
    changed = {name for name in pretrained if not torch.equal(loaded[name], pretrained[name])}
    assert changed == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(("source", "name"), [("timm", "test_resnet"), ("torchvision", "resnet18")])
def test_weights_that_are_nowhere_are_never_made_up(alone: Path, source: str, name: str) -> None:
    said = rf"{name}: pretrained weights are neither there nor on the hub.*{alone / name}.*backbone\.weights=none"
    with pytest.raises(FoldcraftError, match=said):
        backbones.build(config(name, source, "pretrained"), 3, 64)


@pytest.mark.parametrize(
    "file", ["test_resnet/model.safetensors", "resnet18/model.safetensors", "resnet18/resnet18-mine.pth"]
)
@pytest.mark.parametrize("damage", ["cut", "emptied", "a tensor lost", "a tensor of another shape"])
def test_damaged_weights_are_refused(alone: Path, file: str, damage: str) -> None:
    path, name = alone / file, Path(file).parts[0]
    state = put_timm(path.parent) if name == "test_resnet" else put_torchvision(path.parent, path.suffix)
    if damage in ("cut", "emptied"):
        path.write_bytes(path.read_bytes()[:-1000] if damage == "cut" else b"")
    else:
        lost = state.pop("layer2.0.conv1.weight")
        if damage != "a tensor lost":
            state["layer2.0.conv1.weight"] = lost[:, :-1].contiguous()
        torch.save(state, path) if path.suffix == ".pth" else save_file(state, path)
    source = "timm" if name == "test_resnet" else "torchvision"
    with pytest.raises(FoldcraftError, match=name):
        backbones.build(config(name, source, "pretrained"), 3, 64)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["torch", "pickle"])
@pytest.mark.parametrize("file", ["resnet18/resnet18.pth", "test_resnet/pytorch_model.bin"])
def test_weights_that_hold_code_are_refused(alone: Path, tmp_path: Path, file: str, how: str) -> None:
    path, name = alone / file, Path(file).parts[0]
    if name == "test_resnet":
        put_timm(path.parent)
        (path.parent / "model.safetensors").unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    bomb = {"fc.weight": Bomb(tmp_path / "exploded")}
    torch.save(bomb, path) if how == "torch" else path.write_bytes(pickle.dumps(bomb))
    source = "timm" if name == "test_resnet" else "torchvision"
    with pytest.raises(FoldcraftError, match=name):
        backbones.build(config(name, source, "pretrained"), 3, 64)
    assert not (tmp_path / "exploded").exists()


def test_a_model_file_alone_is_enough(alone: Path, tmp_path: Path) -> None:
    put_timm(alone / "mine")
    put_torchvision(alone / "resnet18", ".safetensors")
    for number, some in enumerate((config("mine", weights="pretrained"), config("resnet18", "torchvision"))):
        model, blueprint = backbones.build(some, 4, 64)
        path = tmp_path / f"fold{number}" / "model.safetensors"
        checkpoint.save_model(path, model.state_dict(), blueprint, {"fold": number, "experiment": "é"})
    shutil.rmtree(alone)
    for number in (0, 1):
        path = tmp_path / f"fold{number}" / "model.safetensors"
        model, blueprint, about = checkpoint.load_model(path)
        assert about == {"fold": number, "experiment": "é"}
        assert not model.training
        assert model(images()).shape == (2, 4)
        saved = load_file(path)
        assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    assert blueprint.arch == "resnet18"


def test_a_net_that_the_installed_timm_does_not_know_is_not_called_damaged(tmp_path: Path) -> None:
    model, blueprint = backbones.build(config("test_resnet"), 3, 64)
    path = tmp_path / "model.safetensors"
    checkpoint.save_model(path, model.state_dict(), replace(blueprint, arch="resnet_of_tomorrow"), {})
    with pytest.raises(FoldcraftError, match=rf"timm {timm.__version__} cannot build .*'resnet_of_tomorrow'") as said:
        checkpoint.load_model(path)
    assert "--engine onnx" in str(said.value)


def test_damaged_model_files_and_states_are_refused(tmp_path: Path) -> None:
    model, blueprint = backbones.build(config("test_resnet"), 3, 64)
    path, state = tmp_path / "model.safetensors", tmp_path / "last.ckpt"
    checkpoint.save_model(path, model.state_dict(), blueprint, {})
    whole = path.read_bytes()
    save_file(model.state_dict(), tmp_path / "stranger.safetensors")
    torch.save({"epoch": Bomb(tmp_path / "exploded")}, tmp_path / "bomb.ckpt")
    checkpoint.save_state(state, {"epoch": 3, "model": model.state_dict(), "best": None})
    assert checkpoint.load_state(state)["epoch"] == 3
    state.write_bytes(state.read_bytes()[:-500])
    for content in (whole[:-500], whole[:100], b""):
        path.write_bytes(content)
        with pytest.raises(FoldcraftError, match=r"model\.safetensors: damaged weights"):
            checkpoint.load_model(path)
    for other in (tmp_path / "stranger.safetensors", tmp_path / "missing.safetensors"):
        with pytest.raises(FoldcraftError, match=other.name):
            checkpoint.load_model(other)
    for broken in (state, tmp_path / "bomb.ckpt", tmp_path / "missing.ckpt"):
        with pytest.raises(FoldcraftError, match=f"{broken.name}: damaged checkpoint"):
            checkpoint.load_state(broken)
    assert not (tmp_path / "exploded").exists()


def scales(model: nn.Module, decay: float | str, pretrained: bool = True) -> dict[str, float]:
    """How fast each parameter learns, over the learning rate of the config."""
    settings = FinetuneConfig(layer_decay=decay)
    optimizer = finetune.create_optimizer(model, settings, OptimConfig(lr=0.1), pretrained)
    number_of = {id(value): name for name, value in model.named_parameters()}
    return {
        number_of[id(value)]: group["lr"] / 0.1 * group.get("lr_scale", 1)
        for group in optimizer.param_groups
        for value in group["params"]
    }


@pytest.mark.parametrize(
    ("source", "name", "stem", "middle", "head"),
    [
        ("timm", "mobilenetv2_035", "conv_stem.weight", "blocks.3.0.conv_pw.weight", "classifier.weight"),
        ("timm", "vit_tiny_patch16_224", "patch_embed.proj.weight", "blocks.6.attn.qkv.weight", "head.weight"),
        ("timm", "test_convnext", "stem.0.weight", "stages.2.blocks.0.conv_dw.weight", "head.fc.weight"),
        ("torchvision", "resnet18", "conv1.weight", "layer3.0.conv1.weight", "fc.weight"),
        (
            "torchvision",
            "mobilenet_v3_small",
            "features.0.0.weight",
            "features.6.block.0.0.weight",
            "classifier.3.bias",
        ),
    ],
)
def test_earlier_layers_learn_more_slowly(source: str, name: str, stem: str, middle: str, head: str) -> None:
    model, _ = backbones.build(config(name, source), 3, 64)
    some = scales(model, 0.8)
    assert set(some) == {parameter for parameter, _ in model.named_parameters()}
    assert 0 < some[stem] < some[middle] < some[head] == 1
    assert max(some.values()) == 1
    steps = [math.log(value, 0.8) for value in set(some.values())]
    assert np.allclose(steps, np.round(steps), atol=1e-4)
    assert set(scales(model, 1.0).values()) == {1.0}


def test_auto_decay_depends_on_the_net_and_on_what_it_has_learned() -> None:
    auto = FinetuneConfig()
    for name, source, transformer in (
        ("test_vit", "timm", True),
        ("test_resnet", "timm", False),
        ("resnet18", "torchvision", False),
    ):
        model, _ = backbones.build(config(name, source), 3, 64)
        assert finetune.is_transformer(model) is transformer
        assert finetune.layer_decay(auto, model, pretrained=True) == (0.85 if transformer else 0.9)
        assert finetune.layer_decay(auto, model, pretrained=False) == 1
        assert finetune.layer_decay(FinetuneConfig(layer_decay=0.5), model, pretrained=False) == 0.5
        assert min(scales(model, "auto", pretrained=True).values()) < 1
        assert set(scales(model, "auto", pretrained=False).values()) == {1.0}


@pytest.mark.parametrize("pretrained", [True, False])
def test_norms_and_biases_do_not_decay(pretrained: bool) -> None:
    model, _ = backbones.build(config("test_resnet"), 3, 64)
    optimizer = finetune.create_optimizer(model, FinetuneConfig(), OptimConfig(weight_decay=0.03), pretrained)
    for group in optimizer.param_groups:
        assert {0.03 if value.ndim > 1 else 0 for value in group["params"]} == {group["weight_decay"]}


@pytest.mark.parametrize(("source", "name"), [("timm", "mobilenetv2_035"), ("torchvision", "resnet18")])
@pytest.mark.parametrize("batchnorm", ["frozen", "train"])
def test_frozen_statistics_stay_while_weights_learn(source: str, name: str, batchnorm: str) -> None:
    model, _ = backbones.build(config(name, source), 3, 64)
    settings = FinetuneConfig(batchnorm=batchnorm)
    optimizer = finetune.create_optimizer(model, settings, OptimConfig(lr=0.01), pretrained=True)
    model.eval()  # as validation leaves it
    before = {name: value.clone() for name, value in model.state_dict().items()}
    finetune.train_mode(model, settings)
    F.cross_entropy(model(images(4)), torch.arange(4) % 3).backward()
    optimizer.step()
    after = model.state_dict()
    statistics = {n for n in before if n.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert statistics
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved & statistics == (statistics if batchnorm == "train" else set())
    assert len(moved - statistics) > 0.9 * len(set(before) - statistics)
    assert model.training


@pytest.mark.real
@pytest.mark.parametrize(
    "name",
    ["mobilenetv1_100", "mobilenetv2_035", "mobilenetv2_100", "tf_efficientnet_lite0", "vit_tiny_patch16_224"],
)
def test_real_backbones_load(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = real_weights(name)
    monkeypatch.setenv("FOLDCRAFT_WEIGHTS", str(folder))
    torch.manual_seed(0)
    model, blueprint = backbones.build(config(name, weights="pretrained"), 6, 128)
    assert blueprint.mean == blueprint.std == (0.5, 0.5, 0.5)
    assert blueprint.weights == fingerprint.of_file(folder / name / "model.safetensors")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    file, loaded = load_file(folder / name / "model.safetensors"), model.state_dict()
    body = {n for n in file if n in loaded and n != "pos_embed" and not n.startswith(("classifier.", "head."))}
    assert len(body) > 0.9 * len(loaded)
    assert all(torch.equal(loaded[n], file[n].to(loaded[n].dtype)) for n in body)
    with torch.no_grad():
        logits = model.eval()(images(6, 128))
    assert logits.shape == (6, 6)
    assert logits.isfinite().all()
    assert F.cross_entropy(logits, torch.arange(6)).item() < 1.5 * math.log(6)
    backbones.rebuild(blueprint).load_state_dict(loaded)
