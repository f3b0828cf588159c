"""Folds that the commands make by themselves, once."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import Outcome

from foldcraft.common import config_file
from foldcraft.common.errors import FoldcraftError
from foldcraft.data import competition, folds, splitting
from foldcraft.study import make_folds
from foldcraft.study.audit.finding import Finding

Command = Callable[..., Outcome]
FOLDS = Path("folds/shapes.csv")
SAID = "no folds yet: made folds/shapes.csv, 48 rows in 3 folds, stratified, seed 0; "
SPACE = "{method: grid, metric: {name: mean, goal: maximize}, parameters: {optim.lr: {values: [0.1]}}}"


@pytest.fixture
def as_split_makes_them(shapes: Path, command: Command) -> str:
    """The folds file as `split` writes it; there is none now."""
    assert command("split", "--config", shapes).code == 0
    text = FOLDS.read_text()
    FOLDS.unlink()
    return text


def finding(name: str, severity: str) -> Finding:
    return Finding(name, severity, 1, "", "", "")


def test_train_makes_missing_folds_and_says_so_in_a_line(shapes: Path, as_split_makes_them: str, command: Command):
    done = command("train", "--config", shapes, "--fold", "0", "--quiet", "train.epochs=1")
    assert done.code == 0, done.err
    assert done.out.count(SAID) == 1
    assert FOLDS.read_text() == as_split_makes_them
    again = command("train", "--config", shapes, "--fold", "0", "--quiet", "train.epochs=1", "folds.seed=3")
    assert (again.code, "no folds yet" in again.out) == (0, False)
    assert FOLDS.read_text() == as_split_makes_them, "folds that are there are never made again"


UNLIKE = (
    "warning: folds/shapes.csv is used as it is, not as the config says: folds.count=10 (it has 3), folds.seed=7 "
    "(it has 0), folds.scheme=plain (it has stratified); for new folds delete it and run `python src/split.py`, then "
    "train again what was trained on the old ones"
)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("check --only first_loss", "audit", "report")]


@pytest.mark.parametrize("name", ["split", "train --fold 0,1 --quiet", "infer", "compare", *SLOW])
def test_folds_that_the_config_wants_otherwise_are_told_once(
    shapes: Path, as_split_makes_them: str, command: Command, caplog: pytest.LogCaptureFixture, name: str
):
    FOLDS.write_text(as_split_makes_them)
    word, *more = name.split()
    words = ("--config", shapes, *more, "train.epochs=1", "tta.views=[identity]")
    if word in ("infer", "report", "compare"):
        assert command("train", "--fold", "all", *words).code == 0
    assert caplog.messages == []
    done = command(word, *words, "folds.count=10", "folds.seed=7", "folds.scheme=plain")
    assert (done.code, caplog.messages) == (0, [UNLIKE]), done


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("folds: {count: 3, seed: 0, scheme: stratified}", []),
        ("seed: 3", []),  # the count of the defaults was never asked for
        ("folds: {merge_duplicates: true}", ["folds.merge_duplicates=true (it was made without)"]),
        ("folds: {scheme: stratified_group}", ["folds.scheme=stratified_group (it has stratified)"]),
    ],
)
def test_only_what_a_config_says_itself_is_held_against_the_folds(shapes: Path, settings: str, told: list[str]):
    config = config_file.load(shapes)
    make_folds.ensure(config, print)
    data = competition.read(config)
    other = Path("configs/other.yaml")
    other.write_text(shapes.read_text().replace("folds: {count: 3}", settings))
    made = folds.read(FOLDS, data)
    assert list(folds.unlike(made, config_file.load(other), data)) == told
    merged = replace(made, duplicates="abc")
    asked = config_file.load(other, ["folds.merge_duplicates=false"])
    assert list(folds.unlike(merged, asked, data))[-1] == "folds.merge_duplicates=false (it keeps copies together)"


def test_folds_of_other_labels_are_refused_as_before(shapes: Path, as_split_makes_them: str, command: Command):
    FOLDS.write_text(as_split_makes_them)
    table = pd.read_csv("input/shapes/train.csv", dtype=str)
    table["label"] = table["label"].to_numpy()[::-1]
    table.to_csv("input/shapes/train.csv", index=False)
    done = command("train", "--config", shapes, "--fold", "0")
    assert (done.code, "was made for other labels or groups" in done.err) == (2, True)
    assert FOLDS.read_text() == as_split_makes_them


def test_a_sweep_makes_them(shapes: Path, as_split_makes_them: str, command: Command):
    Path("space.yaml").write_text(SPACE)
    words = ("--space", "space.yaml", "train.epochs=1", "tta.views=[identity]")
    done = command("sweep", "--config", shapes, *words)
    assert (done.code, done.out.count(SAID)) == (0, 1), done
    assert FOLDS.read_text() == as_split_makes_them


def test_a_diagnosis_makes_them(shapes: Path, as_split_makes_them: str, command: Command, monkeypatch):
    def stop(*_: object) -> None:
        raise FoldcraftError("far enough")

    monkeypatch.setattr("foldcraft.study.diagnose.measure", stop)
    done = command("diagnose", "--config", shapes)
    assert (done.out, done.err) == (f"{SAID}src/split.py shows them; keep them in git\n", "error: far enough\n")
    assert FOLDS.read_text() == as_split_makes_them


def test_mistakes_are_told_and_no_folds_made(shapes: Path, command: Command):
    for name in ("train", "diagnose"):
        done = command(name, "--config", shapes, "folds.count=40", "folds.scheme=stratified_group")
        assert (done.code, "no group column" in done.err) == (2, True), done
        forced = command(name, "--config", shapes, "folds.merge_duplicates=true")
        assert (forced.code, "src/audit.py" in forced.err) == (2, True), forced
    Path("input/shapes/train/003.png").unlink()
    assert "1 image is missing" in command("train", "--config", shapes).err
    assert not FOLDS.exists()


def test_several_processes_make_them_once(shapes: Path, monkeypatch: pytest.MonkeyPatch):
    made, make, said = [], splitting.make, []

    def slowly(*words: object) -> folds.Folds:
        made.append(words)
        time.sleep(0.2)
        return make(*words)

    monkeypatch.setattr(splitting, "make", slowly)
    settings = config_file.load(shapes)
    with ThreadPoolExecutor(4) as pool:  # each takes the lock by a file of its own, as processes do
        list(pool.map(lambda _: make_folds.ensure(settings, said.append), range(4)))
    assert (len(made), len(said)) == (1, 1)
    assert FOLDS.is_file()


def test_of_torchruns_processes_the_first_makes_them(shapes: Path, monkeypatch: pytest.MonkeyPatch):
    settings, said = config_file.load(shapes), []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    second = threading.Thread(target=make_folds.ensure, args=(settings, said.append))
    second.start()
    time.sleep(0.3)
    assert second.is_alive()
    assert not FOLDS.exists()
    monkeypatch.setenv("RANK", "0")
    make_folds.ensure(settings, said.append)
    second.join(10)
    assert (second.is_alive(), len(said)) == (False, 1)
    FOLDS.unlink()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(make_folds, "PATIENCE", 0.0)
    with pytest.raises(FoldcraftError, match="first process has made no folds"):
        make_folds.ensure(settings, said.append)


def test_an_audit_makes_them_where_nothing_asks_for_other_rows(shapes: Path):
    settings, said = config_file.load(shapes), []
    for name, severity in (("broken", "serious"), ("hidden_groups", "warning")):
        make_folds.ensure_after_audit(settings, [finding("odd", "warning"), finding(name, severity)], said.append)
        assert said.pop() == (
            f"no folds yet, and none made: see to {name} first; src/train.py or src/split.py makes them"
        )
    assert not FOLDS.exists()
    make_folds.ensure_after_audit(settings, [finding("hidden_groups", "info"), finding("odd", "warning")], said.append)
    assert said.pop().startswith(SAID)
    make_folds.ensure_after_audit(settings, [finding("broken", "serious")], said.append)
    assert said == [], "they are there"


def test_an_audit_does_not_fail_where_no_folds_can_be_made(shapes: Path):
    Path("input/shapes/train/003.png").unlink()
    said: list[str] = []
    make_folds.ensure_after_audit(config_file.load(shapes), [], said.append)
    assert said[0].startswith("warning: no folds yet, and none can be made: input/shapes: 1 image is missing")
