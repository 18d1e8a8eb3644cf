"""What a fast network's convolutions have to do, counted: what its time follows beside the multiply-adds."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from octvideo.runtime.fused import FusedConv, Path
from octvideo.runtime.optimize import is_conv
from octvideo.runtime.tiles import TiledConv

__all__ = ["Work", "count_work"]


class Work(NamedTuple):
    """Of one call of a network.

    Args:
        executed_macs: multiply-adds of the instructions that channels and places fill. A matrix instruction (AMX) takes
            32 input channels, 16 output channels and 16 places, whether they are there or not, a vector instruction 16
            or 8 output channels. What borders of strips and of maps add and spare is not in it: a few percent of a
            network, more on maps of some 7 x 7 places and less. A product of float32 counts once, whatever makes it.
        map_bytes: of the maps that convolutions read and write, each time that they do. Passes between them, such as
            maximum pooling, are not in it.
    """

    executed_macs: int
    map_bytes: int


class _Counted:
    """A path whose calls add to a list."""

    def __init__(self, path: TiledConv, found: list[Work]) -> None:
        self.path, self.found = path, found

    def __call__(self, x: Tensor, **given: Any) -> Tensor:
        out = self.path(x, **given)
        raising, raised = given.get("raised") or (None, None)
        maps = [x, out, raised, *map(given.get, ("low", "summand", "pooled"))]
        macs = self.path.executed_macs(x) + (0 if raising is None else raising.path.executed_macs(raised))
        self.found.append(Work(macs, sum(_bytes_of(m) for m in maps if m is not None)))
        return out

    def __getattr__(self, name: str) -> Any:
        return getattr(self.path, name)


def _bytes_of(x: Tensor) -> int:
    """Of a map in memory, where windows of a stem overlap."""
    span = 1 + sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))
    return max(min(x.numel(), span), 0) * x.element_size()


@torch.no_grad()
def count_work(network: nn.Module, *clips: Tensor) -> Work | None:
    """Count what the convolutions of a fast network have to do for an input.

    Args:
        network: what `octvideo.runtime.optimize` made.
        clips: its input.

    Returns:
        The work, or None where octvideo's kernel does not do all convolutions, as in a network that is not a fast one.
    """
    network(*clips)  # which makes the paths
    convs = [module for module in network.modules() if isinstance(module, FusedConv)]
    paths: list[dict[Any, Path]] = [conv.paths for conv in convs]
    others = any(is_conv(module) for module in network.modules())
    if others or not all(isinstance(path, TiledConv) for of_conv in paths for path in of_conv.values()):
        return None
    found: list[Work] = []
    try:
        for conv, own in zip(convs, paths, strict=True):
            conv.paths = {key: _Counted(path, found) for key, path in own.items()}  # type: ignore[arg-type,misc]
        network(*clips)
    finally:
        for conv, own in zip(convs, paths, strict=True):
            conv.paths = own
    return Work(*map(sum, zip(*found, strict=True))) if found else None
