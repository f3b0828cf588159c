"""The drawn faces: what makes them a competition is really in them. (The digits are held by their frozen folds.)"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from foldcraft.data import bundled


@pytest.fixture
def few_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "PEOPLE", 12)
    monkeypatch.setattr(bundled, "PEOPLE_IN_TEST", 4)
    monkeypatch.setattr(bundled, "COPIES", 2)
    monkeypatch.setattr(bundled, "WRONG_LABELS", 0.1)


@pytest.mark.usefixtures("few_people")
def test_drawn_faces_have_groups_rare_classes_copies_and_wrong_labels(tmp_path: Path) -> None:
    bundled.write("masks", tmp_path / "masks")
    train = pd.read_csv(tmp_path / "masks" / "train.csv", dtype=str)
    test = pd.read_csv(tmp_path / "masks" / "test.csv", dtype=str)
    sample = pd.read_csv(tmp_path / "masks" / "sample_submission.csv", dtype=str)
    assert (len(train), len(test)) == (8 * 7 + 2, 4 * 7)
    assert sample["id"].tolist() == test["id"].tolist()
    assert set(train["id"].str[:3]).isdisjoint(test["id"].str[:3])
    assert train["label"].value_counts().idxmax() == "right"
    copies = train[train["person"].astype(int) >= 12]
    assert len(copies) == 2
    pictures = {row: np.asarray(Image.open(tmp_path / "masks" / "train" / f"{row}.jpg"), float) for row in train["id"]}
    for row in copies["id"]:
        apart = {other: np.abs(pictures[row] - pictures[other]).mean() for other in pictures if other != row}
        assert min(apart.values()) < 6  # grey levels
    assert (train.groupby("person")["label"].apply(lambda labels: (labels == "right").sum()) != 5).sum() > 0


@pytest.mark.integration
@pytest.mark.usefixtures("few_people")
def test_they_are_the_same_each_time(tmp_path: Path) -> None:
    def digest(folder: Path) -> str:
        bundled.write("masks", folder)
        return hashlib.sha256(b"".join(p.read_bytes() for p in sorted(folder.rglob("*.*")))).hexdigest()

    assert digest(tmp_path / "a") == digest(tmp_path / "b")
