"""Data sets that every installation has, written out as competitions: handwritten digits, drawn faces with masks."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from foldcraft.common.files import temporary_beside
from foldcraft.data import synthetic_faces

TEST_SHARE = 0.25
PEOPLE, PEOPLE_IN_TEST = 150, 50
PICTURES = ("right",) * 5 + ("wrong", "none")  # of each person
WRONG_LABELS, COPIES = 0.02, 6


def write(name: str, folder: Path) -> None:
    """Write the bundled data set `name` (a key of `DATA_SETS`) to `folder`, all of it or nothing.

    The answers of the test rows go to `answers.csv`, which no reader of competitions looks at.
    """
    temporary = temporary_beside(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    for part in ("train", "test"):
        (temporary / part).mkdir(parents=True)
    train, test = DATA_SETS[name](temporary)
    train.to_csv(temporary / "train.csv", index=False)
    test.drop(columns="label").to_csv(temporary / "test.csv", index=False)
    test[["id", "label"]].to_csv(temporary / "answers.csv", index=False)
    test[["id"]].assign(label=train["label"].min()).to_csv(temporary / "sample_submission.csv", index=False)
    try:
        temporary.rename(folder)
    except OSError:  # another process was faster; its folder is as good
        shutil.rmtree(temporary, ignore_errors=True)


def _digits(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """scikit-learn's 1,797 digits, 8 x 8, grey; rows of train and test with their labels."""
    # Every command that reads tables imports this room; scikit-learn takes a second, and is needed here alone.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    rows = np.arange(len(digits.target))
    train, test = map(np.sort, train_test_split(rows, test_size=TEST_SHARE, stratify=digits.target, random_state=0))
    frame = pd.DataFrame({"id": [f"{row:04d}" for row in rows], "label": digits.target.astype(str)})
    for part, members in (("train", train), ("test", test)):
        for row in members:
            grey = np.round(digits.images[row] * (255 / 16)).astype(np.uint8)
            Image.fromarray(grey).save(folder / part / f"{row:04d}.png")
    return frame.loc[train], frame.loc[test]


def _masks(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Drawn faces, seven pictures of each person, of whom a third are in the test set; 2 % of labels are wrong."""
    rng = np.random.default_rng(2020)
    rows = []
    for number in range(PEOPLE):
        part = "test" if number < PEOPLE_IN_TEST else "train"
        who = synthetic_faces.person(rng)
        for place, mask in enumerate(rng.permutation(PICTURES)):
            row = {"id": f"{number:03d}_{place}", "person": f"{number:03d}", "label": mask, "part": part}
            synthetic_faces.draw(who, mask, rng).save(folder / part / f"{row['id']}.jpg", quality=90)
            rows.append(row)
    frame = pd.DataFrame(rows)
    train = frame[frame["part"] == "train"].drop(columns="part").reset_index(drop=True)
    test = frame[frame["part"] == "test"].drop(columns="part").reset_index(drop=True)
    train = pd.concat([train, _copies(train, folder / "train", rng)], ignore_index=True)
    mistaken = rng.choice(len(train), int(WRONG_LABELS * len(train)), replace=False)
    train.loc[mistaken, "label"] = [
        rng.choice([other for other in ("right", "wrong", "none") if other != label])
        for label in train.loc[mistaken, "label"]
    ]
    return train, test.drop(columns="person")


def _copies(train: pd.DataFrame, folder: Path, rng: np.random.Generator) -> pd.DataFrame:
    """Pictures that are in the train set a second time, saved again, as somebody who seems to be another person."""
    copied = train.iloc[rng.choice(len(train), COPIES, replace=False)].copy()
    names = [f"{PEOPLE + number:03d}" for number in range(COPIES)]
    for source, name in zip(copied["id"], names, strict=True):
        with Image.open(folder / f"{source}.jpg", formats=["JPEG"]) as picture:
            picture.save(folder / f"{name}_0.jpg", quality=75)
    return copied.assign(id=[f"{name}_0" for name in names], person=names)


DATA_SETS: dict[str, Callable[[Path], tuple[pd.DataFrame, pd.DataFrame]]] = {"digits": _digits, "masks": _masks}
