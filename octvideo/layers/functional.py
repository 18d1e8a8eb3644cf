"""Octave convolution as a pure function (Chen et al. 2019, section 3.2, equations 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from octvideo.layers.pair import OctPair, avg_pool, low_size, upsample

Segments = tuple[tuple[int, int], ...]
"""(high, low) channel counts of the maps that stand side by side in a concatenated one, in the dense order."""

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class Geometry(NamedTuple):
    """How a convolution moves over its input: one entry per axis, torch's meaning."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    padding_mode: str = "zeros"


def octave_conv(
    x: OctPair | Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    in_segments: Segments,
    out_low: int,
    geometry: Geometry,
    factors: Sequence[int],
) -> OctPair | Tensor:
    """Convolve a pair (or a tensor, which is all high) with one weight tensor of the dense shape.

        Y_H = f(X_H; W_HH) + upsample(f(X_L; W_LH)),      Y_L = f(X_L; W_LL) + f(pool(X_H); W_HL)

    The four weights are slices: rows (outputs) with the high channels first, columns (inputs) as `in_segments` says. On
    an octave axis a stride of s runs as an average pooling by s followed by stride 1; L->H with stride 2 convolves X_L
    as it is, which already has the output's size. On the other axes the stride stays in the convolution.

    Args:
        x: pair, or tensor where `in_segments` has no low channels.
        weight: (C_out, C_in / groups, *kernel), high output channels first.
        bias: (C_out) or None.
        in_segments: which input channels are high and which low, in the weight's order.
        out_low: number of low output channels; 0 returns a tensor.
        geometry: stride, padding, dilation, groups, padding mode.
        factors: how many times smaller the low part is, per axis.

    Shape:
        high (N, C_out - out_low, *ceil(size / stride)) and low an octave smaller on the axes where factors is 2.
    """
    pair = x if isinstance(x, OctPair) else OctPair(x, x.new_empty(x.shape[0], 0, *low_size(x.shape[2:], factors)))
    paths = _Paths(weight, bias, in_segments, out_low, geometry)
    pool_stride = [s if f > 1 else 1 for s, f in zip(geometry.stride, factors, strict=True)]
    high_in = avg_pool(pair.high, pool_stride)
    conv_stride = tuple(1 if f > 1 else s for s, f in zip(geometry.stride, factors, strict=True))

    high_out = low_out = None
    if paths.has_high_out:
        high_out = _sum(
            paths.convolve(high_in, "high", "high", conv_stride),
            _low_to_high(pair.low, paths, conv_stride, pool_stride, high_in.shape[2:], factors),
        )
    if out_low:
        low_out = _sum(
            paths.convolve(avg_pool(high_in, factors), "high", "low", conv_stride),
            paths.convolve(avg_pool(pair.low, pool_stride), "low", "low", conv_stride),
        )
    if low_out is None:
        return high_out  # type: ignore[return-value]  # one of the two always exists
    if high_out is None:
        size = [n if f == 1 else h for n, f, h in zip(low_out.shape[2:], factors, high_in.shape[2:], strict=True)]
        high_out = low_out.new_empty(low_out.shape[0], 0, *size)
    return OctPair(high_out, low_out)


def _low_to_high(
    low: Tensor,
    paths: _Paths,
    conv_stride: tuple[int, ...],
    pool_stride: Sequence[int],
    high_size: Sequence[int],
    factors: Sequence[int],
) -> Tensor | None:
    """L->H: convolve first, then up-sample (the other order costs up to 4 times as much, 8 in space-time)."""
    pooled = avg_pool(low, [max(s // 2, 1) for s in pool_stride])
    out = paths.convolve(pooled, "low", "high", conv_stride)
    if out is None:
        return None
    size = [h if f > 1 else n for h, n, f in zip(high_size, out.shape[2:], factors, strict=True)]
    return upsample(out, size)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


class _Paths:
    """The four weights as slices of the one tensor. The bias goes to the first path that reaches each output."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, in_segments: Segments, out_low: int, geometry: Geometry
    ) -> None:
        self.weight, self.bias, self.geometry = weight, bias, geometry
        self.segments = in_segments
        self.depthwise = is_depthwise(weight, geometry.groups)
        high_out = weight.shape[0] - out_low
        self.rows = {"high": slice(0, high_out), "low": slice(high_out, weight.shape[0])}
        self.has_high_out = high_out > 0
        self.channels = {"high": sum(h for h, _ in in_segments), "low": sum(n for _, n in in_segments)}

    def convolve(self, x: Tensor, source: str, target: str, stride: tuple[int, ...]) -> Tensor | None:
        """Convolve one part on its way to another; None where the path has no channels."""
        if not self.channels[source] or (self.depthwise and source != target):
            return None
        weight = self.weight[self.rows[target]]
        groups = self.geometry.groups
        if self.depthwise:
            groups = self.channels[source]
        else:
            weight = _columns(weight, self.segments, source, groups)
        carries_bias = source == "high" or not self.channels["high"] or self.depthwise
        bias = self.bias[self.rows[target]] if self.bias is not None and carries_bias else None
        return _convolve(x, weight, bias, stride, groups, self.geometry)


def is_depthwise(weight: Tensor, groups: int) -> bool:
    """True where every input channel has filters of its own, so that nothing is exchanged between channels."""
    return groups > 1 and weight.shape[1] == 1


def _columns(weight: Tensor, segments: Segments, source: str, groups: int) -> Tensor:
    """Input columns of the high or the low part, in the order in which `concat` lays the channels."""
    part, start, pieces = int(source == "low"), 0, []
    for segment in segments:
        begin = start + (segment[0] // groups if part else 0)
        pieces.append(weight[:, begin : begin + segment[part] // groups])
        start += sum(segment) // groups
    pieces = [p for p in pieces if p.shape[1]]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)


def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], groups: int, geometry: Geometry
) -> Tensor:
    padding: tuple[int, ...] = geometry.padding
    if geometry.padding_mode != "zeros":
        pads = [p for axis in reversed(padding) for p in (axis, axis)]
        x, padding = F.pad(x, pads, mode=geometry.padding_mode), (0,) * len(padding)
    return _CONV[x.dim() - 2](x, weight, bias, stride, padding, geometry.dilation, groups)
