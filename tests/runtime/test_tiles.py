"""The convolution kernel in C equals torch's convolution in float64, and torch's functions after it."""

import itertools
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from octvideo.kernels import LAYOUTS, library
from octvideo.layers import avg_pool, upsample
from octvideo.layers.resize import low_size
from octvideo.runtime import tiles
from octvideo.runtime.moves import Moves
from octvideo.runtime.tiles import TiledConv, tiles_read_low, tiles_take

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.03}
FACTORS = {"none": (1, 1, 1), "spatial": (1, 2, 2), "temporal": (2, 1, 1), "spatiotemporal": (2, 2, 2)}


class Kind(NamedTuple):
    """Of kernels."""

    dtype: torch.dtype
    matrices: bool

    @property
    def tolerance(self):
        return TOLERANCES[self.dtype]


KINDS = {
    f"{str(dtype)[6:]}-{'matrices' if m else 'vectors'}": Kind(dtype, m) for dtype in TOLERANCES for m in (True, False)
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request):
    if not tiles_take(request.param.dtype, 4, MOVES[0]) or (request.param.matrices and not library._has_matrices()):
        pytest.skip("no kernel for this processor and type")
    return request.param


def random_map(channels, size, dtype, among=0):
    """A channels-last map; or the first channels of a wider one whose others are no numbers."""
    x = torch.full((2, channels + among, *size), torch.nan, dtype=dtype).contiguous(memory_format=LAYOUTS[5])
    return x[:, :channels].copy_(torch.randn(2, channels, *size))


def random_conv(channels, out_channels, moves, kind):
    weight = torch.randn(out_channels, channels, *moves.kernel) / (channels * sum(moves.kernel)) ** 0.5
    bias = torch.randn(out_channels)
    weight, bias = weight.to(kind.dtype), bias.to(kind.dtype)
    conv = TiledConv(weight, bias, moves, kind.matrices)
    _, stride, padding, dilation = moves
    return conv, lambda x: F.conv3d(x.double(), weight.double(), bias.double(), stride, padding, dilation)


def assert_near(got, expected, kind):
    torch.testing.assert_close(got.double(), expected, rtol=kind.tolerance, atol=kind.tolerance)


MOVES = [
    Moves((1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1)),
    Moves((1, 3, 3), (1, 1, 1), (0, 1, 1), (1, 1, 1)),
    Moves((3, 1, 1), (1, 1, 1), (1, 0, 0), (1, 1, 1)),
    Moves((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1)),
    Moves((2, 3, 5), (1, 2, 1), (3, 0, 4), (1, 2, 2)),  # taps and whole rows of them that only see padding
]
SIZES = [(1, 1, 1), (3, 2, 30), (4, 13, 9)]


@pytest.mark.parametrize("moves", MOVES, ids=lambda moves: "x".join(map(str, moves.kernel)))
def test_convolutions(moves, kind):
    for channels, out_channels, size in itertools.product((1, 3, 8, 18, 70), (1, 8, 23, 56), SIZES):
        conv, oracle = random_conv(channels, out_channels, moves, kind)
        x = random_map(channels, size, kind.dtype, among=1)  # an odd last channel must not meet its neighbour
        if size[1] < moves.dilation[1] * (moves.kernel[1] - 1) + 1 - 2 * moves.padding[1]:
            with pytest.raises(ValueError, match="too small for a kernel"):
                conv(x)
            continue
        assert_near(conv(x), oracle(x), kind)
        assert_near(conv(x.contiguous(), relu=True), oracle(x).relu(), kind)


@pytest.mark.parametrize("factors", FACTORS.values(), ids=FACTORS)
@pytest.mark.parametrize("cache_bytes", [1 << 25, 0], ids=["cached", "streamed"])
def test_sums_and_means(factors, cache_bytes, kind, monkeypatch):
    monkeypatch.setattr(tiles, "_cache_bytes", lambda: cache_bytes)
    for moves, size in itertools.product(MOVES[:3], [(1, 1, 1), (5, 7, 9), (4, 18, 16)]):
        conv, oracle = random_conv(6, 40, moves, kind)
        lower, lower_oracle = random_conv(5, 40, moves, kind)
        x, low = random_map(6, size, kind.dtype), random_map(5, low_size(size, factors), kind.dtype, among=2)
        summand, wide = random_map(40, size, kind.dtype, among=3), random_map(44, low_size(size, factors), kind.dtype)
        expected = oracle(x) + summand.double() + upsample(lower_oracle(low), size)
        given = summand.clone()
        got = conv(
            x, summand=summand, raised=(lower, low), relu=True, raising=factors, pooled=wide[:, 4:], pooling=factors
        )
        assert_near(got, expected.relu(), kind)
        assert_near(wide[:, 4:], avg_pool(expected.relu(), factors), kind)
        assert torch.equal(summand, given)
        in_place = conv(x, summand=summand, raised=(lower, low), relu=True, raising=factors, out=summand)
        assert in_place is summand
        assert torch.equal(in_place, got)
        assert_near(conv(x, pooled=wide[:, 4:], pooling=factors), oracle(x), kind)
        assert_near(wide[:, 4:], avg_pool(oracle(x), factors), kind)


