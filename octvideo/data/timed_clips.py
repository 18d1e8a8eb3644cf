"""Clips of videos, made in a process that can be killed."""

from __future__ import annotations

import math
import mmap
import os
from functools import partial
from typing import Any

import torch

from octvideo.data.dataset import ClipItem, VideoDataset
from octvideo.data.probe import WAY_OUT, VideoDecodeError, VideoSource
from octvideo.data.watchdog import ProcessDiedError, TimedOutError, TimedProcess

__all__ = ["TimedClips"]


class TimedClips:
    """What a data set makes of videos, within a time limit.

    Each process that asks for clips (a loader's worker, or the main one) has a child that decodes for it. A decode
    that is stuck, whatever it does, or that takes its process down is ended with the child; the video is named in a
    :class:`VideoDecodeError`, and not tried again by this process. Clips come back as pixels, through shared memory
    that is used again and again, and are normalised here. A video in memory is sent to the child once for all clips of
    it that follow each other.

    Args:
        dataset: whose items are made.
        seconds: time limit of the items of an index, or of a whole video; 0 sets none and decodes in the asking
            process.
    """

    def __init__(self, dataset: VideoDataset, seconds: float) -> None:
        self.dataset, self.seconds = dataset, seconds
        self._failed: dict[str, str] = {}
        self._child: tuple[int, TimedProcess] | None = None
        self._sent: VideoSource | None = None
        self._pixels = torch.empty(0)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the child: spawned workers start their own."""
        return self.__dict__ | {"_child": None, "_sent": None, "_pixels": torch.empty(0)}

    def items_of(self, source: VideoSource, index: int, seed: int | None = None) -> list[ClipItem]:
        """As :meth:`VideoDataset.items_of`.

        Raises:
            VideoDecodeError: as there, or it took too long or ended the child.
        """
        if not self.seconds:
            return self.dataset.items_of(source, index, seed)
        items = self._ask(source, index, seed)
        clips = self.dataset.finish(self._pixels.clone() if self.dataset.gives_pixels else self._pixels)
        for item, clip in zip(items, clips, strict=True):
            item["clip"] = clip
        return items

    def decode_video(self, source: VideoSource) -> torch.Tensor:
        """As :meth:`VideoDataset.decode_video`.

        Raises:
            VideoDecodeError: as there, or it took too long or ended the child.
        """
        if not self.seconds:
            return self.dataset.decode_video(source)
        return torch.from_numpy(self._ask(source))

    def _ask(self, source: VideoSource, *request: Any) -> Any:
        """The child's answer to a request about a video."""
        name = str(source)
        if name in self._failed:
            raise VideoDecodeError(self._failed[name])
        process = self._process()
        is_there, self._sent = source is self._sent, source
        try:
            try:
                return process.ask((None if is_there else source, *request))
            except _NotThereError:  # the child that had it is no more
                return process.ask((source, *request))
        except TimedOutError as error:
            self._failed[name] = f"{name}: decoding {error}. Give it more time (timeout_seconds). {WAY_OUT}"
        except ProcessDiedError as error:
            self._failed[name] = f"{name}: the process that decoded it {error}. {WAY_OUT}"
        raise VideoDecodeError(self._failed[name])

    def _process(self) -> TimedProcess:
        """This process's child."""
        if self._child is None or self._child[0] != os.getpid():
            shape = self.dataset.num_samples, *self.dataset.clip_shape
            memory = mmap.mmap(-1, math.prod(shape))  # shared with what is forked from here
            self._pixels = torch.frombuffer(memory, dtype=torch.uint8).view(shape)
            self._child = os.getpid(), TimedProcess(partial(_answer, _Kept(self.dataset, self._pixels)), self.seconds)
            self._sent = None
        return self._child[1]


class _NotThereError(LookupError):
    """A request about the last video, of a child that has seen none."""


class _Kept:
    """What the child keeps from request to request."""

    def __init__(self, dataset: VideoDataset, pixels: torch.Tensor) -> None:
        self.dataset, self.pixels = dataset, pixels
        self.source: VideoSource | None = None


def _answer(kept: _Kept, request: tuple[Any, ...]) -> Any:
    """In the child: a whole video, or the items of an index, whose clips are put into shared memory."""
    source, *place = request
    kept.source = kept.source if source is None else source
    if kept.source is None:
        raise _NotThereError
    if not place:
        return kept.dataset.decode_video(kept.source).numpy()
    index, seed = place
    items = kept.dataset.items_of(kept.source, index, seed, kept.pixels)
    return [{**item, "clip": None} for item in items]
