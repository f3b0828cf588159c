"""What the leaderboard has said so far, beside the out-of-fold scores: do they go together, and which to believe?"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import pearsonr, spearmanr

from foldcraft.common.errors import listing
from foldcraft.metrics import catalogue
from foldcraft.submission import shuffle_check
from foldcraft.submission.ledger import BOARDS
from foldcraft.submission.shuffle_check import ShuffleWarning

ENOUGH = 4  # fewer submissions say nothing about how two scores go together


@dataclass(frozen=True)
class Leaderboard:
    """A leaderboard's scores beside the out-of-fold ones, of the submissions that have both.

    Attributes:
        files: names (N,).
        oof, low, high: out-of-fold scores with their interval, each (N,); NaN where an interval is not known.
        scores: of the leaderboard (N,).
    """

    name: str
    files: tuple[str, ...]
    oof: np.ndarray
    low: np.ndarray
    high: np.ndarray
    scores: np.ndarray
    greater_is_better: bool

    @property
    def outside(self) -> np.ndarray:
        """Whether a leaderboard score lies outside the interval of its out-of-fold score (N,)."""
        return (self.scores < self.low) | (self.scores > self.high)

    @property
    def worse(self) -> np.ndarray:
        """Whether it lies outside on the bad side (N,)."""
        return self.scores < self.low if self.greater_is_better else self.scores > self.high

    @property
    def gaps(self) -> np.ndarray:
        """Out-of-fold minus leaderboard score (N,)."""
        return self.oof - self.scores

    @property
    def together(self) -> tuple[float, float] | None:
        """Pearson's and Spearman's correlation; None of too few, or where either kind of score is always the same."""
        if len(self.files) < ENOUGH or not np.ptp(self.oof) or not np.ptp(self.scores):
            return None
        return float(pearsonr(self.oof, self.scores).statistic), float(spearmanr(self.oof, self.scores).statistic)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of Pearson's correlation, by Fisher's transform."""
        found = pearsonr(self.oof, self.scores).confidence_interval()
        return float(found.low), float(found.high)


@dataclass(frozen=True)
class LeaderboardHistory:
    """The submissions of one competition that were judged by one metric.

    Attributes:
        rows: of the ledger, oldest first, as text.
        doubts: submissions whose rows may be shuffled.
    """

    competition: str
    metric: str
    rows: pd.DataFrame
    doubts: tuple[ShuffleWarning, ...]

    @property
    def greater_is_better(self) -> bool:
        """The direction of the metric; more is better where it is not known."""
        metric = catalogue.known(self.metric)
        return metric.greater_is_better if metric else True

    @property
    def boards(self) -> list[Leaderboard]:
        """The public and the private leaderboard."""
        return [self._board(name) for name in BOARDS]

    def _board(self, name: str) -> Leaderboard:
        columns = ["nested", "nested_low", "nested_high", name]
        numbers = self.rows[columns].apply(pd.to_numeric, errors="coerce")
        both = (numbers["nested"].notna() & numbers[name].notna()).to_numpy()
        files = tuple(self.rows["file"].to_numpy()[both])
        return Leaderboard(
            name, files, *(numbers[column].to_numpy()[both] for column in columns), self.greater_is_better
        )

    def best(self, column: str) -> str | None:
        """The file with the best score in a column; None where there is none."""
        scores = pd.to_numeric(self.rows[column], errors="coerce").to_numpy()
        if np.isnan(scores).all():
            return None
        place = np.nanargmax(scores) if self.greater_is_better else np.nanargmin(scores)
        return str(self.rows["file"].iloc[place])


def read(folder: Path, rows: pd.DataFrame) -> list[LeaderboardHistory]:
    """The standing of each competition and metric in the ledger, in the order of their first submissions.

    Args:
        folder: where the submissions lie.
        rows: the ledger.
    """
    parts = rows.groupby(["competition", "metric"], sort=False)
    return [
        LeaderboardHistory(str(of), str(by), part, tuple(shuffle_check.find_shuffled(folder, part)))
        for (of, by), part in parts
    ]


def findings(standing: LeaderboardHistory) -> Iterator[str]:
    """What there is to say, a line each; the last is advice."""
    for board in standing.boards:
        yield from _together(board)
    yield from _bests(standing)
    for doubt in standing.doubts:
        yield f"warning: {doubt}"
    yield f"advice: {advice(standing)}"


def _together(board: Leaderboard) -> Iterator[str]:
    count = len(board.files)
    if not count:
        return
    if count < ENOUGH:
        yield f"OOF and {board.name}: of {count} with both, a correlation would mean nothing; {ENOUGH} are the least"
    elif board.together is None:
        yield f"OOF and {board.name}: no correlation, as one of the scores is the same for all {count}"
    else:
        (pearson, spearman), (low, high) = board.together, board.interval
        yield (
            f"OOF and {board.name}: Pearson {pearson:.2f} (95 % interval {low:.2f} to {high:.2f}), "
            f"Spearman {spearman:.2f}, of {count} submissions"
        )
    gap = f"{board.gaps.mean():+.4f}"
    if count > 1:
        gap += f" in the mean ({board.gaps.min():+.4f} to {board.gaps.max():+.4f})"
    yield f"OOF - {board.name}: {gap}; {_outside(board)}"


def _outside(board: Leaderboard) -> str:
    out = [file for file, is_out in zip(board.files, board.outside, strict=True) if is_out]
    if not out:
        return f"no {board.name} score lies outside its OOF interval"
    return f"{len(out)} of {len(board.files)} lie outside their OOF interval: {listing(out, 3)}"


def _bests(standing: LeaderboardHistory) -> Iterator[str]:
    by_oof = standing.best("nested")
    for board in standing.boards:
        best = standing.best(board.name)
        if best and by_oof:
            yield (
                f"best by OOF and by {board.name}: {best}"
                if best == by_oof
                else f"best by OOF: {by_oof}; best by {board.name}: {best}"
            )


def advice(standing: LeaderboardHistory) -> str:
    """One line on which score to choose by."""
    if standing.doubts:
        return "clear up the warning first; a submission with shuffled rows makes both scores meaningless"
    board = next((board for board in reversed(standing.boards) if len(board.files)), None)
    if board is None:
        return "choose by the OOF; `python src/infer.py --score FILE public=0.812` enters what the leaderboard says"
    if 2 * board.worse.sum() > len(board.files):
        if board.together is not None and board.interval[0] > 0:
            return f"choose by the OOF: it is too hopeful for {board.name}, but ranks submissions as that does"
        return (
            f"do not trust the OOF yet: {board.name} scores are worse than it promises; look for groups or duplicates "
            "that folds share, and for a test set that is unlike the training set"
        )
    if board.together is not None and board.interval[1] < 0:
        return f"do not trust the OOF yet: the better it is, the worse is {board.name}; what differs in the test set?"
    return f"trust the OOF, unless the leaderboard has many more rows than the {_rows(standing)} that the OOF rests on"


def _rows(standing: LeaderboardHistory) -> str:
    rows = pd.to_numeric(standing.rows["rows"], errors="coerce").max()
    return "" if np.isnan(rows) else f"{rows:.0f}"
