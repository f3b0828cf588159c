"""Short digests that tell whether two things are the same."""

import json
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

DIGEST_BYTES = 8


def of_bytes(data: bytes) -> str:
    """16 hex digits of `data`."""
    return blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def of_values(values: object) -> str:
    """16 hex digits of anything JSON can hold; the order of keys does not matter."""
    return of_bytes(json.dumps(values, sort_keys=True, separators=(",", ":"), default=str).encode())


def of_rows(rows: Iterable[tuple[str, ...]]) -> str:
    """16 hex digits of a table; the order of rows does not matter."""
    return of_values(sorted(list(row) for row in rows))


def of_file(path: Path) -> str:
    """16 hex digits of a file's content, read in pieces."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def seed_from(*parts: object) -> int:
    """A 63-bit seed that depends on every part and on nothing else (not on the process, nor on Python's hash)."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1
