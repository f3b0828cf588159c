"""The diagnosis measures what it says, and its advice is ready to run."""

import json
from dataclasses import replace
from pathlib import Path

import kinds_ground
import numpy as np
import pytest
import torch
from conftest import CONFIG
from tables import class_space
from torch import nn

from foldcraft.common import config_file
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.metrics.gain import Gain, gain_in_loss, gain_in_score
from foldcraft.metrics.scores import get
from foldcraft.models import batchnorm_shift
from foldcraft.models.inputs import Inputs
from foldcraft.predictions.experiment import Experiment
from foldcraft.study.advice import MARK, Advised, advise
from foldcraft.study.diagnose import Diagnosis, NetScore, ViewEffect, draws, look_at_views, measure, some_groups
from foldcraft.training.plan import full_epochs

WORDS = ("backbone.weights=none", "folds.count=3")


def net(name: str, score: float, transformer: bool = False) -> NetScore:
    return NetScore(
        name, score, score - 0.01, score + 0.01, score - 0.05, score - 0.1, Gain(0.05, 0.01),
        transformer, {"head": score}, None if transformer else 0.3, np.zeros((1, 3)),
    )  # fmt: skip


@pytest.fixture
def found() -> Diagnosis:
    effects = [
        ViewEffect("hflip", Gain(0.002, 0.003), 0.89, True),
        ViewEffect("vflip", Gain(-0.004, 0.003), 0.88, True),
        ViewEffect("rot90", Gain(-0.2, 0.01), 0.5, False),
        ViewEffect("scale1.25", Gain(0.001, 0.002), 0.89, True),
    ]
    nets = [net("cnn", 0.9), net("vit", 0.85, transformer=True), net("poor", 0.5)]
    counts = {"a": 500, "b": 500}
    curve = {0.25: (0.8, 0.01), 0.5: (0.85, 0.01), 1.0: (0.9, 0.0)}
    return Diagnosis(
        "macro_f1", 1000, 100, counts, counts, nets, ["cnn", "vit"], [0.9, 0.92], [16], Gain(0.01, 0.004), curve,
        Gain(0.05, 0.01), effects,
    )  # fmt: skip


@pytest.fixture
def settings(shapes: Path) -> Config:
    return config_file.load(shapes)


def test_amount_and_likeness_follow_the_numbers_and_may_be_unknown(found: Diagnosis, settings) -> None:
    little = advise(found, settings)
    assert (little.amount, little.likeness) == ("little", "dissimilar")
    assert any("little data, unlike ImageNet" in reason for reason in little.reasons)
    like = replace(
        found, nets=[replace(found.nets[0], gap=Gain(0.001, 0.002))], more_data=Gain(0.0, 0.002), pool=["cnn"]
    )
    assert (advise(like, settings).amount, advise(like, settings).likeness) == ("enough", "similar")
    vague = replace(like, nets=[replace(found.nets[0], gap=Gain(0.02, 0.02))], more_data=Gain(0.02, 0.02))
    unknown = advise(vague, settings)
    assert (unknown.amount, unknown.likeness) == ("cannot tell", "cannot tell")
    assert any("cannot tell" in reason for reason in unknown.reasons)


def test_the_pool_comes_first_and_the_best_net_of_each_kind_is_tried_beside_it(
    found: Diagnosis, settings, tmp_path: Path
) -> None:
    advice = advise(found, settings)
    assert [advised.name for advised in advice.pool] == ["probe_cnn", "probe_vit", "pool"]
    assert [advised.name for advised in advice.tried] == ["full_cnn", "full_vit"], "the better probe first"
    cnn, read = (written(advised, tmp_path) for advised in advice.tried)
    assert (cnn.finetune.head_init, cnn.optim.lr) == ("probe", 1.5e-3)
    assert read.competition == settings.competition
    assert read.images == settings.images
    assert (read.augment.hflip, read.augment.vflip, read.augment.rot90) == (0.5, 0, 0)
    assert read.tta.views == ["identity", "scale1.25"]
    assert (read.finetune.mode, read.finetune.head_init, read.optim.lr) == ("full", "random", 5e-4)
    assert (read.train.epochs, read.train.validate_every, read.train.batch) == (15, 15, 32)
    assert "0.8500" in advice.tried[1].text, "the number that led to it"
    probe, pool = written(advice.pool[0], tmp_path), written(advice.pool[2], tmp_path)
    assert (probe.backbone.name, probe.probe_nets, pool.backbone.name, pool.probe_nets) == ("cnn", [], "cnn", ["vit"])
    for one in (probe, pool):
        assert (one.images.size, one.probe_sizes, one.probe.mirror, one.augment.preset) == (16, [16], True, "medium")
        assert (one.probe.views, one.tta.views) == (["identity"], ["identity"])


