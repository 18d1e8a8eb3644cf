"""Maximum pooling in one pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from octvideo import kernels
from octvideo.layers.pool import PlanarMaxPool3d, per_axis
from octvideo.layers.replace import with_class
from octvideo.runtime import passes


class _OnePass:
    """A maximum pooling of torch's that the kernels run, where they take the map."""

    def forward(self, input: Tensor) -> Tensor:
        if not kernels.takes_rows(input):
            return super().forward(input)  # type: ignore[misc]
        pool: Any = self
        axes = input.dim() - 2
        kernel, stride, padding = (per_axis(v, axes) for v in (pool.kernel_size, pool.stride, pool.padding))
        return passes.max_pool(input, kernel, stride, padding, pool.ceil_mode)


class _MaxPool2d(_OnePass, nn.MaxPool2d):
    pass


class _MaxPool3d(_OnePass, nn.MaxPool3d):
    pass


class _PlanarMaxPool3d(_OnePass, PlanarMaxPool3d):
    pass


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
