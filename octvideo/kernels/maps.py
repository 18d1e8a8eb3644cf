"""How the kernels want maps to lie in memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from octvideo.kernels.library import DEFINITIONS, integers, library

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Channels-last memory of an image and of a clip, by their number of axes."""


def knows(*maps: Tensor) -> bool:
    """True for images or clips on a CPU in one type, for which the kernels have been compiled, however they lie."""
    dtype = maps[0].dtype
    of_one_kind = all(m.dtype == dtype and m.device.type == "cpu" and m.dim() in LAYOUTS for m in maps)
    return of_one_kind and dtype in DEFINITIONS and library(dtype) is not None


def takes(*maps: Tensor) -> bool:
    """True for maps that the kernels know and that lie channels-last."""
    return all(_is_channels_last(m) for m in maps) and knows(*maps)  # which compiles, if nothing else is in the way


def takes_rows(x: Tensor) -> bool:
    """True for a map, or some channels of a wider one, that the kernels know and that lies channels-last."""
    return row_step(x) is not None and knows(x)


def empty_map(batch: int, channels: int, size: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A new channels-last map (batch, channels, *size) whose elements are anything."""
    return torch.empty((batch, channels, *size), dtype=dtype, memory_format=LAYOUTS[2 + len(size)])


def row_step(x: Tensor) -> int | None:
    """Elements from one place of a map to the next, where its channels lie side by side and its places in rows."""
    if _is_channels_last(x):  # which is the quickest to tell
        return x.shape[1]
    shape, strides = x.shape, x.stride()
    if x.dim() not in LAYOUTS or (strides[1] != 1 and shape[1] > 1):
        return None
    step, places = None, 1
    for axis in (*range(x.dim() - 1, 1, -1), 0):
        if shape[axis] > 1:  # the stride of one element means nothing
            step = strides[axis] // places if step is None else step
            if strides[axis] != step * places:
                return None
            places *= shape[axis]
    return shape[1] if step is None else step


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() in LAYOUTS and x.is_contiguous(memory_format=LAYOUTS[x.dim()])


def size_of(x: Tensor) -> ctypes.Array[ctypes.c_int64]:
    """(T, H, W, C) of a map; an image is one frame."""
    return integers((1,) * (5 - x.dim()) + tuple(x.shape[2:]) + (x.shape[1],))
