"""Named frames of a video file, exactly: a cheap look at the file decides how it can be read.

decord reads clips fastest, but it goes wrong after a seek in some codecs and containers, and it can wait for ever for
frames that a file promises and does not hold. PyAV therefore inspects every file first (once per process), and files in
which decord cannot be trusted are read by PyAV in sequence.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

__all__ = ["VideoDecodeError", "VideoInfo", "decode_frames", "probe_video"]

# decord lands on the asked frame after a seek in these. Not in H.265, nor in MPEG-4 with B-frames; and not even with
# H.264 in AVI, transport streams and FLV.
SEEK_EXACT_CODECS = frozenset({"h264", "vp9"})
SEEK_EXACT_CONTAINERS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
PROBE_CACHE_SIZE = 100_000
WAY_OUT = "Re-encode the file (ffmpeg -i FILE -c:v libx264 NEW.mp4) or take it off the list."


class VideoDecodeError(RuntimeError):
    """A video that cannot be read; the message names the file, the reason and the way out."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds.

    Args:
        num_frames: frames that decode, which may be fewer than the header promises.
        fps: frames per second on average; 0 where the file does not say.
        height: pixels, after the file's rotation flag is applied.
        width: pixels, after the file's rotation flag is applied.
        codec: FFmpeg's name of the decoder, such as "h264".
        rotation_degrees: counter-clockwise turn that the file asks for, a multiple of 90.
        can_seek: whether decord reaches the right frame by seeking.
    """

    num_frames: int
    fps: float
    height: int
    width: int
    codec: str
    rotation_degrees: int = 0
    can_seek: bool = False


def probe_video(path: str | os.PathLike[str]) -> VideoInfo:
    """Look at a video: size, rate and the number of frames that really decode.

    Costs reading the file's packets and decoding its last group of pictures; files that decord cannot seek in are
    decoded once as a whole. The answer is kept per process until the file's size or time changes.

    Raises:
        FileNotFoundError: no such file.
        VideoDecodeError: not a video, or no frame of it decodes.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise FileNotFoundError(f"{name}: no such video. Check the path, or the root that relative paths start from.")
    stat = os.stat(name)
    return _probe(name, stat.st_mtime_ns, stat.st_size)


def decode_frames(
    path: str | os.PathLike[str], indices: Sequence[int], *, short_side: int | None = None
) -> torch.Tensor:
    """Decode the named frames of a video in one call.

    Args:
        path: video file.
        indices: frame numbers in presentation order, 0 the first; any order, repeats allowed.
        short_side: resize while decoding so that the shorter side has this many pixels; None keeps the size.

    Shape:
        uint8 RGB, (T, H, W, C) with T = len(indices).

    Raises:
        FileNotFoundError: no such file.
        ValueError: no indices, or short_side below 1.
        IndexError: an index outside the frames that decode.
        VideoDecodeError: the file cannot be read.
    """
    info = probe_video(path)
    name = os.fspath(path)
    _check_indices(name, indices, info.num_frames)
    size = _target_size(info, short_side)
    wanted = sorted(set(indices))
    frames = _decode_with_decord(name, wanted, size) if info.can_seek else None
    if frames is None:
        frames = _decode_in_sequence(name, wanted, size, info.rotation_degrees)
    if wanted == list(indices):
        return frames
    position = {index: place for place, index in enumerate(wanted)}
    return frames[[position[index] for index in indices]]


def _check_indices(name: str, indices: Sequence[int], num_frames: int) -> None:
    if len(indices) == 0:
        raise ValueError("indices should name at least one frame, but it is empty.")
    for index in (min(indices), max(indices)):
        if not 0 <= index < num_frames:
            raise IndexError(f"{name}: frame {index} was asked for, but frames 0 to {num_frames - 1} decode.")


