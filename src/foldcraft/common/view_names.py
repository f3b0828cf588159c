"""Names of the views of test-time augmentation, read without torch: `hflip`, `scale1.15`, `hflip+scale1.15`."""

import re

from foldcraft.common.errors import FoldcraftError, suggest

FIXED = ("identity", "hflip", "vflip", "rot90", "rot180", "rot270")
SCALE = re.compile(r"scale(\d+(?:\.\d+)?)")


def steps(name: str, where: str = "tta.views") -> list[str | float]:
    """The steps of the view of that name, in order: one of `FIXED`, or the factor of a scale, 0.5 to 2.

    Raises:
        FoldcraftError: no such view.
    """
    return [_step(part, where) for part in name.split("+")]


def _step(name: str, where: str) -> str | float:
    if name in FIXED:
        return name
    match = SCALE.fullmatch(name)
    if match and 0.5 <= float(match[1]) <= 2:
        return float(match[1])
    hint = "scales go from scale0.5 to scale2" if match else suggest(name, [*FIXED, "scale1.15"])
    raise FoldcraftError(f"no view {name!r}", where, hint)
