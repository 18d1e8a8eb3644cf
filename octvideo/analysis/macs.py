"""Multiply-adds of one view, with the octave layers' pooling and upsampling counted apart.

One multiply-add is one MAC, the unit that papers on video networks print as "FLOPs". Counted are the operators that
reach the dispatcher in one forward pass, so functional calls count like modules.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_flop_count

from octvideo.analysis.shapes import ShapesOnly
from octvideo.layers.calls import call, evaluating
from octvideo.layers.pool import per_axis

aten = torch.ops.aten

#: Name of this counter, to be printed beside its numbers.
MACS_TOOL = "octvideo count_macs (convolutions + matmuls)"


@dataclass(frozen=True)
class CostReport:
    """Multiply-adds of one forward pass of one view, by kind of operator.

    Args:
        conv_macs: convolutions; the bias and zero padding as in torch's and fvcore's counters (free, and counted).
        matmul_macs: linear layers, matrix products and attention.
        pool_macs: average pooling, one per element that a window reads; global and adaptive pools and means included.
        norm_macs: normalisation at rest, 2 per element with scale and shift and 1 without, fvcore's convention.
        upsample_elements: elements written by nearest upsampling. It copies: bytes, and no multiply-add.
    """

    conv_macs: int
    matmul_macs: int
    pool_macs: int
    norm_macs: int
    upsample_elements: int

    @property
    def macs(self) -> int:
        """Convolutions and matmuls, the number that papers print."""
        return self.conv_macs + self.matmul_macs

    @property
    def total_macs(self) -> int:
        """All that is counted: convolutions, matmuls, average pooling and normalisation."""
        return self.macs + self.pool_macs + self.norm_macs

    @property
    def gmacs(self) -> float:
        """Convolutions and matmuls in 10^9 multiply-adds."""
        return self.macs / 1e9

    @property
    def gmacs_with_norm(self) -> float:
        """Convolutions, matmuls and normalisation in 10^9 multiply-adds, the number that fvcore-based tables print."""
        return (self.macs + self.norm_macs) / 1e9

    @property
    def pool_gmacs(self) -> float:
        """Average pooling in 10^9 multiply-adds."""
        return self.pool_macs / 1e9


def count_macs(model: nn.Module, inputs: Any) -> CostReport:
    """Count the multiply-adds of one forward pass in evaluation mode; on the meta device it takes no memory.

    Args:
        model: the network; its modules' training flags are put back afterwards.
        inputs: one view, a batch of one. A tuple is passed as positional arguments, all else as the one argument.

    Raises:
        ValueError: inputs holds no tensor, a batch that is not one view, or lies on another device than the model.

    Example:
        >>> count_macs(nn.Conv3d(3, 8, kernel_size=3, padding=1), torch.zeros(1, 3, 4, 16, 16)).conv_macs
        663552
    """
    _check_one_view(model, inputs)
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS | _WHOLE)
    # The fused attention and encoder layers of evaluation mode are one opaque operator each.
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with evaluating(model), torch.no_grad(), ShapesOnly(), counter:
            call(model, inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    return _sorted_by_kind(counter.get_flop_counts().get("Global", {}))


def nested_tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, dicts and octave pairs, in order."""
    return (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def _sorted_by_kind(counts: dict[Any, int]) -> CostReport:
    special = _POOLS | _NORMS | _UPSAMPLES
    convs = sum(n for op, n in counts.items() if op in _CONVS)
    matmuls = sum(n for op, n in counts.items() if op not in _CONVS and op not in special)
    return CostReport(
        # torch counts a multiplication and an addition as two.
        conv_macs=convs // 2,
        matmul_macs=matmuls // 2,
        pool_macs=sum(n for op, n in counts.items() if op in _POOLS),
        norm_macs=sum(n for op, n in counts.items() if op in _NORMS),
        upsample_elements=sum(n for op, n in counts.items() if op in _UPSAMPLES),
    )


def _check_one_view(model: nn.Module, inputs: Any) -> None:
    tensors = list(nested_tensors(inputs))
    if not tensors or any(t.ndim == 0 or t.shape[0] != 1 for t in tensors):
        shapes = [tuple(t.shape) for t in tensors]
        raise ValueError(
            f"inputs should be tensors of one view, batch size 1, got shapes {shapes}. Pass inputs[:1] of a batch."
        )
    parameter = next(model.parameters(), None)
    if parameter is not None and parameter.device.type != tensors[0].device.type:
        raise ValueError(
            f"inputs should lie on the model's device {parameter.device}, got {tensors[0].device}. "
            "Move one of them: model.to('meta') counts without memory."
        )


def _window_reads(size: int, kernel: int, stride: int, padding: int, num_windows: int) -> int:
    """Elements that pooling windows read along one axis; what hangs over the border is not read."""
    starts = (window * stride - padding for window in range(num_windows))
    return sum(min(start + kernel, size) - max(start, 0) for start in starts)


def _avg_pool_macs(axes: int) -> Callable[..., int]:
    def formula(x, kernel_size, stride=(), padding=0, *args, out_shape=None, **kwargs) -> int:
        kernel, step, pad = (per_axis(value, axes) for value in (kernel_size, stride or kernel_size, padding))
        sizes, windows = x[-axes:], out_shape[-axes:]
        return math.prod(x[:-axes]) * math.prod(map(_window_reads, sizes, kernel, step, pad, windows))

    return formula


def _adaptive_pool_macs(axes: int) -> Callable[..., int]:
    def formula(x, output_size, *args, out_shape=None, **kwargs) -> int:
        reads = (
            sum(-(-(i + 1) * size // bins) - i * size // bins for i in range(bins))
            for size, bins in zip(x[-axes:], out_shape[-axes:], strict=True)
        )
        return math.prod(x[:-axes]) * math.prod(reads)

    return formula


def _input_elements(x, *args, **kwargs) -> int:
    return math.prod(x)


def _output_elements(*args, out_shape=None, **kwargs) -> int:
    return math.prod(out_shape)


def _norm_macs(x, weight=None, *args, **kwargs) -> int:
    return math.prod(x) * (1 if weight is None else 2)


def _layer_norm_macs(x, normalized_shape, weight=None, *args, **kwargs) -> int:
    return _norm_macs(x, weight)


def _cpu_attention_flops(query, key, value, *args, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


def _folded_conv_flops(x, weight, *args, out_shape=None, **kwargs) -> int:
    return conv_flop_count(x, weight, out_shape)


_POOL_FORMULAS: dict[Any, Callable[..., int]] = {
    aten.avg_pool2d: _avg_pool_macs(2),
    aten.avg_pool3d: _avg_pool_macs(3),
    aten._adaptive_avg_pool2d: _adaptive_pool_macs(2),
    aten._adaptive_avg_pool3d: _adaptive_pool_macs(3),
    aten.mean: _input_elements,  # adaptive pools to size 1 arrive as a mean
}
_NORM_FORMULAS: dict[Any, Callable[..., int]] = {
    aten.native_batch_norm: _norm_macs,
    aten._native_batch_norm_legit_no_training: _norm_macs,
    aten.cudnn_batch_norm: _norm_macs,
    aten.native_group_norm: _norm_macs,
    aten.native_layer_norm: _layer_norm_macs,
}
_UPSAMPLE_FORMULAS: dict[Any, Callable[..., int]] = {
    aten.upsample_nearest1d: _output_elements,
    aten.upsample_nearest2d: _output_elements,
    aten.upsample_nearest3d: _output_elements,
    aten._upsample_nearest_exact1d: _output_elements,
    aten._upsample_nearest_exact2d: _output_elements,
    aten._upsample_nearest_exact3d: _output_elements,
}
_POOLS, _NORMS, _UPSAMPLES = set(_POOL_FORMULAS), set(_NORM_FORMULAS), set(_UPSAMPLE_FORMULAS)
_CONVS = {
    aten.convolution,
    aten._convolution,
    aten.cudnn_convolution,
    aten.convolution_overrideable,
    aten._slow_conv2d_forward,
    aten.mkldnn_convolution,
}
_FORMULAS: dict[Any, Callable[..., int]] = {
    **_POOL_FORMULAS,
    **_NORM_FORMULAS,
    **_UPSAMPLE_FORMULAS,
    aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention_flops,
    aten.mkldnn_convolution: _folded_conv_flops,
}
# The counter takes an operator apart where torch has a decomposition, as for nearest upsampling, unless its very
# overload is registered; the count then goes by the operator above.
_WHOLE = {getattr(op, name): formula for op, formula in _FORMULAS.items() for name in op.overloads()}
