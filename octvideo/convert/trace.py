"""The graph of a network's layers: by symbolic tracing, or recorded while it runs on an example."""

from __future__ import annotations

import contextlib
import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from octvideo.layers import OctConv1d, OctConv2d, OctConv3d, OctPair, dense_layer, pair_layer
from octvideo.layers.calls import call, evaluating
from octvideo.layers.conv import dense_kind
from octvideo.layers.pool import POOLS


def trace(model: nn.Module, example: Any = None) -> fx.Graph:
    """Return the graph whose nodes are a network's layers and the functions between them.

    Args:
        model: any network.
        example: an input to record it with; None traces symbolically, which networks whose control flow depends on
            their input do not allow.

    Raises:
        ValueError: when the network can be traced in neither way, or fails on the example.
    """
    name = type(model).__name__
    if example is None:
        try:
            return trace_symbolically(model)
        except ValueError as error:
            raise ValueError(f"{error}: give an input of it as example=, or octavize its parts one by one") from error
    try:
        return record(model, example)
    except Exception as error:
        raise ValueError(f"{name} fails on the example input: {error}") from error


def trace_symbolically(model: nn.Module, like: Any = None) -> fx.Graph:
    """The graph of a network's layers by torch.fx: one that holds for every input, or none.

    Args:
        model: any network; what it writes into its own tensors while it runs is written here, too.
        like: an input, a tuple for several arguments, whose lists, tuples and dicts of tensors are taken apart where
            the network cannot be traced otherwise; None for tensors alone.

    Raises:
        ValueError: torch.fx cannot trace the network.
    """
    try:
        with _custom_functions(_refuse):
            try:
                return _Tracer().trace(model)
            except Exception:
                several = _taken_apart(model, like)
                if not several:
                    raise
                return _Tracer().trace(model, concrete_args=several)
    except Exception as error:
        raise ValueError(f"{type(model).__name__} cannot be traced by torch.fx ({error})") from error


def _taken_apart(model: nn.Module, like: Any) -> dict[str, Any]:
    """By name, the arguments that hold tensors alone, several, with torch.fx's placeholders in their place.

    Numbers and flags beside tensors would become part of the graph, so that there are none for such arguments.
    """
    parameters = inspect.signature(model.forward).parameters
    arguments = zip(parameters, like if isinstance(like, tuple) else (like,), strict=False)
    several = {name: arg for name, arg in arguments if isinstance(arg, list | tuple | dict)}
    known = all(isinstance(leaf, Tensor) for leaf in tree_leaves(several))
    return tree_map(lambda leaf: fx.PH, several) if known else {}


def is_layer(module: nn.Module) -> bool:
    """True for a module that the graph shows as one node."""
    if dense_kind(module) is not None or pair_layer(module) is not None or dense_layer(module) is not None:
        return not isinstance(module, nn.Identity)
    if isinstance(module, (OctConv1d, OctConv2d, OctConv3d, *POOLS)):
        return True
    return type(module).__module__.startswith("torch.nn") and not isinstance(module, _CONTAINERS)


_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Identity)


WRITES_OVER = "writes over its first operand"
"""In the `meta` of nodes that stand for statements such as `x += y`: torch.fx knows these as `x = x + y` only."""


class _Proxy(fx.Proxy):
    """Marks the nodes of statements that change a value in place."""


def _marking(function: Callable[[Any, Any], Any]) -> Callable[[fx.Proxy, Any], fx.Proxy]:
    def call(self: fx.Proxy, other: Any) -> fx.Proxy:
        result = function(self, other)
        result.node.meta[WRITES_OVER] = True
        return result

    return call


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor"):
    setattr(_Proxy, f"__i{_name}__", _marking(getattr(operator, f"__{_name}__")))


