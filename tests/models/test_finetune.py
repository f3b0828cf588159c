"""What each mode trains, what stays exactly as it was, and LoRA's way into a net and out again."""

import copy
import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from foldcraft.common.config import BackboneConfig, FinetuneConfig, OptimConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.models import backbones, finetune, lora
from foldcraft.models.inputs import Inputs

SIZE = 32
HEADS = {"test_resnet": "fc", "test_vit": "head", "resnet18": "fc", "torchvision_vit": "heads.head"}
TORCHVISION = ("resnet18", "mobilenet_v2")
BOTH = pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
ALL = pytest.mark.parametrize("name", list(HEADS))


def net(name: str, seed: int = 0, **options) -> nn.Module:
    """A small CNN or transformer with random weights, three classes and a head that is not near zero."""
    torch.manual_seed(seed)
    if name == "torchvision_vit":
        model = VisionTransformer(SIZE, 8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=24, num_classes=3)
        model.pretrained_cfg = {"classifier": HEADS[name]}
    else:
        source = "torchvision" if name in TORCHVISION else "timm"
        model, _ = backbones.build(BackboneConfig(name=name, source=source, weights="none", **options), 3, SIZE)
    nn.init.normal_(model.get_submodule(backbones.head_names(model)[0]).weight, std=0.5)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.5)  # a scale of zero, as residual branches start with, stops all gradients
    return model.eval()


def prepared(name: str, seed: int = 0, **settings) -> tuple[nn.Module, FinetuneConfig]:
    model, config = net(name, seed), FinetuneConfig(**{"batchnorm": "train", **settings})
    finetune.prepare(model, config)
    return model, config


def images(count: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def trained(model: nn.Module) -> set[str]:
    return {name for name, value in model.named_parameters() if value.requires_grad}


def plain_name(name: str) -> str:
    return re.sub(r"parametrizations\.(\w+)\..*", r"\1", name)


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def moved(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    """Names of what is no longer bit for bit what it was."""
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def optimizer_of(model: nn.Module, config: FinetuneConfig) -> torch.optim.Optimizer:
    return finetune.create_optimizer(model, config, OptimConfig(lr=0.02, weight_decay=0.1), pretrained=True)


def train(model: nn.Module, config: FinetuneConfig, steps: int = 2) -> nn.Module:
    """Some steps as the trainer takes them; evaluation mode afterwards."""
    optimizer = optimizer_of(model, config)
    finetune.train_mode(model, config)
    for step in range(steps):
        F.cross_entropy(model(images(seed=step)), torch.arange(6) % 3).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model.eval()


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(images())


def statistics(names: set[str]) -> set[str]:
    return {name for name in names if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}


@BOTH
def test_each_mode_trains_its_own_parameters(name: str) -> None:
    head = {f"{HEADS[name]}.weight", f"{HEADS[name]}.bias"}
    plain = dict(net(name).named_parameters())
    assert trained(prepared(name, mode="full")[0]) == set(plain)
    assert trained(prepared(name, mode="linear_probe")[0]) == head
    norms_and_biases = {parameter for parameter, value in plain.items() if value.ndim == 1}  # in these two nets
    assert trained(prepared(name, mode="norm")[0]) == head | norms_and_biases
    model, _ = prepared(name, mode="lora", lora_rank=5)
    if name == "test_vit":
        layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        changed = {f"blocks.{block}.{layer}" for block in range(6) for layer in layers}
    else:
        changed = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)}
        assert "layer3.0.conv1" in changed
    assert trained(model) == head | {f"{n}.parametrizations.weight.0.{part}" for n in changed for part in "AB"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("test_efficientnet", "BatchNormAct2d"),
        ("test_efficientnet_gn", "GroupNormAct"),
        ("test_efficientnet_ln", "LayerNormAct2d"),
        ("test_efficientnet_evos", "EvoNorm2dS0"),
    ],
)
def test_every_kind_of_norm_is_known_for_one(name: str, kind: str) -> None:
    model = net(name)
    finetune.prepare(model, FinetuneConfig(mode="norm"))
    norms = {n for n, module in model.named_modules() if type(module).__name__ == kind}
    assert len(norms) > 5
    own = {f"{n}.{p}" for n in norms for p, _ in model.get_submodule(n).named_parameters(recurse=False)}
    biases = {n for n, _ in model.named_parameters() if n.endswith(".bias")}
    assert trained(model) == own | biases | {"classifier.weight"}