@pytest.mark.parametrize("gain", [None, Gain(-0.01, 0.001)])
def test_the_mirror_image_is_left_out_where_it_does_not_help(found: Diagnosis, settings, gain, tmp_path: Path) -> None:
    advice = advise(replace(found, mirror=gain), settings)
    assert written(advice.pool[0], tmp_path).probe.mirror is False


def test_an_error_of_values_is_no_perfect_score_and_small_is_small_beside_guessing(found: Diagnosis, settings) -> None:
    values = replace(
        found, metric="rmse", greater_is_better=False, unit=40.0, loss_name="squared error", pool_scores=[9.0, 8.0],
        more_data=Gain(0.1, 0.1), pool=["cnn", "vit"],
    )  # fmt: skip
    advice = advise(values, settings)
    assert advice.tried, "an RMSE above 0.995 leaves much to gain"
    assert advice.amount == "enough", "0.3 of an error of 40 is less than a hundredth"
    assert any("off the squared error" in reason for reason in advice.reasons)
    assert advise(replace(values, unit=1.0), settings).amount == "cannot tell"


SHAPES = {  # what the table of classes counts
    "regression": {"level", "width"},
    "multilabel": {"bar", "bright", "left"},
    "multioutput": {"form=bar", "form=dot", "grade=0", "grade=1", "grade=2"},
    "soft": {"votes_0", "votes_1", "votes_2"},
    "heads": {f"{form}-{grade}" for form in ("bar", "dot") for grade in range(3)},
    "ordinal": {"0", "1", "2"},
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_any_target_is_diagnosed_and_what_is_advised_trains(shape: str, command, alone, workplace: Path) -> None:
    kinds_ground.write(Path("input/kinds"), rows=60)
    path = kinds_ground.config(shape)
    done = command("diagnose", "--config", path, "backbone.weights=none", "--configs", "advised")
    assert (done.code, done.err) == (0, ""), done.err
    found = json.loads(Path(f"runs/kinds_{shape}/diagnose/diagnosis.json").read_text())
    assert set(found["images_per_class"]) == SHAPES[shape]
    if shape == "multilabel":
        mirrored = next(view for view in found["views"] if view["view"] == "hflip")
        assert not mirrored["keeps_label"], "left becomes right"
    fast = ("backbone.weights=none", "machine.device=cpu", "machine.workers=0", "train.epochs=1", "train.batch=8")
    for advised in sorted(Path("advised").glob("*.yaml")):
        words = [*fast, "finetune.head_init=random", "probe.augmented=0", "tracking.wandb=off"]
        trained = command("train", "--config", advised, "--fold", "0", *words)
        assert trained.code == 0, trained.err


def test_the_log_loss_of_two_is_compared_by_groups() -> None:
    rng = np.random.default_rng(0)
    truth, units = rng.integers(0, 2, 4000), np.repeat(np.arange(1000), 4)
    b = np.log(np.full((4000, 2), 0.5))
    noise = np.repeat(rng.normal(0, 0.1, 1000), 4)[:, None]
    value, error = gain_in_loss(class_space(2), truth, b + 0.01 + noise, b, units)
    assert value == pytest.approx(0.01 + noise.mean())
    assert error == pytest.approx(0.1 / 1000**0.5, rel=0.1), "whole groups differ, not rows"


def written(advised: Advised, folder: Path) -> Config:
    """An advised config as a user would have it read."""
    path = folder / f"{advised.name}.yaml"
    path.write_text(advised.text)
    return config_file.load(path)


def test_a_flip_that_the_config_forbids_is_not_advised(found: Diagnosis, shapes: Path, tmp_path: Path) -> None:
    advice = advise(found, config_file.load(shapes, ["augment.hflip=0"]))
    read = written(advice.tried[0], tmp_path)
    assert (read.augment.hflip, read.tta.views) == (0, ["identity", "scale1.25"])
    assert written(advice.pool[0], tmp_path).probe.mirror is False
    assert any("hflip: left out" in reason for reason in advice.reasons)
    lost = replace(found, views=[*found.views[:-1], replace(found.views[-1], keeps_label=False)])
    assert written(advise(lost, config_file.load(shapes)).tried[0], tmp_path).tta.views == ["identity", "hflip"]


def test_two_nets_are_fine_tuned_where_no_transformer_is(found: Diagnosis, settings, tmp_path: Path) -> None:
    cnns = replace(found, nets=[net("a", 0.9), net("b", 0.8), net("c", 0.7)])
    cnns = replace(cnns, pool=["a", "c", "b"], pool_scores=[0.9, 0.91, 0.92])
    advice = advise(cnns, settings)
    assert [advised.name for advised in advice.tried] == ["full_a", "full_b"]
    read = written(advice.tried[0], tmp_path)
    assert (read.finetune.head_init, read.finetune.batchnorm, read.optim.lr) == ("probe", "frozen", 1.5e-3)


@pytest.mark.parametrize(("rows", "epochs"), [(1153, 8), (2260, 5), (400, 24), (92, 143), (20, 285), (50_000, 2)])
def test_steps_of_a_fine_tuning_become_epochs(rows: int, epochs: int) -> None:
    assert full_epochs(rows, 32) == epochs


def test_nothing_is_fine_tuned_where_probes_leave_nothing_to_gain(found: Diagnosis, settings) -> None:
    advice = advise(replace(found, pool_scores=[0.99, 0.998]), settings)
    assert ([advised.name for advised in advice.pool], advice.tried) == (["probe_cnn", "probe_vit", "pool"], [])


def test_a_share_of_the_groups_keeps_them_whole_and_every_class() -> None:
    units = np.repeat([f"g{k}" for k in range(40)], 3)
    targets = np.repeat(np.arange(40) % 4, 3)
    kept = some_groups(units, targets, 0.25, seed=0)
    assert all(len(set(kept[units == unit])) == 1 for unit in set(units))
    assert np.bincount(targets[kept]).tolist() == [6, 6, 6, 6], "two of each class's ten groups"
    assert (some_groups(units, targets, 0.25, seed=1) != kept).any()
    assert some_groups(units, targets, 0.001, seed=0).sum() == 12, "one group a class at the least"


def test_a_share_of_few_groups_leaves_every_fold_something_to_learn_from() -> None:
    units = np.repeat(["a", "b", "c", "d", "e"], 4)
    targets, fold = np.tile([0, 1], 10), np.repeat([0, 0, 0, 0, 1], 4)

    drawn = list(draws(units, targets, fold, 0.5))  # two persons of five, who may both be in fold 0

    assert len(drawn) == 3
    assert all(kept[fold == k].any() for kept in drawn for k in (0, 1))
    assert list(draws(units, targets, fold, 0.25)) == []  # one person is in one fold


def test_batchnorm_distance_is_nought_where_the_statistics_are_those_of_the_images() -> None:
    torch.manual_seed(0)
    images = torch.randn(64, 3, 8, 8) * 2 + 1
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=None)).train()
    model(images)
    model.eval()
    assert batchnorm_shift.batchnorm_distance(model, Inputs(images).split(2)) == pytest.approx(0, abs=1e-4)
    # The variance four times as large: (4 - 1 - ln 4) / 2.
    shifted = (images - images.mean((0, 2, 3), keepdim=True)) * 2 + images.mean((0, 2, 3), keepdim=True)
    assert batchnorm_shift.batchnorm_distance(model, [Inputs(shifted)]) == pytest.approx((3 - np.log(4)) / 2, rel=1e-2)
    assert batchnorm_shift.batchnorm_distance(nn.Sequential(nn.Conv2d(3, 3, 1)), [Inputs(images)]) is None


