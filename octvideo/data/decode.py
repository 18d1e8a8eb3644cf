"""Named frames of a video file, exactly, by one of three decoders.

Where a file's packets name its frames (see :mod:`octvideo.data.probe`), PyAV seeks to the keyframe before the wanted
frames, picks them by their times and decodes no frame that nobody needs, which is faster than decord and torchcodec;
these can be chosen for the files in which they are exact. All other files are read by PyAV in sequence.
"""

import io
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

import av
import torch
from av.video.reformatter import VideoReformatter

from octvideo.data.probe import (
    WAY_OUT,
    VideoBytes,
    VideoDecodeError,
    VideoInfo,
    VideoSource,
    as_source,
    numbered_frames,
    open_error,
    open_video,
    probe_video,
    video_stream,
)

__all__ = ["DECODERS", "check_decoder", "decode_frames", "iterate_frames", "seeks_exactly"]

DECODERS = ("auto", "pyav", "torchcodec", "decord")
# Up to so many frames it is cheaper to decode on to the next keyframe than to jump to it.
JUMP_FRAMES = 8
# Frames that decord and torchcodec are asked for at a time.
BLOCK_FRAMES = 32
# PyAV 17 converts colours with a thread for each core; those before it use one, and know no such argument.
ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


def check_decoder(decoder: str) -> None:
    """Check that a decoder can be had here.

    Raises:
        ValueError: an unknown one, or torchcodec where it cannot be used.
    """
    if decoder not in DECODERS:
        raise ValueError(f"decoder should be one of {', '.join(DECODERS)}, but it is {decoder!r}.")
    problem = _torchcodec_problem() if decoder == "torchcodec" else None
    if problem:
        raise ValueError(f"decoder is 'torchcodec', but {problem}; or set decoder to 'auto'.")


def decode_frames(
    path: str | os.PathLike[str] | VideoBytes,
    indices: Sequence[int],
    *,
    short_side: int | None = None,
    decoder: str = "auto",
    each: Callable[[torch.Tensor], torch.Tensor] | None = None,
    info: VideoInfo | None = None,
) -> torch.Tensor:
    """Decode the named frames of a video in one call.

    Args:
        path: video file, or its content in memory.
        indices: frame numbers in presentation order, 0 the first; any order, repeats allowed.
        short_side: resize while decoding so that the shorter side has this many pixels; None keeps the size.
        decoder: as in :func:`iterate_frames`.
        each: called on every frame as it comes, such as to keep a crop of it only; None keeps it as it is.
        info: what is known of the file, as from a scan's manifest; None is :func:`probe_video`'s answer.

    Shape:
        uint8 RGB, (T, H, W, C) with T = len(indices); (T, ...) where ``each`` gives frames of another shape.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no indices, short_side below 1, or a decoder that is not to be had.
        IndexError: an index outside the frames that decode.
        VideoDecodeError: the file cannot be read.
    """
    wanted = sorted(set(indices))
    places: dict[int, list[int]] = {}
    for place, index in enumerate(indices):
        places.setdefault(index, []).append(place)
    clip = torch.empty(0)
    frames = iterate_frames(path, wanted, short_side=short_side, decoder=decoder, info=info)
    for index, frame in zip(wanted, frames, strict=True):
        frame = frame if each is None else each(frame)
        if index == wanted[0]:
            clip = torch.empty(len(indices), *frame.shape, dtype=frame.dtype)
        # Copied one by one, the decoder fills the same memory again and again.
        for place in places[index]:
            clip[place] = frame
    return clip


def iterate_frames(
    path: str | os.PathLike[str] | VideoBytes,
    indices: Sequence[int],
    *,
    short_side: int | None = None,
    decoder: str = "auto",
    info: VideoInfo | None = None,
) -> Iterator[torch.Tensor]:
    """The named frames of a video one after the other, each decoded when it is its turn.

    Args:
        path: video file, or its content in memory.
        indices: frame numbers in increasing order.
        short_side: as in :func:`decode_frames`; such frames are always PyAV's.
        decoder: "pyav", "torchcodec" or "decord", each for the files in which its seeks are exact (PyAV reads the
            rest), or "auto", the fastest for each file; the pixels are the same, 10-bit files apart.
        info: as in :func:`decode_frames`.

    Shape:
        uint8 RGB, (H, W, C) each.

    Raises:
        FileNotFoundError, ValueError, IndexError, VideoDecodeError: as :func:`decode_frames`.
    """
    check_decoder(decoder)
    info = probe_video(path) if info is None else info
    name = as_source(path)
    _check_indices(name, indices, info.num_frames)
    chosen = "pyav" if short_side is not None else decoder
    seeker = chosen if chosen in info.seekers else next(iter(info.seekers), None)
    reader = READERS[seeker] if seeker else None
    return _read(name, indices, info, _Converter(info, short_side), reader)


