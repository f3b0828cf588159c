"""glibc's malloc keeps the memory that is freed, in place of giving it back to the system.

By default each large activation is mapped afresh, cleared page by page, and unmapped again: on a CPU up to half of the
time of a CNN. What is given another way is decided by measurement (`benchmarks/allocator.py`, docs/experiments.md).
"""

import ctypes
import os

from foldcraft.common.errors import FoldcraftError

SWITCH = "FOLDCRAFT_ALLOCATOR"
SYSTEM = "system"
# Parameters of mallopt, from glibc's malloc.h.
MMAP_MAX, TRIM_THRESHOLD, ARENA_MAX = -4, -1, -8
NEVER = -1
# Nothing comes from mmap, whose pages go back when they are freed, and no end of the heap is cut off. One heap for all
# threads, else each that has decoded large images would keep up to 64 MB to itself.
SETTINGS = {MMAP_MAX: 0, TRIM_THRESHOLD: NEVER, ARENA_MAX: 1}


def keep_freed_memory() -> bool:
    """Let this process, and those that are forked from it, use freed memory again; True where that was done.

    Call it before memory is taken. Nothing is done, and nothing said, where FOLDCRAFT_ALLOCATOR is "system", where the
    user has settings or an allocator of his own, and where the C library is not glibc.

    Raises:
        FoldcraftError: FOLDCRAFT_ALLOCATOR is something else.
    """
    wanted = os.environ.get(SWITCH, "")
    if wanted not in ("", SYSTEM):
        raise FoldcraftError(f"{wanted!r} is no allocator", SWITCH, f"use {SYSTEM}, or leave it out")
    libc = _glibc()
    if wanted == SYSTEM or libc is None or _is_chosen_by_user():
        return False
    return all(libc.mallopt(parameter, value) for parameter, value in SETTINGS.items())


def _is_chosen_by_user() -> bool:
    """Whether the environment names settings of malloc, or another malloc."""
    return (
        any(name.startswith("MALLOC_") for name in os.environ)
        or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
        or "malloc" in os.environ.get("LD_PRELOAD", "")
    )


def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it is glibc."""
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version, libc.mallopt  # noqa: B018 (looked up here)
    except (OSError, TypeError, AttributeError):  # another libc; TypeError: Windows has no library without a name
        return None
    return libc
