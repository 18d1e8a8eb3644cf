"""`octvideo benchmark` and the timing in turns behind it."""

import json

import pytest
import torch

from octvideo.analysis import count_macs
from octvideo.analysis.timing import time_in_turns
from octvideo.benchmarks.training import peak_bytes, training_step
from octvideo.cli import main
from octvideo.models import resnet3d_tiny


def test_calls_take_turns():
    calls = []
    times = time_in_turns({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert all(timing.median_ms > 0 <= timing.iqr_ms for timing in times.values())
    with pytest.raises(ValueError, match="rounds must be 2 or more, for a range; got 1"):
        time_in_turns({}, rounds=1)


def test_the_command_writes_ratios_against_the_dense_network_of_each_variant(tmp_path, capsys):
    threads = torch.get_num_threads()
    path = tmp_path / "new" / "b.json"
    arguments = ["--model", "resnet3d_tiny", "--alpha", "0.5", "--num_frames", "4", "--crop", "24", "--rounds", "3"]
    try:
        assert main(["benchmark", "networks", *arguments, "--output", str(path)]) == 0
    finally:
        torch.set_num_threads(threads)
    rows = json.loads(path.read_text())["rows"]
    assert [(row["variant"], row["alpha"]) for row in rows] == [
        ("eager", 0), ("fast", 0), ("eager", 0.5), ("fast", 0.5),
    ]  # fmt: skip
    clip = torch.zeros(1, 3, 4, 24, 24)
    gmacs = [count_macs(resnet3d_tiny(num_classes=400, alpha=a), clip).gmacs for a in (0, 0.5)]
    fast = rows[3]
    assert fast["macs_ratio"] == pytest.approx(gmacs[1] / gmacs[0])
    assert fast["time_ratio"] == pytest.approx(fast["median_ms"] / rows[1]["median_ms"])
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_named(capsys):
    assert main(["benchmark", "networks", "--device", "cuda"]) == 1
    assert "device is 'cuda', but torch finds no GPU here: use cpu" in capsys.readouterr().err


def test_unknown_variants_are_named(capsys):
    assert main(["benchmark", "networks", "--variants", "faster"]) == 1
    assert "variants must be of eager, fast, lean, compiled" in capsys.readouterr().err
    assert main(["benchmark", "networks", "--variants", "lean"]) == 1
    assert "variant lean is for step training" in capsys.readouterr().err
