"""From predictions of images to those of answers: what is stored is an image's, what is judged an answer's."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foldcraft.common.errors import FoldcraftError, listing, shorten
from foldcraft.common.rows import positions
from foldcraft.data.competition import Competition
from foldcraft.data.host_files.answers import Answering
from foldcraft.metrics.spaces import ClassSpace, Space
from foldcraft.predictions.store import Predictions

AUTO = "auto"
WAYS = ("mean", "log_mean", "max", "top_k_mean")  # simplest first


@dataclass(frozen=True)
class AnswerLooks:
    """Predictions of some answers.

    Attributes:
        answers: their places (A,), in the order of their first rows.
        first: place of the first row of each among those that were asked about (A,).
        by_way: of each way to combine images, float32 (V, A, W).
    """

    answers: np.ndarray
    first: np.ndarray
    by_way: tuple[np.ndarray, ...]


def ways_of(answering: Answering | None, space: Space) -> tuple[str, ...]:
    """The ways to combine that are tried; the first is used where nothing is chosen."""
    if answering is None or answering.combine != AUTO:
        return (answering.combine if answering else WAYS[0],)
    alike = {"log_mean"} if space.form == "values" else set()
    alike |= {"top_k_mean"} if answering.k == 1 or answering.k >= answering.most else set()
    return tuple(way for way in WAYS if way not in alike)


def view_names(views: Sequence[str], ways: Sequence[str]) -> tuple[str, ...]:
    """Views of images, once for each way to combine these; those of the first way bear their plain names."""
    return (*views, *(f"{view} ({way})" for way in ways[1:] for view in views))


def of_rows(competition: Competition, predicted: np.ndarray, rows: np.ndarray) -> AnswerLooks:
    """What predictions (V, n, W) of some training rows (n,) say of their answers; of these, only those rows count."""
    made, space = competition.answering, competition.space
    if made is None:
        return AnswerLooks(rows, np.arange(len(rows)), (predicted,))
    answers, first, answer_of_row = _places(made.train[rows])
    how = (made.k, made.positive)
    found = [combine(space, predicted, answer_of_row, way, *how) for way in ways_of(made, space)]
    return AnswerLooks(answers, first, tuple(found))


def places(competition: Competition, rows: np.ndarray) -> np.ndarray:
    """The answers of training rows (n,), in the order of their first rows; the rows where each is one."""
    return rows if competition.answering is None else _places(competition.answering.train[rows])[0]


def score(competition: Competition, predicted: np.ndarray, rows: np.ndarray | None = None) -> float:
    """In the metric, an answer at a time, of predictions (n, W) of all training rows or of some; or in views (V, n, W).

    Images are combined view by view, as `oof.load` does it; where the way is chosen by infer, by mean.
    """
    space, whole = competition.space, predicted.ndim == 2
    if competition.answering is None:
        return competition.score(predicted if whole else space.pooled(predicted), rows)
    rows = np.arange(len(competition.train_ids)) if rows is None else rows
    found = of_rows(competition, predicted[None] if whole else predicted, rows)
    first = found.by_way[0]
    return competition.answers.score(first[0] if whole else space.pooled(first), found.answers)


def check_whole(competition: Competition, rows: np.ndarray, where: object) -> None:
    """See that training rows hold all images of the answers that they are of.

    Raises:
        FoldcraftError: some are missing.
    """
    if (made := competition.answering) is None:
        return
    here, whole = (np.bincount(part, minlength=len(made.train_ids)) for part in (made.train[rows], made.train))
    if len(torn := made.train_ids[(here > 0) & (here < whole)]):
        names = listing([shorten(name, 30) for name in torn], 3)
        raise FoldcraftError(f"holds some of the images of an answer without the others: {names}", where)


def of_test(competition: Competition, found: Predictions) -> Predictions:
    """What predictions of all test images say of their answers, the views once for each way to combine.

    An image that could not be read counts where there is no other of its answer; such an answer is the baseline's.
    """
    made, space = competition.answering, competition.space
    if made is None:
        return found
    if set(found.ids.tolist()) != set(competition.test_ids.tolist()):
        hint = "`python src/infer.py` predicts them anew"
        raise FoldcraftError("test predictions are of other rows than there are now", found.origin, hint)
    predicted = found.predicted[:, positions(found.ids, competition.test_ids)]
    blind = np.isin(competition.test_ids, list(found.baseline))
    said, seen = of_images(made, space, predicted, made.test, blind)
    names, baseline = view_names(found.views, ways_of(made, space)), tuple(made.test_ids[~seen].tolist())
    return Predictions(made.test_ids, names, said, found.origin, baseline)


def of_images(
    made: Answering, space: Space, predicted: np.ndarray, answer_of_row: np.ndarray, blind: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What predictions (V, N, W) of images say of their answers, and of which answers an image could be read (A,).

    The views come once for each way to combine. A blind image counts where there is no other of its answer.

    Args:
        answer_of_row: place of each image's answer (N,), from 0 to A - 1, each there.
        blind: which images could not be read (N,), a mask.
    """
    seen = np.bincount(answer_of_row, ~blind) > 0
    used = ~blind | ~seen[answer_of_row]
    about = (predicted[:, used], answer_of_row[used])
    parts = [combine(space, *about, way, made.k, made.positive) for way in ways_of(made, space)]
    return np.concatenate(parts), seen


