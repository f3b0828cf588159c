"""Features of every stage of a net, and the files that keep them."""

import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw_shape, flipped
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer

from foldcraft.common.callbacks import Callback
from foldcraft.common.config import BackboneConfig, Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.data.images import image_cache
from foldcraft.data.images.image_cache import ImageSpec, ImageStore
from foldcraft.data.loader import DrawnImages
from foldcraft.data.plain_images import PlainImages
from foldcraft.models import backbones
from foldcraft.models.backbones import Blueprint
from foldcraft.models.batchnorm_folding import folded
from foldcraft.models.blocks import Block
from foldcraft.models.linear_heads import Heads
from foldcraft.models.stage_features import (
    FeaturePool,
    Part,
    ProbeNet,
    StageFeatures,
    choose_stages,
    columns_of,
    parts_of,
)
from foldcraft.predictions import feature_cache
from foldcraft.predictions.feature_cache import FeatureRequest, FrozenNet, load_or_compute

SIZE = 32
COUNT = 10
FOLDER = Path("features")


def torchvision_vit() -> nn.Module:
    model = VisionTransformer(SIZE, 8, num_layers=6, num_heads=2, hidden_dim=16, mlp_dim=24, num_classes=3)
    model.pretrained_cfg = {"classifier": "heads.head"}
    nn.init.normal_(model.class_token)
    return model


def torchvision_swin(width: int = 12) -> nn.Module:
    model = SwinTransformer([4, 4], width, [1, 1], [1, 2], [4, 4], num_classes=3)
    model.pretrained_cfg = {"classifier": "head"}
    return model


def net(name: str, seed: int = 0, size: int = SIZE, **options: Any) -> tuple[nn.Module, str, Blueprint | None]:
    """A small net with random weights, its library, and its blueprint where it was built by name."""
    torch.manual_seed(seed)
    made = {
        "torchvision_vit": torchvision_vit,
        "torchvision_swin": torchvision_swin,
        "torchvision_swin_8": partial(torchvision_swin, 8),
    }
    if name in made:
        return made[name]().eval(), "torchvision", None
    source = "torchvision" if name == "resnet18" else "timm"
    model, blueprint = backbones.build(BackboneConfig(name=name, source=source, weights="none", **options), 3, size)
    return model.eval(), source, blueprint


def stage_features(name: str) -> StageFeatures:
    return StageFeatures(net(name)[0], SIZE)


def batch(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def watched(model: nn.Module, module: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and outputs of one module, as they come."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    model.get_submodule(module).register_forward_hook(lambda _, given, output: seen.append((given[0], output)))
    return seen


# Stages


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("test_resnet", {"layer1.0": 64, "layer2.0": 96, "layer3.0": 384, "layer4.0": 192, "head": 96}),
        (
            "test_vit",
            {f"blocks.{k}{part}": width for k in range(6) for part, width in (("", 128), (".token", 64))}
            | {"head": 64},
        ),
        (
            "resnet18",
            {
                f"layer{k}.{i}": 2 * width
                for k, width in zip(range(1, 5), (64, 64, 128, 256, 512)[1:], strict=True)
                for i in (0, 1)
            }
            | {"head": 512},
        ),
        (
            "torchvision_vit",
            {
                f"encoder.layers.encoder_layer_{k}{part}": width
                for k in range(6)
                for part, width in (("", 32), (".token", 16))
            }
            | {"head": 16},
        ),
        ("torchvision_swin", {"features.1.0": 24, "features.2": 48, "features.3.0": 48, "head": 24}),
    ],
)
def test_stages_have_these_names_and_widths(name: str, stages: dict[str, int]) -> None:
    features = stage_features(name)
    assert {stage.name: stage.width for stage in features.stages} == stages
    assert features(batch()).shape == (3, sum(stages.values()))


