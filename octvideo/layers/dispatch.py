"""What torch's own functions do when they meet an octave pair."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

from octvideo.layers.channels import join
from octvideo.layers.pair import OctPair, channels_of, concat, merge

Function = Callable[..., Any]

ELEMENTWISE: frozenset[Function] = frozenset(
    {
        F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.leaky_relu, F.elu, F.selu,
        F.celu, F.silu, F.gelu, F.mish, F.hardswish, F.hardsigmoid, F.hardtanh, F.softplus, F.logsigmoid, F.softsign,
        F.sigmoid, torch.sigmoid, Tensor.sigmoid, F.tanh, torch.tanh, Tensor.tanh, torch.clamp, Tensor.clamp,
        F.dropout, F.dropout1d, F.dropout2d, F.dropout3d,
        Tensor.contiguous, Tensor.detach, Tensor.clone, Tensor.float, Tensor.half, Tensor.bfloat16, Tensor.double,
        Tensor.to, Tensor.cpu, Tensor.cuda,
    }
)  # fmt: skip
"""Functions of one map that act on every element (or channel) by itself."""

BINARY: dict[Function, Function] = {
    getattr(owner, name): function
    for function, names in (
        (operator.add, ("add", "add_", "__add__", "__radd__", "__iadd__")),
        (operator.sub, ("sub", "sub_", "__sub__", "__isub__")),
        (operator.mul, ("mul", "mul_", "__mul__", "__rmul__", "__imul__")),
        (operator.truediv, ("div", "div_", "__truediv__", "__itruediv__")),
    )
    for owner in (torch, Tensor)
    for name in names
    if hasattr(owner, name)
}
"""Functions of two maps that act element by element -> Python's operator."""

CAT: frozenset[Function] = frozenset({torch.cat, torch.concat, torch.concatenate})
GLOBAL_POOL: frozenset[Function] = frozenset(
    {
        F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d,
        F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d,
    }
)  # fmt: skip
MEAN: frozenset[Function] = frozenset({torch.mean, Tensor.mean})

_METHODS = {f.__name__: f for f in ELEMENTWISE | MEAN | set(BINARY) if getattr(Tensor, f.__name__, None) is f}


def call_on_pairs(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Apply a torch function to octave pairs; one that knows no pairs gets the dense maps."""
    if func in ELEMENTWISE and isinstance(args[0], OctPair):
        pair, *rest = args
        return pair.map(lambda part: func(part, *rest, **kwargs))
    if func in BINARY and len(args) == 2 and not kwargs:
        a, b = args
        f = BINARY[func]
        return a.combine(b, f) if isinstance(a, OctPair) else b.combine(a, lambda part, other: f(other, part))
    if func in CAT and cat_dim(args, kwargs) == 1:
        return concat(args[0] if args else kwargs["tensors"])
    if pools_globally(func, args, kwargs):
        pair, *rest = args
        high, low = (func(part, *rest, **kwargs) for part in pair)
        return join(high, low, pair.segments)
    return func(*_merged(args), **_merged(kwargs))


def tensor_attribute(pair: OctPair, name: str) -> Any:
    """An attribute or method that a pair lacks and a tensor has: by the tables above, or of the dense map.

    Raises:
        AttributeError: for a name that tensors do not have either, and for private ones.
    """
    if name.startswith("_") or not hasattr(Tensor, name):
        raise AttributeError(f"an octave pair has no attribute {name!r}")
    if name in ("dtype", "device", "requires_grad", "is_cuda"):
        return getattr(pair.high, name)
    if name in ("shape", "size", "dim", "ndim", "numel"):
        shape = (pair.high.shape[0], channels_of(pair), *pair.high.shape[2:])
        return getattr(pair.high.new_empty(shape, device="meta"), name)
    if name in _METHODS:
        return partial(_in_place if name.endswith("_") else _call_method, name, pair)
    return getattr(merge(pair), name)


def _call_method(name: str, pair: OctPair, *args: Any, **kwargs: Any) -> Any:
    return call_on_pairs(_METHODS[name], (pair, *args), kwargs)


def _in_place(name: str, pair: OctPair, *args: Any, **kwargs: Any) -> OctPair:
    """`x.add_(y)` and its like: the pair itself holds the result."""
    pair.high, pair.low = _call_method(name, pair, *args, **kwargs)
    return pair


def cat_dim(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The axis of a concatenation."""
    return args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))


def pools_globally(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """True for a mean over all of T, H and W, or an adaptive pooling to a fixed size: each part gives its own."""
    if not args or not isinstance(args[0], OctPair):
        return False
    if func in MEAN:
        num_axes = args[0].high.dim()
        dims = args[1] if len(args) > 1 else kwargs.get("dim")
        dims = (dims,) if isinstance(dims, int) else dims or ()
        return sorted(d % num_axes for d in dims) == list(range(2, num_axes))
    size = args[1] if len(args) > 1 else kwargs.get("output_size")
    sizes = (size,) if isinstance(size, int) else size
    returns_indices = kwargs.get("return_indices") or len(args) > 2
    return func in GLOBAL_POOL and sizes is not None and None not in sizes and not returns_indices


def _merged(arguments: Any) -> Any:
    is_pair = lambda x: isinstance(x, OctPair)  # noqa: E731
    return tree_map(lambda x: merge(x) if isinstance(x, OctPair) else x, arguments, is_leaf=is_pair)
