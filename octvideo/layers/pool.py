"""Pooling of octave pairs."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from octvideo.layers.lowering import is_channels_last, pool_planar
from octvideo.layers.pair import OctPair
from octvideo.layers.replace import with_class
from octvideo.layers.resize import crop, factors_between, low_size

POOLS: tuple[type[nn.Module], ...] = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
)  # fmt: skip
"""Layers that `PairPool` may carry."""


ADAPTIVE_POOLS: tuple[type[nn.Module], ...] = (
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
"""Layers that take pairs as they are, by torch's own functions, and return a tensor."""


class PairPool(nn.Module):
    """Max or average pooling of both parts; the low result stays ceil(high / 2) on the octave axes.

    Args:
        pool: one of torch's max or average poolings.
    """

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool
        self.ceil_pool = copy.copy(pool)
        self.ceil_pool.ceil_mode = True  # type: ignore[assignment]

    def forward(self, x: OctPair | Tensor) -> OctPair | Tensor:
        if isinstance(x, Tensor):
            return self.pool(x)
        return pool_pair(self.pool, self.ceil_pool, self._least_size(x.high.dim() - 2), x)

    def _least_size(self, num_axes: int) -> list[int]:
        pool: Any = self.pool
        return [k - 2 * p for k, p in zip(_reach(pool, num_axes), per_axis(pool.padding, num_axes), strict=True)]


class PlanarAvgPool3d(nn.AvgPool3d):
    """Average pooling that of a channels-last map runs through 2-D views, which is faster and knows bfloat16."""

    def forward(self, input: Tensor) -> Tensor:
        pool2d = functools.partial(F.avg_pool2d, ceil_mode=self.ceil_mode, count_include_pad=self.count_include_pad)
        return _pool_planar(self, input, pool2d, super().forward)


class ClippedAvgPool3d(nn.AvgPool3d):
    """Average pooling whose window is clipped to the map: a map smaller than the window is averaged as a whole.

    It takes small clips where `nn.AvgPool3d` raises an error, and is the same on all others.
    """

    planar = False  # a channels-last map runs through 2-D views

    def forward(self, input: Tensor) -> Tensor:
        kernel = [min(k, n) for k, n in zip(per_axis(self.kernel_size, 3), input.shape[2:], strict=True)]
        if self.planar and _goes_by_planes(input):
            return pool_planar(input, F.avg_pool2d, kernel, per_axis(self.stride, 3), (0, 0, 0))
        return F.avg_pool3d(input, kernel, self.stride)


class PlanarMaxPool3d(nn.MaxPool3d):
    """Maximum pooling that of a channels-last map runs through 2-D views, which is faster."""

    def forward(self, input: Tensor) -> Tensor:
        return _pool_planar(self, input, functools.partial(F.max_pool2d, ceil_mode=self.ceil_mode), super().forward)


def _pool_planar(pool: Any, x: Tensor, pool2d: Callable[..., Tensor], pool3d: Callable[[Tensor], Tensor]) -> Tensor:
    if not _goes_by_planes(x):
        return pool3d(x)
    kernel, stride, padding = (per_axis(v, 3) for v in (pool.kernel_size, pool.stride, pool.padding))
    return pool_planar(x, pool2d, kernel, stride, padding)


def _goes_by_planes(x: Tensor) -> bool:
    """True for channels-last maps, and in the types for which torch has no average pooling of videos on a CPU."""
    in_half = x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16)
    return is_channels_last(x) or (in_half and x.dim() == 5)


def clip_window(pool: nn.Module) -> nn.Module | None:
    """The clipped layer for an `nn.AvgPool3d` that slides over its map step by step, as those of heads do, or None."""
    if type(pool) is not nn.AvgPool3d or pool.ceil_mode or pool.divisor_override is not None:
        return None
    slides = set(per_axis(pool.stride, 3)) == {1} and not any(per_axis(pool.padding, 3))
    return with_class(pool, ClippedAvgPool3d) if slides else None


def planar_pool(pool: nn.Module) -> nn.Module | None:
    """The planar layer that computes what `nn.AvgPool3d` or `nn.MaxPool3d` does, or None where there is none."""
    if isinstance(pool, ClippedAvgPool3d):
        new: Any = with_class(pool, ClippedAvgPool3d)
        new.planar = True
        return new
    if type(pool) is nn.AvgPool3d and pool.divisor_override is None:
        return with_class(pool, PlanarAvgPool3d)
    if type(pool) is nn.MaxPool3d and not pool.return_indices:
        return with_class(pool, PlanarMaxPool3d) if set(per_axis(pool.dilation, 3)) == {1} else None
    return None


def pool_pair(
    pool: Callable[[Tensor], Tensor], ceil_pool: Callable[[Tensor], Tensor], least_size: Sequence[int], x: OctPair
) -> OctPair:
    """Pool both parts so that the low result stays an octave below the high one.

    A pooling that rounds down can leave the low part one element short (a map of 6 pooled to 3 has a low part of 3
    pooled to 1, and 2 are needed): the low part is pooled rounding up, and what is too much cut off. A low part that is
    smaller than the window is first extended by its own border.

    Args:
        pool: the pooling, applied to the high part.
        ceil_pool: the same with ceil_mode, applied to the low part.
        least_size: size of the smallest map that the pooling takes.
        x: pair of shape (N, C, *size).
    """
    factors = factors_between(x.high.shape[2:], x.low.shape[2:])
    high = pool_part(pool, x.high)
    low = pool_part(ceil_pool, _extend(x.low, least_size))
    return OctPair(high, crop(low, low_size(high.shape[2:], factors)), x.segments)


def pool_part(pool: Callable[[Tensor], Tensor], part: Tensor) -> Tensor:
    """Pool a part; one without channels still gets its new size (torch refuses to pool it)."""
    if part.shape[1]:
        return pool(part)
    return pool(part.new_zeros(part.shape[0], 1, *part.shape[2:]))[:, :0]


def pools_by_stride(pool: Any) -> bool:
    """True where the pooled size is n / stride, rounded: only then can the low part follow (and indices cannot)."""
    if getattr(pool, "return_indices", False):
        return False
    stride, padding = per_axis(pool.stride, 3), per_axis(pool.padding, 3)
    return all(k - s <= 2 * p for k, s, p in zip(_reach(pool, 3), stride, padding, strict=False))


def _reach(pool: Any, num_axes: int) -> list[int]:
    """Elements from the first to the last of a window."""
    dilation = per_axis(getattr(pool, "dilation", 1), num_axes)
    kernel = per_axis(pool.kernel_size, num_axes)
    return [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=False)]


def per_axis(value: int | Sequence[int], num_axes: int) -> list[int]:
    """A number for each axis."""
    values = [value] if isinstance(value, int) else list(value)
    return values * num_axes if len(values) == 1 else values


def _extend(x: Tensor, least_size: Sequence[int]) -> Tensor:
    missing = [max(least - n, 0) for least, n in zip(least_size, x.shape[2:], strict=True)]
    return F.pad(x, [p for m in reversed(missing) for p in (0, m)], mode="replicate") if any(missing) else x
