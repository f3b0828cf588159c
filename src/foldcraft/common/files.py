"""Files appear whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from foldcraft.common.errors import FoldcraftError

LONGEST_NAME = 200  # characters of a file's name


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write to a temporary file beside `path`, flush it to disk, rename it.

    Raises:
        FoldcraftError: the disk is full, or the folder cannot be written to. What stood at `path` before still does.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
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
    remedy = _remedy(error, "free some space or mend its permissions")
    return FoldcraftError(f"{what}: {error.strerror or error}", path, remedy)


def _remedy(error: OSError, usual: str) -> str:
    in_the_way = isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError)
    return f"{'move it away' if in_the_way else usual}, then run again"


def is_writable(folder: Path) -> bool:
    """Whether files may be written into a folder, or it may be made where it is not there."""
    there = next((place for place in (folder, *folder.absolute().parents) if place.exists()), Path())
    return os.access(there, os.W_OK)


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Delete temporary files of `name` that a killed process left in `folder`. Call it only while holding the lock."""
    for leftover in folder.glob(f"{name}.tmp-*"):
        leftover.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, wait: bool = True, busy: str = "in use by another process") -> Iterator[None]:
    """Hold the lock file `path`; the system frees it when the holder dies, however it dies.

    Raises:
        FoldcraftError: somebody else holds it and `wait` is False.
    """
    from filelock import FileLock, Timeout  # a packed blend, which locks nothing, does without

    lock = FileLock(path, timeout=-1 if wait else 0)
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


def check_file_name(name: str) -> None:
    """See that a submission of that name lies in its folder.

    Raises:
        FoldcraftError: it would not.
    """
    if not name or name.startswith(".") or set("/\\") & set(name) or not name.isprintable() or len(name) > LONGEST_NAME:
        raise FoldcraftError(f"{name!r} is no name of a file", "--name", "use letters, digits, hyphens and underscores")
