"""Convolutions by the kernel in C that adds, rectifies and pools while the result is in registers and the cache."""

from __future__ import annotations

import ctypes
import itertools
import math
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from octvideo.kernels import LAYOUTS, row_step
from octvideo.kernels.library import DEFINITIONS, library, three
from octvideo.runtime.moves import Moves

_INT, _POINTER = ctypes.c_int64, ctypes.c_void_p
_Three, _Four = _INT * 3, _INT * 4


class _Plan(ctypes.Structure):
    """`Plan` of native/places.h."""

    _fields_ = (
        ("clips", _INT), ("size", _Three), ("out_size", _Three), ("steps", _Four), ("kernel", _Three),
        ("stride", _Three), ("padding", _Three), ("dilation", _Three), ("taps_together", _INT), ("channels", _INT),
        ("out_channels", _INT), ("low_channels", _INT), ("out_step", _INT), ("summand_step", _INT),
        ("raised_step", _INT), ("raised_factors", _Three),
        ("pool_factors", _Three), ("pooled_step", _INT), ("pooled_channels", _INT), ("relu", _INT),
        ("unrectified", _INT), ("threads", _INT), ("cache_bytes", _INT),
    )  # fmt: skip


class _Maps(ctypes.Structure):
    """`Maps` of native/places.h."""

    _fields_ = tuple((name, _POINTER) for name in ("input", "weights", "bias", "out", "summand", "pooled", "low"))


def tiles_take(dtype: torch.dtype, channels: int, moves: Moves) -> bool:
    """True where the kernel is there for a type of map, a number of input channels and a kernel."""
    if dtype not in DEFINITIONS:
        return False
    kernels = library(dtype)
    return kernels is not None and bool(kernels.can_convolve(channels, math.prod(moves.kernel)))


def tiles_use_matrices(dtype: torch.dtype, channels: int, out_channels: int, moves: Moves) -> bool:
    """True where a convolution that `tiles_take` takes less time by matrix instructions than by vectors."""
    kernels: Any = library(dtype)
    copies = kernels.copies_strips(*moves.kernel[-2:], *moves.stride[-2:])
    return bool(kernels.matrices_pay(channels, out_channels, math.prod(moves.kernel), copies))


def tiles_read_low(dtype: torch.dtype, matrices: bool, channels: int, low_channels: int, moves: Moves) -> bool:
    """True where one convolution should read a smaller map, up-sampled, beside its input; see `TiledConv`."""
    moves_on = set(moves.stride + moves.dilation) != {1} or any(moves.padding)
    kernels: Any = library(dtype, matrices)
    return set(moves.kernel) == {1} and not moves_on and bool(kernels.reads_low(channels, low_channels))


def channels_read_in_place(dtype: torch.dtype, channels: int, width: int) -> int:
    """The least number of channels, at least `channels`, with which `width` places are read as one without a copy.

    See `Window`, which makes one place of them.
    """
    kernels: Any = library(dtype) if dtype in DEFINITIONS else None
    if kernels is None:
        return channels
    return next(c for c in itertools.count(channels) if kernels.reads_in_place(width * c))