@ALL
def test_lora_starts_as_the_net_learns_and_leaves_a_plain_net(name: str) -> None:
    plain = net(name)
    start, weights = logits(plain), snapshot(plain)
    model, config = prepared(name, mode="lora", lora_rank=4)
    assert torch.allclose(logits(model), start, atol=1e-6)

    before, learning = snapshot(model), trained(model)
    train(model, config)
    end = logits(model)
    # The net moves by the low-rank changes, not by its head alone.
    other_head = {n: v for n, v in model.state_dict().items() if n.startswith(HEADS[name])}
    plain.load_state_dict(other_head, strict=False)
    assert (end - logits(plain)).abs().max() > 1e-3
    assert moved(model, before) == learning  # BatchNorm's statistics stay too

    after = snapshot(model)
    merged = finetune.plain_state(model)
    assert set(merged) == set(weights)
    assert not any(value.requires_grad for value in merged.values())
    fresh = net(name, seed=1)
    fresh.load_state_dict(merged)
    assert torch.allclose(logits(fresh), end, atol=1e-5)
    assert not moved(model, after)
    assert trained(model) == learning
    assert torch.equal(logits(model), end)


@ALL
def test_lora_survives_copies_and_checkpoints(name: str) -> None:
    model, config = prepared(name, mode="lora")
    train(model, config)
    end, state = logits(model), snapshot(model)
    twin = copy.deepcopy(model)
    ema = ModelEmaV3(model, decay=0.5)
    train(twin, config)  # a copy learns on its own
    assert (logits(twin) - end).abs().max() > 1e-4
    assert torch.equal(logits(model), end)
    ema.update(twin)
    halfway = ema.module.state_dict()
    assert all(
        torch.allclose(halfway[n], (state[n] + v) / 2) for n, v in twin.state_dict().items() if v.is_floating_point()
    )
    other, _ = prepared(name, seed=1, mode="lora")
    other.load_state_dict(state)
    assert torch.equal(logits(other), end)
    finetune.prepare(other, config)
    assert set(other.state_dict()) == set(state)  # prepared twice is prepared once
    assert torch.equal(logits(other), end)


@ALL
def test_lora_works_in_16_bit_and_channels_last(name: str) -> None:
    model, config = prepared(name, mode="lora")
    start = logits(model)
    model.to(memory_format=torch.channels_last)
    finetune.train_mode(model, config)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images().to(memory_format=torch.channels_last))
    assert torch.allclose(output.float(), start, atol=0.1 * start.abs().max())
    F.cross_entropy(output.float(), torch.arange(6) % 3).backward()
    grown = {n: v.grad for n, v in model.named_parameters() if n.endswith("0.B")}
    assert grown
    assert all(grad.dtype == torch.float32 and grad.isfinite().all() and grad.any() for grad in grown.values())


def test_lora_has_the_rank_asked_for_or_what_the_weight_allows() -> None:
    model, _ = prepared("torchvision_vit", mode="lora", lora_rank=20)
    shapes = {n: tuple(v.shape) for n, v in model.named_parameters() if n.endswith((".A", ".B"))}
    layer = "encoder.layers.encoder_layer_0"
    assert shapes[f"{layer}.self_attention.parametrizations.in_proj_weight.0.A"] == (16, 16)
    assert shapes[f"{layer}.self_attention.parametrizations.in_proj_weight.0.B"] == (48, 16)
    assert shapes[f"{layer}.self_attention.out_proj.parametrizations.weight.0.B"] == (16, 16)
    small, _ = prepared("torchvision_vit", mode="lora", lora_rank=3)
    assert {v.shape[0] for n, v in small.named_parameters() if n.endswith(".A")} == {3}


def test_lora_repeats_with_the_seed() -> None:
    first, again, other = (prepared("test_vit", seed, mode="lora")[0].state_dict() for seed in (0, 0, 1))
    name = "blocks.0.attn.qkv.parametrizations.weight.0.A"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_lora_without_targets_says_so() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    model.pretrained_cfg = {"classifier": "3"}
    with pytest.raises(FoldcraftError, match=r"neither attention or MLP Linears nor pointwise.*mode=norm or full"):
        finetune.prepare(model, FinetuneConfig(mode="lora"))
    with pytest.raises(FoldcraftError, match="in what is trained of this ResNet"):
        prepared("test_resnet", mode="lora", freeze_until="fc")


