"""Where the octave paper's non-local blocks may meet a pair: the options, counted (table 8 gives one number only)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from octvideo.analysis.macs import count_macs
from octvideo.layers import OctConv3d, OctPair, low_channels

BLOCKS = ((512, (4, 28, 28)),) * 2 + ((1024, (4, 14, 14)),) * 3
"""Channels and (T, H, W) of the five blocks in I3D-R50 with 8 frames of 224x224: two in res3, three in res4."""


class Conv(NamedTuple):
    """One 1x1x1 convolution: channels and alphas on both sides, and by how much the map is smaller than the block's."""

    channels: int
    out_channels: int
    alpha_in: float
    alpha_out: float
    shrink: int = 1


class Option(NamedTuple):
    """One option: its letter, what it does, and the block's convolutions by its channels and alpha."""

    key: str
    text: str
    convs: Callable[[int, float], list[Conv]]


def block_convs(channels: int, inner: int, alphas: tuple[float, float, float, float], shrink: int = 1) -> list[Conv]:
    """theta, phi, g and out; phi and g read a map pooled by 2.

    Args:
        channels, inner: of the block, and of the queries, keys and values.
        alphas: alpha_in and alpha_out of theta, phi and g, then those of out.
        shrink: 2 for a block on a map at the low part's size.
    """
    before, inside, inside_out, after = alphas
    pooled = Conv(channels, inner, before, inside, 2 * shrink)
    return [
        Conv(channels, inner, before, inside, shrink),
        pooled,
        pooled,
        Conv(inner, channels, inside_out, after, shrink),
    ]


def _high_only(channels: int, alpha: float) -> list[Conv]:
    high = channels - low_channels(channels, alpha)
    return block_convs(high, high // 2, (0, 0, 0, 0))


def _high_asks_low(channels: int, alpha: float) -> list[Conv]:
    low = low_channels(channels, alpha)
    high, inner = channels - low, (channels - low) // 2
    key = Conv(low, inner, 0, 0, 2)
    return [Conv(high, inner, 0, 0), key, key, Conv(inner, high, 0, 0)]


OPTIONS = (
    Option("a", "merge first, the dense block, split after", lambda c, a: block_convs(c, c // 2, (0, 0, 0, 0))),
    Option("b", "pairs in and out, dense inside", lambda c, a: block_convs(c, c // 2, (a, 0, 0, a))),
    Option("c", "four octave convolutions, attention on merged maps", lambda c, a: block_convs(c, c // 2, (a,) * 4)),
    Option("d", "a block on the high part only, half as wide inside", _high_only),
    Option(
        "e",
        "theta and out on the high part, phi and g on the low, as wide inside as (d)",
        _high_asks_low,
    ),
    Option("f", "a dense block at the low part's size", lambda c, a: block_convs(c, c // 2, (0, 0, 0, 0), 2)),
)
"""All options; octvideo builds "c"."""


def nonlocal_cost(option: Option, alpha: float) -> tuple[int, int]:
    """Multiply-adds of the five blocks' convolutions, and their parameters."""
    macs = params = 0
    for channels, size in BLOCKS:
        for conv in option.convs(channels, alpha):
            layer = _layer(conv)
            macs += count_macs(layer, (_input(layer, conv, size),)).conv_macs
            params += layer.weight.numel()
    return macs, params


def _layer(conv: Conv) -> OctConv3d:
    channels, out_channels, alpha_in, alpha_out, _ = conv
    with torch.device("meta"):
        return OctConv3d(channels, out_channels, 1, bias=False, alpha_in=alpha_in, alpha_out=alpha_out)


def _input(layer: nn.Conv3d, conv: Conv, size: tuple[int, int, int]) -> OctPair | Tensor:
    frames, height, width = size[0], size[1] // conv.shrink, size[2] // conv.shrink
    low = low_channels(conv.channels, conv.alpha_in)
    high = torch.empty((1, conv.channels - low, frames, height, width), device="meta")
    if not low:
        return high
    return OctPair(high, torch.empty((1, low, frames, -(-height // 2), -(-width // 2)), device="meta"))
