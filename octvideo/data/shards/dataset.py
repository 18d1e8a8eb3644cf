"""Batches of clips from shards, read from start to end: a share of the videos for each process and its workers."""

import random
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from math import ceil
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from octvideo.data.batches import ViewBatches
from octvideo.data.dataset import VideoDataset
from octvideo.data.guard import UNREADABLE_ERRORS
from octvideo.data.handover import ClipLoader, HandOver
from octvideo.data.probe import VideoBytes, short_reason
from octvideo.data.shards.address import ShardSet
from octvideo.data.shards.index import ShardError
from octvideo.data.shards.reader import parse_video, read_members
from octvideo.data.timed_clips import TimedClips
from octvideo.data.unreadable import UnreadableClip, check_unreadable, collate_clips

__all__ = ["ShardDataset", "ShardLoader"]

Sample = tuple[int, VideoBytes | ShardError]
"""Number of a video in the set, and its content, or why the shard does not give it."""


class ShardDataset(IterableDataset[dict[str, Any]]):
    """Batches of the clips that a :class:`VideoDataset` makes, of videos out of shards.

    In training the shards come in another order every epoch, and each worker draws from a buffer of videos; the batches
    follow from seed, epoch, processes and workers, and a video's clip from seed, epoch and video alone. Every process
    gives equally many whole batches. In evaluation every video comes in order, all of its views from one worker, in the
    batches of :class:`ViewBatches`, which are the same whatever the processes, workers and videos that are done.

    Args:
        shards: where the videos lie.
        clips: what is made of a video; its annotations are the index's.
        batch_size: videos of a training batch, each with as many clips as are drawn of it; views of another.
        num_workers: of the loader that reads this; 0 reads in the main process.
        seed: of what training draws.
        buffer: videos that each worker holds to draw from in training.
        unreadable: videos that cannot be read: "error", or "skip" to leave them out of their batch, which lists them
            as :func:`collate_clips` does.
        timeout_seconds: limit for making a clip, as in :class:`TimedClips`, and for each piece that comes from an
            address; 0 sets none.
        rank: number of this process.
        world_size: number of processes.
        done: in evaluation, numbers of videos that need no scoring.
        equal: in evaluation of one view a video, give every process as many batches, by repeating some.
        collate: makes a batch of items.

    Raises:
        ValueError: an argument out of its range, or fewer videos than processes.
        ShardError: on use, a shard or a member that is not what it should be.
        VideoDecodeError: on use, a video that cannot be decoded.
    """

    def __init__(
        self,
        shards: ShardSet,
        clips: VideoDataset,
        *,
        batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
        buffer: int = 100,
        unreadable: str = "error",
        timeout_seconds: float = 300.0,
        rank: int = 0,
        world_size: int = 1,
        done: Collection[int] = (),
        equal: bool = False,
        collate: Callable[[Sequence[Any]], dict[str, Any]] = collate_clips,
    ) -> None:
        check_unreadable(unreadable, timeout_seconds)
        if buffer < 1:
            raise ValueError(f"shuffle_buffer should be at least 1 video, but it is {buffer}.")
        self.shards, self.clips, self.batch_size = shards, clips, batch_size
        self.workers, self.seed, self.buffer, self.unreadable = max(num_workers, 1), seed, buffer, unreadable
        self.collate = collate
        self.is_training = clips.mode == "train"
        self._timed = TimedClips(clips, timeout_seconds)
        self._starts = shards.index.starts
        # Loader workers see what the main process sets before each epoch.
        self._epoch = torch.zeros(2, dtype=torch.int64).share_memory_()
        if self.is_training:
            self._rank, self._length = rank, len(shards.index) // world_size
            if self._length < 1:
                raise ValueError(f"{len(shards.index)} videos are too few for {world_size} processes.")
            self.batch_size = min(batch_size, self._length)
        else:
            self._views = ViewBatches(len(shards.index), clips.num_views, batch_size, done=done)
            self._groups = _process_share(self._views.groups(), rank, world_size, equal)

    def begin(self, epoch: int, first: int = 0) -> None:
        """Set the epoch that the next pass reads, and the training batch that it begins with."""
        self._epoch.copy_(torch.tensor([epoch, first]))

    def __len__(self) -> int:
        """Batches of this process, those of a training epoch before the first one included."""
        if self.is_training:
            return self._length // self.batch_size
        return sum(1 for group in self._groups for _ in self._views.batches_of(group))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """This worker's batches."""
        info = get_worker_info()
        worker = info.id if info else 0
        batches = self._training_batches(worker) if self.is_training else self._evaluation_batches(worker)
        return map(self.collate, batches)

    def _training_batches(self, worker: int) -> Iterator[list[Any]]:
        from webdataset.filters import shuffle

        epoch, first = self._epoch.tolist()
        # A loader takes batch i from worker i % workers: after `first` batches, the next one comes from worker 0, too.
        worker = (worker + first) % self.workers
        counts = [len(range(number, len(self), self.workers)) for number in range(self.workers)]
        start = sum(counts[:worker]) * self.batch_size
        stop = start + counts[worker] * self.batch_size
        begun = len(range(worker, first, self.workers)) * self.batch_size
        random_state = random.Random(f"{self.seed} {epoch} {self._rank} {worker}")
        samples = self._samples(self._order(epoch)[start:stop])
        drawn = islice(shuffle(self.buffer, initial=self.buffer, rng=random_state)(samples), begun, None)
        while batch := list(islice(drawn, self.batch_size)):
            seeds = (random.Random(f"{self.seed} {epoch} {video}").getrandbits(62) for video, _ in batch)
            yield [
                item for sample, seed in zip(batch, seeds, strict=True) for item in self._items(sample, sample[0], seed)
            ]

    def _evaluation_batches(self, worker: int) -> Iterator[list[Any]]:
        start, stop = (len(self._groups) * number // self.workers for number in (worker, worker + 1))
        groups, num_views = self._groups[start:stop], self.clips.num_views

        def batches() -> Iterator[list[int]]:
            return chain.from_iterable(map(self._views.batches_of, groups))

        samples = self._samples(video for video, _ in groupby(i // num_views for batch in batches() for i in batch))
        sample: Sample | None = None
        for batch in batches():
            items: list[Any] = []
            for index in batch:
                if sample is None or sample[0] != index // num_views:
                    sample = next(samples)
                items += self._items(sample, index)
            yield items

    def _order(self, epoch: int) -> list[int]:
        """This process's videos in an epoch, shard by shard."""
        numbers = list(range(len(self._starts)))
        random.Random(f"{self.seed} {epoch}").shuffle(numbers)
        sizes = [len(shard) for shard in self.shards.index.shards]
        order = [self._starts[number] + video for number in numbers for video in range(sizes[number])]
        return order[self._rank * self._length :][: self._length]

    def _samples(self, videos: Iterable[int]) -> Iterator[Sample]:
        """Contents of videos, which lie shard by shard: one for each, in their order."""
        for number, members in groupby(videos, lambda video: bisect_right(self._starts, video) - 1):
            shard, url, first = self.shards.index.shards[number], self.shards.urls[number], self._starts[number]
            wanted = [video - first for video in members]
            num_read = 0
            try:
                for place, contents in read_members(url, shard, wanted, self._timed.seconds):
                    num_read += 1
                    try:
                        content: VideoBytes | ShardError = parse_video(url, shard, place, contents)
                    except ShardError as error:
                        content = error
                    yield first + place, content
            except ShardError as error:
                yield from ((first + place, error) for place in wanted[num_read:])

    def _items(self, sample: Sample, index: int, seed: int | None = None) -> list[Any]:
        """The items of an index, or under "skip" what stands for them."""
        video, content = sample
        try:
            if isinstance(content, ShardError):
                raise content
            return self._timed.items_of(content, index, seed)
        except (*UNREADABLE_ERRORS, ShardError) as error:
            if self.unreadable == "error":
                raise
            path = self.clips.annotations.records[video].path
            return [UnreadableClip(video, index % self.clips.num_views, path, short_reason(error, path))]


class ShardLoader(ClipLoader):
    """The loader of a :class:`ShardDataset`, whose workers live on from epoch to epoch.

    Args:
        dataset: of as many workers.
        start: called at the start of each epoch for its number, and for the training batch to begin with.
        hand_over: as of :class:`ClipLoader`.
        options: of the loader.
    """

    dataset: ShardDataset

    def __init__(
        self,
        dataset: ShardDataset,
        start: Callable[[], tuple[int, int]] = lambda: (0, 0),
        hand_over: HandOver | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dataset, hand_over, batch_size=None, **options)
        self.start = start

    def __iter__(self) -> Any:
        """The epoch's batches."""
        self.dataset.begin(*self.start())
        return super().__iter__()


def _process_share(groups: list[int], rank: int, world_size: int, equal: bool) -> list[int]:
    """Groups of videos that a process scores: neighbours, so that it reads few shards."""
    if equal and groups:
        length = ceil(len(groups) / world_size)
        start = min(rank * length, len(groups) - length)
        return groups[start : start + length]
    return groups[len(groups) * rank // world_size : len(groups) * (rank + 1) // world_size]
