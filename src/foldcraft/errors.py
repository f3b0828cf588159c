"""A user's mistake, told in one line: what is wrong, where, and how to mend it."""

from collections.abc import Sequence
from difflib import get_close_matches

LONGEST_WORD = 300  # of a message; what is in the files that it is about may be of any length
LONGEST = 100_000


class FoldcraftError(Exception):
    """Something the user can mend; the commands print it as one line and exit with code 2.

    Args:
        what: what is wrong.
        where: file, row or key it was found in.
        mend: what to do about it.
    """

    def __init__(self, what: str, where: object = None, mend: str | None = None) -> None:
        self.what, self.where, self.mend = what, where, mend
        place = f"{where}: " if where is not None else ""
        advice = f"; {mend}" if mend else ""
        words = f"{place}{what}{advice}"[: 10 * LONGEST].split()
        super().__init__(printable(" ".join(shorten(word, LONGEST_WORD) for word in words)[:LONGEST]))


def printable(text: str) -> str:
    """The text with characters escaped that a terminal would obey, or could not show."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shorten(text: str, most: int) -> str:
    """The text, or the first `most` characters of it and an ellipsis."""
    return text if len(text) <= most else f"{text[:most]}…"


def suggest(word: str, known: Sequence[str]) -> str:
    """A 'did you mean' for `word`, or the list of what is known."""
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(shorten(name, LONGEST_WORD) for name in known)}"


def listing(items: Sequence[object], most: int = 10) -> str:
    """The first `most` items, comma-separated, and how many more there are."""
    head = ", ".join(shorten(str(item), LONGEST_WORD) for item in items[:most])
    return head if len(items) <= most else f"{head} and {len(items) - most} more"


def counted(count: int, thing: str) -> str:
    """So many of a thing: 1 image, 1,200 images."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
