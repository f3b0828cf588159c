"""What SECURITY.md promises: files from strangers run nothing, reach for nothing, and name nothing outside."""

import ast
import io
import json
import os
import pickle
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CONFIG, Outcome, draw_shape
from fuzzing import images as samples
from fuzzing import write

from foldcraft.common import config_file
from foldcraft.common.checked_array import DamagedRows, RowFile
from foldcraft.common.config import BackboneConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data import competition
from foldcraft.data.images import decoding
from foldcraft.data.images.decoding import UnreadableImage
from foldcraft.data.images.image_cache import ImageSpec, UnreadableImages, open_stores
from foldcraft.models import backbones, checkpoint
from foldcraft.submission import build
from foldcraft.views.wandb_process import run_id

ROOT = Path(__file__).parents[1]
KEY = "0123456789abcdef" * 2 + "5ec4e75e"
Command = Callable[..., Outcome]


# The code


def unsafe(source: str) -> list[str]:
    """Calls in a source text that may run what a file says, with their lines."""
    return [f"line {call.lineno}: {why}" for call, why in _unsafe_calls(ast.parse(source))]


def _unsafe_calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    never = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "marshal.loads", "marshal.load"}
    never |= {"yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "joblib.load", "shelve.open"}
    never |= {"pickle.load", "pickle.loads", "pickle.Unpickler", "pd.read_pickle", "tempfile.mktemp"}
    never |= {"pd.eval", "torch.hub.load", "torch.jit.load", "shutil.unpack_archive"}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        given = {word.arg: ast.unparse(word.value) for word in call.keywords}
        if name in never or name.endswith(".extractall"):
            yield call, name
        if (
            name.endswith(("torch.load", "load_state_dict_from_url", "get_state_dict"))
            and given.get("weights_only") != "True"
        ):
            yield call, f"{name} without weights_only=True"
        if name == "np.load" and given.get("allow_pickle") != "False":
            yield call, f"{name} without allow_pickle=False"
        if given.get("shell", "False") != "False" or given.get("allow_pickle", "False") != "False":
            yield call, f"{name} with shell or allow_pickle"
        if name == "Image.open" and "formats" not in given:
            yield call, "Image.open without formats"


def test_no_call_runs_what_a_file_says():
    found = {str(path.relative_to(ROOT)): unsafe(path.read_text()) for path in (ROOT / "src").rglob("*.py")}
    assert len(found) > 50
    assert {path: calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, Loader=yaml.Loader)",
        "pickle.loads(data)",
        "np.load(path, allow_pickle=True)",
        "np.lib.format.read_array(stream, allow_pickle=True)",
        "eval(text)",
        "subprocess.run(line, shell=True)",
        "enum.get_state_dict(progress=False)",
        "Image.open(path)",
    ],
)
def test_such_calls_are_found(source: str):
    assert unsafe(f"def f():\n    return {source}")


def test_only_the_config_reads_yaml():
    rooms = [path.stem for path in (ROOT / "src").rglob("*.py") if "OmegaConf.load(" in path.read_text()]
    assert rooms == ["config_file"]


# Files that hold code


