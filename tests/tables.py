"""Competitions that are tables alone."""

import numpy as np
import pandas as pd

from foldcraft.data.competition import Competition
from foldcraft.data.targets.classes import Classes
from foldcraft.data.targets.single import SingleLabel
from foldcraft.metrics import scores
from foldcraft.metrics.spaces import ClassSpace


def class_space(count: int) -> ClassSpace:
    """Predictions of one label with so many classes."""
    return ClassSpace(tuple(f"class{k}" for k in range(count)))


def competition(labels: list[str], groups: list[str] | None = None, ids: list[str] | None = None) -> Competition:
    """A competition of these rows, without images."""
    classes = Classes.of(labels)
    ids = ids or [f"{row:03d}" for row in range(len(labels))]
    return Competition(
        name="little",
        metric=scores.get("accuracy"),
        target=SingleLabel.of("label", classes, classes.encode(labels)),
        train_ids=np.array(ids),
        groups=np.array(groups) if groups else None,
        train_paths=(),
        test_ids=np.array([], dtype=str),
        test_paths=(),
        sample=pd.DataFrame(),
        id_column="id",
    )
