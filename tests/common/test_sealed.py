"""Checksums: what has changed since it was written is never taken for what was written."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import flipped

from foldcraft.common import checksums
from foldcraft.common.checked_array import DamagedRows, RowFile, RowWriter

VALUES = {"score": 0.9125, "classes": ["bar", "é"], "epochs": 3, "nested": {"a": None}}


def changes(content: bytes) -> list[bytes]:
    """Every bit turned over, one at a time, and every length but the whole one."""
    turned = [flipped(content, byte, bit) for byte in range(len(content)) for bit in range(8)]
    return turned + [content[:length] for length in range(len(content))]


def same_or_refused(content: bytes, path: Path, read: Callable[[Path], object], expected: object) -> int:
    """How many changes are refused; all others must read as what was written."""
    refused = 0
    for changed in changes(content):
        path.write_bytes(changed)
        try:
            assert read(path) == expected, changed
        except (ValueError, KeyError):
            refused += 1
    return refused


def test_json_of_which_a_bit_has_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    checksums.write_json(path, VALUES)
    assert checksums.read_json(path) == VALUES
    whole = path.read_bytes()

    def read(file: Path) -> dict[str, object]:
        values = checksums.read_json(file)
        return {name: values[name] for name in VALUES}  # a key "checksuM" is one too many, and harms nobody

    assert same_or_refused(whole, path, read, VALUES) > 0.8 * 9 * len(whole)


def test_sealed_bytes_and_text_of_which_a_bit_has_changed_are_refused(tmp_path: Path) -> None:
    path, content = tmp_path / "last.ckpt", b"PK state"
    for changed in changes(checksums.seal(content)):
        if changed.startswith(checksums.MAGIC):  # else it is no checkpoint either
            with pytest.raises(checksums.ChecksumMismatch):
                checksums.unseal(changed)
    assert checksums.unseal(checksums.seal(content)) == content
    text = "seed: 0\ntrain:\n  lr: 0.001\n"

    def read(file: Path) -> str:
        found = file.read_text(encoding="utf-8")
        checksums.check_text(found)
        if "\n" not in found:
            raise ValueError("cut within its first line, and nothing is left of it")
        return found.partition("\n")[2]

    assert same_or_refused(checksums.seal_text(text).encode(), path, read, text) > 8 * len(text)


def test_what_was_never_sealed_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(VALUES))
    assert checksums.read_json(path) == VALUES
    assert checksums.unseal(b"PK state") == b"PK state"
    checksums.check_text("seed: 0\n")
    path.write_text("[1]")
    with pytest.raises(ValueError, match="list"):
        checksums.read_json(path)


def test_rows_of_which_a_bit_has_changed_are_never_given_out(tmp_path: Path) -> None:
    path, values = tmp_path / "rows.npy", np.arange(12, dtype=np.float16).reshape(4, 3)
    writer = RowWriter(path, np.float16, values.shape)
    for row in (2, 0, 3, 1):
        writer.put(row, values[row])
    writer.close()
    np.testing.assert_array_equal(RowFile(path).check_all(), values)
    np.testing.assert_array_equal(np.load(path), values)  # to others it is an array like any other
    whole = path.read_bytes()
    for changed in changes(whole):
        path.unlink()
        path.write_bytes(changed)
        with pytest.raises(DamagedRows):
            RowFile(path).check_all()
    path.unlink()
    path.write_bytes(flipped(whole, 128 + 6))
    rows = RowFile(path)
    np.testing.assert_array_equal(rows[0], values[0])
    for _ in range(2):
        with pytest.raises(DamagedRows, match="row 1"):
            rows[1]
