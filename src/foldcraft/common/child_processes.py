"""Processes that end with the one that started them, however that one ends: told to, killed, or by itself.

A process that is killed cannot tell its children. But a pipe of which it holds the other end is closed by the system.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading

MARK = "FOLDCRAFT_LIFELINE"  # in the environment of a process whose standard input is such a pipe
PR_SET_PDEATHSIG = 1  # from Linux's prctl.h
KILLED = 128 + signal.SIGTERM


def watch() -> None:
    """End this process, and the workers that it has started, when its starter is gone; for a process with the mark."""
    if os.environ.pop(MARK, None):
        threading.Thread(target=_end_with_starter, daemon=True).start()


def _end_with_starter() -> None:
    while os.read(0, 1):  # nothing is ever written to it
        pass
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(KILLED)


def end_with_parent() -> None:
    """Let the kernel kill this worker process when its parent is gone; Linux only, elsewhere torch sees it in seconds.

    A worker that is left inherits its parent's locks, and holds them.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
