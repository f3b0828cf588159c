"""What a GPU changes, as far as a machine without one can tell."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from lightning_fabric import Fabric
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config, FinetuneConfig, MachineConfig, OptimConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data import loader
from foldcraft.data.images.image_cache import ImageStore
from foldcraft.data.loader import Batch, TrainImages
from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.single import SingleLabel
from foldcraft.metrics.scores import METRICS
from foldcraft.models import finetune, hardware, preprocessing
from foldcraft.models.backbones import Blueprint
from foldcraft.models.hardware import Hardware
from foldcraft.models.inputs import Inputs
from foldcraft.predictions import inference
from foldcraft.training import trainer as trainer_module
from foldcraft.training.distributed import Processes


@pytest.fixture
def broken_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A card that is said to be there and fails at its first operation, as one does that torch has no kernels for."""
    real = torch.ones

    def ones(*args, device: str = "cpu", **more) -> torch.Tensor:
        if device == "cuda":
            raise torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device\nmore")
        return real(*args, device=device, **more)

    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla P100")
    for kept in (hardware.failure, hardware._warn):
        kept.cache_clear()
    yield
    for kept in (hardware.failure, hardware._warn):
        kept.cache_clear()


def test_a_card_that_does_not_compute_is_named_and_left_alone(
    shapes: Path, command, broken_card, caplog: pytest.LogCaptureFixture
) -> None:
    probe = ["finetune.mode=linear_probe", "experiment=probe"]  # torch's optimizers ask the card themselves
    command("split", "--config", shapes)
    done = command("train", "--config", shapes, "--fold", "0,1", "machine.device=auto", *probe)
    asked_for = command("train", "--config", shapes, "--fold", "2", "machine.device=cuda", *probe)

    assert done.code == 0
    (told,) = caplog.messages
    assert re.fullmatch(r"warning: Tesla P100 does not .* CUDA error: no kernel image is [^\n]*; cpu is used", told)
    assert asked_for.code == 2
    assert asked_for.err.startswith("error: machine.device: Tesla P100 does not compute")
    assert asked_for.err.count("\n") == 1


@pytest.mark.parametrize(("emulates", "half"), [(True, "16-mixed"), (False, "bf16-mixed")])
def test_a_card_that_emulates_bf16_is_tried_in_fp16(monkeypatch: pytest.MonkeyPatch, emulates: bool, half: str) -> None:
    def is_supported(including_emulation: bool = True) -> bool:
        return including_emulation or not emulates

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(hardware, "this_machine", str)
    assert {option.precision for option in hardware._options(MachineConfig(), "cuda")[0]} == {"32-true", half}


def test_32_bits_are_the_same_before_training_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_float32_matmul_precision()
    Hardware("cuda", "32-true", "contiguous", "").place(nn.Identity())
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    assert precision == "high"


def test_no_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config = Config.model_validate({"experiment": "x", "competition": {"name": "x"}, "backbone": {"name": "test_vit"}})
    with pytest.raises(FoldcraftError, match="2 processes and 1 GPU; start one process a GPU"):
        trainer_module._check(config, nn.Identity(), Hardware("cuda", "32-true", "contiguous", ""), Processes(0, 2, 2))


@pytest.mark.parametrize(
    ("words", "where"),
    [
        ("CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has 1.00 GiB free.\nmore", "train.batch: CUDA out of"),
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "machine.workers: DataLoader worker (pid 7)"),
        ("[pair.cc:5] gloo: Connection closed by peer [::1]:5", "torchrun: another process of this training has ended"),
    ],
)
def test_a_machine_that_is_too_small_is_told_in_one_line(
    shapes: Path, command, monkeypatch: pytest.MonkeyPatch, words: str, where: str
) -> None:
    kind = torch.OutOfMemoryError if "CUDA" in words else RuntimeError

    def fails(*_: object) -> None:
        raise kind(words)

    monkeypatch.setattr(trainer_module.Trainer, "step", fails)
    command("split", "--config", shapes)
    done = command("train", "--config", shapes, "--fold", "0")
    assert done.code == 2
    assert done.err.startswith(f"error: {where}")
    assert done.err.count("\n") == 1


