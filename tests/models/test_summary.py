"""Looking inside a net: what is shown is what the net, its optimizer and a pass through it say themselves."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from foldcraft.models import summary

SIZE = 16  # of the drawn competition's config


@pytest.fixture
def look(shapes: Path, command) -> Any:
    """Call the command on the drawn competition; what it wrote as JSON, and what it printed."""

    def call(*overrides: str) -> tuple[dict[str, Any], str]:
        done = command("check", "--show", "net", "--config", shapes, "--json", "seen.json", *overrides)
        assert done.code == 0, done.err
        return json.loads(Path("seen.json").read_text()), done.out

    return call


def part(seen: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in seen["parts"] if each["name"] == name)


def line(printed: str, name: str) -> list[str]:
    """The cells of a module's line."""
    (found,) = [text for text in printed.splitlines() if text.strip("│ ").startswith(f"{name} ")]
    return found.replace("│", " ").split()


def test_names_and_shapes_are_those_of_a_direct_forward(look) -> None:
    seen, printed = look()
    net = timm.create_model("test_resnet", num_classes=3).eval()
    after_layer2 = net.layer2(net.layer1(net.maxpool(net.act1(net.bn1(net.conv1(torch.zeros(2, 3, SIZE, SIZE)))))))

    assert [each["name"] for each in seen["parts"]] == [name for name, _ in net.named_modules()]
    assert [each["kind"] for each in seen["parts"]] == [type(module).__name__ for module in net.modules()]
    assert part(seen, "layer2")["output"] == list(after_layer2.shape)
    assert part(seen, "")["output"] == [2, 3]
    assert line(printed, "layer2")[1:3] == ["Sequential", "×".join(map(str, after_layer2.shape))]
    assert "layer2.0 " in printed
    assert "layer2.0.conv1" not in printed, "the inside of a block takes --depth"


def test_numbers_of_parameters_add_up(look) -> None:
    seen, printed = look()
    net = timm.create_model("test_resnet", num_classes=3)
    total = sum(value.numel() for value in net.parameters())

    assert seen["parameters"] == seen["trainable"] == part(seen, "")["parameters"] == total
    assert sum(group["parameters"] for group in seen["groups"]) == total
    assert part(seen, "layer1")["parameters"] == sum(value.numel() for value in net.layer1.parameters())
    assert sum(each["parameters"] for each in seen["parts"] if each["depth"] == 1) == total
    assert f"parameters  {total:,}, of them trainable {total:,}" in printed


def test_learning_rates_are_those_of_the_layers(look) -> None:
    seen, _ = look("optim.lr=auto", "finetune.layer_decay=0.5", "optim.weight_decay=0.1")
    assert seen["peak_lr"] == 1e-3
    assert part(seen, "fc")["lr"] == [1e-3]
    assert part(seen, "layer4.0")["lr"] == [pytest.approx(5e-4)]
    assert part(seen, "")["lr"][0] == part(seen, "conv1.0")["lr"][0]
    assert {group["weight_decay"] for group in seen["groups"]} == {0.0, 0.1}


def test_what_is_frozen_is_shown_as_frozen(look) -> None:
    seen, printed = look("finetune.freeze_until=layer3")
    frozen = part(seen, "layer2")
    assert (frozen["trainable"], frozen["lr"], frozen["gradient"], frozen["flaw"]) == (0, [], None, "")
    assert "frozen" in line(printed, "layer2")
    assert "all" in line(printed, "layer3")
    assert part(seen, "layer3")["gradient"] > 0
    assert "layer3" in seen["stages"]
    assert seen["without_gradient"] == []


