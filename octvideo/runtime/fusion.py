"""The graph of a network with sums and activations inside of the convolutions before them."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from octvideo.convert.trace import WRITES_OVER, trace_symbolically
from octvideo.layers import OctConv2d, OctConv3d, Pairwise, octave_from_dense
from octvideo.layers.conv import dense_kind
from octvideo.layers.replace import replace_modules
from octvideo.runtime.fused import FusedConv, why_not_fused
from octvideo.runtime.joined import Join
from octvideo.runtime.pools import fast_pool

SUMS = (operator.add, operator.iadd, torch.add)
NEW_MAPS = (
    nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.Linear, nn.ReLU, nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd,
)  # fmt: skip
NEW_BY_FUNCTION = {
    operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, operator.pow, torch.add, torch.sub,
    torch.mul, torch.cat, torch.stack, torch.mean, torch.relu, torch.sigmoid, torch.tanh, F.relu, F.interpolate,
    F.max_pool2d, F.max_pool3d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, F.silu,
    F.gelu, F.softmax,
}  # fmt: skip
NEW_BY_METHOD = {"add", "sub", "mul", "div", "mean", "sum", "relu", "sigmoid", "tanh", "softmax", "clone"}
RELUS = (torch.relu, torch.relu_, F.relu, F.relu_, "relu", "relu_")


def fuse(network: nn.Module, example: Any) -> nn.Module:
    """Put `FusedConv` in place of every convolution that it can stand for, with the sum and the rectifier after it.

    Args:
        network: takes channels-last maps; its modules are replaced.
        example: an input; only which lists, tuples and dicts it is made of matters.

    Returns:
        The graph of the network, as a module.

    Raises:
        ValueError: torch.fx cannot trace the network, or it reads a map that it has written over.
    """
    graph = trace_symbolically(network, example)
    modules = {str(node.target): network.get_submodule(str(node.target)) for node in _calls(graph)}
    for node in _calls(graph):
        if not node.args and list(node.kwargs) == ["input"]:
            node.args, node.kwargs = (node.kwargs["input"],), {}
    _check_written_over(graph, modules)
    uses = Counter(modules[str(node.target)] for node in _calls(graph))
    fused: dict[nn.Module, FusedConv] = {}
    for node in _calls(graph):
        conv = modules[str(node.target)]
        if uses[conv] == 1 and _fusable(conv):
            fused[conv] = _fuse_at(node, modules)
    for node in _calls(graph):
        conv = modules[str(node.target)]
        if conv in fused and len(node.args) == 2:
            fused[conv].in_place = _may_overwrite(node, lambda n: modules.get(str(n.target)) in fused)
    for node in _calls(graph):
        conv = modules[str(node.target)]
        if conv in fused:
            readers = [fused.get(modules.get(str(user.target))) for user in node.users]  # type: ignore[arg-type]
            fused[conv].joins = None not in readers and any(reader.reads_joined for reader in readers)  # type: ignore[union-attr]
    _join_before(network, graph, modules, fused)
    replace_modules(
        network, lambda m: fused.get(m) or (FusedConv(_as_octave(m), False) if _fusable(m) else fast_pool(m))
    )
    return _with_hooks_of(network, fx.GraphModule(network, graph))


def is_hooked(module: nn.Module) -> bool:
    """True for a module whose calls somebody sees, before or after."""
    return bool(module._forward_pre_hooks or module._forward_hooks)


def _with_hooks_of(network: nn.Module, graph: nn.Module) -> nn.Module:
    """The graph of a network with its hooks, which torch.fx leaves out where they are the outermost module's."""
    for name, hooks in vars(network).items():
        if name.startswith(("_forward_hooks", "_forward_pre_hooks")):
            setattr(graph, name, hooks)
    return graph


def _fuse_at(node: fx.Node, modules: dict[str, nn.Module]) -> FusedConv:
    """The fused convolution of a node, whose call takes the place of the sum and the rectifier that alone read it."""
    chain, args = _chain_from(node, modules)
    if _is_changed_between(node, chain[-1], args, modules):
        chain, args = [node], list(node.args)
    if len(chain) > 1:
        with node.graph.inserting_before(chain[-1]):
            call = node.graph.call_module(str(node.target), tuple(args))
        relu = _rectifies(chain[-1], modules)
        chain[-1].replace_all_uses_with(call)
        for done in reversed(chain):
            node.graph.erase_node(done)
        return FusedConv(_as_octave(modules[str(node.target)]), relu)
    return FusedConv(_as_octave(modules[str(node.target)]), False)


def _chain_from(node: fx.Node, modules: dict[str, nn.Module]) -> tuple[list[fx.Node], list[Any]]:
    """A convolution, the sum and the rectifier that alone read it, where they are; and what all of these read."""
    chain, args = [node], list(node.args)
    user = _only_user(node)
    if user is not None and user.target in SUMS and len(user.args) == 2 and not user.kwargs:
        others = [arg for arg in user.args if arg is not node]
        if len(others) == 1 and isinstance(others[0], fx.Node):
            chain.append(user)
            args.append(others[0])
    user = _only_user(chain[-1])
    if user is not None and _rectifies(user, modules):
        chain.append(user)
    return chain, args


