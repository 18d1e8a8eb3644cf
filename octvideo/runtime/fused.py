"""Convolutions with packed weights that add and rectify as they write, by oneDNN's kernels on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from octvideo.layers import OctPair, avg_pool, upsample
from octvideo.layers.channels import HIGH, LOW, count, take
from octvideo.layers.functional import columns, is_depthwise
from octvideo.layers.lowering import is_channels_last
from octvideo.layers.pair import empty_low

Map = OctPair | Tensor
WANTED = {(HIGH, LOW): "high_to_low", (LOW, HIGH): "low_to_high"}


class FusedConv(nn.Module):
    """An octave (or dense) convolution for inference whose paths add up in oneDNN's kernels.

    Each path of an output adds to what is there, be it the paths before it or a shortcut, and the last one rectifies,
    so that sums and activation cost no pass over the map of their own. Weights are packed once for each size.

    Args:
        conv: octave convolution of 2 or 3 dimensions with zero padding that keeps the size, average down-sampling and
            a kernel that runs through 2-D views; see `why_not_fused`.
        relu: rectify the output.

    Attributes:
        in_place: write the output over the summand, whose values nobody needs any more.
    """

    def __init__(self, conv: Any, relu: bool) -> None:
        super().__init__()
        self.relu, self.in_place = relu, False
        self.factors, self.stride, self.dilation = _factors(conv), tuple(conv.stride), tuple(conv.dilation)
        self.padding = tuple(before for before, _ in conv.geometry.padding)
        self.kernel, self.groups = tuple(conv.kernel_size), conv.groups
        self.depthwise = is_depthwise(conv.weight, conv.groups)
        self.out_segments, self.alpha_out = conv.out_segments, conv.alpha_out
        self.exchange = conv.exchange
        self.weight, self.bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
        self.packed: dict[Any, Tensor] = {}

    def forward(self, x: Map, summand: Map | None = None) -> Map:
        """Convolve; add the summand, if any; rectify, if so made.

        Shape:
            x as the convolution takes it; summand and result as it gives it.
        """
        pair = x if isinstance(x, OctPair) else empty_low(x, self.factors)
        sums = self._sums(pair, summand)
        if sums is None:  # another kind of map, or one that is broadcast
            out = self._run(pair, (None, None), relu=False) + summand  # type: ignore[operator]
            return out.relu() if self.relu else out
        return self._run(pair, sums, self.relu)

    def _run(self, pair: OctPair, sums: Sequence[Tensor | None], relu: bool) -> Map:
        high, low = (self._output(pair, part, sums[part], relu) for part in (HIGH, LOW))
        if low is None:
            return empty_low(high, self.factors) if self.alpha_out else high  # type: ignore[arg-type,return-value]
        if high is None:
            high = low.new_empty(low.shape[0], 0, *self._high_size(pair))
        return OctPair(high, low, self.out_segments)

    def _sums(self, pair: OctPair, summand: Map | None) -> Sequence[Tensor | None] | None:
        """The summand part by part, free to be written over; None where it is not of the output's kind and shape."""
        if summand is None:
            return None, None
        if isinstance(summand, OctPair) != bool(self.alpha_out):
            return None
        parts = summand.parts if isinstance(summand, OctPair) else (summand, None)
        high = (pair.high.shape[0], count(self.out_segments, HIGH), *self._high_size(pair))
        if isinstance(summand, OctPair) and summand.segments != self.out_segments:
            return None
        if tuple(parts[HIGH].shape) != high or parts[HIGH].dtype != self.weight.dtype:
            return None
        return parts if self.in_place else [None if part is None else part.clone() for part in parts]

    def _high_size(self, pair: OctPair) -> list[int]:
        return [-(-n // s) for n, s in zip(pair.high.shape[2:], self.stride, strict=True)]

    def _output(self, pair: OctPair, target: int, total: Tensor | None, relu: bool) -> Tensor | None:
        """One part of the output: what is there, then the smaller paths, the last one on top of their sum."""
        if not count(self.out_segments, target):
            return None
        sources = [source for source in (LOW, HIGH) if count(pair.segments, source) and self._has_path(source, target)]
        for source in sources:
            last = source == sources[-1]
            total = self._path(pair, source, target, total, bias=last, relu=last and relu)
        return total

    def _has_path(self, source: int, target: int) -> bool:
        return source == target or (not self.depthwise and self.exchange in ("both", WANTED[source, target]))

    def _path(self, pair: OctPair, source: int, target: int, total: Tensor | None, bias: bool, relu: bool) -> Tensor:
        steps = [
            max(s * (f if target == LOW else 1) // (f if source == LOW else 1), 1) if f > 1 else 1
            for s, f in zip(self.stride, self.factors, strict=True)
        ]
        pools = [s if f > 1 and source == HIGH else p for s, f, p in zip(self.stride, self.factors, steps, strict=True)]
        x = avg_pool(avg_pool(pair.parts[source], pools), [s // p for s, p in zip(steps, pools, strict=True)])
        stride = tuple(1 if f > 1 else s for s, f in zip(self.stride, self.factors, strict=True))
        if (source, target) != (LOW, HIGH):
            return self._convolve(x, pair, source, target, stride, total, bias, relu)
        out = self._convolve(x, pair, source, target, stride, None, bias, relu and total is None)
        if total is None:
            return upsample(out, self._high_size(pair))
        total = add_upsampled(total, out)
        return total.relu_() if relu else total

    def _convolve(
        self,
        x: Tensor,
        pair: OctPair,
        source: int,
        target: int,
        stride: tuple[int, ...],
        total: Tensor | None,
        bias: bool,
        relu: bool,
    ) -> Tensor:
        planar, axes = _planar(x, self.kernel, stride)
        pick = [getattr(self, name)[a] for name in ("padding", "dilation") for a in axes]
        padding, dilation, moves = pick[:2], pick[2:], [stride[a] for a in axes]
        groups = count(pair.segments, source) if self.depthwise else self.groups
        weight = self._weight(pair, source, target, planar, padding, moves, dilation, groups, axes)
        b = None
        if bias and self.bias is not None:
            b = take(self.bias, self.out_segments, target).contiguous()  # oneDNN ignores the strides of a bias
        ops, act = torch.ops.mkldnn, "relu" if relu else "none"
        if total is None:
            out = ops._convolution_pointwise(planar, weight, b, padding, moves, dilation, groups, act, [], "")
        else:
            sums, _ = _planar(total, self.kernel, (1,) * len(self.kernel))
            out = ops._convolution_pointwise_(
                sums, planar, weight, b, padding, moves, dilation, groups, "add", 1.0, act if relu else None, [], ""
            )
        return _unplanar(out, x, self.kernel)

    def _weight(
        self,
        pair: OctPair,
        source: int,
        target: int,
        planar: Tensor,
        padding: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        axes: Sequence[int],
    ) -> Tensor:
        """The path's weight, packed for this input; packed once for each size."""
        key = (source, target, pair.segments, tuple(planar.shape))
        if key not in self.packed:
            weight = take(self.weight, self.out_segments, target)
            if not self.depthwise:
                weight = columns(weight, pair.segments, source, self.groups)
            weight = weight.reshape(*weight.shape[:2], *(self.kernel[a] for a in axes))
            weight = weight.contiguous(memory_format=torch.channels_last)
            self.packed[key] = torch.ops.mkldnn._reorder_convolution_weight(
                weight, padding, stride, dilation, groups, list(planar.shape)
            )
        return self.packed[key]


def add_upsampled(total: Tensor, x: Tensor) -> Tensor:
    """`total + upsample(x, size of total)`, written over total where every element of x covers a whole cell.

    Shape:
        total (N, C, *size), x (N, C, *ceil(size / factors)) -> (N, C, *size), factors 1 or 2.
    """
    cells, repeated = total, x
    for axis in reversed(range(2, x.dim())):  # each axis in two where it is repeated: (..., n, 2, ...)
        factor = 1 if x.shape[axis] == total.shape[axis] else 2
        if x.shape[axis] * factor != total.shape[axis]:
            return total.add_(upsample(x, total.shape[2:]))
        if factor == 2:
            cells, repeated = cells.unflatten(axis, (-1, 2)), repeated.unsqueeze(axis + 1)
    cells.add_(repeated)
    return total


def why_not_fused(conv: Any) -> str | None:
    """Say why a convolution stays as it is, or return None where `FusedConv` can take its place."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise_"):
        return "torch has no oneDNN"
    if conv.weight.device.type != "cpu" or conv.weight.dtype not in (torch.float32, torch.bfloat16):
        return "oneDNN's kernels are for float32 and bfloat16 on a CPU"
    if conv.padding_mode != "zeros" or conv.down_sampling != "average":
        return "only zero padding and average down-sampling are fused"
    if len(conv.kernel_size) == 3 and conv.kernel_size[0] > 1 and tuple(conv.kernel_size[1:]) != (1, 1):
        return "its kernel has no 2-D view"
    strides = [1 if f > 1 else s for s, f in zip(conv.stride, _factors(conv), strict=True)]
    if len(strides) == 3 and conv.kernel_size[0] > 1 and strides[1:] != [1, 1]:
        return "its stride has no 2-D view"
    axes = zip(conv.kernel_size, conv.dilation, conv.geometry.padding, strict=True)
    if any(before != after or before + after != d * (k - 1) for k, d, (before, after) in axes):
        return "its padding does not keep the size"
    return None


def _factors(conv: Any) -> tuple[int, ...]:
    """The octave's factors; without low channels a convolution strides on all axes, as a dense one."""
    return conv.factors if conv.alpha_in or conv.alpha_out else (1,) * len(conv.factors)


def _planar(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> tuple[Tensor, tuple[int, int]]:
    """The 2-D view of a map on which a kernel runs, and the axes (of T, H, W) that the view keeps."""
    if x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last), (0, 1)
    if not is_channels_last(x):
        x = x.contiguous(memory_format=torch.channels_last_3d)
    if kernel[0] == 1:
        x = x[:, :, :: stride[0]] if stride[0] > 1 else x
        return x.transpose(1, 2).flatten(0, 1), (1, 2)
    return x.flatten(3), (0, 1)


def _unplanar(out: Tensor, x: Tensor, kernel: Sequence[int]) -> Tensor:
    """The map of a 2-D view's result; x is the map that the view was of."""
    if x.dim() == 4:
        return out
    if kernel[0] == 1:
        return out.unflatten(0, (x.shape[0], -1)).transpose(1, 2)
    return out.unflatten(3, x.shape[3:])
