"""What several fused convolutions read of a pair: its low and its pooled high part in one map."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from octvideo.layers import OctPair
from octvideo.layers.channels import Segments
from octvideo.layers.pair import empty_low
from octvideo.runtime import passes


class JoinedPair(OctPair):
    """A pair on the way from one fused convolution to others, with the map that these read of it.

    Args:
        high, low, segments: as of `OctPair`.
        joined: the low part and the pooled high one side by side, in one map.
    """

    def __init__(self, high: Tensor, low: Tensor, segments: Segments, joined: Tensor) -> None:
        super().__init__(high, low, segments)
        self.joined = joined


class Join(nn.Module):
    """Gives a map with what several fused convolutions read of it: its low and its pooled high part in one map.

    Args:
        factors: the octave's.
    """

    def __init__(self, factors: Sequence[int]) -> None:
        super().__init__()
        self.factors = tuple(factors)

    def forward(self, x: OctPair | Tensor) -> OctPair:
        pair = x if isinstance(x, OctPair) else empty_low(x, self.factors)
        return JoinedPair(pair.high, pair.low, pair.segments, passes.join(pair.high, pair.low, self.factors))
