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

import av

from octvideo.data.packets import Packet, are_closed, are_timed, seeks_land, unit_length_size

__all__ = [
    "WAY_OUT",
    "VideoBytes",
    "VideoDecodeError",
    "VideoInfo",
    "VideoSource",
    "as_source",
    "forget_videos",
    "frames_of",
    "numbered_frames",
    "open_error",
    "open_video",
    "probe_video",
    "short_reason",
    "video_stream",
]

# Packets of these containers carry the time at which each frame is shown; those of transport streams and FLV do not, or
# a seek in them lands elsewhere.
TIMED_CONTAINERS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
# Packets of AVI files are timed by their place in the file, which is right where frames are shown in that order:
# without B-frames, as in UCF101. Nothing in the file tells; it is seen when all of it is decoded.
ORDERED_CONTAINERS = frozenset({"avi"})
# One packet is one frame in these, so that counting packets is enough. (VP8 has packets that show nothing.)
FRAME_PER_PACKET_CODECS = frozenset({"h264", "hevc", "vp9", "libdav1d", "av1", "mpeg4"})
# decord counts frames on from the keyframe that it lands on, and does it right in these.
DECORD_CODECS = frozenset({"h264", "vp9"})
PROBE_CACHE_SIZE = 100_000
# Headers of files with a variable rate may name any rate: from this share of difference on the frames' times count.
RATE_TOLERANCE = 0.1
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
    # One thread: the parallelism is in the loader's workers, and what several make of broken frames differs by run.
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return stream


def frames_of(container: "av.container.InputContainer", stream: "av.VideoStream") -> Iterator["av.VideoFrame"]:
    """Frames up to the end of the file or to the first place that is broken."""
    try:
        yield from container.decode(stream)
    except av.error.FFmpegError:
        return


def numbered_frames(name: VideoSource, info: VideoInfo) -> Iterator[tuple[int, "av.VideoFrame"]]:
    """Frames in sequence, up to the first place that is broken, each with its number.

    The number follows from a frame's time where times are known: decoders leave some broken frames out without a word.
    """
    numbers: dict[int | None, int] = {time: number for number, time in enumerate(info.times)}
    with open_video(name) as container:
        for count, frame in enumerate(frames_of(container, video_stream(name, container))):
            number = numbers.get(frame.pts) if info.times else count
            if number is not None:
                yield number, frame


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


def short_reason(error: Exception, name: str) -> str:
    """What an error says of a video, without the video's name and the way out."""
    return " ".join(str(error).split()).removeprefix(f"{name}: ").removesuffix(WAY_OUT).strip() or type(error).__name__


def open_error(name: VideoSource, error: Exception) -> VideoDecodeError:
    """The one error for all that FFmpeg says of a file that it cannot open."""
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0] or type(error).__name__
    return VideoDecodeError(f"{name}: cannot be opened as a video ({reason}). {WAY_OUT}")


def _inspect(name: VideoSource, container: "av.container.InputContainer") -> VideoInfo:
    stream = video_stream(name, container)
    codec = stream.codec_context.name
    length_size = unit_length_size(stream.codec_context.extradata) if codec == "h264" else None
    packets = [Packet.of(packet, length_size) for packet in container.demux(stream) if packet.size]
    num_frames, first = 0, None
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    time_base = float(stream.time_base or 0)
    timed = are_timed(packets)
    can_seek = timed and container.format.name in TIMED_CONTAINERS
    if can_seek and codec in FRAME_PER_PACKET_CODECS:
        if isinstance(name, VideoBytes) and name.num_frames == len(packets) and stream.height and stream.width:
            info = VideoInfo(len(packets), fps, stream.height, stream.width, codec)
            return _with_seekers(info, packets, time_base)
        num_frames, first = _count_by_tail(container, stream, packets)
    if num_frames != len(packets):
        times, first = _times_of_all(name)
        num_frames = len(times)
        if timed and container.format.name in ORDERED_CONTAINERS:
            can_seek = times == [packet.time for packet in packets] and seeks_land(container, stream, packets)
    if first is None:
        raise VideoDecodeError(f"{name}: no frame of it decodes. {WAY_OUT}")
    rotation = _rotation(first)
    height, width = (first.width, first.height) if rotation % 180 else (first.height, first.width)
    info = VideoInfo(num_frames, fps, height, width, codec, rotation)
    if not can_seek or num_frames != len(packets):
        return info
    timed_by_file = container.format.name in TIMED_CONTAINERS
    return _with_seekers(info, packets, time_base, timed_by_file=timed_by_file)


def _with_seekers(
    info: VideoInfo, packets: Sequence[Packet], time_base: float, *, timed_by_file: bool = True
) -> VideoInfo:
    """The same with times and keyframes, and with the decoders that reach every frame by them."""
    times = sorted(packet.time for packet in packets)
    place = {time: index for index, time in enumerate(times)}
    keyframes = sorted(place[packet.time] for packet in packets if packet.is_keyframe)
    seekers = ["pyav"]
    # In mp4 files without an edit list, frames are decoded well before they are shown, and the others' seeks confuse
    # the two times. (With one, the first time of decoding is below 0.)
    if timed_by_file and info.rotation_degrees == 0 and not 0 <= packets[0].decode_time < packets[0].time:
        seekers.append("torchcodec")
        if info.codec in DECORD_CODECS and are_closed(packets):
            seekers.append("decord")
    return replace(
        info,
        fps=_rate(info.fps, times, time_base),
        seekers=tuple(seekers),
        times=_compact(times),
        keyframes=_compact(keyframes),
    )


def _rate(header_fps: float, times: Sequence[int], time_base: float) -> float:
    """The header's rate, or that of the frames' times where the two differ by much."""
    seconds = (times[-1] - times[0]) * time_base
    fps = (len(times) - 1) / seconds if seconds > 0 else header_fps
    return fps if abs(fps - header_fps) > RATE_TOLERANCE * fps else header_fps


def _compact(numbers: Sequence[int]) -> Sequence[int]:
    """The same numbers in little memory: thousands of probes are kept."""
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    steady = range(numbers[0], numbers[0] + step * len(numbers), step)
    return steady if list(steady) == numbers else array("q", numbers)


def _count_by_tail(
    container: "av.container.InputContainer", stream: "av.VideoStream", packets: Sequence[Packet]
) -> tuple[int, "av.VideoFrame | None"]:
    """Frames shown before the last keyframe plus those that decode from there, where files fall short."""
    start = max(packet.time for packet in packets if packet.is_keyframe)
    first, num_decoded = None, sum(packet.time < start for packet in packets)
    # Frames are counted and not looked at: the filter that smooths their blocks can be left out.
    stream.codec_context.options = {"skip_loop_filter": "all"}
    container.seek(start, stream=stream)
    for frame in frames_of(container, stream):
        if frame.pts is not None and frame.pts >= start:
            first, num_decoded = first or frame, num_decoded + 1
    return num_decoded, first


def _times_of_all(name: VideoSource) -> tuple[list[int | None], "av.VideoFrame | None"]:
    """When the file says that each frame is shown, in the order in which they decode."""
    times: list[int | None] = []
    first = None
    with open_video(name) as container:
        for frame in frames_of(container, video_stream(name, container)):
            first = first or frame
            times.append(frame.pts)
    return times, first


def _rotation(frame: "av.VideoFrame") -> int:
    return round(getattr(frame, "rotation", 0) / 90) * 90 % 360