def _check_indices(name: VideoSource, indices: Sequence[int], num_frames: int) -> None:
    if len(indices) == 0:
        raise ValueError("indices should name at least one frame, but it is empty.")
    for index in (min(indices), max(indices)):
        if not 0 <= index < num_frames:
            raise IndexError(f"{name}: frame {index} was asked for, but frames 0 to {num_frames - 1} decode.")


class _Converter:
    """From PyAV's frames to RGB ones, upright and of one size."""

    def __init__(self, info: VideoInfo, short_side: int | None) -> None:
        if short_side is not None and short_side < 1:
            raise ValueError(f"short_side should be at least 1 pixel, but it is {short_side}.")
        shorter = min(info.height, info.width)
        scale = 1 if short_side is None else short_side / shorter
        self.height, self.width = (max(round(side * scale), 1) for side in (info.height, info.width))
        self.quarter_turns = info.rotation_degrees // 90
        if self.quarter_turns % 2:
            self.height, self.width = self.width, self.height
        # One for all frames: it keeps the scaler's tables.
        self.reformatter = VideoReformatter()

    def __call__(self, frame: "av.VideoFrame") -> torch.Tensor:
        rgb = self.reformatter.reformat(
            frame, width=self.width, height=self.height, format="rgb24", interpolation="BILINEAR", **ONE_THREAD
        )
        image = torch.from_numpy(rgb.to_ndarray())
        return torch.rot90(image, self.quarter_turns) if self.quarter_turns else image


Reader = Callable[[VideoSource, Sequence[int], VideoInfo, _Converter], Iterator[torch.Tensor]]
"""Frames of a file in increasing order; it ends early where it cannot go on."""


def _read(
    name: VideoSource, wanted: Sequence[int], info: VideoInfo, to_rgb: _Converter, reader: Reader | None
) -> Iterator[torch.Tensor]:
    """Frames by the reader; what it does not give is read in sequence."""
    num_read = 0
    try:
        for frame in reader(name, wanted, info, to_rgb) if reader else ():
            yield frame
            num_read += 1
        if num_read < len(wanted):
            yield from _read_in_sequence(name, wanted[num_read:], info, to_rgb)
    except av.error.FFmpegError as error:  # what was said of the file is no longer true
        raise open_error(name, error) from error


def _read_in_sequence(
    name: VideoSource, wanted: Sequence[int], info: VideoInfo, to_rgb: _Converter
) -> Iterator[torch.Tensor]:
    """Frames by PyAV, read from the start; only the wanted ones are converted to RGB."""
    missing = iter(wanted)
    following = next(missing)
    for number, frame in numbered_frames(name, info):
        if number == following:
            yield to_rgb(frame)
            following = next(missing, -1)
        if following < number:
            break
    if following >= 0:
        raise VideoDecodeError(f"{name}: frame {following} does not decode. {WAY_OUT}")


def _read_with_pyav(
    name: VideoSource, wanted: Sequence[int], info: VideoInfo, to_rgb: _Converter
) -> Iterator[torch.Tensor]:
    """Frames by PyAV from the keyframes before them."""
    with open_video(name) as container:
        stream = video_stream(name, container)
        for keyframe, indices in _runs(wanted, info.keyframes):
            times = [info.times[index] for index in indices]
            num_read = 0
            for frame in _read_run(container, stream, info.times[keyframe], times):
                yield to_rgb(frame)
                num_read += 1
            if num_read < len(times):
                return


