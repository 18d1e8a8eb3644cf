"""`octvideo benchmark` and the timing in turns behind it."""

import json
import sys

import av
import pytest
import torch

from octvideo.analysis import count_macs
from octvideo.analysis.timing import time_in_turns
from octvideo.benchmarks import benchmark_networks, decoding
from octvideo.benchmarks.training import peak_bytes, training_step
from octvideo.cli import main
from octvideo.data import decode_frames, probe_video
from octvideo.models import resnet3d_tiny


@pytest.fixture(autouse=True)
def _threads():
    """Benchmarks set the number of threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_calls_take_turns():
    calls = []
    times = time_in_turns({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert all(timing.median_ms > 0 <= timing.iqr_ms for timing in times.values())
    with pytest.raises(ValueError, match="rounds must be 2 or more, for a range; got 1"):
        time_in_turns({}, rounds=1)


def test_the_command_writes_ratios_against_the_dense_network_of_each_variant(tmp_path, capsys):
    path = tmp_path / "new" / "b.json"
    arguments = ["--model", "resnet3d_tiny", "--alpha", "0.5", "--num_frames", "4", "--crop", "24", "--rounds", "3"]
    arguments += ["--variants", "eager", "channels_last", "fast", "--output", str(path)]
    assert main(["benchmark", "networks", *arguments]) == 0
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads(path.read_text())["rows"]
    assert [(row["variant"], row["alpha"]) for row in rows] == [
        (variant, alpha) for alpha in (0, 0.5) for variant in ("eager", "channels_last", "fast")
    ]
    clip = torch.zeros(1, 3, 4, 24, 24)
    gmacs = [count_macs(resnet3d_tiny(num_classes=400, alpha=a), clip).gmacs for a in (0, 0.5)]
    dense, fast = rows[2], rows[5]
    assert fast["macs_ratio"] == pytest.approx(gmacs[1] / gmacs[0])
    assert fast["time_ratio"] == pytest.approx(fast["median_ms"] / dense["median_ms"])
    assert fast["speedup_over_eager_dense"] == pytest.approx(rows[0]["median_ms"] / fast["median_ms"])
    assert fast["time_over_macs_ratio"] == pytest.approx(fast["time_ratio"] / fast["macs_ratio"])
    assert "time / MACs" in capsys.readouterr().out


def test_a_training_step_has_its_peak_memory_beside_the_papers(tmp_path, capsys):
    threads = torch.get_num_threads()
    path = tmp_path / "b.json"
    arguments = ["--model", "resnet3d_tiny", "--alpha", "0.5", "--num_frames", "4", "--crop", "24", "--rounds", "2"]
    arguments += ["--step", "training", "--variants", "fast", "peer", "--dtype", "bfloat16", "--output", str(path)]
    try:
        assert main(["benchmark", "networks", *arguments]) == 0
    finally:
        torch.set_num_threads(threads)
    dense, peer, octave = json.loads(path.read_text())["rows"]
    assert [(r["variant"], r["alpha"]) for r in (dense, peer, octave)] == [("fast", 0), ("peer", 0), ("fast", 0.5)]
    assert octave["memory_ratio"] == pytest.approx(octave["peak_memory_mb"] / dense["peak_memory_mb"])
    assert octave["paper_memory_ratio"] == 0.63
    assert octave["speedup_over_eager_dense"] is None
    assert "paper's" in capsys.readouterr().out


def test_a_training_step_moves_the_weights_and_needs_what_its_tensors_take():
    network = torch.nn.Linear(1000, 500, bias=False)
    clips = torch.randn(4, 1000)
    before = network.weight.detach().clone()
    step = training_step(network, clips, 500, torch.float32)
    step()
    probabilities = (clips @ before.T).softmax(1)
    probabilities[range(4), range(4)] -= 1
    torch.testing.assert_close(network.weight, before - 1e-3 * probabilities.T @ clips / 4)
    gradient_bytes = 4 * network.weight.numel()
    assert gradient_bytes <= peak_bytes(step, torch.device("cpu")) < 1.2 * gradient_bytes


def test_a_training_step_is_measured_without_the_profilers_own_messages(warm_python):
    arguments = "--alpha 0.5 --step training --variants eager --num_frames 4 --crop 24 --batch_size 2 --rounds 2"
    command = ["-m", "octvideo", "benchmark", "networks", "--model", "resnet3d_tiny", *arguments.split()]
    printed = warm_python.run(command)
    assert "peak MB" in printed.out
    assert "Profiler" not in printed.err
    assert "ERROR" not in printed.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    "command",
    ["benchmark networks", "benchmark layers", "benchmark slow_layers", "predict wave.mp4 --checkpoint last.ckpt"],
)
@pytest.mark.parametrize("device", ["cuda", "tpu", "meta"])
def test_a_device_that_is_not_there_is_named(command, device, capsys):
    assert main([*command.split(), "--device", device]) == 1
    assert f"device is '{device}', on which torch cannot run here: use cpu" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x.png", "x", ".", "taken/x.json"])
def test_a_result_that_could_not_be_written_is_not_measured(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    assert main(["benchmark", "networks", "--output", name]) == 1
    assert "octvideo: error: output " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_words_that_a_call_from_python_may_get_wrong():
    """The command's parser knows them."""
    with pytest.raises(ValueError, match=r"step must be of inference, training; got \['train'\]"):
        benchmark_networks("resnet3d_tiny", step="train")
    with pytest.raises(ValueError, match=r"dtype must be of float32, bfloat16; got \['float16'\]"):
        benchmark_networks("resnet3d_tiny", dtype="float16")


