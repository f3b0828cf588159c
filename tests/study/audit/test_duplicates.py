"""Copies of images: found however they were made, told from images that are merely alike, and kept in one fold."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import Outcome, draw_shape
from sklearn.datasets import load_digits
from tables import competition

from foldcraft.common.config import FoldsConfig
from foldcraft.data import folds, splitting
from foldcraft.study.audit import duplicates, image_hash
from foldcraft.study.audit.duplicates import Null
from foldcraft.study.audit.image_hash import GreyImages, ImageHashes, Stack

SIDE = 64
CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exact": lambda image: image,
    "smaller": lambda image: enlarged(cv2.resize(image, (40, 40), interpolation=cv2.INTER_AREA)),
    "re-compressed": lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1),
    "mirrored": lambda image: image[:, ::-1],
    "turned": lambda image: np.rot90(image),
    "brighter": lambda image: np.clip(image * 1.4 + 10, 0, 255).astype(np.uint8),
    "darker and turned": lambda image: np.rot90((image * 0.6).astype(np.uint8), 3),
    "cropped": lambda image: enlarged(image[3:59, 5:61]),
}
KIND = {
    "exact": "exact",
    "mirrored": "flipped",
    "turned": "flipped",
    "darker and turned": "flipped",
    "cropped": "cropped",
}


def enlarged(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def scene(seed: int, coarse: int = 9) -> np.ndarray:
    """Clouds with a few things in them, (SIDE, SIDE, 3)."""
    rng = np.random.default_rng(seed)
    clouds = sum(
        cv2.resize(rng.normal(size=(n, n)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        for n in (3, coarse, 3 * coarse)
    )
    image = np.repeat((110 + 30 * clouds)[..., None], 3, axis=2) + rng.normal(0, 10, 3)
    for _ in range(4):
        centre = tuple(int(place) for place in rng.integers(8, SIDE - 8, 2))
        cv2.circle(image, centre, int(rng.integers(2, 9)), rng.uniform(0, 255, 3).tolist(), -1)
    return image.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def planted() -> tuple[pd.DataFrame, dict[str, tuple[str, str]]]:
    """What is found among 240 scenes and a copy of each kind; for each kind, its pair."""
    scenes = np.stack([scene(seed) for seed in range(240)])
    copies = np.stack([change(scenes[10 * number]) for number, change in enumerate(CHANGES.values())])
    train, test = np.concatenate([scenes[:160], copies[:4]]), np.concatenate([scenes[160:], copies[4:]])
    train_ids = [f"a{row}" for row in range(160)] + [f"copy{number}" for number in range(4)]
    test_ids = [f"b{row}" for row in range(80)] + [f"copy{number}" for number in range(4, len(copies))]
    labels = [row % 3 for row in range(160)] + [10 * number % 3 for number in range(4)]
    found = duplicates.find(train, test, train_ids, test_ids, labels=labels)
    return found, {kind: (f"a{10 * number}", f"copy{number}") for number, kind in enumerate(CHANGES)}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_copy_is_found_and_named(planted: tuple[pd.DataFrame, dict], kind: str):
    found, pairs = planted
    a, b = pairs[kind]
    row = found[(found["id_a"] == a) & (found["id_b"] == b)]
    assert row["kind"].tolist() == [KIND.get(kind, "hash")]
    assert row["where"].item() == ("train-train" if int(b[4:]) < 4 else "train-test")
    assert 0.9 < row["score"].item() <= 1


def test_nothing_else_is_found(planted: tuple[pd.DataFrame, dict]):
    found, pairs = planted
    assert set(zip(found["id_a"], found["id_b"], strict=True)) == set(pairs.values())
    assert list(found.columns) == duplicates.COLUMNS
    assert any("no frozen features" in note for note in found.attrs["notes"])


@pytest.mark.integration
def test_digits_written_by_many_hands_are_no_copies():
    digits = load_digits()
    grey = np.round(digits.images[:300] * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(grey[..., None], 3, axis=3)
    copy = np.rot90(pixels[7])[None]
    ids = [str(row) for row in range(300)]
    found = duplicates.find(pixels, copy, ids, ["copy"], labels=digits.target[:300])
    assert found[["id_a", "id_b", "where", "kind"]].to_numpy().tolist() == [["7", "copy", "train-test", "flipped"]]


@pytest.mark.integration
def test_features_find_a_crop_that_pixels_do_not():
    scenes = np.stack([scene(seed) for seed in range(100)])
    far = enlarged(scenes[3][9:, 9:])
    ids = [str(row) for row in range(100)]
    features = np.random.default_rng(0).normal(size=(100, 40)).astype(np.float16)
    copy = features[3:4] + np.float16(0.05)
    labels = np.arange(100) % 3
    blind = duplicates.find(scenes, far[None], ids, ["copy"], labels=labels)
    seeing = duplicates.find(scenes, far[None], ids, ["copy"], (features, copy), labels)
    assert blind.empty
    assert seeing[["id_a", "id_b", "kind"]].to_numpy().tolist() == [["3", "copy", "cropped"]]


@pytest.mark.parametrize("way", range(8))
def test_all_eight_ways_round_are_told_apart(way: int):
    images = np.stack([scene(seed) for seed in range(12)])
    turned = np.stack([image_hash.turn(image, way) for image in images])
    pictures = GreyImages(Stack([images, turned]), np.arange(24))
    deviation = image_hash.spread(pictures)
    made = ImageHashes.of(pictures, deviation)
    rows = np.arange(12)
    assert made.way_round(rows, rows + 12).tolist() == [way] * 12
    assert np.allclose(made.similar(rows)[rows, rows + 12], 1, atol=0.01)
    assert np.allclose(image_hash.agreement(pictures, deviation, rows, rows + 12, np.full(12, way)).score, 1, atol=1e-3)


def test_the_line_follows_the_data_and_is_not_moved_by_many_copies():
    rng = np.random.default_rng(0)
    others = rng.gumbel(3, 1, 1000)
    alike = Null(rng.gumbel(4, 1, 1000), others).threshold()
    assert 9 < alike < 16  # half of a thousand is exceeded at about 4 + log(2000)
    many = np.concatenate([rng.gumbel(4, 1, 500), rng.normal(60, 5, 500)])
    assert Null(many, others).threshold() < 30
    assert Null(2 * rng.gumbel(4, 1, 1000), 2 * others).threshold() > 1.5 * alike
    assert Null(np.ones(5), others).threshold() == np.inf


def test_equal_and_empty_images_do_not_multiply_pairs():
    black = np.zeros((30, SIDE, SIDE, 3), np.uint8)
    noise = np.stack([black[0] + np.uint8(row % 2) for row in range(2)])
    found = duplicates.find(np.concatenate([black, noise[1:]]), black[:0], [str(row) for row in range(31)], [])
    assert found["kind"].tolist() == ["exact"] * 29
    assert duplicates.clusters(found).nunique() == 1


PAIRS = pd.DataFrame(
    [
        ["1", "2", "train-train", "hash", 0.9],
        ["2", "5", "train-train", "exact", 1.0],
        ["3", "4", "train-train", "hash", 1.0],
        ["0", "9", "train-test", "exact", 1.0],
    ],
    columns=duplicates.COLUMNS,
)


def test_clusters_and_conflicts():
    found = duplicates.clusters(PAIRS)
    assert found.to_dict() == {"1": "1", "2": "1", "5": "1", "3": "3", "4": "3"}
    labels = pd.Series({"1": "x", "2": "x", "5": "y", "3": "z", "4": "z"})
    wrong = duplicates.conflicts(PAIRS, labels)
    assert wrong.to_numpy().tolist() == [["1", "1", "x"], ["1", "2", "x"], ["1", "5", "y"]]
    assert duplicates.clusters(PAIRS[:0]).empty
    assert duplicates.conflicts(PAIRS[:0], labels).empty


def test_clusters_take_their_groups_along():
    data = competition(["x", "y"] * 20, [f"g{row // 2}" for row in range(40)])
    copies = pd.Series({"001": "c", "010": "c", "011": "d", "030": "d"})
    made = splitting.make(data, FoldsConfig(count=4), copies)
    where = dict(zip(made.ids.tolist(), made.fold.tolist(), strict=True))
    assert len({where[name] for name in ("000", "001", "010", "011", "030", "031")}) == 1
    assert made.duplicates
    assert folds.straddling(made, copies) == 0
    apart = replace(made, fold=np.arange(40) % 4)
    assert folds.straddling(apart, copies) == 2


def write_pairs(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"{row:03d}.png" for row in range(48)]
    rows = [(names[k], names[k + 3], "train-train", "hash", 0.99) for k in range(0, 24, 6)]
    pd.DataFrame(rows, columns=duplicates.COLUMNS).to_csv(path, index=False)


def test_copies_never_straddle_folds(shapes: Path, command: Callable[..., Outcome]):
    write_pairs(Path("runs/shapes/audit/duplicates.csv"))
    done = command("split", "--config", shapes)
    assert done.code == 0
    assert "8 images in 4 clusters of copies stay together" in done.out
    text = Path("folds/shapes.csv").read_text()
    assert '"duplicates": "' in text.splitlines()[0]
    fold = dict(line.split(",") for line in text.splitlines()[2:])
    assert all(fold[f"{k:03d}.png"] == fold[f"{k + 3:03d}.png"] for k in range(0, 24, 6))
    assert "there and fits" in command("split", "--config", shapes).out
    assert Path("folds/shapes.csv").read_text() == text


def test_frozen_folds_are_never_made_again_for_copies(shapes: Path, command: Callable[..., Outcome]):
    assert command("split", "--config", shapes).code == 0
    text = Path("folds/shapes.csv").read_text()
    assert "duplicates" not in text
    write_pairs(Path("runs/shapes/audit/duplicates.csv"))
    done = command("split", "--config", shapes)
    assert "clusters of copies lie in several folds" in done.out
    assert Path("folds/shapes.csv").read_text() == text
    off = command("split", "--config", shapes, "folds.merge_duplicates=false")
    assert "copies" not in off.out


def test_what_cannot_be_merged_is_said(shapes: Path, command: Callable[..., Outcome]):
    forced = command("split", "--config", shapes, "folds.merge_duplicates=true")
    assert (forced.code, "audit.py" in forced.err) == (2, True)
    file = Path("runs/shapes/audit/duplicates.csv")
    write_pairs(file)
    plain = command("split", "--config", shapes, "folds.merge_duplicates=true", "folds.scheme=plain")
    assert (plain.code, "clusters stay together" in plain.out.replace("of copies ", "")) == (0, True)
    Path("folds/shapes.csv").unlink()
    file.write_text(file.read_text().replace("003.png", "gone.png"))
    other = command("split", "--config", shapes)
    assert (other.code, "gone.png" in other.err) == (2, True)
    file.write_text("id,label\n1,2\n")
    assert command("split", "--config", shapes).code == 2
    assert not Path("folds/shapes.csv").exists()


def test_shapes_that_are_merely_alike_are_no_copies():
    labels = [("bar", "cross", "dot")[row % 3] for row in range(90)]
    pixels = np.stack([np.asarray(draw_shape(label, row).convert("RGB")) for row, label in enumerate(labels)])
    ids = [str(row) for row in range(90)]
    assert duplicates.find(pixels, pixels[:0], ids, [], labels=labels).empty


@pytest.mark.parametrize("width", [20, 300])
def test_features_are_reduced_to_whitened_principal_components(width: int) -> None:
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(200, width)) @ rng.normal(size=(width, width)) + 3).astype(np.float16)
    found = image_hash.reduced(Stack([features[:150], features[150:]]), np.arange(200))
    plain = features.astype(np.float32)
    plain = (plain - plain.mean(0)) / (plain.std(0) + 1e-3)
    scores = np.linalg.svd(plain, full_matrices=False)[0][:, : min(width, 50)]
    scores /= np.linalg.norm(scores, axis=1, keepdims=True)
    np.testing.assert_allclose(found @ found.T, scores @ scores.T, atol=2e-3)
