"""Training rows as they are kept beside trained folds, for machines to which the host brings none of them."""

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from foldcraft.common.config import CompetitionConfig
from foldcraft.data.host_files import templates
from foldcraft.data.images import image_files
from foldcraft.data.images.sources import GoneSource, Source, TableRow, name_in
from foldcraft.data.targets import reading

# Settings that name no column which trained folds are asked about: of files, and of how columns come about.
NOT_OF_COLUMNS = frozenset(
    (
        *("name", "folder", "bundled", "train", "test", "sample", "join", "files", "test_files", "derive", "pivot"),
        *("image", "test_image", "metric", "constraints", "test_prior", "order", "follow_links"),
    )
)


@dataclass(frozen=True)
class TrainingRows:
    """What settings ask of the training rows.

    Attributes:
        frame: the columns that are named in settings, as text, derived ones among them.
        files: what each row's image is called within the competition's folder; rows of one name have one image.
        is_made: is it more, or less, than one file?
        left_out: names of the host's other columns.
        as_floats: were pixels in cells floats?
    """

    frame: pd.DataFrame
    files: tuple[str, ...]
    is_made: tuple[bool, ...]
    left_out: tuple[str, ...] = ()
    as_floats: bool = False

    @classmethod
    def of(
        cls,
        names: CompetitionConfig,
        train: pd.DataFrame,
        images: tuple[Source, ...],
        folder: Path,
        fold_column: str | None,
    ) -> "TrainingRows":
        """Of a table of training rows, what the settings name."""
        known = list(map(str, train.columns))
        texts = list(_texts(names.model_dump(exclude=set(NOT_OF_COLUMNS))))
        wanted = {names.train_id, fold_column, *reading.needed_columns(names, known, Path(names.train))}
        for text in texts:
            wanted |= {text, *templates.fields(text)}
        patterns = [text for text in texts if set("*?[") & set(text)]
        kept = [name for name in known if name in wanted or any(fnmatch.fnmatchcase(name, one) for one in patterns)]
        left_out = tuple(name for name in known if name not in kept)
        as_floats = any(isinstance(image, TableRow) and image.pixels.dtype.kind == "f" for image in images)
        is_made = tuple(not isinstance(image, Path) for image in images)
        return cls(train[kept], tuple(_named(images, folder)), is_made, left_out, as_floats)

    def sources(self, folder: Path) -> tuple[Source, ...]:
        """What the images would be made of, if they are there.

        Raises:
            FoldcraftError: a file lies elsewhere than in the folder.
        """
        image_files.check_inside(self.files, "competition.image")
        paths = [folder / name for name in self.files]
        return tuple(GoneSource(path) if made else path for path, made in zip(paths, self.is_made, strict=True))

    @property
    def columns(self) -> set[str]:
        """Names of all columns that the training rows had."""
        return {*map(str, self.frame.columns), *self.left_out}


def _named(images: tuple[Source, ...], folder: Path) -> Iterator[str]:
    """A name for each, alike for those alone that are the same."""
    names: dict[Source, str] = {}
    used: set[str] = set()
    for image in images:
        if image not in names:
            name = name_in(image, folder)
            while name in used:
                name += "'"
            used.add(name)
            names[image] = name
        yield names[image]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
