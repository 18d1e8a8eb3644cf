"""The stages of a network: what stays dense at its beginning and its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from octvideo.layers import pair_layer
from octvideo.layers.conv import dense_kind, octave_error
from octvideo.layers.dispatch import ELEMENTWISE, GLOBAL_POOL, MEAN
from octvideo.layers.pool import ADAPTIVE_POOLS, POOLS, pools_by_stride


@dataclass(frozen=True)
class Stages:
    """A network's stages.

    Attributes:
        names: sub-modules that hold convolutions, in order of use: the coarsest division into three or more of which
            none holds more than half of all convolutions.
        pooled: names of the convolutions on a globally pooled map.
    """

    names: list[str]
    pooled: set[str]

    def of(self, conv: str) -> str:
        """The stage of a convolution."""
        return next((s for s in self.names if conv == s or conv.startswith(s + ".")), "")


def find_stages(graph: fx.Graph, model: nn.Module) -> Stages:
    """Divide a traced network into stages."""
    convs = [n for n in graph.nodes if conv_of(n, model) is not None]
    pooled = {str(n.target) for n in convs if _is_pooled(n.all_input_nodes, model)}
    names = list(dict.fromkeys(str(n.target) for n in convs if str(n.target) not in pooled))
    return Stages(_divided(names), pooled)


def _divided(names: Sequence[str]) -> list[str]:
    """The coarsest division into three stages or more of which none holds more than half of the convolutions."""
    depths = dict.fromkeys(names, 1)
    while True:
        stages = [".".join(n.split(".")[: depths[n]]) for n in names]
        counts = Counter(stages)
        few = len(counts) < 3
        deeper = [
            n for n, stage in zip(names, stages, strict=True) if stage != n and (few or counts[stage] > len(names) / 2)
        ]
        if not deeper:
            return list(counts)
        depths.update({n: depths[n] + 1 for n in deeper})


def conv_of(node: fx.Node, model: nn.Module) -> Any:
    """The convolution of a graph's node, or None for another node."""
    if node.op != "call_module":
        return None
    module = model.get_submodule(str(node.target))
    return module if dense_kind(module) is not None else None


def function_of(node: fx.Node) -> Any:
    """The function that a node calls; a method's is the one of `torch.Tensor`."""
    return getattr(Tensor, str(node.target), None) if node.op == "call_method" else node.target


def asks_shape(node: fx.Node) -> bool:
    """True for a node that reads a map's shape or type, and none of its elements."""
    names = ("shape", "size", "dim", "ndim", "numel", "dtype", "device")
    return node.target in names or (function_of(node) is getattr and node.args[1] in names)


def _is_pooled(inputs: Sequence[fx.Node], model: nn.Module) -> bool:
    """True for a value that comes from a global pooling, with nothing but a chain of layers between."""
    while len(inputs) == 1:
        node = inputs[0]
        if node.op == "call_module":
            module = model.get_submodule(str(node.target))
            if _pools_globally(module):
                return True
            if pair_layer(module) is None and dense_kind(module) is None:
                return False
        elif function_of(node) in {**GLOBAL_POOL, **MEAN}:
            return True
        elif function_of(node) not in ELEMENTWISE:
            return False
        inputs = node.all_input_nodes
    return False


def _pools_globally(module: nn.Module) -> bool:
    """True for an adaptive pooling, and for a window over a whole map: large, without stride or padding."""
    if isinstance(module, POOLS):
        kernel = module.kernel_size
        return not pools_by_stride(module) and max((kernel,) if isinstance(kernel, int) else kernel) > 3  # type: ignore
    return isinstance(module, ADAPTIVE_POOLS)


def why_nothing(model: nn.Module, stages: Stages, dense: set[str], factors_of: Callable[[Any], tuple[int, ...]]) -> str:
    """What is in the way of an octave network, and what it would take."""
    if len(stages.names) < 3:
        return (
            f"it has {len(stages.names)} stages with convolutions, and takes 3 or more, since the first and the last "
            "stay dense; alphas by module name have no such rule"
        )
    for name, conv in model.named_modules():
        if dense_kind(conv) is not None and stages.of(name) not in dense:
            reason = octave_error(conv, factors_of(conv))
            if reason:
                return f"convolution {name!r} cannot write an octave map, since {reason}"
    return (
        "no convolution between its first and its last stage can write an octave map: their alpha is 0 or too small "
        "for their channels, or the groups do not divide the parts"
    )
