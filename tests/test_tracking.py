"""W&B mirrors the local log, and cannot hurt a training."""

import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from wandb.proto import wandb_internal_pb2

from foldcraft import tracking

BLOCK, FILE_HEADER, RECORD_HEADER = 32768, 7, 7


def messages(data: bytes) -> Iterator[bytes]:
    """Records of W&B's transaction log, which is a LevelDB log: blocks of pieces (crc, length, first/middle/last)."""
    place, parts = FILE_HEADER, []
    while place + RECORD_HEADER <= len(data):
        if BLOCK - place % BLOCK < RECORD_HEADER:
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + RECORD_HEADER])
        parts.append(data[place + RECORD_HEADER : place + RECORD_HEADER + length])
        place += RECORD_HEADER + length
        if kind in (1, 4):  # whole, or last piece
            yield b"".join(parts)
            parts = []


def records(folder: Path) -> list[wandb_internal_pb2.Record]:
    """What offline W&B runs have written down, in W&B's own messages."""
    found = []
    for file in sorted(folder.rglob("*.wandb")):
        for message in messages(file.read_bytes()):
            found.append(wandb_internal_pb2.Record())
            found[-1].ParseFromString(message)
    return found


def test_offline_run_holds_history_config_and_result(shapes: Path, command) -> None:
    command("split", "--config", shapes)

    done = command("train", "--config", shapes, "--fold", "0", "tracking.wandb=offline")

    assert "warning" not in done.out
    logged = records(Path("runs/shapes/tiny/wandb"))
    run = next(record.run for record in logged if record.WhichOneof("record_type") == "run")
    assert run.run_id == json.loads(Path("runs/shapes/tiny/fold0/wandb.json").read_text())["id"]
    assert (run.run_group, run.project, run.display_name) == ("tiny", "foldcraft-shapes", "tiny-fold0")
    keys = {item.key: item.value_json for item in run.config.update}
    assert json.loads(keys["train"])["epochs"] == 2
    assert keys["fold"] == "0"
    rows = [
        {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
        for record in logged
        if record.WhichOneof("record_type") == "history"
    ]
    epochs = [row for row in rows if "valid_loss" in row]
    assert [json.loads(row["epoch"]) for row in epochs] == [1, 2]
    assert all({"lr", "loss", "score"} <= set(row) for row in epochs)
    assert any("confusion_matrix" in key for row in rows for key in row)
    manifest = json.loads(Path("runs/shapes/tiny/fold0/manifest.json").read_text())
    summaries = [item for record in logged for item in record.summary.update]
    assert any(item.key == "score" and json.loads(item.value_json) == manifest["score"] for item in summaries)


def test_a_resumed_fold_goes_on_in_the_same_run(shapes: Path, command, after_one_epoch) -> None:
    command("split", "--config", shapes)
    with after_one_epoch():
        assert command("train", "--config", shapes, "--fold", "0", "tracking.wandb=offline").code == 130
    command("train", "--config", shapes, "--fold", "0", "tracking.wandb=offline")

    ids = [r.run.run_id for r in records(Path("runs/shapes/tiny/wandb")) if r.WhichOneof("record_type") == "run"]
    assert len(ids) == 2
    assert len(set(ids)) == 1


@pytest.mark.parametrize(
    ("mirror", "warning"),
    [
        ("raise SystemExit('no such project')", "W&B failed"),
        ("import time; time.sleep(600)", "W&B has not finished"),
    ],
    ids=["raises", "hangs"],
)
def test_broken_tracker_costs_a_warning_and_seconds(
    shapes: Path, command, monkeypatch: pytest.MonkeyPatch, mirror: str, warning: str
) -> None:
    monkeypatch.setattr(tracking, "MIRROR", [sys.executable, "-c", mirror])
    monkeypatch.setattr(tracking, "PATIENCE", 1.0)
    command("split", "--config", shapes)
    begun = time.monotonic()

    done = command("train", "--config", shapes, "--fold", "0", "tracking.wandb=offline")

    assert done.code == 0
    assert f"warning: {warning}" in done.out
    assert time.monotonic() - begun < 30
    assert Path("runs/shapes/tiny/fold0/manifest.json").exists()
    subprocess.run(["pkill", "-f", mirror], check=False)


def test_patience_is_ten_seconds() -> None:
    assert tracking.PATIENCE == 10


def test_mode_follows_key_and_wish() -> None:
    code = (
        "import os; os.environ.pop('WANDB_MODE', None); from foldcraft.wandb_mirror import mode_of; "
        "print(mode_of('auto', True), mode_of('auto', False), mode_of('offline', True))"
    )
    source = Path(tracking.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.stdout.split() == ["online", "offline", "offline"]
