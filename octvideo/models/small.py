"""Small networks that train on a CPU, from PyTorchVideo's parts."""

from __future__ import annotations

from collections.abc import Sequence

from pytorchvideo.models.head import create_res_basic_head
from pytorchvideo.models.net import Net
from pytorchvideo.models.resnet import create_bottleneck_block, create_res_stage
from pytorchvideo.models.stem import create_res_basic_stem
from torch import nn

from octvideo.models.build import finish, register


@register
def resnet3d_tiny(num_classes: int = 8, alpha: float = 0, octave: str = "spatial", dropout: float = 0.2) -> nn.Module:
    """A residual network of 4 stages with one block each for clips of about 8 x 64 x 64.

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
    return _small_resnet((16, 32, 64, 96, 128), (1, 1, 1, 1), num_classes, alpha, octave, dropout)


@register
def resnet3d_small(num_classes: int = 8, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5) -> nn.Module:
    """`resnet3d_tiny` at twice the width and two blocks a stage: arguments and shapes as there."""
    return _small_resnet((32, 64, 128, 192, 256), (2, 2, 2, 2), num_classes, alpha, octave, dropout)


def _small_resnet(
    widths: Sequence[int], depths: Sequence[int], num_classes: int, alpha: float, octave: str, dropout: float
) -> nn.Module:
    """Stem, stages of bottleneck blocks (3x1x1, 1x3x3, 1x1x1), global pooling head."""
    blocks = [
        create_res_basic_stem(
            in_channels=3, out_channels=widths[0], conv_kernel_size=(3, 5, 5), conv_stride=(1, 2, 2),
            conv_padding=(1, 2, 2), pool=None,
        )
    ]  # fmt: skip
    for index, depth in enumerate(depths):
        blocks.append(
            create_res_stage(
                depth=depth, dim_in=widths[index], dim_inner=widths[index + 1] // 2, dim_out=widths[index + 1],
                bottleneck=create_bottleneck_block,
                conv_a_kernel_size=(3, 1, 1), conv_a_stride=(1, 1, 1), conv_a_padding=(1, 0, 0),
                conv_b_kernel_size=(1, 3, 3), conv_b_stride=(1, 1 if index == 0 else 2, 1 if index == 0 else 2),
                conv_b_padding=(0, 1, 1),
            )
        )  # fmt: skip
    blocks.append(
        create_res_basic_head(
            in_features=widths[-1], out_features=num_classes, pool=nn.AdaptiveAvgPool3d, output_size=(1, 1, 1),
            dropout_rate=dropout,
        )
    )  # fmt: skip
    return finish(Net(blocks=nn.ModuleList(blocks)), alpha, octave)
