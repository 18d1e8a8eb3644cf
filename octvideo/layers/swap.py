"""Which layer does for pairs what a dense layer does for tensors, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytorchvideo.layers.nonlocal_net import NonLocal
from torch import nn
from torchvision.models.convnext import LayerNorm2d

from octvideo.layers.modules import DROP_PATHS, PAIRWISE_LAYERS, PairDropPath, Pairwise
from octvideo.layers.nonlocal_block import OctNonLocal
from octvideo.layers.norm import (
    OctBatchNorm1d,
    OctBatchNorm2d,
    OctBatchNorm3d,
    OctGroupNorm,
    OctLayerNorm,
    OctSyncBatchNorm,
)
from octvideo.layers.pool import POOLS, PairPool, pools_by_stride
from octvideo.layers.replace import with_class

_SAME_STATE: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: OctBatchNorm1d,
    nn.BatchNorm2d: OctBatchNorm2d,
    nn.BatchNorm3d: OctBatchNorm3d,
    nn.SyncBatchNorm: OctSyncBatchNorm,
    nn.GroupNorm: OctGroupNorm,
    LayerNorm2d: OctLayerNorm,
    NonLocal: OctNonLocal,
}
"""Dense layer -> layer for pairs with the same parameters, buffers and children."""


def pair_layer(layer: nn.Module) -> nn.Module | None:
    """Return the layer that does for pairs what `layer` does for tensors, or None where there is none.

    The new layer uses the parameters, buffers and children of the given one.
    """
    kind = type(layer)
    if kind in _SAME_STATE:
        return with_class(layer, _SAME_STATE[kind])
    if kind in POOLS:
        return PairPool(layer) if pools_by_stride(layer) else None
    wrappers: list[tuple[tuple[type[nn.Module], ...], Callable[[Any], nn.Module]]] = [
        (PAIRWISE_LAYERS, Pairwise),
        (DROP_PATHS, PairDropPath),
    ]
    return next((wrap(layer) for kinds, wrap in wrappers if kind in kinds), None)


def dense_layer(layer: nn.Module) -> nn.Module | None:
    """The inverse of `pair_layer`: the layer that it was made of, or None for another layer."""
    if isinstance(layer, Pairwise | PairDropPath):
        return layer.layer
    if isinstance(layer, PairPool):
        return layer.pool
    for dense, pair in _SAME_STATE.items():
        if type(layer) is pair:
            return with_class(layer, dense)
    return None