def _is_changed_between(first: fx.Node, last: fx.Node, args: list[Any], modules: dict[str, nn.Module]) -> bool:
    """True where something between two nodes may write over what `args` are, so that later is too late to read it."""
    read = set().union(*(_memory_of(arg, modules) for arg in args if isinstance(arg, fx.Node)))
    node = first.next
    while node is not last.next:
        changed = _changed_by(node, modules)
        if changed is not None and node is not last and _memory_of(changed, modules) & read:
            return True
        node = node.next
    return False


def _check_written_over(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    """Refuse a network that reads a map after a statement such as `x += y`, which torch.fx knows as `x = x + y`."""
    nodes = list(graph.nodes)
    for number, node in enumerate(nodes):
        if WRITES_OVER not in node.meta or _is_number(node.all_input_nodes[0]):
            continue
        changed = _memory_of(node.all_input_nodes[0], modules)
        for later in nodes[number + 1 :]:
            if any(_memory_of(arg, modules) & changed for arg in later.all_input_nodes):
                raise ValueError(f"{later.name} reads what {node.name} has written over, which torch.fx does not see")


def _changed_by(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    """The node whose value another one writes over."""
    if isinstance(node.kwargs.get("out"), fx.Node):
        return node.kwargs["out"]  # type: ignore[return-value]
    module = _inner(node, modules)
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "").split(".")[0]
    in_place = name.endswith("_") and not name.endswith("__")
    in_place |= any(arg is True for arg in node.args[1:]) or bool(getattr(module, "inplace", False))
    operands = node.all_input_nodes if in_place or node.kwargs.get("inplace") else []
    return operands[0] if operands else None


def _memory_of(node: fx.Node, modules: dict[str, nn.Module]) -> set[fx.Node]:
    """The nodes in whose memory the value of a node may lie."""
    found: set[fx.Node] = set()
    left = [node]
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left += [] if _is_new(node, modules) else node.all_input_nodes
    return found


def _is_new(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """True where a node's value lies in memory of its own, for certain."""
    if WRITES_OVER in node.meta or _is_number(node):
        return True
    if _changed_by(node, modules) is not None:
        return False
    if node.op == "call_module":
        return isinstance(_inner(node, modules), NEW_MAPS)
    names = NEW_BY_METHOD if node.op == "call_method" else NEW_BY_FUNCTION
    return (str(node.target) if node.op == "call_method" else node.target) in names


def _is_number(node: fx.Node) -> bool:
    """True for sizes and what is computed of them."""
    if node.op == "call_method":
        return node.target in ("size", "dim", "numel", "stride")
    if node.target is getattr:
        return node.args[1] in ("shape", "ndim", "dtype", "device")
    inputs = node.all_input_nodes
    return node.op == "call_function" and bool(inputs) and all(map(_is_number, inputs))


def _inner(node: fx.Node, modules: dict[str, nn.Module]) -> nn.Module | None:
    """The module that a node calls; of one that takes pairs part by part, what it calls with each."""
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    return module.layer if isinstance(module, Pairwise) else module


def _join_before(
    network: nn.Module, graph: fx.Graph, modules: dict[str, nn.Module], fused: dict[nn.Module, FusedConv]
) -> None:
    """Pool once what several fused convolutions read that no fused one has made."""

    def fused_at(node: fx.Node) -> FusedConv | None:
        return fused.get(modules.get(str(node.target)))  # type: ignore[arg-type]

    for number, node in enumerate(list(graph.nodes)):
        readers = [(user, conv) for user in node.users if (conv := fused_at(user)) and conv.reads_joined]
        readers = [(user, conv) for user, conv in readers if user.args[0] is node]
        factors = {conv.factors for _, conv in readers}
        if fused_at(node) is not None or len(readers) < 2 or len(factors) != 1:
            continue
        if any(_is_changed_between(node, user, [node], modules) for user, _ in readers):
            continue
        network.add_module(f"join_{number}", Join(factors.pop()))
        with graph.inserting_after(node):
            joined = graph.call_module(f"join_{number}", (node,))
        for user, _ in readers:
            user.args = (joined, *user.args[1:])


def _may_overwrite(node: fx.Node, is_fused: Callable[[fx.Node], bool]) -> bool:
    """True where a fused convolution reads its summand last, and only fused ones, which keep no views, read it."""
    x, summand = node.args
    assert isinstance(summand, fx.Node)
    known = all(n.op == "call_module" and is_fused(n) for n in (summand, *summand.users))
    return known and x is not summand and all(user is node or user < node for user in summand.users)


def _calls(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "call_module"]


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _as_octave(conv: Any) -> Any:
    return octave_from_dense(conv, 0, 0) if dense_kind(conv) is not None else conv


def _fusable(module: nn.Module) -> bool:
    takes = isinstance(module, OctConv2d | OctConv3d) or dense_kind(module) in (nn.Conv2d, nn.Conv3d)
    return takes and not is_hooked(module) and why_not_fused(_as_octave(module)) is None


def _rectifies(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        inner = _inner(node, modules)
        return type(inner) is nn.ReLU and not is_hooked(inner) and not is_hooked(modules[str(node.target)])
    return node.target in RELUS
