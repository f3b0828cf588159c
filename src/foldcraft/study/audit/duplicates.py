"""Images that are there twice: exact copies, others that were resized, re-compressed, flipped, brightened or cropped.

Candidates come from sketches of the pixels and from frozen features; each is compared pixel by pixel. How well two
images must agree is not fixed: it follows from how well images of these data agree that are no copies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from foldcraft.common.callbacks import Callback
from foldcraft.common.errors import FoldcraftError, listing
from foldcraft.study.audit import image_hash
from foldcraft.study.audit.image_hash import Agreement, GreyImages, ImageHashes, Stack, agreement, chunks, reduced

COLUMNS = ["id_a", "id_b", "where", "kind", "score"]
TRAIN, BETWEEN, TEST = "train-train", "train-test", "test-test"
BY_SKETCH = 4  # candidates for each image
TO_ALIGN = 2  # of these, and as many by features, that are moved and scaled as well
SAMPLE = 1500  # images whose likeness to those of other classes is measured
EXPECTED = 0.5  # pairs that are no copies, among all that are found
FEWEST = 20  # images of which a quantile says anything


@dataclass(frozen=True)
class Null:
    """How well images agree that are no copies.

    Attributes:
        nearest: evidence of all images with whatever is most like them; some of these are copies.
        others: evidence of images with those of other classes, which are no copies; empty where there are no labels.
    """

    nearest: np.ndarray
    others: np.ndarray

    def threshold(self) -> float:
        """Evidence that half a pair in all the data would reach by chance.

        The tail is taken for exponential beyond its median. Where labels are known its shape is that of images of
        other classes, moved and stretched until its lower part is that of all images: copies, of which there may be
        many, are then not taken for chance.
        """
        if len(self.nearest) < FEWEST:
            return np.inf
        if len(self.others) >= FEWEST:
            low, middle, half, upper = np.quantile(self.others, [0.1, 0.4, 0.5, 0.75])
            wanted_low, wanted_middle = np.quantile(self.nearest, [0.1, 0.4])
            stretch = max(1.0, (wanted_middle - wanted_low) / max(middle - low, 1e-6 * abs(middle)))
            half, upper = wanted_low + stretch * (half - low), wanted_low + stretch * (upper - low)
        else:
            half, upper = np.quantile(self.nearest, [0.5, 0.75])
        scale = (upper - half) / np.log(2)
        return float(half + scale * np.log(max(len(self.nearest) / (2 * EXPECTED), 2)))


def find(
    train_pixels: np.ndarray,
    test_pixels: np.ndarray,
    train_ids: Sequence[str],
    test_ids: Sequence[str],
    features: tuple[np.ndarray, np.ndarray] | None = None,
    labels: Sequence[object] | None = None,
    callback: Callback | None = None,
) -> pd.DataFrame:
    """All pairs of images that are copies of each other, the surest first.

    Of more than two equal images each is paired with the first alone; `clusters` puts them together.

    Args:
        train_pixels, test_pixels: uint8 (N, S, S, 3), whole images made square ("squash"); 64 pixels are enough. May be
            maps of files: they are read a few images at a time.
        features: frozen features of both, (N, D) each; without them other crops of an image are easily missed.
        labels: of the training images; they tell how alike images are that are no copies.

    Returns:
        Columns `id_a`, `id_b`, `where` (train-train, train-test, test-test; the training image comes first), `kind`
        and `score`, from 0 to 1. Kinds: exact (the same pixels), hash (the same image stored in another way), flipped
        (turned or mirrored as well), cropped (moved or scaled as well). `attrs["notes"]` says in words how the line
        was drawn.
    """
    truth = np.full(len(train_ids) + len(test_ids), -1)
    if labels is not None:
        truth[: len(train_ids)] = pd.factorize(np.asarray(labels))[0]
    search = _Search(Stack([train_pixels, test_pixels]), truth, callback or Callback())
    search.copies()
    search.cropped(features)
    ids = np.array([*train_ids, *test_ids], dtype=object)
    found = search.pairs
    table = pd.DataFrame(
        {
            "id_a": ids[found["a"]],
            "id_b": ids[found["b"]],
            "where": _where(found, len(train_ids)),
            "kind": found["kind"],
            "score": found["score"].clip(0, 1).round(4),
        },
        columns=COLUMNS,
    )
    table = table.sort_values("score", ascending=False, kind="stable", ignore_index=True)
    table.attrs["notes"] = search.notes
    return table


def _where(found: pd.DataFrame, train: int) -> list[str]:
    return [(TRAIN, BETWEEN, TEST)[number] for number in (found["a"] >= train).astype(int) + (found["b"] >= train)]


class _Search:
    """Pairs of rows found so far; training rows come first.

    Attributes:
        rows: those that are compared: of equal images one, and none that are flat.
    """

    def __init__(self, stack: Stack, truth: np.ndarray, callback: Callback) -> None:
        self.callback, self.notes = callback, []
        self.unique, equal = _equal(stack)
        self.pairs = _table(equal, "exact", 1.0)
        flat = image_hash.flat(GreyImages(stack, self.unique))
        if flat.any():
            self.notes.append(f"{flat.sum()} images are next to empty and were compared for equal pixels only")
        self.rows = self.unique[~flat]
        self.pictures, self.truth = GreyImages(stack, self.rows), truth[self.rows]
        self.deviation = image_hash.spread(self.pictures)
        self.sketches = ImageHashes.of(self.pictures, self.deviation)

    def copies(self) -> None:
        """Find pairs whose pixels agree whichever way round."""
        with self.callback.progress("comparing images", len(self.rows)) as advance:
            self.candidates = self._nearest(self.sketches.similar, BY_SKETCH, advance)
        near, apart = (self._turned(pairs) for pairs in (self.candidates.near(), self.candidates.apart))
        found, sure = self._measured("copies", near, apart, align=False)
        kind = np.where(near[sure, 2] == 0, "hash", "flipped")
        self._add(near[sure], kind, found.score[sure])

    def cropped(self, features: tuple[np.ndarray, np.ndarray] | None) -> None:
        """Find pairs whose pixels agree once the one image has been moved and scaled."""
        candidates = Candidates(self.candidates.others[:, :TO_ALIGN], self.candidates.apart)
        near, apart = (self._turned(pairs) for pairs in (candidates.near(), candidates.apart))
        if features is None:
            self.notes.append("no frozen features: other crops of an image are found only where they differ little")
        elif len(self.rows) > 1:
            vectors = reduced(Stack(features), self.rows)
            with self.callback.progress("comparing features", len(self.rows)) as advance:
                more = self._nearest(lambda rows: vectors[rows] @ vectors.T, TO_ALIGN, advance)
            near, apart = (
                np.concatenate([triples, np.column_stack([pairs, np.zeros(len(pairs), int)])])
                for triples, pairs in ((near, more.near()), (apart, more.apart))
            )
        near, apart = (np.unique(triples, axis=0) for triples in (near, apart))
        cluster = self._clusters()
        near = near[cluster[near[:, 0]] != cluster[near[:, 1]]]
        found, sure = self._measured("other crops", near, apart, align=True)
        sure = sure[np.argsort(-found.score[sure], kind="stable")]
        sure = sure[np.sort(np.unique(near[sure, :2], axis=0, return_index=True)[1])]
        self._add(near[sure], "cropped", found.score[sure])

    def _turned(self, pairs: np.ndarray) -> np.ndarray:
        """Pairs with the way round of the first image that makes them most alike, (n, 3)."""
        return np.column_stack([pairs, self.sketches.way_round(*pairs.T)])

    def _add(self, pairs: np.ndarray, kind: str | np.ndarray, score: np.ndarray) -> None:
        self.pairs = pd.concat([self.pairs, _table(self.rows[pairs[:, :2]], kind, score)], ignore_index=True)

    def _clusters(self) -> np.ndarray:
        """Number of the cluster that each of the compared rows is in."""
        size = int(self.unique.max(initial=0)) + 1
        a, b = self.pairs["a"].to_numpy(), self.pairs["b"].to_numpy()
        size = max(size, int(b.max(initial=0)) + 1)
        links = coo_array((np.ones(len(a)), (a, b)), shape=(size, size))
        return connected_components(links, directed=False)[1][self.rows]

    def _measured(self, what: str, near: np.ndarray, apart: np.ndarray, align: bool) -> tuple[Agreement, np.ndarray]:
        """How well the images of near pairs (n, 3) agree, and the places of those that do so beyond chance."""
        with self.callback.progress(f"comparing pixels: {what}", len(near) + len(apart)) as advance:
            found, chance = (
                agreement(self.pictures, self.deviation, *triples.T, align, advance) for triples in (near, apart)
            )
        null = Null(_best(np.tile(found.evidence, 2), near[:, :2].T.ravel()), _best(chance.evidence, apart[:, 0]))
        line = null.threshold()
        sure = np.flatnonzero(found.evidence > line)
        lowest = f", with scores of {found.score[sure].min():.2f} or more" if len(sure) else ""
        classes = f"; images of different classes reach {null.others.max():.1f}" if len(null.others) else ""
        self.notes.append(f"{what}: {len(sure)} pairs agree by more than {line:.1f}{lowest}{classes}")
        return found, sure

    def _nearest(
        self, similar: Callable[[np.ndarray], np.ndarray], count: int, advance: Callable[[int], object]
    ) -> "Candidates":
        """Each image with those most like it; some of known class also with what is most like them of other classes."""
        near, apart = [], []
        most = min(count, len(self.rows) - 1)
        known = np.flatnonzero(self.truth >= 0)
        asked = np.zeros(len(self.rows), bool)
        if len(np.unique(self.truth[known])) > 1:
            asked[known[:: max(1, len(known) // SAMPLE)]] = True
        for rows in chunks(len(self.rows) if most > 0 else 0, max(1, image_hash.BLOCK // max(1, len(self.rows)))):
            found = similar(rows)
            found[np.arange(len(rows)), rows] = -2
            best = np.argpartition(-found, most - 1, axis=1)[:, :most]
            order = np.argsort(-np.take_along_axis(found, best, 1), axis=1)
            near.append(np.take_along_axis(best, order, 1))
            for row in rows[asked[rows]]:
                other = (self.truth >= 0) & (self.truth != self.truth[row])
                apart.append((row, np.argmax(np.where(other, found[row - rows[0]], -2))))
            advance(len(rows))
        others = np.concatenate(near) if near else np.empty((len(self.rows), 0), int)
        return Candidates(others, np.array(apart, dtype=int).reshape(-1, 2))


@dataclass(frozen=True)
class Candidates:
    """Images worth comparing.

    Attributes:
        others: rows most like each of N rows, the most alike first (N, k).
        apart: some rows, and what is most like them of another class (n, 2).
    """

    others: np.ndarray
    apart: np.ndarray

    def near(self) -> np.ndarray:
        """Pairs most alike, each once, the lower row first (m, 2)."""
        rows = np.repeat(np.arange(len(self.others)), self.others.shape[1])
        return np.unique(np.sort(np.column_stack([rows, self.others.ravel()]), axis=1), axis=0)


def _equal(stack: Stack) -> tuple[np.ndarray, np.ndarray]:
    """The first of all equal images, and every later one with its first (n, 2)."""
    first: dict[bytes, int] = {}
    pairs = []
    for rows in chunks(len(stack)):
        for row, pixels in zip(rows.tolist(), stack[rows], strict=True):
            kept = first.setdefault(blake2b(pixels.tobytes(), digest_size=16).digest(), row)
            if kept != row:
                pairs.append((kept, row))
    return np.array(list(first.values()), dtype=int), np.array(pairs, dtype=int).reshape(-1, 2)


def _table(pairs: np.ndarray, kind: str | np.ndarray, score: float | np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"a": pairs[:, 0], "b": pairs[:, 1], "kind": kind, "score": score})


def _best(evidence: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The most evidence of each row."""
    return pd.Series(evidence).groupby(rows).max().to_numpy()


