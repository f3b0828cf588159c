"""Making folds: classes in their share, groups and copies whole. Kept apart from `folds`, which is read more often.

scikit-learn takes a second to import, and nothing but the making of folds needs it.
"""

import warnings

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

from foldcraft import fingerprint
from foldcraft.competition import Competition
from foldcraft.config import FoldsConfig
from foldcraft.errors import FoldcraftError, listing
from foldcraft.folds import Folds


def make(competition: Competition, config: FoldsConfig, clusters: pd.Series | None = None) -> Folds:
    """Split the training rows.

    Args:
        clusters: cluster by training id; ids of one cluster stay in one fold, with all of their groups.

    Raises:
        FoldcraftError: a class has fewer rows than there are folds; groups are asked for and there are none, or there
            are fewer groups than folds; clusters are given and the scheme knows no groups.
    """
    merged = clusters is not None and len(clusters) > 0
    groups = merged_groups(competition, clusters) if merged else competition.groups
    scheme = config.scheme
    if scheme == "auto":
        scheme = "stratified" if groups is None else "stratified_group"
    if merged and scheme != "stratified_group":
        raise FoldcraftError(
            f"{scheme} folds keep no copies together", "folds.merge_duplicates", "use folds.scheme=auto or false here"
        )
    if groups is None and scheme == "stratified_group":
        raise FoldcraftError("there is no group column", "folds.scheme", "set competition.group")
    _check_counts(competition, config.count, scheme, groups)
    splitter = {"stratified": StratifiedKFold, "stratified_group": StratifiedGroupKFold, "plain": KFold}[scheme]
    fold = np.full(len(competition.targets), -1)
    with warnings.catch_warnings():  # classes with fewer groups than folds are told by `balance`
        warnings.simplefilter("ignore", UserWarning)
        parts = splitter(n_splits=config.count, shuffle=True, random_state=config.seed).split(
            competition.targets, competition.targets, groups
        )
        for number, (_, rows) in enumerate(parts):
            fold[rows] = number
    digest = fingerprint.of_rows(zip(clusters.index, clusters, strict=True)) if merged else ""
    return Folds(competition.train_ids, fold, config.count, scheme, config.seed, competition.fingerprint, digest)


def merged_groups(competition: Competition, clusters: pd.Series) -> np.ndarray:
    """Groups (N,) that hold whole groups and whole clusters, named after the unit that comes first in each."""
    units, unit = np.unique(competition.units, return_inverse=True)
    cluster = pd.Series(competition.train_ids).map(clusters).to_numpy()
    number, names = pd.factorize(cluster)
    known = number >= 0
    size = len(units) + len(names)
    links = coo_array((np.ones(known.sum()), (unit[known], len(units) + number[known])), shape=(size, size))
    part = connected_components(links, directed=False)[1][unit]
    return units[pd.Series(unit).groupby(part).transform("min").to_numpy()]


def _check_counts(competition: Competition, count: int, scheme: str, groups: np.ndarray | None) -> None:
    rows = np.bincount(competition.targets, minlength=len(competition.classes))
    small = [f"{name!r} ({n})" for name, n in zip(competition.classes.names, rows, strict=True) if n < count]
    if scheme != "plain" and small:
        raise FoldcraftError(
            f"fewer rows than the {count} folds in class {listing(small)}",
            "folds.count",
            "use fewer folds, merge classes, or folds.scheme=plain",
        )
    if groups is not None and scheme == "stratified_group" and len(np.unique(groups)) < count:
        raise FoldcraftError(f"fewer groups than the {count} folds", "folds.count", "use fewer folds")
    if len(competition.targets) < count:
        raise FoldcraftError(f"fewer rows than the {count} folds", "folds.count", "use fewer folds")
