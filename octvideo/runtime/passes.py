"""Passes over channels-last maps in C: what two or more of torch's passes do, in one.

Octave networks pool, up-sample, add and concatenate between their convolutions. Each of torch's functions for it reads
and writes whole maps; on a CPU that costs more than the multiply-adds that small alphas save.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from octvideo import kernels
from octvideo.kernels import empty_map, knows, row_step, takes, takes_rows
from octvideo.kernels.library import integers, library, three
from octvideo.kernels.maps import size_of
from octvideo.layers import avg_pool, upsample
from octvideo.runtime.moves import Moves


def join(high: Tensor, low: Tensor, factors: Sequence[int]) -> Tensor:
    """`torch.cat([low, avg_pool(high, factors)], 1)` without a map between.

    Shape:
        high (N, C, *size), low (N, C', *ceil(size / factors)) -> (N, C' + C, *ceil(size / factors)), factors 1 or 2.
    """
    ones = [1] * len(factors)
    pooled = (high, factors) if takes_rows(high) else (avg_pool(high, factors), ones)
    return kernels.join((low, ones), pooled)


def pool(high: Tensor, pooled: Tensor, factors: Sequence[int]) -> None:
    """Write `avg_pool(high, factors)` into `pooled`, which may be some channels of a wider map."""
    if takes_rows(high):
        kernels.pool(high, pooled, factors)
    else:
        pooled.copy_(avg_pool(high, factors))


def lay_pixels(x: Tensor, channels: int, padding: int) -> Tensor:
    """Rows of pixels with the channels side by side, and `padding` pixels of zeros at both ends of a row.

    Shape:
        (N, C, ..., W) -> (N, ..., (W + 2 padding) channels), where channels, C or more, are filled up with zeros.
    """
    if not knows(x):
        return F.pad(x.movedim(1, -1), (0, channels - x.shape[1], padding, padding)).flatten(-2)
    rows = x.new_empty(x.shape[0], *x.shape[2:-1], (x.shape[-1] + 2 * padding) * channels)
    steps = x.stride()[:2] + (0,) * (5 - x.dim()) + x.stride()[2:]
    library(x.dtype).lay_pixels(  # type: ignore[union-attr]
        x.data_ptr(), integers(steps), rows.data_ptr(), x.shape[0], size_of(x), channels, padding,
        torch.get_num_threads(),
    )  # fmt: skip
    return rows


def add_raised(
    total: Tensor,
    raised: Tensor,
    raising: Sequence[int],
    relu: bool,
    pooled: Tensor | None = None,
    pooling: Sequence[int] = (),
) -> None:
    """Write `total + upsample(raised)`, rectified if asked for, over total, and its means over cells into `pooled`.

    Shape:
        total (N, C, *size), raised (N, C, *ceil(size / raising)), pooled (N, C, *ceil(size / pooling)); factors 1 or 2.
    """
    if takes(total, raised):
        library(total.dtype).add_raised(  # type: ignore[union-attr]
            total.data_ptr(), raised.data_ptr(), None if pooled is None else pooled.data_ptr(), total.shape[0],
            size_of(total), 0 if pooled is None else row_step(pooled), three(raising),
            three(raising if pooled is None else pooling), relu, torch.get_num_threads(),
        )  # fmt: skip
        return
    total.add_(upsample(raised, total.shape[2:]))
    if relu:
        total.relu_()
    if pooled is not None:
        pool(total, pooled, pooling)


def max_pool(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], ceil: bool = False
) -> Tensor:
    """`torch.nn.functional.max_pool3d` (or 2d) without indices; for maps that `kernels.takes_rows`.

    Args:
        x: map, or some channels of a wider one.
        kernel, stride, padding, ceil: torch's meaning.

    Shape:
        (N, C, *size) -> (N, C, *floor((size + 2 padding - kernel) / stride) + 1), or rounded up.

    Raises:
        ValueError: the map is smaller than the kernel.
    """
    moves = Moves(tuple(kernel), tuple(stride), tuple(padding), (1,) * len(kernel))
    up = tuple(_rounded_up(*axis) for axis in zip(x.shape[2:], kernel, stride, padding, strict=True)) if ceil else ()
    size = up if up and min(up) > 0 else moves.out_size(x.shape[2:])
    out = empty_map(x.shape[0], x.shape[1], size, x.dtype)
    library(x.dtype).max_pool(  # type: ignore[union-attr]
        x.data_ptr(), row_step(x), out.data_ptr(), x.shape[0], size_of(x), three(size), three(kernel), three(stride),
        three(padding, 0), torch.get_num_threads(),
    )  # fmt: skip
    return out


def _rounded_up(size: int, kernel: int, stride: int, padding: int) -> int:
    """Boxes on an axis, the last of which may go beyond the padding where it begins on the map."""
    boxes = -(-(size + 2 * padding - kernel) // stride) + 1
    return boxes if (boxes - 1) * stride < size + padding else boxes - 1
