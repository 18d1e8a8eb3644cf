"""Pairs, and the layers that act on both parts."""

import copy
import itertools
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from octvideo.layers import (
    MergeInputs,
    OctBatchNorm3d,
    OctPair,
    PairPool,
    Pairwise,
    avg_pool,
    concat,
    low_channels,
    merge,
    octave_factors,
    pair_layer,
    split,
    upsample,
)


@pytest.mark.parametrize("tenths", range(11))
def test_the_channel_split_is_free_of_rounding_slips(tenths):
    for channels in range(1, 300):
        assert low_channels(channels, tenths / 10) == tenths * channels // 10


@pytest.mark.parametrize("factors", [(1, 2, 2), (2, 1, 1), (2, 2, 2), (4, 2, 2), (1, 1, 1), (8, 1, 1)])
@pytest.mark.parametrize("size", [(8, 6, 6), (5, 7, 9), (1, 1, 1), (3, 2, 1)])
def test_avg_pool_equals_torch_in_three_dimensions(factors, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    window = [min(f, n) for f, n in zip(factors, size, strict=True)]  # torch refuses a window larger than the map
    expected = F.avg_pool3d(x, window, factors, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(avg_pool(x, factors), expected)
    assert avg_pool(x[:, :0], factors).shape[2:] == expected.shape[2:]


@pytest.mark.parametrize("n", range(1, 40))
def test_upsample_repeats_every_element_and_crops(n):
    low = torch.arange(-(-n // 2), dtype=torch.float32).view(1, 1, 1, 1, -1)
    assert upsample(low, (1, 1, n)).flatten().tolist() == [i // 2 for i in range(n)]


def test_upsample_of_a_very_long_clip():
    low = torch.arange(50001, dtype=torch.float64).view(1, 1, -1, 1, 1)
    assert torch.equal(upsample(low, (100001, 1, 1)), low.repeat_interleave(2, 2)[:, :, :-1])


@pytest.mark.parametrize("octave", ["spatial", "temporal", "spatiotemporal"])
@pytest.mark.parametrize("alpha", [0, 0.25, 1])
def test_split_then_merge_keeps_a_map_that_is_constant_on_the_octave_axes(octave, alpha):
    x = torch.randn(2, 8, 1, 1, 1).expand(-1, -1, 3, 5, 4)
    assert torch.equal(merge(split(x, alpha, octave)), x)


@pytest.mark.parametrize("n", range(1, 17))
@pytest.mark.parametrize(
    "kind", [nn.MaxPool3d(2, 2), nn.MaxPool3d(3, 2, 1), nn.AvgPool3d(2, 2), nn.MaxPool3d(1, 2), nn.MaxPool3d(3, 1, 1)]
)
def test_pooled_pairs_stay_an_octave_apart(n, kind):
    if n == 1 and kind.kernel_size == 2:
        pytest.skip("torch pools no map that is smaller than its window")
    x = torch.randn(1, 4, n, n, n)
    out, low = PairPool(kind)(split(x, 0.5, "spatiotemporal")), split(x, 0.5, "spatiotemporal").low
    assert torch.equal(out.high, kind(x[:, :2]))
    size = tuple(-(-m // 2) for m in out.high.shape[2:])
    assert out.low.shape[2:] == size
    starts = [i * kind.stride - kind.padding for i in range(size[0])]
    window = [(start, start + kind.kernel_size) for start in starts]
    for t, h, w in itertools.product(range(size[0]), repeat=3):
        spans = [slice(max(window[i][0], 0), max(window[i][1], 1)) for i in (t, h, w)]
        cells = low[(..., *spans)].flatten(2)
        expected = cells.mean(2) if isinstance(kind, nn.AvgPool3d) else cells.amax(2)
        torch.testing.assert_close(out.low[:, :, t, h, w], expected)
    assert PairPool(kind)(split(x, 1, "spatiotemporal")).high.shape == (1, 0, *out.high.shape[2:])


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_keeps_one_set_of_statistics(momentum):
    """Each part is normalised as a dense norm of its own channels would."""
    ours = OctBatchNorm3d(6, momentum=momentum)
    nn.init.uniform_(ours.weight)
    parts = [nn.BatchNorm3d(4, momentum=momentum), nn.BatchNorm3d(2, momentum=momentum)]
    for part, channels in zip(parts, (slice(0, 4), slice(4, 6)), strict=True):
        part.weight.data, part.bias.data = ours.weight.data[channels], ours.bias.data[channels]
    for _ in range(3):
        pair = split(torch.randn(2, 6, 3, 4, 5), 0.34)
        for got, part, x in zip(ours(pair).parts, parts, pair.parts, strict=True):
            torch.testing.assert_close(got, part(x))
    torch.testing.assert_close(ours.running_mean, torch.cat([p.running_mean for p in parts]))
    torch.testing.assert_close(ours.running_var, torch.cat([p.running_var for p in parts]))
    assert ours.num_batches_tracked == 3
    ours.eval(), [p.eval() for p in parts]
    torch.testing.assert_close(ours(pair).low, parts[1](pair.low))


def test_batch_norm_of_a_tensor_is_torch():
    dense = nn.BatchNorm3d(4)
    ours = pair_layer(dense)
    x = torch.randn(2, 4, 2, 3, 3)
    assert torch.equal(ours(x), dense(x))
    assert ours.running_mean is dense.running_mean
    with pytest.raises(ValueError, match="of 4 channels got a pair of 3 high and 3 low"):
        ours(split(torch.zeros(1, 6, 1, 2, 2), 0.5))


def test_elementwise_layers_and_functions():
    pair = split(torch.randn(1, 4, 2, 4, 4), 0.5)
    for out in (Pairwise(nn.ReLU())(pair), F.relu(pair), torch.relu(pair), nn.ReLU()(pair)):
        assert torch.equal(out.low, pair.low.clamp(min=0))
        assert torch.equal(out.high, pair.high.clamp(min=0))
    assert torch.equal(Pairwise(nn.ReLU())(pair.high), pair.high.clamp(min=0))
    with pytest.raises(ValueError, match="without parameters; PReLU has some"):
        Pairwise(nn.PReLU())
    assert pair_layer(nn.Linear(2, 2)) is None


def test_arithmetic_acts_on_both_parts():
    x = torch.randn(1, 4, 2, 5, 4)
    pair = split(x, 0.5)
    for total in (pair + pair, pair + x, x + pair, torch.add(pair, x), torch.add(x, pair), 2 * pair, pair / 0.5):
        assert torch.equal(total.high, 2 * pair.high)
        assert torch.equal(total.low, 2 * pair.low)
    for none in (pair - x, x - pair, torch.sub(x, pair), pair + -pair, pair * 0, 0 * pair):
        assert not none.high.any()
        assert not none.low.any()
    assert torch.equal((1 - pair).low, 1 - pair.low)
    with pytest.raises(ValueError, match="the high parts of two pairs differ"):
        pair + split(x, 0.25)
    with pytest.raises(TypeError, match="only a pair, a tensor or a number can meet an octave pair; got str"):
        pair + "1"
    with pytest.raises(ValueError, match="cannot join a pair of 2 high and 2 low channels"):
        pair + torch.zeros(1, 5, 2, 5, 4)
    with pytest.raises(ValueError, match="shape .1, 4, 2, 5, 3. cannot join"):
        pair + torch.zeros(1, 4, 2, 5, 3)
    other_places = OctPair(pair.high, pair.low, ((1, 1), (1, 1)))
    with pytest.raises(ValueError, match="low channels in other places"):
        pair + other_places


def test_in_place_methods_change_the_pair():
    pair = split(torch.randn(1, 4, 2, 4, 4), 0.5)
    before = pair.low
    assert pair.add_(pair) is pair
    assert torch.equal(pair.low, 2 * before)
    assert pair.relu_().low.min() == 0 == pair.low.min()
    alias = pair
    pair *= 3
    pair[:, :1] = 7.0
    assert alias is pair
    assert alias.high[:, 0].eq(7).all()
    with pytest.raises(AttributeError, match="cannot change in place by 'exp_': use an operation"):
        pair.exp_()
    with pytest.raises(TypeError, match="cannot change in place by 'threshold_'"):
        F.threshold_(pair, 0.1, 0.0)
    with pytest.raises(TypeError, match="cannot change in place by 'add_'"):
        pair.add_(pair, alpha=2)
    dense, expected = torch.ones(1, 4, 2, 4, 4), torch.ones(1, 4, 2, 4, 4).add_(merge(pair))
    dense.add_(pair)
    assert torch.equal(dense, expected)


def test_a_gain_per_channel_meets_its_own_channel():
    """As squeeze-and-excitation multiplies: also where the low channels do not come last."""
    maps = [torch.randn(2, c, 1, 1, 1).expand(-1, -1, 2, 4, 4) for c in (6, 4)]
    pair, gain = concat([split(m, 0.5) for m in maps]), torch.rand(2, 10, 1, 1, 1)
    torch.testing.assert_close(merge(gain * pair), gain * torch.cat(maps, 1))
    torch.testing.assert_close(merge(pair * gain[:, :1]), gain[:, :1] * torch.cat(maps, 1))


def test_concatenation():
    a, b = split(torch.randn(1, 4, 2, 4, 4), 0.5), torch.randn(1, 3, 2, 4, 4)
    out = torch.cat([a, b], dim=1)
    assert torch.equal(out.high, torch.cat([a.high, b], 1))
    assert torch.equal(out.low, concat([b, a]).low)


def test_global_pooling_gives_each_channel_its_own_mean():
    pair = split(torch.randn(2, 4, 3, 5, 4), 0.5)
    expected = torch.cat([part.mean((2, 3, 4)) for part in pair.parts], 1)
    torch.testing.assert_close(pair.mean([2, 3, 4]), expected)
    torch.testing.assert_close(torch.mean(pair, dim=(-1, 2, 3)), expected)
    torch.testing.assert_close(nn.AdaptiveAvgPool3d(1)(pair).flatten(1), expected)
    grid = torch.cat([F.adaptive_max_pool3d(part, (3, 2, 2)) for part in pair.parts], 1)
    torch.testing.assert_close(nn.AdaptiveMaxPool3d((3, 2, 2))(pair), grid)
    torch.testing.assert_close(nn.AdaptiveAvgPool3d((None, 1, 1))(pair), merge(pair).mean((3, 4), keepdim=True))


def test_all_else_sees_the_dense_map():
    pair = split(torch.randn(2, 4, 2, 5, 4), 0.5)
    dense = merge(pair)
    assert torch.equal(torch.flatten(pair, 1), dense.flatten(1))
    assert torch.equal(torch.cat([pair, pair], dim=2), torch.cat([dense, dense], 2))
    assert torch.equal(torch.add(pair, pair, alpha=2), 3 * dense)
    assert torch.equal(pair[:, 1:], dense[:, 1:])
    assert torch.equal(pair.permute(0, 2, 1, 3, 4), dense.permute(0, 2, 1, 3, 4))
    assert torch.equal(nn.Conv3d(4, 2, 1, bias=False)(pair) * 0, dense[:, :2] * 0)
    assert torch.equal(torch.stack(list(pair)), dense)
    assert torch.equal((pair > 0).float() + pair**2, (dense > 0).float() + dense**2)
    assert (len(pair), pair.shape, pair.size(1), pair.dim(), pair.dtype) == (2, dense.shape, 4, 5, torch.float32)
    with pytest.raises(AttributeError, match="an octave pair has no attribute 'colour'"):
        pair.colour  # noqa: B018


def test_a_pair_is_a_node_of_torchs_trees():
    pair = concat([split(torch.ones(1, 4, 2, 4, 4), 0.5), split(torch.ones(1, 2, 2, 4, 4), 0.5)])
    doubled = torch.utils._pytree.tree_map(lambda t: 2 * t, pair)
    assert doubled.segments == pair.segments
    assert torch.equal(doubled.low, 2 * pair.low)
    again = pickle.loads(pickle.dumps(copy.deepcopy(pair)))
    assert (again.segments, repr(again)) == (pair.segments, "OctPair(high=(1, 3, 2, 4, 4), low=(1, 3, 2, 2, 2))")


def test_merging_hook():
    linear = nn.Conv3d(4, 2, 1)
    linear.register_forward_pre_hook(MergeInputs())
    pair = split(torch.randn(1, 4, 2, 4, 4), 0.5)
    assert torch.equal(linear(pair), linear(merge(pair)))


def test_octaves_by_axes():
    assert octave_factors("spatial", 2) == (2, 2)
    with pytest.raises(ValueError, match=r"'temporal' exists for 1-D, 3-D convolutions; got a 2-D"):
        octave_factors("temporal", 2)
    assert isinstance(split(torch.zeros(1, 2, 3, 3), 0.5), OctPair)
