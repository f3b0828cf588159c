"""Ways from a pretrained net to a competition's own: probes, LP-FT, LoRA, found learning rates, interpolation."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Outcome, real_data, real_weights
from sklearn.linear_model import Ridge
from tables import class_space
from torch import nn

from foldcraft.common import config_file
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import ImagesConfig
from foldcraft.common.fingerprint import seed_from
from foldcraft.common.paths import FoldFolder
from foldcraft.data.images.image_cache import ImageStore
from foldcraft.data.plain_images import PlainImages
from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.single import SingleLabel
from foldcraft.models import backbones, checkpoint, hardware
from foldcraft.models.hardware import Hardware
from foldcraft.models.inputs import Inputs
from foldcraft.models.preprocessing import Preparation, predictions
from foldcraft.predictions import store as prediction_store
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.fold_model import FoldModel
from foldcraft.predictions.inference import InferenceModel
from foldcraft.training import initialization, wise_ft
from foldcraft.training.initialization import InitialModel
from foldcraft.training.trainer import Trainer
from foldcraft.training.wise_ft import POINTS, between, choose_point

EXPERIMENT = Path("runs/shapes/tiny")
FOLD = EXPERIMENT / "fold0"
PROBE = "finetune.mode=linear_probe"
FROM_PROBE = "finetune.head_init=probe"
Command = Callable[..., Outcome]


def fine(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome
    return outcome


def mistake(outcome: Outcome, *named: str) -> None:
    """One line, exit code 2, and each of `named` in it."""
    assert outcome.code == 2, outcome
    assert len(outcome.err.splitlines()) == 1, outcome.err
    assert outcome.err.startswith("error: ")
    for part in named:
        assert part in outcome.err


def manifest(fold: int = 0, experiment: str = "tiny") -> dict[str, Any]:
    return json.loads((EXPERIMENT.with_name(experiment) / f"fold{fold}" / "manifest.json").read_text())


def workspace(path: Path, *words: str) -> Experiment:
    return Experiment.open(config_file.load(path, words))


@pytest.fixture
def split(shapes: Path, command: Command) -> Path:
    """The drawn competition with frozen folds; the config's path."""
    fine(command("split", "--config", shapes))
    return shapes


# A linear probe is an experiment like any other


def test_a_probe_lives_as_any_experiment(split: Path, command: Command) -> None:
    words = ("--config", split, PROBE)
    fine(command("train", *words, "--fold", "all"))

    files = {file.name for file in FOLD.iterdir() if not file.name.startswith(".")}
    assert files == {"config.yaml", "model.safetensors", "oof.parquet", "test.parquet", "manifest.json"}
    assert manifest()["probe"]["stages"] == ["layer1.0", "layer2.0", "layer3.0", "layer4.0", "head"]
    assert manifest()["probe"]["strength"] in config_file.load(split).probe.strengths
    again = fine(command("train", *words, "--fold", "all"))
    assert again.out.count("done before") == 3
    submitted = fine(command("infer", *words))
    assert "wrote submissions/shapes_tiny.csv" in submitted.out
    assert "predictions:" not in submitted.out, "all is predicted already"

    experiment = workspace(split, PROBE)
    start = initialization.build(experiment, Callback())
    model = FoldModel.load(
        experiment, FoldFolder.of(experiment.config, 0), hardware.for_features(experiment.config.machine, False)
    )
    views = tuple(experiment.config.tta.views)
    for kept, anew in (
        (prediction_store.read(FOLD / "oof.parquet"), model.predict_oof(start.train, views, Callback())),
        (prediction_store.read(FOLD / "test.parquet"), model.predict_test(start.test, views, Callback())),
    ):
        assert kept.ids.tolist() == anew.ids.tolist()
        assert kept.origin == anew.origin
        np.testing.assert_allclose(np.exp(kept.predicted), np.exp(anew.predicted), atol=5e-3)

    fine(command("infer", *words, "tta.views=[identity,vflip]"))
    new = prediction_store.read(FOLD / "oof.parquet")
    assert new.views == ("identity", "hflip", "vflip")
    vflip = model.predict_oof(start.train, ("vflip",), Callback())
    np.testing.assert_allclose(np.exp(new.predicted[2]), np.exp(vflip.predicted[0]), atol=1e-4)


