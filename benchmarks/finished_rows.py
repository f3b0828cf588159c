"""Rows of what a benchmark has finished, a line of JSON each, so that it goes on where it was stopped."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read(file: Path) -> list[dict[str, Any]]:
    """The rows of a file, none where there is no file yet; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def write(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write all rows of a file anew."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
