"""Decoded frames prove which ones they are; broken files end in frames or in one error, never in a hang."""

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from octvideo.data import DECODERS, VideoDataModule, VideoDecodeError, decode_frames, probe_video
from octvideo.data.decode import READERS, _read_with_pyav, _runs, check_decoder
from octvideo.data.probe import VideoBytes

HANG_SECONDS = 120

ALL = ("pyav", "torchcodec", "decord")
TIMED = ("pyav", "torchcodec")
# name: codec, file ending, options, decoders that may seek in it
ENCODINGS: dict[str, tuple[str, str, dict[str, str], tuple[str, ...]]] = {
    "h264_mp4": ("libx264", "mp4", {}, ALL),
    "h264_mkv": ("libx264", "mkv", {}, ALL),
    "h264_pyramid": ("libx264", "mp4", {"x264-params": "bframes=7:b-pyramid=normal:b-adapt=0:keyint=30"}, ALL),
    "h264_open_gop": ("libx264", "mp4", {"x264-params": "open-gop=1"}, ()),
    "h264_avi": ("libx264", "avi", {}, ()),
    "h264_ts": ("libx264", "ts", {"x264-params": "scenecut=0:bframes=5"}, ()),
    "h264_flv": ("libx264", "flv", {"x264-params": "intra-refresh=1:keyint=20"}, ()),
    "mpeg4_avi": ("mpeg4", "avi", {}, ()),
    "mpeg4_mp4": ("mpeg4", "mp4", {}, TIMED),
    "h265_mp4": ("libx265", "mp4", {"x265-params": "log-level=none"}, TIMED),
    "h265_open_gop": ("libx265", "mkv", {"x265-params": "log-level=none:open-gop=1:keyint=20:bframes=4"}, TIMED),
    "av1_mp4": ("libsvtav1", "mp4", {"preset": "12"}, TIMED),
    "vp9_webm": ("libvpx-vp9", "webm", {"cpu-used": "8", "deadline": "realtime"}, ALL),
    "vp8_webm": ("libvpx", "webm", {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}, TIMED),
}


@pytest.fixture(scope="module", params=ENCODINGS)
def encoded(request, tmp_path_factory, painted_writer):
    """(video of 90 painted frames, decoders that may seek in it) in one encoding."""
    codec, ending, options, seekers = ENCODINGS[request.param]
    try:
        av.codec.Codec(codec, "w")
    except av.error.FFmpegError:
        pytest.skip(f"this PyAV has no encoder {codec}")
    max_b_frames = 0 if codec.startswith("libvpx") else 2
    path = tmp_path_factory.mktemp(request.param) / f"painted.{ending}"
    try:
        return painted_writer(path, 90, codec=codec, options=options, max_b_frames=max_b_frames), seekers
    except av.error.FFmpegError:
        if codec != "libsvtav1":
            raise
        pytest.skip("the AV1 encoder in older PyAV makes no frames below 64 pixels")


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_asked_frame_is_the_one_that_comes(encoded, painted_reader, decoder):
    skip_unless_usable(decoder)
    path, _ = encoded
    whole = torch.from_numpy(frames_in_sequence(path, range(90)))
    generator = torch.Generator().manual_seed(3)
    for count in (1, 1, 2, 8, 16):
        indices = torch.randint(90, (count,), generator=generator).tolist()
        frames = decode_frames(path, indices, decoder=decoder)
        assert painted_reader(frames) == indices
        assert torch.equal(frames, whole[indices])


def skip_unless_usable(decoder: str) -> None:
    try:
        check_decoder(decoder)
    except ValueError as error:
        pytest.skip(str(error))


def test_strided_clips_and_both_ends_are_exact(encoded, painted_reader):
    path, _ = encoded
    for indices in (list(range(0, 90, 11)), [89], [0], [88, 89], list(range(90))):
        assert painted_reader(decode_frames(path, indices)) == indices