def clusters(pairs: pd.DataFrame, where: Sequence[str] = (TRAIN,)) -> pd.Series:
    """Cluster of each id that has a copy, named after the id that comes first in it.

    Args:
        where: the kinds of pairs that count. Ids of training and test images may be the same text: ask for pairs of
            both sets only where they are not.
    """
    chosen = pairs[pairs["where"].isin(where)]
    numbers, ids = pd.factorize(pd.concat([chosen["id_a"], chosen["id_b"]], ignore_index=True))
    a, b = numbers[: len(chosen)], numbers[len(chosen) :]
    links = coo_array((np.ones(len(a)), (a, b)), shape=(len(ids), len(ids)))
    member = connected_components(links, directed=False)[1] if len(ids) else np.empty(0, int)
    names = pd.Series(ids, dtype=object).groupby(member).min()
    return pd.Series(names.loc[member].to_numpy(), index=pd.Index(ids, dtype=object), name="cluster", dtype=object)


def read(path: Path, train_ids: Sequence[str]) -> pd.DataFrame:
    """The pairs that an audit wrote.

    Raises:
        FoldcraftError: not such a file, or of other training rows.
    """
    again = "run `python src/audit.py` again, or set folds.merge_duplicates=false"
    try:
        pairs = pd.read_csv(path, dtype=str, keep_default_na=False)[COLUMNS].assign(
            score=lambda x: x["score"].astype(float)
        )
    except (ValueError, KeyError, OSError) as error:
        raise FoldcraftError(f"not a list of duplicates: {error}", path, again) from None
    mine = pairs[pairs["where"] == TRAIN]
    if unknown := sorted({*mine["id_a"], *mine["id_b"]} - set(train_ids)):
        raise FoldcraftError(f"was made for other data: ids {listing(unknown, 3)} are gone", path, again)
    return pairs


def conflicts(pairs: pd.DataFrame, labels: pd.Series) -> pd.DataFrame:
    """Training images whose copies are labelled otherwise, one row each: `cluster`, `id`, `label`.

    Args:
        labels: label by training id.
    """
    found = clusters(pairs)
    table = pd.DataFrame({"cluster": found, "id": found.index, "label": labels.reindex(found.index)})
    several = table.groupby("cluster")["label"].transform("nunique") > 1
    return table[several].sort_values(["cluster", "id"], ignore_index=True)
