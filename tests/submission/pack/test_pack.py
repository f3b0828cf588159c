"""Packs: their parts one by one, and whole ones that are run in the test's own process."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Outcome
from scipy import special

from foldcraft.data.images.inference_size import resized
from foldcraft.ensemble.constraints import Obeying
from foldcraft.ensemble.decision_rules import Argmax, ClassBias, CutPoints, HeadRules, LabelThresholds
from foldcraft.ensemble.methods import RankPool
from foldcraft.ensemble.plan import BlendMember, BlendPlan
from foldcraft.metrics import logits
from foldcraft.metrics.spaces import ClassSpace
from foldcraft.predictions import tta
from foldcraft.submission.pack import clock as clocks
from foldcraft.submission.pack import code, offline, stored
from foldcraft.submission.pack.clock import Clock
from foldcraft.submission.pack.looks import look
from foldcraft.submission.pack.packed import Tier

Command, Captured = Callable[..., Outcome], pytest.CaptureFixture[str]
EVERYWHERE = {"numpy", "pandas", "PIL"}
WITH_TORCH = EVERYWHERE | {
    "torch",
    "timm",
    "torchvision",
    "safetensors",
    "huggingface_hub",
}  # timm brings the last three


@pytest.mark.parametrize("view", ["identity", "vflip", "rot90", "rot180", "rot270+hflip", "scale1.3", "scale0.7+hflip"])
def test_views_without_torch_are_those_of_torch(view: str) -> None:
    images = np.random.default_rng(0).normal(size=(2, 3, 23, 23)).astype(np.float32)
    np.testing.assert_allclose(look(images, view), tta.view(view)(torch.from_numpy(images)).numpy(), atol=1e-5)


def test_logits_are_those_of_scipy() -> None:
    values = np.random.default_rng(0).normal(scale=300, size=(50, 7))
    values[0, 0] = -np.inf
    np.testing.assert_allclose(logits.log_softmax(values), special.log_softmax(values, axis=-1), rtol=1e-12)
    np.testing.assert_allclose(logits.softmax(values), special.softmax(values, axis=-1), rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(logits.expit(values), special.expit(values), rtol=1e-12, atol=1e-300)
    weights = np.linspace(0, 1, 50)[:, None]
    np.testing.assert_allclose(logits.logsumexp(values, 0, weights), special.logsumexp(values, 0, weights), rtol=1e-12)


def test_an_image_is_made_smaller_without_opencv_as_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 5), dtype=np.uint8)
    wanted = resized(image, 25)
    monkeypatch.setattr("foldcraft.data.images.inference_size._opencv", lambda: None)
    assert np.abs(resized(image, 25).astype(int) - wanted.astype(int)).max() <= 1


def plan(rule: object = Argmax()) -> BlendPlan:
    known = np.sort(np.random.default_rng(1).normal(size=(2, 9, 3)), axis=1)
    pool = RankPool((0, 1), (1.0, 2.0), (0.5, 0.5), 2, ClassSpace(("a", "b", "c")), known=known)
    return BlendPlan(((1.0, 0.0), (0.5, 0.5)), pool, rule)


RULES = (
    ClassBias((0.1, 0.0, -0.1)),
    CutPoints((0.4, 1.7)),
    LabelThresholds((0.1, 0.0, 0.2)),
    HeadRules((slice(0, 2), slice(2, 3)), (Argmax(), ClassBias((0.0,))), ("x", "y")),
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_plan_is_read_as_it_was_written(tmp_path: Path, rule: object) -> None:
    stored.write(tmp_path, plan(rule))
    again = stored.read(tmp_path)
    said = np.log(np.random.default_rng(0).dirichlet(np.ones(3), (2, 6)))
    members = [BlendMember("m", ("identity", "hflip"), said), BlendMember("n", ("identity", "hflip"), said[::-1])]
    np.testing.assert_array_equal(again.apply(members), plan(rule).apply(members))
    assert type(again.rule) is type(rule)
    assert Obeying.__module__ in code.modules("onnx"), "what a plan may name is in every pack"


@pytest.mark.parametrize(
    "text", ['{"$": "os:system", "command": "true"}', '{"$": "foldcraft.common.files:locked"}', "[", "{}"]
)
def test_a_file_from_a_stranger_runs_nothing(tmp_path: Path, text: str) -> None:
    stored.write(tmp_path, plan())
    (tmp_path / stored.TABLE).write_text(text)
    with pytest.raises(Exception, match=r"damaged pack|another version") as told:
        offline.load(tmp_path)
    assert len(str(told.value)) < 300


ONLY = """
import builtins, importlib, json, sys
allowed, before, names = json.load(sys.stdin)
for name in before: importlib.import_module(name)
there, find = {*sys.stdlib_module_names, "foldcraft", *allowed}, builtins.__import__
def only(name, globals=None, locals=None, fromlist=(), level=0):
    ours = (globals or {}).get("__name__", "").startswith("foldcraft")
    if ours and not level and name.split(".")[0] not in there: raise ImportError(name)
    return find(name, globals, locals, fromlist, level)