@pytest.mark.parametrize(
    ("name", "stage", "module", "token"),
    [
        ("test_resnet", "layer2.0", "layer2.0", False),
        ("test_vit", "blocks.5", "blocks.5", True),
        ("resnet18", "layer3.1", "layer3.1", False),
        ("torchvision_vit", "encoder.layers.encoder_layer_3", "encoder.layers.encoder_layer_3", True),
        ("torchvision_swin", "features.1.0", "features.1.0", False),
        pytest.param(
            *("torchvision_swin_8", "features.1.0", "features.1.0", False),
        ),
    ],
)
def test_a_stage_is_mean_and_deviation_of_what_its_module_gives(
    name: str, stage: str, module: str, token: bool
) -> None:
    model, _, _ = net(name)
    seen = watched(model, module)
    with torch.no_grad():
        model(batch())
    given = seen[0][1].numpy()
    features = StageFeatures(model, SIZE)

    columns = columns_of(features.stages, [stage])
    found = features(batch())[:, columns].detach().numpy()

    if name.startswith("torchvision_swin"):
        given = given.transpose(0, 3, 1, 2)  # it keeps channels last
    places = given[:, 1:].transpose(0, 2, 1) if token else given.reshape(*given.shape[:2], -1)
    np.testing.assert_allclose(found, np.concatenate([places.mean(2), places.std(2)], axis=1), atol=1e-5)
    if token:
        tokens = columns_of(features.stages, [f"{stage}.token"])
        np.testing.assert_allclose(features(batch())[:, tokens].detach(), given[:, 0], atol=1e-5)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "resnet18", "torchvision_vit"])
def test_the_head_stage_is_what_the_nets_own_classifier_sees(name: str) -> None:
    model, _, _ = net(name)
    seen = watched(model, backbones.head_names(model)[0])
    with torch.no_grad():
        model(batch())
    features = StageFeatures(model, SIZE)
    torch.testing.assert_close(features(batch())[:, columns_of(features.stages, ["head"])], seen[0][0])


def test_pooling_is_mean_and_standard_deviation_over_the_places() -> None:
    made = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[5.0, 5.0], [5.0, 5.0]]]])
    expected = [[3.0, 5.0, pytest.approx(3.5**0.5), pytest.approx(0, abs=1e-5)]]
    assert Block("a", 2, "BCHW").pool(made)["a"].tolist() == expected
    assert Block("a", 2, "BHWC").pool(made.permute(0, 2, 3, 1))["a"].tolist() == expected
    far = Block("a", 2, "BCHW").pool(made + 1e4)["a"]
    assert far[0, 2] == pytest.approx(3.5**0.5, rel=1e-3), "a large mean does not drown a small deviation"


def test_few_blocks_stand_for_all() -> None:
    assert [stage.name for stage in stage_features("test_vit").stages if stage.is_coarse and "." in stage.name] == [
        f"blocks.{k}{part}" for k in (1, 2, 3, 5) for part in ("", ".token")
    ]
    ends = [f"layer{k}.1" for k in (1, 2, 3, 4)]
    assert [stage.name for stage in stage_features("resnet18").stages if stage.is_coarse] == [*ends, "head"]


def test_stages_are_chosen_by_name_and_a_wrong_name_lists_those_that_exist() -> None:
    stages = stage_features("resnet18").stages
    known = [stage.name for stage in stages]
    assert choose_stages(stages, "all") == known
    assert choose_stages(stages, "coarse") == ["layer1.1", "layer2.1", "layer3.1", "layer4.1", "head"]
    assert choose_stages(stages, "last") == ["head"]
    assert choose_stages(stages, ["head", "layer3.0"]) == ["layer3.0", "head"]
    with pytest.raises(FoldcraftError, match=r"no stage 'layer2'.*layer2\.0"):
        choose_stages(stages, ["layer2"])


PLAIN = ((0.5,) * 3, (0.5,) * 3)


def probe_net(features: FeaturePool, chosen: list[str]) -> ProbeNet:
    probe = ProbeNet(features, chosen, 3).eval()
    torch.manual_seed(1)
    width = len(probe.columns)
    probe.set_head(Heads(torch.randn(2, 3, width), torch.randn(2, 3)))
    return probe


@pytest.mark.parametrize("name", ["test_resnet", "torchvision_vit"])
def test_a_probe_net_is_its_head_on_the_chosen_columns(name: str) -> None:
    features = FeaturePool([net(name)[0]], [Part(0, SIZE, *PLAIN)])
    chosen = [features.stages[1].name, "head"]
    columns = columns_of(features.stages, chosen)
    probe = probe_net(features, chosen)
    expected = features(batch())[:, columns] @ probe.head.weight.T + probe.head.bias
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):  # it computes in 32 bits all the same
        torch.testing.assert_close(probe(batch()), expected)


