"""Videos encoded anew: the same frames at the same times, each of which shows its number."""

import io
import struct
from itertools import pairwise

import av
import numpy as np
import pytest
import torch

from octvideo.data import VideoDecodeError, decode_frames, probe_video
from octvideo.data.probe import VideoBytes
from octvideo.data.shards import encode_video
from octvideo.data.shards.encode import check_encoder


def encoded(path, **settings) -> VideoBytes:
    return VideoBytes("new.mp4", encode_video(str(path), **settings))


def seconds(video) -> list[float]:
    """When each frame is shown, from the first one on."""
    source = io.BytesIO(video.data) if isinstance(video, VideoBytes) else str(video)
    with av.open(source) as container:
        times = sorted(frame.time for frame in container.decode(video=0))
    return [time - times[0] for time in times]


@pytest.mark.parametrize(
    ("codec", "ending", "options"),
    [
        ("libx264", "mp4", {"x264-params": "bframes=5:b-pyramid=normal:keyint=250"}),
        ("libx264", "ts", {"x264-params": "open-gop=1"}),
        ("mpeg4", "avi", {}),
        ("libvpx", "webm", {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}),
    ],
)
def test_every_frame_is_the_sources(tmp_path, painted_writer, painted_reader, codec, ending, options):
    max_b_frames = 0 if codec == "libvpx" else 2
    path = painted_writer(tmp_path / f"old.{ending}", 70, codec=codec, options=options, max_b_frames=max_b_frames)
    video = encoded(path, gop=8)
    info = probe_video(video)
    assert painted_reader(decode_frames(video, range(70))) == list(range(70))
    assert (info.num_frames, info.codec, info.height, info.width) == (70, "h264", 48, 64)
    assert info.fps == pytest.approx(25, rel=1e-3)
    assert "pyav" in info.seekers
    assert max(b - a for a, b in pairwise([*info.keyframes, 70])) <= 8
    difference = (decode_frames(video, range(70)).float() - decode_frames(path, range(70)).float()).abs().mean()
    assert difference < 3


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_variable_rate_keeps_its_times(tmp_path, painted_writer, painted_reader, ending):
    times = [0, *np.random.default_rng(0).integers(20, 90, 40).cumsum().tolist()]
    path = painted_writer(tmp_path / f"old.{ending}", 41, times_ms=times)
    video = encoded(path)
    assert painted_reader(decode_frames(video, range(41))) == list(range(41))
    assert seconds(video) == pytest.approx([time / 1000 for time in times], abs=1e-3)
    assert probe_video(video).fps == pytest.approx(1000 * 41 / (times[-1] + times[-1] / 40), rel=0.02)


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((96, 128), 48, (48, 64)),
        ((96, 130), 48, (48, 64)),
        ((130, 97), 64, (86, 64)),
        ((49, 65), 256, (48, 64)),
        ((48, 64), 256, (48, 64)),
    ],
)
def test_frames_are_scaled_down_to_even_sides(tmp_path, painted_writer, painted_reader, size, short_side, expected):
    path = painted_writer(tmp_path / "old.mkv", 10, size=size, pix_fmt="yuv444p")
    video = encoded(path, short_side=short_side)
    assert (probe_video(video).height, probe_video(video).width) == expected
    assert painted_reader(decode_frames(video, range(10))) == list(range(10))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv420p10le", "yuv422p"])
def test_colours_stay_as_they_are(tmp_path, painted_writer, pix_fmt):
    path = painted_writer(tmp_path / "old.mp4", 4, pix_fmt=pix_fmt, options={"crf": "1"})
    old, new = decode_frames(path, range(4)).float(), decode_frames(encoded(path, quality=1), range(4)).float()
    assert (old - new).abs().mean() < 2.5
    assert (old.mean() - new.mean()).abs() < 1.5


# (a, b, c, d) of an mp4 track's matrix (ISO 14496-12, 8.3.2), which turn the picture clockwise.
QUARTERS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


@pytest.mark.parametrize("degrees", QUARTERS)
def test_turned_videos_come_out_upright(tmp_path, painted_writer, degrees):
    path = painted_writer(tmp_path / "old.mp4", 6, size=(96, 144))
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44
    a, b, c, d = (65536 * value for value in QUARTERS[degrees])
    struct.pack_into(">9i", content, matrix, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    video = encoded(path, short_side=48)
    old, new = decode_frames(path, range(6), short_side=48), decode_frames(video, range(6))
    assert probe_video(path).rotation_degrees == 360 - degrees
    assert probe_video(video).rotation_degrees == 0
    assert new.shape == old.shape == ((6, 48, 72, 3) if degrees == 180 else (6, 72, 48, 3))
    assert (old.float() - new.float()).abs().mean() < 6


def test_only_frames_that_decode_and_no_sound(tmp_path, painted_writer, painted_reader):
    whole = painted_writer(tmp_path / "old.mp4", 90, container_options={"movflags": "faststart"})
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 7 // 10])
    video = encoded(whole)
    num_frames = probe_video(whole).num_frames
    assert 30 < num_frames < 90
    assert probe_video(video).num_frames == num_frames
    with av.open(io.BytesIO(video.data)) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_lower_quality_is_smaller(painted_video):
    assert len(encode_video(str(painted_video), quality=40)) < len(encode_video(str(painted_video), quality=10))
    assert encode_video(str(painted_video)) == encode_video(str(painted_video))


def test_what_cannot_be_encoded_is_named(tmp_path, monkeypatch):
    (tmp_path / "noise.mp4").write_bytes(b"no video")
    with pytest.raises(VideoDecodeError, match=r"noise.mp4: cannot be opened as a video"):
        encode_video(str(tmp_path / "noise.mp4"))
    monkeypatch.setattr("octvideo.data.shards.encode.ENCODER", "libnothing")
    with pytest.raises(ValueError, match=r"this PyAV \(.*\) has no encoder libnothing. Install PyAV's own wheel"):
        check_encoder()


@pytest.mark.parametrize(
    "name", ["Megamind_bugy.avi", "baseball.mp4", "nasa_13013.mp4", "video_90.mov", "h265_video.mp4", "unordered.mov"]
)
def test_awkward_files(shared_data, name):
    path = shared_data / "awkward" / name
    video = encoded(path)
    old, new = probe_video(path), probe_video(video)
    assert new.num_frames == old.num_frames
    frames = range(0, old.num_frames, max(old.num_frames // 8, 1))
    expected = torch.nn.functional.interpolate(
        decode_frames(path, frames).permute(0, 3, 1, 2).float(), (new.height, new.width), mode="area"
    )
    got = decode_frames(video, frames).permute(0, 3, 1, 2).float()
    near = [(got[n] - expected[n]).abs().mean().item() for n in range(len(got))]
    far = [(got[n] - expected[n - 1]).abs().mean().item() for n in range(1, len(got))]
    assert max(near) < 6
    if old.num_frames > 100:  # others hardly move
        assert np.mean(near) < 0.7 * np.mean(far)