builtins.__import__ = only
for name in names: importlib.import_module(name)
"""
BEFORE = {"onnx": ["numpy", "pandas", "PIL.Image"], "torch": ["numpy", "pandas", "PIL.Image", "timm"]}


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "allowed"), [("onnx", EVERYWHERE), ("torch", WITH_TORCH)])
def test_a_pack_imports_nothing_else(engine: str, allowed: set[str]) -> None:
    """None of all modules that it holds."""
    asked = json.dumps([sorted(allowed), BEFORE[engine], code.modules(engine)])
    done = subprocess.run([sys.executable, "-c", ONLY], input=asked, cwd=ROOT / "src", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-600:]


def tiers() -> list[Tier]:
    one = plan()
    return [Tier((0, 1), 3, one, 0.9, 0.8, 1.0), Tier((1,), 3, one, 0.8, 0.7, 0.9), Tier((1,), 1, one, 0.8, 0.7, 0.9)]


def test_cheaper_members_answer_what_there_is_no_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(clocks.time, "monotonic", lambda: now[0])
    clock, used = Clock(tiers(), (3, 3), 100.0), [0, 0, 0]
    rows, chunk, seconds = 1000, 10, {0: 0.2, 1: 0.01}  # an image in one model
    for first in range(0, rows, chunk):
        place = clock.tier(chunk, rows - first)
        used[place] += chunk
        took = 0.0
        for member in clock.tiers[place].members:
            models = clock.tiers[place].folds
            clock.took(member, chunk * models, seconds[member] * chunk * models)
            took += seconds[member] * chunk * models
        now[0] += took + 0.1
        clock.passed(chunk, took + 0.1)
    assert now[0] <= 100
    assert used[0] > 50, "the whole blend answers as long as the rest can be done in time"
    assert used[1] + used[2] > 500
    assert now[0] > 60, "time is not left unused"


def test_without_a_budget_the_whole_blend_answers_all() -> None:
    clock = Clock(tiers(), (3, 3), None)
    clock.took(0, 3, 1000.0)
    clock.passed(1, 1000.0)
    assert clock.tier(10, 10**6) == 0


def test_when_time_is_up_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(clocks.time, "monotonic", lambda: now[0])
    clock = Clock(tiers(), (3, 3), 10.0)
    clock.took(1, 10, 1.0)
    clock.passed(10, 1.0)
    now[0] = 9.9
    assert clock.tier(10, 100) is None


@pytest.fixture
def two(shapes: Path, command: Command) -> list[Path]:
    """Two trained experiments, the second twice as large an image; their configs."""
    found = []
    for name, size in (("small", 16), ("large", 32)):
        path = shapes.with_name(f"{name}.yaml")
        about = "finetune: {mode: linear_probe}\nprobe: {augmented: 0}\n"
        path.write_text(f"extends: tiny.yaml\nexperiment: {name}\nimages: {{size: {size}}}\n{about}")
        assert command("train", "--config", path, "--fold", "all").code == 0
        found.append(path)
    return found


def said(folder: Path, *words: str) -> list[str]:
    """What a pack's entry answers, in this process."""
    assert offline.run(folder, ["--data", "input/shapes", "--out", "said.csv", "--device", "cpu", *words]) == 0
    return Path("said.csv").read_text().splitlines()


