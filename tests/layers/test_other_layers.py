"""Transposed convolution, drop path, and the non-local block over pairs."""

import pytest
import torch
import torch.nn.functional as F
from pytorchvideo.layers.drop_path import DropPath
from pytorchvideo.layers.nonlocal_net import create_nonlocal
from torch import nn
from torchvision.ops import StochasticDepth

from octvideo import octavize
from octvideo.layers import (
    OctConvTranspose1d,
    OctConvTranspose2d,
    OctConvTranspose3d,
    OctNonLocal,
    OctPair,
    PairDropPath,
    avg_pool,
    merge,
    pair_layer,
    split,
)


@pytest.mark.parametrize(("alpha_in", "alpha_out"), [(0.5, 0.25), (0, 0.5), (0.25, 0), (1, 0.5), (0.5, 1), (0.1, 0.9)])
@pytest.mark.parametrize("size", [(4, 6), (3, 5), (1, 1)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "extra"), [(4, 2, 1, 0), (2, 2, 0, 0), (3, 1, 1, 0), (3, 2, 1, 1)]
)
def test_transposed_convolution_equals_its_paths(alpha_in, alpha_out, size, kernel, stride, padding, extra):
    """Each path by torch's own transposed convolution with its slice of the weight, dense weights (C_in, C_out)."""
    conv = OctConvTranspose2d(10, 8, kernel, stride, padding, extra, alpha_in=alpha_in, alpha_out=alpha_out).double()
    x = torch.randn(2, 10, *size, dtype=torch.float64)
    pair = split(x, alpha_in) if alpha_in else OctPair(x, x.new_zeros(2, 0, *(-(-n // 2) for n in size)))
    high_in, high_out = pair.high.shape[1], 8 - int(8 * alpha_out)

    def path(part, rows, columns):
        if not part.shape[1] or not conv.weight[rows, columns].shape[1]:
            return part.new_zeros(2, conv.weight[rows, columns].shape[1], *(stride * n for n in part.shape[2:]))
        return F.conv_transpose2d(part, conv.weight[rows, columns], None, stride, padding, extra)

    h_in, l_in, h_out, l_out = slice(high_in), slice(high_in, 10), slice(high_out), slice(high_out, 8)
    grown = [stride * n for n in size]
    pooled = avg_pool(pair.high, (2, 2))
    up = path(pair.low, l_in, h_out).repeat_interleave(2, 2).repeat_interleave(2, 3)[..., : grown[0], : grown[1]]
    high = path(pair.high, h_in, h_out) + up + conv.bias[h_out].view(-1, 1, 1)
    low = path(pooled, h_in, l_out) + path(pair.low, l_in, l_out) + conv.bias[l_out].view(-1, 1, 1)
    low = low[..., : -(-grown[0] // 2), : -(-grown[1] // 2)]
    out = conv(pair if alpha_in else x)
    if alpha_out:
        torch.testing.assert_close(out.low, low)
        assert out.high.shape[2:] == tuple(grown)
    torch.testing.assert_close(out.high if alpha_out else out, high)


def test_transposed_convolution_in_one_and_three_dimensions():
    conv3 = OctConvTranspose3d(8, 6, (4, 1, 1), (2, 1, 1), (1, 0, 0), alpha_in=0.5, alpha_out=0.5, octave="temporal")
    conv1 = OctConvTranspose1d(8, 6, 4, 2, 1, alpha_in=0.5, alpha_out=0.5)
    conv1.load_state_dict({"weight": conv3.weight[..., 0, 0], "bias": conv3.bias})
    x = split(torch.randn(1, 8, 5, 1, 1), 0.5, "temporal")
    for a, b in zip(conv3(x).parts, conv1(x.map(lambda part: part[..., 0, 0])).parts, strict=True):
        torch.testing.assert_close(a[..., 0, 0], b)
    depthwise = OctConvTranspose2d(8, 8, 2, 2, groups=8, alpha_in=0.5, alpha_out=0.5)
    pair = split(torch.randn(1, 8, 4, 4), 0.5)
    expected = F.conv_transpose2d(pair.low, depthwise.weight[4:], depthwise.bias[4:], 2, groups=4)
    torch.testing.assert_close(depthwise(pair).low, expected)


def grown_by_groups(x, weight, groups):
    """Transposed convolution with kernel = stride = 2, number by number."""
    num_in, num_out = x.shape[1] // groups, weight.shape[1]
    out = x.new_zeros(len(x), groups * num_out, 2 * x.shape[2], 2 * x.shape[3])
    for i in range(x.shape[1]):
        for o in range(num_out):
            for dy in range(2):
                for dx in range(2):
                    out[:, i // num_in * num_out + o, dy::2, dx::2] += x[:, i] * weight[i, o, dy, dx]
    return out


@pytest.mark.parametrize(
    ("channels", "groups", "alpha_out"), [((8, 8), 2, 0.5), ((8, 4), 4, 0), ((8, 4), 4, 1), ((8, 4), 2, 0.5)]
)
def test_grouped_transposed_convolution(channels, groups, alpha_out):
    """Each path grouped: 4 -> 1 channels in a group are no depthwise convolution."""
    conv = OctConvTranspose2d(*channels, 2, 2, groups=groups, alpha_in=0.5, alpha_out=alpha_out).double()
    pair = split(torch.randn(2, 8, 4, 6, dtype=torch.float64), 0.5)
    high_out = round(conv.weight.shape[1] * (1 - alpha_out))
    to_high, to_low = conv.weight[:, :high_out], conv.weight[:, high_out:]
    up = grown_by_groups(pair.low, to_high[4:], groups).repeat_interleave(2, 2).repeat_interleave(2, 3)
    bias = conv.bias.view(-1, 1, 1)
    high = grown_by_groups(pair.high, to_high[:4], groups) + up + bias[: high_out * groups]
    low = grown_by_groups(avg_pool(pair.high, (2, 2)), to_low[:4], groups) + grown_by_groups(
        pair.low, to_low[4:], groups
    )
    out = conv(pair)
    torch.testing.assert_close(out.high if alpha_out else out, high)
    if alpha_out:
        torch.testing.assert_close(out.low, low + bias[high_out * groups :])


def test_groups_that_do_not_divide_the_parts_of_a_transposed_convolution():
    with pytest.raises(ValueError, match="groups 4 must divide each part's channels; got 2 high and 2 low ones"):
        OctConvTranspose2d(8, 4, 2, 2, groups=4, bias=False, alpha_in=0.5, alpha_out=0.5)


@pytest.mark.parametrize("segments", [((2, 2),), ((1, 1), (1, 1))])
def test_depthwise_transposed_convolution_with_a_multiplier(segments):
    """Channel by channel, wherever in the dense order the pair's runs put it."""
    conv = OctConvTranspose2d(4, 8, 2, 2, groups=4, alpha_in=0.5, alpha_out=0.5).double()
    pair = OctPair(torch.randn(1, 2, 4, 6).double(), torch.randn(1, 2, 2, 3).double(), segments)
    places = ([0, 1], [2, 3]) if len(segments) == 1 else ([0, 2], [1, 3])
    out = conv(pair)
    assert out.segments == tuple((2 * high, 2 * low) for high, low in segments)
    for ours, part, rows in zip(out.parts, pair.parts, places, strict=True):
        biases = conv.bias.unflatten(0, (4, 2))[rows].view(-1, 1, 1)
        torch.testing.assert_close(ours, grown_by_groups(part, conv.weight[rows], 2) + biases)


def test_transposed_convolution_at_alpha_zero_and_its_errors():
    dense = nn.ConvTranspose2d(4, 6, 3, 3)
    ours = OctConvTranspose2d(4, 6, 3, 3, alpha_in=0, alpha_out=0)
    ours.load_state_dict(dense.state_dict())
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(ours(x, output_size=(16, 17)), dense(x, output_size=(16, 17)))
    with pytest.raises(ValueError, match="on octave axis H: the output must be stride 2 times as large; kernel 3"):
        OctConvTranspose2d(4, 6, 3, 2, 1, alpha_in=0.5, alpha_out=0.5)
    up = OctConvTranspose2d(4, 6, 2, 2, alpha_in=0.5, alpha_out=0.5)
    with pytest.raises(ValueError, match="output_size cannot be given for an octave pair"):
        up(split(x, 0.5), output_size=(9, 9))
    with pytest.raises(ValueError, match="needs an octave pair of 2 high and 2 low channels; got a tensor"):
        up(x)
    with pytest.raises(ValueError, match="the high part must be .N, 2, H, W.; got .1, 3, 5, 5."):
        up(split(x, 0.25))


@pytest.mark.parametrize("layer", [StochasticDepth(0.5, "row"), DropPath(0.5), StochasticDepth(0.5, "batch")])
def test_drop_path_drops_both_parts_of_a_sample(layer):
    drop = pair_layer(layer)
    assert isinstance(drop, PairDropPath)
    pair = split(torch.ones(64, 4, 2, 4, 4), 0.5)
    high, low = drop.train()(pair).parts
    values = high.flatten(1)[:, 0]
    assert torch.equal(values.view(-1, 1, 1, 1, 1).expand_as(high), high)
    assert torch.equal(values, low.flatten(1)[:, 0])
    assert set(values.tolist()) <= {0.0, 2.0}
    assert drop.eval()(pair).high.eq(1).all()
    assert drop(pair.high) is pair.high


class WithNonLocal(nn.Module):
    def __init__(self, instantiation, pool):
        super().__init__()
        self.stem = nn.Conv3d(3, 8, 1)
        self.widen = nn.Conv3d(8, 16, 1)
        self.attend = create_nonlocal(dim_in=16, dim_inner=8, pool_size=pool, instantiation=instantiation)
        self.last = nn.Conv3d(16, 4, 1)

    def forward(self, x):
        return self.last(self.attend(self.widen(self.stem(x))).relu())


@pytest.mark.parametrize("octave", ["spatial", "temporal", "spatiotemporal"])
@pytest.mark.parametrize(("instantiation", "pool"), [("softmax", (1, 2, 2)), ("dot_product", None)])
def test_non_local_block_equals_the_dense_one_on_constant_maps(octave, instantiation, pool):
    model = WithNonLocal(instantiation, pool).double().eval()
    nn.init.uniform_(model.attend.norm.weight, 0.5, 1)
    x = torch.randn(2, 3, 1, 1, 1, dtype=torch.float64).expand(-1, -1, 4, 6, 7)
    expected, keys = model(x), list(model.state_dict())
    octavize(model, 0.25, octave)
    assert isinstance(model.attend, OctNonLocal)
    assert model.attend.conv_theta.alpha_in == model.attend.conv_out.alpha_out == 0.25
    torch.testing.assert_close(model(x), expected)
    assert list(model.state_dict()) == keys
    model.train()(torch.randn(2, 3, 4, 6, 7, dtype=torch.float64)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_non_local_block_attends_in_all_channels():
    """Against attention by its definition on the merged maps."""
    model = octavize(WithNonLocal("softmax", None).double().eval(), 0.5)
    block, pair = model.attend, split(torch.randn(1, 16, 2, 4, 4, dtype=torch.float64), 0.5)
    block.norm.weight.data.fill_(1)
    maps = [merge(conv(pair)).flatten(2) for conv in (block.conv_theta, block.conv_phi, block.conv_g)]
    theta, phi, g = (m[0].T for m in maps)  # (positions, 8)
    attended = torch.stack([(q @ phi.T / 8**0.5).softmax(0) @ g for q in theta]).T.reshape(1, 8, 2, 4, 4)
    inner = OctPair(attended[:, :4], F.avg_pool3d(attended[:, 4:], (1, 2, 2)))
    expected = pair + block.norm(block.conv_out(inner))
    for got, want in zip(block(pair).parts, expected.parts, strict=True):
        torch.testing.assert_close(got, want)
