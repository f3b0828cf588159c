"""The benchmark of the GPU path in miniature, on whatever is there: every step runs to its end and leaves its table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STEPS = {
    *("device", "choice", "throughput", "precision", "ways", "resume", "waiting", "epoch", "inference", "memory"),
    *("together", "torchrun", "checks", "tuned", "compiled"),
}

pytestmark = pytest.mark.slow


def test_the_miniature_runs_to_its_end(tmp_path: Path) -> None:
    # Each step's time limit is its share of the minutes, which are many more than a busy machine needs.
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--small", "--minutes", "60", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    steps = json.loads((tmp_path / "gpu.json").read_text())["steps"]
    assert set(steps) == STEPS
    assert {name: step["error"] for name, step in steps.items() if step["error"]} == {}
    assert all(step["rows"] for step in steps.values())
    assert {row["error"] for row in steps["ways"]["rows"]} == {"none"}
    killed = [row for row in steps["resume"]["rows"] if row["training"] == "killed"]
    assert [(row["was resumed"], row["left after 20 s"]) for row in killed] == [(True, 0)] * 2
    assert killed[1]["weights apart, most"] == 0, "one order of sums: the same weights as undisturbed"
    table = (tmp_path / "gpu.md").read_text()
    assert all(f"## {name}\n" in table for name in STEPS)