def test_a_gain_has_the_sign_of_the_better_one_whatever_the_metric() -> None:
    rng = np.random.default_rng(0)
    truth, groups = rng.integers(0, 2, 200), np.arange(200)
    good = np.eye(2)[truth] * 0.8 + 0.1
    bad = np.eye(2)[np.where(rng.random(200) < 0.3, 1 - truth, truth)] * 0.8 + 0.1
    for name in ("accuracy", "log_loss"):
        value, error = gain_in_score(get(name), truth, good, bad, groups)
        assert value > 2 * error > 0
        assert gain_in_score(get(name), truth, bad, good, groups).value == pytest.approx(-value)
    assert gain_in_score(get("accuracy"), truth, good, good, groups) == Gain(0, 0)


@pytest.mark.integration
def test_views_that_change_the_label_are_found_out(workplace: Path) -> None:
    """Bars that lie or stand: a quarter turn makes one of the other, a mirror does not."""
    import pandas as pd
    from PIL import Image

    rng = np.random.default_rng(0)
    folder = Path("input/bars")
    names = [f"{k:03d}.png" for k in range(120)]
    labels = ["lying" if k % 2 else "standing" for k in range(120)]
    for part in ("train", "test"):
        (folder / part).mkdir(parents=True)
    for k, name in enumerate(names):
        pixels = rng.normal(60, 20, (20, 20))
        at = rng.integers(4, 14)
        pixels[(slice(at, at + 3), slice(2, 18)) if k % 2 else (slice(2, 18), slice(at, at + 3))] += 150
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / ("train" if k < 108 else "test") / name)
    frame = pd.DataFrame({"id": names, "label": labels})
    frame[:108].to_csv(folder / "train.csv", index=False)
    frame[108:][["id"]].to_csv(folder / "test.csv", index=False)
    frame[108:][["id"]].assign(label="lying").to_csv(folder / "sample_submission.csv", index=False)
    Path("bars.yaml").write_text(CONFIG.replace("name: shapes", "name: bars"))
    read = config_file.load(Path("bars.yaml"))
    from foldcraft.data import competition, folds, splitting

    folds.write(splitting.make(competition.read(read), read.folds), read.folds_file)
    experiment = Experiment.open(read)
    for views in (measure([experiment], Callback()).views, look_at_views(experiment, Callback(), most=60)[0]):
        effects = {effect.view: effect for effect in views}
        assert effects["hflip"].keeps_label
        assert effects["vflip"].keeps_label
        assert not effects["rot90"].keeps_label