class Intruder:
    """Pickled, it is a call that leaves a file behind."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("intruded"),)


@pytest.mark.parametrize("kind", ["pickle", "object array", "archive"])
def test_an_array_that_holds_objects_is_damaged(workplace: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    """The image cache and the features are plain numbers."""
    path = workplace / "train.npy"
    stream = io.BytesIO()
    if kind == "archive":
        np.savez(stream, x=np.array([Intruder()], dtype=object))
    elif kind == "object array":
        np.save(stream, np.array([Intruder()], dtype=object), allow_pickle=True)
    path.write_bytes(stream.getvalue() or pickle.dumps(Intruder()))
    with pytest.raises(DamagedRows):
        RowFile(path)
    assert not Path("intruded").exists()


def test_postscript_is_not_handed_to_ghostscript(workplace: Path, monkeypatch: pytest.MonkeyPatch):
    """Pillow runs `gs` on what looks like PostScript, whatever the file is called."""
    program = workplace / "bin" / "gs"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ntouch intruded\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    path = workplace / "cat.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n")
    with pytest.raises(UnreadableImage, match="known kind"):
        decoding.decode(path)
    assert not Path("intruded").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"arch": "hf-hub:timm/resnet10t.c3_in1k"}, "no model 'hf-hub:"),
        ({"arch": "local-dir:elsewhere"}, "no model 'local-dir:"),
        ({"arch": "deeplabv3_resnet50", "source": "torchvision"}, "no model 'deeplab"),
        ({"args": {"num_classes": 3, "checkpoint_path": "elsewhere.pth"}}, "'checkpoint_path'"),
        ({"args": {"num_classes": 3, "pretrained_cfg_overlay": {"file": "elsewhere.pth"}}}, "'pretrained_cfg_overlay'"),
    ],
)
def test_a_model_file_cannot_ask_for_other_files(workplace: Path, change: dict, named: str):
    net, blueprint = backbones.build(BackboneConfig(name="test_resnet", weights="none"), 3, 32)
    path = workplace / "model.safetensors"
    checkpoint.save_model(path, net.state_dict(), replace(blueprint, **change), {})
    with pytest.raises(FoldcraftError, match="cannot build this net") as error:
        checkpoint.load_model(path)
    assert named in str(error.value)


def test_nor_can_a_config(shapes: Path, command: Command):
    command("split", "--config", shapes)
    outcome = command(
        "check", "--show=augmentations", "--config", shapes, "backbone.args={checkpoint_path: elsewhere.pth}"
    )
    assert outcome.code == 2
    assert "'checkpoint_path' would load other weights" in outcome.err


def test_a_compressed_checkpoint_is_refused_unopened(workplace: Path):
    """Sixty megabytes of zeros in a small file; a state that was saved here is stored as it is."""
    import zipfile

    plain = io.BytesIO()
    torch.save({"model": torch.zeros(15_000_000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile("last.ckpt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in source.namelist():
            packed.writestr(name, source.read(name))
    assert Path("last.ckpt").stat().st_size < 100_000
    with pytest.raises(FoldcraftError, match="damaged checkpoint: it is compressed"):
        checkpoint.load_state(Path("last.ckpt"))


# Configs


@pytest.mark.parametrize("text", ["${oc.env:SECRET}", "x${oc.env:SECRET}y", "${oc.decode:x}", "${seed}", "\\${seed}"])
@pytest.mark.parametrize("place", ["file", "key", "parent", "word"])
def test_nothing_is_filled_in(workplace: Path, monkeypatch: pytest.MonkeyPatch, text: str, place: str):
    """A variable of the environment would go into the run's settings, and with them to W&B."""
    monkeypatch.setenv("SECRET", KEY)
    lines = {"file": f"tracking: {{project: '{text}'}}\n", "key": f"augment: {{transforms: [{{'{text}': null}}]}}\n"}
    parent = workplace / "parent.yaml"
    parent.write_text(CONFIG.replace("tracking:", "#") + lines.get("file" if place == "parent" else "", ""))
    path = workplace / "child.yaml"
    path.write_text("extends: parent.yaml\n" + lines.get(place, ""))
    words = [f"tracking.project={text}"] if place == "word" else []
    with pytest.raises(FoldcraftError, match="neither settings nor environment variables") as error:
        config_file.load(path, words)
    assert KEY not in str(error.value)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['touch intruded']", "!!python/name:os.system"])
def test_yaml_makes_no_objects(workplace: Path, tag: str):
    Path("odd.yaml").write_text(f"{CONFIG}seed: {tag}\n")
    with pytest.raises(FoldcraftError, match="not a readable YAML file"):
        config_file.load(Path("odd.yaml"))
    assert not Path("intruded").exists()


@pytest.mark.parametrize("key", ["tracking.api_key", "tracking.key", "wandb_api_key", "tracking.wandb_api_key"])
def test_there_is_no_setting_for_a_key(shapes: Path, command: Command, key: str):
    """And what was written there is not repeated."""
    outcome = command("split", "--config", shapes, f"{key}={KEY}")
    assert outcome.code == 2
    assert f"unknown key '{key}'" in outcome.err
    assert KEY not in outcome.out + outcome.err


# Names and paths


@pytest.mark.parametrize("name", ["../up", "/etc/x", "a/b", "..", ".hidden", "a\\b", "", "a\nb", "a\0b", "x" * 300])
def test_names_stay_in_their_folder(shapes: Path, command: Command, name: str):
    for key in ("experiment", "competition.name", "backbone.name", "distill.teachers"):
        value = json.dumps([name] if key.endswith("s") else name)
        assert command("split", "--config", shapes, f"{key}={value}").code == 2, key
    with pytest.raises(FoldcraftError, match="no name of a file"):
        build.write(pd.DataFrame({"id": ["a"]}), Path("submissions"), name, {})
    assert {path.name for path in Path().iterdir()} == {"input", "configs"}


def test_infer_looks_at_the_name_before_it_works(shapes: Path, command: Command):
    command("split", "--config", shapes)
    outcome = command("infer", "--config", shapes, "--name", "../up")
    assert outcome.code == 2
    assert "--name: '../up' is no name of a file" in outcome.err


def test_a_recorded_run_id_becomes_no_path(workplace: Path):
    file = workplace / "wandb.json"
    file.write_text('{"id": "../../up"}')
    assert run_id(file).isalnum()


@pytest.fixture
def secret(workplace: Path) -> Path:
    """A folder outside of any competition."""
    folder = workplace / "secret"
    folder.mkdir()
    draw_shape("bar", 0).save(folder / "000.png")
    (folder / "train.csv").write_text("id,label\n000,bar\n001,dot\n")
    return folder


@pytest.mark.parametrize("key", ["train", "test", "sample", "image", "test_image"])
@pytest.mark.parametrize("place", ["../../secret/train.csv", "{absolute}/train.csv", "train/../../../secret/train.csv"])
def test_paths_stay_in_the_input_folder(shapes: Path, secret: Path, key: str, place: str):
    word = f"competition.{key}={place.format(absolute=secret)}"
    with pytest.raises(FoldcraftError, match=rf"competition\.{key}: paths leave the input folder"):
        competition.read(config_file.load(shapes, [word]))