NETWORKS = "networks --model resnet3d_tiny --alpha 0.5 --num_frames 4 --crop 24"
VIEWS = "--videos a.mp4 --hd false"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (f"{NETWORKS} --threads 0", "threads must be 1 or more; got 0"),
        (f"{NETWORKS} --threads x", 'Parser key "threads": Expected a whole number. Got value: x'),
        (f"{NETWORKS} --batch_size 0", "batch_size must be 1 or more; got 0"),
        (f"{NETWORKS} --rounds 1", "rounds must be 2 or more; got 1"),
        (
            f"{NETWORKS} --variants fast foo",
            "variants must be of eager, channels_last, fast, lean, compiled, peer, peer_compiled; got ['fast', 'foo']",
        ),
        (f"{NETWORKS} --variants lean", "variant lean is for step training: inference keeps nothing for a backward"),
        (
            f"{NETWORKS} --step training --variants channels_last",
            "variant channels_last is for step inference: a training step has that in variant fast",
        ),
        (f"{NETWORKS} --alpha nan", 'Parser key "alpha" element 1: Expected a finite number. Got value: nan'),
        (f"{NETWORKS} --alpha 2", "alpha is the low-frequency share of the channels, from 0 to 1; got 2.0"),
        (
            f"{NETWORKS} --compile_mode bogus",
            "compile_mode must be of default, reduce-overhead, max-autotune, max-autotune-no-cudagraphs; got ['bogus']",
        ),
        (f"{NETWORKS} --dtype half", "Parser key \"dtype\": Expected one of 'float32', 'bfloat16'. Got value: half"),
        (
            f"{NETWORKS} --step training --crop 16 --num_frames 1",
            "num_frames 1 and crop 16x16 should suit resnet3d_tiny, which is made for ",
        ),
        (
            "networks --model c2d_r50 --crop 3 --num_frames 1",
            "num_frames 1 and crop 3x3 should suit c2d_r50, which is made for 8x224x224, but it fails on them",
        ),
        (
            "slow_layers --model c2d_r50 --crop 3 --num_frames 1",
            "num_frames 1 and crop 3x3 should suit c2d_r50, which is made for 8x224x224, but it fails on them",
        ),
        ("slow_layers --batch_size 0", "batch_size must be 1 or more; got 0"),
        ("layers --channels 8 0", "channels must be 1 or more; got [8, 0]"),
        ("peers --threads 0", "threads must be 1 or more; got 0"),
        ("decoding --hd false", "videos must be given where hd is false; got none"),
        (f"decoding {VIEWS} --loaders foo", "loaders must be of octvideo, "),
        (f"decoding {VIEWS} --clips 1", "crops must be as many numbers as clips, 1; got [1, 3]"),
        (f"decoding {VIEWS} --crop 0", "crop must be 1 or more; got 0"),
        (f"decoding {VIEWS} --workers -1", "workers must be 0 or more; got [-1]"),
        (f"packing {VIEWS} --clips 0 1", "clips must be 1 or more; got [0, 1]"),
        (f"packing {VIEWS} --gop 0", "gop must be 1 or more; got 0"),
    ],
)
def test_errors_name_the_argument_its_value_and_what_was_expected(arguments, message, capsys):
    assert main(["benchmark", *arguments.split()]) == 1
    assert f"octvideo: error: {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("layers --kernels 1x1x1 --channels 4 --sizes 2x5x5 --alpha 0.5", "eager 1x1x1, faster than dense: alpha 0.5"),
        ("slow_layers --model resnet3d_tiny --alpha 0.5 --num_frames 4 --crop 24", "take longer than dense ones"),
    ],
)
def test_tables_of_layers_tell_what_they_show(arguments, told, tmp_path, capsys):
    assert main(["benchmark", *arguments.split(), "--rounds", "2", "--output", str(tmp_path / "b.json")]) == 0
    assert told in capsys.readouterr().out
    assert json.loads((tmp_path / "b.json").read_text())["rows"]
    assert (tmp_path / "b.png").exists() == arguments.startswith("layers")


