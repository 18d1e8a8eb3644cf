"""The convolution kernel in C equals torch's convolution in float64, and torch's functions after it."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from octvideo.kernels import library
from octvideo.layers import avg_pool, upsample
from octvideo.layers.resize import low_size
from octvideo.runtime import passes, tiles
from octvideo.runtime.moves import Moves
from octvideo.runtime.tiles import TiledConv, tiles_read_low, tiles_take

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.03}
FACTORS = {"none": (1, 1, 1), "spatial": (1, 2, 2), "temporal": (2, 1, 1), "spatiotemporal": (2, 2, 2)}


@pytest.fixture(params=TOLERANCES, ids=str)
def dtype(request):
    if not tiles_take(request.param, 4, Moves((1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1))):
        pytest.skip("no kernel for this processor and type")
    return request.param


def random_map(channels, size, dtype, among=0):
    """A channels-last map; or the first channels of a wider one whose others are no numbers."""
    x = torch.full((2, channels + among, *size), torch.nan, dtype=dtype).contiguous(memory_format=passes.LAYOUTS[5])
    return x[:, :channels].copy_(torch.randn(2, channels, *size))


def random_conv(channels, out_channels, moves, dtype):
    weight = torch.randn(out_channels, channels, *moves.kernel) / (channels * sum(moves.kernel)) ** 0.5
    bias = torch.randn(out_channels)
    weight, bias = weight.to(dtype), bias.to(dtype)
    conv = TiledConv(weight, bias, moves)
    _, stride, padding, dilation = moves
    return conv, lambda x: F.conv3d(x.double(), weight.double(), bias.double(), stride, padding, dilation)


def assert_near(got, expected, dtype):
    torch.testing.assert_close(got.double(), expected, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


MOVES = [
    Moves((1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1)),
    Moves((1, 3, 3), (1, 1, 1), (0, 1, 1), (1, 1, 1)),
    Moves((3, 1, 1), (1, 1, 1), (1, 0, 0), (1, 1, 1)),
    Moves((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1)),
    Moves((2, 3, 5), (1, 2, 1), (3, 0, 4), (1, 2, 2)),  # taps and whole rows of them that only see padding
]
SIZES = [(1, 1, 1), (3, 2, 30), (4, 13, 9)]


@pytest.mark.parametrize("moves", MOVES, ids=lambda moves: "x".join(map(str, moves.kernel)))
def test_convolutions(moves, dtype):
    for channels, out_channels, size in itertools.product((1, 3, 8, 18, 70), (1, 8, 23, 56), SIZES):
        conv, oracle = random_conv(channels, out_channels, moves, dtype)
        x = random_map(channels, size, dtype, among=1)  # an odd last channel must not meet its neighbour
        if size[1] < moves.dilation[1] * (moves.kernel[1] - 1) + 1 - 2 * moves.padding[1]:
            with pytest.raises(ValueError, match="too small for a kernel"):
                conv(x)
            continue
        assert_near(conv(x), oracle(x), dtype)
        assert_near(conv(x.contiguous(), relu=True), oracle(x).relu(), dtype)


@pytest.mark.parametrize("factors", FACTORS.values(), ids=FACTORS)
@pytest.mark.parametrize("cache_bytes", [1 << 25, 0], ids=["cached", "streamed"])
def test_sums_and_means(factors, cache_bytes, dtype, monkeypatch):
    monkeypatch.setattr(tiles, "_cache_bytes", lambda: cache_bytes)
    for moves, size in itertools.product(MOVES[:3], [(1, 1, 1), (5, 7, 9), (4, 18, 16)]):
        conv, oracle = random_conv(6, 40, moves, dtype)
        lower, lower_oracle = random_conv(5, 40, moves, dtype)
        x, low = random_map(6, size, dtype), random_map(5, low_size(size, factors), dtype, among=2)
        summand, wide = random_map(40, size, dtype, among=3), random_map(44, low_size(size, factors), dtype)
        expected = oracle(x) + summand.double() + upsample(lower_oracle(low), size)
        given = summand.clone()
        got = conv(
            x, summand=summand, raised=(lower, low), relu=True, raising=factors, pooled=wide[:, 4:], pooling=factors
        )
        assert_near(got, expected.relu(), dtype)
        assert_near(wide[:, 4:], avg_pool(expected.relu(), factors), dtype)
        assert torch.equal(summand, given)
        in_place = conv(x, summand=summand, raised=(lower, low), relu=True, raising=factors, out=summand)
        assert in_place is summand
        assert torch.equal(in_place, got)
        assert_near(conv(x, pooled=wide[:, 4:], pooling=factors), oracle(x), dtype)
        assert_near(wide[:, 4:], avg_pool(oracle(x), factors), dtype)


@pytest.mark.parametrize("factors", FACTORS.values(), ids=FACTORS)
def test_a_smaller_map_read_beside_the_input(factors, dtype):
    moves = MOVES[0]
    if not tiles_read_low(dtype, moves):
        pytest.skip("the kernel reads one map")
    sizes, channels = (
        [(1, 1, 1), (5, 7, 9), (4, 18, 16)],
        [
            (56, 8, 224),
            (1, 1, 40),
            (7, 70, 3),
            (33, 31, 16),
            (480, 64, 5),
            (189, 27, 9),
            (68, 32, 3),
            (378, 54, 7),
            (3, 30, 1),
            (70, 30, 33),
        ],
    )
    for size, (own, of_low, out_channels) in itertools.product(sizes, channels):
        weight = torch.randn(out_channels, own + of_low, 1, 1, 1).div((own + of_low) ** 0.5).to(dtype)
        bias = torch.randn(out_channels).to(dtype)
        conv = TiledConv(weight, bias, moves, low_channels=of_low)
        x, low = random_map(own, size, dtype, among=1), random_map(of_low, low_size(size, factors), dtype, among=3)
        summand, pooled = (
            random_map(out_channels, size, dtype),
            random_map(out_channels, low_size(size, factors), dtype),
        )
        both = torch.cat([x.double(), upsample(low.double(), size)], 1)
        expected = (F.conv3d(both, weight.double(), bias.double()) + summand.double()).relu()
        options = {"summand": summand, "relu": True, "raising": factors}
        got = conv(x, low=low, pooled=pooled, pooling=factors, **options)
        assert_near(got, expected, dtype)
        assert_near(pooled, avg_pool(expected, factors), dtype)
        assert torch.equal(conv(x, low=low.contiguous(), **options), got)


def test_many_channels_and_any_number_of_threads(dtype):
    moves, before = MOVES[1], torch.get_num_threads()
    conv, oracle = random_conv(700, 300, moves, dtype)  # blocks of weights that do not fit the cache together
    x = random_map(700, (2, 14, 15), dtype)
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(conv(x))
    finally:
        torch.set_num_threads(before)
    assert_near(results[0], oracle(x), dtype)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_values_that_are_no_numbers_stay_so(dtype):
    conv, _ = random_conv(4, 40, MOVES[0], dtype)
    x = random_map(4, (2, 5, 9), dtype)
    x[0, 2, 1, 3, 4] = torch.nan
    out = conv(x, relu=True)
    assert out[0, :, 1, 3, 4].isnan().all()
    assert out.isnan().sum() == 40


def test_means_of_channels_of_a_wider_map(dtype):
    conv, oracle = random_conv(6, 16, MOVES[1], dtype)
    x, wide = random_map(6, (2, 7, 9), dtype), random_map(20, (2, 7, 9), dtype)
    pooled = random_map(16, (2, 4, 5), dtype)
    conv(x, out=wide[:, 2:18], pooled=pooled, pooling=[1, 2, 2])
    assert_near(wide[:, 2:18], oracle(x), dtype)
    assert_near(pooled, avg_pool(oracle(x), (1, 2, 2)), dtype)


def test_streams_to_any_address(dtype, monkeypatch):
    monkeypatch.setattr(tiles, "_cache_bytes", lambda: 0)
    conv, oracle = random_conv(6, 24, MOVES[1], dtype)
    x, room = random_map(6, (2, 7, 9), dtype), torch.empty(2 * 24 * 126 + 9, dtype=dtype)
    for start in (0, 1, 9):
        out = room[start : start + 2 * 24 * 126].view(2, 2, 7, 9, 24).permute(0, 4, 1, 2, 3)
        assert conv(x, out=out) is out
        assert_near(out, oracle(x), dtype)


OLDER = {
    "no matrices": ("-mno-amx-bf16", torch.bfloat16, "amx_bf16"),
    "AVX2": ("-march=haswell", torch.float32, "avx2"),
}


@pytest.mark.parametrize(("flag", "dtype", "needed"), OLDER.values(), ids=OLDER)
def test_older_processors(flag, dtype, needed, monkeypatch):
    """Other vectors, the same results."""
    if needed not in library._processor():
        pytest.skip(f"the processor has no {needed}")
    monkeypatch.setattr(library, "FLAGS", (*library.FLAGS, flag))
    library.library.cache_clear()
    try:
        assert tiles_take(dtype, 4, MOVES[0])
        for moves in MOVES:
            test_convolutions(moves, dtype)
        for cache_bytes in (1 << 25, 0):
            test_sums_and_means((1, 2, 2), cache_bytes, dtype, monkeypatch)
        if flag == "-march=haswell":
            assert not tiles_take(torch.bfloat16, 4, MOVES[0])
            assert library.library(dtype).padded_out_channels(23) == 24  # three full vectors of 8
    finally:
        library.library.cache_clear()


def test_what_the_kernel_does_not_take():
    one = MOVES[0]
    assert not tiles_take(torch.float64, 4, one)
    assert not tiles_take(torch.float32, 20000, one)
    assert not tiles_take(torch.float32, 4, Moves((1, 1, 65), (1, 1, 1), (0, 0, 32), (1, 1, 1)))
    assert not tiles_take(torch.float32, 4, Moves((9, 9, 9), (1, 1, 1), (4, 4, 4), (1, 1, 1)))
