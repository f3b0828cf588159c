"""Files of plain values: NumPy's `.npy`, DICOM, items of HDF5."""

import io
import math
from pathlib import Path
from typing import IO, Any

import numpy as np

from foldcraft.common.errors import FoldcraftError, listing, shorten
from foldcraft.common.notices import tell_once
from foldcraft.data.images.optional import extra

MOST_BANDS = 64  # of an array; an axis that is longer is none of bands
MOST_SCALED = 1e30  # a slope or intercept of a DICOM file beyond it takes values out of 32 bits
NPY, DICM = b"\x93NUMPY", b"DICM"
DICOM_SUFFIXES = (".dcm", ".dicom")
INVERTED = "MONOCHROME1"  # low values are bright
ENCODED = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")  # how image files begin


def kind_of(source: Path | bytes) -> str:
    """ "npy", "dicom", or "" for anything else."""
    if isinstance(source, bytes):
        start = source[:132]
    else:
        with open(source, "rb") as stream:
            start = stream.read(132)
    if start.startswith(NPY):
        return "npy"
    if start[128:132] == DICM:
        return "dicom"
    named = isinstance(source, Path) and source.suffix.lower() in DICOM_SUFFIXES
    return "dicom" if named and not start.startswith(ENCODED) else ""


def read(source: Path | bytes, kind: str, most_pixels: int, most_bytes: int) -> np.ndarray:
    """Pixels (H, W) or (H, W, C) of a file of that kind.

    Raises:
        FoldcraftError: a package is missing.
        Exception: of any kind, where it is no image, is damaged, or needs more memory than it may.
    """
    return _npy(source, most_pixels, most_bytes) if kind == "npy" else _dicom(source, most_bytes)


def as_image(array: np.ndarray) -> np.ndarray:
    """An array as pixels (H, W) or (H, W, C): the bands are the last axis, or the first where that is the shorter.

    Raises:
        ValueError: it is none.
    """
    while array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(f"an array of shape {array.shape} is no image")
    if array.ndim == 3:
        if array.shape[0] < array.shape[2]:
            array = np.moveaxis(array, 0, 2)
        if array.shape[2] > MOST_BANDS:
            raise ValueError(f"an array of shape {array.shape}: neither its first nor its last axis is one of bands")
        if array.shape[2] == 1:
            array = array[..., 0]
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"an array of {shorten(str(array.dtype), 40)}, not of numbers")
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _npy(source: Path | bytes, most_pixels: int, most_bytes: int) -> np.ndarray:
    if isinstance(source, bytes):
        _check_length(io.BytesIO(source), len(source))
        return as_image(np.load(io.BytesIO(source), allow_pickle=False))
    return reduced(as_image(_mapped(source)), most_pixels, most_bytes)


def _mapped(path: Path) -> np.ndarray:
    """The array of a file, read as it is looked at."""
    with open(path, "rb") as stream:
        _check_length(stream, path.stat().st_size)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _check_length(stream: IO[bytes], length: int) -> None:
    """See that as many values follow a header as it promises: memory for all of them is taken at once."""
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = header(stream)
    if kind.hasobject:
        raise ValueError("an array of objects, which are not read: save numbers")
    if math.prod(shape) * kind.itemsize > length - stream.tell():
        raise ValueError(f"an array of {' x '.join(map(str, shape))} is promised, and the file holds less")


def channels_of_npy(path: Path) -> int:
    """How many channels an array has for a net: three where it is grey.

    Raises:
        Exception: of any kind, where it is none.
    """
    array = as_image(_mapped(path))
    return 3 if array.ndim == 2 else array.shape[2]