def test_a_worker_that_dies_ends_the_training_in_one_line(
    shapes: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainImages, "_batch", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    command("split", "--config", shapes)
    done = command("train", "--config", shapes, "--fold", "0", "machine.workers=1")
    assert done.code == 2
    assert done.err.startswith("error: machine.workers: DataLoader worker")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("room", [0, 1, 250, 300, 310, 400, 1050, 1800, 6600, 10**9])
def test_batches_that_wait_find_room(room: int) -> None:
    for workers in (1, 2, 3, 7, 16):
        fitting, ahead = loader.in_flight(workers, 100, room)
        assert 0 <= fitting <= workers
        assert not fitting or 1 <= ahead <= loader.AHEAD
        assert not fitting or (fitting * ahead + 2) * 100 <= room
        if room >= (workers + 2) * 100:
            assert fitting == workers
        if room >= (workers * loader.AHEAD + 2) * 100:
            assert ahead == loader.AHEAD


def test_too_little_shared_memory_is_told_and_gets_fewer_workers(
    shapes: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = 8 * 16 * 16 * 3
    monkeypatch.setattr(loader, "shared_room", lambda: 3 * batch)
    command("split", "--config", shapes)
    done = command("train", "--config", shapes, "--fold", "0", "machine.workers=2", "train.epochs=1")
    assert done.code == 0
    assert "warning: /dev/shm has room for the batches of 1 of 2 workers; give it more" in " ".join(done.out.split())


def test_a_batch_that_finds_no_room_ends_the_training(shapes: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch hands batches over in a thread; what goes wrong there goes unheard, and training waits for ever."""

    def full(*_: object) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", full)
    command("split", "--config", shapes)
    done = command("train", "--config", shapes, "--fold", "0", "machine.workers=1")
    assert done.code == 2
    assert re.match(r"error: /dev/shm: .*No space left on device.*; give it more \(docker run", done.err)
    assert done.err.count("\n") == 1


def test_the_device_gets_its_next_batch_before_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "BATCH", 4)
    seen: list[str] = []

    def computed(_: nn.Module, inputs: Inputs, __: Hardware) -> torch.Tensor:
        seen.append(f"began {inputs.images[0, 0]:.0f}")
        return inputs.images

    pictures = SimpleNamespace(key=(), at=lambda rows: torch.tensor(rows)[:, None])
    cpu = Hardware("cpu", "32-true", "contiguous", "")
    monkeypatch.setattr(inference._SharedViews, "_look", lambda _, images, view, hardware: images)
    member = inference.InferenceModel(nn.Identity(), torch.Tensor.float, cpu, pictures, ("identity",), computed)
    found = []
    for places, (result,) in inference.sweep([member], np.arange(10)):
        seen.append(f"got {places.start}")
        found.append(result[0, :, 0])
    assert torch.equal(torch.cat(found), torch.arange(10.0))
    assert seen == ["began 0", "began 4", "got 0", "began 8", "got 4", "got 8"]


class Crossings(TorchDispatchMode):
    """Notes what crosses over between processor and GPU, and each number that the program waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        before = {arg.device.type for arg in args if isinstance(arg, torch.Tensor)}
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "equal"):
            self.seen.append(name)
        elif isinstance(result, torch.Tensor) and before and before != {result.device.type}:
            self.seen.append(f"{tuple(result.shape)} to {result.device.type}")
        return result


def on_fake_gpu(model: nn.Module) -> nn.Module:
    """The net with tensors that say they are on a GPU and hold nothing; inside a `FakeTensorMode`."""
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(torch.empty(value.shape, device="cuda"))
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = torch.empty(value.shape, dtype=value.dtype, device="cuda")
    return model


def fake_gpu_trainer(
    monkeypatch: pytest.MonkeyPatch, model: nn.Module, **sections: dict[str, Any]
) -> trainer_module.Trainer:
    """A trainer on a fake GPU. Only the backward pass is left out: autograd asks for a real one."""
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device=None: generator())
    monkeypatch.setattr(Hardware, "place", lambda _, net: net)
    monkeypatch.setattr(trainer_module, "_fabric", lambda *_: Fabric(accelerator="cpu"))
    monkeypatch.setattr(Fabric, "_move_model_to_device", lambda _, model, optimizers: model)
    preprocessing._in_bytes.cache_clear()
    settings = {"experiment": "x", "competition": {"name": "x"}, "backbone": {"name": "test", "weights": "none"}}
    config = Config.model_validate({**settings, "images": {"size": 32}, **sections})
    rows = np.arange(16)
    store = ImageStore(np.zeros((16, 32, 32, 3), np.uint8), Path("pixels.npy"))
    target = SingleLabel.of("label", Classes(("0", "1", "2")), rows % 3)
    task = trainer_module.Task(
        "x", config, store, rows.astype(str), target, rows, rows, METRICS["accuracy"], Path("a"), Path("b")
    )
    blueprint = Blueprint("timm", "test", {}, (0.5,) * 3, (0.5,) * 3, "bicubic", 1.0, "none")
    gpu = Hardware("cuda", "32-true", "channels_last", "")
    trainer = trainer_module.Trainer(task, on_fake_gpu(model), blueprint, gpu, Processes(), Callback())

    def backward(_: torch.Tensor) -> None:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)

    trainer.fabric.backward = backward
    finetune.unfreeze_for_epoch(model, config.finetune, 0)
    finetune.train_mode(model, config.finetune)
    return trainer


