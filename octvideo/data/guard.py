"""A data set whose items are made in a process that can be killed, and whose failures are errors or counted skips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from octvideo.data.dataset import ClipItem, VideoDataset, VideoSamplingError
from octvideo.data.probe import VideoDecodeError, short_reason
from octvideo.data.timed_clips import TimedClips
from octvideo.data.unreadable import UnreadableClip, check_unreadable

__all__ = ["UNREADABLE_ERRORS", "GuardedDataset"]

UNREADABLE_ERRORS = (VideoDecodeError, VideoSamplingError, OSError)


class GuardedDataset(Dataset[Any]):
    """The items of a data set of videos, with a time limit and a policy for those that cannot be made.

    Args:
        dataset: whose items are made, by :class:`TimedClips`.
        timeout_seconds: time limit of an item, or of a whole video where these are kept in memory; 0 sets none and
            decodes in the asking process.
        unreadable: "error", or "skip" to give an :class:`UnreadableClip` in place of an item that cannot be made.

    Raises:
        ValueError: an unknown policy, or a time limit below 0.
    """

    def __init__(self, dataset: VideoDataset, *, timeout_seconds: float = 300.0, unreadable: str = "error") -> None:
        check_unreadable(unreadable, timeout_seconds)
        self.dataset, self.unreadable = dataset, unreadable
        self._timed = TimedClips(dataset, timeout_seconds)

    def __len__(self) -> int:
        """Number of items."""
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int]) -> Any:
        """One item; under "skip" an :class:`UnreadableClip` where it cannot be made."""
        return self._items_or_reason(index)[0]

    def __getitems__(self, indices: Sequence[int | tuple[int, int]]) -> list[Any]:
        """The items of a batch: as many for each index as the data set draws samples, or one that cannot be made."""
        return [item for index in indices for item in self._items_or_reason(index)]

    def _items_or_reason(self, index: int | tuple[int, int]) -> list[Any]:
        index, seed = index if isinstance(index, tuple) else (index, None)
        path = self.dataset.path_of(index)
        try:
            return self._items(path, index, seed)
        except UNREADABLE_ERRORS as error:
            if self.unreadable == "error":
                raise
            video, view = divmod(index, self.dataset.num_views)
            return [UnreadableClip(video, view, path, short_reason(error, path))]

    def fill_cache(self) -> None:
        """Decode every video into the data set's cache, where it has one, so that loader workers share it."""
        for record in self.dataset.annotations.records if self.dataset.cache_short_side is not None else ():
            try:
                self._fill(record.path)
            except UNREADABLE_ERRORS:
                if self.unreadable == "error":
                    raise

    def _items(self, path: str, index: int, seed: int | None) -> list[ClipItem]:
        if self.dataset.cache_short_side is None:
            return self._timed.items_of(path, index, seed)
        self._fill(path)
        return self.dataset.items_of(path, index, seed)

    def _fill(self, path: str) -> None:
        cache = self.dataset.cache
        if path not in cache:
            cache[path] = self._timed.decode_video(path)
