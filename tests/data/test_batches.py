"""Batches of one process among several: together they see what one process sees, whatever was done before."""

from itertools import chain

import pytest

from octvideo.data import EpochSampler
from octvideo.data.batches import TrainBatches, ViewBatches


def epoch_order(length):
    return EpochSampler(length, seed=5, epoch=lambda: 2)


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 6), (2, 3), (3, 2)])
@pytest.mark.parametrize("first", [0, 2])
def test_processes_together_train_on_the_batches_of_one(world_size, batch_size, first):
    order = list(epoch_order(20))
    expected = [sorted(order[start : start + 6]) for start in (0, 6, 12)][first:]  # 2 of 20 are left out
    shares = [
        TrainBatches(epoch_order(20), batch_size, rank=rank, world_size=world_size, first=lambda: first)
        for rank in range(world_size)
    ]
    assert [len(share) for share in shares] == [3] * world_size
    parts = [list(share) for share in shares]
    assert {len(batch) for batches in parts for batch in batches} == {batch_size}
    assert [sorted(chain(*batches)) for batches in zip(*parts, strict=True)] == expected


@pytest.mark.parametrize(("length", "sizes"), [(7, [4, 4]), (2, [1, 1]), (1, [1, 1])])
def test_too_few_items_for_one_batch_make_one_of_equal_sizes(length, sizes):
    shares = [list(TrainBatches(epoch_order(length), 8, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [len(batch) for batches in shares for batch in batches] == sizes
    assert {item for batches in shares for batch in batches for item in batch} == set(epoch_order(length))


SETS = [(7, 6, 4), (7, 1, 2), (2, 3, 8), (10, 30, 8), (5, 4, 4), (1, 1, 3)]


@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize(("videos", "views", "batch"), SETS)
def test_every_view_comes_once_in_the_batches_of_one_process(videos, views, batch, world_size, num_workers):
    alone = list(ViewBatches(videos, views, batch))
    assert list(chain(*alone)) == list(range(videos * views))
    shares = [
        ViewBatches(videos, views, batch, num_workers=num_workers, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert sorted(one for share in shares for one in share) == alone
    assert [len(share) for share in shares] == [len(list(share)) for share in shares]


def test_a_video_comes_to_one_worker():
    batches = list(ViewBatches(12, 10, 4, num_workers=3))
    whole = len(batches) - 3  # the last ones may be mixed
    for video in range(12):
        places = [place for place, batch in enumerate(batches) if any(item // 10 == video for item in batch)]
        assert len({place % 3 for place in places if place < whole}) <= 1
        views = [item for batch in batches for item in batch if item // 10 == video]
        assert views == list(range(10 * video, 10 * video + 10))


@pytest.mark.parametrize(("videos", "views", "batch"), SETS)
def test_videos_that_are_done_are_left_out_and_batches_stay_as_they_were(videos, views, batch):
    done = set(range(0, videos, 2))
    alone = list(ViewBatches(videos, views, batch))
    left = list(ViewBatches(videos, views, batch, done=done))
    needed = [one for one in alone if {item // views for item in one} - done]
    assert sorted(left) == needed
    assert list(ViewBatches(videos, views, batch, done=range(videos))) == []


@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize(("videos", "views", "batch"), SETS)
def test_equal_shares_repeat_batches_and_leave_none_out(videos, views, batch, world_size):
    shares = [
        list(ViewBatches(videos, views, batch, rank=rank, world_size=world_size, equal=True))
        for rank in range(world_size)
    ]
    assert len({len(share) for share in shares}) == 1
    assert {tuple(one) for share in shares for one in share} == {tuple(b) for b in ViewBatches(videos, views, batch)}
