"""Batches: which rows, in which order, augmented with which seed, drawn by how many processes."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from foldcraft.common import allocator, child_processes
from foldcraft.common.config import AugmentConfig, ImagesConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.fingerprint import seed_from
from foldcraft.data.augment import Augment, flips_of
from foldcraft.data.images.image_cache import ImageStore

AHEAD = 4  # batches that each worker draws beforehand
SHARED_MEMORY = "/dev/shm"
MORE_SHARED_MEMORY = "give it more (docker run --shm-size=2g), or set a smaller machine.workers or train.batch"


class Batch(NamedTuple):
    """Images uint8 (B, size, size, 3); class indices int64 (B,) or targets float32 (B, W); rows int64 (B,)."""

    images: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor


class Sample(NamedTuple):
    """One image of an epoch: a row of the store (beyond it: pseudo-labelled), and its augmentation seed."""

    row: int
    seed: int


@dataclass(frozen=True)
class DistillationTargets:
    """What a fold learns beside its labels: soft targets, and test images that are answered by teachers.

    Rows are numbered through: the N of the training images' store, then M test images.

    Attributes:
        targets: as `Space.matrix` has them float32 (N + M, W); NaN for training rows that the fold does not learn from.
        store: of the test images.
        rows: those that are learned from, as rows of `store` (M,).
        ids: of these (M,).
        share: share of an epoch's places that they take.
    """

    targets: np.ndarray
    store: ImageStore
    rows: np.ndarray
    ids: np.ndarray
    share: float

    @property
    def pseudo_rows(self) -> np.ndarray:
        """The M rows beyond those of the training images."""
        return np.arange(len(self.targets) - len(self.rows), len(self.targets))


class EpochBatches(Sampler[list[Sample]]):
    """The batches of one epoch after another, the same for any number of workers and any number of devices.

    Order and seeds depend on (seed, epoch, place in the epoch) alone. The last rows that do not fill a batch are left
    out of an epoch, other rows each time.

    Args:
        rows: rows to learn from (N,).
        batch: images a step over all devices.
        rank, world: which of how many processes this one is; each takes its share of every batch.
        balance: the class of each of `rows` (N,), to draw all classes equally often.
        distilled: its test images take their share of an epoch's places, each as often as the next up to one; as many
            rows are left out. The number of batches stays the same.

    Raises:
        FoldcraftError: the batch cannot be shared out evenly.
    """

    def __init__(
        self,
        rows: np.ndarray,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        balance: np.ndarray | None = None,
        distilled: DistillationTargets | None = None,
    ) -> None:
        self.batch = min(batch, len(rows) // world * world)
        if self.batch % world or self.batch == 0:
            raise FoldcraftError(f"{batch} images do not split over {world} processes", "train.batch")
        self.rows, self.seed, self.rank, self.world, self.balance = rows, seed, rank, world, balance
        self.distilled = distilled if distilled and distilled.share else None
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.rows) // self.batch

    def __iter__(self) -> Iterator[list[Sample]]:
        rng = np.random.default_rng(seed_from(self.seed, "order", self.epoch))
        rows = self.rows if self.balance is None else _balanced(self.rows, self.balance, rng)
        order = rng.permutation(rows)
        if self.distilled:
            order = _with_pseudo_rows(order[: len(self) * self.batch], self.distilled, rng)
        mine = rank_positions(self.batch, self.rank, self.world)
        for first in range(0, len(self) * self.batch, self.batch):
            yield [Sample(int(order[first + i]), seed_from(self.seed, "image", self.epoch, first + i)) for i in mine]


def _with_pseudo_rows(order: np.ndarray, distilled: DistillationTargets, rng: np.random.Generator) -> np.ndarray:
    """As many rows, their share of them its test images."""
    count = round(distilled.share * len(order))
    drawn = np.resize(rng.permutation(distilled.pseudo_rows), count)
    return rng.permutation(np.concatenate([order[: len(order) - count], drawn]))


def _balanced(rows: np.ndarray, classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many rows as there are, equally many of each class up to one; not in random order.

    The rows of a rare class come again and again, each as often as the next up to one. Of a frequent class some are
    left out, others each time.
    """
    names = rng.permutation(np.unique(classes))  # which classes have the one more is random too
    places = np.array_split(np.arange(len(rows)), len(names))
    drawn = [
        np.resize(rng.permutation(rows[classes == name]), len(mine)) for name, mine in zip(names, places, strict=True)
    ]
    return np.concatenate(drawn)