def several() -> FeaturePool:
    """A CNN and a transformer at two sizes, the second with a normalisation of its own."""
    vit, _, _ = net("test_vit", size=160, args={"dynamic_img_size": True})
    other = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    parts = [Part(0, SIZE, *PLAIN), Part(0, 16, *PLAIN), Part(1, SIZE, *other), Part(1, 16, *other)]
    return FeaturePool([net("test_resnet")[0], vit], parts)


def test_a_pool_has_each_net_at_each_size_with_its_own_normalisation() -> None:
    pool, images = several(), batch()
    small = torch.nn.functional.interpolate(images, size=(16, 16), mode="bilinear", antialias=True)

    def own(given: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (pool.parts[2].mean, pool.parts[2].std))
        return (given * 0.5 + 0.5 - mean) / std

    cnn, vit = (net_of.net for net_of in (pool.looks[0], pool.looks[2]))
    with torch.no_grad():
        found = pool(images)
        expected = [StageFeatures(cnn, SIZE)(images), StageFeatures(cnn, 16)(small)]
        expected += [StageFeatures(vit, SIZE)(own(images)), StageFeatures(vit, 16)(own(small))]
    torch.testing.assert_close(found, torch.cat(expected, dim=1), atol=1e-4, rtol=1e-4)
    assert found.shape[1] == sum(stage.width for stage in pool.stages)
    assert len({str(stage) for stage in pool.stages}) == len(pool.stages), "names tell parts apart"
    assert [str(s) for s in pool.stages if s.name == "head"] == choose_stages(pool.stages, ["head"])


def test_the_mirror_image_is_averaged_in_at_the_smallest_size() -> None:
    blueprint = net("test_resnet")[2]
    assert blueprint
    parts = parts_of([blueprint, blueprint], [16, SIZE], mirror=True)
    assert [(part.net, part.size, part.mirror) for part in parts] == [
        (0, 16, True), (0, SIZE, False), (1, 16, True), (1, SIZE, False)
    ]  # fmt: skip
    once, both = (FeaturePool([net("test_resnet")[0]], [replace(parts[0], mirror=flag)]) for flag in (False, True))
    with torch.no_grad():
        torch.testing.assert_close(both(batch()), both(batch().flip(3)))
        torch.testing.assert_close(both(batch()), (once(batch()) + once(batch().flip(3))) / 2)


def test_one_part_alone_adds_to_the_logits_what_it_adds_in_the_pool() -> None:
    probe = probe_net(several(), choose_stages(several().stages, ["head", "layer2.0", "blocks.3"]))
    with torch.no_grad():
        alone = [
            probe.alone(place)(batch()) - probe.head.bias for place in (0, 1)
        ]  # images come prepared for the first
        pool = probe.features
        inside = [
            torch.isin(probe.columns, columns_of(pool.stages, [str(s) for s in pool.stages if s.part == part]))
            for part in ("0@32", "0@16")
        ]
        for found, columns in zip(alone, inside, strict=True):
            expected = pool(batch())[:, probe.columns[columns]] @ probe.head.weight[:, columns].T
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "resnet18"])
def test_folded_batchnorm_changes_nothing_but_the_last_bits(name: str) -> None:
    model, _, _ = net(name)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
    made = folded(model, SIZE)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in made.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules()), "the net itself is left alone"
    with torch.no_grad():
        torch.testing.assert_close(made(batch()), model(batch()), atol=1e-4, rtol=1e-4)
        before, after = StageFeatures(model, SIZE)(batch()), StageFeatures(made, SIZE)(batch())
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)


