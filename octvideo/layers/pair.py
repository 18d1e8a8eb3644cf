"""The octave pair: one feature map kept as a high- and a low-frequency part."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

from octvideo.layers.channels import HIGH, LOW, Segments, count, join, take

OCTAVES: dict[str, dict[int, tuple[int, ...]]] = {
    "spatial": {2: (2, 2), 3: (1, 2, 2)},
    "temporal": {1: (2,), 3: (2, 1, 1)},
    "spatiotemporal": {3: (2, 2, 2)},
}
"""How many times smaller the low part is on each axis, by the octave's name and the number of axes."""


class OctPair:
    """A feature map in two parts, the second an octave smaller (Chen et al. 2019, section 3.1).

    It stands for a dense map of C channels. Arithmetic, activations and dropout act on both parts; `torch.cat` along
    the channels joins part to part; global pooling gives a tensor. Every other torch function, method or attribute
    sees the dense map, `merge(pair)`.

    Args:
        high: the high channels at full size.
        low: the low channels, every octave axis halved (rounded up).
        segments: which channels of the dense map are high and which low; None for the high ones before the low ones.

    Shape:
        high (N, C - floor(alpha C), T, H, W); low (N, floor(alpha C), ceil(T/f_t), ceil(H/f_h), ceil(W/f_w)), with the
        factors f of `octave_factors`. A part may have no channels; it still carries its size.

    Example:
        >>> high, low = OctPair(torch.ones(1, 6, 4, 4), torch.ones(1, 2, 2, 2)) * 3
        >>> high.shape, low.shape
        (torch.Size([1, 6, 4, 4]), torch.Size([1, 2, 2, 2]))
    """

    def __init__(self, high: Tensor, low: Tensor, segments: Segments | None = None) -> None:
        self.high, self.low = high, low
        self.segments = segments or ((high.shape[1], low.shape[1]),)

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.high, self.low))

    def __repr__(self) -> str:
        return f"OctPair(high={tuple(self.high.shape)}, low={tuple(self.low.shape)})"

    def map(self, func: Callable[[Tensor], Tensor]) -> OctPair:
        """Apply a function to each part; it must keep the channels."""
        return OctPair(func(self.high), func(self.low), self.segments)

    def map_parts(self, func: Callable[[Tensor, int], Tensor]) -> OctPair:
        """`map` with a function that is also told the part: 0 is high, 1 is low."""
        return OctPair(func(self.high, HIGH), func(self.low, LOW), self.segments)

    def combine(self, other: Any, func: Callable[[Any, Any], Tensor]) -> OctPair:
        """Apply a function of two arguments part by part; `other` is a pair, a tensor (see `like`) or a number."""
        if isinstance(other, (int, float)):
            return self.map(lambda part: func(part, other))
        other = like(other, self)
        return OctPair(func(self.high, other.high), func(self.low, other.low), self.segments)

    def __add__(self, other: Any) -> OctPair:
        return self.combine(other, operator.add)

    def __sub__(self, other: Any) -> OctPair:
        return self.combine(other, operator.sub)

    def __mul__(self, other: Any) -> OctPair:
        return self.combine(other, operator.mul)

    def __truediv__(self, other: Any) -> OctPair:
        return self.combine(other, operator.truediv)

    def __rsub__(self, other: Any) -> OctPair:
        return self.combine(other, lambda a, b: b - a)

    def __neg__(self) -> OctPair:
        return self.map(operator.neg)

    __radd__ = __iadd__ = __add__
    __rmul__ = __imul__ = __mul__
    __isub__, __itruediv__ = __sub__, __truediv__

    def __getitem__(self, index: Any) -> Tensor:
        return merge(self)[index]

    def __getattr__(self, name: str) -> Any:
        from octvideo.layers.dispatch import tensor_attribute  # the tables there need this class

        return tensor_attribute(self, name)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from octvideo.layers.dispatch import call_on_pairs

        return call_on_pairs(func, args, kwargs or {})


pytree.register_pytree_node(
    OctPair,
    lambda pair: ([pair.high, pair.low], pair.segments),
    lambda parts, segments: OctPair(parts[0], parts[1], segments),  # type: ignore[index]
    serialized_type_name="octvideo.OctPair",
    to_dumpable_context=lambda segments: [list(s) for s in segments],
    from_dumpable_context=lambda segments: tuple(tuple(s) for s in segments),
)


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


def low_channels(channels: int, alpha: float) -> int:
    """Return floor(alpha * channels), free of binary rounding: .7 of 10 channels are 7, not 6."""
    return math.floor(alpha * channels + 1e-9)


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