def test_a_pack_by_torch_says_what_infer_says(two: list[Path], command: Command, capfd: Captured) -> None:
    words = ("--config", *two, "--method", "weighted mean")
    assert command("infer", *words, "--out", "wanted.csv").code == 0
    done = command("pack", *words, "--owner", "me", "--competition", "shapes-2")
    assert done.code == 0, done.err
    folder = Path("packs/shapes_small_large")
    assert f"wrote {folder}: " in done.out
    assert said(folder) == Path("wanted.csv").read_text().splitlines()
    kernel, data = (json.loads((folder / f"{name}-metadata.json").read_text()) for name in ("kernel", "dataset"))
    assert kernel["dataset_sources"] == [data["id"]]
    assert (kernel["competition_sources"], data["id"]) == (["shapes-2"], "me/shapes-small-large")
    assert kernel["id"] == f"me/{kernel['title'].replace(' ', '-')}", "a kernel's slug is its title"
    card = (folder / "README.md").read_text()
    assert "out of fold, nested" in card
    assert "forecast of the hidden score" in card
    assert command("pack", *words, "--out", "configs").err.startswith("error: configs: holds something that is no pack")
    assert command("pack", *words, "--out", "wanted.csv").err.startswith("error: wanted.csv: is a file")
    capfd.readouterr()
    model = min((folder / "models").iterdir())
    model.write_bytes(model.read_bytes()[:-1])
    assert offline.run(folder, ["--data", "input/shapes"]) == 2
    assert "/models: models of " in capfd.readouterr().err, "before any of them has answered"
    model.unlink()
    for words, what in (
        (["--data", "input/shapes"], f"error: {model}: is missing; copy the pack again"),
        (["--data", "elsewhere"], "error: elsewhere: no such folder; name the one of the competition's files: --data"),
        (["--minutes", "abc"], "error: predict.py: argument --minutes: invalid float value: 'abc'"),
    ):
        assert offline.run(folder, words) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(what)


@pytest.mark.slow
def test_a_bounded_size_says_what_it_leaves_out(two: list[Path], command: Command) -> None:
    words = ("--config", *two, "--method", "weighted mean", "--out", "p")
    assert command("pack", *words).code == 0
    whole = offline.load(Path("p"))
    assert len(whole.members) == 2
    each = sum(member.bytes for member in whole.members) / 2
    rest = sum(file.stat().st_size for file in Path("p").rglob("*") if file.is_file()) - 2 * each
    most = (rest + 0.8 * each + 100_000) / 1e6
    done = command("pack", *words, "--most", f"{most:.3f}MB")
    assert done.code == 0, done.err
    assert "--most: without " in done.out
    assert "nested " in done.out
    fewer = offline.load(Path("p"))
    assert len(fewer.members) == 1
    assert sum(file.stat().st_size for file in Path("p").rglob("*") if file.is_file()) <= most * 1e6
    assert len(said(Path("p"))) == 13
    Path("p.tmp-of-a-killed-one/models").mkdir(parents=True)
    refused = command("pack", *words, "--most", "1MB")
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert "does not fit; allow " in refused.err
    assert not list(Path().glob("p.tmp-*")), "what a killed one has left is gone"


@pytest.mark.slow
def test_the_notebook_runs_where_kaggle_puts_things(two: list[Path], command: Command, tmp_path: Path) -> None:
    assert command("pack", "--config", two[0], "--out", "p").code == 0
    shutil.move("p", tmp_path / "kaggle" / "my-pack")
    shutil.copytree("input/shapes", tmp_path / "kaggle" / "competitions" / "shapes")
    notebook = json.loads((tmp_path / "kaggle" / "my-pack" / "inference.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    script = "\n".join(cells).replace('"/kaggle/input"', repr(str(tmp_path / "kaggle")))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "submission.csv").read_text().splitlines()) == 13


def test_a_broken_image_has_the_baseline_and_is_named(two: list[Path], command: Command, capfd: Captured) -> None:
    assert command("pack", "--config", two[0], "--out", "p").code == 0
    broken = sorted(Path("input/shapes/test").iterdir())[3]
    broken.write_bytes(b"no picture")
    capfd.readouterr()
    assert len(said(Path("p"))) == 13
    assert (
        f"warning: 1 test image cannot be read ({broken}, for one); 1 answer by the baseline" in capfd.readouterr().out
    )


def test_no_time_gives_the_baseline_and_says_so(two: list[Path], command: Command, capfd: Captured) -> None:
    assert command("pack", "--config", two[0], "--out", "p").code == 0
    capfd.readouterr()
    assert len(said(Path("p"), "--minutes", "1e-9")) == 13
    assert "no time was left for 12 answers" in capfd.readouterr().out
