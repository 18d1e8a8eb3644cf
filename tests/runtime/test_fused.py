"""Convolutions that add and rectify as they write equal the plain ones."""

import copy
import itertools
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from octvideo.layers import OctConv2d, OctConv3d, OctPair, concat, octave_from_dense, split
from octvideo.runtime import fused
from octvideo.runtime.fused import FusedConv, why_not_fused
from octvideo.runtime.moves import Moves

ALPHAS = ((0, 0.25), (0.25, 0.25), (0.25, 0), (0, 0), (1, 0.5), (0.5, 1))
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def assert_fused_equals_plain(conv, x, tolerance=1e-5):
    with torch.no_grad():
        expected = conv(x)
        assert_equal(FusedConv(conv, relu=False)(x), expected, tolerance)
        assert_equal(FusedConv(conv, relu=True)(x), expected.relu(), tolerance)
        shortcut = expected.cos() if isinstance(expected, torch.Tensor) else expected.map(torch.cos)
        for relu, in_place in itertools.product((False, True), (False, True)):
            fused = FusedConv(conv, relu)
            fused.in_place = in_place
            total = expected + shortcut
            summand = copy.deepcopy(shortcut)
            assert_equal(fused(x, summand), total.relu() if relu else total, tolerance)
            assert in_place or equal(summand, shortcut)


def parts(x):
    return (x,) if isinstance(x, torch.Tensor) else x.parts


def equal(a, b):
    return all(torch.equal(p, q) for p, q in zip(parts(a), parts(b), strict=True))


