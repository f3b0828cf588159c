"""Augmentation: what a draw looks like, what is refused, and that every draw is its own, whoever draws it."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest

from foldcraft.common.config import AugmentConfig, ImagesConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data.augment import PRESETS, Augment
from foldcraft.data.images.image_cache import ImageStore
from foldcraft.data.images.inference_size import resize_for_inference
from foldcraft.data.loader import Batch, EpochBatches, TrainImages, train_loader

SIZE = 24
ROWS = 24
ALWAYS = [
    {"Affine": {"rotate": (-20, 20), "translate_percent": (-0.1, 0.1), "p": 1}},
    {"RandomBrightnessContrast": {"p": 1}},
]


def augment(cache: int = SIZE, resize: str = "squash", **settings: Any) -> Augment:
    return Augment(AugmentConfig(**settings), ImagesConfig(size=SIZE, resize=resize), cache)


def picture(side: int = SIZE) -> np.ndarray:
    """Blocks of random colours."""
    blocks = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return blocks.repeat(side // 6, 0).repeat(side // 6, 1)


def map_of(side: int) -> np.ndarray:
    """An image whose pixels say where they are: (row, column, 0)."""
    rows, columns = np.mgrid[:side, :side]
    return np.stack([rows, columns, 0 * rows], axis=2).astype(np.uint8)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_gives_bytes_of_the_nets_size(preset: str) -> None:
    image = picture(30)
    for cache, cached in ((SIZE, picture()), (30, image)):
        for seed in range(10):
            draw = augment(cache, preset=preset)(cached, seed)
            assert draw.shape == (SIZE, SIZE, 3)
            assert draw.dtype == np.uint8


def test_presets_change_the_image_each_more_than_the_one_before() -> None:
    image = picture()
    change = {}
    for preset in PRESETS:
        draws = np.stack([augment(preset=preset, hflip=0)(image, seed) for seed in range(60)]).astype(float)
        change[preset] = np.abs(draws - image).mean()
    assert change["none"] == 0
    assert 0 < change["light"] < change["medium"] < change["heavy"]


def test_flips_and_turns_come_as_often_as_asked_for() -> None:
    image = picture()
    assert np.array_equal(augment(preset="none", hflip=1)(image, 0), image[:, ::-1])
    assert np.array_equal(augment(preset="none", hflip=0, vflip=1)(image, 0), image[::-1])
    turned = augment(preset="none", hflip=0, rot90=1)
    seen = {turned(image, seed).tobytes() for seed in range(40)}
    quarters = {np.ascontiguousarray(np.rot90(image, times)).tobytes() for times in (1, 2, 3)}
    assert quarters <= seen <= quarters | {image.tobytes()}


def test_a_free_composition_takes_the_place_of_the_preset() -> None:
    image = picture()
    inner = {"OneOf": {"transforms": [{"HorizontalFlip": {"p": 1}}, "Transpose"], "p": 1}}
    steps = [{"OneOf": {"transforms": [inner, {"VerticalFlip": {"p": 1}}], "p": 1}}]
    composed = augment(preset="heavy", hflip=1, transforms=steps)
    seen = {composed(image, seed).tobytes() for seed in range(40)}
    flips = (image[:, ::-1], image[::-1], image.transpose(1, 0, 2))
    assert seen == {np.ascontiguousarray(flip).tobytes() for flip in flips}


def test_a_free_composition_may_leave_another_size() -> None:
    draw = augment(transforms=[{"CenterCrop": {"height": 12, "width": 12, "p": 1}}])(picture(), 0)
    assert draw.shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize(
    ("steps", "named"),
    [
        (["HorizontalFlop"], "HorizontalFlop.*HorizontalFlip"),
        ([{"GaussianBlur": {"blur_limits": (3, 5)}}], "GaussianBlur.*blur_limits"),
        ([{"RandomBrightnessContrast": {"brightness_limit": "much"}}], "RandomBrightnessContrast.*brightness_limit"),
        ([{"HorizontalFlip": {"p": 1.5}}], "HorizontalFlip"),
        ([{"OneOf": {"transforms": [{"GaussNoise": {"var_limit": (10, 50)}}]}}], "GaussNoise.*var_limit"),
        ([{"OneOf": {"transforms": ["HorizontalFlip"], "chance": 1}}], "OneOf.*chance"),
        ([{"GaussianBlur": None, "HorizontalFlip": None}], "GaussianBlur.*not one transform"),
        ([{"OneOf": {"transforms": [{"GaussianBlur": 3}]}}], "GaussianBlur"),
        ([{"OneOf": {"transforms": [3]}}], "3"),
    ],
)
def test_what_albumentations_does_not_know_is_refused_by_name(steps: list[Any], named: str) -> None:
    with pytest.raises(FoldcraftError, match=named) as caught:
        augment(transforms=steps)
    assert "augment.transforms" in str(caught.value)


def test_albumentations_itself_only_warns() -> None:
    """Why unknown arguments are made errors: left alone, the library drops them and trains with its defaults."""
    with pytest.warns(UserWarning, match="blur_limits"):
        assert A.GaussianBlur(blur_limits=(3, 5)).blur_limit != (3, 5)


@pytest.mark.parametrize("step", ["Normalize", "ToFloat"])
def test_what_makes_floats_of_bytes_is_refused(step: str) -> None:
    with pytest.raises(FoldcraftError, match=step):
        augment(transforms=[{step: {"p": 1}}])(picture(), 0)


def test_the_same_seed_gives_the_same_pixels() -> None:
    image, used = picture(), augment(preset="heavy")
    wanted = [used(image, seed) for seed in range(8)]
    fresh, sent = augment(preset="heavy"), pickle.loads(pickle.dumps(used))
    for seed in reversed(range(8)):
        for other in (used, fresh, sent):
            assert np.array_equal(other(image, seed), wanted[seed])


def test_transforms_of_one_draw_are_independent() -> None:
    """Two equal transforms in a row, and two flips: left alone, the library gives all of them the same numbers."""
    grey = np.full((SIZE, SIZE, 3), 128, np.uint8)
    step = {"RandomBrightnessContrast": {"brightness_limit": 0.2, "contrast_limit": 0, "p": 1}}
    once, twice = augment(transforms=[step]), augment(transforms=[step, step])
    first = np.array([int(once(grey, seed)[0, 0, 0]) - 128 for seed in range(80)])
    second = np.array([int(twice(grey, seed)[0, 0, 0]) - 128 for seed in range(80)]) - first
    assert first.std() > 20
    assert second.std() > 20
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.4

    flips, image = augment(preset="none", hflip=0.5, vflip=0.5), picture()
    assert len({flips(image, seed).tobytes() for seed in range(40)}) == 4


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    """The same image in every row, so that only the draws differ."""
    path = tmp_path / "pixels.npy"
    np.save(path, np.stack([picture()] * ROWS))
    return ImageStore(np.load(path, mmap_mode="r"), path)


def draw_epochs(store: ImageStore, workers: int, epochs: Sequence[int] = (0, 1, 2), seed: int = 0) -> list[list[Batch]]:
    """What the loader of a training gives in these epochs."""
    images = TrainImages(store, np.arange(ROWS) % 5, augment(transforms=ALWAYS))
    batches = EpochBatches(np.arange(ROWS), 8, seed)
    loader = train_loader(images, batches, workers, pin=False)
    drawn = []
    for epoch in epochs:
        batches.epoch = epoch
        drawn.append(list(loader))
    return drawn


def same(a: Sequence[Batch], b: Sequence[Batch]) -> bool:
    """Are these the very same batches?"""
    pairs = [pair for one, other in zip(a, b, strict=True) for pair in zip(one, other, strict=True)]
    return all(np.array_equal(x.numpy(), y.numpy()) for x, y in pairs)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores, on purpose
@pytest.mark.parametrize("workers", [1, 4])
def test_draws_do_not_depend_on_the_number_of_workers(store: ImageStore, workers: int) -> None:
    alone, spread = draw_epochs(store, 0), draw_epochs(store, workers)
    assert all(same(a, b) for a, b in zip(alone, spread, strict=True))
    images = [image.numpy().tobytes() for epoch in spread for batch in epoch for image in batch.images]
    assert len(images) == len(set(images)) == 3 * ROWS  # the library alone: as many as one worker draws in one epoch


def test_an_epoch_is_its_seed_and_number(store: ImageStore) -> None:
    first, second, third = draw_epochs(store, 0)
    assert sorted(row for batch in first for row in batch.rows.tolist()) == list(range(ROWS))
    assert [batch.rows.tolist() for batch in first] != [batch.rows.tolist() for batch in second]
    assert all(batch.targets.tolist() == [row % 5 for row in batch.rows.tolist()] for batch in first)
    assert same(draw_epochs(store, 0, epochs=[2])[0], third)
    other = draw_epochs(store, 0, epochs=[0], seed=1)[0]
    images = [image.numpy().tobytes() for batch in [*first, *other] for image in batch.images]
    assert len(set(images)) == 2 * ROWS


@pytest.mark.parametrize("cache", [32, 31])
def test_crop_cuts_at_random_in_training_and_the_middle_in_inference(cache: int) -> None:
    image, margin = map_of(cache), cache - SIZE
    training = augment(cache, "crop", transforms=[{"HorizontalFlip": {"p": 0}}])
    corners = set()
    for seed in range(150):
        draw = training(image, seed)
        top, left = map(int, draw[0, 0, :2])
        assert np.array_equal(draw, image[top : top + SIZE, left : left + SIZE])
        corners.add((top, left))
    assert {top for top, _ in corners} == {left for _, left in corners} == set(range(margin + 1))

    start = margin // 2
    middle = image[start : start + SIZE, start : start + SIZE]
    assert np.array_equal(resize_for_inference(image, ImagesConfig(size=SIZE, resize="crop")), middle)
    assert np.array_equal(augment(cache, "crop", preset="none", hflip=0)(image, 0), middle)


@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_other_policies_resize_the_whole(resize: str) -> None:
    image = np.random.default_rng(1).integers(0, 256, (2 * SIZE, 2 * SIZE, 3), dtype=np.uint8)
    areas = image.reshape(SIZE, 2, SIZE, 2, 3).mean((1, 3))
    seen = resize_for_inference(image, ImagesConfig(size=SIZE, resize=resize))
    assert seen.shape == (SIZE, SIZE, 3)
    assert np.abs(seen - areas).max() <= 1
    assert np.array_equal(augment(2 * SIZE, resize, preset="none", hflip=0)(image, 0), seen)
