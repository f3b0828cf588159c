"""The folder that several machines share, where they work together; named by FOLDCRAFT_SHARED.

It is a matter of the machines, not of an experiment, and locks keep others out only where all go by it: so it is a
variable of the environment, which every command reads, also one without a config.
"""

import os
import time
import uuid
from contextlib import suppress
from pathlib import Path

from foldcraft.common.errors import FoldcraftError

VARIABLE = "FOLDCRAFT_SHARED"
MARK = ".foldcraft-shared"  # lies in it: a machine that reads another one, or none, sees another folder
PATIENCE = 60.0  # seconds after which NFS shows at the latest what another machine has written (its acdirmax)


def folder() -> Path | None:
    """The folder, if machines share one."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def holds(path: Path) -> bool:
    """Whether a path lies where other machines see it too."""
    shared = folder()
    return shared is not None and path.absolute().is_relative_to(shared.absolute())


def settle() -> Path:
    """The shared folder, for this process and those that it starts; where none is named, the current folder.

    Raises:
        FoldcraftError: it is no folder; the current folder does not lie in it.
    """
    here = Path.cwd()
    shared = folder() or here
    if not shared.is_dir():
        raise FoldcraftError("no such folder", f"{VARIABLE}={shared}", "name the folder that the machines share")
    if not here.is_relative_to(shared.absolute()) and not here.is_relative_to(shared.resolve()):
        raise FoldcraftError(f"the current folder, {here}, does not lie in it", f"{VARIABLE}={shared}", "go there")
    os.environ[VARIABLE] = str(shared.absolute())
    return shared.absolute()


def mark_of(shared: Path) -> str:
    """What the folder is known by on every machine; written there by the first that asks.

    Raises:
        OSError: it can be neither read nor written.
    """
    file = shared / MARK
    with suppress(FileExistsError), open(file, "x") as stream:
        stream.write(uuid.uuid4().hex)
    return file.read_text()


def appears(file: Path, seconds: float = PATIENCE) -> bool:
    """Whether a file is there that another machine has written; where machines share it, it may take a while.

    A network file system remembers for some time that a file was not there; listing its folder makes it look again.
    """
    end = time.monotonic() + (seconds if holds(file) else 0.0)
    while not file.is_file():
        if time.monotonic() >= end:
            return False
        with suppress(OSError):
            os.listdir(file.parent)
        time.sleep(0.1)
    return True
