"""Copies of shared cache files on a machine's own disk, which is read faster than what comes over the network."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from foldcraft.common.checked_array import DamagedRows, RowFile
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import locked, remove_leftovers, temporary_beside


def nearest(file: Path, cache: Path | None, say: Callable[[str], object] = lambda text: None) -> Path:
    """The copy of a row file in the machine's own cache, made where there is none; where it cannot be, the file itself.

    A copy is one by content: it has the checksum of every row of the shared file, and a new one is read back and
    checked before it is used.

    Args:
        cache: folder on the machine's own disk; not made where it is not there: not every machine has one.
        say: told why there is no copy.
    """
    if cache is None or not cache.is_dir() or not file.is_file():
        return file
    copy = cache / file.name
    try:
        sums = RowFile(file).sums
        if not _is_copy(copy, sums):
            with locked(copy.with_name(f".{copy.name}.lock")):
                if not _is_copy(copy, sums):
                    _fill(file, copy)
    except (OSError, DamagedRows, FoldcraftError) as error:
        say(f"warning: no copy in machine.cache={cache} ({error}); the shared file is read")
        return file
    return copy


def _is_copy(copy: Path, sums: np.ndarray) -> bool:
    try:
        return np.array_equal(RowFile(copy).sums, sums)
    except (OSError, DamagedRows):
        return False


def _fill(file: Path, copy: Path) -> None:
    """Copy a file, whole or not at all.

    Raises:
        OSError: the disk is full.
        DamagedRows: what was read is not what was written.
    """
    remove_leftovers(copy.parent, copy.name)
    temporary = temporary_beside(copy)
    try:
        shutil.copyfile(file, temporary)
        RowFile(temporary).check_all()
        os.replace(temporary, copy)
    finally:
        with suppress(OSError):
            temporary.unlink()
