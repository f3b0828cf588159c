"""Tasks that run on this machine, each a process of its own."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from foldcraft.common import executor
from foldcraft.common.executor import Say, SideBySide, Task

THREADS = "import os; print(os.environ['OMP_NUM_THREADS'])"
GPU = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"

NEVER = 600  # seconds


def tasks(*codes: str) -> list[Task]:
    return [Task(f"t{number}", ["-c", code]) for number, code in enumerate(codes)]


def test_each_line_has_its_task_before_it_and_codes_come_by_name() -> None:
    said: list[str] = []
    some = tasks("print('a'); print('b')", "raise SystemExit(3)", "print('c')")
    codes = executor.run(some, SideBySide(2), said.append)
    assert codes == {"t0": 0, "t1": 3, "t2": 0}
    assert sorted(said) == ["[t0] a", "[t0] b", "[t2] c"]


def test_a_task_that_is_killed_has_the_signal_for_a_code() -> None:
    codes = executor.run(tasks("import os; os.kill(os.getpid(), 9)", "pass"), SideBySide(1), lambda line: None)
    assert codes == {"t0": -9, "t1": 0}


def test_what_takes_too_long_is_ended_and_the_rest_is_not_begun(tmp_path: Path) -> None:
    never = f"open({str(tmp_path / 'begun')!r}, 'w')"
    codes = executor.run(
        tasks(f"import time; time.sleep({NEVER})", never), SideBySide(1, seconds=1.0), lambda line: None
    )
    assert codes == {"t0": -signal.SIGTERM, "t1": -signal.SIGTERM}
    assert not (tmp_path / "begun").exists()


def test_one_job_is_one_after_another(tmp_path: Path) -> None:
    alone = "import os, sys, time; os.mkdir('busy'); time.sleep(0.1); os.rmdir('busy')"
    script = tmp_path / "alone.py"
    script.write_text(f"import os; os.chdir({str(tmp_path)!r})\n{alone}")
    codes = executor.run([Task(str(k), [str(script)]) for k in range(3)], SideBySide(), lambda line: None)
    assert set(codes.values()) == {0}, "no two were in there at once"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are shared out on Linux")
def test_cores_are_shared_out() -> None:
    here = sorted(os.sched_getaffinity(0))
    shares = [executor.share_of_cores(slot, 2) for slot in range(2)]
    assert set().union(*shares) == set(here)
    assert len(here) == 1 or not shares[0] & shares[1]
    assert all(executor.share_of_cores(slot, 5 * len(here)) for slot in range(5 * len(here)))
    said: list[str] = []
    executor.run(tasks(THREADS), SideBySide(len(here)), said.append)
    assert said == ["[t0] 1"]
    assert here == sorted(os.sched_getaffinity(0)), "those of this process are as they were"


def test_each_job_has_a_gpu_of_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def gpus(count: int) -> set[str]:
        said: list[str] = []
        executor.run(tasks(GPU, GPU), SideBySide(2, count), said.append)
        return {line.split()[1] for line in said}

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus(0) == {"None"}
    assert gpus(2) <= {"0", "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert gpus(1) == {"5"}


def test_what_fails_here_ends_the_tasks_that_run() -> None:
    def fail(line: str) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        executor.run(tasks(f"import time; print('on', flush=True); time.sleep({NEVER})"), SideBySide(1), fail)
    assert time.monotonic() - began < NEVER, "it was not waited for"


def test_another_place_needs_one_method() -> None:
    class Elsewhere:
        def run(self, tasks: Sequence[Task], say: Say) -> dict[str, int]:
            return {task.name: len(task.words) for task in reversed(tasks)}

    assert list(executor.run(tasks("", ""), Elsewhere(), print).items()) == [("t0", 2), ("t1", 2)]
    with pytest.raises(ValueError, match="share names"):
        executor.run([Task("a", []), Task("a", [])], SideBySide(), print)
