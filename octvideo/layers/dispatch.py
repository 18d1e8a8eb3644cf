"""What torch's own functions do when they meet an octave pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from octvideo.layers.pair import OctPair, concat, low_size

ELEMENTWISE: frozenset[Callable[..., Any]] = frozenset(
    {
        F.relu,
        F.relu_,
        torch.relu,
        torch.relu_,
        Tensor.relu,
        Tensor.relu_,
        F.relu6,
        F.leaky_relu,
        F.elu,
        F.silu,
        F.gelu,
        F.mish,
        F.hardswish,
        F.hardsigmoid,
        F.hardtanh,
        F.softplus,
        torch.sigmoid,
        Tensor.sigmoid,
        torch.tanh,
        Tensor.tanh,
        F.dropout,
        F.dropout1d,
        F.dropout2d,
        F.dropout3d,
        Tensor.contiguous,
    }
)
"""Functions of one map that act on every element (or channel) by itself."""

ADD: frozenset[Callable[..., Any]] = frozenset(
    {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__}
)
CAT: frozenset[Callable[..., Any]] = frozenset({torch.cat, torch.concat, torch.concatenate})


def call_on_pairs(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Apply a torch function to octave pairs.

    Raises:
        TypeError: for a function that is neither element-wise nor an addition nor a concatenation of channels.
    """
    if func in ELEMENTWISE:
        pair, *rest = args
        return OctPair(*(func(part, *rest, **kwargs) for part in pair))
    if func in ADD and len(args) == 2 and not kwargs:
        return args[1] + args[0] if isinstance(args[0], Tensor) else args[0] + args[1]
    if func in CAT and _dim(args, kwargs) == 1:
        return concat(args[0] if args else kwargs["tensors"])
    name = getattr(func, "__name__", str(func))
    raise TypeError(
        f"torch function {name!r} cannot take an octave pair: merge it first with octvideo.layers.merge(pair)"
    )


def _dim(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    return args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))


def pool_pair(
    pool: Callable[[Tensor], Tensor], ceil_pool: Callable[[Tensor], Tensor], least_size: Sequence[int], x: OctPair
) -> OctPair:
    """Pool both parts so that the low result stays an octave below the high one.

    A pooling that rounds down can leave the low part one element short (a map of 6 pooled to 3 has a low part of 3
    pooled to 1, and 2 are needed): the low part is pooled rounding up, and what is too much cut off. A low part that is
    smaller than the window is first extended by its own border.

    Args:
        pool: the pooling, applied to the high part.
        ceil_pool: the same with ceil_mode, applied to the low part.
        least_size: size of the smallest map that the pooling takes.
        x: pair of shape (N, C, *size).
    """
    factors = [1 if h == n else 2 for h, n in zip(x.high.shape[2:], x.low.shape[2:], strict=True)]
    high = pool_part(pool, x.high)
    low = pool_part(ceil_pool, _extend(x.low, least_size))
    for axis, size in enumerate(low_size(high.shape[2:], factors), start=2):
        low = low.narrow(axis, 0, size)
    return OctPair(high, low)


def _extend(x: Tensor, least_size: Sequence[int]) -> Tensor:
    missing = [max(least - n, 0) for least, n in zip(least_size, x.shape[2:], strict=True)]
    return F.pad(x, [p for m in reversed(missing) for p in (0, m)], mode="replicate") if any(missing) else x


def pool_part(pool: Callable[[Tensor], Tensor], part: Tensor) -> Tensor:
    """Pool a part; one without channels still gets its new size (torch refuses to pool it)."""
    if part.shape[1]:
        return pool(part)
    return pool(part.new_zeros(part.shape[0], 1, *part.shape[2:]))[:, :0]
