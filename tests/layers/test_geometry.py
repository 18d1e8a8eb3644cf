"""Kernels, paddings, strides and dilations of any kind, against a slow loop that goes by places."""

import random
from fractions import Fraction

import pytest
import torch
from torch import nn

from octvideo.layers import OctConv1d, OctConv2d, OctConv3d, OctPair, merge, octave_from_dense, split

ALPHAS = (0.1, 0.25, 0.5, 0.9, 1)


def slow_mean(x, window):
    size = -(-x.shape[-1] // window)
    return torch.stack([x[..., i * window : (i + 1) * window].mean(-1) for i in range(size)], -1)


def slow_path(x, weight, cell, places, dilation, repeat_border):
    """Every output at its place: the kernel's middle tap lies as near to it as whole cells allow."""
    taps, last = weight.shape[-1], x.shape[-1] - 1
    columns = []
    for place in places:  # in elements of the high input, of which a cell of x covers `cell`
        wanted = (place - Fraction(cell - 1, 2)) / cell - Fraction(dilation * (taps - 1), 2)
        start = min(range(-20, 60), key=lambda s: (abs(s - wanted), -s))
        column = 0
        for tap in range(taps):
            at = start + tap * dilation
            if repeat_border:
                at = min(max(at, 0), last)
            if 0 <= at <= last:
                column = column + x[..., at] @ weight[..., tap].T
        columns.append(column if isinstance(column, torch.Tensor) else x.new_zeros(x.shape[0], weight.shape[0]))
    return torch.stack(columns, -1)


def oracle(pair, weight, alpha_out, kernel, stride, padding, dilation, size):
    """The paper's equations along one axis, path by path."""
    high_in = pair.high.shape[1]
    low_out = int(alpha_out * weight.shape[0] + 1e-9)
    rows = {"h": weight[: weight.shape[0] - low_out], "l": weight[weight.shape[0] - low_out :]}
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    shift = Fraction(dilation * (kernel - 1), 2) - padding
    high_places = [i * stride + shift for i in range(outputs)]
    low_places = [
        sum(high_places[2 * j : 2 * j + 2]) / 2 if 2 * j + 1 < outputs else high_places[2 * j] + Fraction(stride, 2)
        for j in range(-(-outputs // 2))
    ]
    # A pooled high input: stride elements a cell. All else runs on cells of 2 (L->H at stride 1) or 2 * stride.
    args = (dilation, padding == 0)
    pooled = slow_mean(pair.high, stride)
    y_high = slow_path(pooled, rows["h"][:, :high_in], stride, high_places, *args)
    lh = rows["h"][:, high_in:]
    if stride == 1:
        y_high = y_high + slow_path(pair.low, lh, 2, low_places, *args).repeat_interleave(2, -1)[..., :outputs]
    else:
        half = slow_mean(pair.low, stride // 2)
        y_high = y_high + slow_path(half, lh, stride, high_places, *args)
    y_low = slow_path(slow_mean(pooled, 2), rows["l"][:, :high_in], 2 * stride, low_places, *args)
    y_low = y_low + slow_path(slow_mean(pair.low, stride), rows["l"][:, high_in:], 2 * stride, low_places, *args)
    return y_high, y_low


def cases(number):
    draw = random.Random(0)
    while number:
        kernel, stride, dilation = draw.randint(1, 6), draw.choice((1, 1, 2, 4)), draw.choice((1, 1, 2))
        reach = dilation * (kernel - 1)
        padding, size = draw.randint(0, reach), draw.randint(1, 14)
        if size + 2 * padding > reach:
            number -= 1
            yield kernel, stride, padding, dilation, size, draw.choice(ALPHAS), draw.choice((0.25, 0.5, 1))


@pytest.mark.parametrize("case", list(cases(150)), ids=str)
def test_any_kernel_equals_the_slow_loop(case):
    kernel, stride, padding, dilation, size, alpha_in, alpha_out = case
    conv = OctConv1d(
        10, 8, kernel, stride, padding, dilation, bias=False, alpha_in=alpha_in, alpha_out=alpha_out
    ).double()
    pair = split(torch.randn(2, 10, size, dtype=torch.float64), alpha_in, "temporal")
    out = conv(pair)
    high, low = oracle(pair, conv.weight, alpha_out, kernel, stride, padding, dilation, size)
    torch.testing.assert_close(out.low, low)
    torch.testing.assert_close(out.high, high if out.high.shape[1] else high[:, :0])


@pytest.mark.parametrize("kernel", [2, 4, (2, 3), (1, 4), (5, 2)])
@pytest.mark.parametrize("padding", [0, 1, "same", "valid", (0, 1), (1, 0)])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_size_is_the_dense_one_and_what_is_constant_stays(kernel, padding, stride):
    """Even kernels and valid paddings on images: constant input gives the dense output wherever padding is not zero."""
    if padding == "same" and stride == 2:
        pytest.skip("torch has no strided convolution with padding 'same'")
    mode = "zeros" if padding in (0, "valid") else "replicate"
    if padding in ((0, 1), (1, 0)):  # zeros on one axis only: they do not reach the middle of the other
        dense = nn.Conv2d(6, 8, kernel, stride, padding).double()
        x = torch.randn(2, 6, 1, 1, dtype=torch.float64).expand(-1, -1, 25, 24)
        out = merge(octave_from_dense(dense, 0.5, 0.25)(split(x, 0.5)))
        inside = (..., slice(8, -8)) if padding == (0, 1) else (..., slice(4, -4), slice(None))
        torch.testing.assert_close(out[inside], dense(x)[inside])
        return
    dense = nn.Conv2d(6, 8, kernel, stride, padding, padding_mode=mode).double()
    x = torch.randn(2, 6, 1, 1, dtype=torch.float64).expand(-1, -1, 9, 12)
    out = octave_from_dense(dense, 0.5, 0.25)(split(x, 0.5))
    torch.testing.assert_close(merge(out), dense(x))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 10), (5, 1)])
def test_strided_down_sampling_equals_subsampled_convolutions(stride, size):
    """Every path is the ordinary convolution of its input, of which every second (fourth) output is kept."""
    conv = OctConv2d(6, 8, 3, stride, 1, bias=False, alpha_in=0.5, alpha_out=0.25, down_sampling="strided").double()
    pair = split(torch.randn(1, 6, *size, dtype=torch.float64), 0.5)
    full = lambda x, rows, columns: nn.functional.conv2d(x, conv.weight[rows, columns], padding=1)  # noqa: E731
    out, h, n = conv(pair), slice(0, 3), slice(3, 6)
    low = full(pair.high, slice(6, 8), h)[..., :: 2 * stride, :: 2 * stride]
    low = low + full(pair.low, slice(6, 8), n)[..., ::stride, ::stride]
    high = full(pair.high, slice(0, 6), h)[..., ::stride, ::stride]
    from_low = full(pair.low, slice(0, 6), n)
    if stride == 1:
        from_low = from_low.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., : size[0], : size[1]]
    torch.testing.assert_close(out.high, high + from_low)
    torch.testing.assert_close(out.low, low)


