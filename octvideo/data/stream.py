"""Clips of one video in order, from one pass over the file."""

from collections.abc import Callable, Iterator, Sequence

import torch

from octvideo.data.decode import iterate_frames
from octvideo.data.probe import VideoInfo, VideoSource

__all__ = ["ClipStream"]


class ClipStream:
    """Frames of clips that follow each other: each is decoded once, and kept while a later clip shares it.

    Args:
        path: video file, or its content in memory.
        clips: frame numbers of each clip.
        each: what becomes of a frame; only its result is kept.
        decoder: as in :func:`iterate_frames`.
        info: as in :func:`iterate_frames`.

    Raises:
        VideoDecodeError: the file cannot be read.
    """

    def __init__(
        self,
        path: VideoSource,
        clips: Sequence[Sequence[int]],
        each: Callable[[torch.Tensor], Sequence[torch.Tensor]],
        *,
        decoder: str = "auto",
        info: VideoInfo | None = None,
    ) -> None:
        self.path, self.each, self.decoder, self.info = path, each, decoder, info
        self._clips = [sorted(set(clip)) for clip in clips]
        self._last_use = {index: number for number, clip in enumerate(self._clips) for index in clip}
        self._number: int | None = None
        self._frames: Iterator[tuple[int, torch.Tensor]] = iter(())
        self._reached = -1
        self._kept: dict[int, Sequence[torch.Tensor]] = {}

    def clip(self, number: int) -> dict[int, Sequence[torch.Tensor]]:
        """Frames of a clip by their numbers, as ``each`` gave them; cheapest if asked for in order."""
        if self._number is None or not self._number <= number <= self._number + 1:
            self._start(number)
        self._number = None  # an error below makes the next call start anew
        self._kept = {index: frame for index, frame in self._kept.items() if self._last_use[index] >= number}
        while self._clips[number][-1] > self._reached:
            self._reached, frame = next(self._frames)
            self._kept[self._reached] = self.each(frame)
        self._number = number
        return {index: self._kept[index] for index in self._clips[number]}

    def _start(self, number: int) -> None:
        wanted = sorted({index for clip in self._clips[number:] for index in clip})
        frames = iterate_frames(self.path, wanted, decoder=self.decoder, info=self.info)
        self._frames = zip(wanted, frames, strict=True)
        self._reached, self._kept = -1, {}
