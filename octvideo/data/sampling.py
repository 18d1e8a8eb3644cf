"""Which frames of a video make a clip: integer arithmetic only, done before any decode."""

from collections.abc import Sequence

import torch

__all__ = [
    "SHORT_POLICIES",
    "centre_clip",
    "clip_span",
    "random_clip",
    "segment_clip",
    "stride_for_fps",
    "uniform_clips",
]

SHORT_POLICIES = ("repeat_last", "wrap", "error")
"""What to do with a clip that reaches past the video's end: hold the last frame, start again at frame 0, or raise."""


def clip_span(num_frames: int, frame_stride: float) -> int:
    """Frames of the video that one clip covers, first and last included.

    Computes ``round((num_frames - 1) * frame_stride) + 1``.

    Args:
        num_frames: frames of the clip, at least 1.
        frame_stride: distance between two frames of the clip, in frames of the video; fractional after
            :func:`stride_for_fps`.

    Raises:
        ValueError: num_frames below 1, or frame_stride not positive.

    Example:
        >>> clip_span(8, 8)
        57
    """
    return _offsets(num_frames, frame_stride)[-1] + 1


def stride_for_fps(frame_stride: float, video_fps: float, target_fps: float | None) -> float:
    """Stride in this video's frames that lasts as long as ``frame_stride`` frames at ``target_fps``.

    Computes ``frame_stride * video_fps / target_fps``; the samplers round the resulting positions to whole frames.

    Args:
        frame_stride: stride in frames at the target rate.
        video_fps: this video's frames per second.
        target_fps: rate that the stride refers to; None leaves the stride as it is.

    Raises:
        ValueError: a rate that is not positive.

    Example:
        >>> stride_for_fps(8, video_fps=15.0, target_fps=30.0)
        4.0
    """
    if target_fps is None:
        return frame_stride
    if target_fps <= 0:
        raise ValueError(f"target_fps should be positive, but it is {target_fps}; use None to keep every video's rate.")
    if video_fps <= 0:
        raise ValueError(
            f"video_fps should be positive, but it is {video_fps}: the file does not state its frame rate. "
            "Set target_fps to None, or re-encode the file."
        )
    return frame_stride * video_fps / target_fps


def random_clip(
    video_frames: int,
    num_frames: int,
    frame_stride: float,
    generator: torch.Generator | None = None,
    *,
    short: str = "repeat_last",
) -> list[int]:
    """Frame indices of a clip whose start is uniform over all starts that fit.

    Args:
        video_frames: frames of the video.
        num_frames: frames of the clip.
        frame_stride: distance between two frames of the clip, in frames of the video.
        generator: torch random state; None is the global one, which differs in every loader worker.
        short: one of :data:`SHORT_POLICIES`, for a video shorter than the clip.

    Returns:
        num_frames indices in ``0 .. video_frames - 1``.

    Raises:
        ValueError: an argument out of its range, or a short video under the policy "error".
    """
    offsets = _offsets(num_frames, frame_stride)
    last_start = max(video_frames - offsets[-1] - 1, 0)
    start = int(torch.randint(last_start + 1, (1,), generator=generator).item())
    return _place(offsets, start, video_frames, short)


def centre_clip(video_frames: int, num_frames: int, frame_stride: float, *, short: str = "repeat_last") -> list[int]:
    """Frame indices of the clip in the middle of the video. Arguments as in :func:`random_clip`.

    Example:
        >>> centre_clip(10, 4, 2)
        [1, 3, 5, 7]
    """
    return uniform_clips(video_frames, num_frames, frame_stride, 1, short=short)[0]


def uniform_clips(
    video_frames: int, num_frames: int, frame_stride: float, num_clips: int, *, short: str = "repeat_last"
) -> list[list[int]]:
    """Frame indices of clips spread evenly: the first starts at frame 0, the last ends at the last frame.

    Clip ``i`` of ``n`` starts at ``floor(i * (video_frames - span) / (n - 1))``; one clip alone is the centre one.

    Args:
        video_frames: frames of the video.
        num_frames: frames of a clip.
        frame_stride: distance between two frames of a clip, in frames of the video.
        num_clips: clips to take, at least 1.
        short: one of :data:`SHORT_POLICIES`, for a video shorter than the clip.

    Returns:
        num_clips lists of num_frames indices.

    Raises:
        ValueError: an argument out of its range, or a short video under the policy "error".

    Example:
        >>> uniform_clips(10, 2, 3, 3)
        [[0, 3], [3, 6], [6, 9]]
    """
    if num_clips < 1:
        raise ValueError(f"num_clips should be at least 1, but it is {num_clips}.")
    offsets = _offsets(num_frames, frame_stride)
    room = max(video_frames - offsets[-1] - 1, 0)
    starts = [room // 2] if num_clips == 1 else [i * room // (num_clips - 1) for i in range(num_clips)]
    return [_place(offsets, start, video_frames, short) for start in starts]


def segment_clip(video_frames: int, num_frames: int, offset: float) -> list[int]:
    """Frame indices spread over the whole video: one from each of num_frames equal segments.

    Index ``i`` is ``floor((i + offset) * video_frames / num_frames)`` (the segments of Wang et al., "Temporal Segment
    Networks", ECCV 2016, with one offset for all of them). A video shorter than the clip repeats frames.

    Args:
        video_frames: frames of the video.
        num_frames: frames of the clip.
        offset: place within a segment, in [0, 1); 0.5 is the middle.

    Raises:
        ValueError: an argument out of its range.

    Example:
        >>> segment_clip(20, 4, 0.5)
        [2, 7, 12, 17]
    """
    if video_frames < 1:
        raise ValueError(f"video_frames should be at least 1, but it is {video_frames}.")
    if num_frames < 1:
        raise ValueError(f"num_frames should be at least 1, but it is {num_frames}.")
    if not 0 <= offset < 1:
        raise ValueError(f"offset should be at least 0 and below 1, but it is {offset}.")
    return [int((i + offset) * video_frames / num_frames) for i in range(num_frames)]


def _offsets(num_frames: int, frame_stride: float) -> list[int]:
    """Distances of a clip's frames from its first one, rounded half up to whole frames."""
    if num_frames < 1:
        raise ValueError(f"num_frames should be at least 1, but it is {num_frames}.")
    if frame_stride <= 0:
        raise ValueError(f"frame_stride should be positive, but it is {frame_stride}.")
    return [int(i * frame_stride + 0.5) for i in range(num_frames)]


def _place(offsets: Sequence[int], start: int, video_frames: int, short: str) -> list[int]:
    """Offsets moved to their start, with the policy applied to what lies past the end."""
    if video_frames < 1:
        raise ValueError(f"video_frames should be at least 1, but it is {video_frames}.")
    if short not in SHORT_POLICIES:
        raise ValueError(f"short should be one of {SHORT_POLICIES}, but it is {short!r}.")
    indices = [start + offset for offset in offsets]
    if indices[-1] < video_frames:
        return indices
    if short == "error":
        raise ValueError(
            f"a clip spans {offsets[-1] + 1} frames, but the video has {video_frames}. Take fewer frames or a smaller "
            'stride, or set short to "repeat_last" or "wrap".'
        )
    if short == "wrap":
        return [index % video_frames for index in indices]
    return [min(index, video_frames - 1) for index in indices]
