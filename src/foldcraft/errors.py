"""A user's mistake, told in one line: what is wrong, where, and how to mend it."""

from collections.abc import Sequence
from difflib import get_close_matches


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
        super().__init__(" ".join(f"{place}{what}{advice}".split()))


def suggest(word: str, known: Sequence[str]) -> str:
    """A 'did you mean' for `word`, or the list of what is known."""
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def listing(items: Sequence[object], most: int = 10) -> str:
    """The first `most` items, comma-separated, and how many more there are."""
    head = ", ".join(str(item) for item in items[:most])
    return head if len(items) <= most else f"{head} and {len(items) - most} more"
