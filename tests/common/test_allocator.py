"""glibc keeps freed memory in every process that computes, unless the user wants it otherwise.

A process that keeps it meets no page faults when it takes a large piece again; one that does not meets one a page.
"""

import inspect
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import Dataset

from foldcraft.common import allocator
from foldcraft.data.images import image_stats
from foldcraft.data.loader import train_loader

SOURCE = Path(__file__).parents[2] / "src"
ROUNDS, PIECE = 8, 40 << 20  # bytes; glibc itself keeps no pieces as large
LARGEST_PAGE = 2 << 20
IF_GIVEN_BACK = ROUNDS * PIECE // LARGEST_PAGE  # faults at least
COMMAND = [str(SOURCE / "split.py"), "--help"]
MIRROR = ["-m", "foldcraft.views.wandb_process"]
OF_USER = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", allocator.SWITCH)
SHAPES = ["images.size=96", "train.batch=16", "train.epochs=1", "--fold", "0"]  # activations that are mapped by default

on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


def page_faults(*_: object) -> list[int]:
    """How many there are when a large piece is taken and given back again and again."""
    b"x" * PIECE
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(ROUNDS):
        b"x" * PIECE
    return [resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]


def faults_of(process: list[str], folder: Path, **environment: str) -> int:
    """Page faults of a real process, counted before it ends."""
    text = f"import atexit, resource\nROUNDS, PIECE = {ROUNDS}, {PIECE}\n{inspect.getsource(page_faults)}"
    (folder / "sitecustomize.py").write_text(f"{text}\natexit.register(lambda: print('faults', *page_faults()))\n")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(OF_USER)}
    environment = {**plain, "PYTHONPATH": f"{folder}{os.pathsep}{SOURCE}", "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, *process]
    done = subprocess.run(
        command, input='{"do": "goodbye"}\n', capture_output=True, text=True, timeout=900, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    word, count = done.stdout.split()[-2:]
    assert word == "faults"
    return int(count)


@on_glibc
@pytest.mark.parametrize("process", [COMMAND, MIRROR], ids=["command", "mirror"])
def test_freed_memory_is_kept(process: list[str], tmp_path: Path) -> None:
    assert faults_of(process, tmp_path, GLIBC_TUNABLES="glibc.rtld.nns=4") < IF_GIVEN_BACK


@on_glibc
@pytest.mark.parametrize(
    "said",
    [
        {"FOLDCRAFT_ALLOCATOR": "system"},
        {"MALLOC_ARENA_MAX": "2"},
        {"GLIBC_TUNABLES": "glibc.rtld.nns=4:glibc.malloc.arena_max=2"},
        {"LD_PRELOAD": "/nowhere/libtcmalloc_minimal.so.4"},
    ],
    ids=lambda said: "".join(said),
)
def test_the_user_comes_first(said: dict[str, str], tmp_path: Path) -> None:
    assert faults_of(COMMAND, tmp_path, **said) >= IF_GIVEN_BACK


def test_every_command_begins_with_it() -> None:
    commands = [file for file in SOURCE.glob("*.py") if "cli.run(main)" not in file.read_text()]
    assert commands == []


class Counting(Dataset[torch.Tensor]):
    """Its items are page faults of the process that draws them."""

    def __getitems__(self, _: list[int]) -> list[torch.Tensor]:
        return [torch.tensor(count) for count in page_faults()]


def by_loader(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    batches = train_loader(Counting(), [[0]], 1, pin=False)
    batches.multiprocessing_context = "spawn"
    return next(iter(batches))


def by_pool(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    monkeypatch.setattr(image_stats, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(image_stats, "_look_at_piece", page_faults)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    return list(image_stats._look_at([Path("one")], 65535, lambda done: None))


@pytest.mark.slow
@on_glibc
@pytest.mark.integration
@pytest.mark.parametrize("worker", [by_loader, by_pool])
def test_workers_that_inherit_nothing(
    worker: Callable[[pytest.MonkeyPatch], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(OF_USER)]:
        monkeypatch.delenv(name)
    assert worker(monkeypatch)[0] < IF_GIVEN_BACK


@pytest.mark.parametrize(
    "library",
    [SimpleNamespace(), SimpleNamespace(mallopt=lambda *_: 1 / 0), TypeError("Windows has none without a name")],
    ids=["macOS and musl", "Android", "Windows"],
)
def test_another_c_library(library: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(name: None) -> object:
        if isinstance(library, Exception):
            raise library
        return library

    monkeypatch.setattr(allocator.ctypes, "CDLL", loaded)
    for name in [name for name in os.environ if name.startswith(OF_USER)]:
        monkeypatch.delenv(name)
    assert allocator.keep_freed_memory() is False


def test_an_unknown_allocator_is_named(monkeypatch: pytest.MonkeyPatch, command) -> None:
    monkeypatch.setenv(allocator.SWITCH, "hoard")
    done = command("infer", "--ledger")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "FOLDCRAFT_ALLOCATOR: 'hoard'" in done.err
    assert "system" in done.err


@pytest.mark.slow
@on_glibc
def test_training_has_the_same_bits(shapes: Path, tmp_path: Path, command) -> None:
    command("split", "--config", shapes)
    train = [str(SOURCE / "train.py"), "--config", str(shapes), *SHAPES]
    assert faults_of([*train, "runs=kept"], tmp_path) < IF_GIVEN_BACK
    assert faults_of([*train, "runs=given_back"], tmp_path, FOLDCRAFT_ALLOCATOR="system") >= IF_GIVEN_BACK
    for file in ("model.safetensors", "oof.parquet"):
        kept, given_back = (Path(runs, "shapes/tiny/fold0", file).read_bytes() for runs in ("kept", "given_back"))
        assert kept == given_back, file
