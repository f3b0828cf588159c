"""An environment in which next to nothing is installed, and packs that are moved there and run."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from foldcraft.common import config_file
from foldcraft.ensemble import blend
from foldcraft.predictions.finished import open_finished

# Two years older than what the project itself is tested with, as a host's image may be.
OLD = ("numpy==1.26.4", "pandas==2.2.3", "pillow==10.4.0", "onnxruntime==1.20.1")
SECONDS = 600  # that installing may take

# What the numbers are behind the answers that predict.py writes.
NUMBERS = """
import sys
from pathlib import Path
import numpy as np
pack, data, out = map(Path, sys.argv[1:])
sys.path.insert(0, str(pack))
from foldcraft.submission.pack import offline
from foldcraft.submission.pack.answering import answer
from foldcraft.submission.pack.clock import Clock
packed = offline.load(pack)
readings = offline.read(packed, data)
engine = offline.engine_of(packed, pack, readings[0], "cpu")
found = answer(packed, readings, engine, Clock(packed.tiers, [len(m.models) for m in packed.members]))
np.savez(out, ids=readings[0].answers.test_ids, predicted=found.predicted, blind=found.blind)
print(sorted(name for name in sys.modules if "." not in name))
"""


@dataclass(frozen=True)
class Machine:
    """A Python with few packages."""

    python: Path

    def run(self, *words: object) -> "subprocess.CompletedProcess[str]":
        """A command far away from the project."""
        environment = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "OMP_NUM_THREADS": "1", "PYTHONNOUSERSITE": "1"}
        return subprocess.run(
            [self.python, *map(str, words)], cwd="/", env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="session")
def bare(request: pytest.FixtureRequest) -> Machine:
    """A machine with `OLD` alone; made once for a checkout, by pip."""
    key = hashlib.sha256(" ".join([sys.version, *OLD]).encode()).hexdigest()[:12]
    place = Path(request.config.cache.mkdir("bare")) / key
    with FileLock(f"{place}.lock"):
        if not (place / "whole").exists():
            shutil.rmtree(place, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", place], check=True)
            words = [place / "bin" / "python", "-m", "pip", "install", "--quiet", "--retries", "2", *OLD]
            try:
                done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
            except subprocess.TimeoutExpired:
                pytest.skip(f"pip did not install {OLD} within {SECONDS} s")
            if done.returncode:
                pytest.skip(f"pip cannot install {OLD}: {done.stderr.strip().splitlines()[-1:]}")
            (place / "whole").touch()
    return Machine(place / "bin" / "python")


@dataclass(frozen=True)
class Compared:
    """What a pack says elsewhere, beside what infer says here; rows in one order.

    Attributes:
        answers, wanted: the tables that both write.
        numbers, wanted_numbers: predictions behind them (A, W).
        modules: that predict.py imported.
        said: what it printed.
    """

    answers: pd.DataFrame
    wanted: pd.DataFrame
    numbers: np.ndarray
    wanted_numbers: np.ndarray
    modules: str
    said: str

    def check(self, within: float = 1e-3) -> None:
        """See that answers are equal, and numbers too but for rounding."""
        np.testing.assert_allclose(self.numbers, self.wanted_numbers, atol=within, rtol=within)
        assert list(self.answers.columns) == list(self.wanted.columns)
        for column in self.wanted:
            said, wanted = self.answers[column], self.wanted[column]
            if said.tolist() != wanted.tolist():  # numbers, then
                np.testing.assert_allclose(said.astype(float), wanted.astype(float), atol=within, rtol=within)


def packed_elsewhere(
    command: Callable[..., object], machine: Machine, place: Path, configs: list[Path], *words: object, data: Path
) -> Compared:
    """Blend and pack experiments, move the pack to `place` alone, run it there by the machine."""
    done = command("infer", "--config", *configs, "--out", "wanted.csv")
    assert done.code == 0, done.err
    done = command("pack", "--config", *configs, "--out", "pack", *words)
    assert done.code == 0, done.err
    shutil.rmtree(place, ignore_errors=True)
    shutil.move("pack", place)
    out = Path("said.csv").resolve()
    ran = machine.run(place / "predict.py", "--data", data.resolve(), "--out", out, "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr
    printed = ran.stdout
    script, numbers = Path("behind.py").resolve(), Path("behind.npz").resolve()
    script.write_text(NUMBERS)
    ran = machine.run(script, place, data.resolve(), numbers)
    assert ran.returncode == 0, ran.stderr
    members = open_finished([config_file.load(path) for path in configs])
    combined, found = blend.combine(members), np.load(numbers)
    assert found["ids"].tolist() == members[0].experiment.competition.answers.test_ids.tolist()
    read = [pd.read_csv(path, dtype=str) for path in (out, "wanted.csv")]
    return Compared(*read, found["predicted"], combined.test, ran.stdout, printed)
