"""How a kernel moves over a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Moves(NamedTuple):
    """How a kernel moves over a map of 2 or 3 axes, one number for each.

    Args:
        kernel, stride, padding, dilation: torch's meaning.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def out_size(self, size: Sequence[int]) -> list[int]:
        """Size of the output for a size of the input."""
        axes = zip(size, *self, strict=True)
        return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes]
