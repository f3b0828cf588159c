"""Device, precision and memory format, chosen by trying for two seconds what the machine is able to do."""

import copy
import logging
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional as F

from foldcraft.common import checksums, executor
from foldcraft.common.config import MachineConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import locked
from foldcraft.models.inputs import Inputs, channels_of, forward
from foldcraft.models.step_timing import Timed, clocked, quickest

Net = TypeVar("Net", bound=nn.Module)
SECONDS = 2.0
ENOUGH = 8  # images a step that tell the options apart nearly as training does; worth twice the time
FEWEST = 2  # of one image BatchNorm may have a single value a channel
WORTH_IT = 1.1  # how much faster fewer bits, or another format, must make training to be worth having
BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx_ne_convert", "bf16", "sve_bf16")  # as torch names them
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Hardware:
    """What a run computes on, and why.

    Attributes:
        rates: images/s of a training step for each combination that was tried.
        left_out: those that were not, or no further than one step, and why.
    """

    device: str
    precision: str
    memory_format: str
    machine: str
    rates: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.device} {self.precision} {self.memory_format}"

    def why(self) -> str:
        """What was chosen, what else was measured, and what was left out, in one line."""
        reasons = [f"{name}: {reason}" for name, reason in self.left_out.items()]
        return "; ".join([self._measured() if self.rates else "as the config says", *reasons])

    def _measured(self) -> str:
        own, names = _name(self), [name.split() for name in self.rates]
        differ = [place for place in (0, 1) if len({name[place] for name in names}) > 1] or [0, 1]
        called = {name: " ".join(name.split()[place] for place in differ) for name in self.rates}
        others = sorted((name for name in self.rates if name != own), key=lambda name: -self.rates[name])
        said = [f"{called[name]} {self.rates[name]:.0f}" for name in others]
        if own in self.rates:
            said.insert(0, f"{called[own]}: {self.rates[own]:.0f} images/s")
        plain = own in self.rates and max(self.rates.values()) > self.rates[own]
        return ", ".join(said) + ("; the plainest within 10 % of the fastest" if plain else "")

    @property
    def torch_memory_format(self) -> torch.memory_format:
        """The format as torch names it."""
        return torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """The context in which a net computes."""
        return torch.autocast(self.device, DTYPES[self.precision], enabled=self.precision != "32-true")

    def place(self, model: Net) -> Net:
        """The net itself, moved to the device and into the memory format, with the attention that is fast there.

        The backward pass of torch's fused attention takes longer in 16 bits on a processor than all the rest of a small
        transformer's step (`benchmarks/attention.py`).
        """
        if self.device == "cpu" and self.precision == "bf16-mixed":
            for module in model.modules():
                if getattr(module, "fused_attn", False):
                    module.fused_attn = False
        if self.device == "cuda":  # whatever is called 32-bit multiplies in TF32, as convolutions do by themselves
            torch.set_float32_matmul_precision("high")
        return model.to(self.device, memory_format=self.torch_memory_format)


