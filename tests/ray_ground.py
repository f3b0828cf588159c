"""A Ray cluster of several machines on this one, all of them on loopback addresses."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

MEMORY = 80 << 20  # bytes of each machine's object store, which only lines pass through


class Ground:
    """A cluster whose machines have a core each; the head has none.

    Each machine has an address of its own: Ray takes 127.0.0.1 for the machine's outer address.
    """

    def __init__(self, machines: int) -> None:
        from ray.cluster_utils import Cluster

        self._last = 1
        head = {"num_cpus": 0, "include_dashboard": False, **self._common()}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.machines = [self.add() for _ in range(machines)]
        self.on = f"ray:{self.cluster.address}"

    def _common(self) -> dict[str, Any]:
        self._last += 1
        return {"object_store_memory": MEMORY, "node_ip_address": f"127.0.0.{self._last}"}

    def add(self, cores: int = 1, gpus: int = 0, **about: Any) -> Any:
        """One more machine; of its GPUs it has but the numbers."""
        return self.cluster.add_node(num_cpus=cores, num_gpus=gpus, **self._common(), **about)

    def kill(self, machine: Any) -> None:
        """Let a machine vanish."""
        self.cluster.remove_node(machine, allow_graceful=False)


@contextmanager
def cluster(machines: int = 2) -> Iterator[Ground]:
    """A cluster while the test runs; the test is skipped where Ray is not installed."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-ray.txt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else whatever else the machine does comes first
        patch.setenv("RAY_SCHEDULER_EVENTS", "0")
        import ray

        ground = Ground(machines)
        try:
            yield ground
        finally:
            ray.shutdown()
            ground.cluster.shutdown()
            for name in [name for name in os.environ if name in ("RAY_ADDRESS",)]:
                del os.environ[name]
            sys.stdout.flush()
