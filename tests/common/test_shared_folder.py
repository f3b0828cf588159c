"""Several machines in one folder: locks of those that are gone, files that appear late, copies on a disk of one."""

import gc
import multiprocessing
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, flipped

from foldcraft.common import files, local_copy, shared_folder
from foldcraft.common.checked_array import RowFile, RowWriter
from foldcraft.common.errors import FoldcraftError

HOLDER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from foldcraft.common import files
files.LEASE, files.HEARTBEAT = 2.0, 0.5
with files.locked(Path("here/.lock"), wait=False):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def shared(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that machines share, and short leases."""
    monkeypatch.setenv(shared_folder.VARIABLE, str(workplace))
    monkeypatch.setattr(files, "LEASE", 2.0)
    monkeypatch.setattr(files, "HEARTBEAT", 0.5)
    return workplace


def forbid_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on whoever waits fails."""

    def wait(seconds: float) -> None:
        raise AssertionError(f"it waits {seconds} s")

    monkeypatch.setattr(time, "sleep", wait)


def holder() -> "subprocess.Popen[str]":
    """A process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(ROOT / "src")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


LOCK = Path("here/.lock")


def elsewhere() -> None:
    """Let the lock say that its holder is on another machine, where no process can be looked at."""
    lease = LOCK.with_name(".lock-lease")
    before = lease.stat()
    text = lease.read_text()
    with open(lease, "r+") as stream:
        stream.write(text.replace(os.uname().nodename, "x" * len(os.uname().nodename)))
    os.utime(lease, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_lock_is_kept_while_its_holder_lives_and_free_when_it_has_let_go(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = holder()
    with pytest.raises(FoldcraftError, match="in use"), files.locked(LOCK, wait=False):
        pass
    process.communicate("\n")
    forbid_waiting(monkeypatch)
    with files.locked(LOCK, wait=False):
        pass


def test_a_lock_is_free_at_once_when_its_holder_is_dead(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = holder()
    process.kill()
    process.wait()
    forbid_waiting(monkeypatch)
    with files.locked(LOCK, wait=False):
        pass


def test_the_lock_of_a_machine_that_is_gone_is_free_after_a_lease(shared: Path) -> None:
    process = holder()
    process.kill()
    process.wait()
    elsewhere()
    began = time.monotonic()
    with files.locked(LOCK, wait=False):
        assert time.monotonic() - began >= files.LEASE


def test_a_process_that_has_lost_its_lock_ends_before_it_writes_beside_the_new_holder(shared: Path) -> None:
    process = holder()
    elsewhere()  # so that it is not asked whether it lives
    process.send_signal(19)  # SIGSTOP, as a machine that hangs
    with files.locked(LOCK, wait=False):
        process.send_signal(18)  # SIGCONT
        assert process.wait(20) == files.LOCK_LOST
    assert process.stderr is not None
    assert "another has taken the lock" in process.stderr.read()


def test_a_process_that_learns_of_it_when_it_lets_go_ends_as_well(shared: Path) -> None:
    process = holder()
    LOCK.with_name(".lock-lease").unlink()
    _, said = process.communicate("\n")
    assert process.returncode == files.LOCK_LOST
    assert "another has taken the lock" in said


def test_a_worker_that_ends_takes_no_lock_with_it(shared: Path) -> None:
    with files.locked(LOCK, wait=False):
        worker = multiprocessing.get_context("fork").Process(target=gc.collect)
        worker.start()
        worker.join()
        time.sleep(1.0)
        assert LOCK.with_name(".lock-lease").exists()


def test_here_it_is_the_systems_own_lock(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(shared_folder.VARIABLE, raising=False)
    with files.locked(LOCK):
        assert [path.name for path in Path("here").iterdir()] == [".lock"]


def test_the_shared_folder_must_be_there_and_hold_the_current_one(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(shared_folder.VARIABLE, raising=False)
    assert shared_folder.settle() == workplace, "left out, it is the current folder"
    mark = shared_folder.mark_of(workplace)
    assert mark == shared_folder.mark_of(workplace) != ""
    for name, told in (("nowhere", "no such folder"), ("other", "does not lie in it")):
        Path("other").mkdir(exist_ok=True)
        monkeypatch.setenv(shared_folder.VARIABLE, str(workplace / name))
        with pytest.raises(FoldcraftError, match=told):
            shared_folder.settle()


def test_a_file_of_another_machine_may_appear_late(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = shared / "late" / "manifest.json"
    later = threading.Timer(0.4, lambda: (file.parent.mkdir(), file.touch()))
    later.start()
    assert shared_folder.appears(file, 20.0)
    assert not shared_folder.appears(shared / "never", 0.2)
    monkeypatch.delenv(shared_folder.VARIABLE)
    forbid_waiting(monkeypatch)
    assert not shared_folder.appears(shared / "never"), "where no machine shares, nothing is waited for"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A shared row file of 1 MB."""
    file = tmp_path / "rows.npy"
    writer = RowWriter(file, np.uint8, (100, 10_000))
    for row in range(100):
        writer.put(row, np.full(10_000, row, np.uint8))
    writer.close()
    return file


def test_a_copy_is_made_once_and_anew_where_it_is_another_file(tmp_path: Path, rows: Path) -> None:
    cache = tmp_path / "disk"
    assert local_copy.nearest(rows, None) == rows
    assert local_copy.nearest(rows, cache) == rows, "a machine without that disk"
    cache.mkdir()
    copy = local_copy.nearest(rows, cache)
    assert copy.parent == cache
    assert np.array_equal(RowFile(copy).check_all(), RowFile(rows).array)
    made = copy.stat().st_mtime_ns
    assert local_copy.nearest(rows, cache).stat().st_mtime_ns == made
    for spoiled in (copy.read_bytes()[:-100], flipped(copy.read_bytes(), 10)):
        copy.write_bytes(spoiled)
        assert np.array_equal(RowFile(local_copy.nearest(rows, cache)).check_all(), RowFile(rows).array)


def test_a_full_disk_of_the_machine_leaves_the_shared_file(tmp_path: Path, rows: Path) -> None:
    cache, said = tmp_path / "disk", []
    cache.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))  # writing fails as it does on a full disk
    try:
        assert local_copy.nearest(rows, cache, said.append) == rows
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(said) == 1
    assert "the shared file is read" in said[0]
    assert not [path for path in cache.iterdir() if "tmp" in path.name]