@pytest.mark.parametrize("factors", FACTORS.values(), ids=FACTORS)
def test_a_smaller_map_read_beside_the_input(factors, kind):
    moves = MOVES[0]
    if not tiles_read_low(*kind, 48, 8, moves):
        pytest.skip("the kernel reads one map")
    sizes, channels = (
        [(1, 1, 1), (5, 7, 9), (4, 18, 16)],
        [
            (56, 8, 224),
            (1, 1, 40),
            (7, 70, 3),
            (33, 31, 16),
            (224, 32, 40),
            (32, 32, 128),
            (56, 28, 20),
            (480, 64, 5),
            (189, 27, 9),
            (68, 32, 3),
            (378, 54, 7),
            (3, 30, 1),
            (70, 30, 33),
            # Padded as one, not alone.
            (108, 28, 20),
            (58, 30, 20),
            (140, 60, 20),
        ],
    )
    for size, (own, of_low, out_channels) in itertools.product(sizes, channels):
        weight = torch.randn(out_channels, own + of_low, 1, 1, 1).div((own + of_low) ** 0.5).to(kind.dtype)
        bias = torch.randn(out_channels).to(kind.dtype)
        conv = TiledConv(weight, bias, moves, kind.matrices, low_channels=of_low)
        x, low = (
            random_map(own, size, kind.dtype, among=1),
            random_map(of_low, low_size(size, factors), kind.dtype, among=3),
        )
        summand, pooled = (
            random_map(out_channels, size, kind.dtype),
            random_map(out_channels, low_size(size, factors), kind.dtype),
        )
        both = torch.cat([x.double(), upsample(low.double(), size)], 1)
        expected = (F.conv3d(both, weight.double(), bias.double()) + summand.double()).relu()
        options = {"summand": summand, "relu": True, "raising": factors}
        got = conv(x, low=low, pooled=pooled, pooling=factors, **options)
        assert_near(got, expected, kind)
        assert_near(pooled, avg_pool(expected, factors), kind)
        assert torch.equal(conv(x, low=low.contiguous(), **options), got)


def test_many_channels_and_any_number_of_threads(kind):
    moves, before = MOVES[1], torch.get_num_threads()
    conv, oracle = random_conv(700, 300, moves, kind)  # blocks of weights that do not fit the cache together
    x = random_map(700, (2, 14, 15), kind.dtype)
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(conv(x))
    finally:
        torch.set_num_threads(before)
    assert_near(results[0], oracle(x), kind)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_values_that_are_no_numbers_stay_so(kind):
    conv, _ = random_conv(4, 40, MOVES[0], kind)
    x = random_map(4, (2, 5, 9), kind.dtype)
    x[0, 2, 1, 3, 4] = torch.nan
    out = conv(x, relu=True)
    assert out[0, :, 1, 3, 4].isnan().all()
    assert out.isnan().sum() == 40


def test_means_of_channels_of_a_wider_map(kind):
    conv, oracle = random_conv(6, 16, MOVES[1], kind)
    x, wide = random_map(6, (2, 7, 9), kind.dtype), random_map(20, (2, 7, 9), kind.dtype)
    pooled = random_map(16, (2, 4, 5), kind.dtype)
    conv(x, out=wide[:, 2:18], pooled=pooled, pooling=[1, 2, 2])
    assert_near(wide[:, 2:18], oracle(x), kind)
    assert_near(pooled, avg_pool(oracle(x), (1, 2, 2)), kind)


@pytest.mark.parametrize("factors", list(FACTORS.values())[1:], ids=list(FACTORS)[1:])
def test_first_channels_that_are_rectified_only_when_pooled(factors, kind):
    for first, num_pooled in ((1, 1), (5, 9), (18, 18), (23, 40), (40, 40)):
        conv, oracle = random_conv(6, 40, MOVES[1], kind)
        x = random_map(6, (3, 7, 9), kind.dtype)
        pooled = random_map(num_pooled, low_size((3, 7, 9), factors), kind.dtype)
        got = conv(x, relu=True, unrectified=first, pooled=pooled, pooling=factors)
        expected = oracle(x)
        expected[:, first:].relu_()
        assert_near(got, expected, kind)
        assert_near(pooled, avg_pool(expected[:, :num_pooled], factors).relu(), kind)


