"""Octave convolutions for inference on a CPU, whose sums, rectifiers and poolings are no passes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from octvideo.layers import OctPair, upsample
from octvideo.layers.channels import HIGH, LOW, Segments, count, take
from octvideo.layers.functional import columns, is_depthwise, path_runs
from octvideo.layers.pair import check_pair, empty_low
from octvideo.layers.resize import avg_pool, low_size
from octvideo.runtime import passes
from octvideo.runtime.joined import JoinedPair
from octvideo.runtime.moves import Moves
from octvideo.runtime.onednn import OneDnnConv
from octvideo.runtime.tiles import TiledConv, tiles_read_low, tiles_take, tiles_use_matrices
from octvideo.runtime.window import Window, is_narrow, unfolded

Map = OctPair | Tensor
BOTH = LOW, HIGH
# Low outputs that cost less as high ones, pooled afterwards, than the input pooled for them; by matrix instructions.
MOST_POOLED_AFTER = {torch.float32: 0, torch.bfloat16: 48}
# Attributes of a convolution that the forward function of a network around it may read, such as a non-local block's.
READ_BY_OTHERS = (
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode",
)  # fmt: skip
Path = TiledConv | OneDnnConv
Input = tuple[tuple[int, ...], Tensor]
"""Parts of a pair, and what a convolution reads of them."""


class FusedConv(nn.Module):
    """An octave (or dense) convolution for inference whose paths add up as they are written.

    Each path of an output adds to what is there, be it the paths before it or a shortcut; the last one adds what is
    up-sampled, rectifies, and pools for the next convolution. So sums, activation and pooling cost no passes over whole
    maps. `TiledConv` does all of it in one go; where there is none (see `tiles_take`), `OneDnnConv` does in two.

    Args:
        conv: octave convolution of 2 or 3 dimensions with zero padding and average down-sampling; see `why_not_fused`.
        relu: rectify the output.

    Attributes:
        in_place: write the output over the summand, whose values nobody needs any more.
        joins: give the next convolutions, which alone read the output, its low and its pooled high part in one map.
    """

    in_channels: int
    groups: int

    def __init__(self, conv: Any, relu: bool) -> None:
        super().__init__()
        self.relu, self.in_place, self.joins = relu, False, False
        for name in READ_BY_OTHERS:
            setattr(self, name, getattr(conv, name))
        self.window: Window | None = None
        if is_narrow(conv):
            conv, self.window = unfolded(conv)  # whose channels are more than the map's
        self.in_high, self.in_low = conv.in_high, conv.in_low
        self.strides = tuple(conv.stride)
        self.factors = _factors(conv)
        # On octave axes only the poolings move.
        stride = tuple(1 if f > 1 else s for s, f in zip(conv.stride, self.factors, strict=True))
        padding = tuple(before for before, _ in conv.geometry.padding)
        self.moves = Moves(tuple(conv.kernel_size), stride, padding, tuple(conv.dilation))
        self.dense_moves = self.moves._replace(stride=self.strides)
        self.raising = tuple(f if s == 1 else 1 for s, f in zip(conv.stride, self.factors, strict=True))
        self.pools = {(s, t): self._pools(s, t) for s in (HIGH, LOW) for t in (HIGH, LOW)}
        self.out_segments, self.alpha_out, self.exchange = conv.out_segments, conv.alpha_out, conv.exchange
        self.out_high, self.out_low = (count(self.out_segments, part) for part in (HIGH, LOW))
        self.depthwise = is_depthwise(conv.weight, conv.groups)
        self.sources = [self._sources(target) for target in (HIGH, LOW)]
        self.weight = conv.weight.detach()
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.paths: dict[Any, Path] = {}
        self.with_low: dict[Any, bool] = {}  # what `_reads_low` has found

    @property
    def reads_joined(self) -> bool:
        """True where some output reads the high part pooled by the octave's factors."""
        if self.pools_after:
            return False
        targets = [part for part, channels in ((HIGH, self.out_high), (LOW, self.out_low)) if channels]
        return any(HIGH in self.sources[t] and self.pools[HIGH, t][:1] == [self.factors] for t in targets)

    def __getstate__(self) -> dict[str, Any]:
        # What is for this processor, some of it packed by libraries that cannot copy, is found anew.
        state = {**self.__dict__, "paths": {}, "with_low": {}}
        state.pop("pools_after", None)
        return state

    def forward(self, x: Map, summand: Map | None = None) -> Map:
        """Convolve; add the summand, if any; rectify, if so made.

        Shape:
            x as the convolution takes it; summand and result as it gives it.

        Raises:
            TypeError: there is no map, as where the fast network was made with an argument that is missing now.
            ValueError: the map has another type, device, size or number of channels than the convolution takes.
        """
        self._check_type(x)
        self._check_shape(x)
        if self.window is not None:
            x = self.window.unfold(x)  # type: ignore[arg-type]
        pair = x if isinstance(x, OctPair) else empty_low(x, self.factors)
        size = self.dense_moves.out_size(pair.high.shape[2:])
        if summand is None and self.pools_after:
            return self._run_as_one(pair, size)
        if summand is None:
            return self._run(pair, size, (None, None), self.relu)
        if self._takes_summand(summand, pair, size):
            parts = summand.parts if isinstance(summand, OctPair) else (summand, None)
            return self._run(pair, size, parts, self.relu)
        out = self._run(pair, size, (None, None), relu=False) + summand  # another kind of map, or one that is broadcast
        return out.relu() if self.relu else out

    def _check_type(self, x: Map) -> None:
        if not isinstance(x, OctPair | Tensor):
            raise TypeError(f"the convolution takes a map or a pair; got {type(x).__name__}")
        for part in (x,) if isinstance(x, Tensor) else x.parts:
            if part.dtype != self.weight.dtype or part.device.type != "cpu":
                raise ValueError(
                    f"this fast network takes {self.weight.dtype} maps on a CPU; got {part.dtype} on {part.device}: "
                    "optimize the network for these, or convert them"
                )

    def _check_shape(self, x: Map) -> None:
        """The kernels believe what they are told of a map: it must be true."""
        if isinstance(x, OctPair):
            check_pair(x, self.in_high, self.in_low, self.factors)
        elif self.in_low or x.dim() != len(self.factors) + 2 or x.shape[1] != self.in_channels:
            wanted = f"a pair with {self.in_low} low channels" if self.in_low else f"{self.in_channels} channels"
            raise ValueError(f"the convolution takes {wanted} and {len(self.factors)} axes; got {tuple(x.shape)}")

    def _pools(self, source: int, target: int) -> list[tuple[int, ...]]:
        """The poolings between the parts, at most two: the first is the stride's where the source is high."""
        axes = list(zip(self.strides, self.factors, strict=True))
        steps = [max(s * (f if target else 1) // (f if source else 1), 1) if f > 1 else 1 for s, f in axes]
        first = tuple(s if f > 1 and source == HIGH else step for (s, f), step in zip(axes, steps, strict=True))
        then = tuple(step // p for step, p in zip(steps, first, strict=True))
        return [pool for pool in (first, then) if max(pool) > 1]

    def _takes_summand(self, summand: Map, pair: OctPair, size: Sequence[int]) -> bool:
        """True for a summand of the output's kind, shapes and type."""
        if isinstance(summand, OctPair) != bool(self.alpha_out):
            return False
        if isinstance(summand, OctPair) and summand.segments != self.out_segments:
            return False
        parts = summand.parts if isinstance(summand, OctPair) else (summand,)
        sizes = size, low_size(size, self.factors)
        return all(
            tuple(part.shape) == (pair.high.shape[0], (self.out_high, self.out_low)[which], *sizes[which])
            and part.dtype == self.weight.dtype
            for which, part in enumerate(parts)
        )

    def _run(self, pair: OctPair, size: Sequence[int], sums: Sequence[Tensor | None], relu: bool) -> Map:
        of_high, of_low = self.out_high, self.out_low
        if not of_low:
            high = self._high(pair, size, sums[HIGH], relu, None)
            return empty_low(high, self.factors) if self.alpha_out else high
        joined = for_low = for_pooled = None
        if self.joins and of_high:
            joined = passes.empty_map(
                pair.high.shape[0], of_low + of_high, low_size(size, self.factors), self.weight.dtype
            )
            for_low, for_pooled = joined[:, :of_low], joined[:, of_low:]
        low = self._low(pair, sums[LOW], relu, for_low)
        high = self._high(pair, size, sums[HIGH], relu, for_pooled) if of_high else _no_channels(low, size)
        if joined is None:
            return OctPair(high, low, self.out_segments)
        return JoinedPair(high, low, self.out_segments, joined)

    @cached_property
    def pools_after(self) -> bool:
        """True where the low output is pooled after the convolution, for it is narrow, not the input before.

        A kernel that does not move on the octave's axes gives the same either way, at the borders, too.
        """
        narrow = 0 < self.out_low <= MOST_POOLED_AFTER.get(self.weight.dtype, 0)
        if not narrow or not self.out_high or not self.in_high or self.exchange != "both" or not self._is_tiled():
            return False
        kernel, _, padding, _ = self.moves
        moved = zip(self.factors, kernel, self.strides, padding, strict=True)
        still = all((k, stride, pad) == (1, 1, 0) for factor, k, stride, pad in moved if factor > 1)
        return still and self._uses_matrices(BOTH)

    def _run_as_one(self, pair: OctPair, size: Sequence[int]) -> Map:
        """One convolution for both outputs, the low one first, as if all were high; then that is pooled."""
        low_channels, channels = self.out_low, self.out_low + self.out_high
        batch, dtype, sizes = pair.high.shape[0], self.weight.dtype, low_size(size, self.factors)
        out = passes.empty_map(batch, channels, size, dtype)
        pooled = passes.empty_map(batch, channels if self.joins else low_channels, sizes, dtype)
        options: dict[str, Any] = {"unrectified": low_channels}
        sources: tuple[int, ...] = (HIGH,)
        if self.in_low and self._reads_low(BOTH):
            sources, options["low"] = (HIGH, LOW), pair.low
        elif self.in_low:
            options["raised"] = self._path(pair, (LOW,), BOTH, with_bias=False), pair.low
        self._path(pair, sources, BOTH, with_bias=True)(
            pair.high, relu=self.relu, out=out, raising=self.factors, pooled=pooled, pooling=self.factors, **options,
        )  # fmt: skip
        high, low = out[:, low_channels:], pooled[:, :low_channels]
        if self.joins:
            return JoinedPair(high, low, self.out_segments, pooled)
        return OctPair(high, low, self.out_segments)

    def _low(self, pair: OctPair, summand: Tensor | None, relu: bool, out: Tensor | None) -> Tensor:
        """The low part of the output, by one convolution of all that it reads where there are no groups."""
        sources = self.sources[LOW]
        if self.groups == 1 and len(sources) == 2:
            inputs: list[Input] = [((LOW, HIGH), self._joined(pair))]
        else:
            inputs = [((source,), self._pooled(pair, source, LOW)) for source in sources]
        return self._add_paths(pair, LOW, inputs, summand, relu, out, None)

    def _high(
        self, pair: OctPair, size: Sequence[int], summand: Tensor | None, relu: bool, pooled: Tensor | None
    ) -> Tensor:
        """The high part of the output; its means over the octave's cells go into `pooled`, if there."""
        sources = self.sources[HIGH]
        raises = LOW in sources and max(self.raising) > 1
        if not raises:
            inputs = self._inputs_of_one_size(pair, sources)
            return self._add_paths(pair, HIGH, inputs, summand, relu, None, pooled)
        low = self._pooled(pair, LOW, HIGH)
        if HIGH in sources:
            high = self._pooled(pair, HIGH, HIGH)
            if self._reads_low((HIGH,)):
                return self._add_paths(pair, HIGH, [((HIGH, LOW), high)], summand, relu, None, pooled, low=low)
            raised = self._path(pair, (LOW,), (HIGH,), with_bias=False), low
            return self._add_paths(pair, HIGH, [((HIGH,), high)], summand, relu, None, pooled, raised=raised)
        total = upsample(self._path(pair, (LOW,), (HIGH,), with_bias=True)(low, relu=relu and summand is None), size)
        if summand is not None:
            total = total + summand
            total = total.relu_() if relu else total
        if pooled is not None:
            passes.pool(total, pooled, self.factors)
        return total

    def _reads_low(self, targets: tuple[int, ...]) -> bool:
        """True where one convolution reads both parts, the low one up-sampled, for high outputs."""
        if targets not in self.with_low:
            kind = self.weight.dtype, self._is_tiled() and self._uses_matrices(targets)
            reads = self._is_tiled() and tiles_read_low(*kind, self.in_high, self.in_low, self.moves)
            self.with_low[targets] = reads
        return self.with_low[targets]

    def _is_tiled(self) -> bool:
        return self.groups == 1 and tiles_take(self.weight.dtype, self.in_high + self.in_low, self.moves)

    def _uses_matrices(self, targets: tuple[int, ...]) -> bool:
        """The same for all paths to some parts of the output, one of which may go on within another."""
        channels = sum((self.in_high, self.in_low)[source] for source in self.sources[targets[0]])
        out_channels = sum((self.out_high, self.out_low)[target] for target in targets)
        return tiles_use_matrices(self.weight.dtype, channels, out_channels, self.moves)

    def _inputs_of_one_size(self, pair: OctPair, sources: Sequence[int]) -> list[Input]:
        """What the high output reads where nothing is up-sampled: one map for both parts where there is one."""
        pooled_as_joined = self.pools[HIGH, HIGH] == [self.factors] and not self.pools[LOW, HIGH]
        if self.groups == 1 and len(sources) == 2 and pooled_as_joined:
            return [((LOW, HIGH), self._both(pair))]
        return [((source,), self._pooled(pair, source, HIGH)) for source in sources]

    def _add_paths(
        self,
        pair: OctPair,
        target: int,
        inputs: Sequence[Input],
        summand: Tensor | None,
        relu: bool,
        out: Tensor | None,
        pooled: Tensor | None,
        **up_sampled: Any,
    ) -> Tensor:
        """One convolution after the other on top of the summand; the last one adds the bias and does all the rest."""
        if out is None and self.in_place:
            out = summand
        total = summand
        for sources, x in inputs[:-1]:
            total = self._path(pair, sources, (target,), with_bias=False)(x, summand=total, out=out)
            out = total
        sources, x = inputs[-1]
        return self._path(pair, sources, (target,), with_bias=True)(
            x, summand=total, relu=relu, out=out, raising=self.raising, pooled=pooled, pooling=self.factors,
            **up_sampled,
        )  # fmt: skip

    def _sources(self, target: int) -> list[int]:
        """The parts of the input that one part of the output reads."""
        channels = self.in_high, self.in_low
        return [s for s in (LOW, HIGH) if channels[s] and path_runs(s, target, self.exchange, self.depthwise)]

    def _joined(self, pair: OctPair) -> Tensor:
        """What the low output reads, the low part before the high one, at the size of the low output."""
        of_high, of_low = self.pools[HIGH, LOW], self.pools[LOW, LOW]
        if of_high[:1] != [self.factors] or of_low != of_high[1:]:  # not pooled alike once the octave is down
            return torch.cat([self._pooled(pair, LOW, LOW), self._pooled(pair, HIGH, LOW)], 1)
        return _pool(self._both(pair), of_low)

    def _both(self, pair: OctPair) -> Tensor:
        """The low part and the high one pooled by the octave's factors, side by side."""
        return pair.joined if isinstance(pair, JoinedPair) else passes.join(pair.high, pair.low, self.factors)

    def _pooled(self, pair: OctPair, source: int, target: int) -> Tensor:
        """One part of the input at the size at which a part of the output reads it."""
        pools = self.pools[source, target]
        if source == HIGH and pools[:1] == [self.factors] and isinstance(pair, JoinedPair):
            return _pool(pair.joined[:, self.in_low :], pools[1:])
        return _pool(pair.parts[source], pools)

    def _path(self, pair: OctPair, sources: tuple[int, ...], targets: tuple[int, ...], with_bias: bool) -> Path:
        """The convolution from some parts of the input to some of the output; its weight is taken out once."""
        key = sources, targets, pair.segments, with_bias
        if key not in self.paths:
            self.paths[key] = self._make_path(*key)
        return self.paths[key]

    def _make_path(
        self, sources: tuple[int, ...], targets: tuple[int, ...], segments: Segments, with_bias: bool
    ) -> Path:
        bias = None
        if self.bias is not None and with_bias:
            bias = torch.cat([take(self.bias, self.out_segments, target) for target in targets])
        weight = torch.cat([take(self.weight, self.out_segments, target) for target in targets])
        if not self.depthwise:
            weight = torch.cat([columns(weight, segments, source, self.groups) for source in sources], 1)
        if self._is_tiled():
            low_channels = self.in_low if sources == (HIGH, LOW) else 0
            return TiledConv(weight, bias, self.moves, self._uses_matrices(targets), low_channels)
        groups = count(segments, sources[0]) if self.depthwise else self.groups
        return OneDnnConv(weight, bias, self.moves, groups)


def _pool(part: Tensor, pools: Sequence[Sequence[int]]) -> Tensor:
    for factors in pools:
        if max(factors) > 2 or not passes.takes_rows(part):
            part = avg_pool(part, factors)
        else:
            pooled = passes.empty_map(part.shape[0], part.shape[1], low_size(part.shape[2:], factors), part.dtype)
            passes.pool(part, pooled, factors)
            part = pooled
    return part


def _no_channels(low: Tensor, size: Sequence[int]) -> Tensor:
    return low.new_empty(low.shape[0], 0, *size)


def why_not_fused(conv: Any) -> str | None:
    """Say why a convolution stays as it is, or return None where `FusedConv` can take its place."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise_"):
        return "torch has no oneDNN"
    if conv.weight.device.type != "cpu" or conv.weight.dtype not in (torch.float32, torch.bfloat16):
        return "oneDNN's kernels are for float32 and bfloat16 on a CPU"
    if conv.padding_mode != "zeros" or conv.down_sampling != "average":
        return "only zero padding and average down-sampling are fused"
    if not conv.in_channels or not conv.out_channels:
        return "it has no channels"
    axes = list(zip(conv.kernel_size, conv.dilation, conv.geometry.padding, strict=True))
    if any(before != after for _, _, (before, after) in axes):
        return "its padding differs between the two ends"
    if (conv.alpha_in or conv.alpha_out) and any(2 * before != d * (k - 1) for k, d, (before, _) in axes):
        return "its padding does not keep the size"
    return None


def _factors(conv: Any) -> tuple[int, ...]:
    """The octave's factors; without low channels a convolution strides on all axes, as a dense one."""
    return conv.factors if conv.alpha_in or conv.alpha_out else (1,) * len(conv.factors)