def test_probe_tells_size_rate_and_length(encoded):
    path, seekers = encoded
    info = probe_video(path)
    assert (info.num_frames, info.height, info.width) == (90, 48, 64)
    assert info.fps == pytest.approx(25, rel=0.02)
    assert info.seekers == seekers
    assert len(info.times) == (90 if seekers else 0)


@pytest.mark.parametrize("ending", ["mp4", "avi"])
def test_short_side_resizes_and_keeps_the_aspect(tmp_path, painted_writer, painted_reader, ending):
    path = painted_writer(tmp_path / f"v.{ending}", 20, codec="libx264")
    frames = decode_frames(path, [3, 7, 19], short_side=96)
    assert frames.shape == (3, 96, 128, 3)
    assert frames.dtype == torch.uint8
    assert painted_reader(frames) == [3, 7, 19]


def test_pyav_seeks_from_keyframe_to_keyframe(tmp_path, painted_writer, painted_reader, monkeypatch):
    monkeypatch.setattr("octvideo.data.decode._read_in_sequence", lambda *args: pytest.fail("read in sequence"))
    options = {"x264-params": "bframes=3:b-adapt=0:b-pyramid=none:keyint=20:scenecut=0"}
    path = painted_writer(tmp_path / "v.mp4", 90, options=options)
    assert list(probe_video(path).keyframes) == [0, 20, 40, 60, 80]
    indices = [81, 22, 5, 26, 21, 89, 5]
    assert painted_reader(decode_frames(path, indices)) == indices
    # Frame 81 is far from what is before it, 38 is near the next keyframe: decoding goes on.
    assert _runs([5, 21, 38, 41, 81], [0, 20, 40, 60, 80]) == [(0, [5]), (20, [21, 38, 41]), (80, [81])]


def test_what_a_decoder_does_not_give_is_read_in_sequence(painted_video, painted_reader, monkeypatch):
    def gives_up(name, wanted, info, to_rgb):
        yield from itertools.islice(_read_with_pyav(name, wanted, info, to_rgb), 2)

    monkeypatch.setitem(READERS, "pyav", gives_up)
    assert painted_reader(decode_frames(painted_video, [70, 10, 30, 99])) == [70, 10, 30, 99]


def test_a_decoder_that_cannot_be_had_is_one_clear_error(painted_video, monkeypatch):
    with pytest.raises(ValueError, match="decoder should be one of auto, pyav, torchcodec, decord, but it is 'ffmpeg'"):
        decode_frames(painted_video, [0], decoder="ffmpeg")
    monkeypatch.setattr("octvideo.data.decode._torchcodec_problem", lambda: "it is not installed. Install it")
    with pytest.raises(
        ValueError, match="decoder is 'torchcodec', but it is not installed. Install it; or set decoder"
    ):
        VideoDataModule(decoder="torchcodec")
    assert VideoDataModule(decoder="decord").hparams["decoder"] == "decord"


def test_torchcodec_is_imported_only_where_it_is_asked_for(painted_video, warm_python):
    script = (
        "import sys\n"
        "from octvideo.data import decode_frames\n"
        f"decode_frames({str(painted_video)!r}, [50])\n"
        "sys.exit('torchcodec' in sys.modules)\n"
    )
    warm_python.run(["-c", script])


def test_each_frame_passes_through_a_function(painted_video, painted_reader):
    halves = decode_frames(painted_video, [7, 3, 7], each=lambda frame: frame[::2, ::2])
    assert halves.shape == (3, 24, 32, 3)
    assert painted_reader(halves) == [7, 3, 7]


def test_probe_is_kept_until_the_file_changes(tmp_path, painted_writer, monkeypatch):
    path = painted_writer(tmp_path / "v.mp4", 12)
    assert probe_video(path).num_frames == 12
    with monkeypatch.context() as patch:
        patch.setattr("octvideo.data.probe.open_video", lambda name: pytest.fail("opened again"))
        assert probe_video(path).num_frames == 12
    assert probe_video(painted_writer(path, 15)).num_frames == 15