def merge(x: OctPair | Tensor) -> Tensor:
    """Return the dense map of a pair, its low channels up-sampled, in the dense order; a tensor passes as it is.

    Shape:
        `OctPair` -> (N, C_high + C_low, T, H, W).
    """
    if isinstance(x, Tensor):
        return x
    return join(x.high, upsample(x.low, x.high.shape[2:]), x.segments)


def like(x: OctPair | Tensor, reference: OctPair) -> OctPair:
    """Return `x` as a pair with the channels and the sizes of `reference`.

    A tensor may have one channel, or size 1 on every axis (a gain per channel); it is split as `split` does.

    Raises:
        TypeError: when x is neither.
        ValueError: when the channels or sizes differ, naming the part.
    """
    if isinstance(x, Tensor):
        return _split_like(x, reference)
    if not isinstance(x, OctPair):
        raise TypeError(f"only a pair, a tensor or a number can meet an octave pair; got {type(x).__name__}")
    for part, given, expected in zip(("high", "low"), x, reference, strict=True):
        if given.shape[1:] != expected.shape[1:]:
            raise ValueError(
                f"the {part} parts of two pairs differ: {tuple(given.shape)} against {tuple(expected.shape)}; "
                "pairs that meet need the same alpha, octave and size"
            )
    if x.segments != reference.segments:
        raise ValueError(f"two pairs have their low channels in other places: {x.segments} and {reference.segments}")
    return x


def _split_like(x: Tensor, reference: OctPair) -> OctPair:
    high, low = reference
    per_channel = all(n == 1 for n in x.shape[2:])
    if x.dim() != high.dim() or x.shape[1] not in (1, high.shape[1] + low.shape[1]):
        raise ValueError(
            f"a tensor of shape {tuple(x.shape)} cannot join a pair of {high.shape[1]} high and "
            f"{low.shape[1]} low channels of size {tuple(high.shape[2:])}"
        )
    if not per_channel and x.shape[2:] != high.shape[2:]:
        raise ValueError(
            f"a tensor of size {tuple(x.shape[2:])} cannot join a pair whose high part has size {tuple(high.shape[2:])}"
        )
    for_high, for_low = (x, x) if x.shape[1] == 1 else (take(x, reference.segments, p, 1) for p in (HIGH, LOW))
    if per_channel:
        return OctPair(for_high, for_low, reference.segments)
    factors = [1 if h == n else 2 for h, n in zip(high.shape[2:], low.shape[2:], strict=True)]
    return OctPair(for_high, avg_pool(for_low, factors), reference.segments)


def concat(maps: Sequence[OctPair | Tensor]) -> OctPair:
    """Concatenate pairs (and tensors, which are all high) along the channels, part by part.

    The result remembers in its `segments` where in the dense order its low channels are.

    Shape:
        pairs of (H_i, L_i) channels -> sum(H_i) high and sum(L_i) low channels.
    """
    highs = [m if isinstance(m, Tensor) else m.high for m in maps]
    lows = [m.low for m in maps if isinstance(m, OctPair)]
    segments = tuple(s for m in maps for s in (m.segments if isinstance(m, OctPair) else ((m.shape[1], 0),)))
    return OctPair(torch.cat(highs, dim=1), torch.cat(lows, dim=1), segments)


def empty_low(x: Tensor, factors: Sequence[int]) -> OctPair:
    """A tensor as a pair without low channels."""
    return OctPair(x, x.new_empty(x.shape[0], 0, *low_size(x.shape[2:], factors)), ((x.shape[1], 0),))


def check_pair(x: OctPair, high: int, low: int, factors: Sequence[int]) -> None:
    """Raise a ValueError that names the wrong part of a pair, what it has and what was expected."""
    for name, part, channels in (("high", x.high, high), ("low", x.low, low)):
        if part.dim() != len(factors) + 2 or part.shape[1] != channels:
            raise ValueError(
                f"the {name} part must be (N, {channels}, {', '.join('THW'[-len(factors) :])}); got {tuple(part.shape)}"
            )
    expected = low_size(x.high.shape[2:], factors)
    if tuple(x.low.shape[2:]) != expected or x.low.shape[0] != x.high.shape[0]:
        raise ValueError(
            f"the low part of a pair whose high part has shape {tuple(x.high.shape)} must have size {expected} and the "
            f"same batch; got {tuple(x.low.shape)}"
        )


def channels_of(x: OctPair) -> int:
    """Number of channels of the dense map that a pair stands for."""
    return count(x.segments, HIGH) + count(x.segments, LOW)