def assert_equal(got, expected, tolerance):
    for a, b in zip(parts(got), parts(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.fixture(params=["tiles", "onednn"])
def kernels(request, monkeypatch):
    if request.param == "onednn":
        monkeypatch.setattr(fused, "tiles_take", lambda *_: False)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("octave", ["spatial", "temporal", "spatiotemporal"])
@pytest.mark.parametrize("kernel", [(1, 1, 1), (1, 3, 3), (3, 1, 1), (3, 3, 3)])
def test_videos(kernel, octave):
    for stride, alphas in itertools.product([(1, 1, 1), (1, 2, 2), (2, 1, 1), (2, 2, 2), (4, 1, 1)], ALPHAS):
        padding = tuple(k // 2 for k in kernel)
        conv = OctConv3d(16, 24, kernel, stride, padding, alpha_in=alphas[0], alpha_out=alphas[1], octave=octave)
        x = torch.randn(2, 16, 5, 9, 8).contiguous(memory_format=LAYOUTS[5])
        assert why_not_fused(conv) is None
        assert_fused_equals_plain(conv, split(x, alphas[0], octave) if alphas[0] else x)


@pytest.mark.parametrize("octave", ["spatial", "temporal", "spatiotemporal"])
@pytest.mark.parametrize("joins", [False, True])
def test_low_outputs_that_are_pooled_after_the_convolution(joins, octave, monkeypatch):
    """The same as from a pooled input, by each kind of kernel, with and without a low input, at odd borders."""
    for dtype, matrices in itertools.product((torch.float32, torch.bfloat16), (False, True)):
        if not fused.tiles_take(dtype, 4, Moves((1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1))):
            continue
        monkeypatch.setattr(FusedConv, "_uses_matrices", lambda *_, matrices=matrices: matrices)
        for kernel, alphas in itertools.product(
            [(1, 1, 1), (3, 1, 1), (1, 3, 3)], [(0, 0.25), (0.25, 0.25), (0.5, 0.5)]
        ):
            padding = tuple(k // 2 for k in kernel)
            conv = OctConv3d(24, 24, kernel, 1, padding, alpha_in=alphas[0], alpha_out=alphas[1], octave=octave).to(
                dtype
            )
            high = torch.randn(2, 24, 5, 7, 9).to(dtype).contiguous(memory_format=LAYOUTS[5])
            x = split(high, alphas[0], octave) if alphas[0] else high
            results = []
            for most in (0, 48):
                monkeypatch.setattr(fused, "MOST_POOLED_AFTER", {dtype: most})
                for relu in (False, True):
                    fast = FusedConv(conv, relu)
                    fast.joins = joins
                    moves = any(f > 1 and k > 1 for f, k in zip(fast.factors, kernel, strict=True))
                    assert fast.pools_after == (most > 0 and matrices and not moves)
                    with torch.no_grad():
                        results.append(fast(x))
                        expected = conv(x).relu() if relu else conv(x)
                    assert_equal(results[-1], expected, 1e-5 if dtype == torch.float32 else 0.03)
            if joins:
                assert_near = partial(torch.testing.assert_close, rtol=0.03, atol=0.03)
                assert_near(results[2].joined, results[0].joined)
                assert_near(results[3].joined, results[1].joined)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("kernel", [(1, 1, 1), (3, 1, 1)])
def test_many_outputs(kernel):
    """Those for which matrix instructions pay with float32, too."""
    padding = tuple(k // 2 for k in kernel)
    for stride, alphas in itertools.product([(1, 1, 1), (1, 2, 2)], ALPHAS):
        conv = OctConv3d(36, 256, kernel, stride, padding, alpha_in=alphas[0], alpha_out=alphas[1], octave="spatial")
        x = torch.randn(2, 36, 3, 7, 8).contiguous(memory_format=LAYOUTS[5])
        assert_fused_equals_plain(conv, split(x, alphas[0], "spatial") if alphas[0] else x)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((5, 7, 7), (1, 2, 2), (2, 3, 3), 1),  # I3D's stem
        ((2, 4, 5), (1, 1, 3), (0, 0, 0), 1),
        ((1, 3, 3), 1, (1, 0, 2), 1),
        ((3, 1, 1), (2, 1, 1), (0, 1, 0), 1),
        ((3, 3, 3), 1, (1, 2, 3), (1, 2, 2)),
        ((3, 7, 5), (2, 3, 2), (1, 3, 2), 1),
        ((2, 3, 3), (1, 4, 1), (1, 1, 1), (1, 2, 1)),
        ((1, 4, 9), (1, 2, 1), (0, 1, 4), 1),  # windows that fill more than one vector
    ],
)
def test_dense_convolutions_of_any_padding(channels, kernel, stride, padding, dilation):
    for out_channels in (6, 40):
        conv = octave_from_dense(nn.Conv3d(channels, out_channels, kernel, stride, padding, dilation), 0, 0)
        assert_fused_equals_plain(conv, torch.randn(2, channels, 6, 17, 14))
    image = octave_from_dense(nn.Conv2d(channels, 6, (3, 7), 2, (0, 3)), 0, 0)
    assert_fused_equals_plain(image, torch.randn(2, channels, 17, 14))


@pytest.mark.usefixtures("kernels")
def test_windows_of_more_channels_than_a_kernel_takes():
    """On the way to the kernel a stem's few channels become as many as its window is wide times more."""
    conv = octave_from_dense(nn.Conv2d(3, 8, (3, 8000), padding=(1, 0)), 0, 0)
    x = torch.randn(1, 3, 4, 8100)
    with torch.no_grad():
        assert_equal(FusedConv(conv, relu=False)(x), conv(x), 1e-4)


@pytest.mark.usefixtures("kernels")
def test_copies():
    conv = OctConv2d(8, 8, 3, padding=1, alpha_in=0.25, alpha_out=0.25)
    pair, fused_conv = split(torch.randn(2, 8, 6, 6), 0.25), FusedConv(conv, relu=True)
    with torch.no_grad():
        expected = fused_conv(pair)
        for copied in (copy.deepcopy(fused_conv), pickle.loads(pickle.dumps(fused_conv))):
            assert_equal(copied(pair), expected, 0)


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (torch.zeros(1, 8, 6, 6, dtype=torch.double), "takes torch.float32 maps on a CPU; got torch.float64 on cpu"),
        (torch.zeros(1, 8, 6, 6, dtype=torch.uint8), "got torch.uint8"),
        (torch.zeros(1, 8, 6, 6, device="meta"), "on meta: optimize the network for these"),
        (torch.zeros(1, 7, 6, 6), r"takes 8 channels and 2 axes; got \(1, 7, 6, 6\)"),
        (torch.zeros(8, 6, 6), r"takes 8 channels and 2 axes; got \(8, 6, 6\)"),
        (torch.zeros(1, 8, 3, 9), r"size \(3, 9\) is too small for a kernel of \(5, 5\)"),
        (OctPair(torch.zeros(1, 6, 6, 6), torch.zeros(1, 2, 3, 3), ((6, 2),)), "the high part must be"),
    ],
)
def test_maps_that_do_not_fit_are_refused(x, error):
    fused_conv = FusedConv(octave_from_dense(nn.Conv2d(8, 4, 5), 0, 0), relu=True)
    with torch.no_grad(), pytest.raises(ValueError, match=error):
        fused_conv(x)


def test_pixels_that_do_not_fit_are_refused():
    stem = FusedConv(octave_from_dense(nn.Conv2d(3, 8, 7), 0, 0), relu=True)
    with torch.no_grad(), pytest.raises(ValueError, match=r"size \(20, 5\) is too small for a kernel of width 7"):
        stem(torch.zeros(1, 3, 20, 5))


def test_summands_of_wrong_size_are_refused():
    fused_conv = FusedConv(OctConv2d(8, 8, 1, alpha_in=0.25, alpha_out=0.25), relu=True)
    pair, summand = split(torch.zeros(1, 8, 6, 6), 0.25), OctPair(torch.zeros(1, 6, 6, 6), torch.zeros(1, 2, 1, 1))
    with torch.no_grad(), pytest.raises(ValueError, match="the low parts of two pairs differ"):
        fused_conv(pair, summand)


def test_pairs_of_wrong_size_are_refused():
    fused_conv = FusedConv(OctConv2d(8, 8, 3, padding=1, alpha_in=0.25, alpha_out=0.25), relu=True)
    pair = OctPair(torch.zeros(1, 6, 64, 64), torch.zeros(1, 2, 2, 2), ((6, 2),))
    with torch.no_grad(), pytest.raises(ValueError, match=r"must have size \(32, 32\)"):
        fused_conv(pair)
    with torch.no_grad(), pytest.raises(ValueError, match="takes a pair with 2 low channels"):
        fused_conv(torch.zeros(1, 8, 6, 6))


def test_a_summand_that_is_broadcast_or_of_another_kind():
    conv = OctConv2d(8, 8, 3, padding=1, alpha_in=0.25, alpha_out=0.25)
    pair, dense = split(torch.randn(2, 8, 6, 6), 0.25), octave_from_dense(nn.Conv2d(8, 8, 1), 0, 0)
    with torch.no_grad():
        for module, x, summand in [
            (conv, pair, torch.randn(2, 8, 6, 6)),
            (conv, pair, torch.randn(1, 8, 1, 1)),
            (dense, torch.randn(2, 8, 6, 6), torch.randn(8, 1, 1)),
        ]:
            fused = FusedConv(module, relu=True)
            fused.in_place = True
            before = summand.clone()
            assert_equal(fused(x, summand), (module(x) + summand).relu(), 1e-5)
            assert torch.equal(summand, before)


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
        (lambda: OctConv2d(4, 4, 4, padding="same", alpha_in=0, alpha_out=0), "its padding differs"),
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
