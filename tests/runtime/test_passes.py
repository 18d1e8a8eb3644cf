"""The passes in C equal torch's functions, one after the other."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from octvideo.kernels import LAYOUTS, library
from octvideo.layers import OctConv3d, avg_pool, split, upsample
from octvideo.layers.pool import PlanarMaxPool3d
from octvideo.layers.resize import low_size
from octvideo.runtime import fused, passes
from octvideo.runtime.fused import FusedConv
from octvideo.runtime.joined import Join
from octvideo.runtime.pools import fast_pool

FACTORS = {"spatial": (1, 2, 2), "temporal": (2, 1, 1), "spatiotemporal": (2, 2, 2)}
SIZES = [(1, 1, 1), (5, 9, 7), (4, 6, 8), (3, 1, 2)]
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 0.01}


@pytest.fixture(autouse=True)
def compiled():
    if not all(map(library.library, TOLERANCES)):
        pytest.skip("no C compiler")


def random_map(channels, size, dtype):
    layout = LAYOUTS[2 + len(size)]
    return torch.randn(2, channels, *size).to(dtype).contiguous(memory_format=layout)


def assert_near(got, expected, dtype):
    torch.testing.assert_close(got.double(), expected.double(), rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("factors", FACTORS.values(), ids=FACTORS)
def test_cells(factors, dtype):
    # More channels than a pass takes at once, and numbers that no vector divides.
    for size, channels, low_channels, relu in itertools.product(SIZES, (1, 19, 600), (0, 3), (False, True)):
        high, raised, low = (
            random_map(c, s, dtype)
            for c, s in [(channels, size), (channels, low_size(size, factors)), (low_channels, low_size(size, factors))]
        )
        pooled = avg_pool(high.double(), factors)
        joined = passes.join(high, low, factors)
        assert_near(joined, torch.cat([low.double(), pooled], 1), dtype)
        of_wider = torch.cat([random_map(2, size, dtype), high], 1)[:, 2:]
        assert_near(passes.join(of_wider, low, factors), joined, dtype)
        total = high.double() + upsample(raised.double(), size)
        total = total.relu() if relu else total
        passes.add_raised(high, raised, factors, relu, joined[:, low_channels:], factors)
        assert_near(high, total, dtype)
        assert_near(joined, torch.cat([low.double(), avg_pool(total, factors)], 1), dtype)


def test_what_is_raised_by_less_than_it_is_pooled():
    size, raising, pooling = (5, 7, 6), (2, 1, 1), (2, 2, 2)
    high, raised = random_map(9, size, torch.float32), random_map(9, low_size(size, raising), torch.float32)
    pooled = random_map(9, low_size(size, pooling), torch.float32)
    total = high + upsample(raised, size)
    passes.add_raised(high, raised, raising, False, pooled, pooling)
    assert_near(high, total, torch.float32)
    assert_near(pooled, avg_pool(total, pooling), torch.float32)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_maximum_pooling(dtype):
    for kernel, stride, padding in [((1, 3, 3), (1, 2, 2), (0, 1, 1)), ((3, 2, 5), (2, 1, 3), (1, 1, 2))]:
        x = random_map(300, (5, 11, 8), dtype)
        x[0, 3, 2, 4, 4] = torch.nan
        expected = F.max_pool3d(x.float(), kernel, stride, padding)
        got = passes.max_pool(x, kernel, stride, padding).float()
        assert torch.equal(got.nan_to_num(9), expected.nan_to_num(9))
        assert got.isnan().any()
    image = random_map(5, (9, 7), dtype)
    for pool in (nn.MaxPool2d(3, 2, 1), nn.MaxPool2d((2, 1))):
        assert torch.equal(fast_pool(pool)(image), pool(image))
    with pytest.raises(ValueError, match="too small for a kernel"):
        fast_pool(nn.MaxPool2d(5, 3))(random_map(5, (9, 2), dtype))
    video = random_map(5, (4, 9, 7), dtype)
    assert torch.equal(
        fast_pool(PlanarMaxPool3d(3, (1, 2, 2), 1))(video).float(), F.max_pool3d(video.float(), 3, (1, 2, 2), 1)
    )
    assert [fast_pool(pool) for pool in (nn.MaxPool2d(3, dilation=2), nn.MaxPool2d(2, return_indices=True))] == [
        None,
        None,
    ]


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_maximum_pooling_that_rounds_up_over_some_channels_of_a_map(dtype):
    for kernel, stride, padding in [((2, 1, 1), (2, 1, 1), 0), (3, 1, 1), (3, 2, 1), ((1, 4, 2), (1, 3, 5), (0, 2, 0))]:
        for size in [(5, 11, 8), (4, 9, 7), (3, 4, 2), (1, 3, 1)]:
            x = random_map(40, size, dtype)[:, :21]
            pool = nn.MaxPool3d(kernel, stride, padding, ceil_mode=True)
            assert torch.equal(fast_pool(pool)(x).float(), pool(x.float()))


@pytest.mark.parametrize("dtype", [*TOLERANCES, torch.float64])
def test_pixels(dtype):
    sizes = [(3, 3, (2, 5, 7)), (3, 4, (2, 5, 40)), (1, 2, (3, 1, 1)), (2, 4, (6, 9)), (3, 4, (3, 17))]
    for given, channels, size in sizes:
        x = torch.randn(2, given, *size).to(dtype)
        expected = torch.zeros(2, *size[:-1], size[-1] + 4, channels, dtype=dtype)
        expected[..., 2:-2, :given] = x.movedim(1, -1)
        last = x.contiguous(memory_format=LAYOUTS[x.dim()])
        for given_map in (x, last, x.transpose(-1, -2).contiguous().transpose(-1, -2)):
            assert torch.equal(passes.lay_pixels(given_map, channels, 2), expected.flatten(-2))


def test_processors_without_masks(monkeypatch):
    if "avx2" not in library._processor():
        pytest.skip("the processor has no AVX2")
    monkeypatch.setattr(library, "FLAGS", (*library.FLAGS, "-march=haswell"))
    library.library.cache_clear()
    try:
        for dtype in TOLERANCES:
            test_cells(FACTORS["spatiotemporal"], dtype)
            test_maximum_pooling(dtype)
            test_pixels(dtype)
        test_values_that_are_no_numbers_stay_so()
    finally:
        library.library.cache_clear()


def test_values_that_are_no_numbers_stay_so():
    for dtype in TOLERANCES:
        high, raised = random_map(20, (2, 4, 4), dtype), random_map(20, (2, 2, 2), dtype)
        high[0, 0, 0, 0, 0], high[0, 17, 0, 0, 0], high[1, 1, 0, 0, 0] = torch.nan, torch.nan, torch.inf
        passes.add_raised(high, raised, (1, 2, 2), True)
        assert high[0, 0, 0, 0, 0].isnan()
        assert high[0, 17, 0, 0, 0].isnan()
        assert high[1, 1, 0, 0, 0].isinf()


@pytest.mark.parametrize("tiled", [True, False])
def test_what_a_convolution_joins_is_what_the_next_one_would(tiled, monkeypatch):
    if not tiled:
        monkeypatch.setattr(fused, "tiles_take", lambda *_: False)
    for octave, stride in itertools.product(FACTORS, (1, 2)):
        first = OctConv3d(8, 12, 3, padding=1, alpha_in=0.25, alpha_out=0.5, octave=octave)
        second = OctConv3d(12, 8, 3, stride, padding=1, alpha_in=0.5, alpha_out=0.25, octave=octave)
        last = OctConv3d(12, 8, 1, stride, alpha_in=0.5, alpha_out=0, octave=octave)
        pair = split(torch.randn(2, 8, 5, 9, 7).contiguous(memory_format=torch.channels_last_3d), 0.25, octave)
        fast = [FusedConv(conv, relu=conv is first) for conv in (first, second, last)]
        fast[0].joins = True
        with torch.no_grad():
            plain, middle = first(pair).relu(), fast[0](pair)
            assert middle.joined.shape[1] == 12
            joined = Join(FACTORS[octave])(plain)
            for conv, faster in ((second, fast[1]), (last, fast[2])):
                expected = parts(conv(plain))
                for got in (faster(middle), faster(joined), faster(plain)):
                    for a, b in zip(parts(got), expected, strict=True):
                        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def parts(x):
    return (x,) if isinstance(x, torch.Tensor) else x.parts


@pytest.mark.parametrize(
    ("compiler", "reason"), [("/bin/false", "the C compiler failed"), (None, "no C compiler .cc. is installed")]
)
def test_without_a_compiler_torch_runs_with_a_notice(compiler, reason, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(library.shutil, "which", lambda name: compiler)
    library.library.cache_clear()
    conv = OctConv3d(8, 8, 1, alpha_in=0.25, alpha_out=0.25)
    pair = split(torch.randn(1, 8, 2, 5, 4).contiguous(memory_format=torch.channels_last_3d), 0.25)
    try:
        with pytest.warns(UserWarning, match=f"run by oneDNN's and torch's functions.*{reason}"), torch.no_grad():
            got, expected = FusedConv(conv, relu=True)(pair), conv(pair).relu()
        for a, b in zip(got.parts, expected.parts, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        assert not list(tmp_path.rglob("*.so"))
    finally:
        library.library.cache_clear()
