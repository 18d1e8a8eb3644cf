"""The passes between the parts of a pair equal torch's functions, one after the other."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from octvideo import kernels
from octvideo.kernels import library

FACTORS = {"none": (1, 1, 1), "spatial": (1, 2, 2), "temporal": (2, 1, 1), "spatiotemporal": (2, 2, 2)}
SIZES = [(1, 1, 1), (5, 9, 7), (4, 6, 8), (3, 1, 2)]
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 2**-8}


@pytest.fixture(autouse=True)
def compiled():
    if not all(map(library.library, TOLERANCES)):
        pytest.skip("no C compiler")


def random_map(channels, size, dtype=torch.float32):
    return torch.randn(2, channels, *size).to(dtype).contiguous(memory_format=kernels.LAYOUTS[2 + len(size)])


def assert_near(got, expected, dtype):
    torch.testing.assert_close(got.double(), expected, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


def sums(x, factors):
    missing = [-n % factor for n, factor in zip(x.shape[2:], factors, strict=True)]
    filled = F.pad(x.double(), [p for n in reversed(missing) for p in (0, n)])
    return F.avg_pool3d(filled, factors, divisor_override=1)


def means(x, factors):
    return sums(x, factors) / sums(torch.ones_like(x), factors)


def slow_repeat(x, size, factors):
    for axis, (n, factor) in enumerate(zip(size, factors, strict=True), start=2):
        x = x.index_select(axis, torch.arange(n) // factor)
    return x


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("factors", FACTORS.values(), ids=FACTORS)
def test_cells(factors, dtype):
    for size, channels in itertools.product(SIZES, (1, 19, 600)):
        high = random_map(channels, size, dtype)
        expected = means(high, factors)
        wide = random_map(channels + 5, expected.shape[2:], dtype)
        pooled, before = wide[:, 2:-3], wide.clone()
        kernels.pool(high, pooled, factors)
        assert_near(pooled, expected, dtype)
        low = pooled.clone()
        total = kernels.add_upsampled(high, pooled, factors)
        assert_near(total, high.double() + slow_repeat(low.double(), size, factors), dtype)
        places = sums(torch.ones_like(high), factors)
        shared = kernels.add_upsampled(high, pooled, factors, means=True)
        assert_near(shared, high.double() + slow_repeat(low.double() / places, size, factors), dtype)
        kernels.pool(high, pooled, factors, sums=True)
        assert_near(pooled, sums(high, factors), dtype)
        of_wider = random_map(channels + 7, size, dtype)[:, 4:-3]
        kernels.pool(of_wider, pooled, factors)
        assert_near(pooled, means(of_wider, factors), dtype)
        assert torch.equal(wide[:, :2], before[:, :2])
        assert torch.equal(wide[:, -3:], before[:, -3:])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("factors", FACTORS.values(), ids=FACTORS)
def test_maps_side_by_side(factors, dtype):
    for size, channels in itertools.product(SIZES, (0, 3)):
        high = random_map(19, size, dtype)
        low_size = means(high, factors).shape[2:]
        lows = random_map(channels, low_size, dtype), random_map(channels + 2, low_size, dtype)[:, 1:-1]
        for low in (*lows, lows[0].contiguous()):
            expected = torch.cat([low.double(), means(high, factors)], 1)
            joined = kernels.join((low, (1, 1, 1)), (high, factors))
            assert joined.is_contiguous(memory_format=kernels.LAYOUTS[5])
            assert_near(joined, expected, dtype)
            assert torch.equal(kernels.join((high, factors), (low, (1, 1, 1)))[:, :19], joined[:, channels:])
        assert_near(kernels.join((high, factors)), means(high, factors), dtype)


def test_maps_that_do_not_fit_are_refused():
    high, low = random_map(4, (2, 5, 4)), random_map(4, (2, 2, 2))
    with pytest.raises(
        ValueError, match=r"low must be a channels-last map of shape \(2, 4, 2, 3, 2\).*got \(2, 4, 2, 2, 2"
    ):
        kernels.add_upsampled(high, low, (1, 2, 2))
    with pytest.raises(ValueError, match="pooled must be a channels-last map"):
        kernels.pool(high, torch.empty(2, 4, 2, 3, 2), (1, 2, 2))
    for other in (low, low.contiguous()):
        with pytest.raises(ValueError, match=r"must be a channels-last map of shape \(2, 4, 2, 2, 2\)"):
            kernels.join((high, (1, 2, 2)), (other, (1, 1, 1)))


def test_factors_that_the_kernels_do_not_take():
    with pytest.raises(ValueError, match="factors must be 1 or 2"):
        kernels.pool(random_map(16, (2, 8, 8)), torch.empty(2, 16, 2, 2, 2), (1, 4, 4))