def _target_size(info: VideoInfo, short_side: int | None) -> tuple[int, int] | None:
    """(height, width) to resize to, or None where the size stays."""
    if short_side is None:
        return None
    if short_side < 1:
        raise ValueError(f"short_side should be at least 1 pixel, but it is {short_side}.")
    shorter = min(info.height, info.width)
    if shorter == short_side:
        return None
    height, width = (max(round(side * short_side / shorter), 1) for side in (info.height, info.width))
    return height, width


@lru_cache(maxsize=PROBE_CACHE_SIZE)
def _probe(name: str, mtime_ns: int, num_bytes: int) -> VideoInfo:
    """probe_video for one state of the file; time and size are there as parts of the cache's key."""
    if num_bytes == 0:
        raise VideoDecodeError(f"{name}: the file is empty. {WAY_OUT}")
    try:
        with _open(name) as container:
            return _inspect(name, container)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoDecodeError(f"{name}: cannot be opened as a video ({_reason(error)}). {WAY_OUT}") from error


def _open(name: str) -> "av.container.InputContainer":
    # Titles and comments need not be UTF-8, and are not read.
    return av.open(name, metadata_errors="replace")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0] or type(error).__name__


def _inspect(name: str, container: "av.container.InputContainer") -> VideoInfo:
    stream = _video_stream(name, container)
    codec = stream.codec_context.name
    length_size = _nal_length_size(stream.codec_context.extradata) if codec == "h264" else None
    packets = [_Packet.of(packet, length_size) for packet in container.demux(stream) if packet.size]
    num_frames, first = 0, None
    if codec in SEEK_EXACT_CODECS and container.format.name in SEEK_EXACT_CONTAINERS and _are_plain(packets):
        num_frames, first = _count_by_tail(name, packets)
    can_seek = num_frames > 0 and num_frames == len(packets) and _rotation(first) == 0
    if not can_seek:
        num_frames, first = _count_all(name)
    if first is None:
        raise VideoDecodeError(f"{name}: no frame of it decodes. {WAY_OUT}")
    rotation = _rotation(first)
    height, width = (first.width, first.height) if rotation % 180 else (first.height, first.width)
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    return VideoInfo(num_frames, fps, height, width, codec, rotation, can_seek)


def _video_stream(name: str, container: "av.container.InputContainer") -> "av.VideoStream":
    """The stream that FFmpeg (and so decord) takes as the main one."""
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream):
        raise VideoDecodeError(f"{name}: holds no video stream. {WAY_OUT}")
    # One thread: the parallelism is in the loader's workers.
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return stream


class _Packet(NamedTuple):
    """What counting needs to know of a packet."""

    time: int
    is_keyframe: bool
    is_plain: bool

    @classmethod
    def of(cls, packet: "av.Packet", nal_length_size: int | None) -> "_Packet":
        """The packet's facts; nal_length_size is None where keyframes always start afresh.

        A packet is not plain if it has no time, is thrown away after decoding, or is a keyframe from which H.264 does
        not start afresh (open groups of pictures: decord counts wrong after a seek to it).
        """
        time = packet.pts
        is_plain = time is not None and not packet.is_discard
        if is_plain and packet.is_keyframe and nal_length_size is not None:
            is_plain = _starts_afresh(bytes(packet), nal_length_size)
        return cls(time or 0, bool(packet.is_keyframe), is_plain)


def _nal_length_size(extradata: bytes | None) -> int:
    """Bytes of the length before each H.264 unit (ISO 14496-15, 5.2.4.1); 0 where start codes separate the units."""
    return (extradata[4] & 3) + 1 if extradata and len(extradata) > 4 and extradata[0] == 1 else 0


def _starts_afresh(packet: bytes, nal_length_size: int) -> bool:
    """Whether an H.264 packet holds an instantaneous decoder refresh, unit type 5 (ITU-T H.264, table 7-1)."""
    position = 0
    while 0 <= position < len(packet):
        if nal_length_size:
            start = position + nal_length_size
            position = start + int.from_bytes(packet[position:start], "big")
        else:
            found = packet.find(b"\x00\x00\x01", position)
            position = start = found + 3 if found >= 0 else len(packet)
        if start < len(packet) and packet[start] & 31 == 5:
            return True
    return False


