"""`octvideo benchmark` and the timing in turns behind it."""

import json

import pytest
import torch

from octvideo.analysis import count_macs
from octvideo.analysis.timing import time_in_turns
from octvideo.cli import main
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
    assert main(["benchmark", "networks", *arguments, "--output", str(path)]) == 0
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


def test_unknown_variants_are_named(capsys):
    assert main(["benchmark", "networks", "--variants", "faster"]) == 1
    assert "variants must be of eager, fast, compiled" in capsys.readouterr().err


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
