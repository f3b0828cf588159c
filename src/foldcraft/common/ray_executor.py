"""Tasks on a Ray cluster. The only module that imports Ray, and only when it is asked to.

Ray finds a machine that has what a task asks for. There the task's command runs as it would here: in the same folder,
with as many threads as it has cores. A task whose machine is lost is begun again on another one, and goes on from its
last epoch, which lies in the run folder.
"""

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from foldcraft.common import executor, files, shared_folder
from foldcraft.common.cluster_node import Order, code_digest
from foldcraft.common.errors import FoldcraftError, shorten
from foldcraft.common.executor import Say, Task

IN_A_ROW = 5  # losses, each within SOON of its beginning, after which a task is given up
IN_ALL = 50  # losses after which it is given up, however far it came each time
SOON = 600.0  # seconds
LOOPBACK = ("localhost", "127.0.0.1")
LOST = -signal.SIGKILL  # exit code of a task that is given up


class MachineLost(Exception):
    """What a task ran on is gone."""


@dataclass(frozen=True)
class OnRay:
    """A Ray cluster: each task on a machine that has the cores, and the GPU, that it asks for.

    Attributes:
        address: of the cluster, host:port; "auto": the one that this machine belongs to.
        cores: for a task that does not say how many it wants.
        jobs: tasks at a time at most; None: as many as there is room for.
        seconds: that all of it may take, as of `SideBySide`.
    """

    address: str = "auto"
    cores: int = 2
    jobs: int | None = None
    seconds: float | None = None

    def run(self, tasks: Sequence[Task], say: Say) -> dict[str, int]:
        """As `Executor.run`; a task that was lost too often has the code of one that was killed.

        Raises:
            FoldcraftError: Ray is not installed; no cluster is there; the folder is not one that machines share.
        """
        ray = connect(self.address)
        gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
        tasks = [
            replace(
                task,
                cores=self.cores if task.cores is None else task.cores,
                gpus=gpus if task.gpus is None else min(task.gpus, gpus),
            )
            for task in tasks
        ]
        _tell_of_room(ray, tasks, say)
        return asyncio.run(self._run(_Cluster(ray, _remote(ray), say), tasks))

    async def _run(self, cluster: "_Cluster", tasks: Sequence[Task]) -> dict[str, int]:
        places = asyncio.Semaphore(self.jobs or len(tasks) or 1)
        codes = {task.name: int(-signal.SIGTERM) for task in tasks}

        async def work(task: Task) -> None:
            async with places:
                codes[task.name] = await cluster.finish(task)

        with suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                await asyncio.gather(*map(work, tasks))
        return codes


@dataclass(frozen=True)
class _Cluster:
    """A cluster that this process is connected to.

    Attributes:
        remote: what its machines run; made once, as Ray sends every one that is made to all of them.
    """

    ray: ModuleType
    remote: Any
    say: Say

    async def finish(self, task: Task) -> int:
        """Run a task until it ends by itself, however often its machine is lost; its exit code."""
        soon = 0
        for losses in range(1, IN_ALL + 1):
            began = time.monotonic()
            try:
                return await self._attempt(task)
            except MachineLost as lost:
                soon = soon + 1 if time.monotonic() - began < SOON else 0
                if soon >= IN_A_ROW or losses == IN_ALL:
                    self.say(f"[{task.name}] error: {lost}; given up after {losses} losses")
                    return LOST
                self.say(f"[{task.name}] {lost}; it is begun again elsewhere and goes on (loss {losses})")
                await asyncio.sleep(min(soon, 5))
        return LOST

    async def _attempt(self, task: Task) -> int:
        """Run a task once; its exit code.

        Raises:
            MachineLost: it did not come to its end.
        """
        code: int | None = None
        async for said in self._lines(task):
            if isinstance(said, int):
                code = said
            else:
                self.say(f"[{task.name}] {said}")
        if code == files.LOCK_LOST:
            raise MachineLost("a lock was taken over, as its machine seemed dead")
        if code is None or code < 0:
            raise MachineLost("its process was killed" + (f" by signal {-code}" if code else ""))
        return code

    async def _lines(self, task: Task) -> AsyncIterator[str | int]:
        """What a task says, its exit code last. The task is ended where nobody listens any more."""
        wanted = self.remote.options(num_cpus=task.cores, num_gpus=task.gpus, name=f"foldcraft {task.name}")
        running = wanted.remote(str(Path(__file__).parents[2]), asdict(_order(task)))
        ended = False
        try:
            async for said in running:
                yield await said
            ended = True
        except self.ray.exceptions.RayTaskError as error:  # our own code failed there
            what = shorten(str(error.cause or error).strip().splitlines()[-1], 200)
            yield f"error: a machine of the cluster is not set up: {what}"
            yield 1
            ended = True
        except self.ray.exceptions.RayError as error:
            ended = True
            raise MachineLost(_told(error)) from None
        finally:
            if not ended:
                with suppress(Exception):
                    self.ray.cancel(running, force=True)


