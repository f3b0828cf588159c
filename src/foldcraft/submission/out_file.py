"""A submission in a file that the user names, as a host's machine wants it, rather than a new one among all others."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from foldcraft.common import checksums
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import is_writable, locked, write_atomic
from foldcraft.submission import contents, ledger


def check(path: Path, folder: Path = ledger.SUBMISSIONS, suffix: str = contents.CSV) -> None:
    """See that a submission may be written to `path`, which is none of the folder of submissions.

    Args:
        suffix: that its name must have; of several files that of a zip.

    Raises:
        FoldcraftError: it may not.
    """
    if path.is_dir():
        raise FoldcraftError("is a folder", path, f"name the file: --out submission{suffix}")
    if path.suffix.lower() != suffix or not path.name.isprintable():
        kind = "a CSV" if suffix == contents.CSV else "a zip, which several files are written into"
        raise FoldcraftError(f"is no name of {kind}", path, f"write --out submission{suffix}")
    if path.parent.resolve() == folder.resolve():
        raise FoldcraftError("lies among the submissions, none of which is overwritten", path, "use --name, not --out")
    if not is_writable(path.parent):
        raise FoldcraftError("may not be written to", path.parent, "name a file elsewhere: --out FILE")


def write(frames: Mapping[str, pd.DataFrame], path: Path, folder: Path, entry: Mapping[str, object]) -> bool:
    """Write the submission to `path` in place of whatever is there, and its row in the ledger of the folder.

    The ledger is left alone where it may only be read.

    Args:
        entry: the ledger's columns beside file, time, public and private.

    Returns:
        whether the ledger has it.
    """
    text, _ = contents.of(frames)
    write_atomic(path, text)
    if not is_writable(folder):
        return False
    with locked(ledger.lock_in(folder)):
        entered = {"file": path.name, "content": checksums.checksum(text), **entry}
        ledger.enter(ledger.path_in(folder), entered, True)
    return True