def test_wrong_requests(painted_video, tmp_path):
    with pytest.raises(IndexError, match=r"a video.mp4: frame 100 was asked for, but frames 0 to 99 decode"):
        decode_frames(painted_video, [0, 100])
    with pytest.raises(IndexError, match="frame -1 was asked for"):
        decode_frames(painted_video, [-1])
    with pytest.raises(ValueError, match="indices should name at least one frame"):
        decode_frames(painted_video, [])
    with pytest.raises(ValueError, match="short_side should be at least 1 pixel, but it is 0"):
        decode_frames(painted_video, [0], short_side=0)
    with pytest.raises(FileNotFoundError, match=r"gone.mp4: no such video"):
        probe_video(tmp_path / "gone.mp4")


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(VideoDecodeError, match=r"sound.wav: holds no video stream. Re-encode"):
        probe_video(path)


def usable_decoders() -> list[str]:
    """Decoders that this machine has."""
    usable = []
    for decoder in DECODERS:
        with contextlib.suppress(ValueError):
            check_decoder(decoder)
            usable.append(decoder)
    return usable


def decode_in_subprocess(warm_python, paths: list[Path], out: Path) -> dict[str, dict]:
    """Ends, all frames or the error of each file, from another process that is killed when it hangs."""
    script = (
        "import sys, torch\n"
        "from octvideo.data import VideoDecodeError, decode_frames, probe_video\n"
        f"DECODERS = {usable_decoders()!r}\n"
        "results = {}\n"
        "for path in sys.argv[2:]:\n"
        "    try:\n"
        "        info = probe_video(path)\n"
        "        n = info.num_frames\n"
        "        indices = sorted({0, n // 3, n // 2, n - 2, n - 1})\n"
        "        together = decode_frames(path, indices)\n"
        "        last = decode_frames(path, [n - 1])[0]\n"
        "        results[path] = dict(n=n, size=(info.height, info.width), indices=indices, frames=together,\n"
        "                             same=torch.equal(last, together[-1]))\n"
        "        for decoder in DECODERS:\n"
        "            frames = [decode_frames(path, [index], decoder=decoder)[0] for index in reversed(indices)]\n"
        "            unlike = (torch.stack(frames[::-1]).float() - together.float()).abs().mean((1, 2, 3))\n"
        "            results[path][decoder] = unlike.max().item()\n"
        "    except VideoDecodeError as error:\n"
        "        results[path] = dict(error=str(error))\n"
        "torch.save(results, sys.argv[1])\n"
    )
    warm_python.run(["-c", script, out, *paths], seconds=HANG_SECONDS)
    return {Path(path).name: result for path, result in torch.load(out).items()}


