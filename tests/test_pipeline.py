"""The life of a competition: train, infer, change one's mind, submit; as a user does it."""

import json
import os
import re
import shutil
from pathlib import Path

import kinds_ground
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import CONFIG, draw_shape, real_data, real_weights
from PIL import Image

from foldcraft.common.config import Config
from foldcraft.common.config_file import load
from foldcraft.data.images import image_cache
from foldcraft.predictions import inference, tta
from foldcraft.predictions import store as prediction_store
from foldcraft.predictions.experiment import Experiment
from foldcraft.submission.ledger import CHECK, COLUMNS
from foldcraft.training.trainer import Trainer

LEARNING = ["train.epochs=8", "optim.lr=0.005", "augment.preset=none", "regularize.label_smoothing=0"]


def ledger() -> pd.DataFrame:
    return pd.read_csv("submissions/ledger.csv", dtype=str, keep_default_na=False)


def test_from_folder_to_submission(shapes: Path, command) -> None:
    assert command("split", "--config", shapes).code == 0
    assert command("train", "--config", shapes, "--fold", "all", *LEARNING).code == 0
    done = command("infer", "--config", shapes, *LEARNING)

    submitted = pd.read_csv("submissions/shapes_tiny.csv", dtype=str)
    sample = pd.read_csv("input/shapes/sample_submission.csv", dtype=str)
    assert submitted["id"].tolist() == sample["id"].tolist()
    assert "OOF" in done.out
    row = ledger().iloc[0]
    assert list(ledger().columns) == [*COLUMNS, CHECK]
    assert (row["file"], row["competition"], row["rows"]) == ("shapes_tiny.csv", "shapes", "48")
    assert float(row["nested_low"]) <= float(row["nested"]) <= float(row["nested_high"])
    ends = [float(row[name]) for name in ("forecast_low", "forecast", "forecast_high")]
    assert ends == sorted(ends)
    assert ends[0] < float(row["nested_low"]), "a few test rows vary more"
    told = (
        f"forecast of the hidden score: {ends[1]:.4f} ({ends[0]:.4f} to {ends[2]:.4f}, 95 %, {len(sample)} test rows)"
    )
    assert told in done.out
    truth = [("bar", "cross", "dot")[int(name[:3]) % 3] for name in submitted["id"]]
    assert np.mean(submitted["label"] == truth) > 0.8, "the tiny net has learned nothing"


def test_run_folder_holds_what_is_promised(shapes: Path, command) -> None:
    command("split", "--config", shapes)
    command("train", "--config", shapes, "--fold", "1")

    fold = Path("runs/shapes/tiny/fold1")
    files = {file.name for file in fold.iterdir() if not file.name.startswith(".")}
    assert files == {"config.yaml", "history.csv", "model.safetensors", "oof.parquet", "test.parquet", "manifest.json"}
    oof, test = prediction_store.read(fold / "oof.parquet"), prediction_store.read(fold / "test.parquet")
    folds = pd.read_csv("folds/shapes.csv", skiprows=1, dtype={"id": str})
    assert set(oof.ids) == set(folds["id"][folds["fold"] == 1])
    assert (oof.views, test.views) == (("identity", "hflip"),) * 2
    assert oof.origin.space.is_valid(oof.predicted)
    assert len(test.ids) == 12
    manifest = json.loads((fold / "manifest.json").read_text())
    assert {"config", "data", "folds", "pretrained", "model"} <= set(manifest["fingerprints"])
    assert manifest["packages"]["torch"]
    assert list(pd.read_csv(fold / "history.csv")["epoch"]) == [1, 2]


def test_an_experiment_keeps_the_order_of_its_classes(shapes: Path, command) -> None:
    """What was trained when 10 came before 2 is refused now, and goes on where the config names that order."""
    for name in ("train", "sample_submission"):
        table = pd.read_csv(f"input/shapes/{name}.csv", dtype=str).replace({"bar": "1", "cross": "10", "dot": "2"})
        table.to_csv(f"input/shapes/{name}.csv", index=False)
    command("split", "--config", shapes)
    assert command("train", "--config", shapes, "--fold", "0", "competition.order=[1,10,2]", "train.epochs=1").code == 0
    for words in (["infer"], ["train", "--fold", "0"]):
        done = command(*words, "--config", shapes, "train.epochs=1")
        assert done.code == 2
        assert "was trained for classes in the order 1, 10, 2, which now is 1, 2, 10; set competition.order" in done.err
    assert command("infer", "--config", shapes, "train.epochs=1", "competition.order=[1,10,2]").code == 0


