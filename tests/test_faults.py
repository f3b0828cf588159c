"""Faults drawn from a seed: nothing finished is lost, nothing is silently wrong, and the line that tells of it helps.

A fault spoils a file (a bit, a cut, noise, a folder in its place), kills, fills the disk, locks a file, runs two of
everything at once, turns the clock back, puts another picture under an image's name, makes the runs read-only or takes
the output away. The commands then go on, each mistake mended as its line says, and all must end bit for bit as if
nothing had happened. `make nightly` plays more of them.
"""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

GROUND = Path(__file__).with_name("fault_ground.py")
COUNT = int(os.environ.get("FOLDCRAFT_FAULTS", "30"))

pytestmark = pytest.mark.slow


@cache
def reports() -> list[dict[str, Any]]:
    """What came of each fault."""
    memory = Path("/dev/shm")  # a disk of memory: what is written there counts as written at once
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        command = [sys.executable, str(GROUND), folder, str(COUNT)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120 + 60 * COUNT)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)["reports"]


@pytest.mark.parametrize("number", range(COUNT))
def test_fault(number: int) -> None:
    report = reports()[number]
    assert not report["wrong"], f"{'; '.join(report['fault'])}:\n" + "\n".join(report["wrong"])


def test_every_kind_of_fault_is_played() -> None:
    expected = {"damage", "several", "kill", "kill and damage", "full disk", "unreadable", "two at once", "clock"}
    expected |= {"replaced", "read only", "output"}
    said = [report["fault"][0] for report in reports()]
    missing = {kind for kind in expected if not any(re.match(rf"{kind}( at |:|$)", words) for words in said)}
    assert not missing or COUNT < 30, said