def rank_positions(batch: int, rank: int, world: int) -> list[int]:
    """Places of a batch that a process takes: as many from the front as, mirrored, from the back.

    mixup and cutmix pair an image with its mirror place; this way a pair stays together, and N processes mix the very
    pairs that one would.
    """
    if batch % (2 * world):  # an odd share: pairs cannot stay together
        return list(range(rank * batch // world, (rank + 1) * batch // world))
    pairs = batch // (2 * world)
    front = range(rank * pairs, (rank + 1) * pairs)
    return [*front, *(batch - 1 - place for place in reversed(front))]


@dataclass(frozen=True)
class TrainImages(Dataset[Batch]):
    """Augmented images; a whole batch is drawn at a time. `drawn` gives the batches of a loader.

    Attributes:
        targets: class indices (N,) or a matrix (N, W); with `distilled` its own are taken.
        swapped: the same after flips that change the label.
    """

    store: ImageStore
    targets: np.ndarray
    augment: Augment
    distilled: DistillationTargets | None = None
    swapped: Mapping[tuple[str, ...], np.ndarray] = field(default_factory=dict)

    def __getitems__(self, samples: Sequence[Sample]) -> Batch | FoldcraftError:
        """As torch's loader asks."""
        return self.at(samples)

    def at(self, draws: Sequence[Sample]) -> Batch | FoldcraftError:
        """A batch; a user's mistake as a value, because a worker that raises hands over its traceback with it."""
        try:
            return self._batch(draws)
        except FoldcraftError as error:
            return error

    def _batch(self, draws: Sequence[Sample]) -> Batch:
        rows = [draw.row for draw in draws]
        images = np.stack([self.augment(self._pixels(draw.row), draw.seed) for draw in draws])
        targets = self.distilled.targets if self.distilled else self.targets
        learned = targets[rows]
        for place, draw in enumerate(draws if self.swapped else ()):
            if flips := flips_of(self.augment.config, draw.seed):
                learned[place] = self.swapped[flips][draw.row]
        return Batch(torch.from_numpy(images), torch.from_numpy(learned), torch.tensor(rows))

    def _pixels(self, row: int) -> np.ndarray:
        beyond = row - len(self.store)
        if self.distilled is None or beyond < 0:
            return self.store[row]
        return self.distilled.store[self.distilled.rows[beyond]]


def draw_seed(draw: int, row: int) -> int:
    """Seed of one augmented copy of a row."""
    return seed_from("draw", draw, row)


@dataclass(frozen=True)
class DrawnImages(Dataset[torch.Tensor]):
    """One augmented copy of each image, always the same one for the same `draw`, uint8 (B, size, size, 3)."""

    store: ImageStore
    images: ImagesConfig
    augment: AugmentConfig
    draw: int

    @property
    def key(self) -> tuple:
        """Equal for equal images."""
        return (self.store.path, self.images.size, self.images.resize, self.augment.model_dump_json(), self.draw)

    @cached_property
    def _augmented(self) -> Augment:
        return Augment(self.augment, self.images, self.store.pixels.shape[1])

    def at(self, rows: Sequence[int]) -> torch.Tensor:
        """Images of these rows."""
        drawn = [self._augmented(self.store[row], draw_seed(self.draw, int(row))) for row in rows]
        return torch.from_numpy(np.stack(drawn))


def drawn(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """The batches of one epoch.

    Raises:
        FoldcraftError: an image cannot be drawn, here or in a worker.
    """
    for batch in loader:
        if isinstance(batch, FoldcraftError):
            raise batch
        yield batch


def _as_drawn(batch: Batch) -> Batch:
    return batch


def _handed_over(batch: Batch | FoldcraftError) -> Batch | FoldcraftError:
    """The batch in memory that processes share.

    torch would put it there by itself, in a thread whose errors nobody hears: training would wait for ever.
    """
    if isinstance(batch, FoldcraftError):
        return batch
    try:
        for tensor in batch:
            tensor.share_memory_()
    except RuntimeError as error:
        return FoldcraftError(f"full of batches that wait: {error}", SHARED_MEMORY, MORE_SHARED_MEMORY)
    return batch


def in_flight(workers: int, batch_bytes: int, room: float) -> tuple[int, int]:
    """How many workers, and how many batches each may be ahead, so that all batches find room in shared memory.

    As many workers as are asked for if there is room for one batch each, beside one that the net has and one that
    waits for it.

    Args:
        batch_bytes: of one batch.
        room: bytes.
    """
    batches = int(room // batch_bytes) - 2
    workers = min(workers, max(0, batches))
    return workers, min(AHEAD, batches // workers) if workers else 0


def shared_room() -> float:
    """Bytes of shared memory that a training may fill: half of what is free, as another may begin beside it."""
    try:
        room = os.statvfs(SHARED_MEMORY)
    except (OSError, AttributeError):  # not Linux, where it is a file system of a size of its own
        return math.inf
    return room.f_bavail * room.f_frsize / 2


def train_loader(
    images: TrainImages, batches: EpochBatches, workers: int, pin: bool, ahead: int = AHEAD
) -> DataLoader[Batch]:
    """A loader over `batches`; set `batches.epoch` before each pass. Each worker is `ahead` batches ahead."""
    return DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_handed_over if workers else _as_drawn,
        pin_memory=pin,
        persistent_workers=workers > 0,
        prefetch_factor=ahead if workers else None,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # its own, so that the net's dropout does not depend on the number of workers
    )


def _start_worker(_: int) -> None:
    child_processes.end_with_parent()
    allocator.keep_freed_memory()  # inherited by a fork, not by the processes that newer Pythons start
    torch.set_num_threads(1)


def default_workers(cores: int, on_cpu: bool) -> int:
    """How many processes augment: nearly all cores beside a GPU, one beside a net that needs the cores itself."""
    return 1 if on_cpu else max(1, min(16, cores - 2))
