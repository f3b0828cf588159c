"""Sound code passes every check; code that is broken in one way fails the check for it, and no other."""

import json
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import kinds_ground
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_competition
from torch import nn

from foldcraft.common import checksums, config, config_file
from foldcraft.common.callbacks import Callback
from foldcraft.data import augment, competition, folds, loader, splitting
from foldcraft.models import backbones, checkpoint, finetune
from foldcraft.models.hardware import Hardware
from foldcraft.models.preprocessing import Preparation
from foldcraft.predictions import fold_model, linear_probe
from foldcraft.study import make_folds
from foldcraft.study.checks import opening, subject
from foldcraft.study.checks.result import FAIL, NOT_APPLICABLE, NOTE, PASS
from foldcraft.study.checks.run import CHECKS, Report, examine
from foldcraft.study.checks.titles import TITLES
from foldcraft.training import trainer

SETTINGS = """
competition: {name: digits, bundled: digits, metric: accuracy}
folds: {count: 3}
images: {size: 16}
augment: {preset: light, hflip: 0}
backbone: {name: test_resnet, weights: none, drop: 0.1}
train: {epochs: 2, batch: 16}
optim: {lr: 1.0e-2}
machine: {workers: 0, device: cpu, precision: 32-true, memory_format: contiguous}
tta: {views: [identity]}
tracking: {wandb: "off"}
"""
TIMED = {"workers"}  # not in the tests of breakages: it takes its time and judges the machine
IMAGES = 102


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the digits, their folds and a config."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "configs").mkdir()
    (folder / "configs/tiny.yaml").write_text(SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        settings = config_file.load(Path("configs/tiny.yaml"))
        folds.write(splitting.make(competition.read(settings), settings.folds), settings.folds_file)
    return folder


@pytest.fixture
def check(digits: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """`check("key=value", only=[...])`: the report on the digits."""
    monkeypatch.chdir(digits)

    def call(*words: str, only: Collection[str] = ()) -> Report:
        settings = config_file.load(Path("configs/tiny.yaml"), words)
        return examine(
            opening.read(settings), Callback(), IMAGES, only or [name for name in CHECKS if name not in TIMED]
        )

    return call


def those(report: Report, status: str) -> set[str]:
    return {line.check for line in report.lines if line.finding.status == status}


def numbers(report: Report) -> str:
    return "\n".join(f"{line.check}: {line.finding.status} {line.finding.number}" for line in report.lines)


# -- sound code ------------------------------------------------------------------------------------------------------


def test_sound_code_passes_and_says_so(digits: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(digits)
    done = command("check", "--config", "configs/tiny.yaml", "--images", IMAGES, "--profile")
    assert done.code == 0, done.out + done.err
    said = json.loads(Path("runs/digits/check/tiny.json").read_text())
    assert said["sound"]
    assert list(said["checks"]) == list(CHECKS) == list(TITLES)
    assert said["step"]["parts"]["forward"] > 0
    assert "costliest operators" in done.out
    trace = json.loads(Path("runs/digits/check/tiny-trace.json").read_text())
    scopes = {event.get("name") for event in trace["traceEvents"]}
    assert {f"foldcraft: {part}" for part in ("waiting", "forward", "backward", "optimizer")} <= scopes
    assert not Path("runs/digits/tiny/fold0").exists(), "what checks write is gone"


@pytest.mark.parametrize(
    "words",
    [
        ["finetune.mode=linear_probe"],
        [
            "finetune.batchnorm=frozen", "regularize.rdrop=1", "augment.mixup=0.2",
            "train.accumulate=2", "train.imbalance=logit_adjusted", "optim.swa=0.5", "finetune.unfreeze_epochs=2",
        ],
        ["finetune.head_init=probe", "finetune.batchnorm=frozen", "train.imbalance=weighted", "images.resize=crop"],
    ],
    ids=["probe", "much", "lp-ft"],
)  # fmt: skip
def test_sound_settings_pass(check, words: list[str]) -> None:
    report = check(*words)
    assert not those(report, FAIL), numbers(report)
    assert len(those(report, PASS)) > 10


# -- broken code -----------------------------------------------------------------------------------------------------

Break = Callable[[pytest.MonkeyPatch], None]


def of_every_net(change: Callable[[nn.Module], object]) -> Break:
    """Every net that timm makes is changed, for training and when a file is read."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        make = backbones.timm.create_model

        def changed(*args: object, **kwargs: object) -> nn.Module:
            model = make(*args, **kwargs)
            change(model)
            return model

        patch.setattr(backbones.timm, "create_model", changed)

    return apply


def never_zeroed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.optim.Optimizer, "zero_grad", lambda *_, **__: None)


def statistics_move(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(finetune, "train_mode", lambda model, _: model.train())


def steps_in_evaluation_mode(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(finetune, "train_mode", lambda model, _: model.eval())


def judged_in_training_mode(patch: pytest.MonkeyPatch) -> None:
    ask = trainer.predictions
    patch.setattr(trainer, "predictions", lambda model, *rest: ask(model.train(), *rest))


def loaded_in_training_mode(patch: pytest.MonkeyPatch) -> None:
    load = checkpoint.load_model

    def careless(path: Path) -> tuple:
        model, *rest = load(path)
        return (model.train(), *rest)

    patch.setattr(checkpoint, "load_model", careless)


def saved_upside_down(patch: pytest.MonkeyPatch) -> None:
    save = checkpoint.save_model

    def careless(path: Path, weights: dict, *rest: object) -> None:
        save(path, {name: -value if "fc" in name else value for name, value in weights.items()}, *rest)

    patch.setattr(checkpoint, "save_model", careless)


def other_constants_in_inference(patch: pytest.MonkeyPatch) -> None:
    class Careless(Preparation):
        @classmethod
        def of(cls, blueprint, hardware) -> Preparation:
            return Preparation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), hardware.device, hardware.memory_format)

    patch.setattr(fold_model, "Preparation", Careless)


def constants_of_other_weights(patch: pytest.MonkeyPatch) -> None:
    resolve = backbones.resolve_data_config
    patch.setattr(backbones, "resolve_data_config", lambda **kwargs: {**resolve(**kwargs), "mean": (0.1, 0.2, 0.3)})


def channels_viewed(patch: pytest.MonkeyPatch) -> None:
    """view where permute is meant, everywhere alike."""

    def careless(prepare: Preparation, images: torch.Tensor) -> torch.Tensor:
        return (images.reshape(len(images), 3, *images.shape[1:3]).float() / 255 - 0.5) / 0.5

    patch.setattr(Preparation, "__call__", careless)


def targets_slip(patch: pytest.MonkeyPatch) -> None:
    draw = loader.TrainImages.at

    def careless(images: loader.TrainImages, draws: list) -> loader.Batch:
        batch = draw(images, draws)
        return batch._replace(targets=batch.targets.roll(1, 0))

    patch.setattr(loader.TrainImages, "at", careless)


def labels_shuffled(patch: pytest.MonkeyPatch) -> None:
    read = competition.read

    def careless(settings: config.Config, *more: object) -> competition.Competition:
        data = read(settings, *more)
        return replace(data, target=data.target.with_truth(np.random.default_rng(0).permutation(data.targets)))

    patch.setattr(competition, "read", careless)


def same_draws(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(loader, "seed_from", lambda *parts: parts[-1] % 4)


def white(patch: pytest.MonkeyPatch) -> None:
    call, none = augment.Augment.__call__, []

    def careless(self: augment.Augment, image: np.ndarray, seed: int) -> np.ndarray:
        made = call(self, image, seed)
        return made if self.transforms == none else np.full_like(made, 255)

    patch.setattr(augment.Augment, "__call__", careless)


def head_starts_far_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(backbones, "_start_head", lambda model: nn.init.normal_(model.fc.weight, std=1.0))


def learns_from_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(linear_probe.Rows, "learns_from", lambda rows, fold: np.ones(len(rows.fold), bool))


def trains_on_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(folds.Folds, "train_rows", lambda split, fold: np.arange(len(split.fold)))


def pinned_in_vain(patch: pytest.MonkeyPatch) -> None:
    make = trainer.train_loader

    def careless(*args) -> loader.DataLoader:
        made = make(*args)
        made.pin_memory = True
        return made

    patch.setattr(trainer, "train_loader", careless)


def no_head_bias(model: nn.Module) -> None:
    model.fc.bias = None


def softmaxed(model: nn.Module) -> None:
    model.register_forward_hook(lambda _, __, logits: logits.softmax(1))


def mixes_the_batch(model: nn.Module) -> None:
    """view where permute is meant: channels and images change places."""
    model.register_forward_pre_hook(lambda _, images: images[0].transpose(0, 1).reshape(images[0].shape))


def coarse_in_16_bits(model: nn.Module) -> None:
    model.register_forward_hook(lambda _, __, out: out.round() * 2 if torch.is_autocast_enabled("cpu") else out)


SLOW = {"one_batch", "augmentation", "pixels", "shuffled", "draws"}  # left out where none has a part in a breakage


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
@pytest.mark.parametrize(
    ("damage", "words", "must", "may"),
    [
        (never_zeroed, [], {"gradients"}, set()),
        (of_every_net(softmaxed), [], {"logits", "one_batch"}, set()),
        (statistics_move, ["finetune.batchnorm=frozen"], {"statistics"}, set()),
        (steps_in_evaluation_mode, [], {"modes", "statistics"}, set()),
        (judged_in_training_mode, [], {"modes", "judged_alike"}, set()),
        (loaded_in_training_mode, [], {"repeatable", "alone", "judged_alike"}, set()),
        (saved_upside_down, [], {"judged_alike"}, set()),
        (of_every_net(mixes_the_batch), [], {"leaks", "alone"}, {"judged_alike"}),
        (other_constants_in_inference, [], {"preprocessing", "judged_alike"}, set()),
        (constants_of_other_weights, [], {"constants"}, set()),
        (channels_viewed, [], {"constants"}, set()),
        (targets_slip, [], {"pairs", "one_batch"}, set()),
        (labels_shuffled, [], {"folds", "pairs"}, set()),  # random features would not know right ones much better
        (same_draws, [], {"draws"}, set()),
        (white, [], {"augmentation", "draws"}, set()),
        (lambda _: None, ["augment.transforms=[{GaussNoise: {std_range: [1, 1], p: 1}}]"], {"augmentation"}, set()),
        (lambda _: None, ["optim.lr=1e-7"], {"one_batch"}, set()),
        (head_starts_far_off, [], {"first_loss"}, set()),
        (learns_from_all, [], {"shuffled"}, set()),
        (trains_on_all, [], {"folds"}, set()),
        (pinned_in_vain, [], {"pinned"}, set()),
        (of_every_net(no_head_bias), [], {"bias"}, set()),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_each_breakage_fails_its_own_check(
    check, monkeypatch: pytest.MonkeyPatch, damage: Break, words: list[str], must: set[str], may: set[str]
) -> None:
    damage(monkeypatch)
    left_out = TIMED | (SLOW - must if must.isdisjoint(SLOW - {"one_batch"}) else {"one_batch"})
    report = check(*words, only=[name for name in CHECKS if name not in left_out])
    failed = those(report, FAIL)
    assert must <= failed <= must | may, numbers(report)
    assert all(line.finding.hint for line in report.lines if line.check in failed)


def test_precision_is_measured_against_32_bits(check, monkeypatch: pytest.MonkeyPatch) -> None:
    # At 16 px the net's last maps are 1x1, and torch's own 16-bit gradients are at times no numbers on a CPU.
    monkeypatch.setattr(subject, "MOST_STEPS", 12)
    words, only = ("machine.precision=bf16-mixed", "images.size=32"), ["precision"]
    assert those(check(*words, only=only), PASS) == {"precision"}
    of_every_net(coarse_in_16_bits)(monkeypatch)
    assert those(check(*words, only=only), FAIL) == {"precision"}


def test_a_bias_before_batchnorm_is_told(check, monkeypatch: pytest.MonkeyPatch) -> None:
    def widen(model: nn.Module) -> None:
        conv = model.conv1[0]
        model.conv1[0] = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding)

    of_every_net(widen)(monkeypatch)
    report = check(only=["idle_bias"])
    assert those(report, NOTE) == {"idle_bias"}
    assert "conv1.0" in report.lines[0].finding.number


def test_a_step_that_breaks_is_a_finding(check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer.Trainer, "step", lambda *_: 1 / 0)
    report = check(only=["gradients", "bias"])
    assert (those(report, FAIL), those(report, NOT_APPLICABLE)) == ({"gradients"}, {"bias"}), "it is told once"
    assert "ZeroDivisionError" in report.lines[0].finding.number


# -- folds -----------------------------------------------------------------------------------------------------------


def test_torn_groups_and_edited_folds_fail(workplace: Path, command) -> None:
    write_competition(Path("input/shapes"), group=True)
    text = SETTINGS.replace("name: digits, bundled: digits", "name: shapes, group: group")
    Path("tiny.yaml").write_text(text)
    assert command("check", "--config", "tiny.yaml", "--only", "folds").code == 2, "no folds yet"

    data = competition.read(config_file.load(Path("tiny.yaml")))
    whole = splitting.make(replace(data, groups=None), config.FoldsConfig(count=2))  # as by a script of one's own
    folds.write(replace(whole, data=data.fingerprint), Path("folds/shapes.csv"))
    torn = command("check", "--config", "tiny.yaml", "--only", "folds")
    assert torn.code == 1
    assert "groups lie in several folds" in torn.out

    file = Path("folds/shapes.csv")
    file.unlink()
    command("split", "--config", "tiny.yaml")
    assert command("check", "--config", "tiny.yaml", "--only", "folds").code == 0

    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:-1], lines[-2]]) + "\n")
    edited = command("check", "--config", "tiny.yaml", "--only", "folds")
    assert edited.code == 1
    assert "edited" in edited.out


def test_an_unknown_check_is_named(shapes: Path, command) -> None:
    done = command("check", "--config", shapes, "--only", "gradient")
    assert (done.code, "did you mean 'gradients'?" in done.err) == (2, True)


def test_hardware_is_remembered_where_training_looks(check) -> None:
    settings = config_file.load(Path("configs/tiny.yaml"))
    report = check(only=["pinned"])
    assert those(report, PASS) == {"pinned"}
    kept = checksums.read_json(settings.runs / "digits" / "tiny" / "hardware.json")
    assert {Hardware(**value).device for value in kept.values()} == {"cpu"}


def test_constants_are_sent_to_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare, images = Preparation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "cpu", "contiguous"), torch.zeros(1, 4, 4, 3).byte()
    with torch.inference_mode():
        before = prepare(images)
    monkeypatch.setattr(torch, "tensor", lambda *_, **__: pytest.fail("made anew"))
    layer = nn.Conv2d(3, 1, 1)
    layer(prepare(images)).sum().backward()
    assert torch.equal(prepare(images), before)
    assert layer.weight.grad is not None


# -- other targets than one label ------------------------------------------------------------------------------------

JUDGED = ("folds", "pairs", "augmentation", "pixels", "shuffled", "first_loss", "logits", "leaks", "one_batch")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the drawn competition of all kinds."""
    folder = tmp_path_factory.mktemp("kinds")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        kinds_ground.write(Path("input/kinds"), rows=90)
    return folder


@pytest.fixture
def check_kind(kinds: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """`check_kind("regression", only=[...])`: the report on it; images of `left` are not mirrored."""
    monkeypatch.chdir(kinds)

    def call(shape: str, *words: str, only: Collection[str] = JUDGED) -> Report:
        said = ("optim.lr=1e-2", "augment.preset=none", "augment.hflip=0", "augment.vflip=0.5", *words)
        settings = config_file.load(kinds_ground.config(shape), said)
        make_folds.ensure(settings, lambda word: None)
        return examine(opening.read(settings), Callback(), IMAGES, only)

    return call


FIRST_LOSS = {  # log K, its mean over the heads, log 2 a label, the variance of values in units of their own
    "single": np.log(6),
    "heads": 0.896,
    "auxiliary": 1.445,
    "ordinal": np.log(2),
    "ordinal as classes": np.log(3),
    "multilabel": np.log(2),
    "soft": np.log(3),
    "regression": 1.0,
    "multioutput": 0.896,
}


def of_shape(*fast: str) -> list:
    return [
        pytest.param(shape, marks=pytest.mark.integration if shape in fast else pytest.mark.slow)
        for shape in kinds_ground.TARGETS
    ]


@pytest.mark.parametrize("shape", of_shape("multilabel"))
def test_sound_code_passes_with_any_target(check_kind, shape: str) -> None:
    report = check_kind(shape)
    assert those(report, FAIL) == set(), numbers(report)
    assert those(report, NOT_APPLICABLE) == ({"logits"} if shape == "regression" else set()), numbers(report)
    guessed = next(line.finding.values["guess"] for line in report.lines if line.check == "first_loss")
    # log K, its mean over the heads, log 2 a label, the variance of values in units of their own
    wanted = {
        "single": np.log(6),
        "ordinal as classes": np.log(3),
        "multilabel": np.log(2),
        "regression": 1.0,
        **FIRST_LOSS,
    }
    assert guessed == pytest.approx(wanted[shape], rel=0.15 if shape == "regression" else 1e-3)


@pytest.mark.parametrize(
    ("damage", "shape", "check"),
    [
        (targets_slip, "multilabel", "pairs"),
        (targets_slip, "regression", "pairs"),
        (labels_shuffled, "multioutput", "pairs"),
        (learns_from_all, "regression", "shuffled"),
        (learns_from_all, "heads", "shuffled"),
        (head_starts_far_off, "multilabel", "first_loss"),
        (of_every_net(lambda net: net.register_forward_hook(lambda _, __, out: out.sigmoid())), "multilabel", "logits"),
    ],
)  # fmt: skip
@pytest.mark.integration
def test_breakages_are_found_with_any_target(check_kind, monkeypatch, damage: Break, shape: str, check: str) -> None:
    check_kind(shape, only=["folds"])  # the folds are there
    damage(monkeypatch)
    report = check_kind(shape, only=[check])
    assert those(report, FAIL) == {check}, numbers(report)
    assert "could not be carried out" not in numbers(report)


@pytest.mark.integration
def test_a_label_that_a_flip_destroys_is_named(check_kind) -> None:
    report = check_kind("multilabel", "augment.hflip=0.5", only=["augmentation"])
    assert those(report, FAIL) == {"augmentation"}
    assert "'left'" in numbers(report)


@pytest.mark.slow
def test_a_flip_that_swaps_labels_keeps_them(check_kind) -> None:
    words = ("competition.target.columns=[bar,left,right]", "augment.hflip={p: 0.5, swap: {left: right}}")
    table = pd.read_csv("input/kinds/train.csv", dtype=str)
    table.assign(right=(table["left"] == "0").astype(int)).to_csv("input/kinds/train.csv", index=False)
    sample = "competition.sample=sample_swapped.csv"
    ids = pd.read_csv("input/kinds/test.csv", dtype=str)
    ids.assign(bar=0, left=0, right=0).to_csv("input/kinds/sample_swapped.csv", index=False)
    report = check_kind("multilabel", *words, sample, "competition.name=swapped", only=["augmentation", "pairs"])
    assert those(report, FAIL) == set(), numbers(report)
