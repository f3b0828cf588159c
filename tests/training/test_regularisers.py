"""What keeps a net from learning its images by heart: each does what it says, and survives an interruption."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from foldcraft.common.callbacks import Callback
from foldcraft.common.config import AugmentConfig, ImagesConfig, OptimConfig, TrainConfig
from foldcraft.common.config_file import load
from foldcraft.common.errors import FoldcraftError
from foldcraft.data.augment import Augment
from foldcraft.data.images.image_cache import ImageStore
from foldcraft.data.loader import EpochBatches
from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.single import SingleLabel
from foldcraft.metrics import scores
from foldcraft.models import backbones
from foldcraft.models.hardware import Hardware
from foldcraft.models.inputs import Inputs
from foldcraft.training.distributed import Processes
from foldcraft.training.plan import MOST_EPOCHS, epochs_for, plan, steps_for
from foldcraft.training.trainer import Task, Trainer

ROWS = 24
NOISE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (ROWS, 16, 16, 3), dtype=np.uint8))


@pytest.fixture
def trainer(shapes: Path) -> Callable[..., Trainer]:
    """`trainer("regularize.rdrop=1")`: of the tiny net on images of noise; the last six rows are held out."""

    def make(*overrides: str, targets: np.ndarray | None = None, processes: Processes | None = None) -> Trainer:
        config = load(shapes, overrides)
        np.save("noise.npy", NOISE.numpy())
        rows = np.arange(ROWS)
        task = Task(
            identity="",
            config=config,
            store=ImageStore(np.load("noise.npy", mmap_mode="r"), Path("noise.npy")),
            ids=rows.astype(str),
            target=SingleLabel.of("label", Classes(("0", "1", "2")), rows % 3 if targets is None else targets),
            train_rows=rows[:-6],
            valid_rows=rows[-6:],
            metric=scores.get("accuracy"),
            state_file=Path("last.ckpt"),
            history_file=Path("history.csv"),
        )
        torch.manual_seed(0)
        model, blueprint = backbones.build(config.backbone, 3, 16)
        hardware = Hardware("cpu", "32-true", "contiguous", "")
        return Trainer(task, model, blueprint, hardware, processes or Processes(), Callback())

    return make


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def watch(model: nn.Module) -> list[torch.Tensor]:
    """All logits that it gives from now on."""
    seen: list[torch.Tensor] = []
    model.register_forward_hook(lambda module, given, made: seen.append(made.detach()))
    return seen


# -- SWA -------------------------------------------------------------------------------------------------------------


def test_swa_predicts_with_the_mean_of_the_last_epochs(trainer) -> None:
    training = trainer("train.epochs=5", "optim.swa=0.6", "optim.lr=0.01", "optim.warmup=0")
    seen = []
    for _ in range(5):
        training.run_epoch()
        seen.append(state_of(training.bare_model))
        if training.epoch <= 2:
            assert training._predictor() is training.bare_model
    weights = training.result().weights

    for name, _ in training.bare_model.named_parameters():
        torch.testing.assert_close(weights[name], torch.stack([state[name] for state in seen[2:]]).mean(0))
        assert not torch.allclose(weights[name], seen[-1][name])
    assert len({row["lr"] for row in training.history[:2]}) == 2
    assert len({row["lr"] for row in training.history[1:]}) == 1, "constant while weights are averaged"
    assert 1e-6 < training.history[-1]["lr"] < 0.01


@pytest.mark.parametrize("batchnorm", ["train", "frozen"])
def test_statistics_fit_the_averaged_weights(trainer, batchnorm: str) -> None:
    training = trainer("train.epochs=2", "optim.swa=0.9", f"finetune.batchnorm={batchnorm}", "train.batch=4")
    for _ in range(2):
        training.run_epoch()
    net, weights = training._predictor(), training.result().weights
    conv, norm, name = net.conv1[0], net.conv1[1], "conv1.1.running_mean"

    if batchnorm == "frozen":
        assert torch.equal(weights[name], torch.zeros(norm.num_features))
        return
    with torch.no_grad():
        batches = training.prepare(NOISE[:-6]).chunk(2)  # the training rows, without augmentation
        outputs = [conv(images) for images in batches]
    wanted = torch.stack([output.mean((0, 2, 3)) for output in outputs]).mean(0)
    torch.testing.assert_close(weights[name], wanted, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(training.bare_model.get_buffer(name), wanted, atol=1e-3)
    assert not any(module.training for module in net.modules())
    assert norm.momentum is not None


@given(epochs=st.integers(1, 40), swa=st.floats(0.01, 0.99), warmup=st.floats(0, 1))
def test_at_least_two_epochs_are_averaged_and_the_warm_up_is_finished(epochs: int, swa: float, warmup: float) -> None:
    made = plan(100, TrainConfig(epochs=epochs, batch=10), OptimConfig(swa=swa, warmup=warmup), AugmentConfig())
    assert min(epochs, 2) <= epochs - made.first_averaged_epoch <= max(2, swa * epochs + 0.5)
    assert made.warmup_steps <= made.lr_steps <= made.steps
    off = plan(100, TrainConfig(epochs=epochs, batch=10), OptimConfig(warmup=warmup), AugmentConfig())
    assert (off.first_averaged_epoch, off.lr_steps) == (epochs, off.steps)


# -- R-Drop, thawing, erasing, the sampler, the number of epochs -----------------------------------------------------


def test_rdrop_goes_through_the_net_once_with_two_draws(trainer) -> None:
    training = trainer("regularize.rdrop=5", "backbone.drop=0.5", "regularize.label_smoothing=0")
    training.bare_model.train()
    images, targets = training.prepare(NOISE[:8]), torch.arange(8) % 3
    logits = watch(training.bare_model)

    loss = training._backward(Inputs(images), targets)

    (both,) = logits
    first, second = both.log_softmax(1).chunk(2)
    assert not torch.allclose(first, second)
    divergence = F.kl_div(first, second, log_target=True, reduction="batchmean") + F.kl_div(
        second, first, log_target=True, reduction="batchmean"
    )
    wanted = (F.nll_loss(first, targets) + F.nll_loss(second, targets)) / 2 + 5 * divergence / 2
    torch.testing.assert_close(loss, wanted)


def test_rdrop_of_a_net_that_draws_nothing_is_refused(shapes: Path, command) -> None:
    command("split", "--config", shapes)
    done = command("train", "--config", shapes, "--fold", "0", "regularize.rdrop=1")
    assert done.code == 2
    assert "set backbone.drop or backbone.drop_path" in done.err
    assert done.err.count("\n") == 1


def test_gradual_unfreezing_on_several_processes_is_refused(trainer) -> None:
    with pytest.raises(FoldcraftError, match=r"finetune\.unfreeze_epochs"):
        trainer("finetune.unfreeze_epochs=1", processes=Processes(0, 2, 1))


@pytest.mark.parametrize("transforms", [None, [{"HorizontalFlip": {"p": 1}}]])
def test_erasing_puts_noise_over_a_part_and_nothing_else(transforms: list | None) -> None:
    image = np.full((32, 32, 3), 128, np.uint8)

    def shares(chance: float) -> np.ndarray:
        config = AugmentConfig(preset="none", hflip=0, transforms=transforms, erase=chance)
        augment = Augment(config, ImagesConfig(size=32), 32)
        assert np.array_equal(augment(image, 3), augment(image, 3))
        return np.array([(augment(image, seed) != 128).any(2).mean() for seed in range(60)])

    always, half = shares(1.0), shares(0.5)
    assert (always > 0.01).all()
    assert (always < 0.34).all()
    assert always.std() > 0.03
    assert 15 < (half > 0).sum() < 45
    assert not shares(0.0).any()


def test_what_is_erased_is_noise_and_comes_last() -> None:
    config = AugmentConfig(transforms=[{"ToGray": {"p": 1}}], erase=1.0)
    drawn = Augment(config, ImagesConfig(size=32), 32)(np.full((32, 32, 3), 128, np.uint8), 0)
    colours = drawn[(drawn != 128).any(2)]
    assert len(np.unique(colours, axis=0)) > 10
    assert (colours[:, 0] != colours[:, 1]).any(), "made grey after it was erased"


SKEWED = np.repeat([0, 1, 2], [30, 6, 4])


@given(batch=st.integers(1, 40), epoch=st.integers(0, 9))
def test_the_sampler_draws_all_classes_equally_often(batch: int, epoch: int) -> None:
    rows = np.arange(100, 140)
    batches = EpochBatches(rows, batch, seed=1, balance=SKEWED)
    batches.epoch = epoch
    steps = list(batches)
    assert len(steps) == len(EpochBatches(rows, batch, seed=1)) == 40 // batch
    drawn = np.array([draw.row for step in steps for draw in step])
    counts = np.bincount(SKEWED[drawn - 100], minlength=3)
    assert (counts <= 14).all()
    if 40 % batch == 0:
        assert sorted(counts) == [13, 13, 14]
        often = np.bincount(drawn - 100, minlength=40)
        assert set(often[:30]) == {0, 1}, "of a frequent class no row comes twice"
        assert np.ptp(often[30:36]) <= 1
        assert np.ptp(often[36:]) <= 1
    assert len({draw.seed for step in steps for draw in step}) == len(drawn), "a row that comes again looks different"


def test_the_sampler_depends_on_seed_and_epoch_alone() -> None:
    def epoch(number: int, rank: int = 0, world: int = 1, seed: int = 1) -> list:
        batches = EpochBatches(np.arange(40), 8, seed, rank, world, SKEWED)
        batches.epoch = number
        return list(batches)

    assert epoch(2) == epoch(2)
    assert epoch(2) != epoch(3)
    assert epoch(2) != epoch(2, seed=2)
    for whole, *parts in zip(epoch(2), epoch(2, 0, 2), epoch(2, 1, 2), strict=True):
        assert sorted(whole) == sorted(draw for part in parts for draw in part)
    frequent = [{draw.row for step in epoch(number) for draw in step if draw.row < 30} for number in range(6)]
    assert len(set.union(*frequent)) > 26, "other rows of the frequent class each epoch"


def test_rare_classes_are_treated_by_the_counts_of_the_training_rows(trainer) -> None:
    targets = np.repeat([0, 1, 2, 2], [12, 4, 2, 6])  # the last six are held out
    weights = trainer("train.imbalance=weighted", targets=targets).loss.weights
    torch.testing.assert_close(weights, torch.tensor([18 / 36, 18 / 12, 18 / 6]))
    adjusted = trainer("train.imbalance=logit_adjusted", targets=targets).loss.log_prior
    torch.testing.assert_close(adjusted.exp(), torch.tensor([12 / 18, 4 / 18, 2 / 18]))
    batches = trainer("train.imbalance=sampler", "train.batch=18", targets=targets).batches
    assert sorted(targets[[draw.row for step in batches for draw in step]]) == [0] * 6 + [1] * 6 + [2] * 6


@given(rows=st.integers(1, 2_000_000), batch=st.integers(1, 512))
def test_the_number_of_epochs_is_between_three_and_twenty(rows: int, batch: int) -> None:
    made = plan(rows, TrainConfig(epochs="auto", batch=batch), OptimConfig(), AugmentConfig())
    assert 3 <= made.epochs <= MOST_EPOCHS == 20
    assert made.steps == made.epochs * made.steps_per_epoch
    if 3 < made.epochs < 20:
        assert made.steps - made.steps_per_epoch < steps_for(rows) <= made.steps


def test_steps_by_the_hyperrule() -> None:
    assert [steps_for(rows) for rows in (10, 19_999, 20_000, 499_999, 500_000)] == [500, 500, 10_000, 10_000, 20_000]
    assert [epochs_for(3200, 100), epochs_for(32, 1), epochs_for(19_200, 600)] == [5, 20, 3]


# -- interruptions ---------------------------------------------------------------------------------------------------

EVERYTHING = [
    "regularize.rdrop=1",
    "train.imbalance=sampler",
    "augment.erase=0.5",
    "backbone.drop=0.2",
    "augment.mixup=0.3",
]


@pytest.mark.parametrize(
    "settings",
    [["optim.swa=0.9"], ["optim.swa=0.5"], EVERYTHING, [*EVERYTHING, "optim.swa=0.9", "train.accumulate=2"]],
    ids=["swa from the first epoch", "swa later", "the others", "all"],
)
def test_interrupted_or_not_the_bits_are_the_same(shapes: Path, command, after_one_epoch, settings: list[str]) -> None:
    words = ["train", "--config", shapes, "--fold", "0", "train.epochs=3", "optim.lr=0.005", *settings]
    command("split", "--config", shapes)
    assert command(*words, "runs=calm").code == 0
    with after_one_epoch():
        assert command(*words, "runs=stormy").code == 130
    assert command(*words, "runs=stormy").code == 0

    calm, stormy = (Path(runs, "shapes/tiny/fold0") for runs in ("calm", "stormy"))
    for name in ("model.safetensors", "oof.parquet", "test.parquet"):
        assert (calm / name).read_bytes() == (stormy / name).read_bytes(), name
    histories = [pd.read_csv(fold / "history.csv")[["loss", "valid_loss", "score", "lr"]] for fold in (calm, stormy)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