@pytest.mark.parametrize("row_id", ["../../../secret/000.png", "{absolute}/000.png"])
def test_ids_stay_in_the_input_folder(shapes: Path, secret: Path, row_id: str):
    table = Path("input/shapes/train.csv")
    table.write_text(table.read_text().replace("000.png", row_id.format(absolute=secret)))
    with pytest.raises(FoldcraftError, match=r"competition\.image: paths leave the input folder"):
        competition.read(config_file.load(shapes, ["competition.image='{id}'"]))


@pytest.mark.parametrize("what", ["image", "folder", "table"])
def test_links_that_lead_out_are_followed_only_when_asked(shapes: Path, secret: Path, what: str):
    inside = Path("input/shapes")
    link = inside / {"image": "train/000.png", "folder": "train", "table": "train.csv"}[what]
    moved = secret / "moved"
    link.rename(moved)
    link.symlink_to(moved.resolve(), target_is_directory=what == "folder")
    with pytest.raises(FoldcraftError, match="behind a symbolic link") as error:
        competition.read(config_file.load(shapes))
    assert str(link) in str(error.value)
    assert "competition.follow_links=true" in str(error.value)
    assert len(competition.read(config_file.load(shapes, ["competition.follow_links=true"])).train_ids) == 48


def test_links_inside_and_a_folder_that_is_a_link_are_fine(shapes: Path, workplace: Path):
    inside = Path("input/shapes")
    (inside / "train").rename(inside / "pictures")
    (inside / "train").symlink_to("pictures", target_is_directory=True)
    inside.rename(workplace / "elsewhere")
    inside.symlink_to(workplace / "elsewhere", target_is_directory=True)
    assert len(competition.read(config_file.load(shapes)).train_paths) == 48


# Keys and terminals


@pytest.mark.slow
def test_the_wandb_key_is_written_nowhere(shapes: Path, command: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    said = [command("split", "--config", shapes)]
    words = ("--config", shapes, "tracking.wandb=offline")
    said += [command("train", *words, "--fold", "0", "train.epochs=1"), command("infer", *words, "train.epochs=1")]
    assert [outcome.code for outcome in said] == [0, 0, 0], said[-1]
    assert not any(KEY in outcome.out + outcome.err for outcome in said)
    files = [path for path in Path().rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert any(path.name == "manifest.json" for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_a_terminal_obeys_nothing_from_a_file(shapes: Path, command: Command):
    """Labels reach the tables that `split` prints, and ids the messages."""
    table = Path("input/shapes/train.csv")
    table.write_text(table.read_text().replace(",bar", ",\x1b]0;owned\x07bar"))
    outcome = command("split", "--config", shapes)
    assert outcome.code == 0, outcome
    assert "\\x1b]0;owned\\x07bar" in outcome.out
    table.write_text(table.read_text().replace("000.png", "\x1b[2J000.png"))
    Path("folds/shapes.csv").unlink()
    outcome = command("split", "--config", shapes)
    assert outcome.code == 2
    assert "\\x1b[2J000.png" in outcome.err
    assert "\x1b" not in outcome.out + outcome.err


# Memory and time


@pytest.mark.parametrize("kind", ["png huge", "gif huge", "bmp huge", "tiff huge 16 bits"])
def test_a_decompression_bomb_is_refused_by_its_header(workplace: Path, kind: str):
    path = write(workplace / "cat.png", samples()[kind])
    tracemalloc.start()
    with pytest.raises(UnreadableImages, match=r"cat\.png \(.*(pixels|too large)"):
        open_stores([path], [ImageSpec(8)], workplace / "cache", "train")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_a_text_bomb_is_not_unpacked(workplace: Path):
    path = write(workplace / "cat.png", samples()["png text bomb"])
    tracemalloc.start()
    decoding.decode(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_scaling_a_large_image_needs_no_more_than_its_bytes():
    """As float64 the 12 million values would take 96 MB, several times over."""
    values = np.zeros((3000, 2000, 2), np.uint16)
    tracemalloc.start()
    scaled = np.asarray(decoding.scaled(values[..., 0], 65535, 0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert scaled.shape == (3000, 2000)
    assert peak < 45_000_000


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a" * 300_000, "262,144"),
        ("x: [" + "x, " * 5000 + "x]", "more than 2,000 values"),
        ("x: " + "[" * 41 + "]" * 41, "nested deeper than 40"),
        ("a0: &a0 [x]\n" + "".join(f"a{k + 1}: &a{k + 1} [*a{k}, *a{k}, *a{k}]\n" for k in range(20)), "expan"),
        ("seed: 4294967296\n", "less than 4294967296"),
        ("images: {max_value: .inf}\n", "finite number"),
    ],
    ids=["long", "wide", "deep", "billion laughs", "huge seed", "infinite"],
)
def test_a_config_is_of_bounded_size(workplace: Path, text: str, named: str):
    path = write(workplace / "odd.yaml", CONFIG.replace("images:", "#") + text)
    with pytest.raises(FoldcraftError, match=named):
        config_file.load(path)
