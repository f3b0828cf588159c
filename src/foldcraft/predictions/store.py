"""Predictions on disk: they carry ids, views, classes and fingerprints, and refuse to be joined with strangers."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from foldcraft.common import checksums
from foldcraft.common.errors import FoldcraftError, said_by
from foldcraft.common.files import parse_json, read_bytes, write_atomic
from foldcraft.common.rows import positions
from foldcraft.metrics import spaces
from foldcraft.metrics.spaces import Space

BASELINE = "baseline"
COLUMN = {"classes": "logp:", "labels": "odds:", "values": "value:"}  # before the name, as a class may be called "id"


@dataclass(frozen=True)
class Origin:
    """What predictions were made by and for; only alike ones can be joined.

    Attributes:
        data: fingerprint of the training rows (OOF) or test ids (test).
        folds: fingerprint of the folds.
        weights: fingerprint of the model's weights.
        images: digest of all training images (OOF) or test images (test); "" where it was not noted. Experiments may
            look at different images of the same rows, the folds of one may not.
        form, widths: of the predictions' space.
    """

    experiment: str
    fold: int
    classes: tuple[str, ...]
    data: str
    folds: str
    weights: str
    images: str = ""
    form: str = "classes"
    widths: tuple[int, ...] = ()

    @property
    def space(self) -> Space:
        """The form of the predictions."""
        return spaces.of_form(self.form, self.classes, self.widths)

    def to_json(self) -> dict[str, Any]:
        """All of it, but for what is said of other predictions than those of one label."""
        apart = {} if self.form != "classes" or self.widths else {"form", "widths"}
        return {key: value for key, value in asdict(self).items() if key not in apart}

    def is_like(self, other: "Origin") -> bool:
        """Is all that both note the same?"""
        known = self.images and other.images
        return self == other if known else replace(self, images="") == replace(other, images="")

    def __str__(self) -> str:
        return f"{self.experiment} (fold {self.fold})" if self.fold >= 0 else self.experiment


@dataclass(frozen=True)
class Predictions:
    """Predictions of some rows, seen in some ways: log-probabilities, log-odds of labels, or values.

    Attributes:
        ids: (N,) text.
        views: names of the V views.
        predicted: float32 (V, N, K), in the origin's space.
        baseline: ids of the rows whose image could not be read; what stands there knows no image.
    """

    ids: np.ndarray
    views: tuple[str, ...]
    predicted: np.ndarray
    origin: Origin
    baseline: tuple[str, ...] = ()

    def of_views(self, views: Sequence[str]) -> np.ndarray:
        """Log-probabilities (V, N, K) of some views, in that order.

        Raises:
            FoldcraftError: a view has not been predicted.
        """
        if missing := [name for name in views if name not in self.views]:
            raise FoldcraftError(f"no predictions for view {missing[0]!r}", f"{self.origin.experiment}")
        return self.predicted[[self.views.index(name) for name in views]]

    def of_rows(self, ids: np.ndarray) -> np.ndarray:
        """Log-probabilities (V, N, K) of the rows `ids`, in that order."""
        return self.predicted[:, positions(self.ids, ids)]

    def mean(self, views: Sequence[str]) -> np.ndarray:
        """Normalised mean of the log-probabilities over `views`, (N, K).

        Raises:
            FoldcraftError: a view has not been predicted.
        """
        return self.origin.space.pooled(self.of_views(views))


def write(path: Path, predictions: Predictions) -> None:
    """Write `id`, `view` and one column of predictions a class, label or value, with a checksum of all of it."""
    count = len(predictions.ids)
    columns = {
        "id": np.tile(predictions.ids, len(predictions.views)).tolist(),
        "view": np.repeat(predictions.views, count).tolist(),
    }
    flat = predictions.predicted.reshape(-1, len(predictions.origin.classes)).astype(np.float32)
    prefix = COLUMN[predictions.origin.form]
    columns |= {f"{prefix}{name}": flat[:, k] for k, name in enumerate(predictions.origin.classes)}
    origin = json.dumps(
        predictions.origin.to_json() | ({BASELINE: predictions.baseline} if predictions.baseline else {})
    )
    metadata = {"foldcraft": origin, checksums.KEY: _checksum(origin, columns["id"], columns["view"], flat)}
    import pyarrow as pa  # a packed blend, which keeps nothing, does without
    import pyarrow.parquet as pq

    table = pa.table(columns).replace_schema_metadata(metadata)
    stream = io.BytesIO()
    pq.write_table(table, stream)
    write_atomic(path, stream.getvalue())


def _checksum(origin: str, ids: list[str], views: list[str], flat: np.ndarray) -> str:
    return checksums.checksum(origin, json.dumps([ids, views]), np.ascontiguousarray(flat).tobytes())


def read(path: Path) -> Predictions:
    """Read what `write` wrote.

    Raises:
        FoldcraftError: the file is missing or damaged, or cannot be read.
    """
    try:
        import pyarrow.parquet as pq  # as above

        table = pq.read_table(io.BytesIO(read_bytes(path)))
        metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        origin = parse_json(metadata["foldcraft"])
        baseline = tuple(map(str, origin.pop(BASELINE, ())))
        several = {key: tuple(origin[key]) for key in ("classes", "widths") if key in origin}
        origin = Origin(**{**origin, **several})
        flat = np.stack([table[f"{COLUMN[origin.form]}{name}"].to_numpy() for name in origin.classes], axis=1)
        if flat.dtype != np.float32 or not isinstance(origin.fold, int):
            raise ValueError("values of another type")
        all_ids, all_views = table["id"].to_pylist(), table["view"].to_pylist()
        checksums.check(metadata.get(checksums.KEY), _checksum(metadata["foldcraft"], all_ids, all_views, flat))
        views = tuple(dict.fromkeys(all_views))
        predicted = flat.reshape(len(views), len(flat) // len(views), len(origin.classes))
        ids = np.array(all_ids[: predicted.shape[1]], dtype=str)
        same_order = all_ids == np.tile(ids, len(views)).tolist()
    except FoldcraftError:
        raise
    except Exception as error:  # a reader of damaged files raises errors of every kind
        raise FoldcraftError(
            f"damaged predictions: {said_by(error)}", path, "delete it and run the command again"
        ) from None
    if not same_order:
        raise FoldcraftError("damaged predictions: ids differ between views", path, "delete it and run again")
    return Predictions(ids, views, predicted, origin, baseline)


def check_same(a: Origin, b: Origin) -> None:
    """Make sure that predictions of two origins belong together.

    Raises:
        FoldcraftError: classes, data or folds differ; both are named.
    """
    for what in ("classes", "form", "data", "folds"):
        if getattr(a, what) != getattr(b, what):
            raise FoldcraftError(
                f"{a} and {b} were made for different {what}",
                hint="train both on the same data and folds",
            )


def _check_folds(parts: Sequence[Predictions]) -> None:
    """Make sure that predictions by the folds of one experiment belong together."""
    for part in parts[1:]:
        check_same(parts[0].origin, part.origin)
    if len({part.origin.images for part in parts} - {""}) > 1:
        who = " and ".join(str(part.origin) for part in parts)
        raise FoldcraftError(f"{who} have seen different images", hint="train these folds again on the same images")


def join_folds(parts: Sequence[Predictions], views: Sequence[str]) -> Predictions:
    """One experiment's OOF predictions from those of its folds: each row predicted by the model that never saw it.

    Raises:
        FoldcraftError: parts do not belong together, or share a row.
    """
    _check_folds(parts)
    ids = np.concatenate([part.ids for part in parts])
    if len(set(ids.tolist())) < len(ids):
        raise FoldcraftError("OOF predictions of two folds share rows", parts[0].origin.experiment)
    predicted = np.concatenate([part.of_views(views) for part in parts], axis=1)
    return Predictions(ids, tuple(views), predicted, replace(parts[0].origin, fold=-1))


def average_folds(parts: Sequence[Predictions], views: Sequence[str]) -> Predictions:
    """One experiment's test predictions: the mean, in log space, of what its folds' models say of the same rows.

    Raises:
        FoldcraftError: parts do not belong together, or are of other rows.
    """
    _check_folds(parts)
    for part in parts[1:]:
        if not np.array_equal(parts[0].ids, part.ids):
            raise FoldcraftError("test predictions of two folds are of other rows", parts[0].origin.experiment)
    predicted = parts[0].origin.space.pooled(np.stack([part.of_views(views) for part in parts]))
    baseline = tuple(dict.fromkeys(row for part in parts for row in part.baseline))
    return Predictions(parts[0].ids, tuple(views), predicted, replace(parts[0].origin, fold=-1), baseline)
