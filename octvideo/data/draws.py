"""Which clips a loader draws, in which order and with what randomness."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch.utils.data import Sampler

__all__ = ["EpochSampler", "ViewSampler"]

CHUNK = 4096


class EpochSampler(Sampler[tuple[int, int]]):
    """Shuffled (index, item seed) pairs that depend on seed and epoch only.

    Neither the number of loader workers nor a resumption changes what an epoch draws.

    Args:
        length: number of items.
        seed: of the run.
        epoch: called at the start of each epoch for its number.
    """

    def __init__(self, length: int, seed: int, epoch: Callable[[], int]) -> None:
        self.length, self.seed, self.epoch = length, seed, epoch

    def __len__(self) -> int:
        """Items of an epoch."""
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Every index once."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch())
        order = torch.randperm(self.length, generator=generator)
        seeds = torch.randint(2**62, (self.length,), generator=generator)
        return zip(_numbers(order), _numbers(seeds), strict=True)


class ViewSampler(Sampler[int]):
    """All views of all videos, ordered so that the views of a video come to one loader worker, which decodes it once.

    Batch i of a loader is made by worker i % num_workers: each worker gets videos of its own, but for the last batches.

    Args:
        num_videos: videos, whose items follow each other.
        num_views: items of a video.
        batch_size: items of a batch.
        num_workers: loader processes; with 0 or 1 the order is that of the items.
    """

    def __init__(self, num_videos: int, num_views: int, batch_size: int, num_workers: int) -> None:
        self.num_videos, self.num_views = num_videos, num_views
        self.batch_size, self.num_workers = batch_size, max(num_workers, 1)

    def __len__(self) -> int:
        """Number of items."""
        return self.num_videos * self.num_views

    def __iter__(self) -> Iterator[int]:
        """Every index once."""
        streams = [self._items(worker) for worker in range(self.num_workers)]
        # The first worker has the most videos: where it has none left, no other has.
        while batch := list(itertools.islice(streams[0], self.batch_size)):
            yield from batch
            for stream in streams[1:]:
                yield from itertools.islice(stream, self.batch_size)

    def _items(self, worker: int) -> Iterator[int]:
        for video in range(worker, self.num_videos, self.num_workers):
            yield from range(video * self.num_views, (video + 1) * self.num_views)


def _numbers(values: torch.Tensor) -> Iterator[int]:
    """The values as Python's numbers, which take several times the tensor's memory, a few at a time."""
    for some in values.split(CHUNK):
        yield from some.tolist()