def test_one_command_trains_several_experiments(shapes: Path, command) -> None:
    command("split", "--config", shapes)
    other = shapes.with_name("other.yaml")
    other.write_text(f"extends: {shapes.name}\ntrain: {{epochs: 1}}\n")
    wrong = shapes.with_name("wrong.yaml")
    wrong.write_text(f"extends: {shapes.name}\ntrain: {{epoch: 1}}\n")

    told = command("train", "--config", shapes, wrong, "--fold", "0")
    assert told.code == 2
    assert not list(Path("runs").rglob("manifest.json")), (
        "a mistake in the last config is told before the first is trained"
    )

    assert command("train", "--config", shapes, other, "--fold", "0,2").code == 0
    done = {str(file.parent.relative_to("runs/shapes")) for file in Path("runs").rglob("manifest.json")}
    assert done == {"tiny/fold0", "tiny/fold2", "other/fold0", "other/fold2"}
    assert command("infer", "--config", shapes, other).code == 0


def test_infer_with_some_folds_says_so(shapes: Path, command) -> None:
    command("split", "--config", shapes)
    command("train", "--config", shapes, "--fold", "0")

    done = command("infer", "--config", shapes)

    assert done.code == 0
    assert "has only fold 0; train 1, 2 too" in done.out
    assert ledger().iloc[0]["rows"] == "16"


