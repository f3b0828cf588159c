"""W&B mirrors the local log, and cannot hurt a training."""

import json
import os
import re
import struct
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wandb
from PIL import Image
from wandb.proto import wandb_internal_pb2

from foldcraft.common import config_file
from foldcraft.common.paths import FoldFolder
from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.single import SingleLabel
from foldcraft.predictions import store
from foldcraft.predictions.oof import OOF
from foldcraft.predictions.store import Origin
from foldcraft.views import tracking, wandb_panels

BLOCK, FILE_HEADER, RECORD_HEADER = 32768, 7, 7
NEVER = 600  # seconds


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


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands wait for W&B to the end, however busy the machine is."""
    monkeypatch.setattr(tracking, "PATIENCE", 300.0)


def records(folder: Path) -> list[wandb_internal_pb2.Record]:
    """What offline W&B runs have written down, in W&B's own messages.

    Their frame is read here: W&B's own reader of it is not reachable from Python.
    """
    found = []
    for file in sorted(folder.rglob("*.wandb")):
        for message in messages(file.read_bytes()):
            found.append(wandb_internal_pb2.Record())
            found[-1].ParseFromString(message)
    return found


def of_kind(logged: list[wandb_internal_pb2.Record], kind: str) -> list:
    """The records of one kind."""
    return [getattr(record, kind) for record in logged if record.WhichOneof("record_type") == kind]


def history(logged: list[wandb_internal_pb2.Record]) -> list[dict[str, str]]:
    """Logged rows, as JSON texts by key."""
    rows = of_kind(logged, "history")
    return [{item.key or ".".join(item.nested_key): item.value_json for item in row.item} for row in rows]


def summary(logged: list[wandb_internal_pb2.Record]) -> dict:
    """The run's last values."""
    items = [item for record in of_kind(logged, "summary") for item in record.update]
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def artifacts(logged: list[wandb_internal_pb2.Record]) -> dict[str, tuple[str, str, dict[str, Path]]]:
    """By name: type, whether the run used or made it, and its files where they wait for their upload."""
    return {
        one.name: (
            one.type,
            "used" if one.use_after_commit else "made",
            {entry.path: Path(entry.local_path) for entry in one.manifest.contents},
        )
        for one in of_kind(logged, "artifact")
    }


def by_run(folder: Path) -> dict[str, list[wandb_internal_pb2.Record]]:
    """Records of each offline run, by the name that people see."""
    logs = [records(file.parent) for file in folder.rglob("*.wandb")]
    return {of_kind(logged, "run")[0].display_name: logged for logged in logs}


@pytest.mark.slow
def test_offline_run_holds_history_config_and_result(shapes: Path, command, patient) -> None:
    command("split", "--config", shapes)

    done = command("train", "--config", shapes, "--fold", "0", "tracking.wandb=offline")

    assert "warning" not in done.out
    logged = records(Path("runs/shapes/tiny/wandb"))
    run = of_kind(logged, "run")[0]
    assert run.run_id == json.loads(Path("runs/shapes/tiny/fold0/wandb.json").read_text())["id"]
    assert (run.run_group, run.project, run.display_name) == ("tiny", "foldcraft-shapes", "tiny-fold0")
    keys = {item.key: item.value_json for item in run.config.update}
    assert json.loads(keys["train"])["epochs"] == 2
    assert keys["fold"] == "0"
    rows = history(logged)
    epochs = [row for row in rows if "valid_loss" in row]
    assert [json.loads(row["epoch"]) for row in epochs] == [1, 2]
    assert all({"lr", "loss", "score"} <= set(row) for row in epochs)
    assert any("confusion_matrix" in key for row in rows for key in row)
    manifest = json.loads(Path("runs/shapes/tiny/fold0/manifest.json").read_text())
    assert summary(logged)["score"] == manifest["score"]


@pytest.mark.slow
def test_a_competition_is_one_curve_however_often_it_goes_on(shapes: Path, patient) -> None:
    config = config_file.load(shapes, ["tracking.wandb=offline"])
    for minutes, score in ((1.0, 0.5), (2.0, 0.75)):
        tracker = tracking.tracker_of_compete(config)
        assert tracker is not None
        tracker.competes(config, {"minutes": minutes, "score": score})
        assert tracker.close() is None
    logged = records(Path("runs/shapes"))
    runs = of_kind(logged, "run")
    assert {run.run_id for run in runs} == {json.loads(Path("runs/shapes/compete/wandb.json").read_text())["id"]}
    assert {run.display_name for run in runs} == {"shapes-compete"}
    assert [(row["minutes"], row["score"]) for row in history(logged)] == [("1", "0.5"), ("2", "0.75")]


