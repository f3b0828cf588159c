"""Training rows as they are kept beside trained folds, for machines to which the host brings none of them."""

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from foldcraft.common.config import CompetitionConfig
from foldcraft.data import templates
from foldcraft.data.targets import reading

# Settings that name no column which trained folds are asked about: of files, and of how columns come about.
NOT_OF_COLUMNS = frozenset(
    (
        *("name", "folder", "bundled", "train", "test", "sample", "join", "files", "test_files", "derive", "pivot"),
        *("image", "test_image", "metric", "constraints", "order", "follow_links"),
    )
)


@dataclass(frozen=True)
class TrainingRows:
    """What settings ask of the training rows.

    Attributes:
        frame: the columns that are named in settings, as text, derived ones among them.
        files: of each row's image, within the competition's folder.
        left_out: names of the host's other columns.
    """

    frame: pd.DataFrame
    files: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, names: CompetitionConfig, train: pd.DataFrame, files: tuple[str, ...], fold_column: str | None
    ) -> "TrainingRows":
        """Of a table of training rows, what the settings name."""
        known = list(map(str, train.columns))
        texts = list(_texts(names.model_dump(exclude=set(NOT_OF_COLUMNS))))
        wanted = {names.train_id, fold_column, *reading.needed_columns(names, known, Path(names.train))}
        for text in texts:
            wanted |= {text, *templates.fields(text)}
        patterns = [text for text in texts if set("*?[") & set(text)]
        kept = [name for name in known if name in wanted or any(fnmatch.fnmatchcase(name, one) for one in patterns)]
        return cls(train[kept], files, tuple(name for name in known if name not in kept))

    @property
    def columns(self) -> set[str]:
        """Names of all columns that the training rows had."""
        return {*map(str, self.frame.columns), *self.left_out}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