def test_the_command_measures_writes_configs_and_they_train(
    shapes: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FOLDCRAFT_WEIGHTS", raising=False)
    command("split", "--config", shapes)
    done = command("diagnose", "--config", shapes)
    assert done.code == 0, done.err
    for words in ("all blocks", "keeps the label", "learning curve", "amount and likeness", "src/train.py --config"):
        assert words in done.out
    numbers = json.loads(Path("runs/shapes/diagnose/diagnosis.json").read_text())
    assert numbers["nets"][0]["name"] == "test_resnet"
    assert 0 <= numbers["nets"][0]["score"] <= 1
    assert set(numbers["curve"]) == {"0.25", "0.5", "1.0"}
    advised = Path("configs/shapes/probe_test_resnet.yaml")
    assert advised.read_text().startswith(MARK)
    own, given = config_file.load(advised), config_file.load(shapes)
    assert (own.tracking, own.machine) == (given.tracking, given.machine), "W&B stays off where it is off"
    assert own.tracking.wandb == "off"
    trained = command("train", "--config", advised, "--fold", "all", *WORDS, "tracking.wandb=off")
    assert trained.code == 0, trained.err
    again = command("diagnose", "--config", shapes)
    assert again.code == 0, "its own files may be written again"
    assert "features of" not in again.out, "nothing is computed twice"
    advised.write_text("extends: mine.yaml\n")
    refused = command("diagnose", "--config", shapes)
    assert refused.code == 2
    assert "probe_test_resnet.yaml" in refused.err
    assert advised.read_text() == "extends: mine.yaml\n"


@pytest.mark.slow
def test_nets_looked_at_side_by_side_measure_the_same(shapes: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOLDCRAFT_WEIGHTS", raising=False)
    words = ["--config", shapes, "backbone.weights=none", "--backbones", "test_byobnet"]
    alone = command("diagnose", *words)
    numbers = Path("runs/shapes/diagnose/diagnosis.json").read_text()
    Path("runs").rename("alone")

    beside = command("diagnose", *words, "--jobs", 2)

    assert (alone.code, beside.code) == (0, 0), alone.err + beside.err
    assert Path("runs/shapes/diagnose/diagnosis.json").read_text() == numbers
    assert len(json.loads(numbers)["nets"]) > 1
    assert "[test_byobnet] train features of 1 backbone in 1 view: 48" in beside.out
    own = [line for line in beside.out.splitlines() if line.startswith("train features")]
    assert own[:1] == ["train features of 1 backbone in 3 views: 48"], "of the best net; the plain ones lie there"


def test_no_number_of_jobs_is_told(shapes: Path, command) -> None:
    assert command("diagnose", "--config", shapes, "--jobs", 0).err.startswith(
        "error: --jobs: 0 is not a number of jobs"
    )
