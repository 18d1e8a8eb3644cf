"""Networks of factorised convolutions, octavized: R(2+1)D and CSN of PyTorchVideo, S3D of torchvision."""

from __future__ import annotations

from pytorchvideo.models.csn import create_csn
from pytorchvideo.models.r2plus1d import create_r2plus1d
from torch import nn
from torchvision.models.video import s3d as create_s3d

from octvideo.models.build import finish, register


@register(view=(16, 224, 224))
def r2plus1d_r50(num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5) -> nn.Module:
    """(Oct-)R(2+1)D-R50, 16 frames (Tran et al. 2018); logits, where PyTorchVideo's network ends in a softmax.

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
    net = create_r2plus1d(model_num_class=num_classes, dropout_rate=dropout, head_activation=None)
    return finish(net, alpha, octave)


@register(view=(32, 224, 224))
def csn_r101(num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5) -> nn.Module:
    """(Oct-)ir-CSN-101, 32 frames (Tran et al. 2019): arguments and shapes as `r2plus1d_r50`."""
    net = create_csn(
        model_depth=101,
        model_num_class=num_classes,
        dropout_rate=dropout,
        stem_pool=nn.MaxPool3d,
        head_pool_kernel_size=(4, 7, 7),
    )
    return finish(net, alpha, octave)


@register(view=(16, 224, 224))
def s3d(num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.2) -> nn.Module:
    """(Oct-)S3D (Xie et al. 2018) of torchvision: arguments and shapes as `r2plus1d_r50`.

    Both Inception blocks of the lowest resolution write dense maps, as the paper's last stage does.
    """
    return finish(create_s3d(num_classes=num_classes, dropout=dropout), alpha, octave, _in_last_blocks)


def _in_last_blocks(name: str, conv: nn.Module) -> bool:
    return name.startswith(("features.14.", "features.15."))
