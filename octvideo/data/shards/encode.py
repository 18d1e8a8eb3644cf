"""One video anew: small, H.264, with a keyframe every few frames, so that a clip of it costs little to decode."""

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import cast

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from octvideo.data.decode import ONE_THREAD
from octvideo.data.probe import (
    WAY_OUT,
    VideoBytes,
    VideoDecodeError,
    VideoSource,
    frames_of,
    open_video,
    probe_video,
    video_stream,
)

__all__ = ["check_encoder", "encode_video"]

ENCODER = "libx264"
# x264's choices for files that decode in little more than half the time, at a tenth more bytes; and without its
# macroblock tree, whose results depend on where memory lies: the same video gives the same bytes.
CHOICES = {"preset": "veryfast", "tune": "fastdecode", "x264-params": "mbtree=0"}


def check_encoder() -> None:
    """Check that H.264 can be written here.

    Raises:
        ValueError: this PyAV has no H.264 encoder.
    """
    try:
        av.codec.Codec(ENCODER, "w")
    except (av.error.FFmpegError, ValueError) as error:
        raise ValueError(
            f"videos are packed as H.264, but this PyAV ({av.__version__}) has no encoder {ENCODER}. Install PyAV's "
            "own wheel (pip install --force-reinstall --only-binary av av), or pack the files as they are (copy)."
        ) from error


def encode_video(video: VideoSource, *, short_side: int = 256, gop: int = 16, quality: int = 23) -> bytes:
    """Encode a video's frames anew, each one and no other, at their times, upright, without sound.

    Args:
        video: file, or its content in memory.
        short_side: pixels that a larger frame's short side is scaled down to; sides are made even.
        gop: most frames from one keyframe to the next.
        quality: x264's constant rate factor, 0 (no loss) to 51; lower is better and larger.

    Returns:
        Content of an mp4 file.

    Raises:
        VideoDecodeError: the video cannot be read, or its new form is not the same frames.
        ValueError: the file tells no frame rate.
    """
    info = probe_video(video)
    times, unit, rate = _times(video)
    content = io.BytesIO()
    with open_video(video) as source, av.open(content, "w", format="mp4") as container:
        stream: av.VideoStream | None = None
        turns = info.rotation_degrees // 90
        size = _even_size(info.width, info.height, short_side)
        pictures = _pictures(source, video_stream(video, source), size, turns)
        for picture, time in zip(pictures, times, strict=True):
            if stream is None:
                stream = _add_stream(container, picture, unit, rate, gop, quality)
            picture.pts, picture.time_base = time, unit
            picture.pict_type = av.video.frame.PictureType.NONE  # the old file's keyframes are not the new one's
            container.mux(stream.encode(picture))
        if stream is not None:
            container.mux(stream.encode())
    found = probe_video(VideoBytes(str(video), content.getvalue())).num_frames
    if found != info.num_frames:
        raise VideoDecodeError(f"{video}: of its {info.num_frames} frames {found} were encoded. {WAY_OUT}")
    return content.getvalue()


def _times(video: VideoSource) -> tuple[Sequence[int], Fraction, Fraction]:
    """When each frame is shown, the first at 0; the unit in seconds; frames per second."""
    info = probe_video(video)
    with open_video(video) as container:
        stream = video_stream(video, container)
        known: Sequence[int | None] = info.times or [frame.pts for frame in frames_of(container, stream)]
        unit, rate = stream.time_base, stream.average_rate or stream.guessed_rate
    if not unit or not rate:
        raise ValueError(f"{video}: tells no frame rate. {WAY_OUT}")
    times = [time for time in known if time is not None]
    # The times of AVI are those of decoding.
    if len(times) < len(known) or not all(a < b for a, b in pairwise(times)):
        return range(len(known)), 1 / rate, rate
    return [time - times[0] for time in times], unit, rate


def _even_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    scale = min(short_side / min(width, height), 1)
    return max(round(width * scale / 2) * 2, 2), max(round(height * scale / 2) * 2, 2)


def _pictures(
    container: "av.container.InputContainer", stream: "av.VideoStream", size: tuple[int, int], turns: int
) -> Iterator["av.VideoFrame"]:
    """Frames as the encoder takes them: of (width, height) after that many quarter turns."""
    reformatter = VideoReformatter()
    width, height = size if turns % 2 == 0 else size[::-1]
    for frame in frames_of(container, stream):
        # The format's letter says that brightness covers all of 0 to 255, and not 16 to 235.
        layout = "yuvj420p" if frame.format.name.startswith("yuvj") else "yuv420p"
        picture = reformatter.reformat(
            frame, width=width, height=height, format=layout, interpolation="BILINEAR", **ONE_THREAD
        )
        yield _turn(picture, turns) if turns else picture


def _turn(picture: "av.VideoFrame", turns: int) -> "av.VideoFrame":
    """A picture after quarter turns, counter-clockwise."""
    rows = picture.to_ndarray()  # brightness above the two colours, which have a quarter of its pixels each
    height, width = picture.height, picture.width
    planes = (rows[:height], *rows[height:].reshape(2, height // 2, width // 2))
    turned = np.concatenate([np.rot90(plane, turns).ravel() for plane in planes])
    result = av.VideoFrame.from_ndarray(turned.reshape(-1, height if turns % 2 else width), format=picture.format.name)
    result.colorspace, result.color_range = picture.colorspace, picture.color_range
    return result


def _add_stream(
    container: "av.container.OutputContainer",
    picture: "av.VideoFrame",
    unit: Fraction,
    rate: Fraction,
    gop: int,
    quality: int,
) -> "av.VideoStream":
    options = CHOICES | {"crf": str(quality), "threads": "1"}
    stream = cast("av.VideoStream", container.add_stream(ENCODER, rate=rate, options=options))
    stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, picture.format.name
    context = stream.codec_context
    context.colorspace, context.color_range = picture.colorspace, picture.color_range
    stream.time_base = context.time_base = unit
    context.gop_size = gop
    context.thread_count = 1
    return stream
