"""Convolutions with packed weights that add and rectify as they write, by oneDNN's kernels on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from octvideo.layers import OctPair, avg_pool, octave_from_dense, upsample
from octvideo.layers.channels import HIGH, LOW, Segments, count, take
from octvideo.layers.functional import columns, is_depthwise
from octvideo.layers.pair import empty_low
from octvideo.runtime import passes
from octvideo.runtime.views import Window, view_for

Map = OctPair | Tensor
LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}
EXCHANGE = {(HIGH, LOW): "high_to_low", (LOW, HIGH): "low_to_high"}


class _JoinedPair(OctPair):
    """A pair on the way from one fused convolution to others, with the map that these read of it.

    Args:
        high, low, segments: as of `OctPair`.
        joined: the low part and the pooled high one side by side, in one map.
    """

    def __init__(self, high: Tensor, low: Tensor, segments: Segments, joined: Tensor) -> None:
        super().__init__(high, low, segments)
        self.joined = joined


class FusedConv(nn.Module):
    """An octave (or dense) convolution for inference whose paths add up in oneDNN's kernels.

    Each path of an output adds to what is there, be it the paths before it or a shortcut, and the last one rectifies,
    so that sums and activation cost no pass over the map of their own; what is up-sampled is added, rectified and
    pooled for the next convolution in one pass. Weights are packed once for each size.

    Args:
        conv: octave convolution of 2 or 3 dimensions with zero padding and average down-sampling; see `why_not_fused`.
        relu: rectify the output.

    Attributes:
        in_place: write the output over the summand, whose values nobody needs any more.
        joins: give the next convolutions, which alone read the output, its low and its pooled high part in one map.
    """

    def __init__(self, conv: Any, relu: bool) -> None:
        super().__init__()
        self.relu, self.in_place, self.joins = relu, False, False
        self.window: Window | None = None
        if _is_narrow(conv):
            conv, self.window = _unfolded(conv)
        self.geometry, self.kernel = conv.geometry, tuple(conv.kernel_size)
        self.factors = _factors(conv)
        self.out_segments, self.alpha_out, self.exchange = conv.out_segments, conv.alpha_out, conv.exchange
        self.depthwise = is_depthwise(conv.weight, conv.groups)
        self.weight = conv.weight.detach()
        # oneDNN ignores the strides of a bias.
        self.biases = [
            None if conv.bias is None else take(conv.bias.detach(), self.out_segments, part).contiguous()
            for part in (HIGH, LOW)
        ]
        # On octave axes only the poolings move.
        self.stride = tuple(1 if f > 1 else s for s, f in zip(conv.stride, self.factors, strict=True))
        self.raising = [f if s == 1 else 1 for s, f in zip(conv.stride, self.factors, strict=True)]
        self.pools = {(s, t): self._pools(s, t) for s in (HIGH, LOW) for t in (HIGH, LOW)}
        self.view = view_for(self.kernel, self.stride, [before for before, _ in self.geometry.padding])
        self.calls: dict[Any, _Call] = {}

    @property
    def reads_joined(self) -> bool:
        """True where the low output reads both parts side by side, the high one pooled by the octave's factors."""
        reads = bool(self.alpha_out) and self.geometry.groups == 1 and self.exchange in ("both", "high_to_low")
        return reads and self.pools[HIGH, LOW][:1] == [list(self.factors)]

    def forward(self, x: Map, summand: Map | None = None) -> Map:
        """Convolve; add the summand, if any; rectify, if so made.

        Shape:
            x as the convolution takes it; summand and result as it gives it.
        """
        if self.window is not None:
            x = self.window.unfold(x)  # type: ignore[arg-type]
        pair = x if isinstance(x, OctPair) else empty_low(x, self.factors)
        sums = self._sums(pair, summand)
        if sums is None:  # another kind of map, or one that is broadcast
            out = self._run(pair, (None, None), relu=False) + summand  # type: ignore[operator]
            return out.relu() if self.relu else out
        return self._run(pair, sums, self.relu)

    def _pools(self, source: int, target: int) -> list[list[int]]:
        """The poolings between the parts, at most two: the first is the stride's where the source is high."""
        axes = list(zip(self.geometry.stride, self.factors, strict=True))
        steps = [max(s * (f if target else 1) // (f if source else 1), 1) if f > 1 else 1 for s, f in axes]
        first = [s if f > 1 and source == HIGH else step for (s, f), step in zip(axes, steps, strict=True)]
        then = [step // p for step, p in zip(steps, first, strict=True)]
        return [pool for pool in (first, then) if max(pool) > 1]

    def _sums(self, pair: OctPair, summand: Map | None) -> Sequence[Tensor | None] | None:
        """The summand part by part, free to be written over; None where it is not of the output's kind and shape."""
        if summand is None:
            return None, None
        if isinstance(summand, OctPair) != bool(self.alpha_out):
            return None
        if isinstance(summand, OctPair) and summand.segments != self.out_segments:
            return None
        high = summand.high if isinstance(summand, OctPair) else summand
        size = (pair.high.shape[0], count(self.out_segments, HIGH), *self._high_size(pair))
        if tuple(high.shape) != size or high.dtype != self.weight.dtype:
            return None
        parts = summand.parts if isinstance(summand, OctPair) else (summand, None)
        return parts if self.in_place else [None if part is None else part.clone() for part in parts]

    def _high_size(self, pair: OctPair) -> list[int]:
        axes = zip(pair.high.shape[2:], self.kernel, *self.geometry[:3], strict=True)
        return [(n + before + after - d * (k - 1) - 1) // s + 1 for n, k, s, (before, after), d in axes]

    def _run(self, pair: OctPair, sums: Sequence[Tensor | None], relu: bool) -> Map:
        low = self._low(pair, sums[LOW], relu)
        high, joined = self._high(pair, sums[HIGH], relu, low)
        if low is None:
            return empty_low(high, self.factors) if self.alpha_out else high  # type: ignore[arg-type,return-value]
        if high is None:
            high = low.new_empty(low.shape[0], 0, *self._high_size(pair))
        if joined is None:
            return OctPair(high, low, self.out_segments)
        return _JoinedPair(high, low, self.out_segments, joined)

    def _low(self, pair: OctPair, total: Tensor | None, relu: bool) -> Tensor | None:
        """The low part of the output, by one convolution of all that it reads where there are no groups."""
        if not count(self.out_segments, LOW):
            return None
        sources, bias = self._sources(pair, LOW), self.biases[LOW]
        if self.geometry.groups == 1:
            return self._convolve(pair, sources, LOW, total, bias, relu)
        for source in sources:
            last = source == sources[-1]
            total = self._convolve(pair, [source], LOW, total, bias if last else None, last and relu)
        return total

    def _high(
        self, pair: OctPair, total: Tensor | None, relu: bool, low: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The high part of the output, and what the next convolutions need of it where the last pass gives it."""
        if not count(self.out_segments, HIGH):
            return None, None
        sources, bias = self._sources(pair, HIGH), self.biases[HIGH]
        if LOW not in sources or max(self.raising) == 1:
            for source in sources:
                last = source == sources[-1]
                total = self._convolve(pair, [source], HIGH, total, bias if last else None, last and relu)
            return total, None
        if HIGH in sources:
            total = self._convolve(pair, [HIGH], HIGH, total, bias, False)
            bias = None
        raised = self._convolve(pair, [LOW], HIGH, None, bias, relu and total is None)
        if total is None:
            return upsample(raised, self._high_size(pair)), None
        return total, self._add_raised(total, raised, low, relu)

    def _sources(self, pair: OctPair, target: int) -> list[int]:
        """The parts of the input that one part of the output reads."""
        return [source for source in (LOW, HIGH) if count(pair.segments, source) and self._has_path(source, target)]

    def _has_path(self, source: int, target: int) -> bool:
        return source == target or (not self.depthwise and self.exchange in ("both", EXCHANGE[source, target]))

    def _add_raised(self, total: Tensor, raised: Tensor, low: Tensor | None, relu: bool) -> Tensor | None:
        """Add what is up-sampled over the total and rectify; give low and pooled total in one map where wanted."""
        if passes.takes(total, raised):
            joins = self.joins and low is not None and self.raising == list(self.factors)
            return passes.add_raised(total, raised, low, self.raising, relu, joins)
        add_upsampled(total, raised)
        if relu:
            total.relu_()
        return None

    def _convolve(
        self, pair: OctPair, sources: list[int], target: int, total: Tensor | None, bias: Tensor | None, relu: bool
    ) -> Tensor:
        """One convolution of what it reads from the parts, at the size at which it reads, on top of the total."""
        x = (
            self._joined(pair)
            if len(sources) == 2
            else self._pool(pair.parts[sources[0]], self.pools[sources[0], target])
        )
        seen = self.view.of(x, self.stride[0])
        call = self._call(pair, sources, target, seen.shape)
        return self.view.map(call(seen, None if total is None else self.view.of(total), bias, relu), x)

    def _joined(self, pair: OctPair) -> Tensor:
        """What the low output reads, the low part before the high one, at the size of the low output."""
        of_high, of_low = self.pools[HIGH, LOW], self.pools[LOW, LOW]
        if of_high[0] != list(self.factors) or of_low != of_high[1:]:  # not pooled alike once the octave is down
            return torch.cat([self._pool(pair.low, of_low), self._pool(pair.high, of_high)], 1)
        joined = pair.joined if isinstance(pair, _JoinedPair) else None
        if joined is None:
            joined = join(pair.high, pair.low, self.factors)
        return self._pool(joined, of_low)

    def _pool(self, part: Tensor, pools: list[list[int]]) -> Tensor:
        for factors in pools:
            part = passes.join(part, None, factors) if passes.takes(part) else avg_pool(part, factors)
        return part

    def _call(self, pair: OctPair, sources: list[int], target: int, size: torch.Size) -> _Call:
        """The kernel's call for some sources and one size of their view; its weight is packed once."""
        key = (*sources, target, pair.segments, size)
        if key not in self.calls:
            weight = take(self.weight, self.out_segments, target)
            if not self.depthwise:
                weight = torch.cat([columns(weight, pair.segments, s, self.geometry.groups) for s in sources], 1)
            axes = self.view.axes
            how = (
                [self.geometry.padding[a][0] for a in axes],
                [self.stride[a] for a in axes],
                [self.geometry.dilation[a] for a in axes],
                count(pair.segments, sources[0]) if self.depthwise else self.geometry.groups,
            )
            weight = weight.reshape(*weight.shape[:2], *(self.kernel[a] for a in axes))
            weight = weight.contiguous(memory_format=LAYOUTS[len(axes)])
            self.calls[key] = _Call(torch.ops.mkldnn._reorder_convolution_weight(weight, *how, list(size)), *how)
        return self.calls[key]


class _Call(NamedTuple):
    """A convolution by oneDNN's kernel."""

    weight: Tensor
    padding: list[int]
    stride: list[int]
    dilation: list[int]
    groups: int

    def __call__(self, x: Tensor, total: Tensor | None, bias: Tensor | None, relu: bool) -> Tensor:
        """Convolve; written over `total` with what it holds added, where it is given."""
        ops, how = torch.ops.mkldnn, (self.padding, self.stride, self.dilation, self.groups)
        if total is None:
            return ops._convolution_pointwise(x, self.weight, bias, *how, "relu" if relu else "none", [], "")
        relu_or_none = "relu" if relu else None
        return ops._convolution_pointwise_(total, x, self.weight, bias, *how, "add", 1.0, relu_or_none, [], "")


def join(high: Tensor, low: Tensor, factors: Sequence[int]) -> Tensor:
    """The low part and the pooled high one side by side in one map."""
    return passes.join(high, low, factors) if passes.takes(high, low) else torch.cat([low, avg_pool(high, factors)], 1)


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
    axes = list(zip(conv.kernel_size, conv.dilation, conv.geometry.padding, strict=True))
    if any(before != after for _, _, (before, after) in axes):
        return "its padding differs between the two ends"
    if (conv.alpha_in or conv.alpha_out) and any(2 * before != d * (k - 1) for k, d, (before, _) in axes):
        return "its padding does not keep the size"
    return None


def _is_narrow(conv: Any) -> bool:
    """True for a stem on pixels: its few channels fill no vector."""
    dense = not conv.alpha_in and not conv.alpha_out and conv.groups == 1
    return dense and conv.in_channels <= 4 and conv.kernel_size[-1] > 1 and conv.dilation[-1] == 1


def _unfolded(conv: Any) -> tuple[Any, Window]:
    """The same convolution with the kernel's width among the channels."""
    window = Window(conv.kernel_size[-1], conv.stride[-1], conv.geometry.padding[-1][0])
    kind: Any = nn.Conv2d if len(conv.kernel_size) == 2 else nn.Conv3d
    new = kind(
        conv.in_channels * window.width, conv.out_channels, (*conv.kernel_size[:-1], 1), (*conv.stride[:-1], 1),
        (*(before for before, _ in conv.geometry.padding[:-1]), 0), (*conv.dilation[:-1], 1), device="meta",
    )  # fmt: skip
    weight = conv.weight.detach().movedim(-1, 1).flatten(1, 2).unsqueeze(-1)  # (O, k C, ..., 1)
    new.weight, new.bias = nn.Parameter(weight, requires_grad=False), conv.bias
    return octave_from_dense(new, 0, 0), window


def _factors(conv: Any) -> tuple[int, ...]:
    """The octave's factors; without low channels a convolution strides on all axes, as a dense one."""
    return conv.factors if conv.alpha_in or conv.alpha_out else (1,) * len(conv.factors)
