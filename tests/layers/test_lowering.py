"""3-D convolution through 2-D views equals torch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from octvideo.layers import OctConv3d, octave_from_dense, split
from octvideo.layers.layout import own_convolutions, to_channels_last
from octvideo.layers.lowering import conv2d, conv3d, is_channels_last
from octvideo.layers.pool import planar_pool
from octvideo.models import resnet3d_tiny


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


@pytest.mark.parametrize(
    ("kernel", "size", "stride"),
    [
        ((5, 5, 5), (4, 8, 8), 1),
        ((5, 5, 5), (4, 8, 8), (1, 2, 2)),
        ((3, 3, 3), (2, 6, 6), 1),
        ((3, 3, 3), (1, 6, 6), 2),
        ((7, 1, 1), (4, 6, 6), 1),
        ((3, 1, 1), (1, 6, 6), (2, 1, 1)),
        ((3, 7, 7), (2, 2, 2), 1),
        ((1, 7, 7), (2, 2, 2), (1, 3, 3)),
        ((1, 3, 3), (4, 1, 1), 2),
        ((4, 3, 1), (2, 6, 6), 1),
        ((5, 5, 5), (2, 3, 9), 1),
        ((5, 3, 3), (6, 6, 6), 1),
    ],
)
@pytest.mark.parametrize(("channels", "groups"), [((3, 24), 1), ((16, 24), 1), ((8, 8), 8)])
@pytest.mark.parametrize("by_autocast", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
def test_gradients_in_bfloat16_on_maps_smaller_than_the_kernel(
    kernel, size, stride, channels, groups, by_autocast, layout
):
    """Against float64 on the same rounded values; torch's own are noise, another in each run."""
    x = torch.randn(2, channels[0], *size).bfloat16()
    weight = torch.randn(channels[1], channels[0] // groups, *kernel).bfloat16()
    stride = (stride,) * 3 if isinstance(stride, int) else stride
    padding = tuple(k // 2 for k in kernel)
    exact = [value.double().requires_grad_() for value in (x, weight)]
    expected = F.conv3d(*exact, None, stride, padding, groups=groups)
    pull = torch.randn_like(expected).bfloat16()
    kind = torch.float32 if by_autocast else torch.bfloat16
    given = [value.to(kind).contiguous(memory_format=layout).requires_grad_() for value in (x, weight)]
    with torch.autocast("cpu", torch.bfloat16, enabled=by_autocast):
        out = conv3d(*given, None, stride, padding, (1, 1, 1), groups)
    assert out.dtype == torch.bfloat16
    assert relative_error(out, expected) < 0.01
    theirs = torch.autograd.grad(expected, exact, pull.double())
    for ours, right in zip(torch.autograd.grad(out, given, pull), theirs, strict=True):
        assert relative_error(ours, right) < 0.01


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation"),
    [
        ((3, 2, 7), (5, 2, 3), (4, 1, 1), (5, 2, 3), (2, 3, 2)),
        ((7, 7, 7), (1, 1, 3), (1, 2, 2), (0, 0, 0), (1, 2, 3)),
        ((5, 7, 2), (3, 3, 3), (4, 2, 4), (2, 2, 1), (1, 1, 1)),
        ((9, 15, 13), (1, 2, 7), (1, 1, 2), (0, 0, 0), (3, 2, 2)),
        ((1, 5, 6), (1, 2, 3), (1, 4, 4), (0, 0, 0), (1, 1, 1)),
        ((9, 1, 5), (3, 1, 1), (4, 1, 1), (0, 0, 0), (4, 1, 1)),
        ((7, 3, 3), (1, 1, 1), (3, 4, 4), (0, 0, 2), (1, 1, 1)),
        ((9, 7, 1), (3, 1, 1), (4, 4, 1), (1, 2, 0), (4, 1, 1)),
        ((31, 21, 32), (7, 1, 1), (4, 4, 2), (0, 0, 0), (5, 1, 1)),
        ((5, 5, 28), (3, 1, 1), (3, 4, 2), (1, 0, 1), (1, 1, 1)),
        ((28, 21, 3), (1, 5, 2), (2, 1, 1), (0, 4, 0), (1, 2, 1)),
    ],
)
@pytest.mark.parametrize(("channels", "groups"), [((8, 24), 1), ((128, 33), 1), ((16, 8), 8)])
@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.01)])
def test_where_torch_is_wrong(size, kernel, stride, padding, dilation, channels, groups, layout, dtype, tolerance):
    """Against float64; torch reads and writes beyond its memory, which at times ends the process."""
    x = torch.randn(2, channels[0], *size, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(channels[1], channels[0] // groups, *kernel, dtype=dtype).requires_grad_()
    exact = [value.detach().double().requires_grad_() for value in (x, weight)]
    options = stride, padding, dilation, groups
    out, expected = conv3d(x, weight, None, *options), F.conv3d(*exact, None, *options)
    assert out.shape == expected.shape
    assert relative_error(out, expected) < tolerance
    pull = torch.randn_like(expected).to(dtype)
    theirs = torch.autograd.grad(expected, exact, pull.double())
    for ours, right in zip(torch.autograd.grad(out, (x, weight), pull), theirs, strict=True):
        assert relative_error(ours, right) < tolerance
    with torch.no_grad():
        assert torch.equal(conv3d(x, weight, None, *options), out)


@pytest.mark.parametrize(("kernel", "size"), [((3, 3), (1, 1)), ((5, 5), (2, 3)), ((1, 3), (4, 3))])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_images_in_bfloat16_where_torch_is_wrong(kernel, size, layout):
    weight = torch.randn(24, 16, *kernel).bfloat16().requires_grad_()
    x = torch.randn(2, 16, *size).bfloat16().contiguous(memory_format=layout).requires_grad_()
    exact = [value.detach().double().requires_grad_() for value in (x, weight)]
    options = (2, 2), tuple(k // 2 for k in kernel), (1, 1)
    out, expected = conv2d(x, weight, None, *options), F.conv2d(*exact, None, *options)
    assert relative_error(out, expected) < 0.01
    pull = torch.randn_like(expected).bfloat16()
    theirs = torch.autograd.grad(expected, exact, pull.double())
    for ours, right in zip(torch.autograd.grad(out, (x, weight), pull), theirs, strict=True):
        assert relative_error(ours, right) < 0.01


def relative_error(value, expected):
    return float((value.double() - expected).detach().norm() / expected.detach().norm())


@pytest.mark.parametrize("change", [to_channels_last, own_convolutions])
def test_the_stem_of_a_network_gets_its_gradient_in_bfloat16(change):
    """Clips of 4 frames before a kernel of 5, against float64 on what comes to the stem from both sides."""
    network = resnet3d_tiny(num_classes=4, alpha=0, dropout=0.0)
    stem = next(module for module in network.modules() if isinstance(module, nn.Conv3d))
    weight, clips, pulls = stem.weight, torch.randn(4, 3, 4, 32, 32), []
    plain = network(clips)
    network = change(network)
    if change is own_convolutions:
        assert torch.equal(network(clips), plain)
    stem = next(module for module in network.modules() if isinstance(module, nn.Conv3d))
    assert stem.weight is weight
    stem.register_forward_hook(lambda module, given, out: out.register_hook(pulls.append) and None)
    with torch.autocast("cpu", torch.bfloat16):
        network(clips).float().logsumexp(1).sum().backward()
    exact = weight.detach().double().requires_grad_()
    out = F.conv3d(clips.bfloat16().double(), exact, None, stem.stride, stem.padding)
    (expected,) = torch.autograd.grad(out, exact, pulls[0].double())
    assert relative_error(weight.grad, expected) < 0.01


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
        nn.AvgPool3d(3, 2, padding=1, count_include_pad=False),
        nn.AvgPool3d(2, ceil_mode=True),
        nn.AvgPool3d((3, 2, 3), (2, 2, 3), (1, 1, 0), ceil_mode=True),
        nn.AvgPool3d((2, 3, 2), 2, (1, 1, 1), ceil_mode=True, count_include_pad=False),
        nn.MaxPool3d((3, 2, 3), (2, 2, 3), (1, 1, 0), ceil_mode=True),
    ],
)
def test_poolings_through_2d_views(pool):
    for num_clips, size in ((1, (5, 9, 8)), (2, (4, 7, 11))):
        x = torch.randn(num_clips, 6, *size).double()
        out = planar_pool(pool)(in_channels_last(x))
        torch.testing.assert_close(out, pool(x))
        assert is_channels_last(out)
        assert torch.equal(planar_pool(pool)(x), pool(x))
        assert torch.equal(planar_pool(pool)(x[0]), pool(x[0]))
        in_half = planar_pool(pool)(x.bfloat16())  # torch pools no videos by means in this type
        torch.testing.assert_close(in_half, pool(x.bfloat16().double()).bfloat16(), rtol=0.02, atol=0.02)
    if isinstance(pool, nn.MaxPool3d):  # a clip without a batch
        assert torch.equal(planar_pool(pool)(x[0].bfloat16()), pool(x[0].bfloat16()))


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool3d(2, divisor_override=3),
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