def _remote(ray: ModuleType) -> Any:
    """What a machine of the cluster runs. A function within a function travels whole, and finds the package itself."""

    def on_machine(source: str, order: dict[str, Any]) -> Iterator[str | int]:

        import ray

        sys.path[:0] = [] if source in sys.path else [source]
        from foldcraft.common import cluster_node

        me = ray.get_runtime_context().get_node_id()
        owned = next((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["NodeID"] == me), 0)
        yield from cluster_node.carry_out(cluster_node.Order(**order), owned)

    return ray.remote(max_retries=0)(on_machine)


def _order(task: Task) -> Order:
    shared = shared_folder.settle()
    ours = {name: value for name, value in os.environ.items() if name.startswith("FOLDCRAFT_")}
    threads = {"OMP_NUM_THREADS": str(max(1, task.cores or 1))}
    no_gpu = {} if task.gpus else {"CUDA_VISIBLE_DEVICES": ""}  # Ray hides none of them, and they may be another's
    environment = {**ours, **executor.HEARD, **threads, **no_gpu}
    mark = shared_folder.mark_of(shared)
    return Order(
        list(task.words), os.getcwd(), str(shared), mark, code_digest(task.words[0]), environment, task.cores or 1
    )


def _told(error: Exception) -> str:
    """In a few words what became of the machine."""
    found = re.search(r"\bIP: ([\w.:]*\w)", str(error))
    kinds = {"NodeDiedError": "its machine was lost", "OutOfMemoryError": "its machine ran out of memory"}
    what = kinds.get(type(error).__name__, f"its process was lost ({type(error).__name__})")
    return f"{what} ({found[1]})" if found else what


def _tell_of_room(ray: ModuleType, tasks: Sequence[Task], say: Say) -> None:
    """Say where no machine of the cluster has what a task asks for: it waits for one that joins."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for cores, gpus in dict.fromkeys((task.cores, task.gpus) for task in tasks):
        if not any(node.get("CPU", 0) >= cores and node.get("GPU", 0) >= gpus for node in nodes):
            most = max((int(node.get("CPU", 0)) for node in nodes), default=0)
            say(
                f"note: no machine of the cluster has {cores} cores{' and a GPU' if gpus else ''} (the largest has "
                f"{most}): waiting for one to join; --cores N asks for fewer"
            )


def connect(address: str) -> ModuleType:
    """Ray, connected to a cluster; once a process.

    Raises:
        FoldcraftError: Ray is not installed, or of another version than the cluster's; no cluster is there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        hint = "pip install -r requirements-ray.txt"
        raise FoldcraftError("Ray is not installed", "--on ray", hint) from None
    shared_folder.settle()
    if ray.is_initialized():
        return ray
    _check_reachable(ray, address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError, ray.exceptions.RayError) as error:
        raise _no_cluster(address, error) from None
    return ray


def _check_reachable(ray: ModuleType, address: str) -> None:
    """See that something listens at an address: Ray tries for minutes, and says much meanwhile.

    Raises:
        FoldcraftError: nothing does.
    """
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    host, _, port = named.rpartition(":")
    if not host:
        return
    host = ray.util.get_node_ip_address() if host in LOOPBACK else host  # as Ray itself takes it
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(named, error) from None


def _no_cluster(address: str, error: Exception) -> FoldcraftError:
    what = shorten(" ".join(str(error).split()), 110)
    hint = "start one by `ray start --head`, or name it: --on ray:HOST:PORT"
    return FoldcraftError(f"no Ray cluster answers: {what}", f"--on ray:{address}", hint)
