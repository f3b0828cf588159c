"""Do submissions agree as honest ones must? Shuffled rows pass every check of the format, and show in nothing else.

Rows that were shuffled agree with any other submission no better than chance. Honest models that err independently of
each other still agree where both are right: in terms of Cohen's kappa, as far as the product of what each has with the
truth. Real ones share errors and mostly agree more (the least that was measured is 0.89 of the product), so half of it
is where doubt begins. Models of accuracy a and b can disagree on (1 - a) + (1 - b) of the rows at the very most; the
kappa of that lies below the product.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median_high

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from foldcraft.common import checksums
from foldcraft.metrics.scores import METRICS, Metric

MOST = 5  # submissions that one is compared with: the best by their own out-of-fold score
HALF = 0.5
LEAST, ERRORS = 0.2, 3  # where no score says what to expect: doubt begins below 0.2, and at three standard errors
MACRO = ("macro_f1", "balanced_accuracy", "macro_recall")  # by chance they are one over the number of classes


@dataclass(frozen=True)
class SubmittedAnswers:
    """A submission as far as it can be compared.

    Attributes:
        table: as text; with its ids only as long as nobody knows which column they are.
        nested: its out-of-fold score; NaN where it is not known.
    """

    file: str
    table: pd.DataFrame
    metric: Metric
    nested: float

    @property
    def goodness(self) -> float:
        """The score, so that more is better."""
        sign = 1 if self.metric.greater_is_better else -1
        return -np.inf if np.isnan(self.nested) else sign * self.nested

    @cached_property
    def numbers(self) -> np.ndarray:
        """The answers as numbers (N, K)."""
        return self.table.apply(pd.to_numeric, errors="coerce").to_numpy(float)

    @cached_property
    def labels(self) -> np.ndarray:
        """One label a row (N,); of one column a class the largest."""
        names = self.table.columns.to_numpy(str)
        # a file says nothing of its target
        return self.table[names[0]].to_numpy(str) if len(names) == 1 else names[self.numbers.argmax(1)]

    @cached_property
    def are_several(self) -> bool:
        """Are there several labels a row? Columns that sum to one are the probabilities of one label's classes."""
        return len(self.table.columns) > 1 and not np.allclose(self.numbers.sum(1), 1, atol=1e-2)

    @cached_property
    def ranks(self) -> np.ndarray:
        """Ranks of the numbers in each column (N, K), with mean 0 and length 1; all zero where nothing varies."""
        ranks = rankdata(self.numbers, axis=0)
        centred = ranks - ranks.mean(0)
        length = np.linalg.norm(centred, axis=0)
        return centred / np.where(length > 0, length, 1)


@dataclass(frozen=True)
class ShuffleWarning:
    """A submission that agrees too little with the others.

    Attributes:
        agreement: Cohen's kappa of labels, Spearman's correlation of probabilities; 0 is chance.
        least: where doubt begins.
        others: files that it was compared with.
    """

    file: str
    agreement: float
    least: float
    others: tuple[str, ...]

    def __str__(self) -> str:
        them = self.others[0] if len(self.others) == 1 else f"the {len(self.others)} best others"
        return (
            f"{self.file} agrees too little with {them} ({round(self.agreement, 2) + 0:.2f}, where 0 is chance and "
            f"{self.least:.2f} the least that is credible): are its rows shuffled?"
        )


def find_shuffled(folder: Path, rows: pd.DataFrame, only: str | None = None) -> list[ShuffleWarning]:
    """Submissions that agree with the others less than honest ones do.

    The majority decides; of two that do not agree it cannot be told which is wrong, and both are named.

    Args:
        rows: of the ledger, of one competition and metric; files that are gone, changed or of other ids are passed
            over.
        only: the one submission to be judged.
    """
    found = []
    for group in alike([answers for answers in _read_all(folder, rows) if answers is not None]):
        judged = [one for one in group if only is None or one.file == only]
        found += [_doubt(one, [other for other in group if other is not one]) for one in judged]
    return [doubt for doubt in found if doubt is not None]


def _read_all(folder: Path, rows: pd.DataFrame) -> list[SubmittedAnswers | None]:
    entered = rows[rows["metric"].isin(list(METRICS))].drop_duplicates("file", keep="last")
    scores = pd.to_numeric(entered["nested"], errors="coerce")
    return [
        _read(folder / Path(file).name, METRICS[metric], float(score), noted)
        for file, metric, score, noted in zip(
            entered["file"], entered["metric"], scores, entered["content"], strict=True
        )
    ]


def _read(path: Path, metric: Metric, nested: float, noted: str) -> SubmittedAnswers | None:
    try:
        if noted and checksums.checksum(path.read_bytes()) != noted:
            return None
        return SubmittedAnswers(path.name, pd.read_csv(path, dtype=str, keep_default_na=False), metric, nested)
    except (OSError, ValueError):
        return None