def test_places_that_are_one(kind):
    """An expanded map, whose places lie no step apart."""
    conv, oracle = random_conv(8, 40, Moves((1, 3, 1), (1, 1, 1), (0, 1, 0), (1, 1, 1)), kind)
    x = random_map(8, (2, 6, 1), kind.dtype).expand(-1, -1, -1, -1, 9)
    assert_near(conv(x), oracle(x), kind)


def test_streams_to_any_address(kind, monkeypatch):
    monkeypatch.setattr(tiles, "_cache_bytes", lambda: 0)
    conv, oracle = random_conv(6, 24, MOVES[1], kind)
    x, room = random_map(6, (2, 7, 9), kind.dtype), torch.empty(2 * 24 * 126 + 9, dtype=kind.dtype)
    for start in (0, 1, 9):
        out = room[start : start + 2 * 24 * 126].view(2, 2, 7, 9, 24).permute(0, 4, 1, 2, 3)
        assert conv(x, out=out) is out
        assert_near(out, oracle(x), kind)


@pytest.mark.parametrize("moves", MOVES[:3], ids=lambda moves: "x".join(map(str, moves.kernel)))
@pytest.mark.parametrize("one_sign", [False, True], ids=["both signs", "one sign"])
def test_sums_of_products_of_parts_are_as_exact_as_float32(one_sign, moves, kind):
    """The error of each sum, in float32's rounding of what it adds up: a part left out would be 64 of these or more."""
    if kind != Kind(torch.float32, True):
        pytest.skip("only matrix instructions multiply parts, and bfloat16 is one part")
    for channels, scale in itertools.product((1, 3, 32, 63, 64, 100, 512), (1e-15, 1, 1e15)):
        weight = torch.randn(40, channels, *moves.kernel)
        x = random_map(channels, (3, 9, 10), kind.dtype) * 10 ** (4 * torch.rand(2, channels, 3, 9, 10) - 2) * scale
        weight, x = (weight.abs(), x.abs()) if one_sign else (weight, x)
        x = x.contiguous(memory_format=LAYOUTS[5])
        _, *how = moves
        exact, added = (
            F.conv3d(f(x.double()), f(weight.double()), None, *how) for f in (torch.Tensor.clone, torch.abs)
        )
        got = TiledConv(weight, None, moves, kind.matrices)(x)
        roundings = ((got.double() - exact).abs() / added).max() / 2**-24
        # What is left out of a product, and sums of 32 products by each instruction, of which there are six.
        assert roundings <= 8 + 6 * weight[0].numel() / 32


def test_infinite_numbers_are_not_finite_afterwards(kind):
    conv, _ = random_conv(40, 40, MOVES[0], kind)
    x = random_map(40, (2, 5, 9), kind.dtype)
    x[0, 2, 1, 3, 4] = torch.inf
    finite = conv(x).isfinite()
    assert not finite[0, :, 1, 3, 4].any()
    assert finite.sum() == finite.numel() - 40


def test_processors_without_avx512(monkeypatch):
    """Other vectors, the same results."""
    if "avx2" not in library._processor():
        pytest.skip("the processor has no AVX2")
    monkeypatch.setattr(library, "FLAGS", (*library.FLAGS, "-march=haswell"))
    library.library.cache_clear()
    try:
        for moves in MOVES:
            test_convolutions(moves, Kind(torch.float32, False))
        for cache_bytes in (1 << 25, 0):
            test_sums_and_means((1, 2, 2), cache_bytes, Kind(torch.float32, False), monkeypatch)
        assert not tiles_take(torch.bfloat16, 4, MOVES[0])
        assert library.library(torch.float32).padded_out_channels(23) == 24  # three full vectors of 8
    finally:
        library.library.cache_clear()


def test_what_the_kernel_does_not_take():
    one = MOVES[0]
    assert not tiles_take(torch.float64, 4, one)
    assert not tiles_take(torch.float32, 20000, one)
    assert not tiles_take(torch.float32, 4, Moves((1, 1, 65), (1, 1, 1), (0, 0, 32), (1, 1, 1)))
    assert not tiles_take(torch.float32, 4, Moves((9, 9, 9), (1, 1, 1), (4, 4, 4), (1, 1, 1)))
