"""Convolutions by oneDNN's kernels with packed weights, and the passes after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from octvideo.kernels import LAYOUTS
from octvideo.layers.lowering import settled
from octvideo.runtime import passes
from octvideo.runtime.moves import Moves
from octvideo.runtime.views import view_for


class OneDnnConv:
    """A convolution that adds a summand and rectifies as it writes; the rest of `TiledConv`'s work follows in passes.

    Args:
        weight: (C_out, C_in / groups, *kernel), float32 or bfloat16.
        bias: (C_out,), or None.
        moves: how the kernel moves.
        groups: torch's meaning.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, moves: Moves, groups: int) -> None:
        self.moves, self.given_weight = moves, weight
        self.view = view_for(moves.kernel, moves.stride, moves.padding)
        self.frame_stride = moves.stride[0]
        kernel, stride, padding, dilation = ([numbers[a] for a in self.view.axes] for numbers in moves)
        weight = weight.reshape(*weight.shape[:2], *kernel)
        self.weight = weight.contiguous(memory_format=LAYOUTS[weight.dim()])
        self.bias = None if bias is None else bias.contiguous()  # oneDNN ignores the strides of a bias
        self.how = padding, stride, dilation, groups
        self.packed: dict[Any, Tensor] = {}

    def __call__(
        self,
        x: Tensor,
        *,
        summand: Tensor | None = None,
        raised: tuple[Any, Tensor] | None = None,
        relu: bool = False,
        out: Tensor | None = None,
        raising: Sequence[int] = (),
        pooled: Tensor | None = None,
        pooling: Sequence[int] = (),
    ) -> Tensor:
        """As `TiledConv`."""
        total = summand if summand is None or summand is out else summand.clone()
        total = self._convolve(x, total, relu and raised is None)
        if raised is not None:
            conv, low = raised
            passes.add_raised(total, conv(low), raising, relu, pooled, pooling)
        elif pooled is not None:
            passes.pool(total, pooled, pooling)
        return total if out is None or total.data_ptr() == out.data_ptr() else out.copy_(total)

    def _convolve(self, x: Tensor, total: Tensor | None, relu: bool) -> Tensor:
        """Convolve; written over `total` with what it holds added, where it is given."""
        settled_x, stride, padding = settled(x, self.given_weight, *self.moves[1:])
        if settled_x is not x or not x.shape[0]:
            conv = F.conv2d if x.dim() == 4 else F.conv3d
            out = conv(settled_x, self.given_weight, self.bias, stride, padding, self.moves.dilation, self.how[-1])
            out = out.contiguous(memory_format=LAYOUTS[x.dim()])
            out = out if total is None else total.add_(out)
            return out.relu_() if relu else out
        seen = self.view.of(x, self.frame_stride)
        if seen.shape not in self.packed:
            size = list(seen.shape)
            self.packed[seen.shape] = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.how, size)
        ops, arguments = torch.ops.mkldnn, (self.packed[seen.shape], self.bias, *self.how)
        if total is None:
            out = ops._convolution_pointwise(seen, *arguments, "relu" if relu else "none", [], "")
        else:
            after: Any = "add", 1.0, "relu" if relu else None, [], ""
            out = ops._convolution_pointwise_(self.view.of(total), seen, *arguments, *after)
        return self.view.map(out, x)
