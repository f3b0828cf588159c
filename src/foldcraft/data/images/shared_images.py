"""Test rows whose image is that of another row: a slip of a template, or a leak."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from foldcraft.common.errors import counted, shorten
from foldcraft.data.images import sources
from foldcraft.data.images.sources import Source


def notes(train: Sequence[Source], test: Sequence[Source], folder: Path) -> list[str]:
    """What there is to say of test rows whose image is another row's as well."""
    times, known, told = Counter(test), set(train), []
    if known_too := [source for source in times if source in known]:
        count = counted(sum(times[source] for source in known_too), "test row")
        told.append(f"warning: {count} have the image of a training row, first {_short(known_too[0], folder)}")
    several = [source for source, count in times.items() if count > 1]
    if several:
        first = f"{_short(several[0], folder)} of {times[several[0]]}"
        told.append(
            f"competition.test_image: {counted(len(several), 'image')} of several test rows each, first {first}"
        )
    return told


def _short(source: Source, folder: Path) -> str:
    return shorten(sources.name_in(source, folder), 60)
