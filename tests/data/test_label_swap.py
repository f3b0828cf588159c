"""Flips that change the label: settings, truth, and predictions of a flipped view in terms of the image as it is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Outcome
from PIL import Image
from pydantic import ValidationError

from foldcraft.common import config_file
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import AugmentConfig, ImagesConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data import competition, folds, splitting
from foldcraft.data.augment import Augment, flips_of
from foldcraft.data.label_swap import Swaps
from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.several import MultiLabel, MultiOutput, Regression
from foldcraft.data.targets.single import Ordinal, SingleLabel
from foldcraft.data.targets.target import Target
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.finished import open_finished
from foldcraft.study.diagnose import measure

SIDES = SingleLabel.of("side", Classes(("left", "middle", "right")), np.array([0, 1, 2]))
EYES = (Classes(("closed", "open")), Classes(("closed", "open")), Classes(("left", "right")))
FACE = MultiOutput.of(("left_eye", "right_eye", "gaze"), EYES, np.array([[0, 1, 0], [1, 1, -1], [-1, 0, 1]]))
WIND = Regression.of(("east", "west"), np.array([[1.0, 5.0], [2.0, np.nan], [9.0, 0.0]]))


def swaps(target: Target, hflip: dict | None = None, vflip: dict | None = None) -> Swaps:
    both = {"hflip": hflip, "vflip": vflip}
    return Swaps.of(AugmentConfig(**{name: {"swap": swap} for name, swap in both.items() if swap}), target)


def test_what_the_rows_are_once_they_are_flipped() -> None:
    assert swaps(SIDES, {"left": "right"}).target(SIDES, ["hflip"]).truth.tolist() == [2, 1, 0]
    space = SIDES.space
    grades = Ordinal(("side",), space, SIDES.truth, cumulative=True)
    assert swaps(grades, {"left": "right"}).target(grades, ["hflip"]).learned.tolist() == [[1, 1], [1, 0], [0, 0]]
    marks = MultiLabel.of(("l", "r"), ("l", "r"), np.array([[1, 0], [np.nan, 1]]), "")
    assert swaps(marks, {"l": "r"}).target(marks, ["hflip"]).truth[0].tolist() == [0, 1]
    assert np.isnan(swaps(marks, {"l": "r"}).target(marks, ["hflip"]).truth[1, 1])
    assert swaps(WIND, {"east": "west"}).target(WIND, ["hflip"]).truth[0].tolist() == [5, 1]
    both = swaps(FACE, {"left_eye": "right_eye", "left": "right"})
    assert both.target(FACE, ["hflip"]).truth.tolist() == [[1, 0, 1], [1, 1, -1], [0, -1, 0]]
    soft = np.array([[0.25, 0.75, 0.5, 0.5, 1.0, 0.0]])
    assert both.restored("hflip", soft).tolist() == [[0.5, 0.5, 0.25, 0.75, 0.0, 1.0]]


def test_two_flips_are_undone_in_their_order() -> None:
    two = swaps(SIDES, {"left": "right"}, {"left": "middle"})
    shown = two.target(SIDES, ["hflip", "vflip"])
    assert shown.truth.tolist() == [2, 0, 1]  # left: right, then right; middle: middle, then left
    said = np.eye(3)[shown.truth]
    assert two.restored("rot180", said).argmax(1).tolist() == [0, 1, 2]
    assert two.restored("hflip+vflip+scale1.25", said).argmax(1).tolist() == [0, 1, 2]
    assert two.restored("hflip+hflip", said).tolist() == said.tolist()
    assert two.matrix(SIDES, np.eye(3), ["hflip", "vflip"]).tolist() == said.tolist()
    wind = swaps(WIND, {"east": "west"})
    given = WIND.space.matrix(WIND.truth)
    wanted = WIND.space.matrix(wind.target(WIND, ["hflip"]).truth)
    assert np.allclose(wind.matrix(WIND, given, ["hflip"]), wanted, equal_nan=True)


@pytest.mark.parametrize(
    ("target", "swap", "says"),
    [
        (SIDES, {"left": "rigt"}, "did you mean 'right'?"),
        (FACE, {"closed": "open"}, "class of several labels"),
        (FACE, {"left_eye": "gaze"}, "have other classes"),
        (FACE, {"left_eye=open": "gaze=left"}, "are of two labels"),
    ],
)
def test_what_cannot_be_swapped_is_told_in_a_line(target: Target, swap: dict, says: str) -> None:
    with pytest.raises(FoldcraftError) as error:
        swaps(target, swap)
    assert says in str(error.value)
    assert "augment.hflip.swap" in str(error.value)
    assert len(str(error.value)) < 300


def test_a_name_has_one_other_side() -> None:
    with pytest.raises(ValidationError, match="more than one: b"):
        AugmentConfig(hflip={"swap": {"a": "b", "b": "c"}})
    assert AugmentConfig(hflip={"swap": {"b": "a", "a": "b"}}).swaps == {"hflip": {"a": "b"}}
    assert AugmentConfig(hflip={"swap": {1: 2}}).swaps == {"hflip": {"1": "2"}}


def test_the_draw_tells_whether_it_flipped() -> None:
    images = ImagesConfig(size=8)
    augment = Augment(AugmentConfig(preset="none", hflip={"p": 0.5, "swap": {"a": "b"}}), images, 8)
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, :4] = 255
    told = [flips_of(augment.config, seed) == ("hflip",) for seed in range(40)]
    assert told == [augment(image, seed)[0, 0, 0] == 0 for seed in range(40)]
    assert 8 < sum(told) < 32
    assert augment.steps == [("HorizontalFlip", 0.5)]


def draw(folder: Path, rows: int = 72) -> None:
    """A bright mark on the left or on the right of noise."""
    labels = [("left", "right")[row % 2] for row in range(rows + 8)]
    frame = pd.DataFrame({"id": [f"{row:03d}.png" for row in range(rows + 8)], "label": labels})
    for part, some in (("train", frame[:rows]), ("test", frame[rows:])):
        (folder / part).mkdir(parents=True)
        for row, (name, label) in enumerate(some.itertuples(index=False)):
            pixels = np.random.default_rng([row, len(part)]).normal(60, 20, (16, 16))
            pixels[5:11, slice(1, 6) if label == "left" else slice(10, 15)] += 150
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / part / name)
    frame[:rows].to_csv(folder / "train.csv", index=False)
    frame[rows:][["id"]].to_csv(folder / "test.csv", index=False)
    frame[rows:][["id"]].assign(label="left").to_csv(folder / "sample_submission.csv", index=False)


CONFIG = """
competition: {name: sides, metric: accuracy}
folds: {count: 2}
images: {size: 16}
augment: {preset: none, hflip: {p: 0.5, swap: {left: right}}}
backbone: {name: test_resnet, weights: none}
train: {epochs: 8, batch: 8}
machine: {workers: 0, device: cpu, precision: 32-true, memory_format: contiguous}
tta: {views: [identity, hflip]}
tracking: {wandb: "off"}
"""


@pytest.mark.parametrize("mode", ["full", "linear_probe"])
def test_left_and_right_are_learned_and_test_time_views_do_not_blur_them(
    workplace: Path, command: Callable[..., Outcome], mode: str
) -> None:
    draw(Path("input/sides"))
    Path("c.yaml").write_text(CONFIG)
    words = [f"finetune.mode={mode}", "probe.augmented=1"]
    done = command("train", "--config", "c.yaml", "--fold", "all", *words)
    assert done.code == 0, done.err
    member = open_finished([config_file.load(Path("c.yaml"), words)])[0]
    found, data = member.oof(), member.experiment.competition
    for view in ("identity", "hflip"):
        said = found.predicted[found.views.index(view)].argmax(1)
        assert (said == data.targets[data.train_rows(found.ids)]).mean() > 0.9, view
    turned = command("train", "--config", "c.yaml", "--fold", "0", "tta.views=[rot90]", *words)
    assert turned.code == 2
    assert "quarter turn" in turned.err


def test_diagnose_judges_a_flip_by_what_it_turns_the_label_into(workplace: Path) -> None:
    """The mirror image of left is right: it is recognised where the settings say so, and not where they do not."""
    draw(Path("input/sides"))
    Path("c.yaml").write_text(CONFIG)
    swapped = config_file.load(Path("c.yaml"))
    data = competition.read(swapped)
    folds.write(splitting.make(data, swapped.folds), swapped.folds_file)
    plain = swapped.model_copy(update={"augment": AugmentConfig(hflip=0.5)})
    found = [measure([Experiment.open(config)], Callback()) for config in (swapped, plain)]
    effects = [{effect.view: effect for effect in each.views}["hflip"] for each in found]
    assert effects[0].keeps_label
    assert effects[0].seen > 0.9
    assert not effects[1].keeps_label
