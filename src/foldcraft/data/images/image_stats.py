"""What each image file is: size, mode, brightness, sharpness, digest; and what is the matter with it."""

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from foldcraft.common import allocator
from foldcraft.common.files import write_atomic
from foldcraft.data.images import sources
from foldcraft.data.images.image_kinds import KINDS
from foldcraft.data.images.image_reading import decode, has_bands_left_out, is_deep
from foldcraft.data.images.sources import Source, files_of, is_there, key_of, stamp_of

FORMAT = 2  # raise it when a fact would come out differently
LOOKED_AT = 256  # long side in pixels that brightness and sharpness are measured at, so that sizes can be compared
ORIENTATION = 0x0112
PIECE = 64  # files that a process looks at in one go
WORTH_PROCESSES = 2000  # files; fewer are looked at before other processes have started
MOST_FRAMES = 1000
Progress = Callable[[int], object]
Bounds = tuple[float, float]
ALL_BITS: Bounds = (0.0, 65535.0)

COLUMNS: dict[str, object] = {
    "width": -1,
    "height": -1,
    "mode": "",
    "format": "",
    "exif_orientation": 1,
    "has_exif": False,
    "frames": 0,
    "bands_left_out": False,
    "deep": False,
    "mean_r": np.nan,
    "mean_g": np.nan,
    "mean_b": np.nan,
    "std": np.nan,
    "sharpness": np.nan,
    "sha256": "",
    "problem": "",
}
STAMP = ["path", "bytes", "mtime"]


class ImageFiles(Protocol):
    """Rows with their files: a `Competition`, or its `Tables`."""

    @property
    def train_ids(self) -> np.ndarray: ...
    @property
    def train_paths(self) -> tuple[Source, ...]: ...
    @property
    def test_ids(self) -> np.ndarray: ...
    @property
    def test_paths(self) -> tuple[Source, ...]: ...


def collect(
    pictures: ImageFiles, cache: Path | None = None, progress: Progress = lambda done: None, bounds: Bounds = ALL_BITS
) -> pd.DataFrame:
    """One row an image file, training rows first, in their order; a bad file is a row with its `problem`.

    Columns: part ("train" or "test"), id, path, bytes (0 where images are parts of files), width and height as stored,
    Pillow's mode and format, exif_orientation (1: upright), has_exif, frames, bands_left_out (some are neither colours
    nor opacity), deep (more than 8 bits), mean_r, mean_g, mean_b (0 to 255), std (of the grey values), sharpness
    (variance of the Laplacian, at most `LOOKED_AT` pixels long), sha256 (of the file), problem ("": none; "missing",
    "empty", or what the decoder says).

    Args:
        cache: a file where facts are remembered with a file's size and time; only what has changed is looked at again.
        progress: called with numbers of files that are done.
        bounds: values of an image of more than 8 bits that become black and white.
    """
    parts = [("train", pictures.train_ids, pictures.train_paths), ("test", pictures.test_ids, pictures.test_paths)]
    rows = pd.DataFrame(
        [
            (part, row, key_of(path), *_stamp(path))
            for part, ids, paths in parts
            for row, path in zip(ids.tolist(), paths, strict=True)
        ],
        columns=["part", "id", *STAMP],
    )
    known = _remembered(cache, bounds)
    found = rows.merge(known, "left", STAMP, validate="many_to_one")
    new = np.flatnonzero(found["problem"].isna())
    progress(len(rows) - len(new))
    every = [*pictures.train_paths, *pictures.test_paths]
    paths = [Path(rows["path"].iloc[row]) if isinstance(every[row], Path) else every[row] for row in new]
    looks = list(_look_at(paths, bounds, progress))
    for column, nothing in COLUMNS.items():
        values = found[column].to_numpy(dtype=object).copy()
        values[new] = [look[column] for look in looks]
        found[column] = values.astype(str) if isinstance(nothing, str) else values.astype(type(nothing))
    if cache and len(new):
        _remember(cache, found, bounds)
    if any(map(sources.is_part, every)):
        found["bytes"] = 0  # those of a file that many images lie in say nothing of any of them
    return found.drop(columns="mtime")


def _stamp(source: Source) -> tuple[int, int]:
    size, written, _ = stamp_of(source) or (-1, -1, -1)
    return size, written


