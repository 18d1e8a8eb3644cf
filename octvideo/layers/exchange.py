"""What the two parts give each other, in few passes over the large one: for training, where both ways count.

The gradient of an average pooling is an up-sampling, that of an up-sampling a pooling. torch's own kernels for them
fill a map with zeros, add into it place by place, and leave it to another pass to add what else flows into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from octvideo.layers.resize import avg_pool, cell_sizes, sum_cells, upsample

# Given both size and factors, torch repeats exactly and crops as it writes. ONNX's exporter takes the factors alone.
_UPSAMPLE: dict[int, Callable[..., Tensor]] = {
    1: torch.ops.aten.upsample_nearest1d.default,
    2: torch.ops.aten.upsample_nearest2d.default,
    3: torch.ops.aten.upsample_nearest3d.default,
}


def add_upsampled(high: Tensor, low: Tensor) -> Tensor:
    """`high + upsample(low)`, of which torch need not make and keep the second term.

    Shape:
        (N, C, *size), (N, C, *ceil(size / factors)) -> (N, C, *size).
    """
    if high.shape == low.shape:
        return high + low
    return _AddUpsampled.apply(high, low) if _trains_eagerly() else high + upsample(low, high.shape[2:])


def with_pooled(x: Tensor, factors: Sequence[int]) -> tuple[Tensor, Tensor]:
    """`x` and `avg_pool(x, factors)`: whoever goes on with both gets the gradients' sum by one pass.

    Shape:
        (N, C, *size) -> (N, C, *size), (N, C, *ceil(size / factors)).
    """
    if all(f == 1 for f in factors) or not x.shape[1] or not _trains_eagerly():
        return x, avg_pool(x, factors)
    return _WithPooled.apply(x, tuple(factors))


class _AddUpsampled(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(high: Tensor, low: Tensor) -> Tensor:
        factors = [float(f) for f in _factors(high, low)]
        raised = _UPSAMPLE[len(factors)](low, high.shape[2:], *factors)
        return raised.add_(high) if raised.stride() == high.stride() else high + raised

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        high, low = inputs
        ctx.factors = _factors(high, low)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, sum_cells(grad, ctx.factors)

    @staticmethod
    def jvp(ctx: Any, high: Tensor, low: Tensor) -> Tensor:
        return high + upsample(low, high.shape[2:])


class _WithPooled(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, factors: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        return x.view_as(x), avg_pool(x, factors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.factors = inputs
        ctx.size = x.shape[2:]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_pooled: Tensor | None) -> tuple[Tensor | None, None]:
        if grad_pooled is None:
            return grad, None
        spread = grad_pooled / cell_sizes(ctx.size, ctx.factors, grad_pooled)
        return (upsample(spread, ctx.size) if grad is None else add_upsampled(grad, spread)), None

    @staticmethod
    def jvp(ctx: Any, x: Tensor, factors: None) -> tuple[Tensor, Tensor]:
        return x.view_as(x), avg_pool(x, ctx.factors)


def _trains_eagerly() -> bool:
    """True where autograd runs torch's kernels one by one; a compiler fuses them itself, and takes no `jvp`."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _factors(high: Tensor, low: Tensor) -> tuple[int, ...]:
    return tuple(1 if h == n else 2 for h, n in zip(high.shape[2:], low.shape[2:], strict=True))
