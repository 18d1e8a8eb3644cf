"""What the two parts of a pair give each other, and its gradients: each in one pass over the large map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from octvideo.kernels.library import library, three
from octvideo.kernels.maps import empty_map, row_step, size_of


def pool(high: Tensor, pooled: Tensor, factors: Sequence[int], sums: bool = False) -> None:
    """Write the means over cells of `factors`, or their sums, into `pooled`; those at the end are of what lies inside.

    With factors of 1 it copies.

    Shape:
        high (N, C, *size), a map that the kernels take or some channels of a wider one; pooled (N, C, *ceil(size /
        factors)), which may be some channels of a wider map, too. Factors are 1 or 2.

    Raises:
        ValueError: another shape or type of `pooled`, or channels of one of them lie apart.
    """
    _check_low("pooled", pooled, high, factors)
    if row_step(high) is None:
        raise ValueError(f"high must be a channels-last map; got {tuple(high.shape)} with strides {high.stride()}")
    library(high.dtype).pool(  # type: ignore[union-attr]
        high.data_ptr(), row_step(high), pooled.data_ptr(), high.shape[0], size_of(high), row_step(pooled),
        three(factors), sums, torch.get_num_threads(),
    )  # fmt: skip


def add_upsampled(high: Tensor, low: Tensor, factors: Sequence[int], means: bool = False) -> Tensor:
    """A new map `high + upsample(low)`; with `means` each element of low is shared out among the places of its cell.

    Shape:
        high (N, C, *size), which the kernels take; low (N, C, *ceil(size / factors)), which may be some channels of a
        wider map -> (N, C, *size). Factors are 1 or 2.

    Raises:
        ValueError: another shape or type of `low`, or its channels lie apart.
    """
    _check_low("low", low, high, factors)
    out = torch.empty_like(high)
    library(high.dtype).add_upsampled(  # type: ignore[union-attr]
        high.data_ptr(), low.data_ptr(), out.data_ptr(), high.shape[0], size_of(high), row_step(low), three(factors),
        means, torch.get_num_threads(),
    )  # fmt: skip
    return out


def join(*parts: tuple[Tensor, Sequence[int]]) -> Tensor:
    """A new map of the channels of several, side by side in their order, each pooled by its factors as by `pool`.

    Args:
        parts: map, which the kernels take, and factors; one whose factors are all 1 is copied, and may be any.

    Shape:
        (N, C_i, *size_i), with one ceil(size_i / factors_i) for all -> (N, sum of C_i, *ceil(size_i / factors_i)).

    Raises:
        ValueError: sizes or types differ, or a factor is neither 1 nor 2.
    """
    first, factors = parts[0]
    joined = empty_map(first.shape[0], sum(x.shape[1] for x, _ in parts), _low_size(first, factors), first.dtype)
    for (x, factors), room in zip(parts, joined.split([x.shape[1] for x, _ in parts], 1), strict=True):
        _check_low("joined", room, x, factors)
        if max(factors) > 1:
            pool(x, room, factors)
        else:
            room.copy_(x)
    return joined


def _low_size(high: Tensor, factors: Sequence[int]) -> tuple[int, ...]:
    return tuple(-(-n // f) for n, f in zip(high.shape[2:], factors, strict=True))


def _check_low(name: str, low: Tensor, high: Tensor, factors: Sequence[int]) -> None:
    if not set(factors) <= {1, 2}:
        raise ValueError(f"factors must be 1 or 2; got {tuple(factors)}")
    shape = (*high.shape[:2], *_low_size(high, factors))
    if tuple(low.shape) != shape or low.dtype != high.dtype or row_step(low) is None:
        raise ValueError(
            f"{name} must be a channels-last map of shape {shape} and {high.dtype}, one cell of {tuple(factors)} an "
            f"element; got {tuple(low.shape)} with strides {low.stride()} and {low.dtype}"
        )
