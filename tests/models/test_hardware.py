"""What a training computes on: what is tried, for how long, and what is said of it."""

import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from foldcraft.common import checksums
from foldcraft.common.config import MachineConfig, TrainConfig
from foldcraft.models import hardware, step_timing
from foldcraft.models.hardware import Hardware

CPU = MachineConfig(device="cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which passes only when somebody adds to it."""
    now = [0.0]
    monkeypatch.setattr(step_timing.time, "perf_counter", lambda: now[0])
    return now


def step(clock: list[float], *took: float) -> Callable[[], None]:
    """A step that takes so many seconds, one time after the other, and the last for ever after."""
    left = list(took)

    def experiment() -> None:
        clock[0] += left.pop(0) if len(left) > 1 else left[0]

    return experiment


def tried(monkeypatch: pytest.MonkeyPatch, clock: list[float], seconds: Callable[[Hardware], float]) -> list[tuple]:
    """Makes steps take so many seconds an image; a list that fills with the precision and images of each."""
    seen: list[tuple[str, int]] = []

    def try_step(net: torch.nn.Module, images: torch.Tensor, option: Hardware) -> None:
        seen.append((option.precision, len(images)))
        clock[0] += seconds(option) * len(images)

    monkeypatch.setattr(hardware, "try_step", try_step)
    return seen


def measured(machine: MachineConfig = CPU, part: int = 32) -> Hardware:
    return hardware._measure(machine, "cpu", timm.create_model("test_resnet"), 32, part)


def test_hardware_is_measured_told_and_kept(shapes: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "has_bf16", lambda: True)
    auto = ["machine.precision=auto", "machine.memory_format=auto", "experiment=measured"]
    command("split", "--config", shapes)
    first = command("train", "--config", shapes, "--fold", "0", *auto)
    kept = Path("runs/shapes/measured/hardware.json").read_text()
    second = command("train", "--config", shapes, "--fold", "1", *auto)

    assert " images/s, " in first.out.split("measured on ")[1].split("\n")[0]
    assert first.out.split("measured on ")[1].split("\n")[0] == second.out.split("measured on ")[1].split("\n")[0]
    assert Path("runs/shapes/measured/hardware.json").read_text() == kept
    (chosen,) = checksums.read_json(Path("runs/shapes/measured/hardware.json")).values()
    assert len(chosen["rates"]) + len(chosen["left_out"]) == 4


def test_the_choice_is_told_in_plain_words() -> None:
    def why(chosen: str, rates: dict[str, float], **left_out: str) -> str:
        precision, layout = chosen.split()
        return Hardware("cpu", precision, layout, "here", rates, left_out).why()

    layouts = {"32-true contiguous": 31.2, "32-true channels_last": 34.4}
    assert why("32-true channels_last", layouts, bf16="not in this processor") == (
        "channels_last: 34 images/s, contiguous 31; bf16: not in this processor"
    )
    assert why("32-true contiguous", layouts | {"bf16-mixed contiguous": 20.0}) == (
        "32-true contiguous: 31 images/s, 32-true channels_last 34, bf16-mixed contiguous 20; "
        "the plainest within 10 % of the fastest"
    )
    assert why("32-true contiguous", {}) == "as the config says"


@pytest.mark.slow
def test_the_choice_is_explained_once_a_command(shapes: Path, command) -> None:
    words = ("--config", shapes, "--fold", "0,1", "train.epochs=1")
    done = command("train", *words)
    assert (done.out.count("tiny on cpu 32-true contiguous"), done.out.count("as the config says")) == (2, 1), done
    beside = command("train", *words, "--jobs", "2", "experiment=beside")
    assert (beside.out.count("beside on cpu"), beside.out.count("as the config says")) == (3, 1), beside


def test_a_choice_that_was_kept_before_reasons_were_is_still_read(tmp_path: Path) -> None:
    chosen = Hardware("cpu", "bf16-mixed", "channels_last", hardware.this_machine(), {"bf16-mixed channels_last": 9.0})
    old = {key: value for key, value in asdict(chosen).items() if key != "left_out"}
    checksums.write_json(tmp_path / "hardware.json", {hardware._key(CPU, "cpu"): old})

    assert hardware.for_inference(CPU, tmp_path / "hardware.json") == chosen


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ((100, 96, 105, 104), "32-true contiguous"),  # nothing to gain: plain
        ((100, 150, 105, 155), "32-true channels_last"),
        ((100, 98, 190, 200), "bf16-mixed contiguous"),  # formats are level: the same one each time
        ((100, 98, 150, 200), "bf16-mixed channels_last"),
        ((100, 98), "32-true contiguous"),  # the others were dropped
    ],
)
def test_more_than_plain_must_be_worth_it(
    rates: tuple[float, ...], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_bf16", lambda: True)
    options, _ = hardware._options(MachineConfig(), "cpu")
    names = [hardware._name(option) for option in options]

    best = hardware._plainest(options, dict(zip(names, rates, strict=False)))

    assert hardware._name(best) == chosen


def test_a_busy_moment_does_not_decide_on_the_hardware(clock: list[float]) -> None:
    plain, half = step(clock, 9.0, 1.0, 7.0, 1.0), step(clock, 9.0, 0.5, 0.5, 5.0)

    found = step_timing.quickest({"plain": plain, "half": half}, limit=30.0)

    assert found == step_timing.Timed({"plain": 1.0, "half": 0.5}, {})


def test_what_is_far_too_slow_is_dropped_after_one_step(clock: list[float]) -> None:
    slow = step(clock, 5.0)
    found = step_timing.quickest(
        {"plain": step(clock, 0.4, 0.1), "slow": slow, "good": step(clock, 1.1, 0.08)}, limit=2.0
    )

    assert found.dropped == {"slow": 12.5}
    assert found.seconds == pytest.approx({"plain": 0.1, "good": 0.08})  # whose first step was slow, as first steps are
    assert clock[0] < 7


def test_a_short_step_is_asked_again_before_it_is_dropped(clock: list[float]) -> None:
    disturbed = step(clock, 0.5, 0.05)  # the first time; both have a second each

    found = step_timing.quickest({"plain": step(clock, 0.1), "disturbed": disturbed}, limit=2.0)

    assert found.seconds == pytest.approx({"plain": 0.1, "disturbed": 0.05})


def test_no_time_is_lost_with_what_cannot_win(clock: list[float]) -> None:
    calls = []
    slow = step(clock, 0.4)

    step_timing.quickest({"slow": lambda: (calls.append(1), slow()), "quick": step(clock, 0.1)}, 8.0)

    assert len(calls) == 2  # the plainest of all, which is first, and is not dropped


def test_what_the_processor_cannot_do_is_not_tried(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    seen = tried(monkeypatch, clock, lambda option: 0.001)
    for known, precisions in (
        (False, {"32-true"}),
        (None, {"32-true", "bf16-mixed"}),
        (True, {"32-true", "bf16-mixed"}),
    ):
        monkeypatch.setattr(hardware, "has_bf16", lambda known=known: known)
        seen.clear()
        chosen = measured()
        assert {precision for precision, _ in seen} == precisions
        assert ("; bf16: not in this processor" in chosen.why()) == (known is False)


def test_nothing_is_tried_where_one_combination_is_left(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    seen = tried(monkeypatch, clock, lambda option: 0.001)
    monkeypatch.setattr(hardware, "has_bf16", lambda: False)

    chosen = measured(MachineConfig(memory_format="contiguous"))

    assert (str(chosen), seen) == ("cpu 32-true contiguous", [])
    assert chosen.why() == "as the config says; bf16: not in this processor"


def test_what_was_asked_for_is_used_though_the_processor_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "has_bf16", lambda: False)
    options, left_out = hardware._options(MachineConfig(precision="bf16-mixed"), "cpu")
    assert ({option.precision for option in options}, left_out) == ({"bf16-mixed"}, {})


def test_training_is_as_fast_as_its_fastest_combination(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    monkeypatch.setattr(hardware, "has_bf16", lambda: True)
    tried(monkeypatch, clock, lambda option: 0.02 if option.precision == "bf16-mixed" else 0.05)
    net = timm.create_model("test_resnet")
    assert hardware.training_rate(CPU, net, 32, 32) == pytest.approx(50)
    assert hardware.training_rate(MachineConfig(device="cpu", precision="32-true"), net, 32, 32) == pytest.approx(20)


def test_slow_16_bits_are_dropped_and_told(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    monkeypatch.setattr(hardware, "has_bf16", lambda: None)
    seen = tried(monkeypatch, clock, lambda option: 0.04 if option.precision == "32-true" else 0.8)

    chosen = measured()

    assert [precision for precision, _ in seen].count("bf16-mixed") == 2  # one step in each memory format
    assert chosen.precision == "32-true"
    assert "; bf16-mixed contiguous: its first step took 20 times as long; " in chosen.why()
    assert set(chosen.rates) == {"32-true contiguous", "32-true channels_last"}


@pytest.mark.parametrize(("seconds", "images"), [(0.001, 16), (0.02, 12), (0.05, 8), (0.1, 5), (10.0, 2)])
def test_as_many_images_are_tried_as_training_takes_where_the_time_allows_it(
    seconds: float, images: int, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    monkeypatch.setattr(hardware, "has_bf16", lambda: True)
    seen = tried(monkeypatch, clock, lambda option: seconds)

    chosen = measured(part=TrainConfig(batch=32, accumulate=2).part)

    assert {count for _, count in seen[2:]} == {images}  # after two steps that tell how many it may be
    assert chosen.rates["32-true contiguous"] == pytest.approx(1 / seconds)


def test_no_more_images_are_tried_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    net, option = timm.create_model("test_resnet").train(), Hardware("cpu", "32-true", "contiguous", "")
    monkeypatch.setattr(hardware, "SECONDS", 1e6)
    counted = []
    for free in (float("inf"), 1e8, 1.0):
        monkeypatch.setattr(hardware, "_free_memory", lambda device, free=free: free)
        counted.append(hardware._affordable(option, net, 64, most=32, steps=8))
    assert counted[0] == 32
    assert 2 < counted[1] < 32
    assert counted[2] == 2


def test_free_memory_is_known_here_or_not_limited() -> None:
    assert hardware._free_memory("cpu") > 1e6


@pytest.mark.integration
def test_a_trial_leaves_net_and_random_states_as_they_are() -> None:
    net = timm.create_model("test_resnet", drop_rate=0.5).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()

    hardware._measure(CPU, "cpu", net, 32, 32)

    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net.training
    assert all(weights.grad is None for weights in net.parameters())


def test_this_processor_is_known_to_torch() -> None:
    known = torch.cpu.get_capabilities()
    if known["architecture"] not in ("x86_64", "arm64", "aarch64"):
        pytest.skip(f"nothing is known of bf16 on {known['architecture']}")
    assert hardware.has_bf16() in (True, False)


def test_attention_is_not_fused_where_that_is_slow() -> None:
    net = timm.create_model("test_vit", num_classes=3).eval()
    attentions = [module for module in net.modules() if hasattr(module, "fused_attn")]
    seen = torch.randn(2, 3, 160, 160)

    def placed(bits: str) -> torch.Tensor:
        return hardware.Hardware("cpu", bits, "contiguous", "").place(net)(seen)

    exact = placed("32-true")
    assert all(module.fused_attn for module in attentions)
    torch.testing.assert_close(placed("bf16-mixed"), exact)  # the same net, whoever multiplies
    assert len(attentions) > 0
    assert not any(module.fused_attn for module in attentions)