def _runs(wanted: Sequence[int], keyframes: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Frames in groups that are decoded in one go, each with the keyframe where that starts."""
    runs: list[tuple[int, list[int]]] = []
    for index in wanted:
        keyframe = keyframes[bisect_right(keyframes, index) - 1]
        if runs and keyframe - runs[-1][1][-1] <= JUMP_FRAMES:
            runs[-1][1].append(index)
        else:
            runs.append((keyframe, [index]))
    return runs


def _read_run(
    container: "av.container.InputContainer", stream: "av.VideoStream", start: int, times: Sequence[int]
) -> Iterator["av.VideoFrame"]:
    """Frames of the given times, decoded from the keyframe of time start on; ends early where one does not come."""
    wanted, last = set(times), times[-1]
    # H.264 marks frames that no other one refers to: those that are not wanted need no decoding.
    may_skip = stream.codec_context.name == "h264"
    try:
        container.seek(start, stream=stream)
        for number, packet in enumerate(container.demux(stream)):
            if number == 0 and not (packet.is_keyframe and packet.pts is not None and packet.pts <= start):
                return
            if may_skip:
                stream.codec_context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            for frame in packet.decode():
                if frame.pts in wanted:
                    yield frame
                    if frame.pts == last:
                        return
    except av.error.FFmpegError:
        return


def _read_with_decord(
    name: VideoSource, wanted: Sequence[int], info: VideoInfo, to_rgb: _Converter
) -> Iterator[torch.Tensor]:
    """Frames by decord."""
    try:
        import decord
    except ImportError:
        return
    try:
        content = io.BytesIO(name.data) if isinstance(name, VideoBytes) else name
        reader = decord.VideoReader(content, ctx=decord.cpu(0), num_threads=1)
        # It waits for ever for frames that it promises and the file does not hold.
        if len(reader) == info.num_frames:
            for block in _blocks(wanted):
                yield from torch.from_numpy(reader.get_batch(block).asnumpy())
    except (decord.DECORDError, RuntimeError, ValueError):
        return


def _read_with_torchcodec(
    name: VideoSource, wanted: Sequence[int], info: VideoInfo, to_rgb: _Converter
) -> Iterator[torch.Tensor]:
    """Frames by torchcodec, which looks at all packets first: seeks by the header's times alone go wrong in H.265."""
    if _torchcodec_problem():
        return
    from torchcodec.decoders import VideoDecoder

    try:
        content = name.data if isinstance(name, VideoBytes) else name
        decoder = VideoDecoder(content, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
        if len(decoder) == info.num_frames:
            for block in _blocks(wanted):
                yield from decoder.get_frames_at(block).data
    except (RuntimeError, ValueError, IndexError):
        return


@lru_cache(maxsize=1)
def _torchcodec_problem() -> str | None:
    """Why torchcodec cannot be used, with the way out; None where it can."""
    try:
        from torchcodec.decoders import VideoDecoder

        VideoDecoder(b"no video")  # FFmpeg's libraries are looked for on import or on first use, by version
    except ImportError:
        return "it is not installed. Install octvideo[torchcodec]"
    except (RuntimeError, OSError, ValueError) as error:
        if "Could not load" in str(error):
            return "FFmpeg's shared libraries are not found. Install FFmpeg 4 or later (such as apt-get install ffmpeg)"
    return None


def _blocks(wanted: Sequence[int]) -> Iterator[list[int]]:
    for start in range(0, len(wanted), BLOCK_FRAMES):
        yield list(wanted[start : start + BLOCK_FRAMES])


READERS: dict[str, Reader] = {
    "pyav": _read_with_pyav,
    "torchcodec": _read_with_torchcodec,
    "decord": _read_with_decord,
}


def seeks_exactly(name: str, info: VideoInfo, in_sequence: Mapping[int, "av.VideoFrame"]) -> bool:
    """Whether PyAV reaches by seeking the frames that reading in sequence gave, by their numbers."""
    numbers, to_rgb = sorted(in_sequence), _Converter(info, None)
    sought = list(READERS["pyav"](name, numbers, info, to_rgb)) if numbers else []
    return len(sought) == len(numbers) and all(
        torch.equal(frame, to_rgb(in_sequence[number])) for frame, number in zip(sought, numbers, strict=True)
    )
