"""What a command prints on: no character, no closed stream and no reader who left stops its work."""

import codecs
import os
import sys
from contextlib import suppress

ERRORS = "foldcraft.plain"
PLAIN = {"–": "-", "—": "-", "−": "-", "±": "+/-", "×": "x", "…": "...", "→": "->", "·": ".", "─": "-"}
PLAIN |= dict.fromkeys("‘’", "'") | dict.fromkeys("“”", '"')


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that a stream cannot write."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


def make_robust() -> None:
    """Let stdout and stderr take every text; where one is closed, what is printed is lost."""
    codecs.register_error(ERRORS, _plainly)
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # else the next file that is opened would be stdout, and hold what a library prints
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ERRORS)


def let_go() -> None:
    """What is still to be printed goes nowhere: the reader of stdout has left, but the work is not done."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def flush() -> None:
    """Print what is left; Python would do so at its end, and complain of a reader who has left."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        let_go()