@pytest.fixture(scope="module")
def damaged_results(tmp_path_factory, painted_writer, warm_python):
    """What an mp4 ends in whose last third is cut off, zero or noise while its header promises all of it."""
    folder = tmp_path_factory.mktemp("damaged")
    whole = painted_writer(folder / "whole.mp4", 90, container_options={"movflags": "faststart"}).read_bytes()
    keep = len(whole) * 7 // 10
    noise = torch.randint(256, (len(whole) - keep,), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    ends = {"cut": b"", "zeros": bytes(len(whole) - keep), "noise": noise.numpy().tobytes()}
    for name, end in ends.items():
        (folder / name).with_suffix(".mp4").write_bytes(whole[:keep] + end)
    return decode_in_subprocess(warm_python, [folder / f"{name}.mp4" for name in ends], folder / "results.pt")


@pytest.mark.parametrize("damage", ["cut", "zeros", "noise"])
def test_a_damaged_end_never_hangs_and_gives_right_frames(damaged_results, painted_reader, damage):
    result = damaged_results[f"{damage}.mp4"]
    assert "error" not in result
    assert result["same"]
    assert 30 < result["n"] <= 90
    assert max(result[decoder] for decoder in usable_decoders()) < 4
    assert painted_reader(result["frames"])[:2] == result["indices"][:2]


# Frames that decode; None where the file has to end in an error.
AWKWARD = {
    "Megamind_bugy.avi": 270,
    "av1_video.mkv": 125,
    "baseball.mp4": 167,
    "basketball.mp4": 214,
    "corrupted.mp4": 28,
    "discard_first_keyframe.mp4": 25,
    "empty.mp4": None,
    "h264_10bits.mp4": 30,
    "h265_video.mp4": 10,
    "hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi": 83,
    "nasa_13013.mp4": 390,
    "noise.mp4": None,
    "testsrc2_mpeg4.avi": 30,
    "testsrc2_odd_height_and_width_444.mp4": 25,
    "text.mp4": None,
    "truncated.mp4": None,
    "unordered.mov": 4,
    "video_0.mov": 3,
    "video_180.mov": 3,
    "video_270.mov": 3,
    "video_90.mov": 3,
}
QUARTER_TURNS = {"video_90.mov": 3, "video_180.mov": 2, "video_270.mov": 1}


@pytest.fixture(scope="module")
def awkward_results(shared_data, tmp_path_factory, warm_python):
    """What every awkward file ended in."""
    paths = sorted((shared_data / "awkward").iterdir())
    assert {path.name for path in paths} == set(AWKWARD)
    return decode_in_subprocess(warm_python, paths, tmp_path_factory.mktemp("awkward") / "results.pt")


def frames_in_sequence(path: Path, indices: Sequence[int], quarter_turns: int = 0) -> np.ndarray:
    """The named frames of the main video stream, by reading all of them in order."""
    frames = {}
    with av.open(str(path), metadata_errors="ignore") as container:
        for index, frame in enumerate(container.decode(container.streams.best("video"))):
            frames[index] = np.rot90(frame.to_ndarray(format="rgb24"), quarter_turns)
            if index == indices[-1]:
                break
    return np.stack([frames[index] for index in indices])


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_files_end_in_right_frames_or_one_error(shared_data, awkward_results, name):
    result, num_frames = awkward_results[name], AWKWARD[name]
    if num_frames is None:
        assert name in result["error"]
        assert "Re-encode" in result["error"]
        assert "\n" not in result["error"]
        return
    assert result["n"] == num_frames
    assert result["same"]
    expected = frames_in_sequence(shared_data / "awkward" / name, result["indices"], QUARTER_TURNS.get(name, 0))
    assert result["frames"].shape == expected.shape
    assert result["frames"].shape[1:3] == result["size"]
    # Ten-bit colour is rounded differently by the two decoders; another frame differs by far more.
    assert np.abs(result["frames"].numpy().astype(int) - expected).mean(axis=(1, 2, 3)).max() < 4
    assert max(result[decoder] for decoder in usable_decoders()) < 4
    assert np.abs(result["frames"].numpy().astype(int) - expected).mean() < 4


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_video_in_memory_decodes_as_its_file_does(encoded, painted_reader, decoder):
    skip_unless_usable(decoder)
    path, _ = encoded
    video = VideoBytes("the video", path.read_bytes())
    assert probe_video(video) == probe_video(path)
    indices = [3, 88, 40, 41, 3]
    frames = decode_frames(video, indices, decoder=decoder)
    assert painted_reader(frames) == indices
    assert torch.equal(frames, decode_frames(path, indices, decoder=decoder))


def test_a_broken_video_in_memory_is_named():
    with pytest.raises(VideoDecodeError, match=r"a.tar/1.mp4: cannot be opened as a video"):
        probe_video(VideoBytes("a.tar/1.mp4", b"no video"))
    with pytest.raises(VideoDecodeError, match=r"a.tar/1.mp4: the file is empty"):
        probe_video(VideoBytes("a.tar/1.mp4", b""))


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile local.ts\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nlocal.ts\n#EXT-X-ENDLIST\n",
    "address": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_under_a_videos_name_opens_nothing(tmp_path, painted_writer, monkeypatch, name):
    painted_writer(tmp_path / "local.ts", 5)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoDecodeError, match=r"1.mp4: (cannot be opened|no frame|holds no)"):
        probe_video(VideoBytes("1.mp4", PLAYLISTS[name].encode()))
