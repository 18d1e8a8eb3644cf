"""Batches of clips from shards, read from start to end: a share of the videos for each process and its workers."""

import random
import warnings
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from math import ceil
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from octvideo.data.dataset import ClipItem, VideoDataset
from octvideo.data.probe import VideoBytes, VideoDecodeError
from octvideo.data.shards.address import ShardSet
from octvideo.data.shards.index import ShardError
from octvideo.data.shards.reader import parse_video, read_members

__all__ = ["ON_ERROR", "ShardDataset", "ShardLoader"]

ON_ERROR = ("error", "skip")

Sample = tuple[int, VideoBytes]
"""Number of a video in the set, and its content."""


class ShardDataset(IterableDataset[dict[str, Any]]):
    """Batches of the clips that a :class:`VideoDataset` makes, of videos out of shards.

    In training the shards come in another order every epoch, and each worker draws from a buffer of videos; the batches
    follow from seed, epoch, processes and workers, and a video's clip from seed, epoch and video alone. Every process
    gives equally many whole batches. In evaluation every video comes in order, all of its views from one worker.

    Args:
        shards: where the videos lie.
        clips: what is made of a video; its annotations are the index's.
        batch_size: clips of a batch.
        num_workers: of the loader that reads this; 0 reads in the main process.
        seed: of what training draws.
        buffer: videos that each worker holds to draw from in training.
        on_error: videos that cannot be read: "error", or "skip" to leave them out, counted and with a warning each;
            training goes on reading in their place.
        rank: number of this process.
        world_size: number of processes.
        done: in evaluation, numbers of videos that are left out.
        equal: in evaluation, give every process as many batches, by repeating some videos.

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
        on_error: str = "error",
        rank: int = 0,
        world_size: int = 1,
        done: Collection[int] = (),
        equal: bool = False,
    ) -> None:
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error should be one of {', '.join(ON_ERROR)}, but it is {on_error!r}.")
        if buffer < 1:
            raise ValueError(f"buffer should be at least 1 video, but it is {buffer}.")
        self.shards, self.clips, self.batch_size = shards, clips, batch_size
        self.workers, self.seed, self.buffer, self.on_error = max(num_workers, 1), seed, buffer, on_error
        self.is_training = clips.mode == "train"
        self._starts = shards.index.starts
        # Loader workers see what the main process sets before each epoch, and it sees what they count.
        self._epoch = torch.zeros(2, dtype=torch.int64).share_memory_()
        self._skipped = torch.zeros(self.workers, dtype=torch.int64).share_memory_()
        if self.is_training:
            self._rank, self._length = rank, len(shards.index) // world_size
            if self._length < 1:
                raise ValueError(f"{len(shards.index)} videos are too few for {world_size} processes.")
            self.batch_size = min(batch_size, self._length)
        else:
            self._videos = _process_share(len(shards.index), set(done), rank, world_size, equal)

    def begin(self, epoch: int, first: int = 0) -> None:
        """Set the epoch that the next pass reads, and the training batch that it begins with."""
        self._epoch.copy_(torch.tensor([epoch, first]))

    @property
    def num_skipped(self) -> int:
        """Videos that could not be read so far, in all workers."""
        return int(self._skipped.sum())

    def __len__(self) -> int:
        """Batches of this process, those of a training epoch before the first one included."""
        if self.is_training:
            return self._length // self.batch_size
        shares = [self._evaluation_share(worker) for worker in range(self.workers)]
        return sum(ceil(len(share) * self.clips.num_views / self.batch_size) for share in shares)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """This worker's batches."""
        info = get_worker_info()
        worker = info.id if info else 0
        items = self._training_items(worker) if self.is_training else self._evaluation_items(worker)
        while batch := list(islice(items, self.batch_size)):
            yield default_collate(batch)

    def _training_items(self, worker: int) -> Iterator[ClipItem]:
        from webdataset.filters import shuffle

        epoch, first = self._epoch.tolist()
        order = self._order(epoch)
        # A loader takes batch i from worker i % workers: after `first` batches, the next one comes from worker 0, too.
        worker = (worker + first) % self.workers
        counts = [len(range(number, len(self), self.workers)) for number in range(self.workers)]
        start = sum(counts[:worker]) * self.batch_size
        stop = start + counts[worker] * self.batch_size
        begun = len(range(worker, first, self.workers)) * self.batch_size
        random_state = random.Random(f"{self.seed} {epoch} {self._rank} {worker}")
        samples = self._samples(order[start:stop], worker)
        drawn = shuffle(self.buffer, initial=self.buffer, rng=random_state)(samples)
        spare = self._samples(order[stop:] + order[:stop], worker)
        items = self._items(chain(islice(drawn, begun, None), spare), epoch, worker)
        missing = stop - start - begun
        for item in islice(items, missing):
            yield item
            missing -= 1
        if missing:
            raise ShardError(f"{self.shards.urls[0]}: too few videos of it and the other shards can be read.")

    def _evaluation_items(self, worker: int) -> Iterator[ClipItem]:
        return self._items(self._samples(self._evaluation_share(worker), worker), None, worker)

    def _order(self, epoch: int) -> list[int]:
        """This process's videos in an epoch, shard by shard."""
        numbers = list(range(len(self._starts)))
        random.Random(f"{self.seed} {epoch}").shuffle(numbers)
        sizes = [len(shard) for shard in self.shards.index.shards]
        order = [self._starts[number] + video for number in numbers for video in range(sizes[number])]
        return order[self._rank * self._length :][: self._length]

    def _evaluation_share(self, worker: int) -> Sequence[int]:
        start, stop = (len(self._videos) * number // self.workers for number in (worker, worker + 1))
        return self._videos[start:stop]

    def _samples(self, videos: Iterable[int], worker: int) -> Iterator[Sample]:
        """Contents of videos, which lie shard by shard."""
        for number, members in groupby(videos, lambda video: bisect_right(self._starts, video) - 1):
            shard, url = self.shards.index.shards[number], self.shards.urls[number]
            wanted = [video - self._starts[number] for video in members]
            missing = len(wanted)
            try:
                for place, contents in read_members(url, shard, wanted):
                    missing -= 1
                    try:
                        yield self._starts[number] + place, parse_video(url, shard, place, contents)
                    except ShardError as error:
                        self._skip(error, worker)
            except ShardError as error:
                self._skip(error, worker, missing)

    def _items(self, samples: Iterable[Sample], epoch: int | None, worker: int) -> Iterator[ClipItem]:
        for video, content in samples:
            self.clips.forget()
            seed = None if epoch is None else random.Random(f"{self.seed} {epoch} {video}").getrandbits(62)
            try:
                for view in range(self.clips.num_views):
                    yield self.clips.item(content, video * self.clips.num_views + view, seed)
            except VideoDecodeError as error:
                self._skip(error, worker)

    def _skip(self, error: Exception, worker: int, count: int = 1) -> None:
        if self.on_error == "error":
            raise error
        self._skipped[worker] += count
        warnings.warn(f"left out {count} video(s): {error}", stacklevel=2)


class ShardLoader(DataLoader[dict[str, Any]]):
    """The loader of a :class:`ShardDataset`, whose workers live on from epoch to epoch.

    Args:
        dataset: of as many workers.
        start: called at the start of each epoch for its number, and for the training batch to begin with.
        options: of the loader.
    """

    dataset: ShardDataset

    def __init__(
        self, dataset: ShardDataset, start: Callable[[], tuple[int, int]] = lambda: (0, 0), **options: Any
    ) -> None:
        super().__init__(dataset, batch_size=None, **options)
        self.start = start

    def __iter__(self) -> Any:
        """The epoch's batches."""
        self.dataset.begin(*self.start())
        return super().__iter__()


def _process_share(num_videos: int, done: Collection[int], rank: int, world_size: int, equal: bool) -> list[int]:
    """Videos that a process scores: neighbours, so that it reads few shards."""
    videos = [video for video in range(num_videos) if video not in done]
    if equal and videos:
        length = ceil(len(videos) / world_size)
        start = min(rank * length, len(videos) - length)
        return videos[start : start + length]
    return videos[len(videos) * rank // world_size : len(videos) * (rank + 1) // world_size]
