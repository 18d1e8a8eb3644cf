"""C2D, I3D and Slow networks, built by PyTorchVideo and octavized."""

from __future__ import annotations

from typing import Any

from pytorchvideo.models.resnet import create_resnet
from torch import nn

from octvideo.models.build import finish, register

_C2D_CONV_A = ((1, 1, 1),) * 4
_I3D_CONV_A = ((3, 1, 1), [(3, 1, 1), (1, 1, 1)], [(3, 1, 1), (1, 1, 1)], [(1, 1, 1), (3, 1, 1)])


@register
def c2d_r50(num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5) -> nn.Module:
    """(Oct-)C2D-R50: 2-D convolutions on every frame, 8 frames (Wang et al. 2018, table 1; Chen et al. 2019, table 8).

    Args:
        num_classes: number of logits.
        alpha: low-frequency share of the channels; 0 is PyTorchVideo's `c2d_r50`.
        octave: "spatial", "temporal" or "spatiotemporal".
        dropout: drop rate before the last layer.

    Shape:
        (N, 3, T, H, W) -> (N, num_classes).

    Raises:
        ValueError: for an alpha outside [0, 1] or an unknown octave.
    """
    return _resnet(
        50, num_classes, alpha, octave, dropout,
        stem_conv_kernel_size=(1, 7, 7), stage1_pool=nn.MaxPool3d, stage_conv_a_kernel_size=_C2D_CONV_A,
    )  # fmt: skip


@register
def i3d_r50(num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5) -> nn.Module:
    """(Oct-)I3D-R50, 8 frames (Wang et al. 2018; Chen et al. 2019, table 8): arguments and shapes as `c2d_r50`."""
    return _i3d(50, num_classes, alpha, octave, dropout)


@register
def i3d_r101(num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5) -> nn.Module:
    """(Oct-)I3D-R101, 8 frames: arguments and shapes as `c2d_r50`."""
    return _i3d(101, num_classes, alpha, octave, dropout)


@register
def slow_r50(num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5) -> nn.Module:
    """(Oct-)Slow-R50, 8 frames (Feichtenhofer et al. 2019, the slow pathway alone): arguments, shapes as `c2d_r50`."""
    return _resnet(
        50, num_classes, alpha, octave, dropout, stem_conv_kernel_size=(1, 7, 7), head_pool_kernel_size=(8, 7, 7)
    )


def _i3d(depth: int, num_classes: int, alpha: float, octave: str, dropout: float) -> nn.Module:
    return _resnet(
        depth, num_classes, alpha, octave, dropout,
        stem_conv_kernel_size=(5, 7, 7), stage1_pool=nn.MaxPool3d, stage_conv_a_kernel_size=_I3D_CONV_A,
    )  # fmt: skip


def _resnet(depth: int, num_classes: int, alpha: float, octave: str, dropout: float, **shape: Any) -> nn.Module:
    net = create_resnet(model_depth=depth, model_num_class=num_classes, dropout_rate=dropout, **shape)
    return finish(net, alpha, octave)
