"""How the kernels want maps to lie in memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from octvideo.kernels.library import DEFINITIONS, integers, library

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Channels-last memory of an image and of a clip, by their number of axes."""


def takes(*maps: Tensor) -> bool:
    """True for maps that lie on a CPU channels-last, in a type for which the kernels have been compiled."""
    dtype = maps[0].dtype
    return (
        dtype in DEFINITIONS
        and all(m.dtype == dtype and m.device.type == "cpu" and m.dim() in LAYOUTS for m in maps)
        and all(m.is_contiguous(memory_format=LAYOUTS[m.dim()]) for m in maps)
        and library(dtype) is not None
    )


def empty_map(batch: int, channels: int, size: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A new channels-last map (batch, channels, *size) whose elements are anything."""
    return torch.empty((batch, channels, *size), dtype=dtype, memory_format=LAYOUTS[2 + len(size)])


def row_step(x: Tensor) -> int | None:
    """Elements from one place of a map to the next, where its channels lie side by side and its places in rows."""
    if x.is_contiguous(memory_format=LAYOUTS[x.dim()]):  # which is the quickest to tell
        return x.shape[1]
    shape, strides = x.shape, x.stride()
    if strides[1] != 1 and shape[1] > 1:
        return None
    step, places = None, 1
    for axis in (*range(x.dim() - 1, 1, -1), 0):
        if shape[axis] > 1:  # the stride of one element means nothing
            step = strides[axis] // places if step is None else step
            if strides[axis] != step * places:
                return None
            places *= shape[axis]
    return shape[1] if step is None else step


def size_of(x: Tensor) -> ctypes.Array[ctypes.c_int64]:
    """(T, H, W, C) of a map; an image is one frame."""
    return integers((1,) * (5 - x.dim()) + tuple(x.shape[2:]) + (x.shape[1],))
