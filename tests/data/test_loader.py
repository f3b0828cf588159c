"""Batches: how an epoch is shared out to processes, what it leaves out, and how batches are mixed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foldcraft.common.config import AugmentConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data.loader import EpochBatches, Sample, rank_positions
from foldcraft.data.mixup import Mix, mix_of

CLASSES = 3


@given(world=st.integers(1, 4), each=st.integers(1, 40))
def test_shares_are_equal_and_make_up_the_batch(world: int, each: int) -> None:
    shares = [rank_positions(world * each, rank, world) for rank in range(world)]
    assert [len(places) for places in shares] == [each] * world
    assert sorted(place for places in shares for place in places) == list(range(world * each))


@given(world=st.integers(1, 4), pairs=st.integers(1, 20))
def test_a_process_pairs_what_one_process_would(world: int, pairs: int) -> None:
    batch = 2 * world * pairs
    for rank in range(world):
        mine = rank_positions(batch, rank, world)
        assert [batch - 1 - place for place in mine] == mine[::-1]


@given(data=st.data(), world=st.integers(1, 4), each=st.integers(1, 6), epoch=st.integers(0, 5))
def test_processes_together_draw_what_one_would(data: st.DataObject, world: int, each: int, epoch: int) -> None:
    batch = world * each
    rows = np.array(data.draw(st.lists(st.integers(0, 999), min_size=batch, max_size=80, unique=True)))
    alone = EpochBatches(rows, batch, seed=3)
    spread = [EpochBatches(rows, batch, seed=3, rank=rank, world=world) for rank in range(world)]
    for batches in (alone, *spread):
        batches.epoch = epoch
    steps = list(alone)
    drawn = [draw for step in steps for draw in step]
    assert len(steps) == len(alone) == len(rows) // batch
    assert all(len(step) == batch for step in steps)
    assert len({draw.row for draw in drawn}) == len({draw.seed for draw in drawn}) == len(drawn)
    assert {draw.row for draw in drawn} <= set(rows.tolist())
    for step, *parts in zip(steps, *spread, strict=True):
        assert sorted(step) == sorted(draw for part in parts for draw in part)


def test_one_process_draws_in_the_order_of_the_epoch() -> None:
    """The places of a single process are the batch from first to last, an odd one too."""
    assert rank_positions(8, 0, 1) == list(range(8))
    assert rank_positions(7, 0, 1) == list(range(7))


def test_what_does_not_fill_a_batch_is_left_out_and_other_rows_each_epoch() -> None:
    batches = EpochBatches(np.arange(10), 4, seed=0)
    left_out, seeds = [], []
    for batches.epoch in range(12):
        drawn: list[Sample] = [draw for step in batches for draw in step]
        left_out.append(frozenset(range(10)) - {draw.row for draw in drawn})
        seeds += [draw.seed for draw in drawn]
    assert all(len(rows) == 2 for rows in left_out)
    assert len(set(left_out)) > 6
    assert len(set(seeds)) == 12 * 8  # no augmentation comes twice


def test_a_batch_is_never_larger_than_the_rows() -> None:
    assert [len(step) for step in EpochBatches(np.arange(5), 32, seed=0)] == [5]
    spread = [EpochBatches(np.arange(5), 32, seed=0, rank=rank, world=2) for rank in (0, 1)]
    assert [[len(step) for step in batches] for batches in spread] == [[2], [2]]


@pytest.mark.parametrize(("rows", "batch", "world"), [(20, 6, 4), (3, 4, 4)])
def test_a_batch_that_cannot_be_shared_out_is_refused(rows: int, batch: int, world: int) -> None:
    with pytest.raises(FoldcraftError, match=r"train\.batch"):
        EpochBatches(np.arange(rows), batch, seed=0, rank=0, world=world)


MIXES = [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0, "mix_prob": 0.7}]


def mix(settings: dict[str, float]) -> Mix:
    made = mix_of(AugmentConfig(**settings), CLASSES, seed=5)
    assert made is not None
    return made


def labelled(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose channel `class` is one everywhere, the others zero."""
    targets = torch.from_numpy(np.random.default_rng(count).integers(0, CLASSES, count))
    return torch.nn.functional.one_hot(targets, CLASSES).float()[:, :, None, None].repeat(1, 1, 12, 12), targets


@pytest.mark.parametrize("settings", MIXES)
@pytest.mark.parametrize("count", [8, 7, 1])
def test_targets_say_what_share_of_the_image_is_of_which_class(settings: dict[str, float], count: int) -> None:
    images, targets = labelled(count)
    mixed = 0
    for step in range(20):
        pixels, probabilities = mix(settings)(images.clone(), targets, step)
        assert pixels.shape == images.shape
        torch.testing.assert_close(probabilities.sum(1), torch.ones(count))
        torch.testing.assert_close(probabilities, pixels.mean((2, 3)), atol=1e-5, rtol=0)
        mixed += int(not torch.equal(pixels, images))
    assert mixed > 10 or count == 1


@pytest.mark.parametrize("settings", MIXES)
def test_a_mix_depends_on_its_step_alone(settings: dict[str, float]) -> None:
    images, targets = torch.rand(6, 3, 12, 12), torch.arange(6) % CLASSES
    mixing = mix(settings)
    first = [mixing(images.clone(), targets, step) for step in range(8)]
    np.random.seed(99)
    before = np.random.get_state()[1].copy(), np.random.get_state()[2]
    again = [mix(settings)(images.clone(), targets, step) for step in reversed(range(8))][::-1]
    after = np.random.get_state()[1], np.random.get_state()[2]
    assert np.array_equal(before[0], after[0])
    assert before[1] == after[1]
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert len({pixels.numpy().tobytes() for pixels, _ in first}) >= 4


@pytest.mark.parametrize("settings", MIXES)
def test_two_processes_mix_what_one_would(settings: dict[str, float]) -> None:
    images, targets = torch.rand(8, 3, 12, 12), torch.arange(8) % CLASSES
    for step in range(10):
        whole = mix(settings)(images.clone(), targets, step)
        for rank in (0, 1):
            mine = rank_positions(8, rank, 2)
            pixels, probabilities = mix(settings)(images[mine].clone(), targets[mine], step)
            torch.testing.assert_close(pixels, whole[0][mine])
            torch.testing.assert_close(probabilities, whole[1][mine])


def test_mixing_is_off_unless_asked_for() -> None:
    assert mix_of(AugmentConfig(), CLASSES, seed=0) is None
    images, targets = labelled(4)
    pixels, probabilities = mix({"mixup": 1.0, "mix_prob": 0})(images.clone(), targets, 0)
    assert torch.equal(pixels, images)
    assert torch.equal(probabilities, torch.nn.functional.one_hot(targets, CLASSES).float())
