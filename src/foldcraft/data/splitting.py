"""Making folds: classes in their share, groups and copies whole. Kept apart from `folds`, which is read more often.

scikit-learn takes a second to import, and nothing but the making of folds needs it.
"""

import warnings

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from foldcraft.common import fingerprint
from foldcraft.common.config import FoldsConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data import label_sets
from foldcraft.data.competition import Competition
from foldcraft.data.folds import Folds
from foldcraft.data.groups import joined_groups
from foldcraft.data.host_files import host_folds
from foldcraft.data.targets.target import Target

# By scheme, and whether there are groups.
SPLITTERS = {
    ("stratified", False): StratifiedKFold,
    ("stratified_group", True): StratifiedGroupKFold,
    ("plain", False): KFold,
    ("plain", True): GroupKFold,
}


def make(
    competition: Competition,
    config: FoldsConfig,
    clusters: pd.Series | None = None,
    subjects: pd.Series | None = None,
) -> Folds:
    """Split the training rows; under every scheme groups stay whole, and no fold is empty.

    Args:
        clusters: cluster by training id; ids of one cluster stay in one fold, with all of their groups.
        subjects: hidden groups, in the same way.

    Raises:
        FoldcraftError: there are fewer rows, or groups, than folds; groups are asked for and there are none.
    """
    if config.column is not None:
        return host_folds.of_column(competition, config, clusters)
    groups, digests = competition.groups, []
    for found in (clusters, subjects):
        merged = found is not None and len(found) > 0
        digests.append(fingerprint.of_rows(zip(found.index, found, strict=True)) if merged else "")
        if merged:
            groups = merged_groups(competition, found, groups)
    if groups is None and config.scheme == "stratified_group":
        raise FoldcraftError("there is no group column", "folds.scheme", "set competition.group")
    _check_counts(competition, config.count, groups)
    strata = competition.target.strata
    scheme = _scheme(competition.target, config, groups is not None)
    if strata.ndim > 1 and scheme != "plain":
        units = competition.train_ids if groups is None else groups
        fold = label_sets.iterative_folds(strata, units, config.count, config.seed)
    else:
        fold = _split(strata if strata.ndim == 1 else strata[:, 0], groups, scheme, config)
    if groups is not None:
        fold = _none_empty(fold, groups, strata, config.count)
    return Folds(competition.train_ids, fold, config.count, scheme, config.seed, competition.fingerprint, *digests)


def _split(strata: np.ndarray, groups: np.ndarray | None, scheme: str, config: FoldsConfig) -> np.ndarray:
    """The fold of each row (N,), by one stratum a row (N,)."""
    fold = np.full(len(strata), -1)
    with warnings.catch_warnings():  # rare classes are told by `balance`
        warnings.simplefilter("ignore", UserWarning)
        splitter = SPLITTERS[scheme, groups is not None]
        made = splitter(n_splits=config.count, shuffle=True, random_state=config.seed)
        for number, (_, rows) in enumerate(made.split(strata, strata, groups)):
            fold[rows] = number
    return fold


def _scheme(target: Target, config: FoldsConfig, grouped: bool) -> str:
    """What the scheme means for these rows; where every class has fewer rows than folds nothing can be stratified."""
    if config.scheme == "plain" or target.most_frequent < config.count:
        return "plain"
    return "stratified_group" if grouped else "stratified"


def _none_empty(fold: np.ndarray, groups: np.ndarray, strata: np.ndarray, count: int) -> np.ndarray:
    """The folds (N,) without an empty one, which `StratifiedGroupKFold` may leave where there are few groups.

    Each empty fold gets a group of the fold with the most groups: the one that leaves classes spread most evenly.
    """
    names, group = np.unique(groups, return_inverse=True)
    of_group = np.zeros(len(names), dtype=fold.dtype)
    of_group[group] = fold
    rows = np.zeros((len(names), strata.shape[1] if strata.ndim > 1 else strata.max() + 1))
    if strata.ndim > 1:
        np.add.at(rows, group, strata)
    else:
        np.add.at(rows, (group, strata), 1)
    for empty in np.setdiff1d(np.arange(count), of_group):
        fullest = np.bincount(of_group, minlength=count).argmax()

        def uneven(one: int, empty: int = empty) -> float:
            moved = of_group.copy()
            moved[one] = empty
            spread = np.zeros((count, rows.shape[1]))
            np.add.at(spread, moved, rows)
            return float((spread.std(0) / rows.sum(0).clip(1)).sum())

        of_group[min(np.flatnonzero(of_group == fullest).tolist(), key=uneven)] = empty
    return of_group[group]


def merged_groups(competition: Competition, clusters: pd.Series, groups: np.ndarray | None = None) -> np.ndarray:
    """Groups (N,) that hold whole groups and whole clusters, named after the unit that comes first in each.

    Args:
        groups: left out: the competition's.
    """
    cluster_of = clusters.to_dict()
    keys = [cluster_of.get(row) for row in competition.train_ids.tolist()]
    return joined_groups(competition.units if groups is None else groups, keys)


def _check_counts(competition: Competition, count: int, groups: np.ndarray | None) -> None:
    if groups is not None and (there := len(np.unique(groups))) < count:
        what = f"fewer groups ({there}) than the {count} folds; rows of one image file are a group too"
        raise FoldcraftError(what, "folds.count", "use fewer folds")
    if len(competition.targets) < count:
        raise FoldcraftError(f"fewer rows than the {count} folds", "folds.count", "use fewer folds")
