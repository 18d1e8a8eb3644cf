"""Map-style data set of clips: an index in, one transformed clip with its label out."""

import os
from collections.abc import MutableMapping, Sequence
from copy import copy
from typing import Any, TypedDict

import torch
from torch.utils.data import Dataset

from octvideo.data.annotations import Annotations
from octvideo.data.decode import check_decoder, decode_frames
from octvideo.data.probe import VideoBytes, VideoInfo, VideoSource, probe_video
from octvideo.data.sampling import (
    SHORT_POLICIES,
    centre_clip,
    clip_span,
    random_clip,
    segment_clip,
    stride_for_fps,
    uniform_clips,
)
from octvideo.data.scan.manifest import Manifest
from octvideo.data.stream import ClipStream
from octvideo.data.transforms import Crop, EvalTransform, TrainTransform, lay_out, normalise

__all__ = ["FRAME_ORDERS", "MODES", "UNKNOWN_LABEL", "ClipItem", "VideoDataset", "VideoSamplingError"]

MODES = ("train", "val", "test")
FRAME_ORDERS = ("natural", "shuffled")
UNKNOWN_LABEL = -1

Crops = torch.Tensor | Sequence[torch.Tensor]
"""Frames of a clip after all but normalisation: uint8 (T, C, H, W), or T of (C, H, W)."""


class VideoSamplingError(ValueError):
    """A video from which the asked clip cannot be drawn: too short under "error", or without a frame rate."""


class ClipItem(TypedDict):
    """One item: clip is float (C, T, H, W), video the record's index, view the number of clip and crop.

    Of :meth:`VideoDataset.as_pixels` the clip is uint8, of the same shape.
    """

    clip: torch.Tensor
    label: int
    video: int
    view: int


