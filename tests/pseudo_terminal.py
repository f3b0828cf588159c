"""A terminal of a chosen width that commands print on."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ESCAPE = re.compile(r"\x1b\[[0-9;?]*([A-Za-z])")


class Screen:
    """What a pseudo-terminal was sent."""

    def __init__(self) -> None:
        self.bytes = b""

    @property
    def text(self) -> str:
        return self.bytes.decode()

    @property
    def lines(self) -> list[str]:
        """Everything that stood on a line at some time, without colours and cursor movements."""
        return re.split(r"[\r\n]+", ESCAPE.sub("", self.text))


@contextmanager
def screen(width: int) -> Iterator[Screen]:
    """Let this process's stdout be a terminal of that width."""
    seen, (master, slave) = Screen(), pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, width, 0, 0))

    def read() -> None:
        try:
            while part := os.read(master, 65536):
                seen.bytes += part
        except OSError:
            return  # the other end is closed

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    before, kept = sys.stdout, [os.dup(0), os.dup(1)]
    os.dup2(slave, 0), os.dup2(slave, 1), os.close(slave)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    try:
        yield seen
    finally:
        sys.stdout.flush()
        sys.stdout = before
        for number, copy in enumerate(kept):
            os.dup2(copy, number)
            os.close(copy)
        reader.join(10)
        os.close(master)