class Forgetful(nn.Module):
    """A net with a layer that it never uses, and a pair of which it uses one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.unused = nn.Linear(4, 4)
        self.pair = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.shift = nn.Parameter(torch.zeros(4))
        self.head = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.pair[0](self.stem(images).mean((2, 3)) + self.shift))


def test_a_trained_module_without_gradient_is_flagged() -> None:
    net = Forgetful()
    net.stem.requires_grad_(False)
    optimizer = torch.optim.SGD([value for value in net.parameters() if value is not net.head.bias], lr=0.1)

    seen = summary.summarize(net, optimizer, ["head"], SIZE)

    parts = {each.name: each for each in seen.parts}
    assert {name: each.flaw for name, each in parts.items() if each.flaw} == {
        "": "no gradient: 4 of 9 tensors",
        "unused": "no gradient",
        "pair": "no gradient: 2 of 4 tensors",
        "pair.1": "no gradient",
        "head": "no learning rate",
    }
    assert seen.without_gradient == ["unused.weight", "unused.bias", "pair.1.weight", "pair.1.bias"]
    assert parts["unused"].output is None
    assert (parts["shift"].kind, parts["shift"].output) == ("Parameter", [4])
    assert seen.stages == ["stem", "unused", "pair", "pair.0", "pair.1", "head"]


def test_gradients_are_those_of_a_direct_backward_and_leave_no_trace() -> None:
    net = Forgetful()
    before = {name: value.clone() for name, value in net.state_dict().items()}

    seen = summary.summarize(net, None, ["head"], SIZE)

    assert all(value.grad is None for value in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    F.cross_entropy(net(images), torch.tensor([0, 1])).backward()
    norms = {each.name: each.gradient for each in seen.parts}
    assert norms["head"] == pytest.approx(float(torch.cat([net.head.weight.grad.flatten(), net.head.bias.grad]).norm()))
    assert norms["pair"] == pytest.approx(norms["pair.0"])


def test_a_flaw_is_printed(look, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*given: object, **named: object) -> tuple[nn.Module, Any]:
        net, blueprint = whole(*given, **named)
        net.spare = nn.Linear(2, 2)
        return net, blueprint

    from foldcraft.models import backbones

    whole = backbones.build
    monkeypatch.setattr(backbones, "build", build)
    seen, printed = look()
    assert " ".join(line(printed, "spare")).endswith("no gradient")
    assert "the loss does not reach spare.weight, spare.bias" in printed
    assert seen["without_gradient"] == ["spare.weight", "spare.bias"]


@pytest.mark.parametrize("mode", ["norm", "lora", "linear_probe"])
def test_every_mode_can_be_looked_at(look, mode: str) -> None:
    seen, _ = look(f"finetune.mode={mode}")
    assert 0 < seen["trainable"] < seen["parameters"]
    assert seen["without_gradient"] == []
    assert sum(group["parameters"] for group in seen["groups"]) == (seen["trainable"] if mode != "linear_probe" else 0)


def test_depth_is_a_number_of_levels(shapes: Path, command) -> None:
    stages = command("check", "--show", "net", "--config", shapes, "--depth", 1).out
    assert "layer1 " in stages
    assert "layer1.0 " not in stages.partition("modules")[2].partition("tensors")[0]
    assert "layer1.0.bn1 " in command("check", "--show", "net", "--config", shapes, "--depth", 0).out


def test_a_net_of_many_blocks_fits_on_a_screen(shapes: Path, command) -> None:
    words = ["--config", shapes, "--show", "net", "backbone.name=tf_efficientnet_lite0", "finetune.layer_decay=0.8"]
    screen = command("check", *words).out
    assert len(screen.splitlines()) <= 40
    assert line(screen, "blocks.1")[1] == "Sequential"
    assert "blocks.1.0 " not in screen.partition("modules\n")[2]
    assert "258 modules inside of these: --depth N, up to 5" in screen
    assert line(screen, "bn1.weight")[2:] == ["classifier.bias", "99", "42,019", "2.3e-5–1.0e-3", "0"]
    deeper = command("check", *words, "--depth", 3).out
    assert line(deeper, "blocks.1.0")[1] == "InvertedResidual"
    assert line(deeper, "bn1.weight")[1:] == ["2", "64", "2.3e-5", "0"], "a row a group"


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("backbone.name=test_resnt", "timm has no model 'test_resnt'; did you mean 'test_resnet'?"),
        ("competition.folder=nowhere", "no such input folder"),
        ("finetune.freeze_until=layer9", "finetune.freeze_until"),
        ("--depth=-1", "--depth: -1 is not a number of levels"),
    ],
)
def test_a_mistake_is_one_line(shapes: Path, command, argument: str, told: str) -> None:
    done = command("check", "--show", "net", "--config", shapes, argument)
    assert done.code == 2
    assert told in done.err
    assert done.err.count("\n") == 1