def combine(
    space: Space, predictions: np.ndarray, answer_of_row: np.ndarray, how: str, k: int = 3, positive: int = 1
) -> np.ndarray:
    """Predictions (V, A, W) of answers from those (V, N, W) of their images.

    `mean` is that of probabilities, or of values; `log_mean` of what is stored: log-probabilities or log-odds; `max`
    the greatest probability or value of each column; `top_k_mean` the mean of the k greatest. Of two classes these two
    look for the positive one; of more, each class has its greatest, and they are made to sum to one.

    Args:
        answer_of_row: place of each row's answer (N,), from 0 to A - 1, each there.
    """
    order = np.argsort(answer_of_row, kind="stable")
    counts = np.bincount(answer_of_row)
    if (counts == 1).all():  # nothing to combine; to the last bit what is stored
        return predictions[:, order]
    rows, starts = predictions[:, order].astype(np.float64), np.cumsum(counts) - counts
    if how in ("max", "top_k_mean"):
        found = _greatest(space, rows, starts, counts, 1 if how == "max" else k, positive)
    elif how == "log_mean":
        found = space.normalised(np.add.reduceat(rows, starts, axis=1) / counts[:, None])
    else:
        found = space.mixed_runs(rows, starts)
    return found.astype(predictions.dtype)


def _greatest(
    space: Space, rows: np.ndarray, starts: np.ndarray, counts: np.ndarray, k: int, positive: int
) -> np.ndarray:
    """Mean of the k greatest of each column, or of the rows that are surest of the positive one of two classes."""
    is_of_two = isinstance(space, ClassSpace) and space.width == 2
    answer = np.repeat(np.arange(len(counts)), counts)
    kept = np.minimum(counts, k)
    parts = []
    for view in rows:
        by = view[:, positive : positive + 1] if is_of_two else view
        ranked = np.lexsort((-by, np.broadcast_to(answer[:, None], by.shape)), axis=0)
        used = np.arange(len(view)) - np.repeat(starts, counts) < np.repeat(kept, counts)
        chosen = np.take_along_axis(view, np.broadcast_to(ranked, view.shape)[used], axis=0)
        parts.append(space.mixed_runs(chosen[None], np.cumsum(kept) - kept)[0])
    return space.normalised(np.stack(parts))


def _places(answers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which answers there are, in the order of their first rows; these rows; the place of each row's among them."""
    _, first, inverse = np.unique(answers, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return answers[first[order]], first[order], place[inverse]