def test_a_missing_peer_is_told_with_what_installs_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "octconv", None)
    assert main(["benchmark", "peers", "--networks", "layer", "--compiled", "false", "--rounds", "2"]) == 0
    assert "pip install 'octvideo[peers]'" in " ".join(capsys.readouterr().out.split())


def test_analyze_tells_the_command_that_finds_slow_layers(capsys):
    small = ["--num_frames", "4", "--crop", "24"]
    assert main(["analyze", "--model", "resnet3d_tiny", "--octave", "temporal", "--alpha", "0", "0.5", *small]) == 0
    hint = capsys.readouterr().out.splitlines()[-1]
    command = "octvideo benchmark slow_layers --model resnet3d_tiny --octave temporal --alpha 0.5"
    assert hint == f"which layers save no time: {command}"
    assert main([*command.split()[1:], *small, "--rounds", "2"]) == 0
    capsys.readouterr()
    assert main(["analyze", "--model", "resnet3d_tiny", "--alpha", "0", *small]) == 0
    assert "slow_layers" not in capsys.readouterr().out


def test_decoding_gives_rates_ratios_and_the_problems_of_loaders(tmp_path, two_classes, monkeypatch, capsys):
    def broken(paths, plan):
        raise RuntimeError("no such library\nand a long story")

    monkeypatch.setitem(decoding.LOADERS, "pytorchvideo", broken)
    monkeypatch.setitem(decoding.LOADERS, "decord", lambda paths, plan: iter([torch.zeros(3, 2, 24, 24)]))
    path, threads = tmp_path / "b.json", torch.get_num_threads()
    videos = [str(two_classes / f"train {number}.mp4") for number in range(2)]
    arguments = ["--clips", "1", "2", "--crops", "1", "3", "--workers", "0", "--num_frames", "4", "--hd", "false",
                 "--short_side", "32", "--crop", "24", "--rounds", "2", "--loaders", "octvideo", "octvideo, decord",
                 "decord", "pytorchvideo"]  # fmt: skip
    try:
        assert main(["benchmark", "decoding", "--videos", *videos, *arguments, "--output", str(path)]) == 0
    finally:
        torch.set_num_threads(threads)
    content = json.loads(path.read_text())
    rows = content["rows"]
    assert content["settings"]["videos"] == ["train 0.mp4", "train 1.mp4"]
    assert content["metadata"]["av_version"] == av.__version__
    assert str(two_classes) not in path.read_text()
    info = probe_video(videos[0])
    assert {(row["videos"], row["num_videos"]) for row in rows} == {(f"h264 mp4 {info.width}x{info.height}", 2)}
    assert [(row["clips"], row["crops"], row["loader"]) for row in rows[::4]] == [
        (1, 1, "octvideo"),
        (2, 3, "octvideo"),
    ]
    for ours, other, wrong, failing in (rows[:4], rows[4:]):
        num_clips = 4 if ours["clips"] == 1 else 2 * ours["clips"] * ours["crops"]  # of one process, 4 at least
        assert ours["clips_per_second"] == pytest.approx(1e3 * num_clips / ours["median_ms"])
        assert other["octvideo_ratio"] == pytest.approx(other["median_ms"] / ours["median_ms"])
        assert wrong["problem"].startswith("gave 1 clips of [(3, 2, 24, 24)]")
        assert failing["problem"] == "RuntimeError: no such library"
        assert failing["clips_per_second"] is None
    assert "RuntimeError" in capsys.readouterr().out
    assert main(["benchmark", "decoding", "--hd", "false"]) == 1


