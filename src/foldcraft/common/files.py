"""Files appear whole or not at all."""

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foldcraft.common import shared_folder
from foldcraft.common.errors import FoldcraftError

if TYPE_CHECKING:
    from filelock import BaseFileLock

LONGEST_NAME = 200  # characters of a file's name
LEASE, HEARTBEAT = 60.0, 10.0  # seconds after which a lock that no holder renews is free, and between two renewals
LOCK_LOST = 75  # exit code of a process whose lock another machine has taken, which took it for dead


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write to a temporary file beside `path`, flush it to disk, rename it.

    Raises:
        FoldcraftError: the disk is full, or the folder cannot be written to. What stood at `path` before still does.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise cannot_write(path, error) from error


def temporary_beside(path: Path) -> Path:
    """A name for what becomes `path` when it is whole; no other process has it, on no machine."""
    return path.with_name(f"{path.name}.tmp-{platform.node()[:32]}-{os.getpid()}")


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: it is not there.
        FoldcraftError: it is there and cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise cannot_read(path, error) from error


def check_readable(path: Path) -> None:
    """For libraries that open a file themselves, and whose errors do not tell a locked file from a damaged one.

    Raises:
        FileNotFoundError: it is not there.
        FoldcraftError: it is there and cannot be read.
    """
    try:
        with open(path, "rb"):
            pass
    except FileNotFoundError:
        raise
    except OSError as error:
        raise cannot_read(path, error) from error


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is none, or nested without end.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def cannot_read(path: object, error: OSError) -> FoldcraftError:
    """The one line for a file that cannot be read; it may be whole, so nobody is told to delete it."""
    return FoldcraftError(f"cannot be read: {error.strerror or error}", path, _remedy(error, "mend its permissions"))


def cannot_write(path: object, error: OSError, what: str = "cannot be written") -> FoldcraftError:
    """The one line for a write that failed."""
    if isinstance(error, NotADirectoryError | FileExistsError) and (file := _file_above(path)):
        return FoldcraftError(f"is a file, and {path} cannot lie in it", file, "name another folder, or move it away")
    remedy = _remedy(error, "free some space or mend its permissions")
    return FoldcraftError(f"{what}: {error.strerror or error}", path, remedy)


def _file_above(path: object) -> Path | None:
    """The file that a path takes for a folder."""
    return next((above for above in Path(str(path)).parents if above.is_file()), None)


def _remedy(error: OSError, usual: str) -> str:
    in_the_way = isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError)
    return f"{'move it away' if in_the_way else usual}, then run again"


def is_writable(folder: Path) -> bool:
    """Whether files may be written into a folder, or it may be made where it is not there."""
    there = next((place for place in (folder, *folder.absolute().parents) if place.exists()), Path())
    return os.access(there, os.W_OK)


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Delete temporary files and folders of `name` that a killed process left. Call it only while holding the lock."""
    for leftover in folder.glob(f"{name}.tmp-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, wait: bool = True, busy: str = "in use by another process") -> Iterator[None]:
    """Hold the lock file `path`; it is free again when the holder dies, however it dies.

    On this machine the system frees it at once. In a folder that machines share it is a lease that its holder renews:
    free `LEASE` seconds after the holder's machine died, for which one that does not wait has patience.

    Raises:
        FoldcraftError: somebody else holds it and `wait` is False.
    """
    from filelock import SoftFileLease, Timeout  # a packed blend, which locks nothing, does without

    lock = _lock(path, wait)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise FoldcraftError(busy, path.parent, "wait for it to finish, or stop it") from None
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    try:
        yield
    finally:
        lock.release()
        if isinstance(lock, SoftFileLease) and lock.compromise:
            _end(path)


def _lock(path: Path, wait: bool) -> "BaseFileLock":
    """Not the system's own lock where machines share a folder: NFS 3 keeps those of a machine that is gone for ever,
    and other file systems know none between machines.
    """
    from filelock import FileLock, SoftFileLease

    if not shared_folder.holds(path):
        return FileLock(path, timeout=-1 if wait else 0)
    return SoftFileLease(
        path.with_name(f"{path.name}-lease"),  # there while it is held, as the system's lock files are always
        timeout=-1 if wait else LEASE + HEARTBEAT,
        lease_duration=LEASE,
        heartbeat_interval=HEARTBEAT,
        poll_interval=0.2,
        on_compromise=lambda lost: _end(path),
    )


def _end(path: Path) -> None:
    """End this process before it writes beside the one that has its lock now."""
    print(f"error: {path}: this machine seemed dead, and another has taken the lock; begin again", file=sys.stderr)
    sys.stderr.flush()
    os._exit(LOCK_LOST)


def check_file_name(name: str) -> None:
    """See that a submission of that name lies in its folder.

    Raises:
        FoldcraftError: it would not.
    """
    if not name or name.startswith(".") or set("/\\") & set(name) or not name.isprintable() or len(name) > LONGEST_NAME:
        raise FoldcraftError(f"{name!r} is no name of a file", "--name", "use letters, digits, hyphens and underscores")
