"""Groups that are set aside to judge by, and a share of the others to learn from."""

import sys
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.study.diagnose import some_groups


def hide(
    units: np.ndarray, targets: np.ndarray, share: float, draw: int, parts: int = 4, most: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from, and hidden rows; no group has rows in both. Hidden are the same for all shares.

    Args:
        units: the group of each row (N,).
        targets: class index of each row (N,).
        share: of the groups that are not hidden.
        parts: one of so many is hidden.
        most: rows that are hidden; those of hidden groups beyond that are in neither part.
    """
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=draw)
    known, hidden = next(splitter.split(targets, targets, units))
    hidden = np.sort(np.random.default_rng(draw).permutation(hidden)[:most])
    return known[some_groups(units[known], targets[known], share, draw)], hidden
