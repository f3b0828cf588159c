"""Files that carry a checksum of what they hold, so that damage is noticed before it is used.

The checksum travels inside the file, so one rename brings both, and a kill finds no moment between them. A file that
has none (written by an earlier version, or by hand) is taken as it is.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from foldcraft.common.files import parse_json, read_bytes, write_atomic

KEY = "checksum"  # of JSON and of the metadata of other formats
MAGIC = b"foldcraft sealed "
LINE = "# checksum: "
DIGITS = 16


class ChecksumMismatch(ValueError):
    """What is read is not what was written."""

    def __init__(self) -> None:
        super().__init__("has changed since it was written: its checksum does not fit")


def checksum(*parts: bytes | bytearray | memoryview | str) -> str:
    """16 hex digits of all parts in their order; where one ends and the next begins counts."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"{memoryview(data).nbytes} ".encode())
        digest.update(data)
    return digest.hexdigest()[:DIGITS]


def of_values(values: object) -> str:
    """Checksum of anything JSON can hold; the order of keys does not matter."""
    return checksum(json.dumps(values, sort_keys=True, separators=(",", ":")))


def of_arrays(arrays: Iterable[tuple[str, str, memoryview]], about: object) -> str:
    """Checksum of named arrays, each with its kind (type and shape) and its bytes, and of what is said of them."""
    parts = [part for array in sorted(arrays, key=lambda array: array[0]) for part in array]
    return checksum(of_values(about), *parts)


def check(found: str | None, expected: str) -> None:
    """Compare the checksum that a file carries with that of what was read from it.

    Raises:
        ChecksumMismatch: they differ. One that is missing is accepted.
    """
    if found is not None and found != expected:
        raise ChecksumMismatch


def write_json(path: Path, values: Mapping[str, Any], indent: int | None = None) -> None:
    """Write a JSON object with its checksum as a last key.

    Raises:
        FoldcraftError: as `write_atomic`.
    """
    plain = json.loads(json.dumps(values))
    write_atomic(path, json.dumps({**plain, KEY: of_values(plain)}, indent=indent))


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote, without the checksum.

    Raises:
        FileNotFoundError, ValueError: the file is missing or damaged, or holds no object.
        FoldcraftError: it cannot be read.
    """
    values = parse_json(read_bytes(path).decode("utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"holds a {type(values).__name__} where an object should be")
    check(values.pop(KEY, None), of_values(values))
    return values


def seal(content: bytes) -> bytes:
    """A line with the checksum of `content`, then `content`; for formats that nobody else reads."""
    return MAGIC + checksum(content).encode() + b"\n" + content


def unseal(data: bytes) -> memoryview:
    """What was sealed; what was never sealed as it is.

    Raises:
        Changed: it is not what was sealed.
    """
    if not data.startswith(MAGIC):
        return memoryview(data)
    start = len(MAGIC) + DIGITS + 1
    content = memoryview(data)[start:]
    check(data[len(MAGIC) : start].decode("ascii", "replace"), checksum(content) + "\n")
    return content


def seal_text(text: str) -> str:
    """Text whose first line is a comment with the checksum of the rest."""
    return f"{LINE}{checksum(text)}\n{text}"


def is_sealed_text(text: str) -> bool:
    """Has `seal_text` made it?"""
    return text.startswith(LINE)


def check_text(text: str) -> None:
    """See that text which `seal_text` gave is what it was.

    Raises:
        Changed: it is not.
    """
    if is_sealed_text(text):
        first, _, rest = text.partition("\n")
        check(first.removeprefix(LINE).strip(), checksum(rest))
