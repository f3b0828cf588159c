"""Small descriptions of images that are alike for copies: how alike two images are, whichever way round they lie.

A perceptual hash without its rounding: the low frequencies of the discrete cosine transform of the small grey image.
Each frequency is divided by its spread over the data set, so that what most images share (a face in the middle) counts
little. A flip changes nothing but signs and a transposition swaps the two indices, so all eight flips and turns are
compared for little more than the price of one.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from scipy.fft import dctn
from scipy.linalg import eigh

SIDE = 64  # of the small grey image
LIGHT = 3  # frequencies below it are the fall of light, which hides what else there is
COARSE, FINE = 16, 32  # frequencies along each axis: of a sketch, and of the comparison that decides
SAMPLE = 2000  # images that the spread of the frequencies is measured on
CHUNK = 256  # images or pairs at a time
WIDTH = 128  # numbers that the features of an image are reduced to
DAMPING = 0.02  # of the largest spread, added to each: frequencies that are next to empty hold noise
FLAT = 2.0  # standard deviation in grey levels below which there is nothing to compare
DARK, BRIGHT = 5, 250  # grey levels beyond which a pixel may have been cut off
BLOCK = 1 << 22  # similarities at a time
MOST = 0.9999  # correlation that is as good as 1
SMALLEST = 0.5  # share of an image that another must show
PROMISING = 0.9  # correlation after a rough alignment that is worth a close one
ROUGHLY = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 15, 1e-3)
CLOSELY = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)
NAMES = ("identity", "vflip", "hflip", "rot180", "transpose", "rot270", "rot90", "transverse")


@dataclass(frozen=True)
class Stack:
    """Rows of several arrays (N, ...), one after the other, without copying them; they may be maps of files."""

    arrays: Sequence[np.ndarray]

    def __len__(self) -> int:
        return sum(map(len, self.arrays))

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        first, taken = 0, np.empty((len(rows), *self.arrays[0].shape[1:]), self.arrays[0].dtype)
        for array in self.arrays:
            mine = (rows >= first) & (rows < first + len(array))
            taken[mine] = array[rows[mine] - first]
            first += len(array)
        return taken


@dataclass(frozen=True)
class GreyImages:
    """Some of the decoded images, uint8 (N, S, S, 3), as small grey ones."""

    stack: Stack
    chosen: np.ndarray

    def __len__(self) -> int:
        return len(self.chosen)

    def grey(self, rows: np.ndarray) -> np.ndarray:
        """Small grey images of some rows, float32 (n, SIDE, SIDE)."""
        greys = [cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) for pixels in self.stack[self.chosen[rows]]]
        small = [cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for grey in greys]
        return np.stack(small).astype(np.float32)


def chunks(count: int, size: int = CHUNK) -> Iterator[np.ndarray]:
    """Row numbers below `count`, so many at a time."""
    for first in range(0, count, size):
        yield np.arange(first, min(first + size, count))


def flat(pictures: GreyImages) -> np.ndarray:
    """Images in which there is next to nothing (N,)."""
    parts = [pictures.grey(rows).std((1, 2)) < FLAT for rows in chunks(len(pictures))]
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def spread(pictures: GreyImages) -> np.ndarray:
    """How much each frequency varies over a sample of the images, (FINE, FINE), the same both ways round."""
    count = len(pictures)
    rows = np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(int))
    squares = np.zeros((FINE, FINE))
    for places in chunks(len(rows)):
        squares += np.square(_frequencies(_standard(pictures.grey(rows[places])))).sum(0)
    deviation = np.sqrt((squares + squares.T) / (2 * max(1, len(rows))))
    return deviation + DAMPING * max(deviation.max(), 1e-6)


@dataclass(frozen=True)
class ImageHashes:
    """Unit vectors of N images, split by whether a flip changes their sign.

    Attributes:
        parts: float16 (N, d) each: both indices even, the first odd, the second odd, both odd.
        turned: the same of the transposed images.
    """

    parts: tuple[np.ndarray, ...]
    turned: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, pictures: GreyImages, deviation: np.ndarray) -> "ImageHashes":
        """Sketches of all images, read a few at a time."""
        inside = np.add.outer(np.arange(COARSE), np.arange(COARSE)) < COARSE
        parity = np.add.outer(np.arange(COARSE) % 2, 2 * (np.arange(COARSE) % 2))
        places = [np.nonzero(inside & (parity == number)) for number in range(4)]
        parts, turned = ([np.empty((len(pictures), len(x)), np.float16) for x, _ in places] for _ in range(2))
        for rows in chunks(len(pictures)):
            values = (_frequencies(_standard(pictures.grey(rows))) / deviation)[:, :COARSE, :COARSE] * inside
            values /= np.maximum(np.linalg.norm(values, axis=(1, 2), keepdims=True), 1e-9)
            for part, turn, (first, second) in zip(parts, turned, places, strict=True):
                part[rows] = values[:, first, second]
                turn[rows] = values[:, second, first]
        return cls(tuple(parts), tuple(turned))

    def similar(self, rows: np.ndarray) -> np.ndarray:
        """Similarity of some images to all, each the way round that suits best, float32 (n, N)."""
        everything = [part.astype(np.float32).T for part in self.parts]
        return np.maximum(*(self._best(parts, rows, everything) for parts in (self.parts, self.turned)))

    @staticmethod
    def _best(parts: Sequence[np.ndarray], rows: np.ndarray, everything: Sequence[np.ndarray]) -> np.ndarray:
        plain, down, across, both = (a[rows].astype(np.float32) @ b for a, b in zip(parts, everything, strict=True))
        return np.maximum(plain + down + np.abs(across + both), plain - down + np.abs(across - both))

    def way_round(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Which of `NAMES` makes image `a[k]` most like image `b[k]`."""
        found = []
        for parts in (self.parts, self.turned):
            plain, down, across, both = (
                np.einsum("nd,nd->n", mine[a].astype("f4"), theirs[b].astype("f4"))
                for mine, theirs in zip(parts, self.parts, strict=True)
            )
            found += [plain + x * down + y * across + x * y * both for x, y in ((1, 1), (-1, 1), (1, -1), (-1, -1))]
        return np.argmax(found, axis=0)


