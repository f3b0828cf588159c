"""A training that is killed, at whatever moment, ends with the same bits as one that is left alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import draw_shape

GROUND = Path(__file__).parents[1] / "killing_ground.py"
DEMANDING = """
augment: {preset: heavy, mixup: 0.3, cutmix: 0.5}
backbone: {drop: 0.2}
train: {accumulate: 2}
"""


@pytest.mark.slow
def test_killed_at_any_moment_ends_like_undisturbed(shapes: Path) -> None:
    config = shapes.with_name("demanding.yaml")
    config.write_text(f"extends: {shapes.name}\nexperiment: tiny\n{DEMANDING}")

    done = subprocess.run([sys.executable, GROUND, config, "5"], capture_output=True, text=True, timeout=400)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert sum(report["kills"].values()) >= 20, report["kills"]
    assert all(report["kills"].values()), f"a phase was never hit: {report['kills']}"
    assert report["calm"]["left"] == "[]"
    for stormy in report["stormy"]:
        assert stormy == report["calm"]


def test_a_finished_fold_is_skipped(shapes: Path, command) -> None:
    command("split", "--config", shapes)
    command("train", "--config", shapes, "--fold", "0")
    weights = Path("runs/shapes/tiny/fold0/model.safetensors")
    before = weights.stat().st_mtime_ns

    again = command("train", "--config", shapes, "--fold", "0,1")

    assert "fold 0: done before" in again.out
    assert "fold 1: done, accuracy" in again.out
    assert weights.stat().st_mtime_ns == before
    assert not Path("runs/shapes/tiny/fold0/last.ckpt").exists()


def test_images_changed_meanwhile_are_noticed(shapes: Path, command, after_one_epoch) -> None:
    command("split", "--config", shapes)
    with after_one_epoch():
        assert command("train", "--config", shapes, "--fold", "0").code == 130
    draw_shape("bar", 12345).save("input/shapes/train/000.png")

    done = command("train", "--config", shapes, "--fold", "0")

    assert done.code == 2
    assert "last.ckpt: checkpoint of another experiment, other data or other folds" in done.err
