"""Which layers of a network are slow: their names, and the network without them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from octvideo.analysis import count_macs
from octvideo.analysis.timing import Timing
from octvideo.benchmarks import LayerTime, benchmark_slow_layers, slow_layers, slow_names, time_layers
from octvideo.convert import octavize
from octvideo.layers import merge
from octvideo.models import resnet3d_tiny, s3d


@pytest.fixture(autouse=True)
def _threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def use_times(monkeypatch, octave_ms):
    """Dense calls take 2 ms, the n-th octave layer `octave_ms(n)`, whole networks 10; give back the layers' calls."""
    timed = []

    def timer(calls, **_):
        if set(calls) != {"dense", "octave"}:
            return {name: Timing(10.0, 0.0, 10.0) for name in calls}
        timed.append(calls)
        return {"dense": Timing(2.0, 0.0, 2.0), "octave": Timing(octave_ms(len(timed) - 1), 0.0, 1.0)}

    monkeypatch.setattr(slow_layers, "time_in_turns", timer)
    return timed


def chain():
    """Convolutions 1 and 2 on pairs, the second twice; 4 closes the octave."""
    torch.manual_seed(0)
    convs = [nn.Conv3d(3, 8, 3, padding=1), *(nn.Conv3d(8, 8, 3, padding=1) for _ in range(2)), nn.Conv3d(8, 4, 1)]
    net = nn.Sequential(convs[0], convs[1], convs[2], convs[2], convs[3])
    return octavize(net, {"1": 0.5, "2": 0.5})


def test_equal_layers_are_timed_once_and_named_for_each_call(monkeypatch):
    timed = use_times(monkeypatch, lambda n: 3.0)
    net = chain()
    x = torch.randn(2, 3, 3, 7, 5)
    times = time_layers(net, x)
    assert [time.names for time in times] == [("1",), ("2", "2"), ("4",)]
    assert [time.layer for time in times] == [
        "8->8 3x3x3 on 3x7x5", "8->8 3x3x3 on 3x7x5", "8->4 1x1x1 on 3x7x5",
    ]  # fmt: skip
    assert [time.lost_ms for time in times] == [1, 2, 1]
    assert slow_names(times) == ["1", "2", "4"]
    # 1 reads a map: the part below is written at a quarter of the size, 3x4x3 of 3x7x5.
    assert times[0].macs_ratio == pytest.approx((4 * 8 * 105 + 4 * 8 * 36) / (64 * 105))
    assert times[1].macs_ratio == pytest.approx((4 * 4 * 105 + 3 * 16 * 36) / (64 * 105))
    assert times[2].macs_ratio == pytest.approx((4 * 4 * 105 + 4 * 4 * 36) / (32 * 105))
    # What was timed: the layers on the maps that they meet in the network.
    stem = net[0](x)
    pair = net[1](stem)
    torch.testing.assert_close(merge(timed[0]["octave"]()), merge(pair))
    torch.testing.assert_close(timed[0]["dense"](), F.conv3d(stem, net[1].weight, net[1].bias, padding=1))
    torch.testing.assert_close(merge(timed[1]["octave"]()), merge(net[2](pair)))
    torch.testing.assert_close(timed[1]["dense"](), F.conv3d(merge(pair), net[2].weight, net[2].bias, padding=1))


def test_a_layer_on_two_sizes_is_slow_by_the_sum():
    def time(names, octave_ms):
        return LayerTime(names, "", Timing(4.0, 0.0, 4.0), Timing(octave_ms, 0.0, octave_ms), 1.0)

    times = [time(("a", "b"), 5.0), time(("a",), 2.0), time(("c", "d", "d"), 3.0), time(("b", "e"), 4.0)]
    assert slow_names(times) == ["b"]
    assert [t.lost_ms for t in times] == [2, -2, -3, 0]
    assert times[1].time_ratio == 0.5


def test_hooks_are_gone_and_flags_are_back():
    net = chain().train()
    time_layers(net, torch.randn(1, 3, 2, 6, 6), rounds=2, variant="fast")
    assert net.training
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_the_network_with_the_slow_layers_dense(monkeypatch):
    use_times(monkeypatch, lambda n: 3.0 if n % 2 else 1.0)
    rows = benchmark_slow_layers("resnet3d_tiny", alpha=[0.5], num_frames=4, crop=[25])
    *layers, network, kept = rows
    slow = {name for row in layers for name in row["slow_names"]}
    assert slow == {name for row in layers[1::2] for name in row["names"]}
    assert [(row["layer"], row["names"]) for row in (network, kept)] == [
        ("network", [""]), ("network, slow layers dense", [""]),
    ]  # fmt: skip
    clip = torch.zeros(1, 3, 4, 25, 25)
    dense = resnet3d_tiny(num_classes=400)
    macs = count_macs(dense, clip).macs
    assert network["macs_ratio"] == count_macs(resnet3d_tiny(num_classes=400, alpha=0.5), clip).macs / macs
    octavize(dense, 0.5, keep_dense=lambda name, conv: name in slow)
    assert kept["macs_ratio"] == count_macs(dense, clip).macs / macs
    assert network["macs_ratio"] < kept["macs_ratio"] < 1


def test_layers_that_the_builder_keeps_dense_stay_so():
    network = s3d(num_classes=4, alpha=0.5)
    assert octave_convs(slow_layers._with_dense("s3d", 0.5, "spatial", network, set())) == octave_convs(network)


def octave_convs(network):
    return {name: (conv.alpha_in, conv.alpha_out) for name, conv in slow_layers.octave_convs(network).items()}


@pytest.mark.parametrize(
    ("octave_ms", "networks"), [(1.0, ["network"]), (3.0, ["network", "network, slow layers dense"])]
)
def test_all_slow_is_the_dense_network_and_none_is_no_other(monkeypatch, octave_ms, networks):
    use_times(monkeypatch, lambda n: octave_ms)
    rows = benchmark_slow_layers("resnet18", alpha=[0.25], crop=[33])
    whole = [row for row in rows if row["names"] == [""]]
    assert [row["layer"] for row in whole] == networks
    assert (whole[-1]["macs_ratio"] == 1) == (octave_ms > 2)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="Conv3d has no octave convolutions: octavize it first"):
        time_layers(nn.Conv3d(3, 4, 1), torch.zeros(1, 3, 2, 4, 4))
    with pytest.raises(ValueError, match="variants of a layer must be of eager, fast; got \\['faster'\\]"):
        time_layers(chain(), torch.zeros(1, 3, 2, 4, 4), variant="faster")
    with pytest.raises(ValueError, match="variants of a layer must be of eager, fast; got \\['faster'\\]"):
        benchmark_slow_layers("resnet3d_tiny", variant="faster")
    with pytest.raises(ValueError, match="threads must be 1 or more; got 0"):
        benchmark_slow_layers("resnet3d_tiny", threads=0)
    with pytest.raises(ValueError, match="has no octave convolutions"):
        benchmark_slow_layers("resnet3d_tiny", alpha=[0], num_frames=4, crop=[24])
