"""The octave pair: one feature map kept as a high- and a low-frequency part."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from octvideo.layers.channels import HIGH, LOW, Segments, count, join, take
from octvideo.layers.resize import (
    avg_pool,
    check_alpha,
    factors_between,
    low_channels,
    low_size,
    octave_factors,
    upsample,
)


@dataclass(init=False, eq=False, repr=False)  # torch.distributed's wrappers look for tensors in data classes
class OctPair:
    """A feature map in two parts, the second an octave smaller (Chen et al. 2019, section 3.1).

    It stands for a dense map of C channels. Arithmetic, activations and dropout act on both parts; `torch.cat` along
    the channels joins part to part; global pooling gives a tensor. Every other torch function, operator, method or
    attribute sees the dense map, `merge(pair)`, as do iteration, indexing, `chunk` and the like, which give copies:
    writing into these does not reach the pair. A tensor that varies in space and joins a pair loses its fine detail in
    the low channels. What can be told from a tensor: `isinstance(pair, Tensor)` is False, and a custom
    `torch.autograd.Function` must be given `merge(pair)`.

    Args:
        high: the high channels at full size.
        low: the low channels, every octave axis halved (rounded up).
        segments: which channels of the dense map are high and which low; None for the high ones before the low ones.

    Shape:
        high (N, C - floor(alpha C), T, H, W); low (N, floor(alpha C), ceil(T/f_t), ceil(H/f_h), ceil(W/f_w)), with the
        factors f of `octave_factors`. A part may have no channels; it still carries its size.

    Example:
        >>> pair = OctPair(torch.ones(1, 6, 4, 4), torch.ones(1, 2, 2, 2)) * 3
        >>> pair.high.shape, pair.low.shape
        (torch.Size([1, 6, 4, 4]), torch.Size([1, 2, 2, 2]))
    """

    high: Tensor
    low: Tensor
    segments: Segments

    def __init__(self, high: Tensor, low: Tensor, segments: Segments | None = None) -> None:
        self.high, self.low = high, low
        self.segments = segments or ((high.shape[1], low.shape[1]),)

    @property
    def parts(self) -> tuple[Tensor, Tensor]:
        """The high and the low part."""
        return self.high, self.low

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"OctPair(high={tuple(self.high.shape)}, low={tuple(self.low.shape)})"

    def map(self, func: Callable[[Tensor], Tensor]) -> OctPair:
        """Apply a function to each part; it must keep the channels."""
        return OctPair(func(self.high), func(self.low), self.segments)

    def map_parts(self, func: Callable[[Tensor, int], Tensor]) -> OctPair:
        """`map` with a function that is also told the part: 0 is high, 1 is low."""
        return OctPair(func(self.high, HIGH), func(self.low, LOW), self.segments)

    def combine(self, other: Any, func: Callable[[Any, Any], Tensor]) -> OctPair:
        """Apply a function of two arguments part by part; `other` is a pair, a tensor (see `like`) or a number."""
        if isinstance(other, (int, float)):
            return self.map(lambda part: func(part, other))
        other = like(other, self)
        return OctPair(func(self.high, other.high), func(self.low, other.low), self.segments)

    def __add__(self, other: Any) -> OctPair:
        return self.combine(other, operator.add)

    def __sub__(self, other: Any) -> OctPair:
        return self.combine(other, operator.sub)

    def __mul__(self, other: Any) -> OctPair:
        return self.combine(other, operator.mul)

    def __truediv__(self, other: Any) -> OctPair:
        return self.combine(other, operator.truediv)

    def __rsub__(self, other: Any) -> OctPair:
        return self.combine(other, lambda a, b: b - a)

    def __neg__(self) -> OctPair:
        return self.map(operator.neg)

    __radd__ = __add__
    __rmul__ = __mul__

    def assign(self, other: OctPair) -> OctPair:
        """Take over the parts of another pair, as operations in place do; return this one."""
        self.high, self.low, self.segments = other.high, other.low, other.segments
        return self

    def __iadd__(self, other: Any) -> OctPair:
        return self.assign(self + other)

    def __isub__(self, other: Any) -> OctPair:
        return self.assign(self - other)

    def __imul__(self, other: Any) -> OctPair:
        return self.assign(self * other)

    def __itruediv__(self, other: Any) -> OctPair:
        return self.assign(self / other)

    def __getitem__(self, index: Any) -> Tensor:
        return merge(self)[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        dense = merge(self).clone()
        dense[index] = merge(value) if isinstance(value, OctPair) else value
        self.assign(like(dense, self))

    def __iter__(self) -> Iterator[Tensor]:
        return iter(merge(self))

    def __len__(self) -> int:
        return self.high.shape[0]

    def __getattr__(self, name: str) -> Any:
        from octvideo.layers.dispatch import tensor_attribute  # the tables there need this class

        return tensor_attribute(self, name)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from octvideo.layers.dispatch import call_on_pairs

        return call_on_pairs(func, args, kwargs or {})


def _of_the_dense_map(name: str) -> Callable[..., Any]:
    def operate(self: OctPair, *others: Any) -> Any:
        return getattr(merge(self), name)(*(merge(o) if isinstance(o, OctPair) else o for o in others))

    return operate


for _name in (
    "abs",
    "pow",
    "rpow",
    "rtruediv",
    "floordiv",
    "mod",
    "matmul",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "invert",
):
    setattr(OctPair, f"__{_name}__", _of_the_dense_map(f"__{_name}__"))

pytree.register_pytree_node(
    OctPair,
    lambda pair: ([pair.high, pair.low], pair.segments),
    lambda parts, segments: OctPair(parts[0], parts[1], segments),  # type: ignore[index]
    serialized_type_name="octvideo.OctPair",
    to_dumpable_context=lambda segments: [list(s) for s in segments],
    from_dumpable_context=lambda segments: tuple(tuple(s) for s in segments),
    flatten_with_keys_fn=lambda pair: (
        [(pytree.GetAttrKey("high"), pair.high), (pytree.GetAttrKey("low"), pair.low)],
        pair.segments,
    ),
)

torch.serialization.add_safe_globals([OctPair])  # two tensors and numbers: files with pairs load with weights_only


def split(x: Tensor, alpha: float, octave: str = "spatial") -> OctPair:
    """Split a dense map into a pair: the last floor(alpha C) channels are average-pooled by an octave.

    Shape:
        (N, C, T, H, W) -> see `OctPair`.
    """
    check_alpha(alpha)
    low = low_channels(x.shape[1], alpha)
    factors = octave_factors(octave, x.dim() - 2)
    return OctPair(x[:, : x.shape[1] - low], avg_pool(x[:, x.shape[1] - low :], factors))


def merge(x: OctPair | Tensor) -> Tensor:
    """Return the dense map of a pair, its low channels up-sampled, in the dense order; a tensor passes as it is.

    Shape:
        `OctPair` -> (N, C_high + C_low, T, H, W).
    """
    if isinstance(x, Tensor):
        return x
    return join(x.high, upsample(x.low, x.high.shape[2:]), x.segments)


def merge_all(values: Any) -> Any:
    """`merge` every pair in nested tuples, lists and dicts; all else stays as it is."""
    is_pair = lambda x: isinstance(x, OctPair)  # noqa: E731
    return pytree.tree_map(lambda x: merge(x) if is_pair(x) else x, values, is_leaf=is_pair)


def like(x: OctPair | Tensor, reference: OctPair) -> OctPair:
    """Return `x` as a pair with the channels and the sizes of `reference`.

    A tensor may have one channel, or size 1 on every axis (a gain per channel); it is split as `split` does.

    Raises:
        TypeError: when x is neither.
        ValueError: when the channels or sizes differ, naming the part.
    """
    if isinstance(x, Tensor):
        return _split_like(x, reference)
    if not isinstance(x, OctPair):
        raise TypeError(f"only a pair, a tensor or a number can meet an octave pair; got {type(x).__name__}")
    for part, given, expected in (("high", x.high, reference.high), ("low", x.low, reference.low)):
        if given.shape[1:] != expected.shape[1:]:
            raise ValueError(
                f"the {part} parts of two pairs differ: {tuple(given.shape)} against {tuple(expected.shape)}; "
                "pairs that meet need the same alpha, octave and size"
            )
    if x.segments != reference.segments:
        raise ValueError(f"two pairs have their low channels in other places: {x.segments} and {reference.segments}")
    return x


def _split_like(x: Tensor, reference: OctPair) -> OctPair:
    """A tensor as torch's broadcasting would stretch it to the dense map: any size may be 1, leading ones may lack."""
    high, low = reference.high, reference.low
    x = x.reshape((1,) * (high.dim() - x.dim()) + tuple(x.shape))
    fits = all(n in (1, m) for n, m in zip(x.shape[2:], high.shape[2:], strict=False))
    if x.dim() != high.dim() or x.shape[1] not in (1, channels_of(reference)) or not fits:
        raise ValueError(
            f"a tensor of shape {tuple(x.shape)} cannot join a pair of {high.shape[1]} high and "
            f"{low.shape[1]} low channels of size {tuple(high.shape[2:])}"
        )
    for_high, for_low = (x, x) if x.shape[1] == 1 else (take(x, reference.segments, p, 1) for p in (HIGH, LOW))
    octave = factors_between(high.shape[2:], low.shape[2:])
    factors = [1 if n == 1 else factor for n, factor in zip(x.shape[2:], octave, strict=True)]
    return OctPair(for_high, avg_pool(for_low, factors), reference.segments)


