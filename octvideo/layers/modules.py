"""Layers without statistics of their own over pairs: activations, dropout, drop path; and merging before a module."""

from __future__ import annotations

from typing import Any

from pytorchvideo.layers.drop_path import DropPath
from pytorchvideo.layers.swish import Swish
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from octvideo.layers.pair import OctPair, merge, merge_all

PAIRWISE_LAYERS: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.SiLU, nn.GELU, nn.Mish, nn.Hardswish, nn.Hardsigmoid,
    nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Identity, Swish,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
)  # fmt: skip
"""Layers that `Pairwise` may carry."""

DROP_PATHS: tuple[type[nn.Module], ...] = (StochasticDepth, DropPath)
"""Layers that `PairDropPath` may carry: torchvision's and PyTorchVideo's."""


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
        return x.map(self.layer) if isinstance(x, OctPair) else self.layer(x)


class PairDropPath(nn.Module):
    """Drop a residual branch as a whole (Huang et al. 2016): both parts of a sample together.

    Args:
        layer: one of `DROP_PATHS`; it draws which samples are kept.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: OctPair | Tensor) -> OctPair | Tensor:
        if isinstance(x, Tensor):
            return self.layer(x)
        ones = x.high.new_ones(x.high.shape[0], *(1,) * (x.high.dim() - 1))
        return x * self.layer(ones)  # (N, 1, 1, ...): 0 or 1 / (share kept)


class MergeOutputs:
    """A forward hook: a network whose outputs would be pairs gives dense maps."""

    def __call__(self, module: nn.Module, args: Any, out: Any) -> Any:
        return merge_all(out)


class MergeInputs:
    """A forward pre-hook: a module that cannot take pairs gets the merged, dense map."""

    def __call__(self, module: nn.Module, args: Any, kwargs: Any = None) -> Any:
        merged = tuple(merge(a) if isinstance(a, OctPair) else a for a in args)
        if kwargs is None:
            return merged
        return merged, {k: merge(v) if isinstance(v, OctPair) else v for k, v in kwargs.items()}
