"""The pooling of heads on maps of every size."""

import pytest
import torch
from torch import nn

from octvideo.layers.pool import ClippedAvgPool3d, clip_window, planar_pool
from octvideo.models import BUILDERS, build_model


@pytest.mark.parametrize("size", [(4, 7, 7), (8, 8, 9), (4, 5, 7), (2, 7, 7), (1, 1, 1), (3, 9, 2)])
def test_a_smaller_map_is_averaged_whole_along_that_axis(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    pool = clip_window(nn.AvgPool3d((4, 7, 7), stride=1))
    expected = x
    for axis, (window, length) in enumerate(zip((4, 7, 7), size, strict=True), start=2):
        expected = expected.unfold(axis, min(window, length), 1).mean(-1)
    torch.testing.assert_close(pool(x), expected)
    channels_last = x.contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(planar_pool(pool)(channels_last), expected)
    if all(n >= k for n, k in zip(size, (4, 7, 7), strict=True)):
        assert torch.equal(pool(x), nn.AvgPool3d((4, 7, 7), stride=1)(x))


@pytest.mark.parametrize(
    "pool",
    [nn.AvgPool3d(2), nn.AvgPool3d(3, stride=1, padding=1), nn.MaxPool3d(3, stride=1), nn.AvgPool3d(3, 1, 0, True)],
)
def test_pools_that_are_no_heads_stay(pool):
    assert clip_window(pool) is None


@pytest.mark.parametrize("name", ["i3d_r50", "slowfast_r50_4x16", "x3d_s", "csn_r101", "s3d", "r2plus1d_r50"])
def test_every_network_takes_small_clips(name):
    assert name in BUILDERS
    network = build_model(name, num_classes=3, alpha=0.25).eval()
    assert any(isinstance(module, ClippedAvgPool3d) for module in network.modules())
    with torch.no_grad():
        assert network(torch.randn(1, 3, 8, 64, 48)).shape == (1, 3)