class TiledConv:
    """A convolution with packed weights; see native/conv.c.

    Args:
        weight: (C_out, C_in, *kernel), float32 or bfloat16.
        bias: (C_out,), or None.
        moves: how the kernel moves.
        matrices: convolve by matrix instructions, where there are any; see `tiles_use_matrices`.
        low_channels: those of the input, the last, that are read of a smaller map; see `tiles_read_low`.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, moves: Moves, matrices: bool, low_channels: int = 0
    ) -> None:
        self.moves, self.dtype, self.out_channels = moves, weight.dtype, weight.shape[0]
        self.low_channels = low_channels
        kernels: Any = library(weight.dtype, matrices)
        self.kernels = kernels
        self.channels, self.taps = channels, taps = weight.shape[1], weight[0, 0].numel()
        copies = kernels.copies_strips(*moves.kernel[-2:], *moves.stride[-2:])
        self.together = kernels.taps_together(channels, moves.kernel[-1], moves.dilation[-1], copies)
        sizes = self.out_channels, channels, taps, self.together
        self.weight = torch.empty(kernels.packed_size(*sizes), dtype=weight.dtype)
        weight = weight.contiguous()
        kernels.pack(weight.data_ptr(), self.weight.data_ptr(), *sizes, low_channels)
        bias = torch.zeros(self.out_channels) if bias is None else bias.float()
        self.bias = F.pad(bias, (0, kernels.padded_out_channels(self.out_channels) - self.out_channels))
        self.addresses = self.weight.data_ptr(), self.bias.data_ptr()
        self.plans: dict[Any, _Plan] = {}

    def __call__(
        self,
        x: Tensor,
        *,
        summand: Tensor | None = None,
        raised: tuple[Any, Tensor] | None = None,
        relu: bool = False,
        unrectified: int = 0,
        out: Tensor | None = None,
        raising: Sequence[int] = (),
        low: Tensor | None = None,
        pooled: Tensor | None = None,
        pooling: Sequence[int] = (),
    ) -> Tensor:
        """Convolve, add, rectify if asked for, and write the means over cells of the result into `pooled`.

        Args:
            x: map; fastest where its channels lie side by side, as in channels-last memory.
            summand: added; may be `out` itself.
            raised: another convolution, by matrices where this one is, and its input; the result is up-sampled by
                `raising` and added.
            relu: rectify the sum.
            unrectified: its first channels, which are rectified only in `pooled`.
            out: where to write, if its places lie in rows; else a new map is made.
            raising: factors of up-sampling, 1 or 2 for each axis.
            low: a map that is up-sampled by `raising` itself, and read as the last `low_channels` of the input.
            pooled: where the means over boxes of `pooling` are written, of all channels or as many of the first.
            pooling: factors of pooling, 1 or 2 for each axis, on none less than `raising`.

        Shape:
            x (N, C_in, *size), or less by low's channels -> (N, C_out, *out_size), as summand and out; low and what is
            raised (N, C, *ceil(out_size / raising)), pooled (N, C_out or less, *ceil(out_size / pooling)). Out and
            pooled lie channels-last; they may be some channels of a wider map.
        """
        if out is None or (out_step := row_step(out)) is None:
            shape = x.shape[0], self.out_channels, *self.moves.out_size(x.shape[2:])
            out = torch.empty(shape, dtype=self.dtype, memory_format=LAYOUTS[x.dim()])
            out_step = self.out_channels
        summand_step = None if summand is None else out_step if summand is out else row_step(summand)
        if summand is not None and summand_step is None:
            summand = summand.contiguous(memory_format=LAYOUTS[x.dim()])
            summand_step = self.out_channels
        raised_step = self.out_channels
        if low is not None:
            low = low if row_step(low) else low.contiguous(memory_format=LAYOUTS[x.dim()])
            raised_step = row_step(low) or 0
        steps = out_step, summand_step or 0, raised_step, (pooled is not None and row_step(pooled)) or 0
        after = 0 if pooled is None else pooled.shape[1], relu, unrectified
        call = self._call(x, (out, summand, pooled, low), steps, after, tuple(raising), tuple(pooling))
        other = (None, None) if raised is None else raised[0]._call(raised[1])
        if self.kernels.convolve(*call, *other):
            raise MemoryError(f"there is no memory for a strip of a map of shape {tuple(out.shape)}")
        return out

    def executed_macs(self, x: Tensor) -> int:
        """Multiply-adds that instructions make for a map: they take more channels and places than may be there."""
        places = x.shape[0] * math.prod(self.moves.out_size(x.shape[2:]))
        return self.kernels.executed(places, self.out_channels, self.channels, self.taps, self.together)

    def _call(
        self,
        x: Tensor,
        others: Sequence[Tensor | None] = (),
        steps: Sequence[int] = (0, 0, 0, 0),
        after: Sequence[int] = (0, False, 0),
        raising: Sequence[int] = (),
        pooling: Sequence[int] = (),
    ) -> tuple[Any, Any]:
        """`Plan` and `Maps` of native/places.h; the plan is made once for each layout of the maps.

        The others are output, summand, pooled output and low input, if there; steps lie between the places of output,
        summand, what is up-sampled and pooled output; after the sum come how many channels are pooled, whether they are
        rectified, and how many only when they are pooled.
        """
        if x.stride(1) != 1 and x.shape[1] > 1:
            x = x.contiguous(memory_format=LAYOUTS[x.dim()])
        key = x.shape, x.stride(), steps, after, raising, pooling, torch.get_num_threads()
        plan = self.plans.get(key)
        if plan is None:
            plan = self.plans[key] = self._plan(x, steps, after, raising, pooling)
        maps = _Maps(x.data_ptr(), *self.addresses, *(None if m is None else m.data_ptr() for m in others))
        maps.copy = x  # must live until the call
        return ctypes.byref(plan), ctypes.byref(maps)

    def _plan(
        self, x: Tensor, steps: Sequence[int], after: Sequence[int], raising: Sequence[int], pooling: Sequence[int]
    ) -> _Plan:
        in_steps = [x.stride(0), *(0,) * (5 - x.dim()), *x.stride()[2:]]
        out_step, summand_step, raised_step, pooled_step = steps
        return _Plan(
            x.shape[0], three(x.shape[2:]), three(self.moves.out_size(x.shape[2:])), _Four(*in_steps),
            *(three(numbers, missing) for numbers, missing in zip(self.moves, (1, 1, 0, 1), strict=True)),
            self.together, x.shape[1] + self.low_channels, self.out_channels, self.low_channels,
            out_step or self.out_channels, summand_step, raised_step, three(raising), three(pooling), pooled_step,
            *after, torch.get_num_threads(), _cache_bytes(),
        )  # fmt: skip


@cache
def _cache_bytes() -> int:
    """Size of the last cache; 32 MiB where the system does not say."""
    try:
        return max(os.sysconf("SC_LEVEL3_CACHE_SIZE"), 0) or 1 << 25
    except (OSError, ValueError):
        return 1 << 25