def this_machine() -> str:
    """What a measurement is valid for: processor or GPU, threads, torch version."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return f"{platform.processor() or platform.machine()} {gpu} {torch.get_num_threads()} torch-{torch.__version__}"


def choose(machine: MachineConfig, model: nn.Module, size: int, part: int, memory: Path) -> Hardware:
    """The plainest combination for this net that is less than 10 % slower than the fastest, of those the config allows.

    Plain is 32-bit before 16, contiguous before channels_last. So near equals are not chosen by lot, and an experiment
    made anew has the same bits. The choice is kept in `memory`: all folds on one machine are computed alike.

    Args:
        size: of the images, in pixels.
        part: images that training puts through the net at once.

    Raises:
        FoldcraftError: the config names a device that is not there.
    """
    device = _device(machine.device)
    key = _key(machine, device)
    tune(device)
    with locked(memory.with_suffix(".lock")):  # folds that start side by side wait for one measurement
        kept = _recall(memory)
        if key not in kept:
            kept[key] = _measure(machine, device, model, size, part)
            checksums.write_json(memory, {key: asdict(value) for key, value in kept.items()}, indent=1)
    return kept[key]


def _measure(machine: MachineConfig, device: str, model: nn.Module, size: int, part: int) -> Hardware:
    options, left_out = _options(machine, device)
    if len(options) == 1:
        return replace(options[0], left_out=left_out)
    timed, batch = _timed(options, model, size, part)
    rates = {name: batch / seconds for name, seconds in timed.seconds.items()}
    left_out |= {name: f"its first step took {times:.0f} times as long" for name, times in timed.dropped.items()}
    return replace(_plainest(options, rates), rates=rates, left_out=left_out)


def training_rate(machine: MachineConfig, model: nn.Module, size: int, part: int) -> float:
    """Images/s of a training step in the fastest combination that the config allows; `choose` may take a plainer one.

    Args:
        size: of the images, in pixels.
        part: images that training puts through the net at once.

    Raises:
        FoldcraftError: the config names a device that is not there.
    """
    device = _device(machine.device)
    tune(device)
    timed, batch = _timed(_options(machine, device)[0], model, size, part)
    return batch / min(timed.seconds.values())


def for_inference(machine: MachineConfig, memory: Path) -> Hardware:
    """What the experiment uses on this machine if that is known, else plain 32-bit on the best device."""
    device = _device(machine.device)
    return _recall(memory).get(_key(machine, device), Hardware(device, "32-true", "contiguous", this_machine()))


def for_features(machine: MachineConfig, transformer: bool) -> Hardware:
    """What frozen features are computed on: 32-bit always, so that they are the same for every experiment."""
    layout = "contiguous" if transformer else "channels_last"
    return Hardware(_device(machine.device), "32-true", layout, this_machine())


def _key(machine: MachineConfig, device: str) -> str:
    return f"{this_machine()} {device} {machine.precision} {machine.memory_format}"


def _recall(memory: Path) -> dict[str, Hardware]:
    try:
        kept = {key: Hardware(**value) for key, value in checksums.read_json(memory).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return kept if all(_is_sound(value) for value in kept.values()) else {}


def _is_sound(kept: Hardware) -> bool:
    names = (kept.device, kept.precision, kept.memory_format, kept.machine)
    rates = kept.rates.values() if isinstance(kept.rates, dict) else [None]
    reasons = kept.left_out.values() if isinstance(kept.left_out, dict) else [None]
    words = all(isinstance(word, str) for word in (*names, *reasons))
    return words and all(isinstance(rate, float | int) for rate in rates)


def available_device() -> str:
    """The best kind of device that is there and computes."""
    if torch.cuda.is_available() and not failure("cuda"):
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@cache
def failure(device: str) -> str:
    """Why a device that is said to be there does not compute; nothing if it does, which is tried out once.

    torch calls a card available that it has no kernels for, one that is too old for it above all, and one whose memory
    others have filled.
    """
    try:
        ones = torch.ones(8, 8, device=device)
        if (ones @ ones).sum().item() == 8**3:
            return ""
        reason = "it adds up wrongly"
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
    card = torch.cuda.get_device_name() if device == "cuda" else device
    return f"{card} does not compute with torch {torch.__version__}: {reason}"


def _device(wanted: str) -> str:
    there = "cpu" if wanted == "cpu" else available_device()
    broken = failure("cuda") if there != "cuda" and wanted != "cpu" and torch.cuda.is_available() else ""
    if wanted not in ("auto", there):
        raise FoldcraftError(broken or f"{wanted} is not available here", "machine.device", "use auto or cpu")
    if broken:
        _warn(f"warning: {broken}; {there} is used")
    return there


@cache
def _warn(text: str) -> None:
    """Tell it once, whichever command it is and however quiet."""
    logging.getLogger(__name__).warning(text)


def tune(device: str) -> None:
    """Let cudnn try out its ways and keep the fastest: every batch of a training has the same shape."""
    if device == "cuda":
        torch.backends.cudnn.benchmark = True


def _options(wanted: MachineConfig, device: str) -> tuple[list[Hardware], dict[str, str]]:
    """What the config allows and the machine is able to do, the plainest first; what is left out, and why."""
    precisions, left_out = [wanted.precision], {}
    if wanted.precision == "auto":
        precisions = ["32-true"]
        if device == "cpu" and has_bf16() is False:
            left_out["bf16"] = "not in this processor"
        # What emulates bf16, as cards before Ampere do, is slower in it than in 32 bits, and fast in fp16.
        elif device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            precisions.append("16-mixed")
        else:
            precisions.append("bf16-mixed")
    formats = ["contiguous", "channels_last"] if wanted.memory_format == "auto" else [wanted.memory_format]
    machine = this_machine()
    return [Hardware(device, precision, layout, machine) for precision in precisions for layout in formats], left_out


def has_bf16() -> bool | None:
    """Can this processor compute in bf16? Without such instructions torch takes ten times as long as in 32 bits.

    None where torch does not know this kind of processor.
    """
    known = torch.cpu.get_capabilities()
    said = [known[name] for name in BF16_INSTRUCTIONS if name in known]
    return any(said) if said else None


def _name(option: Hardware) -> str:
    return f"{option.precision} {option.memory_format}"


def _plainest(options: Sequence[Hardware], rates: dict[str, float]) -> Hardware:
    enough = max(rates.values()) / WORTH_IT
    return next(option for option in options if rates.get(_name(option), 0) > enough)


def _timed(options: Sequence[Hardware], model: nn.Module, size: int, most: int) -> tuple[Timed, int]:
    """Seconds of forward and backward with each option, by its name, and the images that this was tried with.

    Net and random states stay as they are.

    Args:
        most: images that training puts through the net at once.
    """
    device = options[0].device
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
        nets = [option.place(copy.deepcopy(model)).train() for option in options]
        batch = _affordable(options[0], nets[0], size, most, steps=2 * len(options))
        images = torch.randn(batch, channels_of(model), size, size, device=device)
        steps = {
            _name(option): partial(try_step, net, images.to(memory_format=option.torch_memory_format), option)
            for option, net in zip(options, nets, strict=True)
        }
        return quickest(steps, SECONDS), batch


def _affordable(option: Hardware, net: nn.Module, size: int, most: int, steps: int) -> int:
    """How many images a step: as many as training takes, if so many steps fit into the time, and one into memory."""
    few = min(most, FEWEST if option.device == "cpu" else 32)
    images = torch.randn(few, channels_of(net), size, size, device=option.device).to(
        memory_format=option.torch_memory_format
    )
    kept = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        try_step(net, images, option)
    in_time = few * SECONDS / steps / clocked(partial(try_step, net, images, option))
    in_time = max(in_time, min(ENOUGH, 2 * in_time))
    in_memory = few * _free_memory(option.device) / (2 * max(1, kept))  # as much again for gradients and the like
    return min(most, max(FEWEST, int(min(in_time, in_memory))))


def _free_memory(device: str) -> float:
    """Bytes that can be had; infinite where that is not known."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    memory = Path("/proc/meminfo")
    if device != "cpu" or not memory.is_file():
        return math.inf
    lines = dict(line.split(":") for line in memory.read_text().splitlines())
    return 1024.0 * int(lines["MemAvailable"].split()[0])


def try_step(net: nn.Module, images: torch.Tensor, option: Hardware) -> None:
    """Forward and backward of one batch, the device waited for; for timing."""
    with option.autocast():
        logits = forward(net, Inputs(images))
    # any loss takes its time
    F.cross_entropy(logits, torch.zeros(len(images), dtype=torch.long, device=option.device)).backward()
    net.zero_grad()
    if option.device != "cpu":
        torch.accelerator.synchronize()


def cores() -> int:
    """Processor cores that this process may use."""
    here = len(executor.cores_here())
    told = os.environ.get("OMP_NUM_THREADS", "") if executor.IS_TASK in os.environ else ""
    return min(here, int(told)) if told.isdecimal() and int(told) else here
