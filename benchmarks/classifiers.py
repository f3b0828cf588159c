"""Other classifiers on the features of frozen nets, for comparison with the product's ridge.

Each sees what ridge sees: all features standardised, every block with the same share, in the coordinates of the rows
that are learned from. Its strength is the one whose out-of-fold log-loss is least, at the temperature that suits it.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldcraft.common.config import ProbeConfig
from foldcraft.models.kernel_ridge import Products
from foldcraft.predictions import linear_probe
from foldcraft.predictions.linear_probe import Rows

Score = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # rows, their labels, others: scores (n, K)
ALL = ProbeConfig(stages="all")


def _logistic(c: float) -> Score:
    def score(rows: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
        fitted = LogisticRegression(C=c, max_iter=300).fit(rows, labels)
        return _whole(fitted.predict_log_proba(asked), fitted.classes_)

    return score


def _discriminant(shrinkage: float) -> Score:
    def score(rows: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
        fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(rows, labels)
        return _whole(fitted.predict_log_proba(asked), fitted.classes_)

    return score


def _rbf(width: float, strength: float) -> Score:
    def score(rows: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
        classes, which = np.unique(labels, return_inverse=True)
        size = 2 * rows.var(0).sum()  # mean squared distance of two rows
        fitted = KernelRidge(kernel="rbf", gamma=1 / (width * size), alpha=strength)
        said = fitted.fit(rows, np.eye(len(classes))[which]).predict(asked)
        return _whole(log_softmax(said / max(1e-6, said.std()), axis=1), classes)

    return score


def _whole(scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """With a column for every class (N, K), where a fold lacks one."""
    found = np.full((len(scores), int(classes.max()) + 1), scores.min() - 1)
    found[:, classes] = scores
    return found


WAYS: dict[str, list[Score]] = {
    "logistic": [_logistic(c) for c in (1, 10, 100, 1000, 10000)],
    "discriminant": [_discriminant(s) for s in (0.003, 0.01, 0.03, 0.1, 0.3, 0.6)],
    "rbf": [_rbf(width, strength) for width in (1.0, 3.0, 10.0) for strength in (1e-3, 1e-2, 1e-1)],
}


def answers(rows: Rows, asked: Sequence[np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of the plain rows (N, K), out of fold, and of those asked (M, K), the folds' pooled.

    Args:
        asked: features (M, D) of each part.
        name: a key of WAYS.
    """
    learned, other = _coordinates(rows, asked)
    space, best = rows.space, None
    for score in WAYS[name]:
        oof = np.full((len(rows.targets), space.width), -30.0)
        of_folds = []
        for own, places, labels in _folds(rows):
            said = score(learned[places], labels, np.concatenate([learned[: len(rows.targets)][own], other]))
            oof[own, : said.shape[1]] = said[: own.sum()]
            of_folds.append(said[own.sum() :])
        warm = space.fit_temperature(oof, rows.targets)
        oof = space.at_temperature(oof, warm)
        if best is None or space.loss(oof, rows.targets) < best[0]:
            later = space.pooled(np.stack([space.at_temperature(each, warm) for each in of_folds]))
            best = space.loss(oof, rows.targets), oof, later
    assert best is not None
    return best[1], best[2]


def _folds(rows: Rows) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    """Of each fold its own rows, the places of what it learns from, copies with it, and their labels."""
    for fold in range(int(rows.fold.max()) + 1):
        own = rows.fold == fold
        places = np.concatenate([np.flatnonzero(~own) + k * len(own) for k in range(len(rows.learned))])
        yield own, places, rows.learned_truth[places]


def _coordinates(rows: Rows, asked: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All that is learned from, views after each other (R, d), and what is asked (M, d), along their principal axes."""
    prepared = linear_probe.prepare(rows, ALL)
    products = Products.none(len(rows.targets) * len(rows.learned), len(asked[0]))
    for part, scaling in zip(prepared.parts, prepared.scalings, strict=True):
        products.add(scaling(part.learned(rows)), scaling(part.of(asked)))
    values, vectors = np.linalg.eigh(products.learned.numpy().astype(np.float64))
    kept = values > values[-1] * 1e-6
    axes = vectors[:, kept] / np.sqrt(values[kept])
    return products.learned.numpy() @ axes, products.judged.numpy() @ axes
