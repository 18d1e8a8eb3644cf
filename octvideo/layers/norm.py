"""Normalisation of octave pairs (and tensors, as torch's own). Parameters and buffers are those of the dense layers."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from octvideo.layers.channels import HIGH, join, parts, put, take
from octvideo.layers.pair import OctPair, channels_of
from octvideo.layers.replace import replace_modules, with_class
from octvideo.layers.resize import avg_pool, factors_between, upsample


class _PairBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of each part with its entries of one set of C statistics."""

    def forward(self, input: OctPair | Tensor) -> OctPair | Tensor:  # type: ignore[override]
        if isinstance(input, Tensor):
            return super().forward(input)
        _check_channels(self, self.num_features, input)
        momentum = self._count_batch()
        weights, biases = ((None, None) if t is None else parts(t, input.segments) for t in (self.weight, self.bias))
        return input.map_parts(
            lambda x, part: self._normalise(x, input.segments, part, weights[part], biases[part], momentum)
        )

    def _count_batch(self) -> float:
        """Count one more batch in training; return the weight of this batch in the running statistics."""
        if not (self.training and self.track_running_stats and self.num_batches_tracked is not None):
            return self.momentum or 0.0
        self.num_batches_tracked.add_(1)
        return 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum

    def _normalise(
        self, x: Tensor, segments: Any, part: int, weight: Tensor | None, bias: Tensor | None, momentum: float
    ) -> Tensor:
        if not x.shape[1]:
            return x
        use_batch = self.training or self.running_mean is None
        if self.running_mean is None or self.running_var is None:
            return F.batch_norm(x, None, None, weight, bias, use_batch, momentum, self.eps)
        mean, var = take(self.running_mean, segments, part), take(self.running_var, segments, part)
        if not use_batch or len(segments) == 1:
            return F.batch_norm(x, mean, var, weight, bias, use_batch, momentum, self.eps)
        mean, var = mean.clone(), var.clone()  # no view of scattered entries: they are written back
        out = F.batch_norm(x, mean, var, weight, bias, use_batch, momentum, self.eps)
        put(self.running_mean, segments, part, mean)
        put(self.running_var, segments, part, var)
        return out


class OctBatchNorm1d(_PairBatchNorm, nn.BatchNorm1d):
    """`nn.BatchNorm1d` that also takes octave pairs; same parameters and buffers."""


class OctBatchNorm2d(_PairBatchNorm, nn.BatchNorm2d):
    """`nn.BatchNorm2d` that also takes octave pairs; same parameters and buffers."""


class OctBatchNorm3d(_PairBatchNorm, nn.BatchNorm3d):
    """`nn.BatchNorm3d` that also takes octave pairs; same parameters and buffers."""


class OctSyncBatchNorm(_PairBatchNorm):
    """Batch normalisation over the batches of all processes; takes pairs and tensors, on the CPU (gloo) too.

    Where no process group is running it is the ordinary batch normalisation.

    Args:
        num_features, eps, momentum, affine, track_running_stats: as in `nn.SyncBatchNorm`.
        process_group: the processes that share statistics; None for all.
    """

    def __init__(self, *args: Any, process_group: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.process_group = process_group

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"OctSyncBatchNorm takes maps of 2 or more dimensions; got {tuple(input.shape)}")

    def forward(self, input: OctPair | Tensor) -> OctPair | Tensor:  # type: ignore[override]
        if not (self.training and dist.is_initialized() and dist.get_world_size(self.process_group) > 1):
            return super().forward(input)
        momentum = self._count_batch()
        if isinstance(input, Tensor):
            return self._synchronised(input, ((input.shape[1], 0),), HIGH, momentum)
        _check_channels(self, self.num_features, input)
        return input.map_parts(lambda x, part: self._synchronised(x, input.segments, part, momentum))

    def _synchronised(self, x: Tensor, segments: Any, part: int, momentum: float) -> Tensor:
        """Normalise with the mean and variance over every process: two reductions, for the deviations need the mean."""
        axes = [0, *range(2, x.dim())]
        if not x.shape[1]:
            return x
        exact = x.to(_at_least_float32(x))
        sums = _SumOverProcesses.apply(
            torch.cat([exact.sum(axes), exact.new_tensor([x.numel() / x.shape[1]])]), self.process_group
        )
        count = sums[-1].detach()
        if count <= 1:
            raise ValueError(f"batch norm in training needs more than 1 value per channel; got {tuple(x.shape)}")
        mean = sums[:-1] / count
        deviation = exact - _per_channel(mean, x)
        var = _SumOverProcesses.apply(deviation.square().sum(axes), self.process_group) / count
        if self.running_mean is not None and self.running_var is not None:
            for running, batch in ((self.running_mean, mean), (self.running_var, var * count / (count - 1))):
                now = take(running, segments, part)
                put(running, segments, part, torch.lerp(now, batch.detach().to(now.dtype), momentum))
        out = deviation * _per_channel((var + self.eps).rsqrt(), x)
        if self.affine:
            out = out * _per_channel(take(self.weight, segments, part), x)
            out = out + _per_channel(take(self.bias, segments, part), x)
        return out.to(x.dtype)


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce by summation; every process's loss depends on the sum, and so its gradient is summed as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        x = x.clone()
        dist.all_reduce(x, group=group)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.clone()
        dist.all_reduce(grad, group=ctx.group)
        return grad, None


class OctGroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` that also takes octave pairs.

    A group's mean and variance run over its high and its low channels, each channel with equal weight, so that a map
    that is constant in space is normalised as the dense one is.
    """

    def forward(self, input: OctPair | Tensor) -> OctPair | Tensor:  # type: ignore[override]
        if isinstance(input, Tensor):
            return super().forward(input)
        _check_channels(self, self.num_channels, input)
        exact = [part.to(_at_least_float32(part)).flatten(2) for part in input.parts]
        moments = [torch.var_mean(part, dim=2, correction=0) for part in exact]  # each (N, C_part)
        var, mean = (join(a, b, input.segments).unflatten(1, (self.num_groups, -1)) for a, b in zip(*moments))  # noqa: B905
        group_mean = mean.mean(2, keepdim=True)
        group_var = (var + (mean - group_mean).square()).mean(2, keepdim=True)
        gain = (group_var + self.eps).rsqrt().expand_as(mean).flatten(1)
        shift = -group_mean.expand_as(mean).flatten(1) * gain
        if self.affine:
            gain, shift = gain * self.weight, shift * self.weight + self.bias
        out = input * _per_channel(gain, input.high) + _per_channel(shift, input.high)
        return out.map(lambda part: part.to(input.high.dtype))


class OctLayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each position (ConvNeXt's), of tensors and pairs (N, C, ...).

    A position's statistics run over all C channels: the other part's sums are brought to its size, by up-sampling or
    average pooling. Parameters are those of `nn.LayerNorm(C)`.
    """

    def forward(self, input: OctPair | Tensor) -> OctPair | Tensor:  # type: ignore[override]
        (channels,) = self.normalized_shape
        if isinstance(input, Tensor):
            return super().forward(input.movedim(1, -1)).movedim(-1, 1)
        _check_channels(self, channels, input)
        high, low = (part.to(_at_least_float32(part)) for part in input.parts)
        mean = [m / channels for m in _exchange_sums(high.sum(1, keepdim=True), low.sum(1, keepdim=True))]
        centred = [part - m for part, m in zip((high, low), mean, strict=True)]
        squares = _exchange_sums(*(c.square().sum(1, keepdim=True) for c in centred))
        high, low = (c * (s / channels + self.eps).rsqrt() for c, s in zip(centred, squares, strict=True))
        out = OctPair(high, low, input.segments)
        if self.weight is not None:
            out = out * _per_channel(self.weight[None], input.high)
        if self.bias is not None:
            out = out + _per_channel(self.bias[None], input.high)
        return out.map(lambda part: part.to(input.high.dtype))


def convert_sync_batchnorm(module: nn.Module, process_group: Any = None) -> nn.Module:
    """Replace every batch normalisation, in place, by `OctSyncBatchNorm` with the same parameters; return the network.

    Args:
        module: a network, octave or dense.
        process_group: the processes that share statistics; None for all.
    """

    def synchronised(norm: nn.Module) -> nn.Module | None:
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            return None
        new = with_class(norm, OctSyncBatchNorm)
        new.process_group = process_group
        return new

    return replace_modules(module, synchronised)


def _exchange_sums(high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over all channels at the positions of each part, from the sums over that part's channels (N, 1, ...)."""
    factors = factors_between(high.shape[2:], low.shape[2:])
    return high + upsample(low, high.shape[2:]), low + avg_pool(high, factors)


def _at_least_float32(x: Tensor) -> torch.dtype:
    """The type in which statistics are computed."""
    return torch.promote_types(x.dtype, torch.float32)


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """(C) or (N, C) values in a shape that meets x (N, C, ...)."""
    return values.reshape(*values.shape, *(1,) * (x.dim() - 2))


def _check_channels(norm: nn.Module, channels: int, pair: OctPair) -> None:
    if channels_of(pair) != channels:
        raise ValueError(
            f"{type(norm).__name__} of {channels} channels got a pair of "
            f"{pair.high.shape[1]} high and {pair.low.shape[1]} low ones"
        )
