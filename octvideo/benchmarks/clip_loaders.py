"""Loaders of the same clips from files: octvideo's, torchcodec's, decord's and PyTorchVideo's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import SequentialSampler, get_worker_info

from octvideo.data import (
    Annotations,
    EvalTransform,
    GuardedDataset,
    VideoDataset,
    VideoRecord,
    clip_span,
    probe_video,
    uniform_clips,
)
from octvideo.data.probe import forget_videos


class ClipPlan(NamedTuple):
    """What is made of every video: clips and crops, and the size of each."""

    num_clips: int
    num_crops: int
    num_frames: int
    stride: int
    short_side: int
    crop: int

    @property
    def num_views(self) -> int:
        """Tensors for each video."""
        return self.num_clips * self.num_crops


Loader = Callable[[Sequence[str], ClipPlan], Iterator[Tensor]]
"""Clips (C, T, H, W) of videos, one after the other: normalised, or as pixels that octvideo's loader normalises."""


def load_with_octvideo(
    paths: Sequence[str],
    plan: ClipPlan,
    decoder: str = "auto",
    forget: bool = False,
    timeout_seconds: float = 0.0,
) -> Iterator[Tensor]:
    """Pixels of octvideo's data set of test views.

    Args:
        paths: of videos.
        plan: what is made of each.
        decoder: as in :class:`VideoDataset`.
        forget: look at each video anew.
        timeout_seconds: above 0, clips are made in a child process that can be ended, as the data module has it.
    """
    if forget:
        for path in paths:
            forget_videos()
            yield from load_with_octvideo([path], plan, decoder)
        return
    items: VideoDataset | GuardedDataset = octvideo_views(paths, plan, decoder).as_pixels()
    if timeout_seconds:
        items = _guarded(tuple(paths), plan, timeout_seconds)
    for index in range(len(items)):
        yield items[index]["clip"]


@cache
def _guarded(paths: Sequence[str], plan: ClipPlan, timeout_seconds: float) -> GuardedDataset:
    """Pixels of views; kept from pass to pass, as a data module keeps them and the child that makes them."""
    return GuardedDataset(octvideo_views(paths, plan).as_pixels(), timeout_seconds=timeout_seconds)


def octvideo_views(paths: Sequence[str], plan: ClipPlan, decoder: str = "auto") -> VideoDataset:
    """The data set of octvideo's test views."""
    return VideoDataset(
        Annotations(tuple(VideoRecord(path, 0) for path in paths), ("",)),
        mode="test",
        num_clips=plan.num_clips,
        num_crops=plan.num_crops,
        num_frames=plan.num_frames,
        frame_stride=plan.stride,
        test_short_side=plan.short_side,
        crop_size=plan.crop,
        decoder=decoder,
    )


def load_with_torchcodec(paths: Sequence[str], plan: ClipPlan) -> Iterator[Tensor]:
    """torchcodec used well: one exact decoder for a video, all its frames in one call."""
    from torchcodec.decoders import VideoDecoder

    for path in paths:
        decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
        indices = _frame_indices(len(decoder), plan)
        yield from _views(decoder.get_frames_at(indices).data, plan)


def load_with_decord(paths: Sequence[str], plan: ClipPlan) -> Iterator[Tensor]:
    """decord's index list: one reader for a video, all its frames in one call."""
    import decord

    for path in paths:
        reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        indices = _frame_indices(len(reader), plan)
        yield from _views(torch.from_numpy(reader.get_batch(indices).asnumpy()), plan)


def load_with_pytorchvideo(paths: Sequence[str], plan: ClipPlan) -> Iterator[Tensor]:
    """PyTorchVideo's LabeledVideoDataset with its PyAV decoder; its transforms' steps in plain torch.

    (pytorchvideo.transforms does not import beside a torchvision of today.)
    """
    from pytorchvideo.data import LabeledVideoDataset

    worker = get_worker_info()
    dataset = LabeledVideoDataset(
        # It gives each worker its share of the list, and these are this worker's own videos.
        [(path, _seconds(path, plan)) for path in paths] * (worker.num_workers if worker else 1),
        _ClipsInSeconds(),
        video_sampler=SequentialSampler,
        decode_audio=False,
    )
    for item in dataset:
        yield from _float_views(item["video"], plan)


class _ClipsInSeconds:
    """A clip sampler for PyTorchVideo: the clips that the other loaders make."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(
        self, last_end: float, duration: float, info: dict[str, Any]
    ) -> tuple[Fraction, Fraction, int, int, bool]:
        """Start and end in seconds, number of the clip and of its copy, whether it is the last one."""
        start, number = info["starts"][self.number], self.number
        self.number += 1
        return start, start + info["length"], number, 0, self.number == len(info["starts"])

    def reset(self) -> None:
        """Begin with the next video."""
        self.number = 0


def _seconds(path: str, plan: ClipPlan) -> dict[str, Any]:
    info = probe_video(path)
    frame = 1 / Fraction(info.fps).limit_denominator(1001)
    clips = uniform_clips(info.num_frames, plan.num_frames, plan.stride, plan.num_clips)
    # The end is not part of the clip.
    return {"starts": [clip[0] * frame for clip in clips], "length": clip_span(plan.num_frames, plan.stride) * frame}


def _frame_indices(video_frames: int, plan: ClipPlan) -> list[int]:
    clips = uniform_clips(video_frames, plan.num_frames, plan.stride, plan.num_clips)
    return [index for clip in clips for index in clip]


def _views(frames: Tensor, plan: ClipPlan) -> Iterator[Tensor]:
    """All views of frames that hold the clips one after the other."""
    transform = EvalTransform(short_side=plan.short_side, crop_size=plan.crop, num_crops=plan.num_crops)
    for clip in frames.split(plan.num_frames):
        for crop in range(plan.num_crops):
            yield transform(clip, crop)


def _float_views(frames: Tensor, plan: ClipPlan) -> Iterator[Tensor]:
    """UniformTemporalSubsample, ShortSideScale, uniform crops and Normalize on float (C, T, H, W) in 0 .. 255."""
    places = torch.linspace(0, frames.shape[1] - 1, plan.num_frames).long()
    frames = frames[:, places]
    scale = plan.short_side / min(frames.shape[-2:])
    size = [math.floor(side * scale + 0.5) for side in frames.shape[-2:]]
    frames = torch.nn.functional.interpolate(frames, size=size, mode="bilinear", align_corners=False)
    long = -2 if size[0] > size[1] else -1
    frames = frames.narrow(-3 - long, (size[-3 - long] - plan.crop) // 2, plan.crop)
    room = size[long] - plan.crop
    for crop in range(plan.num_crops):
        start = room // 2 if plan.num_crops == 1 else crop * room // (plan.num_crops - 1)
        yield (frames.narrow(long, start, plan.crop) / 255 - 0.45) / 0.225


LOADERS: dict[str, Loader] = {
    "octvideo": load_with_octvideo,
    "octvideo, first look": partial(load_with_octvideo, forget=True),
    "octvideo, time limit": partial(load_with_octvideo, timeout_seconds=300.0),
    "octvideo, torchcodec": partial(load_with_octvideo, decoder="torchcodec"),
    "octvideo, decord": partial(load_with_octvideo, decoder="decord"),
    "torchcodec": load_with_torchcodec,
    "decord": load_with_decord,
    "pytorchvideo": load_with_pytorchvideo,
}
