"""Fused convolutions of any widths, kernels and sizes equal octave convolutions in float64.

Tables of cases hold what somebody thought of; which widths a kernel pads, splits and reads in place is another matter.
"""

import copy
import random

import pytest
import torch

from octvideo.kernels import LAYOUTS, library
from octvideo.layers import OctConv3d, OctPair, split
from octvideo.runtime import fused
from octvideo.runtime.fused import FusedConv
from octvideo.runtime.moves import Moves

NUM_CASES = 300
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.04}  # of the largest number
POINTWISE = (1, 1, 1)
KERNELS = [(1, 3, 3), (3, 1, 1), (3, 3, 3), (1, 1, 3), (1, 5, 5), (5, 1, 1)]


def random_widths(rng, most):
    """Channels and their low share: parts that fill instructions, or are some channels short of it, and any others."""
    if rng.random() < 0.3:
        return rng.randint(1, most), rng.choice([0, 1, rng.random()])
    unit = 2 * rng.randint(4, 16)
    low = unit * rng.randint(0, 2)
    high = max(min(unit * rng.randint(0, 5), most) - rng.choice([0, rng.randint(0, 7)]), 1)
    return high + low, low / (high + low)


def random_convolution(rng, dtype):
    """An octave convolution; half of them are pointwise, where the widths decide the most."""
    kernel = POINTWISE if rng.random() < 0.5 else rng.choice(KERNELS)
    most = 256 if kernel == POINTWISE else 48
    (channels, alpha_in), (out_channels, alpha_out) = random_widths(rng, most), random_widths(rng, 64)
    dilation = rng.choice([(1, 1, 1), (1, 1, 1), (1, 2, 2)])
    return OctConv3d(
        channels, out_channels, kernel,
        stride=rng.choice([(1, 1, 1), (1, 1, 1), (1, 1, 1), tuple(rng.choice([1, 2]) for _ in kernel)]),
        padding=tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True)),
        dilation=dilation,
        bias=rng.random() < 0.7,
        alpha_in=alpha_in,
        alpha_out=alpha_out,
        octave=rng.choice(["spatial", "temporal", "spatiotemporal"]),
        exchange=rng.choice(["both", "both", "both", "both", "high_to_low", "low_to_high"]),
    ).to(dtype)  # fmt: skip


def random_input(rng, conv, dtype):
    size = rng.randint(1, 4), rng.randint(1, 11), rng.randint(1, 11)
    x = torch.randn(rng.randint(1, 2), conv.in_channels, *size).to(dtype).contiguous(memory_format=LAYOUTS[5])
    if not conv.alpha_in:
        return x
    return split(x, conv.alpha_in, conv.octave).map(lambda part: part.contiguous(memory_format=LAYOUTS[5]))


def map_parts(x, func):
    return x.map(func) if isinstance(x, OctPair) else func(x)


def parts(x):
    return x.parts if isinstance(x, OctPair) else (x,)


def is_near(got, expected, tolerance):
    pairs = list(zip(parts(got), parts(expected), strict=True))
    largest = max(1.0, *(float(b.abs().max()) for _, b in pairs if b.numel()))
    return all(a.shape == b.shape and bool(((a.double() - b).abs() <= tolerance * largest).all()) for a, b in pairs)


def check_case(seed, dtype):
    """Whether there is such a convolution; one that there is equals its oracle."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    try:
        conv = random_convolution(rng, dtype)
    except ValueError as error:
        if "output without an input" not in str(error):
            raise
        return False  # no path leads to one of the parts
    x, relu = random_input(rng, conv, dtype), rng.random() < 0.5
    fast = FusedConv(conv, relu)
    fast.joins = rng.random() < 0.4
    expected, summand = copy.deepcopy(conv).double()(map_parts(x, torch.Tensor.double)), None
    if rng.random() < 0.5:
        summand = map_parts(expected, lambda part: part.cos().to(dtype))
        expected = expected + map_parts(summand, torch.Tensor.double)
    got = fast(x, summand)
    assert is_near(got, expected.relu() if relu else expected, TOLERANCES[dtype]), (
        f"case {seed}: {conv} of {[tuple(part.shape) for part in parts(x)]}, joins={fast.joins}, relu={relu}, "
        f"{'no' if summand is None else 'a'} summand"
    )
    return True


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("matrices", [True, False], ids=["matrices", "vectors"])
def test_random_convolutions(dtype, matrices, monkeypatch):
    if not fused.tiles_take(dtype, 4, Moves(POINTWISE, POINTWISE, (0, 0, 0), POINTWISE)):
        pytest.skip("no kernel for this processor and type")
    if matrices and not library._has_matrices():
        pytest.skip("the processor has no matrix instructions")
    monkeypatch.setattr(fused, "tiles_use_matrices", lambda *_: matrices)
    with torch.no_grad():
        num_checked = sum(check_case(seed, dtype) for seed in range(NUM_CASES))
    assert num_checked > 0.9 * NUM_CASES
