"""Tasks on a Ray cluster of two machines: what they say, and what becomes of them when a machine is lost."""

import importlib.util
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray_ground
from ray_ground import Ground

from foldcraft.common import executor, ray_executor, shared_folder
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.executor import Task
from foldcraft.common.ray_executor import OnRay

BEGIN = "import os, time; open('begun-{name}', 'a').write('x'); "
WAIT = "\nwhile not os.path.exists('go'): time.sleep(0.05)"


def times_begun(name: str) -> int:
    file = Path(f"begun-{name}")
    return len(file.read_text()) if file.exists() else 0


def wait_for(happened: Callable[[], bool], seconds: float = 600.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with ray_ground.cluster() as made:
        yield made


@pytest.fixture
def place(ground: Ground, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnRay]:
    """The cluster, whose machines share the current folder."""
    import ray

    monkeypatch.setenv(shared_folder.VARIABLE, str(workplace))
    yield OnRay(ground.cluster.address, cores=1)
    ray.shutdown()


@pytest.mark.slow
def test_lines_and_codes_come_back_and_a_mistake_is_not_made_twice(place: OnRay, workplace: Path) -> None:
    tell = "import os; print(os.getcwd(), os.environ['OMP_NUM_THREADS'], os.environ['FOLDCRAFT_TASK'])"
    wrong = BEGIN.format(name="b") + "raise SystemExit(2)"
    said: list[str] = []
    codes = executor.run([Task("a", ["-c", tell]), Task("b", ["-c", wrong])], place, said.append)
    assert codes == {"a": 0, "b": 2}
    assert said == [f"[a] {workplace} 1 1"]
    assert times_begun("b") == 1


@pytest.mark.slow
def test_a_task_that_lost_its_machine_is_begun_again_on_one_that_joins_late(place: OnRay, ground: Ground) -> None:
    said: list[str] = []
    codes: dict[str, int] = {}
    tasks = [Task(name, ["-c", BEGIN.format(name=name) + WAIT]) for name in "ab"]
    running = threading.Thread(target=lambda: codes.update(executor.run(tasks, place, said.append)))
    running.start()
    wait_for(lambda: times_begun("a") == times_begun("b") == 1)
    ground.kill(ground.machines.pop())
    wait_for(lambda: len(said) == 1)
    assert re.fullmatch(r"\[[ab]\] its machine was lost \(127.0.0.\d\); it is begun again .*\(loss 1\)", said[0])
    assert times_begun("a") + times_begun("b") == 2, "there is no room for it yet"
    ground.machines.append(ground.add())
    wait_for(lambda: times_begun("a") + times_begun("b") == 3)
    Path("go").touch()
    running.join(60)
    assert codes == {"a": 0, "b": 0}


@pytest.mark.slow
def test_what_is_killed_again_and_again_is_given_up(place: OnRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_executor, "IN_A_ROW", 2)
    said: list[str] = []
    kill = BEGIN.format(name="a") + "os.kill(os.getpid(), 9)"
    assert executor.run([Task("a", ["-c", kill])], place, said.append) == {"a": -signal.SIGKILL}
    assert times_begun("a") == 2
    assert said[-1] == "[a] error: its process was killed by signal 9; given up after 2 losses"


@pytest.mark.slow
def test_what_takes_too_long_is_ended_and_so_is_all_where_nobody_listens(place: OnRay, ground: Ground) -> None:
    beat = BEGIN.format(name="a") + "\nwhile True: open('beat', 'a').write('x'); time.sleep(0.1); print('on')"

    def is_over() -> bool:
        before = Path("beat").stat().st_size
        time.sleep(0.5)
        return Path("beat").stat().st_size == before

    late = OnRay(place.address, cores=1, seconds=20.0)
    assert executor.run([Task("a", ["-c", beat])], late, lambda line: None) == {"a": -signal.SIGTERM}
    wait_for(is_over, 20)

    def fail(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        executor.run([Task("a", ["-c", beat])], place, fail)
    wait_for(is_over, 20)


@pytest.mark.slow
def test_more_cores_than_any_machine_has_are_told(place: OnRay) -> None:
    said: list[str] = []
    short = OnRay(place.address, cores=64, seconds=1.0)
    assert executor.run([Task("a", ["-c", ""])], short, said.append) == {"a": -signal.SIGTERM}
    assert said == [
        "note: no machine of the cluster has 64 cores (the largest has 1): waiting for one to join; "
        "--cores N asks for fewer"
    ]


@pytest.mark.slow
def test_each_task_has_a_gpu_of_its_own_where_there_are_some(place: OnRay, ground: Ground) -> None:
    machine = ground.add(cores=2, gpus=2)
    tell = (
        "import os; from pathlib import Path\n"
        "Path(f'gpu-{os.environ[\"CUDA_VISIBLE_DEVICES\"]}').touch()\n"
        "while len(list(Path().glob('gpu-*'))) < 2: pass"
    )
    try:
        tasks = [Task("a", ["-c", tell]), Task("b", ["-c", tell])]
        assert executor.run(tasks, place, lambda line: None) == {"a": 0, "b": 0}
        assert {path.name for path in Path().glob("gpu-*")} == {"gpu-0", "gpu-1"}
        none = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES', 'all'))"
        said: list[str] = []
        executor.run([Task("c", ["-c", none], gpus=0)], place, said.append)
        assert said == ["[c] "], "who asks for none sees none"
    finally:
        ground.kill(machine)


def test_without_ray_and_without_a_cluster_one_line_says_so(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(shared_folder.VARIABLE, str(workplace))
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    if importlib.util.find_spec("ray"):
        with pytest.raises(FoldcraftError, match=r"--on ray:127.0.0.5:\d+: no Ray cluster answers") as error:
            ray_executor.connect(f"127.0.0.5:{closed}")
        assert len(str(error.value)) < 300
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(FoldcraftError, match=r"pip install -r requirements-ray\.txt"):
        ray_executor.connect("auto")
