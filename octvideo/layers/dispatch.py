"""What torch's own functions do when they meet an octave pair."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from octvideo.layers.channels import join
from octvideo.layers.pair import OctPair, channels_of, concat, merge, merge_all

Function = Callable[..., Any]

ELEMENTWISE: dict[Function, None] = dict.fromkeys(
    [
        F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.leaky_relu, F.elu, F.selu,
        F.celu, F.silu, F.gelu, F.mish, F.hardswish, F.hardsigmoid, F.hardtanh, F.softplus, F.logsigmoid, F.softsign,
        F.sigmoid, torch.sigmoid, Tensor.sigmoid, F.tanh, torch.tanh, Tensor.tanh, torch.clamp, Tensor.clamp,
        Tensor.sigmoid_, Tensor.tanh_, Tensor.clamp_,
        F.hardtanh_, F.leaky_relu_, F.elu_, F.selu_, torch.clamp_, torch.neg, Tensor.neg, operator.neg,
        F.dropout, F.dropout1d, F.dropout2d, F.dropout3d,
        Tensor.contiguous, Tensor.detach, Tensor.clone, Tensor.float, Tensor.half, Tensor.bfloat16, Tensor.double,
        Tensor.to, Tensor.cpu, Tensor.cuda,
    ]
)  # fmt: skip
"""Functions of one map that act on every element (or channel) by itself. (A dict: torch 2.8 compiles no frozenset.)"""

_BINARY_NAMES = (
    (operator.add, ("add", "__add__", "__radd__"), ("iadd", "add_", "__iadd__")),
    (operator.sub, ("sub", "__sub__"), ("isub", "sub_", "__isub__")),
    (operator.mul, ("mul", "__mul__", "__rmul__"), ("imul", "mul_", "__imul__")),
    (operator.truediv, ("div", "truediv", "__truediv__"), ("itruediv", "div_", "__itruediv__")),
)


def _named(names: Sequence[str]) -> list[Function]:
    return [getattr(owner, name) for owner in (torch, Tensor, operator) for name in names if hasattr(owner, name)]


IN_PLACE: dict[Function, Function] = {f: op for op, _, names in _BINARY_NAMES for f in _named(names)}
"""Functions of two maps that change the first, element by element -> Python's operator."""

BINARY: dict[Function, Function] = {f: op for op, names, _ in _BINARY_NAMES for f in _named(names)} | IN_PLACE
"""Functions of two maps that act element by element -> Python's operator."""

CAT: dict[Function, None] = dict.fromkeys([torch.cat, torch.concat, torch.concatenate])
GLOBAL_POOL: dict[Function, None] = dict.fromkeys(
    [
        F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d,
        F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d,
    ]
)  # fmt: skip
MEAN: dict[Function, None] = dict.fromkeys([torch.mean, Tensor.mean])

_METHODS = {f.__name__: f for f in [*ELEMENTWISE, *MEAN, *BINARY] if getattr(Tensor, f.__name__, None) is f}


def call_on_pairs(func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Apply a torch function to octave pairs; one that knows no pairs gets the dense maps.

    Raises:
        TypeError: for a function that would change in place what is only a copy, the dense map.
    """
    if not args and "input" in kwargs:
        args, kwargs = (kwargs["input"],), {k: v for k, v in kwargs.items() if k != "input"}
    if func in ELEMENTWISE and args and isinstance(args[0], OctPair):
        pair, *rest = args
        return pair.map(lambda part: func(part, *rest, **kwargs))
    if func in BINARY and len(args) == 2 and not kwargs:
        a, b = args
        f = BINARY[func]
        if isinstance(a, OctPair):
            return a.assign(a.combine(b, f)) if func in IN_PLACE else a.combine(b, f)
        result = b.combine(a, lambda part, other: f(other, part))
        if func in IN_PLACE:  # `x += pair` goes on with a pair, and others who hold the tensor x see its sum
            func(a, merge(b))
        return result
    if func in CAT and cat_dim(args, kwargs) == 1:
        return concat(args[0] if args else kwargs["tensors"])
    if pools_globally(func, args, kwargs):
        pair, *rest = args
        return join(func(pair.high, *rest, **kwargs), func(pair.low, *rest, **kwargs), pair.segments)
    name = getattr(func, "__name__", "")
    if name.endswith("_") and not name.endswith("__") and args and isinstance(args[0], OctPair):
        raise TypeError(f"an octave pair cannot change in place by {name!r}: use an operation that returns its result")
    return func(*merge_all(args), **merge_all(kwargs))


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
    if name.endswith("_"):
        raise AttributeError(
            f"an octave pair cannot change in place by {name!r}: use an operation that returns its result"
        )
    return getattr(merge(pair), name)


def _call_method(name: str, pair: OctPair, *args: Any, **kwargs: Any) -> Any:
    return call_on_pairs(_METHODS[name], (pair, *args), kwargs)


def _in_place(name: str, pair: OctPair, *args: Any, **kwargs: Any) -> OctPair:
    """`x.add_(y)` and its like: the pair itself holds the result."""
    result = _call_method(name, pair, *args, **kwargs)
    if not isinstance(result, OctPair):
        raise TypeError(
            f"an octave pair cannot change in place by {name!r} with {kwargs}: use an operation that returns its result"
        )
    return pair.assign(result)


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