def test_a_new_view_is_predicted_once_and_kept(shapes: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    command("split", "--config", shapes)
    command("train", "--config", shapes, "--fold", "0,1")
    old = prediction_store.read(Path("runs/shapes/tiny/fold0/oof.parquet"))
    views = "tta.views=[identity,vflip]"

    assert command("infer", "--config", shapes, views).code == 0

    new = prediction_store.read(Path("runs/shapes/tiny/fold0/oof.parquet"))
    assert new.views == ("identity", "hflip", "vflip")
    np.testing.assert_array_equal(new.predicted[:2], old.predicted)
    monkeypatch.setattr(inference, "sweep", None)  # nothing is left to compute
    assert command("infer", "--config", shapes, views).code == 0


def test_another_test_set_is_predicted_anew(shapes: Path, command) -> None:
    command("split", "--config", shapes)
    command("train", "--config", shapes, "--fold", "0,1")
    draw_shape("dot", 999).save("input/shapes/test/999.png")
    for name in ("test", "sample_submission"):
        frame = pd.read_csv(f"input/shapes/{name}.csv", dtype=str)
        frame.loc[len(frame)] = ["999.png", "bar"][: frame.shape[1]]
        frame.to_csv(f"input/shapes/{name}.csv", index=False)

    assert command("infer", "--config", shapes).code == 0

    assert "999.png" in pd.read_csv("submissions/shapes_tiny.csv", dtype=str)["id"].tolist()


def test_one_decode_an_image_for_all_models_and_views(shapes: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    larger = shapes.with_name("larger.yaml")
    larger.write_text(CONFIG.replace("size: 16", "size: 24"))
    command("split", "--config", shapes)
    for config in (shapes, larger):
        command("train", "--config", config, "--fold", "0,1")
    for cache in Path("runs/shapes/cache").glob("*.npy"):
        cache.unlink()
    for test in Path("runs/shapes").glob("*/fold*/test.parquet"):
        test.unlink()
    decoded: list[Path] = []
    looked: list[str] = []
    decode, view = image_cache.decode, tta.view
    monkeypatch.setattr(image_cache, "decode", lambda path, *rest: (decoded.append(path), decode(path, *rest))[1])
    monkeypatch.setattr(tta, "view", lambda name, *rest: (looked.append(name), view(name, *rest))[1])

    done = command("infer", "--config", shapes, larger)

    assert done.code == 0
    assert "greedy" in done.out
    assert len(decoded) == len(set(decoded)) == 12, "the test images, each once for both sizes"
    made = [name for name in looked if name == "hflip"]
    assert len(made) <= 6, "two folds of one experiment share their views"  # 4 to open the configs, 2 sizes


def test_loss_that_is_no_number_names_the_images(shapes: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    command("split", "--config", shapes)
    backward = Trainer._backward

    def poisoned(trainer: Trainer, pixels: torch.Tensor, targets: torch.Tensor, *_: object) -> torch.Tensor:
        return backward(trainer, pixels, targets) * (float("nan") if trainer.epoch == 1 else 1)

    monkeypatch.setattr(Trainer, "_backward", poisoned)
    done = command("train", "--config", shapes, "--fold", "0")

    assert done.code == 2
    assert "the loss became nan in epoch 2, step 1" in done.err
    assert done.err.count(".png") == 8, "the eight images of that batch"
    assert done.err.count("\n") == 1


def test_early_stopping_keeps_the_best_epoch(shapes: Path, command) -> None:
    command("split", "--config", shapes)
    command("train", "--config", shapes, "--fold", "0", "train.epochs=30", "train.patience=2", "optim.lr=0.000001")

    history = pd.read_csv("runs/shapes/tiny/fold0/history.csv")
    assert len(history) == int(history["score"].idxmax()) + 1 + 2


def test_looking_less_often_changes_nothing_but_what_is_seen(shapes: Path, command) -> None:
    command("split", "--config", shapes)
    seldom = command("train", "--config", shapes, "--fold", "0", "train.epochs=3", "train.validate_every=2")
    scores = pd.read_csv("runs/shapes/tiny/fold0/history.csv")["score"]
    made = prediction_store.read(Path("runs/shapes/tiny/fold0/oof.parquet")).predicted
    again = command("train", "--config", shapes, "--fold", "0", "train.epochs=3")
    command("train", "--config", shapes, "--fold", "0", "train.epochs=3", "experiment=often")

    assert scores.isna().tolist() == [True, False, False]
    assert re.search(r"epoch 1/3  loss [\d.]+  \d+ images/s", seldom.out)
    assert re.search(r"epoch 3/3  loss [\d.]+  valid loss [\d.]+  score [\d.]+  \d+ images/s", seldom.out)
    assert "fold 0: done before" in again.out
    assert np.array_equal(prediction_store.read(Path("runs/shapes/often/fold0/oof.parquet")).predicted, made)


def test_preview_draws_a_sheet(shapes: Path, command) -> None:
    command("split", "--config", shapes)
    done = command(
        "check", "--show=augmentations", "--config", shapes, "--images", "3", "--draws", "4", "augment.mixup=1"
    )

    assert done.code == 0
    sheet = image_cache.decode(Path("runs/shapes/tiny/preview.png"))
    assert sheet.width > 5 * 96
    assert sheet.height > 3 * 96
    assert re.search(r"Affine +70%", done.out)
    assert re.search(r"mixup, of whole batches +100%", done.out)


def test_net_and_preview_are_shown_of_values_as_well(workplace: Path, command) -> None:
    kinds_ground.write(Path("input/kinds"), rows=12)
    path, one = kinds_ground.config("regression"), "competition.target.columns=[level]"
    pd.read_csv("input/kinds/sample_regression.csv", dtype=str).drop(columns="width").to_csv(
        "input/kinds/one.csv", index=False
    )
    words = ("competition.sample=one.csv", "augment.mixup=1", one)
    command("split", "--config", path, *words)
    done = command("check", "--show", "--config", path, "--images", "2", "--draws", "1", "--json", "net.json", *words)
    assert (done.code, done.err) == (0, "")
    gradients = [part["gradient"] for part in json.loads(Path("net.json").read_text())["parts"] if part["gradient"]]
    assert max(gradients) > 0, "a single output has a gradient too"


@pytest.mark.real
def test_real_backbone_learns_real_hands(workplace: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = real_data("signdigits")
    monkeypatch.setenv("FOLDCRAFT_WEIGHTS", str(real_weights("mobilenetv2_035")))
    config = workplace / "hands.yaml"
    config.write_text(
        f"competition: {{name: hands, folder: {folder}, group: group}}\n"
        "images: {size: 64}\nbackbone: {name: mobilenetv2_035}\naugment: {preset: light, hflip: 0}\n"
        "train: {epochs: 2, batch: 16}\noptim: {lr: 0.003}\nmachine: {device: cpu}\n"
        "tracking: {wandb: 'off'}\ntta: {views: [identity]}\n"
    )
    command("split", "--config", config)
    command("train", "--config", config, "--fold", "0")

    done = command("infer", "--config", config)

    assert done.code == 0
    assert float(ledger().iloc[0]["nested"]) > 0.6, "chance is 0.1"


def test_one_scale_for_all_deep_images_of_a_competition(shapes: Path, command) -> None:
    """12 bits in 16-bit files: found, told, kept; later folds and brighter test images are scaled alike."""
    pictures = sorted(Path("input/shapes").glob("t*/*.png"))
    for path in pictures:
        values = np.asarray(Image.open(path)).astype(np.uint16) * 16
        Image.fromarray(values).save(path)
    command("split", "--config", shapes)
    said = command("train", "--config", shapes, "--fold", "0").out
    assert "60 images have more than 8 bits a value" in said
    assert "0 becomes black, 4095 white" in said
    kept = yaml.safe_load(Path("runs/shapes/tiny/fold0/config.yaml").read_text())
    assert (kept["images"]["min_value"], kept["images"]["max_value"]) == (None, 4095)
    store = image_cache.ImageStore.of(next(Path("runs/shapes/cache").glob("test-*.npy")))
    assert store.pixels.mean() > 50, "as in images of 8 bits"
    for path in pictures[:12]:
        Image.fromarray(np.asarray(Image.open(path)) * 8).save(path)
    assert "0 becomes black, 4095 white" in command("train", "--config", shapes, "--fold", "1,2").out
    other = command("train", "--config", shapes, "--fold", "1", "images.max_value=32767")
    assert other.code == 2
    assert "images.max_value was 4095.0, is 32767.0" in other.err
    assert command("infer", "--config", shapes).code == 0

    def before_scales_were_found(settings: Config) -> Config:
        return settings.model_copy(update={"images": settings.images.model_copy(update={"max_value": 65535.0})})

    older, path = before_scales_were_found(load(shapes)), Path("runs/shapes/old/fold0/config.yaml")
    path.parent.mkdir(parents=True)
    path.write_text(older.to_yaml().replace("  min_value: null\n", ""))
    assert Experiment.open(load(shapes, ["experiment=old"])).config.images.bounds == (0, 65535)


def test_a_test_image_that_cannot_be_read_gets_the_frequencies_of_the_classes(shapes: Path, command) -> None:
    """One is damaged and one gone; in every view, fold and submission they have what is known without an image."""
    train, sample = Path("input/shapes/train.csv"), Path("input/shapes/sample_submission.csv")
    rows = pd.read_csv(train, dtype=str)
    rows.drop(index=rows.index[rows["label"] == "dot"][:8]).to_csv(train, index=False)
    frame = pd.read_csv(sample, dtype=str)[["id"]].assign(bar=0.2, cross=0.3, dot=0.5)
    frame.to_csv(sample, index=False)
    damaged, gone = Path("input/shapes/test/050.png"), Path("input/shapes/test/055.png")
    whole = {path: path.read_bytes() for path in (damaged, gone)}
    damaged.write_bytes(whole[damaged][:100])
    words = ["--config", shapes, "competition.metric=log_loss"]
    command("split", *words)
    stopped = command("train", *words, "--fold", "0")
    assert stopped.code == 2
    assert "images.on_error=baseline gives those test images the frequencies" in stopped.err
    gone.unlink()

    spared = [*words, "images.on_error=baseline"]
    trained = command("train", *spared, "--fold", "all")
    assert trained.code == 0, trained.err
    assert trained.out.count("2 of 12 test images cannot be read") == 1
    assert "050.png, 055.png" in trained.out
    known = prediction_store.read(Path("runs/shapes/tiny/fold0/test.parquet"))
    learned = rows.set_index("id").loc[sorted(set(pd.read_csv(train, dtype=str)["id"]))]
    assert known.baseline == ("050.png", "055.png")
    assert np.allclose(np.exp(known.of_rows(np.array(["055.png"]))).sum(-1), 1)
    assert np.ptp(known.of_rows(np.array(["050.png", "055.png"])), axis=(0, 1)).max() == 0

    def submitted(name: str) -> pd.DataFrame:
        return pd.read_csv(f"submissions/{name}.csv").set_index("id")

    said = command("infer", *spared, "--name", "first")
    assert said.out.count("2 of 12 test images cannot be read") == 1
    for row in ("050.png", "055.png"):
        assert np.allclose(submitted("first").loc[row], learned["label"].value_counts(normalize=True).sort_index())
    assert "images.on_error=baseline" in command("infer", *words, "--name", "second").err

    for path, content in whole.items():
        path.write_bytes(content)
    said = command("infer", *words, "--name", "second")
    assert said.code == 0, said.err
    assert "cannot be read" not in said.out
    changed = (submitted("first") != submitted("second")).any(axis=1)
    assert sorted(changed.index[changed]) == ["050.png", "055.png"]


def test_training_images_stop_whatever_becomes_of_test_images(shapes: Path, command) -> None:
    for part, name in (("train", "001.png"), ("test", "050.png")):
        Path(f"input/shapes/{part}/{name}").write_bytes(b"no picture")
    command("split", "--config", shapes)
    stopped = command("train", "--config", shapes, "--fold", "0", "images.on_error=baseline")
    assert stopped.code == 2
    assert "1 image cannot be read: input/shapes/train/001.png" in stopped.err


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that needs a trained experiment leaves it for the others."""
    return tmp_path_factory.mktemp("learned") / "all"


@pytest.fixture
def learned(shapes: Path, kept: Path, command) -> Path:
    """The drawn competition, learned well in all folds and submitted; its config."""
    if kept.is_dir():
        shutil.copytree(kept, ".", dirs_exist_ok=True)
        return shapes
    shapes.write_text(CONFIG.replace("epochs: 2", "epochs: 8, lr: 0.005, label_smoothing: 0").replace("light", "none"))
    for words in (["split"], ["train", "--fold", "all"], ["infer"]):
        assert command(*words, "--config", shapes).code == 0
    shutil.copytree(".", kept)
    return shapes


def submitted() -> dict[str, str]:
    """The last submission: one of other content has another name."""
    return pd.read_csv(Path("submissions") / ledger()["file"].iloc[-1], dtype=str).set_index("id")["label"].to_dict()


def test_other_pictures_under_the_same_names_are_predicted_anew(learned: Path, command) -> None:
    before = submitted()
    first, second = next((a, b) for a in before for b in before if before[a] != before[b])
    test = Path("input/shapes/test")
    a, b = (next(test.glob(f"{Path(name).stem}.*")) for name in (first, second))
    a.rename("kept"), b.rename(a), Path("kept").rename(b)

    done = command("infer", "--config", learned)

    assert "tiny, fold 0: the test images are others now; they are predicted anew" in done.out
    now = submitted()
    assert (now[first], now[second]) == (before[second], before[first])
    assert {name: now[name] for name in now if name not in (first, second)} == {
        name: before[name] for name in before if name not in (first, second)
    }
    assert "predicted anew" not in command("infer", "--config", learned).out


def test_a_corrected_template_is_predicted_anew(shapes: Path, command) -> None:
    blank = Path("input/shapes/thumbs")
    shutil.copytree("input/shapes/test", blank)
    for file in blank.iterdir():
        Image.new("RGB", (16, 16)).save(file)
    wrong = [*LEARNING, "competition.test_image=thumbs/{id}"]
    command("split", "--config", shapes)
    command("train", "--config", shapes, "--fold", "0", *wrong)
    command("infer", "--config", shapes, *wrong)
    assert len(set(submitted().values())) == 1, "all of them are blank"

    command("train", "--config", shapes, "--fold", "1", *LEARNING)
    done = command("infer", "--config", shapes, *LEARNING)

    assert "fold 0: the test images are others now" in done.out
    assert "fold 1: the test images" not in done.out
    truth = {name: ("bar", "cross", "dot")[int(name[:3]) % 3] for name in submitted()}
    assert np.mean([submitted()[name] == truth[name] for name in truth]) > 0.8


def test_other_training_pictures_name_the_folds_that_learned_from_the_old_ones(learned: Path, command) -> None:
    shutil.rmtree("runs/shapes/tiny/fold2")
    picture = sorted(Path("input/shapes/train").iterdir())[0]
    kept = picture.read_bytes()
    Image.new("RGB", (16, 16), "red").save(picture)
    for words in (["train", "--fold", "0"], ["train", "--fold", "2"], ["infer"]):
        told = command(*words, "--config", learned)
        assert told.code == 2, words
        assert "fold 0, 1 learned from other training images than lie there now" in told.err
        assert "delete these folds and train them again" in told.err
    sorted(Path("input/shapes/train").iterdir())[5].unlink()
    told = command("infer", "--config", learned)
    assert (told.code, "learned from other training images" in told.err) == (2, True), "one is gone, but was known"
    picture.write_bytes(kept)
    assert command("infer", "--config", learned).code == 0
    Path("runs/shapes/cache/content.json").unlink()
    assert "warning: 1 of 48 training images are missing: whether tiny" in command("infer", "--config", learned).out


def test_inference_needs_test_images_alone(learned: Path, command) -> None:
    shutil.rmtree("input/shapes/train")
    before = submitted()
    picture = sorted(Path("input/shapes/test").iterdir())[0]
    Image.open(picture).rotate(90).save(picture)
    done = command("infer", "--config", learned)
    assert done.code == 0, done.err
    assert "predicted anew" in done.out
    assert len(submitted()) == len(before)
    told = command("infer", "--config", learned, "tta.views=[vflip]")
    assert told.code == 2
    assert "no out-of-fold predictions of view vflip, and no training image" in told.err


def test_each_experiment_looks_at_its_own_images(learned: Path, command) -> None:
    """Of two experiments of the same rows the second has a template of its own."""
    shutil.copytree("input/shapes/test", "input/shapes/upside")
    for file in Path("input/shapes/upside").iterdir():
        Image.new("RGB", (16, 16)).save(file)
    other = learned.with_name("other.yaml")
    other.write_text(f"extends: {learned.name}\ncompetition: {{test_image: 'upside/{{id}}'}}\n")
    command("train", "--config", other, "--fold", "all")
    both = ["--config", learned, other, "tta.views=[vflip]"]
    assert command("infer", *both).code == 0
    first, second = (
        prediction_store.read(Path(f"runs/shapes/{name}/fold0/test.parquet")) for name in ("tiny", "other")
    )
    blank = second.of_views(["vflip"])[0]
    assert np.allclose(blank, blank[:1], atol=1e-5), "blank images are all alike"
    assert not np.allclose(first.of_views(["vflip"])[0], blank, atol=1e-2)


def test_models_are_used_where_they_may_only_be_read(learned: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained runs as a data set of a notebook, new test rows, and a folder beside them that may be written to."""
    Path("given").mkdir()
    shutil.move("runs", "given/runs")
    shutil.rmtree("given/runs/shapes/cache")
    for name in ("test", "sample_submission"):
        pd.read_csv(f"input/shapes/{name}.csv", dtype=str)[:7].to_csv(f"input/shapes/{name}.csv", index=False)
    before = {file: file.stat().st_mtime_ns for file in Path("given").rglob("*")}
    access = os.access
    forbidden = str(Path("given").absolute())
    monkeypatch.setattr(os, "access", lambda at, how: not os.path.abspath(at).startswith(forbidden) and access(at, how))

    done = command("infer", "--config", learned, "runs=given/runs")

    assert done.code == 0, done.err
    assert "given/runs may only be read: caches and predictions go to scratch" in done.out
    assert {file: file.stat().st_mtime_ns for file in Path("given").rglob("*")} == before
    assert len(submitted()) == 7
    again = command("infer", "--config", learned, "runs=given/runs")
    assert "may only be read" not in again.out, "all is predicted"
    assert "the same as" in again.out
    told = command("infer", "--config", learned, "runs=elsewhere")
    assert (told.code, "set runs=FOLDER that holds it" in told.err) == (2, True)
