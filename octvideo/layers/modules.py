"""Normalisation, pooling and element-wise layers that take octave pairs (and tensors, as torch's own do)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from octvideo.layers.dispatch import pool_pair
from octvideo.layers.pair import OctPair, merge


class _PairBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of each part with its slice of one set of C statistics, high channels first."""

    def forward(self, input: OctPair | Tensor) -> OctPair | Tensor:  # type: ignore[override]
        if isinstance(input, Tensor):
            return super().forward(input)
        high = input.high.shape[1]
        if high + input.low.shape[1] != self.num_features:
            raise ValueError(
                f"{type(self).__name__} of {self.num_features} channels got a pair of "
                f"{high} high and {input.low.shape[1]} low ones"
            )
        momentum = self._count_batch()
        return OctPair(
            self._normalise(input.high, slice(0, high), momentum),
            self._normalise(input.low, slice(high, self.num_features), momentum),
        )

    def _count_batch(self) -> float:
        """Count one more batch in training; return the weight of this batch in the running statistics."""
        if not (self.training and self.track_running_stats and self.num_batches_tracked is not None):
            return self.momentum or 0.0
        self.num_batches_tracked.add_(1)
        return 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum

    def _normalise(self, part: Tensor, channels: slice, momentum: float) -> Tensor:
        if not part.shape[1]:
            return part
        mean, var, weight, bias = (
            None if t is None else t[channels] for t in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        use_batch = self.training or mean is None
        return F.batch_norm(part, mean, var, weight, bias, use_batch, momentum, self.eps)


class OctBatchNorm2d(_PairBatchNorm, nn.BatchNorm2d):
    """`nn.BatchNorm2d` that also takes octave pairs; same parameters and buffers."""


class OctBatchNorm3d(_PairBatchNorm, nn.BatchNorm3d):
    """`nn.BatchNorm3d` that also takes octave pairs; same parameters and buffers."""


def batch_norm_from_dense(norm: nn.BatchNorm2d | nn.BatchNorm3d) -> OctBatchNorm2d | OctBatchNorm3d:
    """Return the pair-taking batch normalisation that shares a dense one's parameters and statistics."""
    kind = OctBatchNorm3d if isinstance(norm, nn.BatchNorm3d) else OctBatchNorm2d
    new = kind(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, device=torch.device("meta")
    )
    new.weight, new.bias = norm.weight, norm.bias
    new.running_mean, new.running_var = norm.running_mean, norm.running_var
    new.num_batches_tracked = norm.num_batches_tracked
    new.train(norm.training)
    return new


class Pairwise(nn.Module):
    """Apply a parameter-free layer (activation, dropout) to both parts of a pair.

    Args:
        layer: a module without parameters that acts on each element or channel by itself.

    Raises:
        ValueError: for a layer with parameters, which would have to be shared or split.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        if any(True for _ in layer.parameters()):
            raise ValueError(f"Pairwise takes a layer without parameters; {type(layer).__name__} has some")
        self.layer = layer

    def forward(self, x: OctPair | Tensor) -> OctPair | Tensor:
        if isinstance(x, Tensor):
            return self.layer(x)
        return OctPair(self.layer(x.high), self.layer(x.low))


class PairPool(nn.Module):
    """Max or average pooling of both parts; the low result stays ceil(high / 2) on the octave axes.

    Args:
        pool: `nn.MaxPool2d`, `nn.MaxPool3d`, `nn.AvgPool2d` or `nn.AvgPool3d`.
    """

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool
        self.ceil_pool = copy.copy(pool)
        self.ceil_pool.ceil_mode = True  # type: ignore[assignment]

    def forward(self, x: OctPair | Tensor) -> OctPair | Tensor:
        if isinstance(x, Tensor):
            return self.pool(x)
        return pool_pair(self.pool, self.ceil_pool, self._least_size(x.high.dim() - 2), x)

    def _least_size(self, num_axes: int) -> list[int]:
        pool: Any = self.pool
        kernel, padding = ([v] * num_axes if isinstance(v, int) else list(v) for v in (pool.kernel_size, pool.padding))
        return [k - 2 * p for k, p in zip(kernel, padding, strict=True)]


class MergeInputs:
    """A forward pre-hook: a module that cannot take pairs gets the merged, dense map.

    Args:
        segments: see `octvideo.layers.merge`.
    """

    def __init__(self, segments: Any = None) -> None:
        self.segments = segments

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(merge(a, self.segments) if isinstance(a, OctPair) else a for a in args)


def _pools_by_stride(pool: Any) -> bool:
    """True where the pooled size is n / stride, rounded: only then can the low part follow."""
    kernel, stride, padding = (
        (v,) * 3 if isinstance(v, int) else v for v in (pool.kernel_size, pool.stride, pool.padding)
    )
    return all(k - s <= 2 * p for k, s, p in zip(kernel, stride, padding, strict=True))


PAIRWISE_LAYERS: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh,
    nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
)  # fmt: skip
"""Layers that `Pairwise` may carry."""

POOLS: tuple[type[nn.Module], ...] = (nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d)
"""Layers that `PairPool` may carry."""


def pair_layer(layer: nn.Module) -> nn.Module | None:
    """Return the layer that does for pairs what `layer` does for tensors, or None where there is none."""
    table: list[tuple[tuple[type[nn.Module], ...], Callable[[Any], nn.Module]]] = [
        ((nn.BatchNorm2d, nn.BatchNorm3d), batch_norm_from_dense),
        (PAIRWISE_LAYERS, Pairwise),
        (POOLS, PairPool),
    ]
    if isinstance(layer, POOLS) and not _pools_by_stride(layer):
        return None
    for kinds, make in table:
        if type(layer) in kinds:
            return make(layer)
    return None
