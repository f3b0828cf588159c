"""A user's mistakes: each is answered with exit code 2 and one line that names the culprit; nothing is left broken."""

import os
import pickle
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Outcome, draw_shape

from foldcraft.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
INPUT = Path("input/shapes")
FOLDS = Path("folds/shapes.csv")
FOLD = Path("runs/shapes/tiny/fold0")
LOOK = "check --show=augmentations"
Command = Callable[..., Outcome]


def mistake(outcome: Outcome, *named: str) -> None:
    """One line, exit code 2, and each of `named` in it."""
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) == 1, outcome.err
    assert "Traceback" not in outcome.out + outcome.err
    for part in named:
        assert part in outcome.err


def fine(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome
    assert "Traceback" not in outcome.out + outcome.err
    return outcome


def leftovers() -> list[str]:
    return [str(path) for path in Path().rglob("*.tmp-*")]


def edit_table(name: str, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    table = pd.read_csv(INPUT / name, dtype=str)
    edit(table).to_csv(INPUT / name, index=False)


@pytest.fixture
def split(shapes: Path, command: Command) -> Path:
    """The drawn competition with frozen folds; the config's path."""
    fine(command("split", "--config", shapes))
    return shapes


@pytest.fixture
def begun(split: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fold 0 stopped by Ctrl-C in its second epoch; the config's path."""
    epochs, run_epoch = [], Trainer.run_epoch

    def stop_at_second(trainer: Trainer) -> None:
        epochs.append(trainer.epoch)
        if len(epochs) == 2:
            raise KeyboardInterrupt
        run_epoch(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_epoch", stop_at_second)
        outcome = command("train", "--config", split, "--fold", "0", "train.epochs=2")
    assert outcome.code == 130, outcome
    assert epochs == [0, 1]
    assert (FOLD / "last.ckpt").is_file()
    return split


@pytest.fixture
def trained(split: Path, command: Command) -> Path:
    """Fold 0 trained; the config's path."""
    fine(command("train", "--config", split, "--fold", "0", "train.epochs=1"))
    return split


# The config and the command line


@pytest.mark.parametrize("name", ["split", "train", "infer", LOOK])
def test_no_such_config(workplace: Path, command: Command, name: str):
    mistake(command(*name.split(), "--config", "configs/typo.yaml"), "configs/typo.yaml", "no such config")
    mistake(command(*name.split()), "configs/default.yaml", "no such config")


@pytest.mark.parametrize("name", ["split", "train", "infer", LOOK])
@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("train.epoch=3", ("command line: train.epoch: unknown key", "did you mean 'train.epochs'")),
        ("lr=0.1", ("'lr'", "did you mean 'optim.lr'")),
        ("optim.lr=-1", ("command line: optim.lr=-1: must be greater than 0 or auto, is -1",)),
        ("images.resize=stretch", ("must be squash, pad or crop, is 'stretch'",)),
        ("folds.count=one", ("command line: folds.count=one: must be a whole number, is 'one'",)),
        ("train=5", ("train",)),
        ("experiment=../up", ("experiment",)),
        ("optim.lr", ("'optim.lr'", "key=value")),
    ],
    ids=["typo", "no section", "range", "choice", "type", "section", "name", "no equals sign"],
)
def test_a_setting_that_cannot_be(shapes: Path, command: Command, name: str, word: str, named: tuple[str, ...]):
    mistake(command(*name.split(), "--config", shapes, word), *named)


def test_a_typo_in_the_file(shapes: Path, command: Command):
    shapes.write_text(shapes.read_text().replace("epochs:", "epocs:"))
    mistake(command("train", "--config", shapes), str(shapes), "'train.epocs'", "did you mean 'train.epochs'")


@pytest.mark.parametrize("name", ["split", "train", "infer", LOOK])
def test_a_mistake_is_answered_without_loading_torch(shapes: Path, name: str):
    """Half a second, not five."""
    module, *more = name.split()
    code = f"""
import sys
sys.argv = ["src/{module}.py", *{more}, "--config", {str(shapes)!r}, "train.epochs=none"]
from foldcraft.views import cli
import {module}
try:
    cli.run({module}.main)
except SystemExit as end:
    print(end.code, sorted({{"torch", "timm", "pandas", "sklearn", "cv2", "albumentations"}} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=600)
    assert done.stdout.strip() == "2 []"
    mistake(Outcome(2, done.stdout, done.stderr), "train.epochs")


# The competition's files


@pytest.mark.parametrize("name", ["split", "train", "infer", LOOK])
def test_no_input_folder(shapes: Path, command: Command, name: str):
    INPUT.rename("input/elsewhere")
    mistake(command(*name.split(), "--config", shapes), str(INPUT), "no such input folder")


@pytest.mark.parametrize("file", ["train.csv", "sample_submission.csv"])
def test_a_missing_table(shapes: Path, command: Command, file: str):
    (INPUT / file).unlink()
    mistake(command("split", "--config", shapes), str(INPUT / file), "no such file")


@pytest.mark.parametrize(
    ("file", "edit", "named"),
    [
        ("train.csv", lambda table: table.rename(columns={"id": "idd"}), ("no column 'id'", "'idd'")),
        ("train.csv", lambda table: table.rename(columns={"label": "lable"}), ("no column 'label'", "'lable'")),
        ("test.csv", lambda table: table.rename(columns={"id": "name"}), ("no column 'id'", "name")),
        ("train.csv", lambda table: pd.concat([table, table[5:6]]), ("more than once", "005.png")),
        ("test.csv", lambda table: pd.concat([table, table[:1]]), ("more than once", "048.png")),
        ("train.csv", lambda table: table.assign(label=table["label"].mask(table.index == 7)), ("'label'", "line 9")),
        ("train.csv", lambda table: table.assign(label="bar"), ("only one class", "'bar'", "competition.target")),
        ("sample_submission.csv", lambda table: table.assign(id=table["id"] + "x"), ("048.pngx", "test.csv")),
        ("sample_submission.csv", lambda table: table[1:], ("1 ids of test.csv are not in it", "048.png")),
        ("sample_submission.csv", lambda table: table[["id"]], ("no column beside the id",)),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_table_that_is_not_sound(
    shapes: Path, command: Command, file: str, edit: Callable[[pd.DataFrame], pd.DataFrame], named: tuple[str, ...]
):
    edit_table(file, edit)
    mistake(command("split", "--config", shapes), str(INPUT / file), *named)
    assert not FOLDS.exists()


def test_a_class_with_fewer_rows_than_folds(shapes: Path, command: Command):
    edit_table("train.csv", lambda table: table.assign(label=table["label"].mask(table.index < 2, "rare")))
    for words in (("split",), ("train", "--fold", "0", "finetune.mode=linear_probe")):
        done = command(*words[:1], "--config", shapes, *words[1:])
        assert done.code == 0, "a rare class is no obstacle"
        assert "warning: no row of class 'rare' in fold " in done.out, "said by whoever makes the folds"
        FOLDS.unlink()


def test_missing_images_are_all_named(split: Path, command: Command):
    gone = ["000.png", "007.png", "013.png", "047.png"]
    for name in gone:
        (INPUT / "train" / name).unlink()
    for name in ("split", "train", LOOK):
        mistake(command(*name.split(), "--config", split), str(INPUT), "4 images are missing", *gone)


def test_an_image_path_that_names_a_folder(shapes: Path, command: Command):
    """`train` is there, but it is no image."""
    fine(command("split", "--config", shapes))
    mistake(command("train", "--config", shapes, "competition.image=train"), "competition.image", "images are missing")


def test_unreadable_images_are_all_counted_before_training_starts(split: Path, command: Command):
    whole = (INPUT / "train" / "003.png").read_bytes()
    (INPUT / "train" / "003.png").write_bytes(whole[: len(whole) // 2])
    (INPUT / "train" / "010.png").write_bytes(b"")
    (INPUT / "train" / "020.png").write_text("this is no picture")
    (INPUT / "train" / "030.png").write_bytes(whole[:28])  # ends within the header
    (INPUT / "test" / "050.png").write_text("nor is this, and it is told in the same line")
    for name in ("train", LOOK):
        outcome = command(*name.split(), "--config", split)
        mistake(outcome, "5 images cannot be read", "003.png", "4 more", "src/audit.py lists them all")
        assert len(outcome.err) < 300
        assert "epoch" not in outcome.out
    assert not (FOLD / "history.csv").exists()
    assert not list(Path("runs").rglob("*.npy"))
    assert not leftovers()


# Folds


@pytest.mark.parametrize("name", ["check", "infer", "report", "compare"])
def test_no_folds_yet(shapes: Path, command: Command, name: str):
    mistake(command(name, "--config", shapes), str(FOLDS), "python src/split.py")


@pytest.mark.parametrize("name", ["split", "train"])
def test_a_folder_where_the_folds_should_be(shapes: Path, command: Command, name: str):
    FOLDS.mkdir(parents=True)
    mistake(command(name, "--config", shapes), str(FOLDS), "Is a directory", "move it away")


def _change_a_label() -> None:
    edit_table("train.csv", lambda table: table.assign(label=table["label"].mask(table.index == 0, "dot")))


def _add_an_image() -> None:
    draw_shape("bar", 99).save(INPUT / "train" / "099.png")
    edit_table("train.csv", lambda table: pd.concat([table, pd.DataFrame({"id": ["099.png"], "label": ["bar"]})]))


def _drop_rows() -> None:
    edit_table("train.csv", lambda table: table[:-3])


def _move_a_row() -> None:
    head, last = FOLDS.read_text().strip().rsplit("\n", 1)
    row_id, fold = last.split(",")
    FOLDS.write_text(f"{head}\n{row_id},{(int(fold) + 1) % 3}\n")


def _fewer_folds() -> None:
    FOLDS.write_text(FOLDS.read_text().replace('"count": 3', '"count": 2'))


@pytest.mark.parametrize("name", ["split", "train", "infer", LOOK])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_change_a_label, "other labels"),
        (_add_an_image, "1 ids are new, 0 are gone"),
        (_drop_rows, "0 ids are new, 3 are gone"),
        (_move_a_row, "edited"),
        (_fewer_folds, "edited"),
        (lambda: FOLDS.write_text("id,fold\n000.png,0\n"), "not a folds file"),
        (lambda: FOLDS.write_text("# null\nid,fold\n000.png,0\n"), "not a folds file"),
    ],
    ids=[
        "label changed",
        "id added",
        "ids gone",
        "row moved by hand",
        "count changed by hand",
        "no folds file",
        "empty header",
    ],
)
def test_folds_that_do_not_fit(split: Path, command: Command, name: str, change: Callable[[], None], named: str):
    change()
    before = FOLDS.read_bytes()
    mistake(command(*name.split(), "--config", split), str(FOLDS), named, "src/split.py")
    assert FOLDS.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--fold", "3"), ("no fold 3", "0 to 2")),
        (("--fold", "0,7"), ("no fold 7",)),
        (("--fold", "first"), ("'first'", "--fold")),
        (("--jobs", "0"), ("--jobs",)),
    ],
)
def test_no_such_fold(split: Path, command: Command, words: tuple[str, ...], named: tuple[str, ...]):
    mistake(command("train", "--config", split, *words), *named)
    assert not Path("runs").exists()


# The backbone


@pytest.mark.parametrize(
    ("source", "model", "help_for_it"),
    [("timm", "resnet10t", "hf download timm/resnet10t"), ("torchvision", "squeezenet1_1", "model.pth")],
)
def test_pretrained_weights_out_of_reach(
    split: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    source: str,
    model: str,
    help_for_it: str,
):
    """Never silently random: the line says how to get them, and how to do without."""

    def no_network(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    (tmp_path / "no_weights").mkdir()
    monkeypatch.setenv("FOLDCRAFT_WEIGHTS", str(tmp_path / "no_weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket, "create_connection", no_network)
    words = ("backbone.weights=pretrained", f"backbone.source={source}", f"backbone.name={model}")
    for name in ("train", LOOK):
        outcome = command(*name.split(), "--config", split, *words)
        mistake(outcome, str(tmp_path / "no_weights" / model), help_for_it, "backbone.weights=none")
    assert not (FOLD / "history.csv").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("backbone.name=resnet10tt",), ("backbone.name", "'resnet10tt'", "did you mean 'resnet10t'")),
        (("backbone.source=torchvision", "backbone.name=resnet19"), ("backbone.name", "'resnet19'", "did you mean")),
        (("backbone.args.depht=3",), ("backbone", "depht")),
        (("backbone.source=torchvision", "backbone.name=vit_b_16", "images.size=17"), ("images.size", "17")),
    ],
    ids=["timm", "torchvision", "argument", "size"],
)
def test_a_backbone_that_cannot_be(split: Path, command: Command, words: tuple[str, ...], named: tuple[str, ...]):
    mistake(command(*LOOK.split(), "--config", split, *words), *named)


# Augmentation and views


@pytest.mark.parametrize(
    ("transforms", "named"),
    [
        ("[HorizontalFlop]", ("'HorizontalFlop'", "did you mean 'HorizontalFlip'")),
        ("[{GaussianBlur: {blurlimit: 3}}]", ("GaussianBlur", "blurlimit")),
        ("[{GaussianBlur: {p: 2}}]", ("GaussianBlur",)),
        ("[{Rotate: {limit: wide}}]", ("Rotate", "wide")),
        ("[{HorizontalFlip: null, VerticalFlip: null}]", ("HorizontalFlip", "not one transform")),
        ("[{OneOf: {transforms: [Blurr]}}]", ("'Blurr'", "did you mean 'Blur'")),
        ("[{OneOf: {transforms: [3]}}]", ("3 is not one transform",)),
        ("[{RandomCrop: {height: 99, width: 99}}]", ("99",)),
    ],
)
def test_an_augmentation_that_cannot_be(split: Path, command: Command, transforms: str, named: tuple[str, ...]):
    for name in ("train", LOOK):
        outcome = command(*name.split(), "--config", split, f"augment.transforms={transforms}")
        mistake(outcome, "augment.transforms", *named)
    assert not (FOLD / "history.csv").exists()


@pytest.mark.parametrize("name", ["train", "infer", LOOK])
@pytest.mark.parametrize(
    ("view", "named"),
    [("hflop", "did you mean 'hflip'"), ("scale9", "scale0.5 to scale2"), ("hflip+turn", "'turn'"), ("''", "known:")],
)
def test_an_unknown_view(split: Path, command: Command, name: str, view: str, named: str):
    mistake(command(*name.split(), "--config", split, f"tta.views=[identity,{view}]"), "tta.views", named)
    assert not Path("runs").exists()


# What lies in the run folder


def test_infer_before_training(split: Path, command: Command):
    mistake(command("infer", "--config", split), "runs/shapes/tiny", "python src/train.py")
    assert not Path("submissions").exists()


def test_a_checkpoint_of_other_settings(begun: Path, command: Command):
    """What has changed is said, and with the old settings the training goes on."""
    kept = (FOLD / "last.ckpt").read_bytes()
    outcome = command("train", "--config", begun, "--fold", "0", "train.epochs=2", "optim.lr=0.01")
    mistake(outcome, str(FOLD), "optim.lr was 0.001, is 0.01", "experiment=")
    assert (FOLD / "last.ckpt").read_bytes() == kept
    assert "goes on after epoch 1" in fine(command("train", "--config", begun, "--fold", "0", "train.epochs=2")).out


@pytest.mark.parametrize("word", ["optim.lr=0.01", "backbone.name=resnet10t", "seed=1"])
def test_a_checkpoint_copied_from_another_experiment(begun: Path, command: Command, word: str):
    other = FOLD.parents[1] / "other" / "fold0"
    other.mkdir(parents=True)
    shutil.copy(FOLD / "last.ckpt", other)
    words = ("--fold", "0", "train.epochs=2", "experiment=other", word)
    mistake(command("train", "--config", begun, *words), str(other / "last.ckpt"), "another experiment", "delete it")
    (other / "last.ckpt").unlink()
    assert "goes on" not in fine(command("train", "--config", begun, *words)).out


def test_a_finished_fold_of_other_settings(trained: Path, command: Command):
    words = ("train.epochs=1", "optim.lr=0.01")
    outcome = command("train", "--config", trained, "--fold", "0", *words)
    mistake(outcome, str(FOLD), "optim.lr was 0.001, is 0.01", "experiment=")
    mistake(command("infer", "--config", trained, *words), str(FOLD), "optim.lr was 0.001, is 0.01")


def test_a_finished_fold_of_other_folds(trained: Path, command: Command):
    Path("folds/shapes.csv").unlink()
    fine(command("split", "--config", trained, "folds.seed=7"))
    outcome = command("train", "--config", trained, "--fold", "0", "train.epochs=1", "folds.seed=7")
    mistake(outcome, str(FOLD), "made for other folds than there are now", "experiment=NEWNAME")


class Intruder:
    """Pickled, it is a call that leaves a file behind."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("intruded"),)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(np.random.default_rng(0).bytes(5000)),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
        lambda file: file.write_bytes(pickle.dumps(Intruder(), protocol=2)),
        lambda file: torch.save({"model": Intruder()}, file),
        lambda file: torch.save([1, 2, 3], file),
    ],
    ids=["garbage", "empty", "cut", "pickle", "stranger's code", "list"],
)
def test_a_damaged_checkpoint(begun: Path, command: Command, damage: Callable[[Path], object]):
    damage(FOLD / "last.ckpt")
    outcome = command("train", "--config", begun, "--fold", "0", "train.epochs=2")
    mistake(outcome, str(FOLD / "last.ckpt"), "damaged checkpoint", "delete it")
    assert not Path("intruded").exists()


