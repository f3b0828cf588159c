"""Packages that only some competitions need, by name; told in one line where they are missing."""

import importlib
import logging
import warnings
from typing import Any

from foldcraft.common.errors import FoldcraftError

# What each reads, and the releases that it was tested with.
EXTRAS = {
    "cv2": ("colours of more than 8 bits", "opencv-python-headless>=4.13,<5"),
    "h5py": ("HDF5", "h5py>=3.16,<4"),
    "pydicom": ("DICOM", "pydicom>=3,<4"),
    "tifffile": ("TIFFs of many bands, levels or tiles", "tifffile>=2026.3"),
}


def extra(name: str) -> Any:
    """The module of one of `EXTRAS`.

    Raises:
        FoldcraftError: it is not installed.
    """
    reads, release = EXTRAS[name]
    logging.getLogger(name).setLevel(logging.CRITICAL)  # what is wrong with a file is told once, by us
    warnings.filterwarnings("ignore", module=rf"{name}\b")
    try:
        return importlib.import_module(name)
    except ImportError:
        raise FoldcraftError(
            f"{name} is not installed, and {reads} cannot be read without it", hint=f"run `pip install '{release}'`"
        ) from None