def reduced(pixels: np.ndarray, most_pixels: int, most_bytes: int) -> np.ndarray:
    """Pixels that lie in a file, in memory: means of squares where there are more than there may be."""
    height, width = pixels.shape[:2]
    bands = pixels.size // (height * width)
    if height * width <= most_pixels and pixels.nbytes <= most_bytes:
        return np.array(pixels)
    times = math.ceil(math.sqrt(max(height * width / most_pixels, height * width * bands * 8 / most_bytes)))
    rows = []
    for top in range(0, height, times):
        strip = np.asarray(pixels[top : top + times], np.float32).mean(axis=0)
        starts = np.arange(0, width, times)
        counts = np.minimum(times, width - starts).reshape(-1, *[1] * (strip.ndim - 1))
        rows.append(np.add.reduceat(strip, starts, axis=0) / counts)
    made = np.stack(rows)
    return (np.rint(made) if pixels.dtype.kind in "iu" else made).astype(pixels.dtype)


# DICOM


def _dicom(source: Path | bytes, most_bytes: int) -> np.ndarray:
    pydicom = extra("pydicom")
    from pydicom import pixels as decoders  # beside pydicom, which is there

    if isinstance(source, Path) and source.stat().st_size > most_bytes:
        raise ValueError(f"a DICOM file of more than {most_bytes / 2**30:.0f} GB")
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        data = pydicom.dcmread(stream, force=True)
    except Exception as error:
        raise ValueError(f"not a DICOM file: {error}") from None
    if not any(name in data for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ValueError("a DICOM file without pixels")
    if lacking := [name for name in ("Rows", "Columns") if not isinstance(data.get(name), int)]:
        raise ValueError(f"a DICOM file without {' and '.join(lacking)}")
    needed = int(data.Rows) * int(data.Columns) * int(data.get("SamplesPerPixel", 1)) * 8
    if needed > most_bytes:
        raise ValueError(f"{data.Columns} x {data.Rows} pixels of a DICOM file need more than may be taken")
    frames = int(data.get("NumberOfFrames", 1) or 1)
    if frames > 1:
        tell_once("of DICOM files with several frames the middle one is taken")
    if "TransferSyntaxUID" not in getattr(data, "file_meta", {}):
        data.file_meta = getattr(data, "file_meta", None) or pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    try:
        values = decoders.pixel_array(data, index=frames // 2 if frames > 1 else 0)
    except Exception as error:
        raise ValueError(_undecoded(data, error)) from None
    colours = str(data.get("PhotometricInterpretation", "MONOCHROME2")).strip()
    if colours == "PALETTE COLOR":
        return decoders.apply_color_lut(values, data)
    return values if values.ndim == 3 else _grey(values, data, colours == INVERTED, decoders)


def _undecoded(data: Any, error: Exception) -> str:
    syntax = data.file_meta.TransferSyntaxUID
    if syntax.is_compressed and "plugin" in str(error):
        return f"run `pip install 'pylibjpeg[all]'`, for its pixels are packed as {syntax.name}"
    return f"a DICOM file whose pixels are damaged: {error}"


def _grey(values: np.ndarray, data: Any, is_inverted: bool, decoders: Any) -> np.ndarray:
    """By slope and intercept; through the window, as bytes, where there is one, else as they are."""
    bits, signed = int(data.get("BitsStored", 16)), int(data.get("PixelRepresentation", 0))
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    slope, intercept = _number(data, "RescaleSlope", 1), _number(data, "RescaleIntercept", 0)
    if "ModalityLUTSequence" in data:
        values = decoders.apply_modality_lut(values, data)
        ends = np.array([values.min(), values.max()])
    elif (slope, intercept) != (1, 0):
        values, ends = values * np.float32(slope) + np.float32(intercept), np.sort(ends * slope + intercept)
    if "VOILUTSequence" in data:
        looked_up = decoders.apply_voi_lut(values, data, prefer_lut=True).astype(np.float32)
        most = 2.0 ** int(data.VOILUTSequence[0].LUTDescriptor[2]) - 1
        values, ends = np.rint(looked_up * (255 / most)).clip(0, 255).astype(np.uint8), np.array([0, 255])
    elif window := _window(data):
        values, ends = _windowed(values, *window), np.array([0, 255])
    if is_inverted:
        values = (ends.sum() - values.astype(np.float32)).astype(
            values.dtype if values.dtype == np.uint8 else np.float32
        )
    return values


def _number(data: Any, name: str, default: float) -> float:
    """A tag that scales the values; one that is absent, empty or 0 is the default."""
    value = float(data.get(name, default) or default)
    if not abs(value) < MOST_SCALED:
        raise ValueError(f"a DICOM file whose {name} is {value:g}")
    return value


def _window(data: Any) -> tuple[float, float, str] | None:
    """Centre, width and function of the first window, where there is one."""
    centre, width = data.get("WindowCenter"), data.get("WindowWidth")
    first = [value[0] if isinstance(value, list) or hasattr(value, "append") else value for value in (centre, width)]
    if None in first or str(first[0]).strip() == "" or float(first[1]) < 1:
        return None
    return float(first[0]), float(first[1]), str(data.get("VOILUTFunction", "LINEAR") or "LINEAR").strip()


def _windowed(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """As DICOM's part 3, C.11.2.1 has it, from 0 to 255."""
    floats = values.astype(np.float32)
    if function == "SIGMOID":
        shares = 1 / (1 + np.exp(-4 * (floats - centre) / width))
    elif function == "LINEAR_EXACT":
        shares = (floats - centre) / width + 0.5
    else:
        shares = (floats - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5
    return np.rint(255 * shares.clip(0, 1)).astype(np.uint8)


# HDF5


def hdf5_item(path: Path, key: str, most_pixels: int, most_bytes: int) -> np.ndarray | bytes:
    """A dataset of an HDF5 file: pixels, or the bytes of an image file.

    Raises:
        FoldcraftError: h5py is not installed; the file is no HDF5.
        ValueError: there is no such dataset, it lies in another file, or is no image.
    """
    h5py = extra("h5py")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FoldcraftError(f"not an HDF5 file: {shorten(str(error), 100)}", path, "mend it or its setting") from None
    with file:
        _check_links(h5py, file, key)
        item = file.get(key)
        if not isinstance(item, h5py.Dataset):
            keys = [name for name, _ in zip(file, range(4), strict=False)]
            raise ValueError(f"no dataset {shorten(key, 60)!r} in it; there are {len(file)}, as {listing(keys, 3)}")
        if item.external or item.is_virtual:
            raise ValueError("a dataset whose values lie in other files")
        if h5py.check_string_dtype(item.dtype) or item.dtype.kind in "SOV":
            return _encoded(item)
        if item.ndim == 1 and item.dtype.itemsize == 1 and item.nbytes <= most_bytes:
            return np.asarray(item[()]).tobytes()
        if item.nbytes > most_bytes:
            return _large(item, most_pixels, most_bytes)
        return reduced(as_image(item[()]), most_pixels, most_bytes)


def _large(item: Any, most_pixels: int, most_bytes: int) -> np.ndarray:
    """Every n-th pixel of a dataset that is read in steps."""
    if item.ndim not in (2, 3):
        raise ValueError(f"an array of shape {item.shape} is no image")
    times = math.ceil(math.sqrt(item.nbytes / most_bytes))
    first = 1 if item.ndim == 3 and item.shape[0] < item.shape[2] else 0
    steps = tuple(slice(None, None, times if axis in (first, first + 1) else 1) for axis in range(item.ndim))
    return reduced(as_image(item[steps]), most_pixels, most_bytes)


def _encoded(item: Any) -> bytes:
    value = item[()]
    if isinstance(value, np.ndarray) and value.shape == (1,):
        value = value[0]
    if isinstance(value, np.ndarray):
        value = value.tobytes()
    data = bytes(value) if isinstance(value, bytes | np.void) else b""
    if not data.startswith(ENCODED):
        raise ValueError("a dataset that is neither an array of pixels nor the bytes of an image file")
    return data


def _check_links(h5py: Any, file: Any, key: str) -> None:
    """See that no part of a key is a link into another file."""
    parts = [part for part in key.split("/") if part]
    for number in range(1, len(parts) + 1):
        link = file.get("/".join(parts[:number]), getlink=True)
        if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
            raise ValueError("a link, which is not followed")