@pytest.mark.parametrize("damage", [b"", b"garbage"], ids=["empty", "garbage"])
def test_damaged_predictions_are_named_and_made_again_once_deleted(trained: Path, command: Command, damage: bytes):
    words = ("--config", trained, "train.epochs=1")
    for file in (FOLD / "oof.parquet", FOLD / "test.parquet"):
        whole = file.read_bytes()
        file.write_bytes(damage)
        mistake(command("infer", *words), str(file), "damaged predictions", "delete it")
        assert not Path("submissions").exists()
        file.write_bytes(whole)
    file.unlink()
    assert "wrote submissions" in fine(command("infer", *words)).out


@pytest.mark.parametrize("file", ["model.safetensors", "manifest.json"])
def test_a_damaged_file_of_a_finished_fold(trained: Path, command: Command, file: str):
    (FOLD / file).write_bytes(b"garbage")
    outcome = command("infer", "--config", trained, "train.epochs=1", "tta.views=[identity,vflip]")
    mistake(outcome, str(FOLD / file), "damaged")


def test_what_a_killed_inference_left_behind_goes(trained: Path, command: Command):
    for name in ("oof", "test"):
        (FOLD / f"{name}.parquet.tmp-1").write_bytes(b"half")
    fine(command("infer", "--config", trained, "train.epochs=1", "tta.views=[identity,vflip]"))
    assert not list(FOLD.glob("*.tmp-*"))


