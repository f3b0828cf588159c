"""Continued pretraining: what is learned from, what is written, and that any config can start from it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CONFIG, Outcome
from safetensors.numpy import load_file
from safetensors.torch import save_file

from foldcraft.common.callbacks import Callback
from foldcraft.common.config import BackboneConfig
from foldcraft.common.config_file import load
from foldcraft.common.errors import FoldcraftError
from foldcraft.models import backbones
from foldcraft.predictions.experiment import Experiment
from foldcraft.study import make_folds
from foldcraft.training import pretraining
from foldcraft.training.trainer import Trainer

Command = Callable[..., Outcome]


@pytest.fixture
def start(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The drawn competition, whose config starts from a weights folder with a licence."""
    monkeypatch.setenv("FOLDCRAFT_WEIGHTS", "weights")
    model, _ = backbones.build(BackboneConfig(name="test_resnet", weights="none"), 5, 16)
    folder = Path("weights/small")
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    about = {**model.pretrained_cfg, "num_classes": 5, "license": "cc-by-4.0"}
    (folder / "config.json").write_text(json.dumps({"architecture": "test_resnet", "pretrained_cfg": about}))
    shapes.write_text(CONFIG.replace("{name: test_resnet, weights: none}", "{name: small}"))
    return shapes


def opened(config: Path, *words: str) -> Experiment:
    return make_folds.open_experiment(load(config, words), print)


def test_each_image_is_a_class_and_no_label_counts(start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, step = [], Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda *given: (seen.append(given[1]), step(*given))[1])

    made = pretraining.pretrain(opened(start), "one", 2, False, Callback())
    rows = torch.cat([batch.rows for batch in seen])
    assert torch.equal(torch.cat([batch.targets for batch in seen]), rows)
    assert sorted(rows.tolist()) == sorted([*range(48)] * 2), "all training images, those of every fold, twice"
    assert made.images == 48

    table = pd.read_csv("input/shapes/train.csv", dtype=str)
    table["label"] = np.roll(table["label"], 1)
    table.to_csv("input/shapes/train.csv", index=False)
    Path("folds/shapes.csv").unlink()
    pretraining.pretrain(opened(start), "two", 2, False, Callback())
    assert Path("weights/one/model.safetensors").read_bytes() == Path("weights/two/model.safetensors").read_bytes()

    seen.clear()
    assert pretraining.pretrain(opened(start), "three", 1, True, Callback()).images == 60
    assert {int(row) for batch in seen for row in batch.rows} <= set(range(60))
    assert max(int(row) for batch in seen for row in batch.rows) >= 48, "test images, which were asked for"


def test_a_config_starts_from_what_was_made(start: Path, command: Command) -> None:
    done = command("pretrain", "--config", start, "--name", "further", "--epochs", "1")
    assert done.code == 0, done
    assert "learned from 48 images" in done.out
    assert "it has hardly begun" in done.out

    model, blueprint = backbones.build(BackboneConfig(name="further"), 3, 16)
    written, before = load_file("weights/further/model.safetensors"), load_file("weights/small/model.safetensors")
    heads = backbones.head_names(model)
    assert {name for name in before if not name.startswith(heads)} == set(written)
    assert any(not np.array_equal(written[name], before[name]) for name in written)
    state = model.state_dict()
    assert all(np.array_equal(state[name].numpy(), written[name]) for name in written)
    assert blueprint.licence == "cc-by-4.0"
    assert json.loads(Path("weights/further/config.json").read_text())["pretraining"]["from"] == "small"
    trained = command("train", "--config", start, "--fold", "0", "backbone.name=further", "experiment=next")
    assert trained.code == 0, trained
    assert json.loads(Path("runs/shapes/next/fold0/manifest.json").read_text())["weights_licence"] == "cc-by-4.0"


def test_a_position_embedding_is_of_the_size_it_was_trained_at(start: Path) -> None:
    model, _ = backbones.build(BackboneConfig(name="test_vit", weights="none"), 5, 160)
    Path("weights/vit").mkdir()
    save_file(model.state_dict(), "weights/vit/model.safetensors")
    about = {**model.pretrained_cfg, "num_classes": 5}
    Path("weights/vit/config.json").write_text(json.dumps({"architecture": "test_vit", "pretrained_cfg": about}))
    experiment = opened(start, "backbone.name=vit", "images.size=32")

    pretraining.pretrain(experiment, "vit32", 1, False, Callback())

    written = load_file("weights/vit32/model.safetensors")["pos_embed"]
    for size, tokens in ((32, 4), (64, 16)):
        net, _ = backbones.build(BackboneConfig(name="vit32"), 3, size)
        assert net.pos_embed.shape[1] == tokens + net.num_prefix_tokens
        backbones.check_forward(net, 3, size)
        if size == 32:
            assert np.array_equal(net.pos_embed.detach().numpy(), written)


def test_resumed_to_the_same_bits(start: Path, after_one_epoch) -> None:
    pretraining.pretrain(opened(start), "calm", 2, False, Callback())
    with after_one_epoch(), pytest.raises(KeyboardInterrupt):
        pretraining.pretrain(opened(start), "broken", 2, False, Callback())
    assert not Path("weights/broken").exists()
    ran, run_epoch = [], Trainer.run_epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "run_epoch", lambda trainer: (ran.append(trainer.epoch), run_epoch(trainer))[1])
        pretraining.pretrain(opened(start), "broken", 2, False, Callback())
    assert ran == [1], "the first epoch is not made again"
    assert Path("weights/calm/model.safetensors").read_bytes() == Path("weights/broken/model.safetensors").read_bytes()
    assert not Path("runs/shapes/pretrain/broken/last.ckpt").exists()


@pytest.mark.parametrize(
    ("name", "words", "named"),
    [
        ("small", (), "is there already"),
        ("resnet18", (), "a net of timm"),
        ("new", ("backbone.weights=none", "backbone.name=test_resnet"), "pretrained weights of timm"),
        ("new", ("images.channels=1",), "3 channels"),
    ],
)
def test_what_cannot_be_trained_on(start: Path, name: str, words: tuple[str, ...], named: str) -> None:
    experiment = opened(start)
    experiment = Experiment(load(start, words), experiment.competition, experiment.folds)
    with pytest.raises(FoldcraftError, match=named):
        pretraining.pretrain(experiment, name, 1, False, Callback())


def test_too_many_images_to_be_classes(start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "MOST", 47)
    with pytest.raises(FoldcraftError, match="48 images, each a class"):
        pretraining.pretrain(opened(start), "many", 1, False, Callback())
