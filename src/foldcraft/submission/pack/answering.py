"""Test rows to answers, chunk by chunk: what is in memory does not depend on how many rows there are.

A chunk holds whole answers. Its images are decoded while the nets look at the chunk before.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from foldcraft.data.competition import Competition
from foldcraft.data.images.image_cache import ImageSpec, squares
from foldcraft.data.images.sources import Source
from foldcraft.data.metadata import Encoder
from foldcraft.ensemble.plan import BlendMember
from foldcraft.predictions import answers
from foldcraft.submission.pack.clock import Clock
from foldcraft.submission.pack.packed import Packed, PackedMember, PackedModel, Question, Tier

CHUNK_BYTES = 64 << 20  # of decoded images; three chunks are in memory at once
MOST_ROWS, FIRST_ROWS = 512, 32  # of a chunk, and of the first, by which the pace is known
UNREADABLE = (OSError, ValueError, MemoryError)


class Engine(Protocol):
    """What asks the nets."""

    def predict(self, asked: Question) -> list[np.ndarray]:
        """Predictions float32 (V, n, W) of each model."""
        ...


@dataclass
class Answered:
    """Predictions of which answers are taken.

    Attributes:
        predicted: after the decision rule (A, W).
        unreadable: test images that could not be read.
        example: one of them.
        blind: answers none of whose images could be read; they are the baseline's.
        late: answers that there was no time for, which are the baseline's as well.
        by_tier: how many answers each tier gave.
    """

    predicted: np.ndarray
    unreadable: int = 0
    example: str = ""
    blind: int = 0
    late: int = 0
    by_tier: list[int] = field(default_factory=list)


def answer(
    packed: Packed,
    readings: Sequence[Competition],
    engine: Engine,
    clock: Clock,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Answered:
    """Answer all test rows.

    Args:
        readings: the competition as each of the pack's settings reads it.
        progress: called after each chunk with the rows that are done and all rows.
    """
    main = readings[0]
    baseline = main.target.baseline()
    count = len(main.answers.test_ids)
    found = Answered(np.tile(baseline, (count, 1)), by_tier=[0] * len(packed.tiers))
    rows, done = len(main.test_ids), 0
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for chunk, decoding in _ahead(list(_chunks(packed, main)), packed, readings, pool):
            tier = clock.tier(len(chunk.rows), rows - done)
            if tier is None:
                decoding.cancel()
                found.late = count - sum(found.by_tier)
                break
            begun = time.monotonic()
            images = decoding.result()
            _answer_chunk(packed, readings, engine, clock, chunk, images, tier, found)
            clock.passed(len(chunk.rows), time.monotonic() - begun)
            done += len(chunk.rows)
            progress(done, rows)
    return found


@dataclass(frozen=True)
class Chunk:
    """Some test rows, all of the answers that they are of.

    Attributes:
        rows: places of test rows (n,).
        answers: places of their answers (a,).
        answer_of_row: place of each row's answer among those (n,).
    """

    rows: np.ndarray
    answers: np.ndarray
    answer_of_row: np.ndarray


@dataclass(frozen=True)
class Decoded:
    """The images of a chunk, by the settings that read them and how they become squares; and which are unreadable."""

    pixels: dict[tuple[int, ImageSpec], np.ndarray]
    blind: dict[int, np.ndarray]


def _chunks(packed: Packed, main: Competition) -> Iterator[Chunk]:
    made = main.answering
    owner = np.arange(len(main.test_ids)) if made is None else made.test
    order = np.argsort(owner, kind="stable")
    ends = np.flatnonzero(np.diff(owner[order], append=-1)) + 1  # behind each answer's last row
    specs = {(member.reading, member.spec) for member in packed.members}
    each = sum(spec.side**2 * spec.channels for _, spec in specs)
    most, first = int(np.clip(CHUNK_BYTES // each, 1, MOST_ROWS)), 0
    while first < len(order):
        wanted = first + (min(most, FIRST_ROWS) if first == 0 else most)
        fitting = ends[(ends > first) & (ends <= wanted)]
        last = int(fitting[-1]) if len(fitting) else int(ends[ends > first][0])
        rows = order[first:last]
        names, place = np.unique(owner[rows], return_inverse=True)
        yield Chunk(rows, names, place)
        first = last


def _ahead(
    chunks: Sequence[Chunk], packed: Packed, readings: Sequence[Competition], pool: ThreadPoolExecutor
) -> Iterator[tuple[Chunk, "Future[Decoded]"]]:
    """Each chunk with its images, of which those of the next are being decoded."""
    with ThreadPoolExecutor(max_workers=1) as ahead:
        waiting = [ahead.submit(_decode, chunk, packed, readings, pool) for chunk in chunks[:1]]
        for place, chunk in enumerate(chunks):
            waiting += [ahead.submit(_decode, chunks[place + 1], packed, readings, pool)] if chunks[place + 1 :] else []
            yield chunk, waiting.pop(0)


def _decode(chunk: Chunk, packed: Packed, readings: Sequence[Competition], pool: ThreadPoolExecutor) -> Decoded:
    wanted: dict[int, list[ImageSpec]] = {}
    for member in packed.members:
        own = wanted.setdefault(member.reading, [])
        own += [member.spec] if member.spec not in own else []
    pixels, blind = {}, {}
    for reading, specs in wanted.items():
        sources = readings[reading].test_paths
        for spec in specs:
            pixels[reading, spec] = np.zeros((len(chunk.rows), spec.side, spec.side, spec.channels), np.uint8)
        blind[reading] = np.zeros(len(chunk.rows), dtype=bool)

        def work(place: int, reading: int = reading, sources: Sequence[Source] = sources) -> None:
            try:
                for spec, made in squares(sources[chunk.rows[place]], wanted[reading]):
                    pixels[reading, spec][place] = made
            except UNREADABLE:
                blind[reading][place] = True

        list(pool.map(work, range(len(chunk.rows))))
    return Decoded(pixels, blind)


def _answer_chunk(
    packed: Packed,
    readings: Sequence[Competition],
    engine: Engine,
    clock: Clock,
    chunk: Chunk,
    images: Decoded,
    place: int,
    found: Answered,
) -> None:
    tier, main = packed.tiers[place], readings[0]
    asked = [
        _member(packed.members[k], readings[packed.members[k].reading], engine, clock, chunk, images, tier, k)
        for k in tier.members
    ]
    unreadable = np.logical_or.reduce([images.blind[reading] for reading in images.blind])
    blind = np.logical_or.reduce([unseen for _, unseen in asked])
    said = tier.plan.apply([member for member, _ in asked])
    said[blind] = main.target.baseline()
    found.predicted[chunk.answers] = said
    if unreadable.any() and not found.example:
        found.example = str(main.test_paths[chunk.rows[unreadable.argmax()]])
    found.unreadable += int(unreadable.sum())
    found.blind += int(blind.sum())
    found.by_tier[place] += len(chunk.answers)


def _member(
    member: PackedMember,
    data: Competition,
    engine: Engine,
    clock: Clock,
    chunk: Chunk,
    images: Decoded,
    tier: Tier,
    k: int,
) -> tuple[BlendMember, np.ndarray]:
    """What a member says of the chunk's answers, and of which it could read no image (a,)."""
    space, models, blind = data.space, member.models[: tier.folds], images.blind[member.reading]
    begun = time.monotonic()
    beside = [_encoded(model, data, chunk.rows) for model in models]
    by_fold = engine.predict(Question(member, models, images.pixels[member.reading, member.spec], beside))
    clock.took(k, len(chunk.rows) * len(models), time.monotonic() - begun)
    predicted = space.pooled(np.stack(by_fold))
    predicted[:, blind] = data.target.baseline()
    if data.answering is None:
        return BlendMember(member.name, member.views, predicted), blind
    said, seen = answers.of_images(data.answering, space, predicted, chunk.answer_of_row, blind)
    ways = answers.ways_of(data.answering, space)
    return BlendMember(member.name, answers.view_names(member.views, ways), said, len(ways)), ~seen


def _encoded(model: PackedModel, data: Competition, rows: np.ndarray) -> np.ndarray | None:
    if model.encoder is None:
        return None
    return Encoder.from_plain(model.encoder)(data.test_metadata.at(rows))
