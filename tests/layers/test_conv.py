"""OctConv3d against an independent slow loop in float64, and against torch's own convolution."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from octvideo.layers import OctConv2d, OctConv3d, OctPair, concat, merge, octave_from_dense, split

FACTORS = {"spatial": (1, 2, 2), "temporal": (2, 1, 1), "spatiotemporal": (2, 2, 2)}
ALPHAS = (0.1, 0.125, 0.2, 0.25, 0.3, 0.5, 0.75, 0.9, 1)


def slow_mean(x, window):
    """Mean over windows that start at multiples of `window`; those at the end hold what is there."""
    size = [math.ceil(n / w) for n, w in zip(x.shape[2:], window, strict=True)]
    out = x.new_zeros(*x.shape[:2], *size)
    for t in range(size[0]):
        for h in range(size[1]):
            for w in range(size[2]):
                piece = x[:, :, t * window[0] : (t + 1) * window[0], h * window[1] : (h + 1) * window[1]]
                out[:, :, t, h, w] = piece[..., w * window[2] : (w + 1) * window[2]].flatten(2).mean(2)
    return out


def slow_conv(x, weight, stride, padding):
    """A convolution by its definition: one output position at a time."""
    n, c, *size = x.shape
    padded = x.new_zeros(n, c, *(s + 2 * p for s, p in zip(size, padding, strict=True)))
    padded[(..., *(slice(p, p + s) for s, p in zip(size, padding, strict=True)))] = x
    kernel = weight.shape[2:]
    out_size = [(m - k) // s + 1 for m, k, s in zip(padded.shape[2:], kernel, stride, strict=True)]
    out = x.new_zeros(n, weight.shape[0], *out_size)
    for t in range(out_size[0]):
        for h in range(out_size[1]):
            for w in range(out_size[2]):
                corner = [i * s for i, s in zip((t, h, w), stride, strict=True)]
                patch = padded[(..., *(slice(c0, c0 + k) for c0, k in zip(corner, kernel, strict=True)))]
                out[:, :, t, h, w] = torch.einsum("ncthw,octhw->no", patch, weight)
    return out


def slow_repeat(x, size, factors):
    """Nearest up-sampling: the element at position i is the one at i // factor."""
    out = x.new_zeros(*x.shape[:2], *size)
    for t in range(size[0]):
        for h in range(size[1]):
            for w in range(size[2]):
                source = [i // f for i, f in zip((t, h, w), factors, strict=True)]
                out[:, :, t, h, w] = x[:, :, source[0], source[1], source[2]]
    return out


def oracle(high, low, weight, bias, alpha_out, stride, padding, factors):
    """The paper's equations, path by path; stride 2 on an octave axis pools first."""
    c_out, low_out, c_high = weight.shape[0], math.floor(alpha_out * weight.shape[0] + 1e-9), high.shape[1]
    high_out = c_out - low_out
    pool = [s if f > 1 else 1 for s, f in zip(stride, factors, strict=True)]
    rest = [1 if f > 1 else s for s, f in zip(stride, factors, strict=True)]
    pooled = slow_mean(high, pool)
    b = torch.zeros(c_out, dtype=weight.dtype) if bias is None else bias
    b = b.view(1, -1, 1, 1, 1)
    y_high, y_low = b[:, :high_out], b[:, high_out:]
    if c_high:
        y_high = y_high + slow_conv(pooled, weight[:high_out, :c_high], rest, padding)
        y_low = y_low + slow_conv(slow_mean(pooled, factors), weight[high_out:, :c_high], rest, padding)
    if low.shape[1]:
        up = slow_conv(low, weight[:high_out, c_high:], rest, padding)
        size = [p if f > 1 else u for p, u, f in zip(pooled.shape[2:], up.shape[2:], factors, strict=True)]
        y_high = y_high + slow_repeat(up, size, [f if s == 1 else 1 for f, s in zip(factors, stride, strict=True)])
        y_low = y_low + slow_conv(slow_mean(low, pool), weight[high_out:, c_high:], rest, padding)
    return y_high, y_low


def random_pair(channels, alpha, size, octave):
    return split(torch.randn(2, channels, *size, dtype=torch.float64), alpha, octave) if alpha else None


def assert_equals_the_oracle(octave, alpha_in, alpha_out, size, stride, kernel, bias=True):
    padding = tuple(k // 2 for k in kernel)
    conv = OctConv3d(
        10, 20, kernel, stride, padding, bias=bias, alpha_in=alpha_in, alpha_out=alpha_out, octave=octave
    ).double()
    x = random_pair(10, alpha_in, size, octave)
    dense = torch.randn(2, 10, *size, dtype=torch.float64)
    high, low = x.parts if x is not None else (dense, dense[:, :0])
    expected_high, expected_low = oracle(high, low, conv.weight, conv.bias, alpha_out, stride, padding, FACTORS[octave])
    out = conv(x if x is not None else dense)
    got_high, got_low = out.parts if isinstance(out, OctPair) else (out, out[:, :0])
    if got_high.shape[1]:
        torch.testing.assert_close(got_high, expected_high)
    if got_low.shape[1]:
        torch.testing.assert_close(got_low, expected_low)
    assert got_high.shape[1] + got_low.shape[1] == 20


@pytest.mark.parametrize("octave", FACTORS)
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 1, 1), (2, 2, 2)])
def test_value_equals_the_slow_loop(octave, alpha, stride):
    assert_equals_the_oracle(octave, alpha, alpha, (4, 4, 6), stride, (3, 3, 3))


