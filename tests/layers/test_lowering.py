"""3-D convolution through 2-D views equals torch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from octvideo.layers import OctConv3d, octave_from_dense, split
from octvideo.layers.lowering import conv3d, is_channels_last
from octvideo.layers.pool import planar_pool


def in_channels_last(x):
    return x.contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups"),
    [
        ((1, 3, 3), (1, 2, 2), (0, 1, 1), (1, 1, 1), 1),
        ((1, 3, 3), (2, 1, 1), (0, 2, 1), (1, 2, 1), 2),
        ((1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1),
        ((1, 1, 1), (3, 2, 2), (0, 0, 0), (1, 1, 1), 4),
        ((1, 1, 1), (1, 1, 1), (1, 0, 0), (1, 1, 1), 1),
        ((3, 1, 1), (1, 1, 1), (1, 0, 0), (1, 1, 1), 1),
        ((5, 1, 1), (2, 1, 1), (4, 0, 0), (2, 1, 1), 4),
        ((3, 1, 1), (1, 2, 2), (1, 0, 0), (1, 1, 1), 1),
        ((3, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
        ((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1), 1),
        ((1, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
        ((2, 4, 5), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1),
    ],
)
@pytest.mark.parametrize("size", [(6, 9, 8), (5, 6, 11)])
def test_convolution_equals_torch_and_keeps_the_layout(kernel, stride, padding, dilation, groups, size):
    x, weight = torch.randn(2, 8, *size).double(), torch.randn(12, 8 // groups, *kernel).double()
    bias = torch.randn(12).double()
    expected = F.conv3d(x, weight, bias, stride, padding, dilation, groups)
    out = conv3d(in_channels_last(x), weight, bias, stride, padding, dilation, groups)
    torch.testing.assert_close(out, expected)
    assert is_channels_last(out)
    assert torch.equal(conv3d(x, weight, bias, stride, padding, dilation, groups), expected)


@pytest.mark.parametrize("channels", [(2, 1), (6, 1), (3, 2)])
@pytest.mark.parametrize("kernel", [(3, 1, 1), (1, 3, 3), (3, 3, 3), (1, 1, 1)])
def test_gradients_of_one_clip_and_one_channel(kernel, channels):
    x, weight = torch.randn(1, channels[0], 8, 4, 4).double(), torch.randn(*reversed(channels), *kernel).double()
    given = [value.clone().requires_grad_() for value in (x, weight)]
    expected = torch.autograd.grad(F.conv3d(*given, padding="same").square().sum(), given)
    given = [in_channels_last(value).requires_grad_() for value in (x, weight)]
    padding = [size // 2 for size in kernel]
    got = torch.autograd.grad(conv3d(*given, None, (1, 1, 1), padding, (1, 1, 1)).square().sum(), given)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("octave", ["spatial", "temporal", "spatiotemporal"])
@pytest.mark.parametrize("kernel", [(3, 1, 1), (1, 3, 3), (1, 1, 1), (3, 3, 3)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2), (1, 2, 2)])
def test_an_octave_convolution_computes_the_same_on_channels_last_pairs(octave, kernel, stride):
    conv = OctConv3d(
        8, 12, kernel, stride, tuple(k // 2 for k in kernel), alpha_in=0.25, alpha_out=0.5, octave=octave
    ).double()
    pair = split(torch.randn(2, 8, 5, 7, 6).double(), 0.25, octave)
    out = conv(pair.map(in_channels_last))
    for got, expected in zip(out.parts, conv(pair).parts, strict=True):
        torch.testing.assert_close(got, expected)
    assert is_channels_last(out.high)
    assert is_channels_last(out.low)


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool3d((2, 3, 3), (1, 2, 2)),
        nn.AvgPool3d((3, 1, 1), (2, 1, 1), (1, 0, 0)),
        nn.AvgPool3d((1, 7, 5), 1),
        nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        nn.MaxPool3d((3, 2, 1), (2, 2, 3), (1, 1, 0)),
        nn.MaxPool3d(1, (1, 2, 1)),
    ],
)
def test_poolings_through_2d_views(pool):
    for num_clips, size in ((1, (5, 9, 8)), (2, (4, 7, 11))):
        x = torch.randn(num_clips, 6, *size).double()
        out = planar_pool(pool)(in_channels_last(x))
        torch.testing.assert_close(out, pool(x))
        assert is_channels_last(out)
        assert torch.equal(planar_pool(pool)(x), pool(x))


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool3d(3, padding=1, count_include_pad=False),
        nn.AvgPool3d(2, ceil_mode=True),
        nn.MaxPool3d(2, return_indices=True),
        nn.MaxPool3d(2, dilation=2),
        nn.MaxPool2d(2),
    ],
)
def test_poolings_that_have_no_planar_layer(pool):
    assert planar_pool(pool) is None


@pytest.mark.parametrize("size", [(1, 3, 2), (2, 1, 3), (3, 4, 1), (1, 1, 1)])
@pytest.mark.parametrize("kernel", [(1, 1, 1), (1, 3, 3), (3, 1, 1)])
def test_gradients_through_a_batch_norm_after_it_on_axes_of_one_element(size, kernel):
    conv = nn.Conv3d(4, 6, kernel, padding=tuple(k // 2 for k in kernel)).double()
    norm, x = nn.BatchNorm3d(6).double(), torch.randn(3, 4, *size).double()
    results = []
    for convolve in (conv, octave_from_dense(conv, 0, 0)):
        leaf = (x if convolve is conv else in_channels_last(x)).requires_grad_()
        out = norm(convolve(leaf))
        results.append(torch.autograd.grad((out * torch.arange(out.numel()).view_as(out)).sum(), [leaf, conv.weight]))
    torch.testing.assert_close(*results)


def test_gradients_of_channels_last_maps():
    dense = nn.Conv3d(4, 6, (1, 3, 3), padding=(0, 1, 1)).double()
    ours = octave_from_dense(dense, 0, 0)
    x = torch.randn(2, 4, 3, 5, 5).double()
    results = []
    for conv, layout in ((dense, torch.contiguous_format), (ours, torch.channels_last_3d)):
        leaf = x.contiguous(memory_format=layout).requires_grad_()
        grads = torch.autograd.grad(conv(leaf).square().sum(), [leaf, conv.weight, conv.bias])
        results.append(grads)
    torch.testing.assert_close(*results)