class _Tracer(fx.Tracer):
    """Keeps whole what `is_layer` says; follows identities, through which some networks pass lists of maps."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_layer(m)


def record(model: nn.Module, example: Any) -> fx.Graph:
    """Run a network on an example, in evaluation mode and without gradients, and return the graph of what it called.

    A module that calls a custom autograd function itself is one node, for such a function can take no pair.

    Args:
        model: any network; its modules' training flags are put back.
        example: a tuple is passed as positional arguments, all else as the one argument.
    """
    recorder = _record(model, example, frozenset())
    if recorder.opaque:
        recorder = _record(model, example, frozenset(recorder.opaque))
    return recorder.graph


def _record(model: nn.Module, example: Any, opaque: frozenset[str]) -> _Recorder:
    recorder = _Recorder()
    hooks = []
    for name, module in model.named_modules():
        layer = is_layer(module) or name in opaque
        hooks.append(module.register_forward_pre_hook(recorder.enter(name, layer)))
        hooks.append(module.register_forward_hook(recorder.leave(name, layer), with_kwargs=True))
    for tensor in tree_leaves(example):
        recorder.values[id(tensor)] = recorder.graph.placeholder(f"input_{len(recorder.values)}")
    try:
        with evaluating(model), torch.no_grad(), recorder, _custom_functions(recorder.custom):
            out = call(model, example)
        recorder.graph.output(recorder._nodes(tree_leaves(out)))
    finally:
        for hook in hooks:
            hook.remove()
    return recorder


class _Recorder(TorchFunctionMode):
    """Writes a graph node for every layer, and for every torch function outside of the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.values: dict[int, fx.Node] = {}
        self.keep: list[Any] = []  # an id means something only while its tensor lives
        self.inside: list[str] = []  # names of the modules that are running
        self.depth = 0  # layers that are running
        self.opaque: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.depth:
            return func(*args, **kwargs)
        arguments = self._nodes(args), self._nodes(kwargs)
        out = func(*args, **kwargs)
        self._store(out, lambda: self.graph.call_function(func, *arguments))
        return out

    def custom(self, function: Any, *args: Any) -> None:
        """A custom autograd function is called: what calls it must be one node."""
        if not self.depth:
            if not self.inside[-1]:
                raise TypeError(f"{function.__name__} is a custom autograd function: call it in a module of its own")
            self.opaque.add(self.inside[-1])

    def enter(self, name: str, layer: bool) -> Callable[[nn.Module, Any], None]:
        """The hook before a module."""

        def hook(module: nn.Module, args: Any) -> None:
            self.inside.append(name)
            self.depth += layer

        return hook

    def leave(self, name: str, layer: bool) -> Callable[[nn.Module, Any, Any, Any], None]:
        """The hook after a module."""

        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            self.inside.pop()
            self.depth -= layer
            if layer and not self.depth:
                self._store(out, lambda: self.graph.call_module(name, self._nodes(args), self._nodes(kwargs)))

        return hook

    def _nodes(self, arguments: Any) -> Any:
        """Arguments with nodes in place of known tensors and pairs, None in place of others."""
        return tree_map(self._node, arguments, is_leaf=lambda x: isinstance(x, OctPair))

    def _node(self, x: Any) -> Any:
        if isinstance(x, OctPair):  # both parts come from one layer, or from one function per part
            return [self.values.get(id(part)) for part in x.parts]
        return self.values.get(id(x)) if isinstance(x, Tensor) else x

    def _store(self, out: Any, make_node: Callable[[], fx.Node]) -> None:
        tensors = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        if tensors:
            node = make_node()
            self.keep += tensors
            self.values.update({id(tensor): node for tensor in tensors})


def _refuse(function: Any, *args: Any) -> None:
    raise TypeError(f"{function.__name__} is a custom autograd function")


@contextlib.contextmanager
def _custom_functions(before: Callable[..., None]) -> Iterator[None]:
    """Call `before` with each custom autograd function that is applied: tracing does not see them."""
    apply = vars(torch.autograd.Function)["apply"]

    def watched(function: Any, *args: Any) -> Any:
        before(function, *args)
        return apply.__get__(None, function)(*args)

    torch.autograd.Function.apply = classmethod(watched)
    try:
        yield
    finally:
        torch.autograd.Function.apply = apply
