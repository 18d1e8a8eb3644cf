"""Which channels of a dense map are high and which low, and how tensors with one entry per channel are taken apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

Segments = tuple[tuple[int, int], ...]
"""(high, low) channel counts, run after run, in the dense order: ((6, 2),) is 6 high channels, then 2 low ones."""

HIGH, LOW = 0, 1


def even_segments(channels: int, low: int, groups: int = 1) -> Segments:
    """Channels in `groups` equal runs, each with its high channels first.

    Raises:
        ValueError: when the groups do not divide the high and the low channels.
    """
    high = channels - low
    if high % groups or low % groups:
        raise ValueError(
            f"groups {groups} must divide each part's channels; got {high} high and {low} low ones: choose an alpha "
            f"for which alpha * {channels} is a multiple of {groups}"
        )
    return ((high // groups, low // groups),) * groups


def count(segments: Segments, part: int) -> int:
    """Number of high (part 0) or low (part 1) channels."""
    return sum(segment[part] for segment in segments)


def take(x: Tensor, segments: Segments, part: int, dim: int = 0) -> Tensor:
    """Return the entries of the high or the low channels along `dim`; a view where they lie side by side."""
    if len(segments) > 1 and len(set(segments)) == 1:
        start, size = (0, segments[0][HIGH]) if part == HIGH else segments[0]
        return x.unflatten(dim, (len(segments), -1)).narrow(dim + 1, start, size).flatten(dim, dim + 1)
    pieces = [x if size == x.shape[dim] else x.narrow(dim, start, size) for start, size in _runs(segments, part)]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim) if pieces else x.narrow(dim, 0, 0)


def parts(x: Tensor, segments: Segments, dim: int = 0) -> tuple[Tensor, Tensor]:
    """What `take` gives for both parts, by one split: its backward pass is one concatenation, not two maps of zeros."""
    if len(segments) == 1 and all(segments[0]):
        return x.split(segments[0], dim)
    return take(x, segments, HIGH, dim), take(x, segments, LOW, dim)


def put(x: Tensor, segments: Segments, part: int, values: Tensor) -> None:
    """Write `values` where `take` found them, along dimension 0."""
    runs = list(_runs(segments, part))
    for (start, size), piece in zip(runs, values.split([size for _, size in runs]), strict=True):
        x.narrow(0, start, size).copy_(piece)


def join(high: Tensor, low: Tensor, segments: Segments, dim: int = 1) -> Tensor:
    """The inverse of `take`: entries of the high and the low channels back in the dense order."""
    if len(segments) == 1:
        return torch.cat([high, low], dim)
    highs = high.split([s[HIGH] for s in segments], dim)
    lows = low.split([s[LOW] for s in segments], dim)
    return torch.cat([piece for both in zip(highs, lows, strict=True) for piece in both], dim)


def _runs(segments: Sequence[tuple[int, int]], part: int) -> Iterator[tuple[int, int]]:
    """(start, size) of every run of high or low channels that is not empty."""
    start = 0
    for high, low in segments:
        size = low if part == LOW else high
        if size:
            yield (start + high if part == LOW else start), size
        start += high + low
