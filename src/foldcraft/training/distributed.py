"""Several processes that train one fold: who this one is, and how they wait for each other."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
PATIENCE = timedelta(hours=4)  # the others wait while the first builds caches and predicts


@dataclass(frozen=True)
class Processes:
    """This process's place among those that torchrun started."""

    rank: int = 0
    world: int = 1
    local_world: int = 1

    @property
    def is_first(self) -> bool:
        """The one that writes, prints and predicts."""
        return self.rank == 0

    def from_first(self, work: Callable[[], T]) -> T:
        """Let the first process do `work`, and hand its result (plain values) to all."""
        if self.world == 1:
            return work()
        box = [work() if self.is_first else None]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def mean(self, value: float) -> float:
        """The mean of every process's `value`."""
        if self.world == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return total.item() / self.world

    def barrier(self) -> None:
        """Wait until all are here; not by `dist.barrier`, which takes the GPU, of which several may have one."""
        self.mean(0.0)


def join() -> Processes:
    """Who this process is; joins the others when torchrun started several."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Processes()
    if torch.cuda.device_count():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    return Processes(dist.get_rank(), world, int(os.environ.get("LOCAL_WORLD_SIZE", world)))