@pytest.mark.parametrize(
    ("exchange", "silent"),
    [("none", ["hl", "lh"]), ("high_to_low", ["lh"]), ("low_to_high", ["hl"]), ("both", [])],
)
def test_a_path_that_is_switched_off_adds_nothing(exchange, silent):
    conv = OctConv3d(8, 8, 3, padding=1, alpha_in=0.5, alpha_out=0.5, exchange=exchange)
    both = OctConv3d(8, 8, 3, padding=1, alpha_in=0.5, alpha_out=0.5)
    both.load_state_dict(conv.state_dict())
    with torch.no_grad():
        for path, rows, columns in (("hl", slice(4, 8), slice(0, 4)), ("lh", slice(0, 4), slice(4, 8))):
            if path in silent:
                both.weight[rows, columns] = 0
    pair = split(torch.randn(1, 8, 2, 5, 6), 0.5)
    for got, expected in zip(conv(pair).parts, both(pair).parts, strict=True):
        torch.testing.assert_close(got, expected)
    assert (f"exchange={exchange}" in repr(conv)) == (exchange != "both")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exchange": "some"}, "exchange must be one of both, high_to_low, low_to_high, none; got 'some'"),
        ({"down_sampling": "max"}, "down_sampling must be one of average, strided; got 'max'"),
        ({"alpha_in": 0, "exchange": "none"}, "exchange 'none' leaves the low output without an input"),
        ({"alpha_in": 1, "exchange": "high_to_low"}, "leaves the high output without an input"),
        ({"out_segments": ((3, 3),)}, "out_segments .* do not add up to 8 output channels"),
    ],
)
def test_wrong_options_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        OctConv3d(8, 8, 3, padding=1, **{"alpha_in": 0.5, "alpha_out": 0.5, **arguments})


def test_one_dimension_equals_three():
    conv3 = OctConv3d(10, 20, (3, 1, 1), (2, 1, 1), (1, 0, 0), alpha_in=0.3, alpha_out=0.25, octave="temporal")
    conv1 = OctConv1d(10, 20, 3, 2, 1, alpha_in=0.3, alpha_out=0.25)
    conv1.load_state_dict({"weight": conv3.weight[..., 0, 0], "bias": conv3.bias})
    x = split(torch.randn(2, 10, 7, 1, 1), 0.3, "temporal")
    for a, b in zip(conv3(x).parts, conv1(OctPair(x.high[..., 0, 0], x.low[..., 0, 0])).parts, strict=True):
        torch.testing.assert_close(a[..., 0, 0], b)
    with pytest.raises(ValueError, match=r"'spatial' exists for 2-D, 3-D convolutions; got a 1-D one"):
        OctConv1d(4, 4, 1, alpha_in=0.5, alpha_out=0.5, octave="spatial")
