"""Where a command's tasks run, as its options say: on this machine, or on a cluster."""

import re
from dataclasses import dataclass

from foldcraft.common.errors import FoldcraftError
from foldcraft.common.executor import Executor, SideBySide
from foldcraft.common.ray_executor import OnRay

HERE = "here"
PLACE = re.compile(r"ray(:[^\s/]+:\d+|:auto)?")
CORES = 2  # of a task on a cluster


@dataclass(frozen=True)
class Place:
    """Where tasks run.

    Attributes:
        on: "here", or "ray", or "ray:HOST:PORT".
        jobs: tasks at a time; None: one here, on a cluster as many as there is room for.
        cores: that a task has on a cluster; results on a processor depend on them, so no cluster chooses them.
    """

    on: str = HERE
    jobs: int | None = None
    cores: int = CORES

    @classmethod
    def of(cls, on: str, jobs: int | None, cores: int | None) -> "Place":
        """The place that options name.

        Raises:
            FoldcraftError: they name none.
        """
        if on != HERE and not PLACE.fullmatch(on):
            raise FoldcraftError(f"{on!r} is no place", "--on", "use ray, or ray:HOST:PORT, or leave it out")
        if jobs is not None and jobs < 1:
            raise FoldcraftError(f"{jobs} is not a number of jobs", "--jobs", "use 1 or more")
        if cores is not None and cores < 1:
            raise FoldcraftError(f"{cores} is not a number of cores", "--cores", "use 1 or more")
        if cores is not None and on == HERE:
            raise FoldcraftError("goes with --on ray", "--cores", "here the cores are shared out among --jobs")
        return cls(on, jobs, cores or CORES)

    @property
    def is_cluster(self) -> bool:
        return self.on != HERE

    def at_once(self, most: int) -> int:
        """How many of `most` tasks are begun together: never what the cluster happens to have, which may change."""
        return self.jobs or (most if self.is_cluster else 1)

    def executor(self, gpus: int, seconds: float | None = None) -> Executor:
        """What runs tasks there.

        Args:
            gpus: how many this process may use on this machine.
            seconds: that all of them may take.
        """
        if not self.is_cluster:
            return SideBySide(self.jobs or 1, gpus, seconds)
        return OnRay(self.on.partition(":")[2] or "auto", self.cores, self.jobs, seconds)