def test_a_probe_blends_with_a_training(split: Path, command: Command) -> None:
    probe = split.with_name("probe.yaml")
    probe.write_text(f"extends: {split.name}\nfinetune: {{mode: linear_probe}}\nprobe: {{stages: last}}\n")
    for path in (split, probe):
        fine(command("train", "--config", path, "--fold", "0,1", "train.epochs=1"))

    done = fine(command("infer", "--config", split, probe, "train.epochs=1"))

    assert "greedy" in done.out
    assert manifest(experiment="probe")["probe"]["stages"] == ["head"]
    assert len(pd.read_csv("submissions/shapes_tiny_probe.csv")) == 12


def test_features_are_computed_once_for_all_folds_and_experiments(
    split: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine(command("train", "--config", split, "--fold", "0", PROBE))
    before = {file: file.stat().st_mtime_ns for file in Path("runs/shapes/features").glob("*.npy")}
    assert len(before) == 6, "two views of all images, and two augmented copies of the training images"

    later = [
        fine(command("train", "--config", split, "--fold", "1,2", PROBE)),
        fine(command("train", "--config", split, "--fold", "0", PROBE, "probe.strengths=[0.1]", "experiment=other")),
        fine(command("train", "--config", split, "--fold", "0", FROM_PROBE, "train.epochs=1", "experiment=tuned")),
    ]

    assert not any("features of" in outcome.out for outcome in later)
    assert {file: file.stat().st_mtime_ns for file in Path("runs/shapes/features").glob("*.npy")} == before


@pytest.mark.real
def test_a_probe_of_a_real_backbone_knows_real_hands(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = real_data("signdigits")
    monkeypatch.setenv("FOLDCRAFT_WEIGHTS", str(real_weights("mobilenetv2_035")))
    mine = Path("input/hands")
    mine.mkdir(parents=True)
    for name, rows in (("train", 500), ("test", 10), ("sample_submission", 10)):
        pd.read_csv(folder / f"{name}.csv", dtype=str)[:rows].to_csv(mine / f"{name}.csv", index=False)
    for part in ("train", "test"):
        (mine / part).symlink_to(folder / part)
    path = workplace / "hands.yaml"
    path.write_text(
        "competition: {name: hands, group: group, follow_links: true}\nfolds: {count: 2}\n"
        "images: {size: 64}\naugment: {hflip: 0}\n"
        "backbone: {name: mobilenetv2_035}\nfinetune: {mode: linear_probe}\n"
        "machine: {device: cpu}\ntta: {views: [identity]}\ntracking: {wandb: 'off'}\n"
    )
    fine(command("split", "--config", path))
    fine(command("train", "--config", path, "--fold", "0"))
    assert json.loads(Path("runs/hands/hands/fold0/manifest.json").read_text())["score"] > 0.5, "chance is 0.1"


# Fine-tuning from the closed-form head


def ready(experiment: Experiment, start: InitialModel, fold: int) -> InitialModel:
    """The starting point of a fold, with the head that the config asks for."""
    copied = initialization.copy_of(start, experiment)
    initialization.set_probe_head(experiment, copied, fold, Callback())
    return copied


def seen_by_head(start: InitialModel, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        net = start.model.eval()
        return net.forward_head(net.forward_features(images), pre_logits=True).double().numpy()


def test_training_starts_from_the_closed_form_head_of_its_fold(split: Path) -> None:
    experiment = workspace(split, FROM_PROBE, "augment.preset=none")
    start = initialization.build(experiment, Callback())
    raw = torch.from_numpy(np.array(start.train.pixels))
    chosen = hardware.for_features(experiment.config.machine, False)
    images = Preparation.of(start.blueprint, chosen)(raw)
    targets, classes = experiment.competition.targets, len(experiment.competition.classes)
    heads = []
    for fold in range(3):
        rows = experiment.folds.train_rows(fold)
        tuned = ready(experiment, start, fold).model
        with torch.no_grad():
            guessed = tuned.eval()(images[rows]).argmax(1).numpy()
        assert np.mean(guessed == targets[rows]) > 0.55, "chance is a third, and no step has been taken"
        every = seen_by_head(start, images)
        spread = np.where(every.std(0) > 1e-4, every.std(0), np.inf)  # what never varies counts for nothing
        plain = every[rows]
        scaled = (plain - every.mean(0)) / spread / plain.shape[1] ** 0.5
        onehot = np.eye(classes)[targets[rows]]
        ridge = Ridge(alpha=len(plain) * initialization.START_STRENGTH).fit(scaled, onehot)
        expected = (ridge.coef_ / spread).ravel()
        found = tuned.fc.weight.detach().double().numpy().ravel()
        assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) > 0.999
        heads.append(found)
    assert np.abs(heads[0] - heads[1]).max() > 1e-3
    assert np.abs(heads[1] - heads[2]).max() > 1e-3


def test_a_random_head_is_random_and_the_same_for_all_folds(split: Path) -> None:
    experiment = workspace(split, "finetune.head_init=random")
    start = initialization.build(experiment, Callback())
    zero, one = (ready(experiment, start, fold).model.fc.weight for fold in (0, 1))
    assert torch.equal(zero, one)
    assert torch.equal(zero, start.model.fc.weight)
    assert not Path("runs/shapes/features").exists()


def ended(experiment: Path) -> dict[str, bytes]:
    names = ("model.safetensors", "oof.parquet", "test.parquet")
    return {name: (experiment / "fold0" / name).read_bytes() for name in names}


@pytest.mark.parametrize(
    "words",
    [
        ("finetune.batchnorm=adapted",),
        ("finetune.mode=lora", "finetune.batchnorm=frozen", "backbone.drop=0.2"),
        ("finetune.mode=norm", "finetune.interpolate=true"),
        ("finetune.mode=full", "optim.lr=auto", "finetune.unfreeze_epochs=1"),
    ],
    ids=["adapted", "lora", "norm and interpolation", "found learning rate"],
)
def test_a_training_from_the_probe_ends_alike_however_often_it_is_stopped(
    split: Path, command: Command, after_one_epoch, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    asked = ("train", "--config", split, "--fold", "0", FROM_PROBE, *words)
    fine(command(*asked, "runs=calm"))
    if "optim.lr=auto" in words:  # its short trainings have but one epoch
        monkeypatch.setattr("foldcraft.training.lr_search.SHARE", 0.1)
    with after_one_epoch():
        assert command(*asked, "runs=stormy").code == 130
    assert (Path("stormy/shapes/tiny/fold0") / "last.ckpt").is_file()
    monkeypatch.setattr(initialization, "_solved", {})  # as in a new process

    resumed = fine(command(*asked, "runs=stormy"))

    assert "goes on after epoch 1" in resumed.out
    assert ended(Path("stormy/shapes/tiny")) == ended(Path("calm/shapes/tiny"))


def test_lora_leaves_the_weights_of_a_plain_net(split: Path, command: Command) -> None:
    words = ("--config", split, FROM_PROBE, "finetune.mode=lora", "optim.lr=0.05")
    fine(command("train", *words, "--fold", "0,1"))

    model, blueprint, _ = checkpoint.load_model(FOLD / "model.safetensors")
    plain = backbones.rebuild(blueprint)
    assert set(model.state_dict()) == set(plain.state_dict())
    before = initialization.build(workspace(split), Callback()).model.state_dict()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {"layer3.0.downsample.1.weight", "fc.weight"} <= moved
    assert not any(name.endswith(("conv2.weight", "bn1.weight")) for name in moved), "no pointwise convolutions"
    fine(command("infer", *words, "tta.views=[identity,vflip]"))
    assert manifest()["head_init"] == "probe"


# The learning rate and the epochs


def test_three_learning_rates_are_tried_once_and_the_choice_is_kept(split: Path, command: Command) -> None:
    words = ("train", "--config", split, "optim.lr=auto", "train.epochs=1")
    first = fine(command(*words, "--fold", "0"))

    found = json.loads((EXPERIMENT / "lr.json").read_text())["found"]
    tried = {name: loss for name, loss in found.items() if name != "lr"}
    assert first.out.count("after a short training") == len(tried) == 3
    assert found["lr"] == float(min(tried, key=tried.__getitem__))
    assert manifest()["lr"] == found["lr"]
    assert manifest()["lr_probe"] == found
    assert float(pd.read_csv(FOLD / "history.csv")["lr"].max()) <= found["lr"]
    again = fine(command(*words, "--fold", "1"))
    assert "short training" not in again.out
    assert manifest(1)["lr"] == found["lr"]


def test_a_begun_fold_goes_on_with_its_learning_rate(split: Path, command: Command, after_one_epoch) -> None:
    words = ("train", "--config", split, "--fold", "0", "optim.lr=auto")
    with after_one_epoch():
        assert command(*words).code == 130
    kept = (EXPERIMENT / "lr.json").read_bytes()
    assert "short training" not in fine(command(*words)).out
    assert (EXPERIMENT / "lr.json").read_bytes() == kept


def test_a_learning_rate_that_runs_away_is_passed_over(
    split: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = Trainer._backward

    def runaway(trainer: Trainer, images: torch.Tensor, targets: torch.Tensor, *_: object) -> torch.Tensor:
        return backward(trainer, images, targets) * (float("nan") if trainer.config.optim.lr > 1e-3 else 1)

    monkeypatch.setattr(Trainer, "_backward", runaway)
    fine(command("train", "--config", split, "--fold", "0", "optim.lr=auto", "train.epochs=1"))
    assert set(manifest()["lr_probe"]) == {"lr", "0.00017", "0.0005"}

    monkeypatch.setattr(Trainer, "_backward", lambda *_: torch.tensor(float("nan")))
    words = ("optim.lr=auto", "train.epochs=1", "experiment=lost")
    mistake(command("train", "--config", split, "--fold", "0", *words), "optim.lr", "give a number instead of auto")


def test_a_validation_loss_that_is_no_number_is_not_the_best(
    split: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = Trainer._validate

    def overflown(trainer: Trainer) -> dict[str, float]:
        return validate(trainer) | ({"valid_loss": float("nan")} if trainer.config.optim.lr < 3e-4 else {})

    monkeypatch.setattr(Trainer, "_validate", overflown)
    fine(command("train", "--config", split, "--fold", "0", "optim.lr=auto", "train.epochs=1"))
    assert manifest()["lr"] >= 3e-4


@pytest.mark.parametrize(
    ("word", "named"),
    [("finetune.freeze_until=layer9", "layer9"), ("regularize.rdrop=1", "regularize.rdrop")],
    ids=["freeze_until", "rdrop"],
)
def test_a_mistake_is_told_though_the_learning_rate_is_to_be_found(
    split: Path, command: Command, word: str, named: str
) -> None:
    mistake(command("train", "--config", split, "--fold", "0", "optim.lr=auto", word), named)


def test_epochs_follow_the_amount_of_data(split: Path, command: Command) -> None:
    fine(command("train", "--config", split, "--fold", "0", "train.epochs=auto", "train.batch=32"))
    assert manifest()["epochs"] == len(pd.read_csv(FOLD / "history.csv")) == 20, "32 rows need as many as are allowed"


# Between the start and the end of a training


class Seen(nn.Module):
    """Logits of three classes from the mean of an image, and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, 3)
        self.register_buffer("steps", torch.tensor(7))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images.flatten(1))


def labels(truth: np.ndarray) -> SingleLabel:
    return SingleLabel.of("label", Classes(("a", "b", "c")), truth)


LOG_PROBS = partial(predictions, of_outputs=class_space(3).of_outputs)


@pytest.fixture
def ends() -> tuple[InferenceModel, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Twenty noise images as a net sees them, and two states of the net."""
    rng = np.random.default_rng(0)
    store = ImageStore(rng.integers(0, 256, (20, 8, 8, 3), np.uint8), Path("noise"))
    torch.manual_seed(0)
    one, other = Seen(), Seen()
    here = Hardware("cpu", "32-true", "contiguous", "")
    preparation = Preparation((0.5,) * 3, (0.1,) * 3, "cpu", "contiguous")
    images = PlainImages(store, ImagesConfig(size=8))
    member = InferenceModel(one, preparation, here, images, ("identity", "hflip"), LOG_PROBS)
    return member, one.state_dict(), {**other.state_dict(), "steps": torch.tensor(9)}


def predicted(member: InferenceModel, weights: dict[str, torch.Tensor]) -> np.ndarray:
    """Log-probabilities (V, N, K) of all rows."""
    net = Seen()
    net.load_state_dict(weights)
    images = member.preparation(member.images.at(range(20)))
    views = [member.output(net, Inputs(seen), member.hardware) for seen in (images, images.flip(3))]
    return torch.stack(views).numpy()


def test_the_ends_of_the_way_are_the_ends(ends) -> None:
    _, start, end = ends
    for share, expected in ((0.0, start), (1.0, end)):
        made = between(start, end, share)
        assert torch.equal(made["linear.weight"], expected["linear.weight"])
        assert torch.equal(made["linear.bias"], expected["linear.bias"])
        assert made["steps"] == 9, "a counter is no weight"
    half = between(start, end, 0.5)["linear.weight"]
    torch.testing.assert_close(half, (start["linear.weight"] + end["linear.weight"]) / 2)


def test_each_half_of_the_rows_is_predicted_at_the_point_that_the_other_half_chose(
    ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start is right about one half and the end about the other; yet each gets what the other is happy with."""
    monkeypatch.setattr(wise_ft, "POINTS", (0.0, 1.0))
    member, start, end = ends
    units = np.array([f"person{row // 2}" for row in range(20)])
    half = np.array([seed_from("half", str(unit)) % 2 for unit in units])
    assert set(half) == {0, 1}
    at_start, at_end = predicted(member, start), predicted(member, end)
    truth = np.where(half == 0, at_start.mean(0).argmax(1), at_end.mean(0).argmax(1))

    point = choose_point(start, end, member.model, member, np.arange(20), labels(truth), units)

    np.testing.assert_allclose(point.oof[:, half == 0], at_end[:, half == 0], atol=1e-5)
    np.testing.assert_allclose(point.oof[:, half == 1], at_start[:, half == 1], atol=1e-5)
    other = truth.copy()
    other[5] = (other[5] + 1) % 3
    changed = choose_point(start, end, member.model, member, np.arange(20), labels(other), units)
    np.testing.assert_array_equal(changed.oof[:, 5], point.oof[:, 5])


def test_the_best_point_is_found_for_all_rows(ends) -> None:
    member, start, end = ends
    units = np.arange(20).astype(str)
    for state, share in ((start, 0.0), (end, 1.0)):
        truth = predicted(member, state).mean(0).argmax(1)
        point = choose_point(start, end, member.model, member, np.arange(20), labels(truth), units)
        assert list(point.losses) == list(POINTS)
        assert point.share == min(point.losses, key=point.losses.__getitem__) == share
        assert torch.equal(point.weights["linear.weight"], state["linear.weight"])
    together = choose_point(start, end, member.model, member, np.arange(20), labels(truth), np.array(["one"] * 20))
    np.testing.assert_allclose(together.oof, predicted(member, end), atol=1e-5)  # there is no other half to ask


def test_the_model_is_the_point_that_the_manifest_tells(
    split: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", "--config", split, "--fold", "0", FROM_PROBE, "optim.lr=0.01")
    fine(command(*words, "experiment=end"))
    monkeypatch.setattr(wise_ft, "POINTS", (0.25, 0.5))
    done = fine(command(*words, "finetune.interpolate=true"))

    told = manifest()["interpolation"]
    assert told["share"] in (0.25, 0.5)
    assert set(told["losses"]) == {"0.25", "0.5"}
    assert min(told["losses"], key=told["losses"].__getitem__) == f"{told['share']:g}"
    assert f"predicts at {told['share']:g} of the way" in done.out
    experiment = workspace(split, FROM_PROBE)
    start = ready(experiment, initialization.build(experiment, Callback()), 0).model.state_dict()
    models = [
        checkpoint.load_model(EXPERIMENT.with_name(name) / "fold0" / "model.safetensors") for name in ("end", "tiny")
    ]
    expected = between(start, models[0][0].state_dict(), told["share"])
    for name, value in models[1][0].state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)
    assert not torch.equal(expected["fc.weight"], start["fc.weight"])


# Mistakes


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((PROBE, "probe.stages=[stage9]"), ("probe.stages", "no stage 'stage9'", "layer4.0")),
        ((PROBE, "train.imbalance=focal"), ("train.imbalance", "focal")),
        (("finetune.freeze_until=layr3",), ("finetune.freeze_until", "no module 'layr3'", "layer3")),
        (("finetune.mode=lora", "finetune.freeze_until=fc"), ("finetune.mode", "LoRA finds neither", "ResNet")),
        (("finetune.interpolate=true",), ("finetune.interpolate", "finetune.head_init=probe")),
        (
            (FROM_PROBE, "backbone.source=torchvision", "backbone.name=squeezenet1_0", "images.size=64"),
            ("finetune.head_init", "squeezenet1_0", "not one linear layer", "head_init=random"),
        ),
        (("backbone.name=test_vit", "images.size=150"), ("images.size", "150", "16")),
        (("backbone.source=torchvision", "backbone.name=vit_b_16", "images.size=150"), ("images.size", "150")),
    ],
    ids=["stage", "focal", "freeze_until", "lora", "interpolate", "head", "timm's patches", "torchvision's patches"],
)
def test_a_wish_that_cannot_be_met_is_one_line(
    split: Path, command: Command, words: tuple[str, ...], named: tuple[str, ...]
) -> None:
    mistake(command("train", "--config", split, "--fold", "0", *words), *named)
    assert not (FOLD / "history.csv").exists()
    assert not (FOLD / "manifest.json").exists()
