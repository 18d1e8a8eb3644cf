"""Stems on pixels, whose few channels fill no vector: what a kernel sees of a row as the channels of one place."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from octvideo.layers import octave_from_dense
from octvideo.runtime import passes
from octvideo.runtime.tiles import channels_read_in_place

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


def is_narrow(conv: Any) -> bool:
    """True for a stem on pixels: its few channels fill no vector."""
    dense = not conv.alpha_in and not conv.alpha_out and conv.groups == 1
    return dense and conv.in_channels <= MOST_CHANNELS and conv.kernel_size[-1] > 1 and conv.dilation[-1] == 1


def unfolded(conv: Any) -> tuple[Any, Window]:
    """The same convolution with the kernel's width among the channels."""
    width = conv.kernel_size[-1]
    channels = channels_read_in_place(conv.weight.dtype, conv.in_channels, width)
    window = Window(width, conv.stride[-1], conv.geometry.padding[-1][0], channels)
    kind: Any = nn.Conv2d if len(conv.kernel_size) == 2 else nn.Conv3d
    new = kind(
        channels * width, conv.out_channels, (*conv.kernel_size[:-1], 1), (*conv.stride[:-1], 1),
        (*(before for before, _ in conv.geometry.padding[:-1]), 0), (*conv.dilation[:-1], 1), device="meta",
    )  # fmt: skip
    weight = F.pad(conv.weight.detach().movedim(1, -1), (0, channels - conv.in_channels))  # (O, ..., k, C')
    weight = weight.flatten(-2).movedim(-1, 1).unsqueeze(-1)  # (O, k C', ..., 1)
    new.weight, new.bias = nn.Parameter(weight, requires_grad=False), conv.bias
    return octave_from_dense(new, 0, 0), window