def test_predictions_that_another_program_has_written_are_told(trained: Path, command: Command):
    file = Path("runs/shapes/tiny/fold0/oof.parquet")
    pd.read_parquet(file).to_parquet(file)  # which keeps the table alone
    told = command("infer", "--config", trained, "train.epochs=1")
    assert (told.code, "damaged predictions: foldcraft is missing in it" in told.err) == (2, True), told.err


def test_a_file_in_the_place_of_a_folder_is_named(trained: Path, command: Command):
    Path("taken").write_text("")
    told = command("infer", "--config", trained, "train.epochs=1", "--out", "taken/below/sub.csv")
    said = "taken: is a file, and taken/below/sub.csv cannot lie in it; name another folder"
    assert (told.code, said in told.err) == (2, True), told.err


def test_a_second_process_on_a_fold_leaves_it_alone(split: Path, command: Command):
    FOLD.mkdir(parents=True)
    code = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]):\n    print('held', flush=True), input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, FOLD / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        outcome = command("train", "--config", split, "--fold", "0", "train.epochs=1")
        mistake(outcome, str(FOLD), "another process is at this fold")
        assert os.listdir(FOLD) == [".lock"]
        holder.kill()
    fine(command("train", "--config", split, "--fold", "0", "train.epochs=1"))


