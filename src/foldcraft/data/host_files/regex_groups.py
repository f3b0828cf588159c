"""What a regular expression finds in cells, within a time limit: some patterns never end, and hold every thread up.

The search runs in a process of its own, which can be stopped, and which reads nothing but the cells it is given.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence

from foldcraft.common.errors import FoldcraftError, shorten

LIMIT, LIMIT_PER_CELL = 10.0, 1e-4  # seconds; an ordinary pattern takes a millionth a cell
WORKER = """
import json, re, sys
pattern, cells = json.load(sys.stdin)
search, found = re.compile(pattern).search, []
for cell in cells:
    match = search(cell)
    found.append(None if match is None else match[1])
json.dump(found, sys.stdout)
"""


def check(pattern: str, where: str) -> None:
    """See that a pattern is one, and has a group.

    Raises:
        FoldcraftError: it is not, or has none.
    """
    try:
        groups = re.compile(pattern).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise FoldcraftError(f"{shorten(pattern, 80)!r} is no pattern: {error}", where) from None
    if groups < 1:
        hint = "put brackets around the part that is wanted: ^(.+)_"
        raise FoldcraftError(f"{shorten(pattern, 80)!r} has no group", where, hint)


def first_groups(pattern: str, cells: Sequence[str], where: str) -> list[str | None]:
    """What the first group holds where the pattern is found first in each cell; None where it is not.

    Raises:
        FoldcraftError: as `check`; or it takes too long.
    """
    check(pattern, where)
    known = list(dict.fromkeys(cells))
    limit = LIMIT + LIMIT_PER_CELL * len(known)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", WORKER],
            input=json.dumps([pattern, known]),
            capture_output=True,
            text=True,
            encoding="ascii",
            timeout=limit,
            check=True,
        )
    except subprocess.TimeoutExpired:
        what = f"{shorten(pattern, 80)!r} is not done with {len(known)} cells after {limit:.0f} seconds"
        hint = "nested repetition, as in (a+)+, takes ages where nothing fits; write it without"
        raise FoldcraftError(what, where, hint) from None
    except (subprocess.CalledProcessError, OSError) as error:
        raise FoldcraftError(f"{shorten(pattern, 80)!r} cannot be searched for: {error}", where) from None
    found = dict(zip(known, json.loads(done.stdout), strict=True))
    return [found[cell] for cell in cells]
