"""Which items make up the batches of one process of several, and where a resumed epoch goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from itertools import cycle, islice, zip_longest
from typing import Any

from torch.utils.data import Sampler

__all__ = ["TrainBatches", "ViewBatches"]


class TrainBatches(Sampler[list[Any]]):
    """One process's batches of a training epoch.

    Batch i of an epoch is items i * W * B to (i + 1) * W * B of the sampler's order, for W processes with B items each,
    dealt out in turn: together the processes see what one process sees at batch size W * B. An incomplete last batch
    is left out, unless it is the only one; then items are repeated until every process has as many.

    Args:
        sampler: the epoch's order, the same in every process.
        batch_size: items of a process's batch, B.
        rank: number of this process.
        world_size: number of processes, W.
        first: called at the start of each epoch for the number of batches to leave out, which a resumed run has seen.
    """

    def __init__(
        self,
        sampler: Sampler[Any],
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        first: Callable[[], int] = lambda: 0,
    ) -> None:
        self.sampler, self.batch_size = sampler, batch_size
        self.rank, self.world_size, self.first = rank, world_size, first

    def __len__(self) -> int:
        """Batches of a whole epoch, those that are left out at its start included."""
        return max(len(self.sampler) // (self.batch_size * self.world_size), 1)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[Any]]:
        """The epoch's batches from `first` on."""
        together = self.batch_size * self.world_size
        first = self.first()
        items = islice(self.sampler, first * together, None)
        for _ in range(first, len(self)):
            batch = list(islice(items, together))
            even = math.ceil(len(batch) / self.world_size) * self.world_size
            yield list(islice(cycle(batch), even))[self.rank :: self.world_size]


class ViewBatches(Sampler[list[int]]):
    """One process's batches of the views of videos.

    A batch holds the same views whatever the processes, the loader workers and the videos that are done: scores then
    come out the same to the last bit. Videos whose views fill whole batches stay together in one process and, but for
    the last batches, come to one loader worker (batch i of a loader is made by worker i % num_workers), which decodes
    each of them once.

    Args:
        num_videos: videos, whose items follow each other.
        num_views: items of a video.
        batch_size: items of a batch.
        num_workers: loader processes.
        rank: number of this process.
        world_size: number of processes.
        done: videos that need no scoring; a batch without any other is left out.
        equal: give every process as many batches, by repeating some: where the processes work in step.
    """

    def __init__(
        self,
        num_videos: int,
        num_views: int,
        batch_size: int,
        *,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        done: Collection[int] = (),
        equal: bool = False,
    ) -> None:
        self.num_items, self.num_views, self.batch_size = num_videos * num_views, num_views, batch_size
        self.num_workers, self.rank, self.world_size = max(num_workers, 1), rank, world_size
        self.done, self.equal = frozenset(done), equal
        self.group_items = math.lcm(num_views, batch_size)  # whole videos and whole batches
        self._length = sum(1 for _ in self)

    def __len__(self) -> int:
        """Batches of this process."""
        return self._length

    def __iter__(self) -> Iterator[list[int]]:
        """The batches, those of each loader worker in turn."""
        if not self.equal:
            return self._share(self.rank)
        most = list(self._share(0))  # no other process has more
        return islice(cycle(list(self._share(self.rank)) or most), len(most))

    def _share(self, rank: int) -> Iterator[list[int]]:
        mine = self.groups()[rank :: self.world_size]
        streams = [self._stream(mine[worker :: self.num_workers]) for worker in range(self.num_workers)]
        for turn in zip_longest(*streams):
            yield from filter(None, turn)

    def _stream(self, groups: list[int]) -> Iterator[list[int]]:
        for start in groups:
            yield from self.batches_of(start)

    def groups(self) -> list[int]:
        """First items of groups of videos that fill whole batches, for all processes, without those that are done."""
        return [start for start in range(0, self.num_items, self.group_items) if any(self.batches_of(start))]

    def batches_of(self, group: int) -> Iterator[list[int]]:
        """The batches of the group of videos whose items start at `group`."""
        end = min(group + self.group_items, self.num_items)
        for start in range(group, end, self.batch_size):
            batch = list(range(start, min(start + self.batch_size, end)))
            if not self.done.issuperset(range(batch[0] // self.num_views, batch[-1] // self.num_views + 1)):
                yield batch
