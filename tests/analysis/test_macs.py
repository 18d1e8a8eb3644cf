"""Multiply-adds against formulas by hand, brute-force window counts, fvcore and the networks' known numbers."""

import itertools
import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import FlopCountAnalysis
from pytorchvideo.models import hub
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from octvideo.analysis import count_macs
from octvideo.analysis.macs import nested_tensors
from octvideo.models import resnet3d_small, resnet26


class Call(nn.Module):
    """A function as a module without parameters."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


class Pair(NamedTuple):
    high: Tensor
    low: Tensor


class OctavePair(nn.Module):
    """One octave convolution at alpha .5 in its plainest form, giving a pair."""

    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        self.paths = nn.ModuleList(nn.Conv3d(half, half, 3, padding=1, bias=False) for _ in range(4))

    def forward(self, pair):
        high_high, low_high, high_low, low_low = self.paths
        high = high_high(pair.high) + F.interpolate(low_high(pair.low), scale_factor=(1, 2, 2))
        low = low_low(pair.low) + high_low(F.avg_pool3d(pair.high, (1, 2, 2)))
        return Pair(high, low)


def meta(*shape):
    return torch.empty(*shape, device="meta")


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (nn.Conv3d(6, 8, (3, 1, 5), stride=(1, 2, 2), padding=(1, 0, 2), groups=2), (1, 6, 4, 9, 7)),
        (nn.Conv2d(5, 7, 3, padding=1, bias=False), (1, 5, 9, 8)),
        (nn.Conv1d(4, 4, 3, groups=4), (1, 4, 11)),
    ],
)
def test_convolution_by_hand(conv, shape):
    out = conv(torch.zeros(shape))
    expected = out.numel() * (conv.in_channels // conv.groups) * math.prod(conv.kernel_size)
    report = count_macs(conv, torch.zeros(shape))
    assert report.conv_macs == report.macs == report.total_macs == expected
    assert report.gmacs == expected / 1e9
    assert count_macs(conv.to("meta"), meta(*shape)) == report


def test_linear_and_attention_by_hand():
    assert count_macs(nn.Linear(5, 3), torch.zeros(1, 7, 5)).matmul_macs == 7 * 5 * 3
    q = torch.zeros(1, 2, 8, 4)
    attention = Call(F.scaled_dot_product_attention)
    for args in ((q, q, q), (q.to("meta"),) * 3):
        assert count_macs(attention, args).matmul_macs == 2 * (2 * 8 * 8 * 4)
    layer = nn.MultiheadAttention(4, 2, batch_first=True)
    tokens = torch.zeros(1, 6, 4)
    expected = 4 * 6 * 4 * 4 + 2 * 6 * 6 * 4  # four projections; scores and their use
    assert count_macs(layer, (tokens, tokens, tokens)).matmul_macs == expected


def brute_force_reads(size, kernel, stride, padding, num_windows):
    """Elements that average pooling reads, counted one by one."""
    return sum(
        all(0 <= w * s - p + k < n for w, k, n, s, p in zip(window, offset, size, stride, padding, strict=True))
        for window in itertools.product(*map(range, num_windows))
        for offset in itertools.product(*map(range, kernel))
    )


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "ceil"),
    [
        ((2, 6, 8), (1, 2, 2), (1, 2, 2), (0, 0, 0), False),
        ((3, 7, 5), (2, 2, 2), (2, 2, 2), (0, 0, 0), True),
        ((3, 7, 5), (2, 2, 2), (2, 2, 2), (0, 0, 0), False),
        ((4, 6, 6), (3, 3, 3), (2, 1, 2), (1, 1, 1), False),
        ((9, 7), (3, 2), (2, 2), (1, 1), True),
        ((11,), (4,), (3,), (2,), True),
    ],
)
def test_average_pooling_counts_what_it_reads(size, kernel, stride, padding, ceil):
    axes = len(size)
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[axes]
    x = torch.zeros(1, 3, *size)
    out = pool(x, kernel, stride, padding, ceil_mode=ceil)
    expected = 3 * brute_force_reads(size, kernel, stride, padding, out.shape[2:])
    report = count_macs(Call(lambda x: pool(x, kernel, stride, padding, ceil_mode=ceil)), x)
    assert report.pool_macs == expected
    assert report.macs == 0


def test_default_stride_and_int_arguments():
    assert count_macs(Call(lambda x: F.avg_pool3d(x, 2)), torch.zeros(1, 3, 4, 4, 4)).pool_macs == 3 * 64
    assert count_macs(Call(lambda x: F.avg_pool1d(x, 2)), torch.zeros(1, 3, 8)).pool_macs == 3 * 8


@pytest.mark.parametrize(("size", "bins"), [((8, 6, 6), 1), ((4, 7, 5), (2, 3, 3)), ((7, 5), (3, 5)), ((9,), 1)])
def test_adaptive_pooling_counts_what_it_reads(size, bins):
    pool = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[len(size)]
    per_axis = (bins,) * len(size) if isinstance(bins, int) else bins
    spans = [
        sum(math.ceil((i + 1) * n / b) - math.floor(i * n / b) for i in range(b))
        for n, b in zip(size, per_axis, strict=True)
    ]
    report = count_macs(Call(lambda x: pool(x, bins)), torch.zeros(1, 3, *size))
    assert report.pool_macs == 3 * math.prod(spans)


def test_nearest_upsampling_writes_and_multiplies_nothing():
    for shape, factor in (((4, 6), 2), ((4, 6, 6), 2), ((4, 2, 6, 6), (1, 2, 2))):
        x = torch.zeros(1, *shape)
        report = count_macs(Call(lambda x, factor=factor: F.interpolate(x, scale_factor=factor)), x)
        assert report.upsample_elements == F.interpolate(x, scale_factor=factor).numel()
        assert report.total_macs == 0
    assert count_macs(Call(lambda x: x.repeat_interleave(2, -1)), torch.zeros(1, 4, 6)).total_macs == 0


def test_octave_layer_that_takes_and_gives_pairs():
    channels, frames, side, alpha = 8, 2, 6, 0.5
    pair = Pair(meta(1, 4, frames, side, side), meta(1, 4, frames, side // 2, side // 2))
    report = count_macs(OctavePair(channels).to("meta"), (pair,))
    dense = channels**2 * 27 * frames * side**2
    assert report.conv_macs == dense * (1 - 3 / 4 * alpha * (2 - alpha))
    assert report.pool_macs == pair.high.numel()
    assert report.upsample_elements == pair.high.numel()


def test_normalisation_two_per_element_with_scale_and_shift():
    x = torch.zeros(1, 4, 2, 3, 3)
    assert count_macs(nn.BatchNorm3d(4), x).norm_macs == 2 * x.numel()
    assert count_macs(nn.BatchNorm3d(4, affine=False), x).norm_macs == x.numel()
    assert count_macs(nn.LayerNorm(3), x).norm_macs == 2 * x.numel()
    assert count_macs(nn.GroupNorm(2, 4), x).norm_macs == 2 * x.numel()


def test_agrees_with_fvcore():
    model = nn.Sequential(
        nn.Conv3d(3, 8, 3, stride=(1, 2, 2), padding=1, bias=False),
        nn.BatchNorm3d(8),
        nn.ReLU(),
        nn.Conv3d(8, 8, (3, 1, 1), groups=4),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()
    x = torch.zeros(1, 3, 4, 9, 9)
    counts = FlopCountAnalysis(model, x).unsupported_ops_warnings(False).by_operator()
    report = count_macs(model, x)
    assert report.conv_macs == counts["conv"]
    assert report.matmul_macs == counts["linear"]
    assert report.norm_macs == counts["batch_norm"]
    pool = nn.AdaptiveAvgPool2d((2, 3))  # of pooling, fvcore knows this one
    image = torch.zeros(1, 3, 4, 9)
    counts = FlopCountAnalysis(pool, image).by_operator()
    assert count_macs(pool, image).pool_macs == counts["adaptive_avg_pool2d"] == image.numel()


@pytest.mark.parametrize(("builder", "size"), [(resnet3d_small, (8, 61, 50)), (resnet26, (97, 64))])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_two_libraries_agree_on_octave_networks(builder, size):
    """fvcore counts convolutions, linear layers and norms by tracing, torch its dispatched operators, by 2."""
    model = builder(alpha=0.25).eval()
    view = torch.zeros(1, 3, *size)
    report = count_macs(model.requires_grad_(False), view)
    counts = FlopCountAnalysis(model, view).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_operator = counts.by_operator()
    assert report.conv_macs == by_operator["conv"]
    assert report.matmul_macs == by_operator["linear"]
    assert report.norm_macs == by_operator["batch_norm"]
    with FlopCounterMode(display=False) as counter:
        model.to("meta")(view.to("meta"))
    assert report.macs == counter.get_total_flops() / 2
    assert report.pool_macs > 0
    assert report.upsample_elements > 0


@pytest.mark.parametrize(
    ("name", "frames", "gmacs", "gmacs_with_norm"),
    [
        ("c2d_r50", (8,), 19.49, 19.62),
        ("i3d_r50", (8,), 28.41, 28.54),
        ("slow_r50", (8,), 41.74, 41.92),
        ("slowfast_r50", (8, 32), 50.31, 50.58),
        ("slowfast_r101", (8, 32), 96.40, 96.79),
        ("r2plus1d_r50", (16,), 57.53, 57.93),
        ("csn_r101", (32,), 56.47, 57.04),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_known_networks_at_224(name, frames, gmacs, gmacs_with_norm):
    with torch.device("meta"):
        model = getattr(hub, name)(pretrained=False)
    clips = [meta(1, 3, t, 224, 224) for t in frames]
    report = count_macs(model, clips if len(clips) > 1 else clips[0])
    assert report.gmacs == pytest.approx(gmacs, abs=0.006)
    assert report.gmacs_with_norm == pytest.approx(gmacs_with_norm, abs=0.006)
    assert [clip.shape[1] for clip in clips] == [3] * len(clips)  # the network wrote into a copy


def test_training_flags_come_back_also_after_an_error():
    model = nn.Sequential(nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2), nn.Dropout()).train()
    model[1].eval()
    count_macs(model, torch.zeros(1, 2, 3))
    assert [module.training for module in model.modules()] == [True, True, False, True]
    with pytest.raises(RuntimeError):
        count_macs(model, torch.zeros(1, 5, 3))
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert torch.equal(model[1].running_mean, torch.zeros(2))


def test_nested_tensors_walks_pairs_lists_and_dicts():
    a, b, c, d = torch.zeros(4).split(1)
    assert [id(t) for t in nested_tensors([Pair(a, b), {"x": (c, None, 3)}, [[d]]])] == [id(t) for t in (a, b, c, d)]


@pytest.mark.parametrize("inputs", [torch.zeros(2, 2, 3), (), ("text",), torch.tensor(1.0)])
def test_more_or_less_than_one_view_is_refused(inputs):
    with pytest.raises(ValueError, match="inputs should be tensors of one view, batch size 1, got shapes"):
        count_macs(nn.Conv1d(2, 2, 1), inputs)


def test_another_device_is_refused():
    with pytest.raises(ValueError, match=r"inputs should lie on the model's device cpu, got meta.*model.to\('meta'\)"):
        count_macs(nn.Conv1d(2, 2, 1), meta(1, 2, 3))
