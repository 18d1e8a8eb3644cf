"""A cheap look at a video file, once per process: size, rate, the frames that really decode, and how to reach them.

Headers promise frames that files do not hold, and seeks go wrong in some codecs and containers. So every file's packets
are listed and its last frames decoded before anything is asked of it; where its packets name each frame by its time, a
frame can be reached by seeking, and otherwise by reading the file in sequence.
"""

import io
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import av

__all__ = [
    "WAY_OUT",
    "VideoBytes",
    "VideoDecodeError",
    "VideoInfo",
    "VideoSource",
    "as_source",
    "forget_videos",
    "frames_of",
    "open_error",
    "open_video",
    "probe_video",
    "video_stream",
]

# Packets of these containers carry the time at which each frame is shown; those of AVI, transport streams and FLV do
# not, or a seek in them lands elsewhere.
TIMED_CONTAINERS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
# One packet is one frame in these, so that counting packets is enough. (VP8 has packets that show nothing.)
FRAME_PER_PACKET_CODECS = frozenset({"h264", "hevc", "vp9", "libdav1d", "av1", "mpeg4"})
# decord counts frames on from the keyframe that it lands on, and does it right in these.
DECORD_CODECS = frozenset({"h264", "vp9"})
PROBE_CACHE_SIZE = 100_000
WAY_OUT = "Re-encode the file (ffmpeg -i FILE -c:v libx264 NEW.mp4) or take it off the list."
# A playlist under a video's name must not make FFmpeg open what it lists: no address, and from memory no file either.
FILE_ONLY = {"protocol_whitelist": "file"}
MEMORY_ONLY = {"protocol_whitelist": "none"}


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
        seekers: decoders that reach the right frame by seeking, the fastest first; none where the file has to be read
            in sequence.
        times: when each frame is shown, in the stream's units; empty where the file has to be read in sequence.
        keyframes: numbers of the frames from which decoding can start.
    """

    num_frames: int
    fps: float
    height: int
    width: int
    codec: str
    rotation_degrees: int = 0
    seekers: tuple[str, ...] = ()
    times: Sequence[int] = field(default=(), repr=False)
    keyframes: Sequence[int] = field(default=(), repr=False)


@dataclass(frozen=True, eq=False)
class VideoBytes:
    """A video file's content in memory.

    Args:
        name: what errors call it.
        data: content of the file.
        num_frames: how many frames decode, all upright, where somebody has counted them; None has them counted.
    """

    name: str
    data: bytes = field(repr=False)
    num_frames: int | None = None

    def __str__(self) -> str:
        """Its name, as a path's text is."""
        return self.name

    @cached_property
    def info(self) -> VideoInfo:
        """The answer of :func:`probe_video`, kept as long as the content."""
        return _look(self, len(self.data))


VideoSource = str | VideoBytes
"""A path, or a file's content; as text it is the name for errors."""


def as_source(video: "str | os.PathLike[str] | VideoBytes") -> VideoSource:
    """A video named by a path of any kind, or one in memory as it is."""
    return video if isinstance(video, VideoBytes) else os.fspath(video)


def probe_video(video: str | os.PathLike[str] | VideoBytes) -> VideoInfo:
    """Look at a video: size, rate and the number of frames that really decode.

    Costs reading the file's packets and decoding its last group of pictures; files whose packets do not tell their
    frames are decoded once as a whole. The answer is kept per process until the file's size or time changes.

    Args:
        video: a file, or one's content in memory.

    Raises:
        FileNotFoundError: no such file.
        VideoDecodeError: not a video, or no frame of it decodes.
    """
    if isinstance(video, VideoBytes):
        return video.info
    name = os.fspath(video)
    if not os.path.isfile(name):
        raise FileNotFoundError(f"{name}: no such video. Check the path, or the root that relative paths start from.")
    stat = os.stat(name)
    return _probe(name, stat.st_mtime_ns, stat.st_size)


def forget_videos() -> None:
    """Forget every answer of :func:`probe_video`."""
    _probe.cache_clear()


def open_video(source: VideoSource) -> "av.container.InputContainer":
    """The video, opened by PyAV."""
    # Titles and comments need not be UTF-8, and are not read.
    if isinstance(source, VideoBytes):
        return av.open(io.BytesIO(source.data), "r", metadata_errors="replace", options=MEMORY_ONLY)
    return av.open(source, "r", metadata_errors="replace", options=FILE_ONLY)


def video_stream(name: VideoSource, container: "av.container.InputContainer") -> "av.VideoStream":
    """The stream that FFmpeg (and so decord and torchcodec) takes as the main one."""
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream):
        raise VideoDecodeError(f"{name}: holds no video stream. {WAY_OUT}")
    if stream.codec_context is None:
        raise VideoDecodeError(f"{name}: its video is in a codec that FFmpeg does not know. {WAY_OUT}")
    # One thread: the parallelism is in the loader's workers.
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return stream


def frames_of(container: "av.container.InputContainer", stream: "av.VideoStream") -> Iterator["av.VideoFrame"]:
    """Frames up to the end of the file or to the first place that is broken."""
    try:
        yield from container.decode(stream)
    except av.error.FFmpegError:
        return