@pytest.mark.parametrize(("videos", "views", "workers", "passes"), [
    (1, 30, 0, 1), (1, 30, 2, 2), (3, 1, 0, 2), (3, 1, 1, 2), (3, 30, 2, 2), (2, 30, 2, 1), (1, 1, 0, 4), (3, 1, 2, 4),
])  # fmt: skip
def test_each_worker_gets_as_many_videos_as_the_others(videos, views, workers, passes):
    assert decoding._num_passes(videos, views, workers) == passes


@pytest.mark.parametrize("name", ["torchcodec", "decord", "pytorchvideo"])
def test_peers_make_the_clips_that_octvideo_makes(two_classes, name):
    plan = decoding.ClipPlan(num_clips=1, num_crops=3, num_frames=4, stride=2, short_side=40, crop=32)
    paths = [str(two_classes / f"test {number}.mp4") for number in range(2)]
    try:
        clips = list(decoding.LOADERS[name](paths, plan))
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{name} does not run here: {str(error).splitlines()[0]}")
    assert len(clips) == 6
    for clip, batch in zip(clips, decoding.build_loader("octvideo", paths, plan), strict=True):
        [ours] = batch["clip"]
        # PyTorchVideo resizes floats, without antialiasing; another frame of this noise differs by far more.
        assert (clip - ours).abs().mean() < (0.1 if name == "pytorchvideo" else 1e-9)


def test_the_hd_video_is_what_it_says(tmp_path):
    path = decoding.write_texture_video(tmp_path / "v.mp4", height=96, width=160, num_frames=12)
    info = probe_video(path)
    assert (info.num_frames, info.fps, info.height, info.width, info.codec) == (12, 30, 96, 160, "h264")
    frames = decode_frames(path, range(12)).float()
    assert (frames[1:] - frames[:-1]).abs().mean() > 3


def test_packing_gives_rates_of_every_form(tmp_path, two_classes, capsys):
    path, threads = tmp_path / "b.json", torch.get_num_threads()
    videos = [str(two_classes / f"train {number}.mp4") for number in range(2)]
    arguments = ["--clips", "1", "2", "--crops", "1", "3", "--workers", "0", "--num_frames", "4", "--hd", "false",
                 "--short_side", "32", "--crop", "24", "--rounds", "2", "--short_sides", "32", "256"]  # fmt: skip
    try:
        assert main(["benchmark", "packing", "--videos", *videos, *arguments, "--output", str(path)]) == 0
    finally:
        torch.set_num_threads(threads)
    rows = json.loads(path.read_text())["rows"]
    forms = ["files", "packed, 32", "shards, 32", "packed, 256", "shards, 256", "files, first look"]
    assert [row["form"] for row in rows] == forms * 2
    for row in rows:
        assert row["clips_per_second"] == pytest.approx(1e3 * {1: 32, 2: 36}[row["clips"]] / row["median_ms"])
    assert rows[1]["video_bytes"] < rows[3]["video_bytes"]
    assert rows[3]["video_bytes"] == rows[4]["video_bytes"]
    assert "shards, 256" in capsys.readouterr().out
    assert main(["benchmark", "packing", "--hd", "false"]) == 1