@pytest.mark.slow
def test_the_life_of_an_experiment_is_in_the_log(
    shapes: Path, command, patient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keys = {"WANDB_API_KEY": "5ec3e7" * 6 + "cafe", "KAGGLE_KEY": "a" * 20 + "b" * 20}
    for name, key in keys.items():
        monkeypatch.setenv(name, key)
    command("split", "--config", shapes)
    probe = [shapes, "finetune.mode=linear_probe", "tracking.wandb=offline", "tracking.mistakes=3"]

    assert "warning" not in command("train", "--config", *probe, "--fold", "all").out
    assert "warning: W&B" not in command("infer", "--config", *probe, "--name", "first try").out

    home = Path("runs/shapes/tiny")
    runs = by_run(home / "wandb")
    assert set(runs) == {"tiny-fold0", "tiny-fold1", "tiny-fold2", "tiny", "first try"}
    kinds = {
        name: (of_kind(logged, "run")[0].run_group, of_kind(logged, "run")[0].job_type) for name, logged in runs.items()
    }
    assert kinds["tiny-fold0"] == ("tiny", "fold")
    assert kinds["tiny"] == ("tiny", "experiment")

    manifests = [json.loads((home / f"fold{fold}" / "manifest.json").read_text()) for fold in range(3)]
    scores, told = [manifest["score"] for manifest in manifests], summary(runs["tiny"])
    assert told["mean"] == pytest.approx(np.mean(scores))
    assert told["std"] == pytest.approx(np.std(scores, ddof=1))
    assert told["oof"] == pytest.approx(np.mean(scores)), "folds are of equal size, and accuracy is a mean of rows"
    assert told["oof_low"] <= told["oof"] <= told["oof_high"]
    rows = history(runs["tiny"])
    assert [json.loads(row["fold_score"]) for row in rows if "oof" not in row and "fold_score" in row] == scores
    assert any(row.get("oof") for row in rows), "a sweep looks into the history"
    assert {"confusion_matrix_table._type", "precision_recall_table._type"} <= {key for row in rows for key in row}

    made = artifacts(runs["tiny-fold1"])
    assert made["folds-shapes"][:2] == ("folds", "used")
    assert made["tiny-fold1"][:2] == ("predictions", "made")
    assert made["tiny-fold1"][2]["oof.parquet"].read_bytes() == (home / "fold1" / "oof.parquet").read_bytes()
    assert not any(kind == "model" for kind, *_ in made.values()), "models are large, and only kept on request"
    code = next(one for one in made.values() if one[0] == "code")
    assert {"train.py", "foldcraft/training/trainer.py"} <= set(code[2])
    assert all(name.endswith(".py") for name in code[2])
    summed = artifacts(runs["tiny"])
    assert [summed[f"tiny-fold{fold}"][1] for fold in range(3)] == ["used"] * 3
    assert summed["tiny-oof"][:2] == ("oof", "made")
    submitted = artifacts(runs["first try"])
    assert submitted["tiny-oof"][1] == "used"
    assert submitted["submission-first-try"][:2] == ("submission", "made")
    entered = pd.read_csv("submissions/ledger.csv").iloc[0]
    for name in ("nested", "forecast", "forecast_low", "forecast_high"):
        assert summary(runs["first try"])[name] == pytest.approx(float(entered[name]))

    shown = next(one[2] for name, one in summed.items() if name.endswith("-mistakes"))
    pictures = [file for name, file in shown.items() if name.endswith(".jpg")]
    table = json.loads(next(file for name, file in shown.items() if name.endswith(".table.json")).read_text())
    wrong = round(len(np.concatenate([read(home, fold) for fold in range(3)])) * (1 - told["oof"]))
    assert len(table["data"]) == len(pictures) == min(3, wrong)
    assert all(max(Image.open(file).size) <= 160 for file in pictures)
    truth = dict(pd.read_csv("input/shapes/train.csv").values.tolist())
    assert all(truth[name] == label != said for _, name, label, said, *_ in table["data"])
    assert [row[4] for row in table["data"]] == sorted(row[4] for row in table["data"])

    assert not of_kind([record for logged in runs.values() for record in logged], "alert")
    everything = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not [file for file in everything for key in keys.values() if key.encode() in file.read_bytes()]


def read(home: Path, fold: int) -> np.ndarray:
    """Ids of the rows that a fold was judged on."""
    return store.read(home / f"fold{fold}" / "oof.parquet").ids


@pytest.mark.slow
def test_models_alerts_and_no_images_on_request(
    shapes: Path, command, patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("split", "--config", shapes)
    words = ["finetune.mode=linear_probe", "tracking.wandb=offline", "tracking.mistakes=0"]
    words += ["tracking.artifacts=models", "tracking.alerts=true"]

    command("train", "--config", shapes, "--fold", "0", *words)
    monkeypatch.setattr("foldcraft.training.fold.finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command("train", "--config", shapes, "--fold", "1", *words)

    runs = by_run(Path("runs/shapes/tiny/wandb"))
    made = artifacts(runs["tiny-fold0"])
    assert made["tiny-fold0-model"][:2] == ("model", "made")
    waits = made["tiny-fold0-model"][2]["model.safetensors"]
    assert waits.resolve() == Path("runs/shapes/tiny/fold0/model.safetensors").resolve(), "models are not copied"
    assert not [name for name in made if name.endswith("-mistakes")]
    assert of_kind(runs["tiny-fold0"], "alert")[0].title == "tiny: fold 0 is done"
    failed = of_kind(runs["tiny-fold1"], "alert")[0]
    assert (failed.title, failed.text, failed.level) == ("tiny: training has failed", "division by zero", "ERROR")
    assert of_kind(runs["tiny-fold1"], "exit")[0].exit_code == 1


@pytest.mark.slow
def test_under_an_agent_the_experiment_is_the_sweeps_run(
    shapes: Path, command, patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("split", "--config", shapes)
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "trial1")

    command("train", "--config", shapes, "--trial", "finetune.mode=linear_probe", "tracking.wandb=offline", "--fold", 0)

    logs = [of_kind(logged, "run")[0] for logged in by_run(Path("runs/shapes")).values()]
    runs = {run.job_type: (run.run_id, run.sweep_id) for run in logs}
    assert runs["experiment"] == ("trial1", "sweep1")
    assert runs["fold"][0] != "trial1"
    assert runs["fold"][1] == "", "a fold is no trial"


@pytest.mark.slow
def test_what_cannot_be_shown_does_not_keep_the_rest_away(shapes: Path, command, patient) -> None:
    command("split", "--config", shapes)
    words = ["finetune.mode=linear_probe", "tracking.wandb=offline"]
    command("train", "--config", shapes, "--fold", "0", "tracking.wandb=off", words[0])
    home = Path("runs/shapes/tiny/fold0")
    (home / "oof.parquet").write_bytes(b"damaged")
    listener = tracking.Tracker(home.parent)
    listener.fold_started(config_file.load(home / "config.yaml", words), FoldFolder(home, 0), {})
    listener.fold_ended({})

    assert "W&B failed" in (listener.close() or "")

    made = artifacts(by_run(home.parent / "wandb")["tiny-fold0"])
    assert "tiny-fold0" in made


def test_off_costs_nothing(shapes: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    monkeypatch.setattr("foldcraft.training.fold_result._git_commit", lambda: None)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    command("split", "--config", shapes)

    assert command("train", "--config", shapes, "--fold", "0", "finetune.mode=linear_probe").code == 0

    assert "wandb" not in sys.modules
    assert not list(Path("runs").rglob("*wandb*"))


def predicted(labels: list[str], truth: np.ndarray, probabilities: np.ndarray) -> OOF:
    """Out-of-fold predictions of all rows, with these probabilities (N, K)."""
    target = SingleLabel.of("label", Classes(tuple(labels)), truth)
    competition = Namespace(classes=target.classes, targets=truth, target=target, space=target.space)
    rows, origin = np.arange(len(probabilities)), Origin("one", -1, (), "", "", "")
    return OOF(competition, rows, rows * 0, ("identity",), np.log(probabilities.clip(1e-9))[None], origin)


def test_many_classes_stay_a_small_matrix() -> None:
    labels = [f"c{k:03d}" for k in range(60)]
    truth = np.repeat(np.arange(60), 3)
    probabilities = np.eye(60)[truth]
    probabilities[truth == 41] = np.eye(60)[7]
    card = predicted(labels, truth, probabilities)

    true, said, names = wandb_panels.few_classes(card, 5)

    assert len(names) == 5
    assert {"c007", "c041"} <= set(names)
    assert names[-1] == "other classes"
    seen = {(names[a], names[b]) for a, b in zip(true, said, strict=True) if a != b}
    assert seen == {("c041", "c007")}
    assert card.worst(2).tolist() == [123, 124]


def test_curves_of_classes_that_a_fold_lacks_are_not_shifted() -> None:
    labels, truth = ["a", "b", "c"], np.array([0, 0, 2, 2])
    probabilities = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.0, 0.4, 0.6], [0.0, 0.3, 0.7]])
    card = predicted(labels, truth, probabilities)

    made = wandb_panels.panels(wandb, card, 0, (0, 65535))["precision_recall"]

    curve = pd.DataFrame(made.table.data, columns=made.table.columns)
    assert set(curve["class"]) == {"a", "c"}
    assert (curve["precision"] == 1).all(), "both classes are told apart without a mistake"


@dataclass
class Server:
    """What a W&B server was told: GraphQL operations with their variables, and the lines of a run's files."""

    url: str
    asked: list[tuple[str, dict]]
    streamed: list[dict]

    def inputs(self, operation: str) -> list[dict]:
        return [variables["input"] for name, variables in self.asked if name == operation]


@pytest.fixture
def server() -> Iterator[Server]:
    """As much of a W&B server as an upload needs: it says yes to everything."""
    told = Server("", [], [])

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = self.graphql(content) if self.path == "/graphql" else {}
            if self.path.endswith("/file_stream"):
                told.streamed.append(content)
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def graphql(self, content: dict) -> dict:
            name, variables = (
                re.search(r"(?:query|mutation)\s+(\w+)", content["query"])[1],
                content.get("variables") or {},
            )
            told.asked.append((name, variables))
            project = {"id": "p", "name": variables.get("project"), "entity": {"id": "e", "name": "me"}}
            bucket = {"id": "b", "name": variables.get("name"), "config": "{}", "project": project}
            sequence = {"id": "s", "latestArtifact": None}
            known = {
                "UpsertBucket": {"upsertBucket": {"bucket": bucket, "inserted": True}},
                "CreateArtifact": {
                    "createArtifact": {"artifact": {"id": "a", "state": "COMMITTED", "artifactSequence": sequence}}
                },
                "CreateRunFiles": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}},
                "RunResumeStatus": {"model": None},
            }
            return {"data": known.get(name, {})}

        def log_message(self, *_: object) -> None:
            """Nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    told.url = f"http://127.0.0.1:{http.server_port}"
    yield told
    http.shutdown()


@pytest.mark.slow
def test_sync_uploads_it_later_with_lineage(shapes: Path, command, patient, server: Server) -> None:
    """`wandb sync` reads the log with W&B's own reader; no network is left."""
    command("split", "--config", shapes)
    words = ["finetune.mode=linear_probe", "tracking.wandb=offline", "tracking.alerts=true"]
    command("train", "--config", shapes, "--fold", "all", *words)
    home = Path("runs/shapes/tiny")
    number = json.loads((home / "wandb.json").read_text())["id"]
    log = next(home.glob(f"wandb/offline-run-*-{number}"))

    environment = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    environment |= {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40, "NO_PROXY": "127.0.0.1", "HOME": "."}
    command_line = [Path(sys.executable).with_name("wandb"), "sync", "--yes", log]
    subprocess.run(command_line, env=environment, capture_output=True, timeout=120, check=False)

    begun = next(variables for name, variables in server.asked if name == "UpsertBucket")
    assert (begun["name"], begun["groupName"], begun["project"]) == (number, "tiny", "foldcraft-shapes")
    lines = [line for part in server.streamed for line in _lines(part, "wandb-history.jsonl")]
    assert any("oof" in line for line in lines)
    created = {one["artifactCollectionName"]: one["artifactTypeName"] for one in server.inputs("CreateArtifact")}
    assert {"tiny-fold0": "predictions", "tiny-fold2": "predictions", "tiny-oof": "oof"}.items() <= created.items()
    assert len(server.inputs("UseArtifact")) == 3, "made from the predictions of three folds"
    assert [one["title"] for name, one in server.asked if "Alert" in name] == ["tiny: all folds are done"]


def _lines(part: dict, file: str) -> list[dict]:
    return [json.loads(line) for line in part.get("files", {}).get(file, {}).get("content", [])]


@pytest.mark.slow
def test_a_resumed_fold_goes_on_in_the_same_run(shapes: Path, command, patient, after_one_epoch) -> None:
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
        (f"import time; time.sleep({NEVER})", "W&B has not finished"),
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
    assert time.monotonic() - begun < NEVER, "it was not waited for"
    assert Path("runs/shapes/tiny/fold0/manifest.json").exists()


def test_patience_is_ten_seconds() -> None:
    assert tracking.PATIENCE == 10


def test_mode_follows_key_and_wish() -> None:
    code = (
        "import os; os.environ.pop('WANDB_MODE', None); from foldcraft.views.wandb_process import mode_of; "
        "print(mode_of('auto', True), mode_of('auto', False), mode_of('offline', True))"
    )
    source = Path(tracking.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.stdout.split() == ["online", "offline", "offline"]