def alike(there: Sequence[SubmittedAnswers]) -> list[list[SubmittedAnswers]]:
    """Submissions that have the same ids and columns; in the order of the first of them, and without the ids."""
    groups, left = [], list(there)
    while left:
        first, *rest = left
        keys = [_key(first.table, other.table) for other in rest]
        key = next((name for name in keys if name is not None), None)
        same = [name is not None and name == key for name in keys]
        if key is not None:
            members = [first, *(other for other, fits in zip(rest, same, strict=True) if fits)]
            groups.append([_aligned(member, key, first.table[key]) for member in members])
        left = [other for other, fits in zip(rest, same, strict=True) if not fits]
    return groups


def _aligned(answers: SubmittedAnswers, key: str, ids: pd.Series) -> SubmittedAnswers:
    return replace(answers, table=answers.table.set_index(key).loc[ids].sort_index(axis=1))


def _key(one: pd.DataFrame, other: pd.DataFrame) -> str | None:
    """The column of ids: it holds the same words in both, none twice, in the same order if there is such a column."""
    if set(one.columns) != set(other.columns) or len(one) != len(other):
        return None
    same = [name for name in one if one[name].is_unique and set(one[name]) == set(other[name])]
    ordered = [name for name in same if one[name].tolist() == other[name].tolist()]
    return next(iter([*ordered, *same]), None)


def agreement(one: SubmittedAnswers, other: SubmittedAnswers) -> float:
    """How far two submissions agree on the same rows: 0 as by chance, 1 entirely; NaN where chance knows all answers.

    Cohen's kappa of labels; of probabilities Spearman's correlation, the mean over the columns.
    """
    if one.metric.wants == "labels" and one.are_several:
        pairs = [(one.table[name].to_numpy(str), other.table[name].to_numpy(str)) for name in one.table]
        kappas = [_kappa(*pair) for pair in pairs if (pair[0] != pair[1]).any()]  # what all share may be no answer
        return float(np.nanmean(kappas)) if np.isfinite(kappas).any() else np.nan
    if one.metric.wants == "labels":
        return _kappa(one.labels, other.labels)
    varying = one.ranks.any(0) & other.ranks.any(0)
    return float((one.ranks * other.ranks).sum(0)[varying].mean()) if varying.any() else np.nan


def _kappa(one: np.ndarray, other: np.ndarray) -> float:
    """Cohen's kappa of labels (N,); NaN where chance knows all of them."""
    chance = _chance(one, other)
    return (float(np.mean(one == other)) - chance) / (1 - chance) if chance < 1 else np.nan


def _chance(one: np.ndarray, other: np.ndarray) -> float:
    """The share of rows on which shuffled labels would agree, from the frequencies of the classes."""
    shares = [pd.Series(labels).value_counts(normalize=True) for labels in (one, other)]
    return float(shares[0].mul(shares[1], fill_value=0).sum())


def _doubt(one: SubmittedAnswers, others: Sequence[SubmittedAnswers]) -> ShuffleWarning | None:
    best = sorted(others, key=lambda other: other.goodness, reverse=True)[:MOST]
    agreed = [value for value in (agreement(one, other) for other in best) if np.isfinite(value)]
    if not agreed:
        return None
    typical, least = median_high(agreed), credible(one, best)
    return ShuffleWarning(one.file, typical, least, tuple(other.file for other in best)) if typical < least else None


def credible(one: SubmittedAnswers, others: Sequence[SubmittedAnswers]) -> float:
    """The agreement of `one` with the others below which doubt begins.

    Half of what their out-of-fold scores make one expect, where the score is like a share of right rows. Else what
    chance could just bring about, if the others agree with each other on twice as much.
    """
    shares = one.metric.wants == "labels" and one.metric.bounds == (0, 1) and not one.metric.classes  # f1 is of one
    if shares and not one.are_several and not np.isnan([answers.nested for answers in (one, *others)]).any():
        return HALF * float(np.median([expected_kappa(one, other) for other in others]))
    by_chance = min(LEAST, ERRORS / np.sqrt(len(one.table)))
    among = [[agreement(a, b) for b in others if b is not a] for a in others]
    usual = [median_high(values) for values in among if values and np.isfinite(values).all()]
    return min([by_chance, HALF * median_high(usual)] if usual else [by_chance])


def expected_kappa(one: SubmittedAnswers, other: SubmittedAnswers) -> float:
    """Kappa of two submissions that are as good as their out-of-fold scores say and err independently."""
    chance = _chance(one.labels, other.labels)
    if one.metric.name in MACRO:
        chance = 1 / len(np.union1d(one.labels, other.labels))
    if chance == 1:
        return 0.0
    with_truth = [(score - chance) / (1 - chance) for score in (one.nested, other.nested)]
    return float(np.prod(np.clip(with_truth, 0, 1)))
