"""scikit-learn's handwritten digits, written out as a competition: real data that every installation has."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

TEST_SHARE = 0.25


def write(name: str, folder: Path) -> None:
    """Write the bundled data set `name` ("digits") to `folder`, all of it or nothing.

    The answers of the test rows go to `answers.csv`, which no reader of competitions looks at.
    """
    assert name == "digits"
    temporary = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    digits = load_digits()
    rows = np.arange(len(digits.target))
    train, test = train_test_split(rows, test_size=TEST_SHARE, stratify=digits.target, random_state=0)
    frame = pd.DataFrame({"id": [f"{row:04d}" for row in rows], "label": digits.target.astype(str)})
    for part, members in (("train", np.sort(train)), ("test", np.sort(test))):
        (temporary / part).mkdir(parents=True)
        for row in members:
            grey = np.round(digits.images[row] * (255 / 16)).astype(np.uint8)
            Image.fromarray(grey).save(temporary / part / f"{row:04d}.png")
    frame.loc[np.sort(train)].to_csv(temporary / "train.csv", index=False)
    frame.loc[np.sort(test), ["id"]].to_csv(temporary / "test.csv", index=False)
    frame.loc[np.sort(test)].to_csv(temporary / "answers.csv", index=False)
    frame.loc[np.sort(test)].assign(label="0").to_csv(temporary / "sample_submission.csv", index=False)
    try:
        temporary.rename(folder)
    except OSError:  # another process was faster; its folder is as good
        shutil.rmtree(temporary, ignore_errors=True)