def _are_plain(packets: Sequence[_Packet]) -> bool:
    """Whether each packet is one visible frame and each keyframe starts afresh, so that counting packets is exact."""
    if not packets or not packets[0].is_keyframe or len({packet.time for packet in packets}) < len(packets):
        return False
    key_time = packets[0].time
    for packet in packets:
        key_time = packet.time if packet.is_keyframe else key_time
        # A frame shown before the keyframe that it follows in the file is lost by a seek to that keyframe.
        if not packet.is_plain or packet.time < key_time:
            return False
    return True


def _count_by_tail(name: str, packets: Sequence[_Packet]) -> tuple[int, "av.VideoFrame | None"]:
    """Packets before the last keyframe plus the frames that decode from there, where files fall short."""
    start = max(place for place, packet in enumerate(packets) if packet.is_keyframe)
    first, num_decoded = None, 0
    with _open(name) as container:
        stream = _video_stream(name, container)
        if start > 0:
            container.seek(packets[start].time, stream=stream)
        for frame in _frames(container, stream):
            if frame.pts is not None and frame.pts >= packets[start].time:
                first, num_decoded = first or frame, num_decoded + 1
    return start + num_decoded, first


def _count_all(name: str) -> tuple[int, "av.VideoFrame | None"]:
    first, num_decoded = None, 0
    with _open(name) as container:
        for frame in _frames(container, _video_stream(name, container)):
            first, num_decoded = first or frame, num_decoded + 1
    return num_decoded, first


def _frames(container: "av.container.InputContainer", stream: "av.VideoStream") -> Iterator["av.VideoFrame"]:
    """Frames up to the end of the file or to the first place that is broken."""
    try:
        yield from container.decode(stream)
    except av.error.FFmpegError:
        return


def _rotation(frame: "av.VideoFrame | None") -> int:
    return 0 if frame is None else round(getattr(frame, "rotation", 0) / 90) * 90 % 360


def _decode_with_decord(name: str, wanted: list[int], size: tuple[int, int] | None) -> torch.Tensor | None:
    """Frames by decord; None where it cannot, and PyAV should have its try."""
    try:
        import decord
    except ImportError:
        return None
    height, width = size or (-1, -1)
    try:
        reader = decord.VideoReader(name, ctx=decord.cpu(0), width=width, height=height, num_threads=1)
        if len(reader) <= wanted[-1]:
            return None
        return torch.from_numpy(reader.get_batch(wanted).asnumpy())
    except (decord.DECORDError, RuntimeError, ValueError):
        return None


def _decode_in_sequence(
    name: str, wanted: list[int], size: tuple[int, int] | None, rotation_degrees: int
) -> torch.Tensor:
    """Frames by PyAV, read from the start; only the wanted ones are converted to RGB."""
    remaining = set(wanted)
    # One for all frames: it keeps the scaler's tables.
    reformatter = VideoReformatter()
    frames = []
    with _open(name) as container:
        for index, frame in enumerate(_frames(container, _video_stream(name, container))):
            if index in remaining:
                frames.append(_to_rgb(frame, reformatter, size, rotation_degrees))
            if index == wanted[-1]:
                break
    if len(frames) < len(wanted):
        raise VideoDecodeError(f"{name}: frame {wanted[len(frames)]} does not decode. {WAY_OUT}")
    return torch.from_numpy(np.stack(frames))


def _to_rgb(
    frame: "av.VideoFrame", reformatter: VideoReformatter, size: tuple[int, int] | None, rotation_degrees: int
) -> np.ndarray:
    height, width = size or (0, 0)  # 0 keeps the frame's own
    if rotation_degrees % 180:
        height, width = width, height
    image = reformatter.reformat(
        frame, width=width or None, height=height or None, format="rgb24", interpolation="BILINEAR"
    ).to_ndarray()
    return np.rot90(image, rotation_degrees // 90) if rotation_degrees else image
