"""Stems on pixels, whose few channels fill no vector: what a kernel sees of a row as the channels of one place."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from octvideo.runtime import passes

MOST_CHANNELS = 4
"""Of a map that counts as pixels."""


class Window(NamedTuple):
    """What a kernel sees of a row of pixels.

    Args:
        width, stride, padding: of the kernel on the axis W, in pixels.
        channels: of a pixel; those that the map does not have are zeros.
    """

    width: int
    stride: int
    padding: int
    channels: int

    def unfold(self, x: Tensor) -> Tensor:
        """Give each place of the output the pixels of its window as channels: (N, C, ..., W) -> (N, k C', ..., W').

        Raises:
            ValueError: the rows are shorter than the kernel.
        """
        if x.shape[-1] + 2 * self.padding < self.width:
            raise ValueError(
                f"a map of size {tuple(x.shape[2:])} is too small for a kernel of width {self.width} with padding "
                f"{self.padding}: give larger clips"
            )
        rows = passes.lay_pixels(x, self.channels, self.padding)
        return rows.unfold(-1, self.width * self.channels, self.stride * self.channels).movedim(-1, 1)
