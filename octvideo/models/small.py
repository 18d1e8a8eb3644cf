"""Small networks that train on a CPU, from PyTorchVideo's parts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from pytorchvideo.models.head import create_res_basic_head
from pytorchvideo.models.net import Net
from pytorchvideo.models.resnet import create_bottleneck_block, create_res_stage
from pytorchvideo.models.stem import create_res_basic_stem
from torch import nn

from octvideo.models.build import finish, register


@register(view=(16, 48, 48))
def resnet3d_tiny(num_classes: int = 8, alpha: float = 0, octave: str = "spatial", dropout: float = 0.2) -> nn.Module:
    """A residual network of 3 stages with one block each, for clips of about 16 x 48 x 48.

    Args:
        num_classes: number of logits.
        alpha: low-frequency share of the channels; 0 is the dense network.
        octave: "spatial", "temporal" or "spatiotemporal".
        dropout: drop rate before the last layer.

    Shape:
        (N, 3, T, H, W) -> (N, num_classes), any T, H, W.

    Raises:
        ValueError: for an alpha outside [0, 1] or an unknown octave.
    """
    return finish(_small_resnet(24, (64, 128, 192), num_classes, dropout), alpha, octave)


@register(view=(16, 112, 112))
def resnet3d_small(num_classes: int = 8, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5) -> nn.Module:
    """`resnet3d_tiny` with a fourth stage and more channels: arguments and shapes as there."""
    return finish(_small_resnet(32, (96, 192, 288, 384), num_classes, dropout), alpha, octave)


def wake_blocks(net: nn.Module) -> nn.Module:
    """Start the last norm of each block at 1, not at PyTorchVideo's 0, from which a short training does not get far."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.ones_(module.weight)
    return net


def _small_resnet(stem_channels: int, widths: Sequence[int], num_classes: int, dropout: float) -> nn.Module:
    """Stem of 5x5x5 and a pooling, one bottleneck block a stage (1x1x1, 3x3x3, 1x1x1), global pooling head."""
    stem = create_res_basic_stem(
        in_channels=3,
        out_channels=stem_channels,
        conv_kernel_size=(5, 5, 5),
        conv_stride=(1, 2, 2),
        conv_padding=(2, 2, 2),
    )
    blocks = [stem]
    for index, (dim_in, dim_out) in enumerate(pairwise((stem_channels, *widths))):
        stride = 1 if index == 0 else 2
        blocks.append(
            create_res_stage(
                depth=1,
                dim_in=dim_in,
                dim_inner=dim_out // 2,
                dim_out=dim_out,
                bottleneck=create_bottleneck_block,
                conv_a_kernel_size=(1, 1, 1),
                conv_a_stride=(1, 1, 1),
                conv_a_padding=(0, 0, 0),
                conv_b_kernel_size=(3, 3, 3),
                conv_b_stride=(1, stride, stride),
                conv_b_padding=(1, 1, 1),
            )
        )
    head = create_res_basic_head(
        in_features=widths[-1],
        out_features=num_classes,
        pool=nn.AdaptiveAvgPool3d,
        output_size=(1, 1, 1),
        dropout_rate=dropout,
    )
    return wake_blocks(Net(blocks=nn.ModuleList([*blocks, head])))
