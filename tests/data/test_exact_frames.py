"""The frame that is asked for is the one that comes: every codec in every container, in every decoder.

Each frame shows its own number. Two oracles: the numbers, and PyAV reading the whole file in sequence.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from octvideo.data import DECODERS, decode_frames, probe_video
from octvideo.data.decode import check_decoder

NUM_FRAMES = 60
ALL, TIMED, ONLY_PYAV, NONE = ("pyav", "torchcodec", "decord"), ("pyav", "torchcodec"), ("pyav",), ()
EVEN, ODD = (64, 96), (67, 97)
QUIET = "log-level=none"
H265 = {"x265-params": QUIET}
VP9 = {"cpu-used": "8", "deadline": "realtime"}
AV1 = {"preset": "12", "crf": "20"}
# Codec: encoder, its options, containers, decoders that may seek where the container has times.
CODECS: dict[str, tuple[str, dict[str, str], tuple[str, ...], tuple[str, ...]]] = {
    "h264": ("libx264", {}, ("mp4", "mkv", "avi", "mov"), ALL),
    "h264_pyramid": ("libx264", {"x264-params": "bframes=7:b-pyramid=normal:b-adapt=0:keyint=30"}, ("mp4",), ALL),
    "h264_one_gop": ("libx264", {"x264-params": "keyint=infinite:scenecut=0:bframes=3"}, ("mp4", "avi"), ALL),
    "h264_open_gop": ("libx264", {"x264-params": "open-gop=1:bframes=3"}, ("mp4", "mkv"), NONE),
    "h265": ("libx265", H265, ("mp4", "mkv"), TIMED),
    "h265_open_gop": ("libx265", {"x265-params": f"{QUIET}:open-gop=1:keyint=20:bframes=4"}, ("mp4", "mkv"), TIMED),
    "h265_one_gop": ("libx265", {"x265-params": f"{QUIET}:keyint=-1:bframes=4"}, ("mp4",), TIMED),
    "mpeg4": ("mpeg4", {}, ("mp4", "mkv", "avi"), TIMED),
    "mpeg4_no_b_frames": ("mpeg4", {}, ("mp4", "avi"), TIMED),
    "vp9": ("libvpx-vp9", VP9, ("webm", "mkv", "mp4", "avi"), ALL),
    "vp9_hidden_frames": ("libvpx-vp9", {"cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16"}, ("webm",), ALL),
    "av1": ("libsvtav1", AV1, ("mp4", "mkv", "webm", "avi"), TIMED),
}  # fmt: skip
# Pixel format and size that the codec takes beside (yuv420p, EVEN).
OTHER_FORMATS = {
    "h264": (("yuv420p10le", EVEN), ("yuv444p", ODD)),
    "h265": (("yuv420p10le", EVEN), ("yuv444p", ODD)),
    "mpeg4": (("yuv420p", ODD),),
    "vp9": (("yuv420p", ODD),),
    "av1": (("yuv420p10le", EVEN), ("yuv420p", (65, 97))),
}
# (codec, container, rate, degrees, pixel format, size): every codec in every container at both rates, and every other
# property in one container.
KINDS = [
    (codec, container, rate, 0, "yuv420p", EVEN)
    for codec, (_, _, containers, _) in CODECS.items()
    for container in containers
    for rate in ("constant", "variable")
]
KINDS += [
    (codec, CODECS[codec][2][0], "variable", 0, *other) for codec, others in OTHER_FORMATS.items() for other in others
]
KINDS += [
    (codec, "mov" if codec == "h264" else "mp4", "variable", degrees, "yuv420p", EVEN)
    for codec in ("h264", "h264_open_gop", "h265", "mpeg4", "vp9", "av1")
    for degrees in (90, 180, 270)
]


def has_b_frames(codec: str) -> bool:
    return codec.startswith(("h264", "h265")) or codec == "mpeg4"


def describe(kind) -> str:
    codec, container, rate, degrees, pix_fmt, (height, width) = kind
    return f"{codec}-{container}-{rate}-{degrees}-{pix_fmt}-{height}x{width}"


def irregular_times_ms() -> list[int]:
    steps = random.Random(1).choices((17, 20, 33, 40, 80, 120), k=NUM_FRAMES)
    return [sum(steps[:index]) for index in range(NUM_FRAMES)]


@pytest.fixture(scope="module", params=KINDS, ids=describe)
def video(request, tmp_path_factory, painted_writer, rotate_video):
    """(file, clockwise degrees, decoders that may seek in it, all of its frames read in sequence)."""
    codec, container, rate, degrees, pix_fmt, size = request.param
    encoder, options, _, seekers = CODECS[codec]
    path = tmp_path_factory.mktemp("kind") / f"painted.{container}"
    try:
        av.codec.Codec(encoder, "w")
    except av.error.FFmpegError:
        pytest.skip(f"this PyAV has no encoder {encoder}")
    painted_writer(
        path, NUM_FRAMES, codec=encoder, options=options, max_b_frames=2 * has_b_frames(codec), size=size,
        pix_fmt=pix_fmt, times_ms=irregular_times_ms() if rate == "variable" else None,
    )  # fmt: skip
    if degrees:
        rotate_video(path, degrees)
    if container == "avi":
        seekers = NONE if has_b_frames(codec) else ONLY_PYAV  # AVI times a frame by its place in the file
    return path, degrees, [name for name in seekers if name == "pyav" or not degrees], read_in_sequence(path, degrees)


def read_in_sequence(path: Path, degrees: int) -> np.ndarray:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.rot90(np.stack(frames), -degrees // 90, axes=(1, 2))


def wanted_frames() -> list[list[int]]:
    """Random subsets, contiguous spans, both ends, backwards, with repeats."""
    draw = random.Random(0)
    last = NUM_FRAMES - 1
    single = [[draw.randrange(NUM_FRAMES)] for _ in range(3)]
    subsets = [draw.sample(range(NUM_FRAMES), count) for count in (2, 9)]
    spans = [list(range(start, start + 16)) for start in (3, 25, last - 15)]
    return [[0], [last], [last - 1, last], *single, *subsets, *spans, list(range(last, -1, -3)), [7, 7, 3, 40, 7]]


def all_shown(frames: Sequence[torch.Tensor], degrees: int, painted_reader) -> list[int]:
    return painted_reader(torch.rot90(torch.stack(list(frames)), degrees // 90, (1, 2)))


def problem_of(decoder: str) -> str:
    """Why a decoder cannot be used here; empty where it can."""
    try:
        check_decoder(decoder)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_frame_that_is_asked_for_comes(video, painted_reader, decoder):
    if problem := problem_of(decoder):
        pytest.skip(problem)
    path, degrees, _, whole = video
    assert len(whole) == NUM_FRAMES
    assert all_shown(torch.from_numpy(whole.copy()), degrees, painted_reader) == list(range(NUM_FRAMES))
    for indices in wanted_frames():
        frames = decode_frames(path, indices, decoder=decoder)
        assert all_shown(frames, degrees, painted_reader) == indices
        # decord and torchcodec round some colours otherwise; another frame differs by far more.
        most = 0 if decoder in ("auto", "pyav") else 4
        assert np.abs(frames.numpy().astype(int) - whole[indices]).mean() <= most


def test_what_the_probe_says_holds(video):
    path, degrees, seekers, whole = video
    info = probe_video(path)
    assert (info.num_frames, info.height, info.width) == whole.shape[:3]
    assert info.rotation_degrees == -degrees % 360
    assert list(info.seekers) == seekers
    with pytest.raises(IndexError, match=f"frame {NUM_FRAMES} was asked for, but frames 0 to {NUM_FRAMES - 1} decode"):
        decode_frames(path, [NUM_FRAMES])


@pytest.mark.parametrize("codec", ["h264", "h265", "mpeg4"])
@pytest.mark.parametrize(
    ("container", "options", "start_ms"),
    [
        ("mp4", {"movflags": "frag_keyframe+empty_moov"}, 0),
        ("mp4", {"movflags": "faststart"}, 5000),
        ("mp4", {"use_editlist": "0"}, 0),
        ("mkv", {"live": "1"}, 0),  # no index of its keyframes
        ("mkv", {}, 70000),
    ],
)
def test_unusual_containers(tmp_path, painted_writer, painted_reader, codec, container, options, start_ms):
    encoder, codec_options, _, _ = CODECS[codec]
    times = [start_ms + time for time in irregular_times_ms()]
    path = painted_writer(
        tmp_path / f"v.{container}", NUM_FRAMES, codec=encoder, options=codec_options, container_options=options,
        times_ms=times,
    )  # fmt: skip
    assert probe_video(path).num_frames == NUM_FRAMES
    for indices in wanted_frames():
        for decoder in DECODERS:
            if not problem_of(decoder):
                assert painted_reader(decode_frames(path, indices, decoder=decoder)) == indices


def test_a_header_of_another_rate_is_not_believed(tmp_path, painted_writer):
    times = irregular_times_ms()
    path = painted_writer(tmp_path / "v.mkv", NUM_FRAMES, times_ms=times)  # the header says 25
    assert probe_video(path).fps == pytest.approx(1000 * (NUM_FRAMES - 1) / times[-1])