class TwiceUsed(nn.Module):
    """The convolution's output is heard of beside its BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.running_mean, 1.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.conv(images)
        return (self.norm(found) + found).mean((2, 3))


def test_a_net_that_folding_would_change_is_left_as_it_is() -> None:
    model = TwiceUsed().eval()
    assert folded(model, SIZE) is model


# Their files


def config(**changes: dict[str, Any]) -> Config:
    """Settings of a small net, with some sections changed."""
    sections = {
        "competition": {"name": "shapes"},
        "images": {"size": SIZE},
        "augment": {"preset": "medium"},
        "backbone": {"name": "test_resnet", "weights": "none"},
        "machine": {"device": "cpu"},
    }
    return Config.model_validate(
        {"experiment": "frozen"} | {name: {**values, **changes.get(name, {})} for name, values in sections.items()}
    )


def frozen(name: str = "test_resnet", seed: int = 0, settings: Config | None = None, **options: Any) -> FrozenNet:
    settings = settings or config(backbone={"name": name, **options})
    model, _, blueprint = net(name, seed, settings.images.size, **options)
    assert blueprint
    return FrozenNet.of(model, blueprint, settings)


@pytest.fixture
def store(workplace: Path) -> ImageStore:
    """Ten drawn images, decoded."""
    for row in range(COUNT):
        draw_shape(("bar", "cross", "dot")[row % 3], row, SIZE).save(f"{row}.png")
    return decoded()


def decoded(side: int = SIZE) -> ImageStore:
    return image_cache.open_stores(
        [Path(f"{row}.png") for row in range(COUNT)], [ImageSpec(side)], Path("cache"), "train"
    )[0]


def passes(*nets: FrozenNet) -> list[int]:
    """Fills up with the number of images of each batch that goes through one of the nets."""
    seen: list[int] = []
    for one in nets:
        one.features.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    return seen


def wanted(one: FrozenNet, store: ImageStore, *views: str) -> list[FeatureRequest]:
    return [FeatureRequest(one, "train", store, view) for view in views]


def test_freezing_leaves_the_net_as_it_is() -> None:
    model, _, blueprint = net("test_resnet")
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one = FrozenNet.of(model, blueprint, config())
    one.features(batch())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.eval()(batch()).shape == (3, 3)


def test_features_are_those_of_a_net_that_drops_something_in_training() -> None:
    assert frozen("test_vit").weights == frozen("test_vit", patch_drop=0.25, drop_path=0.1).weights


def test_features_are_kept_in_16_bits_and_computed_once(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "PIXELS", 4 * SIZE**2)
    one = frozen()
    seen = passes(one)

    plain, flipped = load_or_compute(wanted(one, store, "identity", "hflip"), FOLDER, Callback())

    assert seen == [4, 4, 4, 4, 2, 2]
    assert plain.dtype == np.float16
    pixels = torch.from_numpy(np.array(store.pixels))
    expected = one.features(one.preparation(pixels)).detach().numpy()
    np.testing.assert_allclose(plain, expected, rtol=2e-3, atol=1e-3)
    expected = one.features(one.preparation(pixels.flip(2))).detach().numpy()
    np.testing.assert_allclose(flipped, expected, rtol=2e-3, atol=1e-3)
    again = load_or_compute(
        wanted(frozen(), store, "hflip", "identity"), FOLDER, Callback()
    )  # as another process would
    np.testing.assert_array_equal(again, [flipped, plain])
    seen.clear()
    load_or_compute(wanted(one, store, "hflip", "vflip"), FOLDER, Callback())
    assert seen == [4, 4, 2], "one view was lacking, and no more than that was computed"
    assert {file.suffix for file in FOLDER.iterdir()} == {".npy", ".lock"}


def test_features_of_some_rows_are_theirs_and_kept_apart_from_those_of_others(store: ImageStore) -> None:
    one = frozen()
    some = [FeatureRequest(one, "train", store, view, np.array([2, 5, 7])) for view in ("identity", "hflip")]
    seen = passes(one)

    (plain, flipped), (others,) = (
        load_or_compute(some, FOLDER, Callback()),
        load_or_compute([replace(some[0], only=np.array([1, 5]))], FOLDER, Callback()),
    )

    assert sum(seen) == 3 + 3 + 2
    whole, mirrored = load_or_compute(wanted(one, store, "identity", "hflip"), FOLDER, Callback())
    np.testing.assert_allclose(plain, whole[[2, 5, 7]], rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(flipped, mirrored[[2, 5, 7]], rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(others, whole[[1, 5]], rtol=2e-3, atol=1e-3)


def _one_other_number(store: ImageStore) -> FeatureRequest:
    model, _, blueprint = net("test_resnet")
    with torch.no_grad():
        model.layer2[0].bn1.running_var[0] *= 1.001
    return FeatureRequest(FrozenNet.of(model, blueprint, config()), "train", store, "draw0")


def _one_other_pixel(store: ImageStore) -> FeatureRequest:
    picture = draw_shape("bar", 0, SIZE)
    picture.putpixel((3, 3), 255 - picture.getpixel((3, 3)))
    picture.save("0.png")
    return FeatureRequest(frozen(), "train", decoded(), "draw0")


def _another_size(store: ImageStore) -> FeatureRequest:
    return FeatureRequest(frozen(settings=config(images={"size": 24})), "train", store, "draw0")


@pytest.mark.parametrize(
    "other",
    [
        _one_other_number,
        _one_other_pixel,
        _another_size,
        lambda store: FeatureRequest(frozen(), "train", store, "draw1"),
        lambda store: FeatureRequest(frozen(), "train", store, "identity"),
        lambda store: FeatureRequest(frozen(settings=config(augment={"preset": "heavy"})), "train", store, "draw0"),
        lambda store: FeatureRequest(frozen(settings=config(images={"resize": "crop"})), "train", store, "draw0"),
        pytest.param(
            lambda store: FeatureRequest(frozen(args={"global_pool": "max"}), "train", store, "draw0"),
        ),
    ],
    ids=["weights", "image", "size", "draw", "view", "augmentation", "resize", "arguments"],
)
def test_other_features_are_never_taken_for_these(
    store: ImageStore, other: Callable[[ImageStore], FeatureRequest]
) -> None:
    known = FeatureRequest(frozen(), "train", store, "draw0")
    load_or_compute([known], FOLDER, Callback())
    assert FeatureRequest(frozen(), "train", decoded(), "draw0").file(FOLDER) == known.file(FOLDER)
    assert not other(store).file(FOLDER).exists()


def test_one_reading_of_the_images_serves_all_backbones_and_views(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    for kind in (PlainImages, DrawnImages):
        get = kind.at
        monkeypatch.setattr(kind, "at", lambda self, rows, get=get: (read.extend(rows), get(self, rows))[1])
    nets = [frozen(), frozen(seed=1), frozen("test_efficientnet")]

    found = load_or_compute(
        [item for one in nets for item in wanted(one, store, "identity", "hflip")], FOLDER, Callback()
    )

    assert read == list(range(COUNT))
    assert [len(features) for features in found] == [COUNT] * 6
    load_or_compute([item for one in nets for item in wanted(one, store, "draw0", "draw1")], FOLDER, Callback())
    assert len(read) == 3 * COUNT, "each draw is drawn once for all backbones"


def test_draws_repeat_and_differ_from_one_another(store: ImageStore) -> None:
    one = frozen()
    first, second, plain = load_or_compute(wanted(one, store, "draw0", "draw1", "identity"), FOLDER, Callback())
    again = load_or_compute(wanted(one, store, "draw0"), Path("elsewhere"), Callback())[0]
    np.testing.assert_array_equal(again, first)
    for other in (second, plain):
        assert (np.abs(first.astype(float) - other).max(axis=1) > 0.01).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-2]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(np.random.default_rng(0).bytes(5000)),
        lambda file: file.write_bytes(flipped(file.read_bytes(), 200)),
        lambda file: np.save(file, np.load(file)[1:]),
        lambda file: np.save(file, np.load(file).astype(np.float32)),
    ],
    ids=["cut", "empty", "garbage", "a bit", "a row lacking", "32 bits"],
)
def test_damaged_features_are_told_and_computed_again(store: ImageStore, damage: Callable[[Path], object]) -> None:
    wish = wanted(frozen(), store, "identity")
    whole = np.array(load_or_compute(wish, FOLDER, Callback())[0])
    file = wish[0].file(FOLDER)
    damage(file)
    said: list[str] = []
    listener = Callback()
    listener.say = said.append
    np.testing.assert_array_equal(load_or_compute(wish, FOLDER, listener)[0], whole)
    (line,) = said
    assert re.search(rf"{file}: damaged features .*computed again", line)
    load_or_compute(wish, FOLDER, listener)
    assert len(said) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that can be killed")
def test_a_killed_computation_leaves_nothing_that_looks_whole(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "PIXELS", 4 * SIZE**2)
    one = frozen()
    wishes = wanted(one, store, "identity", "hflip")
    child = os.fork()
    if not child:
        one.features.register_forward_hook(
            lambda _, given, __: os.kill(os.getpid(), signal.SIGKILL) if len(given[0]) == 2 else None
        )
        load_or_compute(wishes, FOLDER, Callback())
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert len(list(FOLDER.glob("*.npy.tmp-*"))) == 2, "it was killed while it wrote"
    assert not list(FOLDER.glob("*.npy"))

    found = load_or_compute(wishes, FOLDER, Callback())

    np.testing.assert_array_equal(found, load_or_compute(wishes, Path("undisturbed"), Callback()))
    assert not list(FOLDER.glob("*.tmp-*"))
