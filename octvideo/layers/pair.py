"""The octave pair: one feature map kept as a high- and a low-frequency part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

OCTAVES: dict[str, dict[int, tuple[int, ...]]] = {
    "spatial": {2: (2, 2), 3: (1, 2, 2)},
    "temporal": {1: (2,), 3: (2, 1, 1)},
    "spatiotemporal": {3: (2, 2, 2)},
}
"""How many times smaller the low part is on each axis, by the octave's name and the number of axes."""


class OctPair(NamedTuple):
    """A feature map in two parts, the second an octave smaller (Chen et al. 2019, section 3.1).

    Args:
        high: the first (1 - alpha) of the channels at full size.
        low: the last alpha of the channels, every octave axis halved (rounded up).

    Shape:
        high (N, C - floor(alpha C), T, H, W); low (N, floor(alpha C), ceil(T/f_t), ceil(H/f_h), ceil(W/f_w)), with the
        factors f of `octave_factors`. A part may have no channels; it still carries its size.

    A pair adds to a pair part by part, and to a tensor as if that were `split` first; element-wise functions of torch
    (`torch.relu(pair)`, ...) and `torch.cat` act on both parts, any other torch function raises a TypeError.
    """

    high: Tensor
    low: Tensor

    def __add__(self, other: Any) -> OctPair:
        other = like(other, self)
        return OctPair(self.high + other.high, self.low + other.low)

    def __radd__(self, other: Any) -> OctPair:
        return self + other

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from octvideo.layers.dispatch import call_on_pairs  # the table there needs this class

        return call_on_pairs(func, args, kwargs or {})


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
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 <= alpha <= 1:
        raise ValueError(f"{name} is the low-frequency share of the channels, from 0 to 1; got {alpha!r}")


def low_channels(channels: int, alpha: float) -> int:
    """Return floor(alpha * channels), free of binary rounding: .7 of 10 channels are 7, not 6."""
    return math.floor(Fraction(str(alpha)) * channels)


def low_size(high_size: Sequence[int], factors: Sequence[int]) -> tuple[int, ...]:
    """Return the low part's size on each axis, ceil(n / factor)."""
    return tuple(-(-n // f) for n, f in zip(high_size, factors, strict=True))


def avg_pool(x: Tensor, factors: Sequence[int]) -> Tensor:
    """Average over windows of `factors`; a window at the end averages only what lies inside (size ceil(n / factor)).

    Five-dimensional maps are pooled through 2-D views: the result is the same (a mean over a box is a mean of means),
    it costs a fraction of `avg_pool3d` on a CPU, and works in bfloat16 there.

    Shape:
        (N, C, *size) -> (N, C, *ceil(size / factors)).
    """
    if all(f == 1 for f in factors):
        return x
    if not x.shape[1]:
        return x.new_empty(x.shape[0], 0, *low_size(x.shape[2:], factors))
    if x.dim() == 3:
        return F.avg_pool1d(x, tuple(factors), ceil_mode=True, count_include_pad=False)
    if x.dim() == 4:
        return _avg_pool_2d(x, factors)
    t, *plane = factors
    if any(f != 1 for f in plane):
        x = _avg_pool_2d(x.flatten(1, 2), plane).unflatten(1, x.shape[1:3])  # (N, C T, H, W)
    if t != 1:
        x = _avg_pool_2d(x.flatten(3, 4), (t, 1)).unflatten(3, x.shape[3:5])  # (N, C, T, H W)
    return x


def _avg_pool_2d(x: Tensor, factors: Sequence[int]) -> Tensor:
    return F.avg_pool2d(x, tuple(factors), ceil_mode=True, count_include_pad=False)


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Repeat every element along the axes that are smaller than `size`, cropped to `size` (nearest neighbour).

    Shape:
        (N, C, *ceil(size / factors)) -> (N, C, *size), factors 1 or 2.
    """
    if tuple(x.shape[2:]) == tuple(size):
        return x
    if not x.shape[1]:
        return x.new_empty(x.shape[0], 0, *size)
    return F.interpolate(x, size=tuple(size), mode="nearest")


def split(x: Tensor, alpha: float, octave: str = "spatial") -> OctPair:
    """Split a dense map into a pair: the last floor(alpha C) channels are average-pooled by an octave.

    Shape:
        (N, C, T, H, W) -> see `OctPair`.
    """
    check_alpha(alpha)
    low = low_channels(x.shape[1], alpha)
    factors = octave_factors(octave, x.dim() - 2)
    return OctPair(x[:, : x.shape[1] - low], avg_pool(x[:, x.shape[1] - low :], factors))


def merge(x: OctPair | Tensor, segments: Sequence[tuple[int, int]] | None = None) -> Tensor:
    """Return the dense map of a pair: the low part up-sampled behind the high one; a tensor passes as it is.

    Args:
        x: pair or tensor.
        segments: (high, low) channel counts of the maps that were concatenated to this pair, in the dense order; None
            for a pair of one map. The dense order is restored.

    Shape:
        `OctPair` -> (N, C_high + C_low, T, H, W).
    """
    if isinstance(x, Tensor):
        return x
    low = upsample(x.low, x.high.shape[2:])
    if segments is None or len(segments) == 1:
        return torch.cat([x.high, low], dim=1)
    highs = x.high.split([h for h, _ in segments], dim=1)
    lows = low.split([n for _, n in segments], dim=1)
    return torch.cat([part for pair in zip(highs, lows, strict=True) for part in pair], dim=1)


def like(x: OctPair | Tensor, reference: OctPair) -> OctPair:
    """Return `x` as a pair with the channel split and the sizes of `reference`.

    Raises:
        TypeError: when x is neither.
        ValueError: when the channels or sizes differ, naming the part.
    """
    if isinstance(x, Tensor):
        x = _split_like(x, reference)
    if not isinstance(x, OctPair):
        raise TypeError(f"only a pair or a tensor can be added to an octave pair; got {type(x).__name__}")
    for part, given, expected in zip(("high", "low"), x, reference, strict=True):
        if given.shape[1:] != expected.shape[1:]:
            raise ValueError(
                f"the {part} parts of two pairs differ: {tuple(given.shape)} against {tuple(expected.shape)}; "
                "pairs that are added need the same alpha, octave and size"
            )
    return x


def _split_like(x: Tensor, reference: OctPair) -> OctPair:
    high = reference.high.shape[1]
    if x.dim() != reference.high.dim() or x.shape[1] != high + reference.low.shape[1]:
        raise ValueError(
            f"a tensor of shape {tuple(x.shape)} cannot join a pair of {high} high and "
            f"{reference.low.shape[1]} low channels of size {tuple(reference.high.shape[2:])}"
        )
    sizes = zip(reference.high.shape[2:], reference.low.shape[2:], strict=True)
    return OctPair(x[:, :high], avg_pool(x[:, high:], [1 if h == n else 2 for h, n in sizes]))


def concat(pairs: Sequence[OctPair | Tensor]) -> OctPair:
    """Concatenate pairs (and tensors, which are all high) along the channels, part by part.

    The result's channels are no longer in the dense order (high and low of the first, high and low of the second, ...):
    the layer that reads them needs their `segments`.

    Shape:
        pairs of (H_i, L_i) channels -> sum(H_i) high and sum(L_i) low channels.
    """
    highs = [p if isinstance(p, Tensor) else p.high for p in pairs]
    lows = [p.low for p in pairs if isinstance(p, OctPair)]
    return OctPair(torch.cat(highs, dim=1), torch.cat(lows, dim=1))
