"""Files appear whole or not at all."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from foldcraft.errors import FoldcraftError


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


def write_through(path: Path, save: Callable[[io.BytesIO], object]) -> None:
    """`write_atomic` for libraries that write to a stream: `save` gets one in memory."""
    stream = io.BytesIO()
    save(stream)
    write_atomic(path, stream.getvalue())


def cannot_write(path: object, error: OSError) -> FoldcraftError:
    """The one line for a write that failed."""
    return FoldcraftError(
        f"cannot be written: {error.strerror or error}", path, "free some space or mend its permissions, then run again"
    )


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path, timeout=-1 if wait else 0):
            yield
    except Timeout:
        raise FoldcraftError(busy, path.parent, "wait for it to finish, or stop it") from None