@pytest.mark.parametrize("octave", FACTORS)
@pytest.mark.parametrize("size", [(3, 5, 7), (1, 1, 1), (5, 4, 3), (2, 7, 1)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("kernel", [(3, 1, 1), (1, 3, 3), (1, 1, 1)])
def test_odd_sizes_equal_the_slow_loop(octave, size, stride, kernel):
    assert_equals_the_oracle(octave, 0.3, 0.3, size, stride, kernel)


@pytest.mark.parametrize("alpha_in", [0, 0.25, 0.9, 1])
@pytest.mark.parametrize("alpha_out", [0, 0.1, 0.5, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_independent_alphas_equal_the_slow_loop(alpha_in, alpha_out, bias):
    if alpha_in or alpha_out:
        assert_equals_the_oracle("spatial", alpha_in, alpha_out, (2, 5, 6), (1, 2, 2), (3, 3, 3), bias)
    else:
        assert isinstance(OctConv3d(4, 4, 1, alpha_in=0, alpha_out=0)(torch.zeros(1, 4, 1, 2, 2)), torch.Tensor)


@pytest.mark.parametrize("stride", [4, 8])
def test_long_temporal_stride_under_a_temporal_octave(stride):
    """SlowFast's lateral connections: the high part pools by the stride, the low part is half as long already."""
    conv = OctConv3d(
        8, 16, (5, 1, 1), (stride, 1, 1), (2, 0, 0), bias=False, alpha_in=0.5, alpha_out=0.5, octave="temporal"
    ).double()
    x = random_pair(8, 0.5, (32, 2, 3), "temporal")
    out = conv(x)
    pooled_high, pooled_low = slow_mean(x.high, (stride, 1, 1)), slow_mean(x.low, (stride // 2, 1, 1))
    high = slow_conv(pooled_high, conv.weight[:8, :4], (1, 1, 1), (2, 0, 0)) + slow_conv(
        pooled_low, conv.weight[:8, 4:], (1, 1, 1), (2, 0, 0)
    )
    torch.testing.assert_close(out.high, high)
    assert out.low.shape == (2, 8, 32 // stride // 2, 2, 3)


@pytest.mark.parametrize("mode", ["zeros", "replicate", "reflect", "circular"])
def test_alpha_zero_is_torch_bit_for_bit(mode):
    torch.manual_seed(1)
    dense = nn.Conv3d(6, 9, (3, 3, 3), (1, 2, 2), 1, padding_mode=mode)
    ours = octave_from_dense(dense, 0, 0)
    x = torch.randn(2, 6, 4, 7, 9)
    assert torch.equal(ours(x), dense(x))


@pytest.mark.parametrize("octave", FACTORS)
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("stride", [1, 2])
def test_constant_input_gives_the_dense_output(octave, alpha, stride):
    """The four paths together hold the whole dense weight: where there is nothing to blur, nothing is lost."""
    dense = nn.Conv3d(10, 20, 3, stride, 1, padding_mode="replicate").double()
    ours = octave_from_dense(dense, alpha, alpha, octave)
    x = torch.randn(2, 10, 1, 1, 1, dtype=torch.float64).expand(-1, -1, 5, 6, 7)
    torch.testing.assert_close(merge(ours(split(x, alpha, octave))), dense(x))


@pytest.mark.parametrize("octave", FACTORS)
def test_gradients(octave):
    conv = OctConv3d(4, 6, 3, 2, 1, alpha_in=0.5, alpha_out=0.25, octave=octave).double()
    high, low = (t.detach().requires_grad_() for t in random_pair(4, 0.5, (3, 4, 5), octave).parts)
    parameters = tuple(conv.parameters())

    def run(high, low, *_):
        return conv(OctPair(high, low)).parts

    assert torch.autograd.gradcheck(run, (high, low, *parameters))


def test_every_weight_gets_a_gradient():
    conv = OctConv3d(10, 20, 3, padding=1, alpha_in=0.3, alpha_out=0.3)
    out = conv(split(torch.randn(1, 10, 2, 4, 4), 0.3))
    (out.high.square().sum() + out.low.square().sum()).backward()
    assert (conv.weight.grad != 0).all()
    assert (conv.bias.grad != 0).all()


def test_state_dict_is_the_dense_one():
    dense, ours = nn.Conv3d(10, 20, 3), OctConv3d(10, 20, 3, padding=1, alpha_in=0.1, alpha_out=0.7)
    ours.load_state_dict(dense.state_dict())
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in dense.state_dict().items()}
    assert torch.equal(pickle.loads(pickle.dumps(ours)).weight, dense.weight)
    assert torch.equal(copy.deepcopy(ours).weight, dense.weight)


def test_groups_run_on_all_four_paths():
    conv = OctConv3d(8, 16, (1, 3, 3), padding=(0, 1, 1), groups=2, bias=False, alpha_in=0.5, alpha_out=0.5).double()
    x = random_pair(8, 0.5, (1, 4, 4), "spatial")
    weights = {"hh": conv.weight[:8, :2], "lh": conv.weight[:8, 2:]}
    high = torch.cat(
        [
            slow_conv(x.high[:, 2 * g : 2 * g + 2], weights["hh"][4 * g : 4 * g + 4], (1,) * 3, (0, 1, 1))
            for g in (0, 1)
        ],
        dim=1,
    )
    low = torch.cat(
        [slow_conv(x.low[:, 2 * g : 2 * g + 2], weights["lh"][4 * g : 4 * g + 4], (1,) * 3, (0, 1, 1)) for g in (0, 1)],
        dim=1,
    )
    torch.testing.assert_close(conv(x).high, high + slow_repeat(low, (1, 4, 4), (1, 2, 2)))


def test_a_dense_grouped_convolution_keeps_its_meaning():
    """Where the input's channels are split group by group: on constant input the octave gives the dense output."""
    dense = nn.Conv3d(12, 24, 3, padding=1, groups=3, padding_mode="replicate").double()
    conv = octave_from_dense(dense, 0.5, 0.25, out_segments=((6, 2),) * 3)
    x = torch.randn(1, 12, 1, 1, 1, dtype=torch.float64).expand(-1, -1, 2, 4, 6)
    groups = [split(part, 0.5) for part in x.split(4, dim=1)]
    out = conv(concat(groups))
    torch.testing.assert_close(merge(out), dense(x))
    assert (out.high.shape[1], out.low.shape[1]) == (18, 6)
    with pytest.raises(ValueError, match="3 groups need as many equal runs of .high, low. channels; got"):
        conv(concat([split(x[:, :6], 0.5), split(x[:, 6:], 0.5)]))


def test_depthwise_exchanges_nothing():
    dense = nn.Conv3d(8, 8, 3, padding=1, groups=8)
    conv = octave_from_dense(dense, 0.25, 0.25)
    x = split(torch.randn(1, 8, 3, 6, 6), 0.25)
    out = conv(x)
    torch.testing.assert_close(out.high, dense(torch.cat([x.high, x.high[:, :2]], 1))[:, :6])
    torch.testing.assert_close(out.low, dense(torch.cat([x.low, x.low, x.low, x.low], 1))[:, 6:])


def test_segments_keep_the_dense_order_after_a_concatenation():
    """Two maps of 6 and 4 channels side by side: every dense weight column must meet its own channel."""
    dense = nn.Conv3d(10, 8, 1).double()
    maps = [torch.randn(1, c, 1, 1, 1, dtype=torch.float64).expand(-1, -1, 2, 4, 4) for c in (6, 4)]
    pairs = [split(m, 0.5) for m in maps]
    conv = octave_from_dense(
        dense,
        0.5,
        0.5,
    )
    torch.testing.assert_close(merge(conv(concat(pairs))), dense(torch.cat(maps, 1)))
    torch.testing.assert_close(merge(concat(pairs)), torch.cat(maps, 1))


def test_2d_equals_3d_on_one_frame():
    conv3 = OctConv3d(10, 20, (1, 3, 3), (1, 2, 2), (0, 1, 1), alpha_in=0.3, alpha_out=0.25)
    conv2 = OctConv2d(10, 20, 3, 2, 1, alpha_in=0.3, alpha_out=0.25)
    conv2.load_state_dict({"weight": conv3.weight[:, :, 0], "bias": conv3.bias})
    x = split(torch.randn(2, 10, 1, 7, 5), 0.3)
    for a, b in zip(conv3(x).parts, conv2(OctPair(x.high[:, :, 0], x.low[:, :, 0])).parts, strict=True):
        torch.testing.assert_close(a[:, :, 0], b)


def test_bfloat16_autocast_on_the_cpu():
    conv = OctConv3d(10, 20, 3, 2, 1, alpha_in=0.3, alpha_out=0.3)
    x = split(torch.randn(1, 10, 4, 6, 6), 0.3)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(OctPair(x.high.bfloat16(), x.low.bfloat16()))
    assert out.high.dtype == torch.bfloat16
    torch.testing.assert_close(out.low.float(), conv(x).low, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha_in": 1.2}, "alpha_in is the low-frequency share.*got 1.2"),
        ({"alpha_out": -0.1}, "alpha_out.*got -0.1"),
        ({"alpha_out": float("nan")}, "alpha_out.*got nan"),
        ({"octave": "spacial"}, "octave must be one of spatial, temporal.*got 'spacial'"),
        ({"stride": 3}, "octave axis H the stride must be 1 or even; got 3"),
        ({"groups": 4}, "groups 4 must divide each part's channels"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    arguments = {"alpha_in": 0.25, "alpha_out": 0.25, "padding": 1, **arguments}
    with pytest.raises(ValueError, match=message):
        OctConv3d(20, 20, 3, **arguments)


def test_a_tensor_of_the_wrong_shape_is_named():
    first = OctConv3d(8, 8, 3, padding=1, alpha_in=0, alpha_out=0.25)
    for shape in ((1, 7, 2, 4, 4), (1, 9, 2, 4, 4), (8, 2, 4, 4)):
        with pytest.raises(ValueError, match=r"the input must be \(N, 8, T, H, W\); got"):
            first(torch.zeros(shape))
    for in_low in (-1, 9):
        with pytest.raises(ValueError, match=f"in_low must be from 0 to the 8 input channels; got {in_low}"):
            OctConv3d(8, 8, 3, padding=1, alpha_in=0.5, alpha_out=0.5, in_low=in_low)


def test_depthwise_after_a_concatenation_keeps_each_channels_filter():
    conv = OctConv3d(8, 8, 3, padding=1, groups=8, padding_mode="replicate", alpha_in=0.5, alpha_out=0.5).double()
    dense = nn.Conv3d(8, 8, 3, padding=1, groups=8, padding_mode="replicate").double()
    dense.load_state_dict(conv.state_dict())
    maps = [torch.randn(1, 4, 1, 1, 1, dtype=torch.float64).expand(-1, -1, 2, 4, 4) for _ in (1, 2)]
    torch.testing.assert_close(merge(conv(concat([split(m, 0.5) for m in maps]))), dense(torch.cat(maps, 1)))


def test_a_changed_stride_or_dilation_counts():
    conv = OctConv3d(8, 8, 3, padding=1, alpha_in=0.5, alpha_out=0.5)
    conv.dilation, conv.padding = (2, 2, 2), (2, 2, 2)
    same = OctConv3d(8, 8, 3, padding=2, dilation=2, alpha_in=0.5, alpha_out=0.5)
    same.load_state_dict(conv.state_dict())
    pair = split(torch.randn(1, 8, 4, 8, 8), 0.5)
    torch.testing.assert_close(merge(conv(pair)), merge(same(pair)))


@pytest.mark.parametrize(
    ("make_input", "message"),
    [
        (lambda: torch.zeros(1, 8, 2, 4, 4), "needs an octave pair of 6 high and 2 low.*got a tensor"),
        (lambda: split(torch.zeros(1, 8, 2, 4, 4), 0.5), "the high part must be .N, 6"),
        (lambda: OctPair(torch.zeros(1, 6, 2, 4, 4), torch.zeros(1, 2, 2, 4, 4)), "low part of a pair.*size .2, 2, 2."),
        (lambda: OctPair(torch.zeros(2, 6, 2, 4, 4), torch.zeros(1, 2, 2, 2, 2)), "low part.*the same batch"),
    ],
)
def test_wrong_pairs_are_named(make_input, message):
    conv = OctConv3d(8, 8, 3, padding=1, alpha_in=0.25, alpha_out=0.25)
    with pytest.raises(ValueError, match=message):
        conv(make_input())
