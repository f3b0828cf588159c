"""What is written for the host: a CSV, or one zip of several."""

import io
import zipfile
from collections.abc import Mapping

import pandas as pd

CSV, ZIP = ".csv", ".zip"
NO_TIME = (1980, 1, 1, 0, 0, 0)  # equal submissions are equal files


def of(frames: Mapping[str, pd.DataFrame]) -> tuple[bytes, str]:
    """The bytes of a submission, and the suffix that its file has.

    Args:
        frames: by their names in the zip; a single one needs none.
    """
    texts = {name: frame.to_csv(index=False, lineterminator="\n").encode() for name, frame in frames.items()}
    if len(texts) == 1:
        return next(iter(texts.values())), CSV
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for name, text in texts.items():
            packed.writestr(zipfile.ZipInfo(name, NO_TIME), text, zipfile.ZIP_DEFLATED)
    return stream.getvalue(), ZIP
