"""The sizes of the two parts, and the way from one to the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from octvideo.layers.lowering import avg_pool2d, avg_pool3d, is_channels_last

OCTAVES: dict[str, dict[int, tuple[int, ...]]] = {
    "spatial": {2: (2, 2), 3: (1, 2, 2)},
    "temporal": {1: (2,), 3: (2, 1, 1)},
    "spatiotemporal": {3: (2, 2, 2)},
}
"""How many times smaller the low part is on each axis, by the octave's name and the number of axes."""


def octave_factors(octave: str, num_axes: int = 3) -> tuple[int, ...]:
    """Return how many times smaller the low part is on each of `num_axes` axes (T, H, W).

    Raises:
        ValueError: for an octave that is unknown, or that has no such axis.
    """
    if octave not in OCTAVES:
        raise ValueError(f"octave must be one of {', '.join(OCTAVES)}; got {octave!r}")
    if num_axes not in OCTAVES[octave]:
        known = ", ".join(f"{n}-D" for n in OCTAVES[octave])
        raise ValueError(f"octave {octave!r} exists for {known} convolutions; got a {num_axes}-D one")
    return OCTAVES[octave][num_axes]


def check_alpha(alpha: float, name: str = "alpha") -> None:
    """Raise a ValueError that names the argument unless `alpha` lies in [0, 1]."""
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
        raise ValueError(f"{name} is the low-frequency share of the channels, from 0 to 1; got {alpha!r}")


def low_channels(channels: int, alpha: float, multiple: int = 1) -> int:
    """Return floor(alpha * channels), free of binary rounding: .7 of 10 channels are 7, not 6.

    Args:
        channels: of both parts.
        alpha: low-frequency share, in [0, 1].
        multiple: above 1, the nearest multiple of it, for kernels that are fast on multiples of 8 or 16.
    """
    if multiple == 1:
        return math.floor(alpha * channels + 1e-9)
    return min(math.ceil(alpha * channels / multiple - 0.5 - 1e-9) * multiple, channels)  # a half goes to the smaller


def low_size(high_size: Sequence[int], factors: Sequence[int]) -> tuple[int, ...]:
    """Return the low part's size on each axis, ceil(n / factor)."""
    return tuple(-(-n // f) for n, f in zip(high_size, factors, strict=True))


def factors_between(high: Sequence[int], low: Sequence[int]) -> tuple[int, ...]:
    """The factors by which the size `low` lies below `high`: 1 on each axis where they are the same, else 2."""
    return tuple(1 if n == m else 2 for n, m in zip(high, low, strict=True))


def avg_pool(x: Tensor, factors: Sequence[int]) -> Tensor:
    """Average over windows of `factors`; a window at the end averages only what lies inside (size ceil(n / factor)).

    Shape:
        (N, C, *size) -> (N, C, *ceil(size / factors)).
    """
    return _pool_cells(x, factors, None)


def sum_cells(x: Tensor, factors: Sequence[int]) -> Tensor:
    """Sum over the windows of `avg_pool`: the gradient of `upsample`.

    Shape:
        (N, C, *size) -> (N, C, *ceil(size / factors)).
    """
    return _pool_cells(x, factors, 1)


def cell_sizes(size: Sequence[int], factors: Sequence[int], like: Tensor) -> Tensor | float:
    """How many elements each window of `avg_pool` has: a number, or a map (1, 1, *ceil(size / factors))."""
    if all(n % f == 0 for n, f in zip(size, factors, strict=True)):
        return float(math.prod(factors))
    return sum_cells(like.new_ones(1, 1, *size), factors)


def _pool_cells(x: Tensor, factors: Sequence[int], divisor: int | None) -> Tensor:
    if all(f == 1 for f in factors):
        return x
    if not x.shape[1]:
        return x.new_empty(x.shape[0], 0, *low_size(x.shape[2:], factors))
    if x.dim() == 3:
        return avg_pool2d(x.unsqueeze(2), (1, *factors), divisor).squeeze(2)
    return avg_pool2d(x, factors, divisor) if x.dim() == 4 else avg_pool3d(x, factors, divisor)


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Repeat every element along the axes that are smaller than `size`, cropped to `size` (nearest neighbour).

    Shape:
        (N, C, *ceil(size / factors)) -> (N, C, *size), factors 1 or 2.
    """
    if tuple(x.shape[2:]) == tuple(size):
        return x
    if not x.shape[1]:
        return x.new_empty(x.shape[0], 0, *size)
    # By whole factors, then cropped: with `size` torch computes in float32 which element is the nearest.
    factors = [1.0 if n == m else 2.0 for n, m in zip(x.shape[2:], size, strict=True)]
    out = crop(F.interpolate(x, scale_factor=factors, mode="nearest"), size)
    return out.contiguous(memory_format=torch.channels_last_3d) if is_channels_last(x) else out


def crop(x: Tensor, size: Sequence[int]) -> Tensor:
    """Cut off what is beyond `size` at the end of each axis.

    Shape:
        (N, C, *any) -> (N, C, *size).
    """
    for axis, n in enumerate(size, start=2):
        if x.shape[axis] != n:  # the backward pass of a slice is a map of zeros and a copy, even where nothing is cut
            x = x.narrow(axis, 0, n)
    return x