@pytest.mark.parametrize(
    ("name", "point", "first"),
    [
        ("test_resnet", "layer3", "layer3."),
        ("test_vit", "blocks.3", "blocks.3."),
        ("torchvision_vit", "encoder.layers.encoder_layer_1", "encoder.layers.encoder_layer_1."),
        ("test_resnet", "layer4.0", "layer4.0."),
    ],
)
@pytest.mark.parametrize("mode", ["full", "norm", "lora"])
def test_nothing_before_freeze_until_moves(name: str, point: str, first: str, mode: str) -> None:
    everywhere = trained(prepared(name, mode=mode)[0])
    model, config = prepared(name, mode=mode, freeze_until=point)
    names = list(net(name).state_dict())
    early = set(names[: next(i for i, n in enumerate(names) if n.startswith(first))])
    assert trained(model) == {n for n in everywhere if plain_name(n) not in early}
    assert trained(model) >= {f"{HEADS[name]}.weight", f"{HEADS[name]}.bias"}
    before = snapshot(model)
    train(model, config)
    expected = trained(model)
    if mode != "lora":
        expected |= statistics(set(before)) - early
    assert moved(model, before) == expected


def test_the_head_learns_and_a_norm_without_scales_stays_wherever_they_stand() -> None:
    norms = [nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, affine=False)]
    body = [nn.Conv2d(3, 4, 3), norms[0], nn.Conv2d(4, 4, 3), norms[1]]
    model = nn.Sequential(nn.Conv2d(3, 3, 1), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.pretrained_cfg = {"classifier": "0"}
    config = FinetuneConfig(freeze_until="3", batchnorm="train")
    finetune.prepare(model, config)
    finetune.train_mode(model, config)
    assert trained(model) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    assert [norm.training for norm in norms] == [False, True]
    finetune.train_mode(model, FinetuneConfig(mode="linear_probe"))
    assert [norm.training for norm in norms] == [False, False]


@pytest.mark.parametrize(
    ("name", "wrong", "advice", "known"),
    [
        ("test_resnet", "layer9", "did you mean 'layer", ["layer2", "layer4.0", "fc"]),
        ("test_vit", "block.3", "did you mean 'blocks.3'", ["patch_embed", "blocks.0", "blocks.5", "head"]),
        ("torchvision_vit", "middle", "known: ", ["encoder.layers.encoder_layer_2", "heads.head"]),
        ("test_vit", "pos_drop", "", ["norm"]),  # a module without parameters
    ],
)
def test_an_unknown_freeze_until_lists_what_there_is(name: str, wrong: str, advice: str, known: list[str]) -> None:
    with pytest.raises(FoldcraftError, match=r"finetune\.freeze_until") as caught:
        prepared(name, freeze_until=wrong)
    text = str(caught.value)
    assert repr(wrong) in text
    assert advice in text
    assert text.count("known: ") == 1
    assert set(known) <= set(text.partition("known: ")[2].split(", "))


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "linear_probe"},
        {"mode": "lora"},
        {"mode": "norm", "batchnorm": "frozen"},
        {"mode": "full", "batchnorm": "adapted"},
        {"mode": "norm"},
    ],
)
@pytest.mark.parametrize("name", ["test_efficientnet", "resnet18"])
def test_statistics_stay_where_they_must(name: str, settings: dict[str, str]) -> None:
    model, config = prepared(name, **settings)
    before = snapshot(model)
    train(model, config)
    every = statistics(set(before))
    assert every
    assert moved(model, before) & every == (every if settings == {"mode": "norm"} else set())


def thawed(name: str, mode: str, epochs: int) -> Iterator[tuple[nn.Module, FinetuneConfig]]:
    """The same net at the beginning of each epoch."""
    model, config = prepared(name, mode=mode, unfreeze_epochs=epochs)
    for epoch in range(epochs + 2):
        finetune.unfreeze_for_epoch(model, config, epoch)
        yield model, config


