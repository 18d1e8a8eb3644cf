"""Activation checkpointing: less memory in training, for a second forward pass of each block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(network: nn.Module) -> nn.Module:
    """Let every block keep only its input in training and compute the rest again for the gradients; return the network.

    Blocks are the smallest members of an `nn.ModuleList` or `nn.Sequential` that hold two or more convolutions: the
    residual blocks of a residual network. Outputs, gradients and running statistics are those of the network without
    it: the second pass draws the same dropout and leaves the statistics alone.

    Args:
        network: octave or dense; its blocks are changed, its state dict is not.

    Raises:
        ValueError: the network has no such block.
    """
    found = blocks(network)
    if not found:
        raise ValueError(
            f"checkpoint_activations finds no block of two or more convolutions in {type(network).__name__}"
        )
    for block in found:
        block.forward = _Recomputed(block)
    return network


def blocks(network: nn.Module) -> list[nn.Module]:
    """The smallest members of lists and sequences that hold two or more convolutions."""
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    members = dict.fromkeys(child for one in lists for child in one if _num_convolutions(child) > 1)
    return [m for m in members if not any(part in members for part in m.modules() if part is not m)]


def _num_convolutions(module: nn.Module) -> int:
    return sum(isinstance(part, _ConvNd) for part in module.modules())


@dataclass
class _Recomputed:
    """The forward method of a block that is computed again in the backward pass."""

    block: nn.Module

    def __call__(self, *args: Any) -> Any:
        if self.block.training and torch.is_grad_enabled():
            return checkpoint(self.forward, *args, use_reentrant=False, context_fn=self.contexts)
        return self.forward(*args)

    def forward(self, *args: Any) -> Any:
        # Blocks of several pathways write into the list that they are given; the second pass needs it as it was.
        return type(self.block).forward(self.block, *(list(a) if isinstance(a, list) else a for a in args))

    def contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """What the first and the second pass run in."""
        norms = [module for module in self.block.modules() if isinstance(module, _BatchNorm)]
        return nullcontext(), _kept_statistics(norms)


@contextmanager
def _kept_statistics(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Batch norms that normalise as before but count no batch."""
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