@contextmanager
def no_file_larger_than(limit: int) -> Iterator[None]:
    """Writing beyond `limit` bytes of a file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk(split: Path, command: Command):
    """First there is no room for the image cache, then none for the checkpoint: nothing is left half-written."""
    words = ("train", "--config", split, "--fold", "0", "train.epochs=1")
    for limit, named, written in ((24_000, "runs/shapes/cache", []), (200_000, FOLD / "last.ckpt", ["test", "train"])):
        with no_file_larger_than(limit):
            outcome = command(*words)
        mistake(outcome, str(named), "cannot be written", "free some space")
        assert not [path for pattern in ("*.tmp-*", "last.ckpt") for path in Path().rglob(pattern)]
        assert sorted(path.name.split("-")[0] for path in Path().rglob("*.npy")) == written
    assert "fold 0: done" in fine(command(*words)).out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train.batch=1"], ("train.batch", "a part is a single image", "finetune.batchnorm=frozen")),
        (["train.batch=8", "train.accumulate=8"], ("train.accumulate", "a part is a single image")),
        (["train.batch=8", "train.accumulate=16"], ("train.accumulate", "16 parts of a batch of 8 images")),
        (["train.batch=8", "train.accumulate=16", "finetune.batchnorm=frozen"], ("16 parts of a batch of 8 images",)),
    ],
)
def test_parts_that_batchnorm_cannot_learn_from(split: Path, command: Command, words: list[str], told: tuple[str, ...]):
    mistake(command("train", "--config", split, "--fold", "0", *words), *told)


def test_single_images_are_enough_where_batchnorm_is_frozen(split: Path, command: Command):
    words = ["train.batch=4", "train.accumulate=4", "finetune.batchnorm=frozen", "train.epochs=1"]
    assert command("train", "--config", split, "--fold", "0", *words).code == 0
    words += ["train.batch=1", "train.accumulate=1", "experiment=one"]
    assert command("train", "--config", split, "--fold", "0", *words).code == 0
