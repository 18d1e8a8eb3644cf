"""Batch norms over all processes for Lightning's trainer, of octave networks and on the CPU, too."""

from __future__ import annotations

from pytorch_lightning.plugins import LayerSync
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from octvideo.layers import convert_sync_batchnorm
from octvideo.layers.replace import replace_modules, with_class


class PairSyncBatchNorm(LayerSync):
    """Synchronises the batch norms of a network while it trains.

    Lightning's own plugin makes torch's `nn.SyncBatchNorm` of them, which takes neither pairs nor tensors on the CPU.
    """

    def __init__(self) -> None:
        self._ordinary: dict[nn.Module, type[nn.Module]] = {}

    def apply(self, model: nn.Module) -> nn.Module:
        """Let every batch norm take its statistics over all processes."""
        kinds = {name: type(module) for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
        model = convert_sync_batchnorm(model)
        self._ordinary = {model.get_submodule(name): kind for name, kind in kinds.items()}
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Give the batch norms their classes back."""
        kinds = self._ordinary
        return replace_modules(model, lambda module: with_class(module, kinds[module]) if module in kinds else None)
