"""Times of single layers: what is timed, and what the ratios are of."""

import inspect

import pytest
import torch

from octvideo.analysis.timing import Timing
from octvideo.benchmarks import benchmark_layers, layers
from octvideo.layers import OctConv3d, merge, split
from octvideo.runtime import FastNetwork


@pytest.fixture(autouse=True)
def _threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def small(**changes):
    options = {"kernels": ["1x3x3"], "channels": [10], "sizes": ["3x7x5"], "alpha": [0.25], "rounds": 2}
    return benchmark_layers(**options | changes)


def test_one_row_for_each_case_variant_and_alpha():
    seen = []
    rows = small(
        kernels=["3x1x1", "1x1x1"], channels=[4, 6], alpha=[0.5, 0.25], progress=lambda *args: seen.append(args)
    )
    keys = [(r["kernel"], r["channels"], r["size"], r["variant"], r["alpha"]) for r in rows]
    assert keys == [
        (kernel, channels, "3x7x5", variant, alpha)
        for kernel in ("3x1x1", "1x1x1")
        for channels in (4, 6)
        for variant in ("eager", "fast")
        for alpha in (0.5, 0.25)
    ]
    assert seen[-1] == ("timing layers", 4, 4)
    assert all(row["dense_ms"] > 0 and row["octave_ms"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("octave", "high", "low"), [("spatial", 105, 36), ("temporal", 105, 70), ("spatiotemporal", 105, 24)]
)
def test_multiply_adds_are_those_counted_by_hand(octave, high, low):
    # 8 high and 2 low channels on 3x7x5: the high path at full size, the three others at the low part's.
    [row] = small(octave=octave, variants=["eager"], batch_size=2)
    assert row["macs_ratio"] == pytest.approx((8 * 8 * high + (8 * 2 + 2 * 8 + 2 * 2) * low) / (10 * 10 * high))


def test_ratios_and_what_pays(monkeypatch):
    times = {"eager 0": 4.0, "eager 0.5": 3.0, "eager 0.25": 5.0, "fast 0": 2.0, "fast 0.5": 2.0, "fast 0.25": 1.0}
    monkeypatch.setattr(
        layers,
        "time_in_turns",
        lambda calls, **_: {name: Timing(times[name], times[name] / 10, times[name]) for name in calls},
    )
    rows = small(alpha=[0.5, 0.25])
    assert [row["time_ratio"] for row in rows] == [0.75, 1.25, 1.0, 0.5]
    assert [row["pays"] for row in rows] == [True, False, False, True]
    assert [(row["dense_ms"], row["octave_iqr_ms"]) for row in rows] == [(4, 0.3), (4, 0.5), (2, 0.2), (2, 0.1)]
    for row in rows:
        assert row["time_over_macs_ratio"] == row["time_ratio"] / row["macs_ratio"]


@pytest.mark.parametrize("kernel", [(1, 1, 1), (3, 1, 1), (1, 3, 3), (3, 3, 3)])
def test_a_fast_layer_computes_the_same(kernel):
    padding = tuple(k // 2 for k in kernel)
    conv = OctConv3d(6, 8, kernel, padding=padding, alpha_in=0.5, alpha_out=0.25)
    pair = split(torch.randn(2, 6, 3, 7, 5), 0.5)
    fast = layers.layer_call("fast", conv, pair)
    assert isinstance(inspect.getclosurevars(fast).nonlocals["network"], FastNetwork)
    torch.testing.assert_close(merge(fast()), merge(conv(pair)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(merge(layers.layer_call("eager", conv, pair)()), merge(conv(pair)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernels": ["3x3"]}, "kernels must be three odd numbers over T, H and W, such as 1x3x3; got '3x3'"),
        ({"kernels": ["1x2x2"]}, "odd numbers .* got '1x2x2'"),
        ({"kernels": ["1x-3x3"]}, "got '1x-3x3'"),
        ({"sizes": ["8x56"]}, "sizes must be three numbers over T, H and W, such as 8x56x56; got '8x56'"),
        ({"sizes": ["0x7x7"]}, "got '0x7x7'"),
        ({"sizes": ["axbxc"]}, "got 'axbxc'"),
        ({"variants": ["compiled"]}, "variants of a layer must be of eager, fast; got"),
        ({"alpha": [0.5, 0]}, "alpha must be above 0 and at most 1: .* got \\[0.5, 0\\]"),
        ({"alpha": [1.5]}, "alpha must be above 0"),
        ({"channels": [0]}, "channels must be 1 or more; got \\[0\\]"),
        ({"threads": 0}, "threads must be 1 or more; got 0"),
        ({"octave": "sideways"}, "octave must be one of"),
        ({"rounds": 1}, "rounds must be 2 or more"),
        ({"dtype": "half"}, r"dtype must be of float32, bfloat16; got \['half'\]"),
    ],
)
def test_errors_name_the_argument(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)
