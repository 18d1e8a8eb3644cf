"""X3D networks, built by PyTorchVideo and octavized."""

from __future__ import annotations

from pytorchvideo.models.x3d import create_x3d
from torch import nn

from octvideo.models.build import finish, register


@register(view=(4, 160, 160))
def x3d_xs(num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5) -> nn.Module:
    """(Oct-)X3D-XS, 4 frames of 160 pixels (Feichtenhofer 2020, table 3).

    The same weights take larger frames: PyTorchVideo scores XS and S at 182 pixels, M at 256, L at 356. The network
    gives logits, where PyTorchVideo's ends in a softmax, and its swish is torch's own (`nn.SiLU`).

    Args:
        num_classes: number of logits.
        alpha: low-frequency share of the channels; 0 is PyTorchVideo's network.
        octave: "spatial", "temporal" or "spatiotemporal".
        dropout: drop rate before the last layer.

    Shape:
        (N, 3, T, H, W) -> (N, num_classes).

    Raises:
        ValueError: for an alpha outside [0, 1] or an unknown octave.
    """
    return _x3d(4, 160, 2.2, num_classes, alpha, octave, dropout)


@register(view=(13, 160, 160))
def x3d_s(num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5) -> nn.Module:
    """(Oct-)X3D-S, 13 frames of 160 pixels: arguments and shapes as `x3d_xs`."""
    return _x3d(13, 160, 2.2, num_classes, alpha, octave, dropout)


@register(view=(16, 224, 224))
def x3d_m(num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5) -> nn.Module:
    """(Oct-)X3D-M, 16 frames of 224 pixels: arguments and shapes as `x3d_xs`."""
    return _x3d(16, 224, 2.2, num_classes, alpha, octave, dropout)


@register(view=(16, 312, 312))
def x3d_l(num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5) -> nn.Module:
    """(Oct-)X3D-L, 16 frames of 312 pixels, deeper: arguments and shapes as `x3d_xs`."""
    return _x3d(16, 312, 5.0, num_classes, alpha, octave, dropout)


def _x3d(
    num_frames: int, crop: int, depth_factor: float, num_classes: int, alpha: float, octave: str, dropout: float
) -> nn.Module:
    net = create_x3d(
        input_clip_length=num_frames,
        input_crop_size=crop,
        depth_factor=depth_factor,
        model_num_class=num_classes,
        dropout_rate=dropout,
        inner_act=nn.SiLU,  # PyTorchVideo's Swish is an autograd function, which neither pairs nor export pass
        head_activation=None,
    )
    return finish(net, alpha, octave)