@lru_cache(maxsize=PROBE_CACHE_SIZE)
def _probe(name: str, mtime_ns: int, num_bytes: int) -> VideoInfo:
    """probe_video for one state of the file; time and size are there as parts of the cache's key."""
    return _look(name, num_bytes)


def _look(name: VideoSource, num_bytes: int) -> VideoInfo:
    if num_bytes == 0:
        raise VideoDecodeError(f"{name}: the file is empty. {WAY_OUT}")
    try:
        with open_video(name) as container:
            return _inspect(name, container)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise open_error(name, error) from error


def open_error(name: VideoSource, error: Exception) -> VideoDecodeError:
    """The one error for all that FFmpeg says of a file that it cannot open."""
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0] or type(error).__name__
    return VideoDecodeError(f"{name}: cannot be opened as a video ({reason}). {WAY_OUT}")


def _inspect(name: VideoSource, container: "av.container.InputContainer") -> VideoInfo:
    stream = video_stream(name, container)
    codec = stream.codec_context.name
    length_size = _nal_length_size(stream.codec_context.extradata) if codec == "h264" else None
    packets = [_Packet.of(packet, length_size) for packet in container.demux(stream) if packet.size]
    num_frames, first = 0, None
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    are_timed = container.format.name in TIMED_CONTAINERS and _are_timed(packets)
    if are_timed and codec in FRAME_PER_PACKET_CODECS:
        if isinstance(name, VideoBytes) and name.num_frames == len(packets) and stream.height and stream.width:
            return _with_seekers(VideoInfo(len(packets), fps, stream.height, stream.width, codec), packets)
        num_frames, first = _count_by_tail(name, packets)
    if num_frames != len(packets):
        num_frames, first = _count_all(name)
    if first is None:
        raise VideoDecodeError(f"{name}: no frame of it decodes. {WAY_OUT}")
    rotation = _rotation(first)
    height, width = (first.width, first.height) if rotation % 180 else (first.height, first.width)
    info = VideoInfo(num_frames, fps, height, width, codec, rotation)
    return _with_seekers(info, packets) if are_timed and num_frames == len(packets) else info


def _with_seekers(info: VideoInfo, packets: Sequence["_Packet"]) -> VideoInfo:
    """The same with times and keyframes, and with the decoders that reach every frame by them."""
    times = sorted(packet.time for packet in packets)
    place = {time: index for index, time in enumerate(times)}
    keyframes = sorted(place[packet.time] for packet in packets if packet.is_keyframe)
    seekers = ["pyav"]
    if info.rotation_degrees == 0:
        seekers.append("torchcodec")
        if info.codec in DECORD_CODECS and _are_closed(packets):
            seekers.append("decord")
    return replace(info, seekers=tuple(seekers), times=_compact(times), keyframes=_compact(keyframes))


def _compact(numbers: Sequence[int]) -> Sequence[int]:
    """The same numbers in little memory: thousands of probes are kept."""
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    steady = range(numbers[0], numbers[0] + step * len(numbers), step)
    return steady if list(steady) == numbers else array("q", numbers)


class _Packet(NamedTuple):
    """What the index needs to know of a packet."""

    time: int
    is_keyframe: bool
    is_plain: bool

    @classmethod
    def of(cls, packet: "av.Packet", nal_length_size: int | None) -> "_Packet":
        """The packet's facts; nal_length_size is None where keyframes always start afresh.

        A packet is not plain if it has no time, is thrown away after decoding, or is a keyframe from which H.264 does
        not start afresh (open groups of pictures: later frames may need what is before it).
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


def _are_timed(packets: Sequence[_Packet]) -> bool:
    """Whether each packet is one visible frame with a time of its own, and the first frame shown is a keyframe."""
    if not packets or not packets[0].is_keyframe or not all(packet.is_plain for packet in packets):
        return False
    times = {packet.time for packet in packets}
    return len(times) == len(packets) and min(times) == packets[0].time


def _are_closed(packets: Sequence[_Packet]) -> bool:
    """Whether no frame is shown before the keyframe that it follows in the file: counting from a keyframe is right."""
    key_time = packets[0].time
    for packet in packets:
        key_time = packet.time if packet.is_keyframe else key_time
        if packet.time < key_time:
            return False
    return True


def _count_by_tail(name: VideoSource, packets: Sequence[_Packet]) -> tuple[int, "av.VideoFrame | None"]:
    """Frames shown before the last keyframe plus those that decode from there, where files fall short."""
    start = max(packet.time for packet in packets if packet.is_keyframe)
    first, num_decoded = None, sum(packet.time < start for packet in packets)
    with open_video(name) as container:
        stream = video_stream(name, container)
        container.seek(start, stream=stream)
        for frame in frames_of(container, stream):
            if frame.pts is not None and frame.pts >= start:
                first, num_decoded = first or frame, num_decoded + 1
    return num_decoded, first


def _count_all(name: VideoSource) -> tuple[int, "av.VideoFrame | None"]:
    first, num_decoded = None, 0
    with open_video(name) as container:
        for frame in frames_of(container, video_stream(name, container)):
            first, num_decoded = first or frame, num_decoded + 1
    return num_decoded, first


def _rotation(frame: "av.VideoFrame") -> int:
    return round(getattr(frame, "rotation", 0) / 90) * 90 % 360