def _look_at(paths: Sequence[Source], bounds: Bounds, progress: Progress) -> Iterator[dict[str, Any]]:
    """Facts of many files, in order, by as many processes as there are cores; so many at a time."""
    cores = os.cpu_count() or 1
    if len(paths) < WORTH_PROCESSES:
        pool = ThreadPoolExecutor(cores)
    else:
        pool = ProcessPoolExecutor(cores, get_context("spawn"), allocator.keep_freed_memory)
    with pool:
        pieces = [paths[first : first + PIECE] for first in range(0, len(paths), PIECE)]
        for first in range(0, len(pieces), 4 * cores):
            wave = pieces[first : first + 4 * cores]
            for looks in pool.map(_look_at_piece, wave, [bounds] * len(wave)):
                progress(len(looks))
                yield from looks


def _look_at_piece(paths: Sequence[Source], bounds: Bounds) -> list[dict[str, Any]]:
    return [look(path, bounds) for path in paths]


def look(path: Source, bounds: Bounds = ALL_BITS) -> dict[str, Any]:
    """The facts of one image (`COLUMNS`); whatever is wrong with it is told in `problem`."""
    facts = dict(COLUMNS)
    if not is_there(path):
        return {**facts, "problem": "missing"}
    try:
        facts["sha256"] = _sha256(path) if isinstance(path, Path) else path.digest(_sha256)
        if not all(file.stat().st_size for file in files_of(path)):
            return {**facts, "problem": "empty"}
        with suppress(UnidentifiedImageError):  # OpenCV reads some kinds that Pillow does not
            facts |= _header(path) if isinstance(path, Path) else {}
        with suppress(Exception):  # told by `decode`
            facts |= {"bands_left_out": has_bands_left_out(path), "deep": is_deep(path)}
        black, white = bounds
        image = decode(path, white, LOOKED_AT, black)
        if facts["width"] < 0:
            facts |= {"width": image.width, "height": image.height, "frames": 1}
        facts |= _pixels(image)
    except (MemoryError, Exception) as error:  # decoders raise whatever they like
        facts["problem"] = " ".join(_bare(str(error), path).split())[:200] or type(error).__name__
    return facts


def _bare(text: str, source: Source) -> str:
    """Without the folders of files."""
    for path in files_of(source):
        text = text.replace(str(path), path.name)
    return text


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _sha256_of(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(64)  # of a file that many images lie in once, and not for each of them
def _sha256_of(path: Path, *stamp: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _header(path: Path) -> dict[str, Any]:
    with Image.open(path, formats=KINDS) as image:
        facts = {"width": image.width, "height": image.height, "mode": image.mode, "format": image.format or ""}
        exif = image.getexif()
        frames = getattr(image, "n_frames", 1)
    orientation = exif.get(ORIENTATION, 1)
    return {
        **facts,
        "exif_orientation": orientation if isinstance(orientation, int) else 1,
        "has_exif": len(exif) > 0,
        "frames": min(frames, MOST_FRAMES),
    }


def _pixels(image: Image.Image) -> dict[str, Any]:
    image.thumbnail((LOOKED_AT, LOOKED_AT), Image.Resampling.BOX)
    pixels = np.asarray(image)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    red, green, blue = (float(value) for value in pixels.mean((0, 1)))
    sharpness = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    return {"mean_r": red, "mean_g": green, "mean_b": blue, "std": float(grey.std()), "sharpness": sharpness}


def _remembered(cache: Path | None, bounds: Bounds) -> pd.DataFrame:
    """What is known of files that were looked at before; a damaged or older file is made again."""
    empty = pd.DataFrame({name: pd.Series(dtype=object) for name in [*STAMP, *COLUMNS]})
    empty = empty.astype({"bytes": "int64", "mtime": "int64"})
    try:
        data = io.BytesIO(cache.read_bytes()) if cache else None
        table = pq.read_table(data, page_checksum_verification=True) if data else None
    except (OSError, pa.ArrowException):
        return empty
    if table is None or (table.schema.metadata or {}).get(b"foldcraft") != _version(bounds):
        return empty
    return table.to_pandas()


def _remember(cache: Path, found: pd.DataFrame, bounds: Bounds) -> None:
    known = found[found["bytes"] >= 0].drop_duplicates("path")[[*STAMP, *COLUMNS]]
    table = pa.Table.from_pandas(known, preserve_index=False)
    stream = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"foldcraft": _version(bounds)}), stream, write_page_checksum=True)
    write_atomic(cache, stream.getvalue())


def _version(bounds: Bounds) -> bytes:
    return f"facts {FORMAT} {bounds[0]:g} {bounds[1]:g}".encode()