def reduced(features: Stack, rows: np.ndarray) -> np.ndarray:
    """Unit vectors float32 (n, WIDTH) of some rows: their principal components, one as important as the next."""
    places = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(int))
    sample = features[rows[places]].astype(np.float32)
    mean, deviation = sample.mean(0), sample.std(0) + 1e-3
    sample = (sample - mean) / deviation
    width = max(1, min(WIDTH, sample.shape[1], len(sample) // 4))
    # The leading components alone, of the products of rows: all of them, by an SVD, take ten times as long.
    products = (sample @ sample.T).astype(np.float64)
    variance, vectors = eigh(products, subset_by_index=(len(sample) - width, len(sample) - 1))
    turn = (sample.T @ (vectors / np.maximum(variance, 1e-12))).astype(np.float32)
    vectors = np.empty((len(rows), turn.shape[1]), np.float32)
    for places in chunks(len(rows)):
        found = ((features[rows[places]].astype(np.float32) - mean) / deviation) @ turn
        vectors[places] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
    return vectors


@dataclass(frozen=True)
class Agreement:
    """How well the images of n pairs agree.

    Attributes:
        score: correlation of the whitened images, [-1, 1] (n,).
        evidence: how far that is beyond chance (n,): `atanh(score)` over what it would vary by if the signs of the
            frequencies were drawn by lot. Where few of them hold all there is, as in a picture of one stripe, a high
            score is no wonder.
    """

    score: np.ndarray
    evidence: np.ndarray


def agreement(
    pictures: GreyImages,
    deviation: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    ways: np.ndarray,
    align: bool = False,
    progress: Callable[[int], object] = lambda done: None,
) -> Agreement:
    """How well each image `a[k]`, turned by `ways[k]`, agrees with `b[k]`.

    Brightness and contrast of the one are first made those of the other, and cut off at black and white as a file would
    cut them; either may be the original.

    Args:
        align: move and scale the one until it lies on the other, and compare what both show.
    """
    score, evidence = np.empty(len(a), np.float32), np.empty(len(a), np.float32)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        experiment = partial(_agreement, pictures, deviation, align=align)
        parts = [(places, a[places], b[places], ways[places]) for places in chunks(len(a))]
        for (places, *_), found in zip(parts, pool.map(lambda part: experiment(*part[1:]), parts), strict=True):
            score[places], evidence[places] = found
            progress(len(places))
    return Agreement(score, evidence)


def _agreement(
    pictures: GreyImages, deviation: np.ndarray, a: np.ndarray, b: np.ndarray, ways: np.ndarray, align: bool
) -> tuple[np.ndarray, np.ndarray]:
    left, right = pictures.grey(a), pictures.grey(b)
    shown = np.ones_like(left)
    for place, way in enumerate(ways):
        left[place] = turn(left[place], way)
        if align:
            left[place], shown[place] = _aligned(left[place], right[place])
    one = _correlation(_in_tone_of(left, right, shown), right, shown, deviation)
    other = _correlation(_in_tone_of(right, left, shown), left, shown, deviation)
    return tuple(np.where(one[0] > other[0], x, y) for x, y in zip(one, other, strict=True))


def _aligned(image: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image moved and scaled to lie on the wanted one, and where it then shows anything (0 or 1).

    By maximising the enhanced correlation coefficient (Evangelidis and Psarakis 2008), roughly first; where that comes
    to nothing the image stays as it is.
    """
    rough = [cv2.resize(values, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA) for values in (wanted, image)]
    warp = np.eye(2, 3, dtype=np.float32)
    try:
        found, warp = cv2.findTransformECC(*rough, warp, cv2.MOTION_AFFINE, ROUGHLY, None, 5)
        warp[:, 2] *= 2
        if found > PROMISING:
            _, warp = cv2.findTransformECC(wanted, image, warp, cv2.MOTION_AFFINE, CLOSELY, None, 5)
    except cv2.error:  # has not converged
        return image, np.ones_like(image)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    shown = cv2.warpAffine(np.ones_like(image), warp, (SIDE, SIDE), flags=flags) > 0.99
    if shown.mean() < SMALLEST or not SMALLEST < np.linalg.det(warp[:, :2]) < 1 / SMALLEST:
        return image, np.ones_like(image)
    moved = cv2.warpAffine(image, warp, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return moved, shown.astype(np.float32)


def turn(image: np.ndarray, way: int) -> np.ndarray:
    """A square image (S, S, ...) turned as `NAMES[way]` says."""
    image = image.swapaxes(0, 1) if way >= 4 else image
    return image[:: -1 if way % 2 else 1, :: -1 if way % 4 >= 2 else 1]


def _in_tone_of(images: np.ndarray, wanted: np.ndarray, shown: np.ndarray) -> np.ndarray:
    inside = (images > DARK) & (images < BRIGHT) & (wanted > DARK) & (wanted < BRIGHT) & (shown > 0)
    few = inside.mean((1, 2)) < 0.1
    weight = np.where(few[:, None, None], 1.0, inside)
    total = weight.sum((1, 2), keepdims=True)
    x, y = ((weight * values).sum((1, 2), keepdims=True) / total for values in (images, wanted))
    covariance = (weight * (images - x) * (wanted - y)).sum((1, 2), keepdims=True)
    slope = covariance / np.maximum((weight * np.square(images - x)).sum((1, 2), keepdims=True), 1e-6)
    return np.where(slope > 0, np.clip(slope * (images - x) + y, 0, 255), images)


def _correlation(
    a: np.ndarray, b: np.ndarray, shown: np.ndarray, deviation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    order = np.add.outer(np.arange(FINE), np.arange(FINE))
    inside = (order >= LIGHT) & (order < FINE)
    x, y = ((_frequencies(_standard(images, shown)) / deviation)[:, inside] for images in (a, b))
    x, y = (values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9) for values in (x, y))
    score = (x * y).sum(1)
    by_lot = np.sqrt(np.square(x * y).sum(1))
    return score, np.arctanh(np.clip(score, -MOST, MOST)) / np.maximum(by_lot, 1e-6)


def _standard(grey: np.ndarray, shown: np.ndarray | None = None) -> np.ndarray:
    """Mean 0 and deviation 1 where something is shown, 0 elsewhere."""
    weight = np.ones_like(grey) if shown is None else shown
    total = np.maximum(weight.sum((1, 2), keepdims=True), 1)
    centred = weight * (grey - (weight * grey).sum((1, 2), keepdims=True) / total)
    return centred / np.maximum(np.sqrt(np.square(centred).sum((1, 2), keepdims=True) / total), 1e-3)


def _frequencies(grey: np.ndarray) -> np.ndarray:
    """Low frequencies (n, FINE, FINE) but for the mean."""
    found = dctn(grey, axes=(1, 2), norm="ortho")[:, :FINE, :FINE]
    found[:, 0, 0] = 0
    return found
