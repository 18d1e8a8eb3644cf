"""Convolutions that add and rectify as they write equal the plain ones."""

import itertools

import pytest
import torch

from octvideo.layers import OctConv2d, OctConv3d, OctPair, concat, split
from octvideo.runtime.fused import FusedConv, why_not_fused

ALPHAS = ((0, 0.25), (0.25, 0.25), (0.25, 0), (0, 0), (1, 0.5), (0.5, 1))
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def assert_fused_equals_plain(conv, x, tolerance=1e-5):
    with torch.no_grad():
        expected, rectified = conv(x), FusedConv(conv, relu=True)(x)
        plain = FusedConv(conv, relu=False)(x)
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(plain, expected, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(rectified, expected.relu(), rtol=tolerance, atol=tolerance)
        return
    for a, b, c in zip(plain.parts, rectified.parts, expected.parts, strict=True):
        assert a.shape == b.shape == c.shape
        torch.testing.assert_close(a, c, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(b, c.relu(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("octave", ["spatial", "temporal", "spatiotemporal"])
@pytest.mark.parametrize("kernel", [(1, 1, 1), (1, 3, 3), (3, 1, 1)])
def test_videos(kernel, octave):
    fused = 0
    for stride, alphas in itertools.product([(1, 1, 1), (1, 2, 2), (2, 1, 1), (2, 2, 2), (4, 1, 1)], ALPHAS):
        padding = tuple(k // 2 for k in kernel)
        conv = OctConv3d(16, 24, kernel, stride, padding, alpha_in=alphas[0], alpha_out=alphas[1], octave=octave)
        x = torch.randn(2, 16, 5, 9, 8).contiguous(memory_format=LAYOUTS[5])
        if why_not_fused(conv) is None:
            fused += 1
            assert_fused_equals_plain(conv, split(x, alphas[0], octave) if alphas[0] else x)
    assert fused >= 17  # all but strides in space of a kernel in time that have no 2-D view


@pytest.mark.parametrize("groups", [1, 2, 16])
@pytest.mark.parametrize("exchange", ["both", "none", "low_to_high"])
def test_images_groups_and_exchanges(groups, exchange):
    for size, stride in itertools.product([(8, 8), (9, 7), (1, 3)], (1, 2)):
        conv = OctConv2d(
            16, 16, 5, stride, 4, 2, groups, False, alpha_in=0.25, alpha_out=0.25, exchange=exchange
        )  # fmt: skip
        assert_fused_equals_plain(conv, split(torch.randn(3, 16, *size), 0.25))


def test_groups_of_few_channels():
    """ResNeXt's: 3 high channels and 1 low one in each of 32 groups."""
    segments = ((3, 1),) * 32
    conv = OctConv2d(128, 128, 3, 1, 1, groups=32, alpha_in=0.25, alpha_out=0.25, out_segments=segments)
    assert_fused_equals_plain(conv, OctPair(torch.randn(2, 96, 9, 7), torch.randn(2, 32, 5, 4), segments))


def test_a_concatenated_pair_and_bfloat16():
    conv = OctConv2d(16, 12, 3, padding=1, alpha_in=0.25, alpha_out=0.5)
    maps = [torch.randn(2, 8, 7, 8) for _ in (1, 2)]
    assert_fused_equals_plain(conv, concat([split(m, 0.25) for m in maps]))
    conv = OctConv2d(16, 12, 3, padding=1, alpha_in=0.25, alpha_out=0.5).bfloat16()
    assert_fused_equals_plain(conv, split(torch.randn(2, 16, 7, 8).bfloat16(), 0.25), tolerance=0.03)


@pytest.mark.parametrize(
    ("conv", "reason"),
    [
        (lambda: OctConv3d(4, 4, 3, padding=1, alpha_in=0.5, alpha_out=0.5), "its kernel has no 2-D view"),
        (lambda: OctConv2d(4, 4, 3, alpha_in=0.5, alpha_out=0.5), "its padding does not keep the size"),
        (lambda: OctConv2d(4, 4, 3, padding=1, alpha_in=0.5, alpha_out=0.5).double(), "float32 and bfloat16 on a CPU"),
        (
            lambda: OctConv2d(4, 4, 3, padding=1, padding_mode="reflect", alpha_in=0.5, alpha_out=0.5),
            "only zero padding",
        ),
    ],
)
def test_what_stays_as_it_is(conv, reason):
    assert reason in why_not_fused(conv())
