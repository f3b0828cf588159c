"""Small real things that tests share: a drawn competition, and the commands as a user calls them."""

import importlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

# Tests run side by side, and what they start inherits it; read when NumPy and torch are imported.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from PIL import Image

from foldcraft.common import notices
from foldcraft.views import cli

ROOT = Path(__file__).parents[1]
BESIDE = ROOT.parent / "shared"  # real data and weights, where a checkout has them beside it
DATA = Path(os.environ.get("FOLDCRAFT_DATA", BESIDE / "data"))
FORMATS = Path(os.environ.get("FOLDCRAFT_FORMATS", BESIDE / "formats"))  # draws what hosts hand out, in miniature
WEIGHTS = Path(os.environ.get("FOLDCRAFT_WEIGHTS", BESIDE / "weights"))

MEMORY = Path("/dev/shm")
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))  # thousands of flushed files need not wait for a disk

sys.path.insert(0, str(ROOT / "src"))
settings.register_profile("foldcraft", deadline=None)  # a busy machine may take any time
settings.load_profile("foldcraft")
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"

CONFIG = """
competition: {name: shapes, metric: accuracy}
folds: {count: 3}
images: {size: 16}
augment: {preset: light}
backbone: {name: test_resnet, weights: none}
train: {epochs: 2, batch: 8}
machine: {workers: 0, device: cpu, precision: 32-true, memory_format: contiguous}
tta: {views: [identity, hflip]}
tracking: {wandb: "off"}
"""
# Fixtures whose tests are marked by themselves: these run whole commands or train, that one is a browser.
INTEGRATION, SLOW = {"command", "audited", "check", "home", "school", "trained"}, {"browser"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they use."""
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        if used & INTEGRATION:
            item.add_marker("integration")
        if used & SLOW or item.get_closest_marker("real"):
            item.add_marker("slow")


def recipe(name: str) -> str:
    """The settings of a host's layout, as docs/competitions.md has them."""
    text = (ROOT / "docs" / "competitions.md").read_text()
    found = re.search(rf"\(`{name}`[^`]*```yaml\n(.*?)```", text, re.DOTALL)
    assert found, f"docs/competitions.md has no recipe for {name}"
    return found[1]


def real_data(name: str) -> Path:
    """A real competition's folder; the test is skipped where it is absent."""
    if not (DATA / name).is_dir():
        pytest.skip(f"no real data at {DATA / name}; set FOLDCRAFT_DATA to have this tested")
    return DATA / name


def real_weights(name: str) -> Path:
    """The folder that holds a real pretrained backbone; the test is skipped where it is absent."""
    if not (WEIGHTS / name).is_dir():
        pytest.skip(f"no real weights at {WEIGHTS / name}; set FOLDCRAFT_WEIGHTS to have this tested")
    return WEIGHTS


def draw_shape(label: str, seed: int, size: int = 20) -> Image.Image:
    """A noisy grey picture of a bar ("bar"), a cross ("cross") or a dot ("dot")."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(60, 20, (size, size))
    x, y = rng.integers(6, size - 6, 2)
    if label in ("bar", "cross"):
        pixels[y - 1 : y + 1, 2:-2] += 150
    if label == "cross":
        pixels[2:-2, x - 1 : x + 1] += 150
    if label == "dot":
        pixels[y - 3 : y + 3, x - 3 : x + 3] += 150
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_competition(folder: Path, train: int = 48, test: int = 12, group: bool = False) -> None:
    """A competition of drawn shapes in `folder`."""
    labels = [("bar", "cross", "dot")[row % 3] for row in range(train + test)]
    frame = pd.DataFrame({"id": [f"{row:03d}.png" for row in range(train + test)], "label": labels})
    if group:
        frame["group"] = [f"g{row // 2}" for row in range(train + test)]
    for part, rows in (("train", frame[:train]), ("test", frame[train:])):
        (folder / part).mkdir(parents=True)
        for row in rows.itertuples():
            draw_shape(row.label, int(row.Index)).save(folder / part / row.id)
    frame[:train].to_csv(folder / "train.csv", index=False)
    frame[train:][["id"]].to_csv(folder / "test.csv", index=False)
    frame[train:][["id"]].assign(label="bar").to_csv(folder / "sample_submission.csv", index=False)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without network, its weights folder still empty."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    connect = socket.socket.connect

    def only_here(self: socket.socket, address: object) -> None:
        return connect(self, address) if self.family == socket.AF_UNIX else refuse()

    monkeypatch.setattr(socket.socket, "connect", only_here)
    for name in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "caches"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "caches"))
    monkeypatch.setenv("FOLDCRAFT_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of all miniatures of what hosts hand out."""
    if not (FORMATS / "make.py").is_file():
        pytest.skip(f"no miniatures at {FORMATS}; set FOLDCRAFT_FORMATS to have this tested")
    place = tmp_path_factory.mktemp("hosts")
    subprocess.run([sys.executable, FORMATS / "make.py", place], check=True)
    return place


@pytest.fixture
def shapes(workplace: Path) -> Path:
    """The drawn competition in input/shapes, with its config; the config's path."""
    write_competition(Path("input/shapes"))
    path = workplace / "configs" / "tiny.yaml"
    path.parent.mkdir()
    path.write_text(CONFIG)
    return path


@pytest.fixture
def after_one_epoch(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """`with after_one_epoch():` a training is interrupted as by Ctrl-C when its second epoch begins."""
    from foldcraft.training.trainer import Trainer

    @contextmanager
    def interrupted() -> Iterator[None]:
        run_epoch = Trainer.run_epoch

        def one_epoch_only(trainer: Trainer) -> None:
            if trainer.epoch == 1:
                raise KeyboardInterrupt
            run_epoch(trainer)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "run_epoch", one_epoch_only)
            yield

    return interrupted


def flipped(content: bytes, byte: int, bit: int = 0) -> bytes:
    """`content` with one bit turned over."""
    changed = bytearray(content)
    changed[byte] ^= 1 << bit
    return bytes(changed)


@dataclass(frozen=True)
class Outcome:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Call a command of src/ as a user does: command("train", "--config", path, "--fold", "0")."""

    def call(name: str, *arguments: object) -> Outcome:
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", [f"src/{name}.py", *words])
        capfd.readouterr()
        notices.tell_once.cache_clear()  # a command of its own has told nothing yet
        with pytest.raises(SystemExit) as end:
            cli.run(importlib.import_module(name).main)
        captured = capfd.readouterr()
        return Outcome(end.value.code or 0, captured.out, captured.err)

    return call
