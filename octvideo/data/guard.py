"""A data set whose items are made in a process that can be killed, and whose failures are errors or counted skips."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import Dataset

from octvideo.data.dataset import ClipItem, VideoDataset, VideoSamplingError
from octvideo.data.probe import WAY_OUT, VideoDecodeError, short_reason
from octvideo.data.unreadable import UnreadableClip, check_unreadable
from octvideo.data.watchdog import ProcessDiedError, TimedOutError, TimedProcess

__all__ = ["UNREADABLE_ERRORS", "GuardedDataset"]

UNREADABLE_ERRORS = (VideoDecodeError, VideoSamplingError, OSError)


class GuardedDataset(Dataset[Any]):
    """The items of a data set of videos, with a time limit and a policy for those that cannot be made.

    Each process that asks for items (a loader's worker, or the main one) has a child that decodes for it. A decode
    that is stuck, whatever it does, or that takes its process down is ended with the child; the file is named in a
    :class:`VideoDecodeError`, and not tried again by this process. Clips come back through shared memory, which costs
    about a millisecond for 8 frames of 224 x 224.

    Args:
        dataset: whose items are made.
        timeout_seconds: time limit of an item, or of a whole video where these are kept in memory; 0 sets none and
            decodes in the asking process.
        unreadable: "error", or "skip" to give an :class:`UnreadableClip` in place of an item that cannot be made.

    Raises:
        ValueError: an unknown policy, or a time limit below 0.
    """

    def __init__(self, dataset: VideoDataset, *, timeout_seconds: float = 300.0, unreadable: str = "error") -> None:
        check_unreadable(unreadable, timeout_seconds)
        self.dataset, self.timeout_seconds, self.unreadable = dataset, timeout_seconds, unreadable
        self._failed: dict[str, str] = {}
        self._child: tuple[int, TimedProcess] | None = None
        self._clips = torch.empty(0)

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
        video, view = divmod(index if isinstance(index, int) else index[0], self.dataset.num_views)
        path = self.dataset.annotations.records[video].path
        try:
            return self._items(index, path)
        except UNREADABLE_ERRORS as error:
            if self.unreadable == "error":
                raise
            return [UnreadableClip(video, view, path, short_reason(error, path))]

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the child: spawned workers start their own."""
        return self.__dict__ | {"_child": None, "_clips": torch.empty(0)}

    def fill_cache(self) -> None:
        """Decode every video into the data set's cache, where it has one, so that loader workers share it."""
        for record in self.dataset.annotations.records if self.dataset.cache_short_side is not None else ():
            try:
                self._fill(record.path)
            except UNREADABLE_ERRORS:
                if self.unreadable == "error":
                    raise

    def _items(self, index: int | tuple[int, int], path: str) -> list[ClipItem]:
        in_memory = self.dataset.cache_short_side is not None
        if in_memory:
            self._fill(path)
        if in_memory or not self.timeout_seconds:
            return self.dataset.__getitems__([index])
        items = self._ask(index, path)
        for item, clip in zip(items, self._clips.clone(), strict=True):
            item["clip"] = clip
        return items

    def _fill(self, path: str) -> None:
        cache = self.dataset.cache
        if path not in cache:
            cache[path] = (
                torch.from_numpy(self._ask(path, path)) if self.timeout_seconds else self.dataset.decode_video(path)
            )

    def _ask(self, request: Any, path: str) -> Any:
        """The answer of this process's child.

        Raises:
            VideoDecodeError: the request took too long, or ended the child.
        """
        if path in self._failed:
            raise VideoDecodeError(self._failed[path])
        if self._child is None or self._child[0] != os.getpid():
            shape = self.dataset.num_samples, *self.dataset.clip_shape
            memory = mmap.mmap(-1, math.prod(shape) * torch.float32.itemsize)  # shared with what is forked from here
            self._clips = torch.frombuffer(memory, dtype=torch.float32).view(shape)
            self._child = os.getpid(), TimedProcess(partial(_answer, self.dataset, self._clips), self.timeout_seconds)
        try:
            return self._child[1].ask(request)
        except TimedOutError as error:
            self._failed[path] = f"{path}: decoding {error}. Give it more time (timeout_seconds). {WAY_OUT}"
        except ProcessDiedError as error:
            self._failed[path] = f"{path}: the process that decoded it {error}. {WAY_OUT}"
        raise VideoDecodeError(self._failed[path])


def _answer(dataset: VideoDataset, clips: torch.Tensor, request: Any) -> Any:
    """In the child: the frames of a path, or the items of an index, whose clips are put into shared memory."""
    if isinstance(request, str):
        return dataset.decode_video(request).numpy()
    items = dataset.__getitems__([request])
    for item, clip in zip(items, clips, strict=True):
        clip.copy_(item["clip"])
    return [{**item, "clip": None} for item in items]
