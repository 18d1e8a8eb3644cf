"""How a kernel moves over a map."""

from __future__ import annotations

from functools import lru_cache
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

    @lru_cache(maxsize=1 << 14)  # noqa: B019 (it keeps numbers, no networks)
    def out_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Size of the output for a size of the input.

        Raises:
            ValueError: the input has another number of axes, or is smaller than the kernel.
        """
        if len(size) != len(self.kernel):
            raise ValueError(f"the input must have a batch, channels and {len(self.kernel)} axes; got {tuple(size)}")
        axes = list(zip(size, *self, strict=True))
        if any(n + 2 * p < d * (k - 1) + 1 for n, k, _, p, d in axes):
            raise ValueError(
                f"a map of size {tuple(size)} is too small for a kernel of {self.kernel} with padding {self.padding} "
                f"and dilation {self.dilation}: give larger clips"
            )
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
