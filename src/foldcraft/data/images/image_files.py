"""The image file of every row, found by a template, inside the competition's folder."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from foldcraft.common.errors import FoldcraftError, listing, shorten
from foldcraft.data.host_files import templates
from foldcraft.data.images import image_paths


def find(
    folder: Path, parts: dict[str, tuple[str, pd.DataFrame, templates.Aliases]], follow_links: bool
) -> tuple[list[tuple[Path, ...]], tuple[str, ...], tuple[str, ...]]:
    """The image of every row of each part (template, rows and what {@id} means, by the template's key), the names of
    missing ones, notes.

    An extension that a template leaves out is looked up in the folder.
    """
    wanted = {key: templates.fill(template, rows, key, aliases) for key, (template, rows, aliases) in parts.items()}
    for key, names in wanted.items():
        check_inside([*names, *map(image_paths.with_slashes, names)], key)
    files = image_paths.Folder(folder)
    found, missing, notes = [], [], []
    for key, names in wanted.items():
        look = files.find(names)
        missing += [name for name, path in zip(names, look.paths, strict=True) if path is None]
        notes += [image_paths.describe(look.respelled, folder, key)] if look.respelled else []
        found.append(tuple(path or folder / name for name, path in zip(names, look.paths, strict=True)))
        if not follow_links:
            check_links(folder, found[-1], key)
    return found, tuple(missing), tuple(notes)


def check_inside(names: Sequence[str], key: str) -> None:
    """See that files named in a config or a table lie in the competition's folder."""
    if outside := [
        name for name in dict.fromkeys(names) if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
    ]:
        shown = listing([shorten(name, 60) for name in outside], 3)
        raise FoldcraftError(f"paths leave the input folder: {shown}", key, "put the files into it")


def check_links(folder: Path, paths: Sequence[Path], key: str) -> None:
    """See that no symbolic link in the competition's folder leads out of it; the folder itself may be one."""
    home = Path(os.path.realpath(folder))
    folders = {
        parent: Path(os.path.realpath(parent)) for parent in {path.parent for path in paths}
    }  # many files, few folders
    real = (
        (path, Path(os.path.realpath(path)) if os.path.islink(path) else folders[path.parent] / path.name)
        for path in paths
    )
    if outside := [path for path, place in real if not place.is_relative_to(home)]:
        raise FoldcraftError(
            f"{len(outside)} files lie elsewhere, behind a symbolic link: {listing(outside, 3)}",
            key,
            "copy them here, or set competition.follow_links=true if the link is yours",
        )
