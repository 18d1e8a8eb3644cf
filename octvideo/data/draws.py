"""Which clips a loader draws, in which order and with what randomness."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import Sampler

__all__ = ["EpochSampler", "ViewSampler"]


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
        order = torch.randperm(self.length, generator=generator).tolist()
        seeds = torch.randint(2**62, (self.length,), generator=generator).tolist()
        return iter(zip(order, seeds, strict=True))


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
        streams = [
            [video * self.num_views + view for video in range(worker, self.num_videos, self.num_workers)
             for view in range(self.num_views)]
            for worker in range(self.num_workers)
        ]  # fmt: skip
        for start in range(0, len(streams[0]), self.batch_size):
            for stream in streams:
                yield from stream[start : start + self.batch_size]
