"""What a machine of a cluster does for a task; no cluster is needed for that."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from foldcraft.common import cluster_node, shared_folder
from foldcraft.common.cluster_node import Order
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.places import Place
from foldcraft.common.ray_executor import OnRay

SAY = "import os; print(os.getcwd(), os.environ['WORD'], len(os.sched_getaffinity(0))); raise SystemExit(5)"


@pytest.fixture
def order(workplace: Path) -> Order:
    mark = shared_folder.mark_of(workplace)
    return Order(["-c", SAY], str(workplace), str(workplace), mark, "", {"WORD": "word"}, cores=1)


def test_it_runs_where_it_shall_and_says_how_it_ended(order: Order) -> None:
    everything = len(os.sched_getaffinity(0))
    assert list(cluster_node.carry_out(order, everything)) == [f"{order.folder} word 1", 5]
    assert list(cluster_node.carry_out(order, 0)) == [f"{order.folder} word {everything}", 5], "the system shares out"


@pytest.mark.parametrize("folder", ["none", "another"])
def test_a_machine_that_sees_another_folder_is_told(order: Order, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setattr(shared_folder, "PATIENCE", 0.1)
    if folder == "another":
        Path("another").mkdir()
        shared_folder.mark_of(Path("another"))
    *lines, code = cluster_node.carry_out(replace(order, shared=f"{order.shared}/{folder}"), 1)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {os.uname().nodename} does not see the folder")


def test_a_machine_with_other_code_is_told(order: Order) -> None:
    script = Path("code/run.py")
    script.parent.mkdir()
    script.write_text("print('ran')")
    digest = cluster_node.code_digest(str(script))
    right = replace(order, words=[str(script)], code=digest)
    assert list(cluster_node.carry_out(right, 1)) == ["ran", 0]
    (script.parent / "beside.py").write_text("")
    cluster_node.code_digest.cache_clear()
    *lines, code = cluster_node.carry_out(right, 1)
    assert (code, "has other code" in lines[0]) == (2, True)


def test_tasks_on_a_machine_have_cores_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # those of a cluster that runs here are another matter
    here = os.sched_getaffinity(0)
    with cluster_node.reserved_cores(len(here), len(here)) as all_of_them:
        assert all_of_them == here
        with cluster_node.reserved_cores(1, len(here)) as none_left:
            assert none_left == set()
    with cluster_node.reserved_cores(1, len(here)) as one:
        assert len(one) == 1


def test_a_place_is_named_by_options() -> None:
    assert Place.of("ray", None, None).executor(0) == OnRay("auto", 2, None)
    assert Place.of("ray:head:6379", 3, 1).executor(0, 9.0) == OnRay("head:6379", 1, 3, 9.0)
    assert [Place.of(on, None, None).at_once(8) for on in ("here", "ray")] == [1, 8]
    for wrong, told in ((("slurm", None, None), "no place"), (("here", None, 2), "goes with --on ray")):
        with pytest.raises(FoldcraftError, match=told):
            Place.of(*wrong)