@pytest.mark.integration
@pytest.mark.parametrize(
    "sections",
    [
        {"train": {"batch": 8}},
        {
            "train": {"batch": 8, "imbalance": "weighted"},
            "regularize": {"label_smoothing": 0.05},
            "augment": {"mixup": 0.4},
        },
        {"train": {"batch": 8, "imbalance": "logit_adjusted", "accumulate": 2}, "augment": {"cutmix": 1.0}},
        {"train": {"batch": 8, "imbalance": "focal"}, "optim": {"swa": 0.5}, "finetune": {"unfreeze_epochs": 2}},
    ],
)
@pytest.mark.parametrize("net", ["test_resnet", "test_vit"])
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_a_step_on_a_gpu_waits_for_nothing(monkeypatch: pytest.MonkeyPatch, net: str, sections: dict) -> None:
    size = {"img_size": 32} if net == "test_vit" else {}
    model = timm.create_model(net, num_classes=3, **size)
    batch = Batch(torch.zeros(8, 32, 32, 3, dtype=torch.uint8), torch.zeros(8, dtype=torch.long), torch.arange(8))
    with FakeTensorMode(allow_non_fake_inputs=True):
        trainer = fake_gpu_trainer(monkeypatch, model, **sections)
        trainer.step(batch, 0)
        with Crossings() as crossings:
            loss = trainer.step(batch, 1)
    assert loss.device.type == "cuda"
    assert sorted(crossings.seen) == ["(8, 32, 32, 3) to cuda", "(8,) to cuda"]


@pytest.mark.parametrize(("scaled", "fused"), [(False, True), (True, None)])
def test_the_optimizer_takes_one_pass_on_a_gpu(scaled: bool, fused: bool | None) -> None:
    """Fused, but where fp16 has the gradients scaled: Fabric cannot clip those of a fused optimizer."""
    model = timm.create_model("test_resnet", num_classes=3)
    with FakeTensorMode():
        made = finetune.create_optimizer(on_fake_gpu(model), FinetuneConfig(), OptimConfig(), False, scaled)
    assert made.defaults["fused"] is fused


@pytest.mark.parametrize(
    ("epoch_takes", "writing_takes", "written"),
    [(20.0, 1.0, [1, 2, 3, 4, 5]), (3.0, 1.0, [1, 5]), (0.01, 0.05, [1, 2, 3, 4, 5])],
)
def test_a_state_is_written_when_it_takes_a_tenth_of_the_time(
    shapes: Path,
    command,
    monkeypatch: pytest.MonkeyPatch,
    epoch_takes: float,
    writing_takes: float,
    written: list[int],
) -> None:
    clock, epochs = [100.0], []
    train_epoch, save_state = trainer_module.Trainer.train_epoch, trainer_module.checkpoint.save_state

    def trains(trainer: trainer_module.Trainer) -> float:
        clock[0] += epoch_takes
        return train_epoch(trainer)

    def writes(path: Path, state: dict[str, Any]) -> None:
        clock[0] += writing_takes
        epochs.append(state["epoch"])
        save_state(path, state)

    monkeypatch.setattr(trainer_module, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(trainer_module.Trainer, "train_epoch", trains)
    monkeypatch.setattr(trainer_module.checkpoint, "save_state", writes)
    command("split", "--config", shapes)
    done = command("train", "--config", shapes, "--fold", "0", "train.epochs=5")
    assert done.code == 0
    assert epochs == written
