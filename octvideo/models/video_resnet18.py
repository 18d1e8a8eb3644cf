"""torchvision's video networks of 18 layers, octavized."""

from __future__ import annotations

from torch import nn
from torchvision.models import video

from octvideo.models.build import finish, register


@register(view=(16, 112, 112))
def r3d_18(num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.0) -> nn.Module:
    """(Oct-)R3D-18, 3-D convolutions throughout (Tran et al. 2018, table 1).

    Args:
        num_classes: number of logits.
        alpha: low-frequency share of the channels; 0 is torchvision's network.
        octave: "spatial", "temporal" or "spatiotemporal".
        dropout: drop rate before the last layer.

    Shape:
        (N, 3, T, H, W) -> (N, num_classes), any T, H, W; made for 16 x 112 x 112.

    Raises:
        ValueError: for an alpha outside [0, 1] or an unknown octave.
    """
    return _finish(video.r3d_18(num_classes=num_classes), alpha, octave, dropout)


@register(view=(16, 112, 112))
def mc3_18(num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.0) -> nn.Module:
    """(Oct-)MC3-18, 3-D convolutions in the first stages, 2-D ones after: arguments and shapes as `r3d_18`."""
    return _finish(video.mc3_18(num_classes=num_classes), alpha, octave, dropout)


@register(view=(16, 112, 112))
def r2plus1d_18(num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.0) -> nn.Module:
    """(Oct-)R(2+1)D-18, 3-D convolutions split in space and time: arguments and shapes as `r3d_18`."""
    return _finish(video.r2plus1d_18(num_classes=num_classes), alpha, octave, dropout)


def _finish(net: video.VideoResNet, alpha: float, octave: str, dropout: float) -> nn.Module:
    net.avgpool = nn.Sequential(net.avgpool, nn.Dropout(dropout))  # beside a layer without parameters: same names
    return finish(net, alpha, octave)