def concat(maps: Sequence[OctPair | Tensor]) -> OctPair:
    """Concatenate pairs (and tensors, which are all high) along the channels, part by part.

    The result remembers in its `segments` where in the dense order its low channels are.

    Shape:
        pairs of (H_i, L_i) channels -> sum(H_i) high and sum(L_i) low channels.
    """
    highs = [m if isinstance(m, Tensor) else m.high for m in maps]
    lows = [m.low for m in maps if isinstance(m, OctPair)]
    segments = tuple(s for m in maps for s in (m.segments if isinstance(m, OctPair) else ((m.shape[1], 0),)))
    return OctPair(torch.cat(highs, dim=1), torch.cat(lows, dim=1), segments)


def empty_low(x: Tensor, factors: Sequence[int]) -> OctPair:
    """A tensor as a pair without low channels."""
    return OctPair(x, x.new_empty(x.shape[0], 0, *low_size(x.shape[2:], factors)), ((x.shape[1], 0),))


def check_pair(x: OctPair, high: int, low: int, factors: Sequence[int]) -> None:
    """Raise a ValueError that names the wrong part of a pair, what it has and what was expected."""
    for name, part, channels in (("high", x.high, high), ("low", x.low, low)):
        if part.dim() != len(factors) + 2 or part.shape[1] != channels:
            raise ValueError(
                f"the {name} part must be (N, {channels}, {', '.join('THW'[-len(factors) :])}); got {tuple(part.shape)}"
            )
    expected = low_size(x.high.shape[2:], factors)
    if tuple(x.low.shape[2:]) != expected or x.low.shape[0] != x.high.shape[0]:
        raise ValueError(
            f"the low part of a pair whose high part has shape {tuple(x.high.shape)} must have size {expected} and the "
            f"same batch; got {tuple(x.low.shape)}"
        )


def channels_of(x: OctPair) -> int:
    """Number of channels of the dense map that a pair stands for."""
    return count(x.segments, HIGH) + count(x.segments, LOW)
