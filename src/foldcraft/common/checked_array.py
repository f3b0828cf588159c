"""Large arrays on disk, a checksum a row: mapped, not read, and each row checked when it is first looked at.

The file is a `.npy` like any other, which NumPy opens as usual; behind the array stand a CRC-32 a row, then one of all
that is not rows. CRC-32 because it must cost less than what is done with the row: it runs at more than 1 GB/s.
"""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.lib import format as npy

from foldcraft.common.files import cannot_read

T = TypeVar("T")

MAGIC = b"foldcraft-rows-1"
TAIL = struct.Struct(f"<{len(MAGIC)}sQQI")  # bytes before the rows, number of rows, CRC of all that is not rows
SUM = np.dtype("<u4")


class DamagedRows(ValueError):
    """An array on disk is not what was written."""


class RowWriter:
    """An array that is written to a file row by row, in any order and by several threads; `close` makes it whole.

    Raises:
        OSError: the disk is full, now rather than by a bus error later.
    """

    def __init__(self, path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        self.path = path
        self.array = npy.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        self.sums = np.zeros(shape[0], SUM)
        with open(path, "r+b") as stream:
            size = os.fstat(stream.fileno()).st_size + self.sums.nbytes + TAIL.size
            os.posix_fallocate(stream.fileno(), 0, size)

    def put(self, row: int, values: np.ndarray) -> None:
        """Write one row."""
        values = np.ascontiguousarray(values, dtype=self.array.dtype)
        self.array[row] = values
        self.sums[row] = crc(values)

    def close(self) -> None:
        """Write the checksums; the file is whole then."""
        self.array.flush()
        header, end = self.array.offset, self.array.offset + self.array.nbytes
        del self.array
        with open(self.path, "r+b") as stream:
            covered = stream.read(header) + self.sums.tobytes()
            stream.seek(end)
            stream.write(self.sums.tobytes() + TAIL.pack(MAGIC, header, len(self.sums), zlib.crc32(covered)))
            stream.flush()
            os.fsync(stream.fileno())


class RowFile:
    """A read-only map of an array that `RowWriter` wrote.

    Attributes:
        array: all rows, unchecked.

    Raises:
        DamagedRows: the file is cut, is none of ours, or what is not rows has changed.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.sums = _read_sums(path)
        self.array = npy.open_memmap(path, mode="r")  # its header has been checked by now
        if len(self.array) != len(self.sums) or self.array.offset + self.array.nbytes != _end_of_rows(path, self.sums):
            raise DamagedRows("it is cut or changed")
        self.seen = np.zeros(len(self.array), bool)
        self._rows = self.array.view(np.ndarray)  # a slice of a memmap takes ten times as long

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, row: int) -> np.ndarray:
        """One row, checked if this process has not seen it yet.

        Raises:
            DamagedRows: it has changed since it was written.
        """
        values = self._rows[row]
        if not self.seen[row]:
            if crc(values) != self.sums[row]:
                raise DamagedRows(f"row {row} has changed since it was written")
            self.seen[row] = True
        return values

    def check_all(self) -> np.ndarray:
        """All rows, checked.

        Raises:
            DamagedRows: one has changed since it was written.
        """
        for row in range(len(self)):
            self[row]
        return self.array


def read_usable(
    path: Path, read: Callable[[Path], T], is_right: Callable[[T], bool], otherwise: str, tell: Callable[[str], object]
) -> T | None:
    """What a file holds that can be made again; None where there is none, or none that can be used.

    Args:
        read: raises DamagedRows where the file is damaged.
        otherwise: what is told of a sound file that is not right.
        tell: told why a file that is there cannot be used.

    Raises:
        FoldcraftError: the file may not be read.
    """
    if not path.is_file():
        return None
    try:
        found = read(path)
    except DamagedRows as error:
        tell(str(error))
        return None
    except OSError as error:
        raise cannot_read(path, error) from error
    if is_right(found):
        return found
    tell(otherwise)
    return None


def _read_sums(path: Path) -> np.ndarray:
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        stream.seek(max(0, size - TAIL.size))
        tail = stream.read()
        if len(tail) < TAIL.size or not tail.startswith(MAGIC):
            raise DamagedRows("it is cut, or has no checksums")
        _, header, rows, covered = TAIL.unpack(tail)
        if header + rows * SUM.itemsize + TAIL.size > size:
            raise DamagedRows("it is cut or changed")
        stream.seek(0)
        start = stream.read(header)
        stream.seek(size - TAIL.size - rows * SUM.itemsize)
        sums = stream.read(rows * SUM.itemsize)
    if zlib.crc32(start + sums) != covered:
        raise DamagedRows("what is not rows has changed")
    return np.frombuffer(sums, SUM)


def _end_of_rows(path: Path, sums: np.ndarray) -> int:
    return path.stat().st_size - sums.nbytes - TAIL.size


def crc(values: np.ndarray) -> int:
    """CRC-32 of the bytes of a contiguous array."""
    return zlib.crc32(values.data if values.size else b"")
