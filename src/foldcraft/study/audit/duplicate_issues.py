"""What copies of images mean: for the folds, for the test set, and for labels."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from foldcraft.common.callbacks import Callback
from foldcraft.data.competition import Competition
from foldcraft.study.audit import duplicates
from foldcraft.study.audit.duplicates import BETWEEN, TEST, TRAIN
from foldcraft.study.audit.finding import Finding, ImageRef, Severity

TABLE = "duplicates.csv"
MANY = 0.02  # share of the images from which copies change what a score means


def search(
    data: Competition,
    pixels: tuple[np.ndarray, np.ndarray],
    features: tuple[np.ndarray, np.ndarray] | None,
    callback: Callback,
) -> pd.DataFrame:
    """The pairs of `duplicates.find`."""
    return duplicates.find(*pixels, data.train_ids, data.test_ids, features, data.target.stratum, callback)


def find(pairs: pd.DataFrame, data: Competition, fold: np.ndarray | None = None) -> list[Finding]:
    """All that the pairs say.

    Args:
        fold: frozen fold of each training row (N,); None: there are no folds yet.
    """
    labels = pd.Series(data.target.in_words(data.targets), index=data.train_ids)
    found = [_between(pairs, data, labels), *_within(pairs, data, labels, fold)]
    written = pd.Series(data.target.written, index=data.train_ids)
    found += [_conflicts(pairs, labels, written), _test(pairs)]
    return [finding for finding in found if finding]


def _severity(affected: int, of: int) -> Severity:
    return "serious" if affected > MANY * of else "warning"


def _between(pairs: pd.DataFrame, data: Competition, labels: pd.Series) -> Finding | None:
    chosen = pairs[pairs["where"] == BETWEEN]
    if chosen.empty:
        return None
    test = chosen["id_b"].nunique()
    return Finding(
        "train_test_copies",
        _severity(test, len(data.test_ids)),
        len(chosen),
        f"{test} of {len(data.test_ids)} test images are copies of training images ({_kinds(chosen)})",
        "the test set is easier than new data: its leaderboard may lie above the OOF score",
        TABLE,
        _strips(chosen, labels),
    )


def _within(pairs: pd.DataFrame, data: Competition, labels: pd.Series, fold: np.ndarray | None) -> Iterator[Finding]:
    """Copies among training images: those that folds do, or might, part, and those that they do not."""
    chosen = pairs[pairs["where"] == TRAIN]
    together = pd.Series(data.units if fold is None else fold, index=data.train_ids)
    apart = together.loc[chosen["id_a"]].to_numpy() != together.loc[chosen["id_b"]].to_numpy()
    for name, some in (("copies_apart", chosen[apart]), ("copies_together", chosen[~apart])):
        if some.empty:
            continue
        rows = len(set(some["id_a"]) | set(some["id_b"]))
        told = f"{rows} of {len(data.train_ids)} training images are copies of each other ({_kinds(some)})"
        severity: Severity = "info"
        if name == "copies_together":
            sentence, hint = f"{told} and stay in one fold", "nothing"
        elif fold is None:
            sentence = f"{told} and would come into different folds"
            hint = "src/split.py keeps them in one fold unless folds.merge_duplicates=false"
        else:
            sentence, severity = f"{told} and lie in different folds", _severity(rows, len(data.train_ids))
            hint = "OOF scores are too good by as much as these rows count; delete the folds file and run src/split.py"
        yield Finding(name, severity, len(some), sentence, hint, TABLE, _strips(some, labels))


def _conflicts(pairs: pd.DataFrame, labels: pd.Series, written: pd.Series) -> Finding | None:
    found = duplicates.conflicts(pairs, written)
    if found.empty:
        return None
    image_rows = [
        [ImageRef("train", row.id, labels[row.id]) for row in rows.itertuples()] for _, rows in found.groupby("cluster")
    ]
    return Finding(
        "copies_with_other_labels",
        _severity(len(found), len(labels)),
        len(found),
        f"{len(found)} training images are copies of each other and labelled differently ({len(image_rows)} sets)",
        "at most one label of each set is right: correct the others, or drop the set",
        TABLE,
        image_rows,
    )


def _test(pairs: pd.DataFrame) -> Finding | None:
    chosen = pairs[pairs["where"] == TEST]
    if chosen.empty:
        return None
    sentence = f"{len(chosen)} pairs of test images are copies of each other ({_kinds(chosen)})"
    return Finding(
        "test_copies", "info", len(chosen), sentence, "nothing", TABLE, _strips(chosen, pd.Series(dtype=str))
    )


def _kinds(pairs: pd.DataFrame) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in pairs["kind"].value_counts().items())


def _strips(pairs: pd.DataFrame, labels: pd.Series) -> Sequence[Sequence[ImageRef]]:
    """A strip a pair, the least alike first: these are the ones to look at."""
    parts = {TRAIN: ("train", "train"), BETWEEN: ("train", "test"), TEST: ("test", "test")}
    image_rows = []
    for row in pairs.sort_values("score", kind="stable").itertuples():
        a, b = parts[row.where]
        notes = [str(labels[id_]) if part == "train" else "" for part, id_ in ((a, row.id_a), (b, row.id_b))]
        first = ImageRef(a, row.id_a, f"{row.kind} {row.score:.2f} {notes[0]}".strip())
        image_rows.append([first, ImageRef(b, row.id_b, notes[1])])
    return image_rows
