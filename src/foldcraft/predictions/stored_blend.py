"""A blend that is kept as a teacher, on disk: `runs/<competition>/<name>/` with what it says of each test image.

A folder for each fold, as an experiment has it, with `test.parquet` and, last, `manifest.json`, but without a model: a
fold is made from its members' models of that fold. Who makes it, and by which rows, is in `ensemble/stored_blend`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from foldcraft.common import checksums, fingerprint
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.paths import FoldFolder
from foldcraft.predictions import store
from foldcraft.predictions.store import Predictions

VIEW = "blend"  # what its predictions are stored as: the views of its members are combined in them
AGAIN = "store the blend again, under another name"


def content_of(predictions: Predictions) -> str:
    """Digest of what is said of which test image."""
    said = np.ascontiguousarray(predictions.predicted, np.float32).tobytes()
    return fingerprint.of_values([predictions.ids.tolist(), fingerprint.of_bytes(said)])


def model_of(fold: int, members: Sequence[Mapping[str, Any]], content: str) -> str:
    """What stands for the fingerprint of weights: a digest of the members' models of that fold and of what is said.

    Args:
        members: as `lineage.entry_of` has them.
    """
    return fingerprint.of_values([fold, [[each["experiment"], each["model"]] for each in members], content])


def write(folder: FoldFolder, predictions: Predictions, manifest: Mapping[str, Any]) -> None:
    """Write a fold; it is done when its manifest is there, which comes last."""
    store.write(folder.test, predictions)
    checksums.write_json(folder.manifest, manifest, indent=1)


def imbalance_of(folder: FoldFolder) -> str:
    """How rare classes were treated in the training of its members.

    Raises:
        FoldcraftError: the manifest is damaged.
    """
    found = folder.read_manifest().get("imbalance")
    if not isinstance(found, str):
        raise FoldcraftError("damaged manifest of a stored blend: no imbalance", folder.manifest, AGAIN)
    return found


def check(folder: FoldFolder, predictions: Predictions) -> None:
    """See that predictions are those that the fold's manifest was written for.

    Raises:
        FoldcraftError: they are not.
    """
    manifest = folder.read_manifest()
    made_of = model_of(folder.fold, manifest.get("teachers", []), content_of(predictions))
    if made_of != manifest.get("fingerprints", {}).get("model"):
        raise FoldcraftError("these are not the predictions that its manifest was written for", folder.test, AGAIN)