@ALL
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_layers_thaw_from_the_head_down(name: str, mode: str) -> None:
    whole, _ = prepared(name, mode=mode)
    depth, everything = finetune.depths(whole), trained(whole)
    head = {f"{HEADS[name]}.weight", f"{HEADS[name]}.bias"}
    sets = [trained(model) for model, _ in thawed(name, mode, 3)]
    assert sets[0] == head
    assert sets[3] == sets[4] == everything
    for earlier, later in pairwise(sets):
        assert earlier <= later
        held = everything - later
        assert not held or max(depth[n] for n in held) < min(depth[n] for n in later)
    assert len({len(names) for names in sets[:4]}) >= 3
    # A training that is taken up again in epoch 2 has the very same layers free.
    resumed, config = prepared(name, mode=mode, unfreeze_epochs=3)
    finetune.unfreeze_for_epoch(resumed, config, 2)
    assert trained(resumed) == sets[2]


@BOTH
def test_what_has_not_thawed_is_left_alone(name: str) -> None:
    model, config = prepared(name, unfreeze_epochs=4)
    optimizer = optimizer_of(model, config)
    assert {id(v) for group in optimizer.param_groups for v in group["params"]} == {id(v) for v in model.parameters()}
    for epoch in range(5):
        # The optimizer has momentum of every parameter, and gradients lie about.
        F.cross_entropy(model.train()(images()), torch.arange(6) % 3).backward()
        finetune.unfreeze_for_epoch(model, config, epoch)
        finetune.train_mode(model, config)
        before = snapshot(model)
        F.cross_entropy(model(images(seed=epoch)), torch.arange(6) % 3).backward()
        optimizer.step()
        free = trained(model)
        norms = {n.rpartition(".")[0] for n in free}
        expected = free | {n for n in statistics(set(before)) if n.rpartition(".")[0] in norms}
        assert moved(model, before) == expected


def rates(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    """How fast each parameter learns beside the head, and how it decays."""
    name_of = {id(value): name for name, value in model.named_parameters()}
    return {
        name_of[id(value)]: (group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for value in group["params"]
    }


@pytest.mark.parametrize("name", [*HEADS, "mobilenet_v2"])
def test_a_low_rank_change_learns_as_fast_as_its_layer(name: str) -> None:
    model = net(name)
    names = [parameter for parameter, _ in model.named_parameters()]
    config = FinetuneConfig(layer_decay=0.7)
    timms = create_optimizer_v2(model, opt="adamw", lr=0.02, weight_decay=0.1, layer_decay=0.7)
    plain = rates(model, optimizer_of(model, config))
    assert plain == rates(model, timms)
    finetune.prepare(model, FinetuneConfig(mode="lora"))
    assert list(dict.fromkeys(lora.plain_names(model).values())) == names
    change = rates(model, optimizer_of(model, config))
    assert set(change) == trained(model)
    for parameter, (rate, weight_decay) in change.items():
        assert rate == plain[plain_name(parameter)][0], parameter
        assert weight_decay == (0 if parameter.endswith("bias") else 0.1), parameter


def test_adapted_statistics_are_those_of_the_data() -> None:
    model = net("test_resnet", drop=0.5, drop_path=0.5)
    stem = model.conv1[1]
    batches = [Inputs(3 + 2 * images(8, seed)) for seed in range(4)]
    with torch.no_grad():
        maps = [model.conv1[0](batch.images) for batch in batches]
    before, momentum = snapshot(model), stem.momentum
    model.train()
    assert finetune.adapt_batchnorm(model, iter([*batches, batches[0].split(8)[0]]))
    assert not any(module.training for module in model.modules())
    assert stem.momentum == momentum is not None
    assert torch.allclose(stem.running_mean, torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0), atol=1e-5)
    assert torch.allclose(stem.running_var, torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0), rtol=1e-4)
    assert moved(model, before) == statistics(set(before))
    first = snapshot(model)
    torch.manual_seed(5)
    finetune.adapt_batchnorm(model, batches)  # once over: what was there before does not count, nor does chance
    assert not moved(model, first)


def test_nets_without_batchnorm_have_nothing_to_adapt() -> None:
    batches = iter([Inputs(images())])
    assert not finetune.adapt_batchnorm(net("test_vit"), batches)
    assert len(list(batches)) == 1