class VideoDataset(Dataset[ClipItem]):
    """Clips of labelled videos.

    - "train": one random clip per video, random crop; randomness from torch's global state or an item's seed.
    - "val": one item per video, its centre clip and centre crop.
    - "test": num_clips x num_crops items per video, one per view; view = clip * num_crops + crop.

    Args:
        annotations: videos and class names.
        num_frames: frames of a clip.
        frame_stride: distance between them, in frames at target_fps; None spreads the clip over the whole video, one
            frame from each of num_frames equal segments.
        mode: "train", "val" or "test".
        num_clips: clips per video in test mode; the first and the last reach the ends of the video.
        num_crops: crops per clip in test mode, along the longer side.
        target_fps: rate that frame_stride refers to, whatever a video's own rate; None counts the video's frames.
        short: what to do with videos shorter than a clip: "repeat_last", "wrap" or "error".
        frame_order: "natural", or "shuffled" to hide motion from the network (a control experiment).
        cache_short_side: keep every video in memory, decoded once, with its short side at this many pixels; for small
            data sets, where decoding takes most of the time. None decodes a clip at a time.
        cache: where cached videos are kept, to share them between data sets of one process; None is a new one.
        decoder: "pyav", "torchcodec" or "decord", each for the files in which its seeks are exact (PyAV reads the
            rest), or "auto", the fastest for each file; the pixels are the same, 10-bit files apart.
        manifest: what a scan has found out about the videos, which then need no look before they are decoded; those
            that are not in it, or have changed since, are looked at.
        short_side: (least, most) pixels of the short side in training.
        crop_size: pixels of the training crop, one number or (height, width).
        test_short_side: pixels of the short side in "val" and "test".
        test_crop_size: pixels of the crop in "val" and "test"; None is crop_size.
        stretch: where above 0, the whole frame (in training at least this share of its height and width) is resized to
            the crop, whatever its shape, and the short sides play no role.
        num_samples: clips of a training video that a batch gets from one drawing of frames, each with a crop, flip and
            colours of its own.
        flip: probability of a flip in training; 0 where direction is the label.
        color_jitter: strength of colour changes in training.
        rand_augment: RandAugment operations in training; 0 is off.
        rand_augment_magnitude: RandAugment strength, 0 to 30.
        mean: per channel, on pixels in 0 .. 1.
        std: per channel, on pixels in 0 .. 1.

    Shape:
        item["clip"]: float32 (C, num_frames, crop height, crop width).

    Raises:
        ValueError: an argument out of its range.
        VideoSamplingError: on access, a video too short under "error", or without a frame rate.
        VideoDecodeError: on access, a video that cannot be read; the message names the file.
    """

    def __init__(
        self,
        annotations: Annotations,
        *,
        num_frames: int,
        frame_stride: float | None,
        mode: str = "train",
        num_clips: int = 1,
        num_crops: int = 1,
        target_fps: float | None = None,
        short: str = "repeat_last",
        frame_order: str = "natural",
        cache_short_side: int | None = None,
        cache: MutableMapping[str, torch.Tensor] | None = None,
        decoder: str = "auto",
        manifest: Manifest | None = None,
        short_side: int | Sequence[int] = (256, 320),
        crop_size: int | Sequence[int] = 224,
        test_short_side: int = 256,
        test_crop_size: int | Sequence[int] | None = None,
        stretch: float = 0.0,
        num_samples: int = 1,
        flip: float = 0.5,
        color_jitter: float = 0.0,
        rand_augment: int = 0,
        rand_augment_magnitude: int = 9,
        mean: Sequence[float] = (0.45, 0.45, 0.45),
        std: Sequence[float] = (0.225, 0.225, 0.225),
    ) -> None:
        _check_choice("mode", mode, MODES)
        _check_choice("short", short, SHORT_POLICIES)
        _check_choice("frame_order", frame_order, FRAME_ORDERS)
        check_decoder(decoder)
        clip_span(num_frames, 1 if frame_stride is None else frame_stride)
        for name, value in (("num_clips", num_clips), ("num_samples", num_samples)):
            if value < 1:
                raise ValueError(f"{name} should be at least 1, but it is {value}.")
        self.annotations = annotations
        self.num_frames, self.frame_stride, self.target_fps = num_frames, frame_stride, target_fps
        self.mode, self.short, self.frame_order = mode, short, frame_order
        self.num_clips, self.num_crops = (num_clips, num_crops) if mode == "test" else (1, 1)
        self.num_samples = num_samples if mode == "train" else 1
        self.cache_short_side, self.decoder, self.manifest = cache_short_side, decoder, manifest
        self.cache: MutableMapping[str, torch.Tensor] = {} if cache is None else cache
        self.mean, self.std = tuple(mean), tuple(std)
        self.gives_pixels = False
        self._stream: tuple[tuple[int, int], ClipStream] | None = None
        self._in_memory: VideoBytes | None = None
        self._train_transform = TrainTransform(
            short_side=short_side,
            crop_size=crop_size,
            stretch=stretch,
            flip=flip,
            color_jitter=color_jitter,
            rand_augment=rand_augment,
            rand_augment_magnitude=rand_augment_magnitude,
            mean=mean,
            std=std,
        )
        self._eval_transform = EvalTransform(
            short_side=test_short_side,
            crop_size=crop_size if test_crop_size is None else test_crop_size,
            stretch=stretch,
            num_crops=self.num_crops,
            mean=mean,
            std=std,
        )

    @property
    def num_views(self) -> int:
        """Items per video."""
        return self.num_clips * self.num_crops

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """Shape of an item's clip: (C, T, H, W)."""
        transform = self._train_transform if self.mode == "train" else self._eval_transform
        return 3, self.num_frames, *transform.crop_size

    def as_pixels(self) -> "VideoDataset":
        """The same clips before they are normalised, which takes a quarter of the memory to hand them on.

        ``octvideo.data.normalise(pixels, dataset.mean, dataset.std)`` makes this data set's clips of them.
        """
        pixels = copy(self)
        pixels.gives_pixels = True
        return pixels

    def __len__(self) -> int:
        """Number of items: videos x views."""
        return len(self.annotations) * self.num_views

    def __getitem__(self, index: int | tuple[int, int]) -> ClipItem:
        """One clip with its label, -1 where it is not known; (index, seed) draws a training clip by that seed."""
        return self._drawn(index)[0]

    def __getitems__(self, indices: Sequence[int | tuple[int, int]]) -> list[ClipItem]:
        """The items of a batch: num_samples for each index, one after the other."""
        return [item for index in indices for item in self._drawn(index)]

    def _drawn(self, index: int | tuple[int, int]) -> list[ClipItem]:
        index, seed = index if isinstance(index, tuple) else (index, None)
        return self.items_of(self.path_of(index), index, seed)

    def path_of(self, index: int) -> str:
        """The video of an index.

        Raises:
            IndexError: there is no such index.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index should be 0 to {len(self) - 1}, but it is {index}.")
        return self.annotations.records[index // self.num_views].path

    def items_of(
        self, source: VideoSource, index: int, seed: int | None = None, out: torch.Tensor | None = None
    ) -> list[ClipItem]:
        """The num_samples items of an index from a video that is given: a path, or a content in memory.

        A training clip is drawn by the seed, where there is one. Of videos in memory nothing is kept but of the last.
        The items' clips are put into `out`, uint8 (num_samples, C, T, H, W), as pixels, where it is given.
        """
        if isinstance(source, VideoBytes) and source is not self._in_memory:
            self.cache.clear()
            self._stream, self._in_memory = None, source
        if seed is None:
            clips = self._crops(source, index)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                clips = self._crops(source, index)
        if out is None:
            finished = [self.finish(lay_out(clip)) for clip in clips]
        else:
            finished = [lay_out(clip, memory) for clip, memory in zip(clips, out, strict=True)]
        video, view = divmod(index, self.num_views)
        label = self.annotations.records[video].label
        label = UNKNOWN_LABEL if label is None else label
        return [{"clip": clip, "label": label, "video": video, "view": view} for clip in finished]

    def finish(self, pixels: torch.Tensor) -> torch.Tensor:
        """Clips as this data set gives them, from their pixels: normalised, or as they are."""
        return pixels if self.gives_pixels else normalise(pixels, self.mean, self.std)

    def _crops(self, source: VideoSource, index: int) -> Sequence[Crops]:
        """The num_samples clips of an index."""
        indices = self._frame_indices(source, index, index % self.num_views // self.num_crops)
        if self.mode == "train":
            return self._train_crops(source, indices)
        return [self._eval_crops(source, index, indices)]

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the open file: workers that are spawned get a copy."""
        return self.__dict__ | {"_stream": None, "_in_memory": None}

    def fill_cache(self) -> None:
        """Decode every video into the cache now, so that loader workers share it; nothing where caching is off."""
        if self.cache_short_side is not None:
            for record in self.annotations.records:
                self._cached_video(record.path)

    def _train_crops(self, source: VideoSource, indices: list[int]) -> list[torch.Tensor]:
        transform, samples = self._train_transform, range(self.num_samples)
        if self.cache_short_side is not None:
            frames = self._cached_video(source)[indices]
            return [transform.augment(transform.draw_crop(*frames.shape[1:3])(frames)) for _ in samples]
        info = self._probe(source)
        crops = [transform.draw_crop(info.height, info.width) for _ in samples]
        how: dict[str, Any] = {"decoder": self.decoder, "info": info}
        if len(crops) == 1:
            return [transform.augment(self._decode_crop(source, indices, crops[0]))]
        views = decode_frames(source, indices, each=lambda frame: torch.stack([crop(frame) for crop in crops]), **how)
        return [transform.augment(views[:, sample]) for sample in samples]

    def _eval_crops(self, source: VideoSource, index: int, indices: list[int]) -> Crops:
        video, view = divmod(index, self.num_views)
        clip, crop = divmod(view, self.num_crops)
        if self.cache_short_side is not None:
            frames = self._cached_video(source)[indices]
            return self._eval_transform.crop(frames.shape[1], frames.shape[2], crop)(frames)
        if self.num_views == 1:
            info = self._probe(source)
            return self._decode_crop(source, indices, self._eval_transform.crop(info.height, info.width))
        # Views of one video follow each other, and share frames. An open file cannot be shared with a forked worker.
        key = (os.getpid(), video)
        if self._stream is None or self._stream[0] != key:
            self._stream = key, self._clip_stream(source)
        crops = self._stream[1].clip(clip)
        return [crops[place][crop] for place in indices]

    def _decode_crop(self, source: VideoSource, indices: list[int], crop: Crop) -> torch.Tensor:
        """A clip's crops, uint8 (T, C, ...): frames are cut as they come, and resized all in one call."""
        info = self._probe(source)
        return crop.resize(decode_frames(source, indices, each=crop.cut, decoder=self.decoder, info=info))

    def _clip_stream(self, source: VideoSource) -> ClipStream:
        info = self._probe(source)
        clips = [self._sample(info, clip) for clip in range(self.num_clips)]
        return ClipStream(source, clips, self._eval_transform.crops, decoder=self.decoder, info=info)

    def _probe(self, source: VideoSource) -> VideoInfo:
        known = self.manifest.video_info(source) if self.manifest is not None and isinstance(source, str) else None
        return known or probe_video(source)

    def _frame_indices(self, source: VideoSource, index: int, clip: int) -> list[int]:
        info = self._probe(source)
        try:
            indices = self._sample(info, clip)
        except ValueError as error:
            raise VideoSamplingError(f"{source}: {error}") from error
        if self.frame_order == "natural":
            return indices
        generator = None if self.mode == "train" else torch.Generator().manual_seed(index)
        return [indices[place] for place in torch.randperm(len(indices), generator=generator).tolist()]

    def _sample(self, info: VideoInfo, clip: int) -> list[int]:
        if self.frame_stride is None:
            return segment_clip(info.num_frames, self.num_frames, self._segment_offset(clip))
        stride = stride_for_fps(self.frame_stride, info.fps, self.target_fps)
        if self.mode == "train":
            return random_clip(info.num_frames, self.num_frames, stride, short=self.short)
        if self.mode == "val":
            return centre_clip(info.num_frames, self.num_frames, stride, short=self.short)
        return uniform_clips(info.num_frames, self.num_frames, stride, self.num_clips, short=self.short)[clip]

    def _segment_offset(self, clip: int) -> float:
        return float(torch.rand(())) if self.mode == "train" else (clip + 0.5) / self.num_clips

    def _cached_video(self, source: VideoSource) -> torch.Tensor:
        name = str(source)
        if name not in self.cache:
            self.cache[name] = self.decode_video(source)
        return self.cache[name]

    def decode_video(self, source: VideoSource) -> torch.Tensor:
        """All frames of a video as the cache keeps them."""
        info = self._probe(source)
        return decode_frames(source, range(info.num_frames), short_side=self.cache_short_side, info=info)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} should be one of {', '.join(choices)}, but it is {value!r}.")
