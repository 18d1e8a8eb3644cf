"""Octave convolution as a pure function (Chen et al. 2019, section 3.2, equations 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from octvideo.layers.channels import HIGH, LOW, Segments, count, parts, take
from octvideo.layers.exchange import add_upsampled, with_joined, with_pooled
from octvideo.layers.lowering import conv2d, conv3d
from octvideo.layers.pair import OctPair, empty_low
from octvideo.layers.resize import avg_pool, upsample

EXCHANGES = ("both", "high_to_low", "low_to_high", "none")
"""Which of the two paths between the parts run."""

DOWN_SAMPLINGS = ("average", "strided")
"""How a path reaches a smaller size: average pooling before the convolution, or a stride in it."""

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: conv2d, 3: conv3d}


class Geometry(NamedTuple):
    """How a convolution moves over its input: one entry per axis.

    Args:
        stride, dilation, groups, padding_mode: torch's meaning.
        padding: (before, after) on each axis.
    """

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    padding_mode: str = "zeros"


def octave_conv(
    x: OctPair | Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    out_segments: Segments,
    geometry: Geometry,
    factors: Sequence[int],
    down_sampling: str = "average",
    exchange: str = "both",
    recompute_pooled: bool = False,
) -> OctPair | Tensor:
    """Convolve a pair (or a tensor, which is all high) with one weight tensor of the dense shape.

        Y_H = f(X_H; W_HH) + upsample(f(X_L; W_LH)),      Y_L = f(X_L; W_LL) + f(pool(X_H); W_HL)

    The four weights are slices: rows (outputs) as `out_segments` says, columns (inputs) as the pair's own segments say.
    On an octave axis a stride of s runs as an average pooling by s followed by stride 1; L->H with stride 2 convolves
    X_L as it is, which already has the output's size. On the other axes the stride stays in the convolution. With
    "strided" no path pools, and its convolution carries the stride (section 3.3 and table 3 compare the two).

    The output has the dense convolution's size. Where its kernel and padding do not keep the size at stride 1, the low
    part is padded so that it stays an octave below the high one, its elements over the same places to half of one: by
    zeros, or by its own border on an axis where the dense convolution pads nothing. Padding by reflection needs a low
    part that is larger than the padding.

    Args:
        x: pair or tensor.
        weight: (C_out, C_in / groups, *kernel).
        bias: (C_out) or None; it is added once to each output.
        out_segments: which output channels are high and which low; no low ones returns a tensor. A depthwise
            convolution keeps its input's.
        geometry: stride, padding, dilation, groups, padding mode.
        factors: how many times smaller the low part is, per axis.
        down_sampling: one of `DOWN_SAMPLINGS`.
        exchange: one of `EXCHANGES`; a part that no path reaches is an error of the caller.
        recompute_pooled: pool again in the backward pass rather than keep the low output's pooled input for it.

    Shape:
        high as the dense convolution's output, and low an octave smaller on the axes where factors is 2.
    """
    pair = x if isinstance(x, OctPair) else empty_low(x, factors)
    if is_depthwise(weight, geometry.groups):  # the channels stay where they are
        each = weight.shape[0] // geometry.groups
        out_segments = tuple((high * each, low * each) for high, low in pair.segments)
    weight = _in_autocast_type(weight)
    weights, biases = parts(weight, out_segments), (None, None) if bias is None else parts(bias, out_segments)
    options = (out_segments, geometry, tuple(factors), down_sampling, exchange)
    recompute_pooled = recompute_pooled and torch.is_grad_enabled()
    conv = _Convolution(pair, weight, weights, biases, *options, recompute_pooled)
    low, high = conv.output(LOW), conv.output(HIGH)  # the path to low hands on the high part: see `with_pooled`
    if low is None:
        return high  # type: ignore[return-value]  # one of the two always exists
    if high is None:
        high = low.new_empty(low.shape[0], 0, *conv.high_size())
    return OctPair(high, low, out_segments)


def path_runs(source: int, target: int, exchange: str, depthwise: bool) -> bool:
    """True for a path that is switched on; in a depthwise convolution all channels keep their part."""
    wanted = "high_to_low" if source == HIGH else "low_to_high"
    return source == target or (not depthwise and exchange in ("both", wanted))


class _Move(NamedTuple):
    """What one path does along one axis."""

    pool: int
    stride: int
    before: int
    after: int


@dataclass
class _Convolution:
    """One call of `octave_conv`."""

    pair: OctPair
    weight: Tensor
    weights: tuple[Tensor, Tensor]  # by the part that they write
    biases: tuple[Tensor | None, Tensor | None]
    out_segments: Segments
    geometry: Geometry
    factors: tuple[int, ...]
    down_sampling: str
    exchange: str
    recompute_pooled: bool

    def __post_init__(self) -> None:
        self.high = avg_pool(self.pair.high, self.pool_stride())  # both of its paths go on with it

    def output(self, target: int) -> Tensor | None:
        """The sum of the paths to one part; None where the part has no channels."""
        if not count(self.out_segments, target):
            return None
        weight, bias = self.weights[target], self.biases[target]
        sources = [s for s in (HIGH, LOW) if self.runs(s, target)]
        if is_depthwise(self.weight, self.geometry.groups):
            return self.path(target, target, weight, bias)
        if target == LOW and len(sources) == 2 and self.geometry.groups == 1 and self.down_sampling == "average":
            return self.joined_low(weight, bias)
        pieces = column_parts(weight, self.pair.segments, self.geometry.groups)
        terms = [self.path(s, target, pieces[s], bias if s == sources[0] else None) for s in sources]
        if len(terms) == 2:
            return add_upsampled(*terms)
        return upsample(terms[0], self.high_size()) if target == HIGH else terms[0]

    def joined_low(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """H->L + L->L: their inputs have one size, and one convolution of both is faster than two and a sum."""

        def run(high: Tensor) -> tuple[Tensor, Tensor]:
            high, both = with_joined(high, self.shrink(LOW, LOW), self.further(), self.pair.segments)
            return high, self.convolve(both, self.moves(LOW, LOW), weight, bias)

        if self.recompute_pooled:  # stops before the convolution: all it keeps is there
            self.high, low = checkpoint(run, self.high, use_reentrant=False, preserve_rng_state=False)
        else:
            self.high, low = run(self.high)
        return low

    def runs(self, source: int, target: int) -> bool:
        """True for a path that has input channels and is switched on."""
        depthwise = is_depthwise(self.weight, self.geometry.groups)
        return bool(count(self.pair.segments, source)) and path_runs(source, target, self.exchange, depthwise)

    def path(self, source: int, target: int, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Pool and convolve; what flows from low to high has yet to be up-sampled."""
        return self.convolve(self.shrink(source, target), self.moves(source, target), weight, bias)

    def moves(self, source: int, target: int) -> list[_Move]:
        """What a path does along each axis."""
        return [self.move(axis, source, target) for axis in range(len(self.factors))]

    def shrink(self, source: int, target: int) -> Tensor:
        """Pool a part of the input."""
        if source == LOW:
            return avg_pool(self.pair.low, [m.pool for m in self.moves(LOW, target)])
        if target == HIGH:
            return self.high
        self.high, pooled = with_pooled(self.high, self.further())
        return pooled

    def further(self) -> list[int]:
        """What the high part is pooled by on its way to the low output, beyond the stride."""
        return [m.pool // s for m, s in zip(self.moves(HIGH, LOW), self.pool_stride(), strict=True)]

    def convolve(self, x: Tensor, moves: list[_Move], weight: Tensor, bias: Tensor | None) -> Tensor:
        x, padding = self.pad(x, [(m.before, m.after) for m in moves])
        groups = x.shape[1] if is_depthwise(self.weight, self.geometry.groups) else self.geometry.groups
        strides = tuple(m.stride for m in moves)
        return _CONV[len(moves)](x, weight, bias, strides, padding, self.geometry.dilation, groups)

    def pool_stride(self) -> list[int]:
        """The stride where it runs as pooling, else 1."""
        average = self.down_sampling == "average"
        return [s if f > 1 and average else 1 for s, f in zip(self.geometry.stride, self.factors, strict=True)]

    def high_size(self) -> list[int]:
        """Size of the high output, the dense convolution's."""
        return [self.out_size(axis) for axis in range(len(self.factors))]

    def out_size(self, axis: int) -> int:
        stride, (before, after) = self.geometry.stride[axis], self.geometry.padding[axis]
        reach = self.reach(axis)
        return (self.pair.high.shape[2 + axis] + before + after - reach - 1) // stride + 1

    def reach(self, axis: int) -> int:
        """Elements that the kernel covers, less one."""
        return self.geometry.dilation[axis] * (self.weight.shape[2 + axis] - 1)

    def move(self, axis: int, source: int, target: int) -> _Move:
        """How to pool, stride and pad so that the output's elements lie over the dense convolution's.

        `cell` is the size of an input element after pooling, in elements of the high input. Output i of the dense
        convolution lies over input i * stride + reach / 2 - before; the padding puts the kernel there.
        """
        factor, stride = self.factors[axis], self.geometry.stride[axis]
        before, after = self.geometry.padding[axis]
        if factor == 1:
            return _Move(1, stride, before, after)
        cell_in = factor if source == LOW else 1
        step = max(stride * (factor if target == LOW else 1) // cell_in, 1)
        pooled = self.down_sampling == "average"
        cell = cell_in * step if pooled else cell_in
        dense_stride = stride if pooled else 1
        reach = self.reach(axis)
        left = -((cell - (cell * reach - reach + 2 * before + dense_stride - 1)) // (2 * cell))  # half rounds down
        if before + after == reach:  # the size is kept, whatever it is
            right = reach - left
        else:
            size = self.pair.high.shape[2 + axis]
            outputs = (size + before + after - reach - 1) // dense_stride + 1
            right = ceil_div(outputs * dense_stride, cell) - ceil_div(size, cell) + reach - left
        return _Move(step, 1, left, right) if pooled else _Move(1, step, left, right)

    def pad(self, x: Tensor, pads: list[tuple[int, int]]) -> tuple[Tensor, tuple[int, ...]]:
        """Pad outside of the convolution where that cannot do it; return what is left for it to do."""
        mode = self.geometry.padding_mode
        if mode == "zeros":  # where the dense convolution pads nothing it sees no zeros
            bare = [not any(padding) for padding in self.geometry.padding]
            x = _pad(x, [p if b else (0, 0) for p, b in zip(pads, bare, strict=True)], "replicate")
            pads = [(0, 0) if b else p for p, b in zip(pads, bare, strict=True)]
            if all(before == after for before, after in pads):
                return x, tuple(before for before, _ in pads)
        return _pad(x, pads, "constant" if mode == "zeros" else mode), (0,) * len(pads)


def _in_autocast_type(weight: Tensor) -> Tensor:
    """Under autocast the weight in its type: cast once, not slice by slice, in the backward pass as well."""
    device = weight.device.type
    if weight.dtype == torch.float32 and torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return weight.to(torch.get_autocast_dtype(device))
    return weight


def _pad(x: Tensor, pads: Sequence[tuple[int, int]], mode: str) -> Tensor:
    flat = [p for both in reversed(pads) for p in both]
    return F.pad(x, flat, mode=mode) if any(flat) else x


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def is_depthwise(weight: Tensor, groups: int) -> bool:
    """True where every input channel has filters of its own, so that nothing is exchanged between channels.

    Args:
        weight: of a convolution, (C_out, C_in / groups, *kernel); a transposed one's has other axes.
        groups: of the convolution.
    """
    return groups > 1 and weight.shape[1] == 1


def columns(weight: Tensor, segments: Segments, part: int, groups: int) -> Tensor:
    """Input columns of one part, (C_out, C_part / groups, *kernel), in the order in which the pair holds its channels.

    Raises:
        ValueError: for groups whose channels are not all split in the same way.
    """
    return take(weight, _column_segments(segments, groups), part, 1)


def column_parts(weight: Tensor, segments: Segments, groups: int) -> tuple[Tensor, Tensor]:
    """`columns` of both parts."""
    return parts(weight, _column_segments(segments, groups), 1)


def _column_segments(segments: Segments, groups: int) -> Segments:
    """Which of a weight's columns, those of one group, meet the high channels and which the low ones."""
    if groups == 1:
        return segments
    high, low = count(segments, HIGH), count(segments, LOW)
    if len(segments) not in (1, groups) or len(set(segments)) > 1 or high % groups or low % groups:
        raise ValueError(f"{groups} groups need as many equal runs of (high, low) channels; got {segments}")
    return ((high // groups, low // groups),)
