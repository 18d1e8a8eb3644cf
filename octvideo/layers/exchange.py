"""What the two parts give each other, in few passes over the large one.

On a CPU the kernels in C of `octvideo.kernels` take channels-last maps, one pass each; torch's functions take all
others. In training both ways count: the gradient of an average pooling is an up-sampling, that of an up-sampling a
pooling. torch's own kernels for them fill a map with zeros, add into it place by place, and leave it to another pass to
add what else flows into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from octvideo import kernels
from octvideo.layers.channels import Segments, join
from octvideo.layers.resize import avg_pool, cell_sizes, factors_between, low_size, sum_cells, upsample

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
    if _trains_eagerly():
        return _AddUpsampled.apply(high, low)
    if _kernels_take(high, low):
        return kernels.add_upsampled(high, low, factors_between(high.shape[2:], low.shape[2:]))
    return high + upsample(low, high.shape[2:])


def with_joined(high: Tensor, low: Tensor, factors: Sequence[int], segments: Segments) -> tuple[Tensor, Tensor]:
    """`high`, and `avg_pool(high, factors)` joined with `low` in the dense order: see `with_pooled`.

    Shape:
        (N, C, *size), (N, C', *ceil(size / factors)) -> (N, C, *size), (N, C + C', *ceil(size / factors)).
    """
    if len(segments) == 1 and _is_made_smaller(high, factors):
        # (torch loses a tangent of the low part alone, for the first of the two results is a view of the high one.)
        if _trains_eagerly() and forward_ad._current_level < 0:
            return _WithPooled.apply(high, low, tuple(factors))
        if _kernels_take(high, low):
            return high, _joined(high, low, factors)
    high, pooled = with_pooled(high, factors)
    return high, join(pooled, low, segments)


def with_pooled(x: Tensor, factors: Sequence[int]) -> tuple[Tensor, Tensor]:
    """`x` and `avg_pool(x, factors)`: whoever goes on with both gets the gradients' sum by one pass.

    Shape:
        (N, C, *size) -> (N, C, *size), (N, C, *ceil(size / factors)).
    """
    if _is_made_smaller(x, factors):
        if _trains_eagerly():
            return _WithPooled.apply(x, None, tuple(factors))
        if _kernels_take(x):
            return x, _joined(x, None, factors)
    return x, avg_pool(x, factors)


class _AddUpsampled(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(high: Tensor, low: Tensor) -> Tensor:
        factors = factors_between(high.shape[2:], low.shape[2:])
        if _kernels_take(high, low):
            return kernels.add_upsampled(high, low, factors)
        raised = _UPSAMPLE[len(factors)](low, high.shape[2:], *map(float, factors))
        return raised.add_(high) if raised.stride() == high.stride() else high + raised

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        high, low = inputs
        ctx.factors = factors_between(high.shape[2:], low.shape[2:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        if not _kernels_take(grad):
            return grad, sum_cells(grad, ctx.factors)
        sums = kernels.empty_map(grad.shape[0], grad.shape[1], low_size(grad.shape[2:], ctx.factors), grad.dtype)
        kernels.pool(grad, sums, ctx.factors, sums=True)
        return grad, sums

    @staticmethod
    def jvp(ctx: Any, high: Tensor, low: Tensor) -> Tensor:
        return high + upsample(low, high.shape[2:])


class _WithPooled(Function):
    """The high part, and its means with what may be joined to them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(high: Tensor, low: Tensor | None, factors: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        return high.view_as(high), _joined(high, low, factors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        high, low, ctx.factors = inputs
        ctx.channels = high.shape[1], 0 if low is None else low.shape[1]
        ctx.size = high.shape[2:]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, grad_joined: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None]:
        if grad_joined is None:
            return grad, None, None
        grad_pooled, grad_low = grad_joined.split(ctx.channels, 1)
        if grad is None:
            spread = grad_pooled / cell_sizes(ctx.size, ctx.factors, grad_pooled)
            grad = upsample(spread, ctx.size)
        else:
            grad = _add_shares(grad, grad_pooled, ctx.factors)
        return grad, grad_low if ctx.channels[1] else None, None

    @staticmethod
    def jvp(ctx: Any, high: Tensor, low: Tensor | None, factors: None) -> tuple[Tensor, Tensor]:
        return high.view_as(high), _joined(high, low, ctx.factors)


def _joined(high: Tensor, low: Tensor | None, factors: Sequence[int]) -> Tensor:
    """`torch.cat([avg_pool(high, factors), low], 1)`."""
    lows = [] if low is None else [low]
    if _kernels_take(high, *lows):
        return kernels.join((high, factors), *((x, [1] * len(factors)) for x in lows))
    pooled = avg_pool(high, factors)
    return torch.cat([pooled, *lows], 1) if lows else pooled


def _add_shares(high: Tensor, low: Tensor, factors: Sequence[int]) -> Tensor:
    """`high`, and of each element of `low` an equal share in the places of its cell: the gradient of `avg_pool`."""
    if _kernels_take(high) and low.dtype == high.dtype and kernels.row_step(low) is not None:
        return kernels.add_upsampled(high, low, factors, means=True)
    return add_upsampled(high, low / cell_sizes(high.shape[2:], factors, low))


def _kernels_take(*maps: Tensor) -> bool:
    """True for maps that kernels can be given, where nobody has to see torch's functions instead of them.

    Those who have are autograd (also in a backward pass, for gradients' gradients, and forward mode, which `no_grad`
    leaves on), compilers, tracers, transforms and dispatch modes.
    """
    return (
        all(type(m) is Tensor for m in maps)
        and not (torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing())
        and forward_ad._current_level < 0
        and not is_in_torch_dispatch_mode()
        and not torch._C._are_functorch_transforms_active()
        and kernels.takes(*maps)
    )


def _is_made_smaller(high: Tensor, factors: Sequence[int]) -> bool:
    return set(factors) <= {1, 2} and 2 in factors and bool(high.shape[1])


def _trains_eagerly() -> bool:
    """True where autograd runs torch's kernels one by one; a compiler fuses them itself, and takes no `jvp`."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()
