"""Hidden groups: several images of one subject, as their names and their features suggest. A proposal, no more."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import median_abs_deviation, norm

from foldcraft.study.audit.group_file import COLUMNS
from foldcraft.study.audit.image_hash import BLOCK, Stack, chunks, reduced

SPLIT = re.compile(r"[_\-./ ]+")
LARGEST = 0.2  # share of the rows beyond which what ids have in common is no subject
FEWEST = 50  # rows below which features say nothing
PRUDENT = 0.001  # share of unrelated pairs that may be as alike as those that are called related
DRAWN = 40_000  # such pairs


@dataclass(frozen=True)
class Proposal:
    """Which images may show one subject.

    Attributes:
        table: columns `id`, `group`, `evidence` (ids or features); images that stand alone are left out.
        says: what was found, and how certain it is, in a sentence.
    """

    table: pd.DataFrame
    says: str


def propose(
    train_ids: Sequence[str],
    features: np.ndarray | None = None,
    groups: Sequence[object] | None = None,
) -> Proposal:
    """Groups that the ids suggest, else those that the features suggest.

    Args:
        features: frozen features (N, D) of the training images.
        groups: the groups that are known; only what goes beyond them is proposed.
    """
    ids = np.asarray(train_ids, dtype=str)
    by_name = by_ids(ids)
    if by_name is not None:
        return _told(ids, *by_name, "ids", groups)
    if features is not None and len(ids) >= FEWEST:
        found, gap = by_features(features)
        return _told(ids, found, gap, "features", groups)
    return Proposal(pd.DataFrame(columns=COLUMNS), "ids show no pattern, and there are no features to look at")


def by_ids(ids: np.ndarray) -> tuple[np.ndarray, str] | None:
    """What the first parts of the ids have in common (N,), with that pattern in words; None where it tells nothing.

    Ids are cut at `_ - . /` and blanks, endings such as .jpg left out. The longest beginning that makes groups counts:
    several rows in most, and none that holds a fifth of all.
    """
    stems = [re.sub(r"\.[A-Za-z]{3,4}$", "", name) for name in ids]
    parts = [SPLIT.split(stem) for stem in stems]
    for depth in range(max(map(len, parts), default=1) - 1, 0, -1):
        start = np.array(
            ["_".join(part[:depth]) if len(part) > depth else stem for part, stem in zip(parts, stems, strict=True)]
        )
        _, number, sizes = np.unique(start, return_inverse=True, return_counts=True)
        if (sizes[number] > 1).mean() > 0.5 and sizes.max() <= max(2, LARGEST * len(ids)):
            return number, f"the first {depth} parts of the ids"
    return None


def by_features(features: np.ndarray) -> tuple[np.ndarray, str]:
    """Images tied to each other by being nearest neighbours both ways, and closer than unrelated ones are (N,).

    The line is drawn where one in a thousand pairs of strangers would be as close. Strangers are pairs drawn by lot;
    their middle and median deviation tell, so that the few of one subject among them do not matter.
    """
    vectors = reduced(Stack([features]), np.arange(len(features)))
    a, b = np.random.default_rng(0).integers(len(vectors), size=(2, DRAWN))
    strangers = np.einsum("nd,nd->n", vectors[a[a != b]], vectors[b[a != b]])
    line = float(np.median(strangers) + norm.isf(PRUDENT) * median_abs_deviation(strangers, scale="normal"))
    nearest, alike = np.empty(len(vectors), int), np.empty(len(vectors))
    for rows in chunks(len(vectors), max(1, BLOCK // len(vectors))):
        found = vectors[rows] @ vectors.T
        found[np.arange(len(rows)), rows] = -2
        nearest[rows], alike[rows] = found.argmax(1), found.max(1)  # of rows, not of classes
    rows = np.flatnonzero((alike > line) & (nearest[nearest] == np.arange(len(vectors))))
    links = coo_array((np.ones(len(rows)), (rows, nearest[rows])), shape=(len(vectors),) * 2)
    return connected_components(links, directed=False)[1], f"nearest neighbours with a cosine above {line:.2f}"


def _told(ids: np.ndarray, number: np.ndarray, why: str, evidence: str, groups: Sequence[object] | None) -> Proposal:
    """The table and the sentence; of groups that known ones hold already nothing is said."""
    frame = pd.DataFrame({"id": ids, "group": number})
    frame["beyond"] = True
    if groups is not None:
        frame["known"] = np.asarray(groups, dtype=str)
        frame["beyond"] = frame.groupby("group")["known"].transform("nunique") > 1
    frame = frame[frame["beyond"] & (frame.groupby("group")["id"].transform("size") > 1)]
    frame = frame.assign(group=frame.groupby("group")["id"].transform("min"), evidence=evidence)
    table = frame[COLUMNS].sort_values(["group", "id"], ignore_index=True)
    beyond = " that no known group holds" if groups is not None else ""
    if table.empty:
        return Proposal(table, f"no hidden groups{beyond}: by {why}")
    sure = {
        "ids": "quite certain if the ids were made by person, photo or plate, worthless if by class: look at a few",
        "features": "uncertain: images that look alike need not be of one subject; look at them before you believe it",
    }[evidence]
    found = f"{len(table)} images in {table['group'].nunique()} possible groups{beyond}"
    return Proposal(table, f"{found}, by {why}; {sure}")
