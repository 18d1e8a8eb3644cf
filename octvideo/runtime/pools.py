"""Maximum pooling in one pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from octvideo.layers.pool import PlanarMaxPool3d, per_axis
from octvideo.layers.replace import with_class
from octvideo.runtime import passes


class _MaxPool2d(nn.MaxPool2d):
    def forward(self, input: Tensor) -> Tensor:
        return _max_pool(self, input) if passes.takes_rows(input) else super().forward(input)


class _MaxPool3d(nn.MaxPool3d):
    def forward(self, input: Tensor) -> Tensor:
        return _max_pool(self, input) if passes.takes_rows(input) else super().forward(input)


class _PlanarMaxPool3d(PlanarMaxPool3d):
    def forward(self, input: Tensor) -> Tensor:
        return _max_pool(self, input) if passes.takes_rows(input) else super().forward(input)


_KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.MaxPool2d: _MaxPool2d, nn.MaxPool3d: _MaxPool3d, PlanarMaxPool3d: _PlanarMaxPool3d,
}  # fmt: skip


def fast_pool(pool: nn.Module) -> nn.Module | None:
    """The pooling that of channels-last maps on a CPU runs in one pass, or None where there is none."""
    any_pool: Any = pool
    kind = _KINDS.get(type(pool))
    if kind is None or any_pool.return_indices or set(per_axis(any_pool.dilation, 3)) != {1}:
        return None
    return with_class(pool, kind)


def _max_pool(pool: Any, x: Tensor) -> Tensor:
    kernel, stride, padding = (per_axis(v, x.dim() - 2) for v in (pool.kernel_size, pool.stride, pool.padding))
    return passes.max_pool(x, kernel, stride, padding, pool.ceil_mode)
