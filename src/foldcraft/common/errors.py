"""A user's mistake, told in one line: what is wrong, where, and how to mend it."""

from collections.abc import Sequence
from difflib import SequenceMatcher

LONGEST_WORD = 300  # of a message; what is in the files that it is about may be of any length
LONGEST = 100_000
CLOSE = 0.7  # likeness from which a name may be a slip of another; "age" has .6 of "ImageID"
MOST_KNOWN, LONGEST_KNOWN = 8, 30  # names that a mistake lists, and characters of each
LONGEST_LIST = 120  # characters of all of them
LONGEST_PLACE = 140  # of a file's path


class FoldcraftError(Exception):
    """Something the user can mend; the commands print it as one line and exit with code 2.

    Args:
        what: what is wrong.
        where: file, row or key it was found in.
        hint: what to do about it.
    """

    def __init__(self, what: str, where: object = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, where, hint
        place = f"{_middle_out(str(where))}: " if where is not None else ""
        advice = f"; {hint}" if hint else ""
        words = f"{place}{what}{advice}"[: 10 * LONGEST].split()
        super().__init__(printable(" ".join(shorten(word, LONGEST_WORD) for word in words)[:LONGEST]))


def said_by(error: Exception) -> str:
    """What a library's error says; of a key that it misses, which says nothing but the key, that it is missing."""
    if isinstance(error, KeyError) and error.args:
        key = error.args[0]
        return f"{key.decode(errors='replace') if isinstance(key, bytes) else key!s} is missing in it"
    return str(error) or type(error).__name__


def printable(text: str) -> str:
    """The text with characters escaped that a terminal would obey, or could not show."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shorten(text: str, most: int) -> str:
    """The text, or the first `most` characters of it and an ellipsis."""
    return text if len(text) <= most else f"{text[:most]}…"


def _middle_out(place: str) -> str:
    """A place without the middle of it, if it is very long."""
    half = LONGEST_PLACE // 2
    return place if len(place) <= LONGEST_PLACE else f"{place[:half]}…{place[-half:]}"


def suggest(word: str, known: Sequence[str]) -> str:
    """A 'did you mean' for `word`, or what is known; of many the closest to it, and how many more there are."""
    close = closest(word, known)[:1]
    if close and likeness(word, close[0]) >= CLOSE:
        return f"did you mean {shorten(close[0], LONGEST_WORD)!r}?"
    names = closest(word, known) if len(known) > MOST_KNOWN else known
    return f"known: {fitting([shorten(name, LONGEST_KNOWN) for name in names], LONGEST_LIST, MOST_KNOWN)}"


def closest(word: str, known: Sequence[str]) -> list[str]:
    """All names, those that are most like `word` first."""
    return sorted(known, key=lambda name: -likeness(word, name))


def likeness(a: str, b: str) -> float:
    """From 0 to 1; capitals do not matter."""
    return SequenceMatcher(None, a.casefold()[:LONGEST_WORD], b.casefold()[:LONGEST_WORD]).ratio()


def listing(items: Sequence[object], most: int = 10) -> str:
    """The first `most` items, comma-separated, and how many more there are."""
    head = ", ".join(shorten(str(item), LONGEST_WORD) for item in items[:most])
    return head if len(items) <= most else f"{head} and {len(items) - most} more"


def fitting(items: Sequence[str], characters: int, most: int = 10) -> str:
    """As `listing`, of as many items as have so many characters together; of one at least."""
    sizes = [sum(len(item) + 2 for item in items[: count + 1]) for count in range(min(most, len(items)))]
    return listing(items, max(1, sum(size <= characters + 2 for size in sizes)))


def counted(count: int, thing: str) -> str:
    """So many of a thing: 1 image, 1,200 images, 6 classes."""
    return f"{count:,} {thing if count == 1 else plural(thing)}"


def plural(thing: str) -> str:
    """Several of a thing."""
    return f"{thing}{'es' if thing.endswith('s') else 's'}"
