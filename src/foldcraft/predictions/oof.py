"""Out-of-fold predictions beside the truth: what they are worth, and the mistakes in them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.data.competition import Competition
from foldcraft.metrics.intervals import bootstrap_interval
from foldcraft.predictions import answers, store
from foldcraft.predictions.store import Origin, Predictions


@dataclass(frozen=True)
class OOF:
    """Rows of one experiment, each predicted by the model that never learned from it.

    Where several images make one answer these are answers, and so is what is asked of them.

    Attributes:
        competition: of the answers.
        rows: their places among the competition's training rows (N,), fold by fold.
        folds: the fold of each (N,).
        views: names of the V views.
        predicted: float32 (V, N, K).
        origin: what they were made by; its fold is -1.
        ways: names of the ways to combine images; `predicted` is by the first.
        others: by each of the others, as `predicted`.
    """

    competition: Competition
    rows: np.ndarray
    folds: np.ndarray
    views: tuple[str, ...]
    predicted: np.ndarray
    origin: Origin
    ways: tuple[str, ...] = ("mean",)
    others: tuple[np.ndarray, ...] = ()

    def at(self, rows: np.ndarray) -> "OOF":
        """The same for some of its rows, in their order; they are places among the training rows (M,)."""
        place = np.full(len(self.competition.train_ids), -1)
        place[self.rows] = np.arange(len(self.rows))
        kept = place[rows]
        others = tuple(each[:, kept] for each in self.others)
        return replace(self, rows=rows, folds=self.folds[kept], predicted=self.predicted[:, kept], others=others)

    @property
    def all_views(self) -> tuple[str, ...]:
        """Names of the views, once for each way to combine images."""
        return answers.view_names(self.views, self.ways)

    @property
    def all_predicted(self) -> np.ndarray:
        """Predictions of `all_views`, float32 (V * ways, N, K)."""
        return np.concatenate([self.predicted, *self.others]) if self.others else self.predicted

    @property
    def ids(self) -> np.ndarray:
        """Ids of the rows (N,)."""
        return self.competition.train_ids[self.rows]

    @cached_property
    def targets(self) -> np.ndarray:
        """The truth: class indices (N,) of a single label, else as the target has it (N, ·)."""
        return self.competition.targets[self.rows]

    @property
    def units(self) -> np.ndarray:
        """Groups of the rows (N,)."""
        return self.competition.units[self.rows]

    @cached_property
    def mean(self) -> np.ndarray:
        """Predictions (N, K), the mean over the views."""
        return self.competition.space.pooled(self.predicted)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """What a metric is given (N, K): probabilities, or values."""
        return self.competition.space.scored(self.mean)

    @property
    def answered(self) -> np.ndarray:
        """What is said, as the truth is written: the likeliest classes (N,), else (N, ·)."""
        return self.competition.target.answered(self.mean)

    @cached_property
    def score(self) -> float:
        """In the competition's metric."""
        return self.competition.score(self.mean, self.rows)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the score, by a bootstrap of whole groups."""
        weights = self.competition.score_weights
        weights = None if weights is None else weights[self.rows]
        metric = self.competition.metric
        return bootstrap_interval(metric, self.targets, self.probabilities, self.units, row_weights=weights)

    @cached_property
    def losses(self) -> np.ndarray:
        """How bad each row is (N,)."""
        return self.competition.target.row_losses(self.mean, self.targets)

    def worst(self, most: int) -> np.ndarray:
        """Places of rows in which anything is wrong (M,), M at most `most`, by their loss, the greatest first."""
        errors = self.competition.space.errors(self.mean, self.targets)
        wrong = np.flatnonzero((np.nan_to_num(errors) != 0).any(1))
        return wrong[np.argsort(-self.losses[wrong], kind="stable")[:most]]


def load(files: Sequence[Path], views: Sequence[str] | None, competition: Competition, name: str | None = None) -> OOF:
    """Read the OOF files of some folds of one experiment; images become answers here.

    Args:
        views: those that are wanted; None: all that the first fold has.
        name: what the experiment is called in messages; left out: as in its files.

    Raises:
        FoldcraftError: a file is missing or damaged, lacks a view, or is of other ids, labels, groups or classes; files
            do not belong together.
    """
    joined, folds = of_images(files, views, competition, name)
    rows = competition.train_rows(joined.ids)
    answers.check_whole(competition, rows, files[0].parent.parent)
    found = answers.of_rows(competition, joined.predicted, rows)
    ways = answers.ways_of(competition.answering, competition.space)
    first, *others = found.by_way
    folds = folds[found.first]
    return OOF(competition.answers, found.answers, folds, joined.views, first, joined.origin, ways, tuple(others))


def of_images(
    files: Sequence[Path], views: Sequence[str] | None, competition: Competition, name: str | None = None
) -> tuple[Predictions, np.ndarray]:
    """The same before images become answers: predictions of N images, and the fold of each (N,).

    Raises:
        FoldcraftError: as `load`.
    """
    parts = [store.read(file) for file in files]
    if name:
        parts = [replace(part, origin=replace(part.origin, experiment=name)) for part in parts]
    wanted = parts[0].views if views is None else tuple(views)
    for file, part in zip(files, parts, strict=True):
        if lacking := [view for view in wanted if view not in part.views]:
            hint = "`python src/infer.py` makes them, or set tta.views to those there are"
            raise FoldcraftError(f"has no predictions for view {lacking[0]!r}", file, hint)
    joined = store.join_folds(parts, wanted)
    if (joined.origin.data, joined.origin.classes) != (competition.fingerprint, competition.classes.names):
        raise FoldcraftError("was predicted for other ids, labels or groups", files[0], "train the fold again")
    return joined, np.concatenate([np.full(len(part.ids), part.origin.fold) for part in parts])


def common_rows(experiments: Sequence[OOF]) -> np.ndarray:
    """Training rows that all of some experiments have predicted, in the first one's order (M,).

    Raises:
        FoldcraftError: they were made for other data, folds or classes, or have no row in common.
    """
    for other in experiments[1:]:
        store.check_same(experiments[0].origin, other.origin)
        if not np.array_equal(experiments[0].competition.train_ids, other.competition.train_ids):
            what = f"{experiments[0].origin} and {other.origin} make answers of other images"
            raise FoldcraftError(what, "competition.answer.by", "give all the same")
    common = experiments[0].rows
    for other in experiments[1:]:
        common = common[np.isin(common, other.rows)]
    if not len(common):
        names = ", ".join(each.origin.experiment for each in experiments)
        raise FoldcraftError(f"no row is predicted by all of {names}", hint="train the same folds of each")
    return common


def load_complete(config: Config, competition: Competition) -> tuple[dict[str, np.ndarray], list[str]]:
    """Every experiment of a competition of which all folds are done.

    Returns:
        Log-probabilities (N, K) of all training rows, or answers, by name, the mean over all views; and why others
        are left out.
    """
    complete: dict[str, np.ndarray] = {}
    count = len(competition.answers.train_ids)
    left_out: list[str] = []
    manifests = (config.runs / config.competition.name).glob("*/fold*/manifest.json")
    for folder in sorted({path.parent.parent for path in manifests}):
        if config.blend_file(folder.name).is_file():
            continue  # a stored blend says nothing of training rows
        try:
            found = load(
                [path.parent / "oof.parquet" for path in sorted(folder.glob("fold*/manifest.json"))], None, competition
            )
        except FoldcraftError as error:
            left_out.append(str(error))
            continue
        if len(found.rows) < count:
            left_out.append(f"{folder.name} has folds that are not trained yet")
        else:
            complete[folder.name] = found.at(np.arange(count)).mean
    return complete, left_out
