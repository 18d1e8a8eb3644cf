"""MobileNets on images, octavized as in Chen et al. 2019, table 5."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2 as create_mobilenet_v2
from torchvision.ops import Conv2dNormActivation

from octvideo.models.build import finish, register_image

_STAGES = ((64,), (128, 128), (256, 256), (512,) * 6, (1024, 1024))


class MobileNetV1(nn.Module):
    """A stem and 13 depthwise separable convolutions in stages of one resolution each (Howard et al. 2017, table 1).

    Args:
        num_classes: number of logits.
        width: multiplier of all numbers of channels.
        dropout: drop rate before the last layer.

    Shape:
        (N, 3, H, W) -> (N, num_classes).
    """

    def __init__(self, num_classes: int, width: float, dropout: float) -> None:
        super().__init__()
        channels = int(32 * width)
        self.stem = Conv2dNormActivation(3, channels, stride=2)
        self.stages = nn.Sequential()
        for index, widths in enumerate(_STAGES):
            stage = nn.Sequential()
            for position, out in enumerate(widths):
                stride = 2 if index and position == 0 else 1
                stage.append(_separable(channels, int(out * width), stride))
                channels = int(out * width)
            self.stages.append(stage)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)
        _init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stages(self.stem(x)))
        return self.classifier(self.dropout(torch.flatten(x, 1)))


@register_image
def mobilenet_v1(
    num_classes: int = 1000, alpha: float = 0, octave: str = "spatial", dropout: float = 0.0, width: float = 1.0
) -> nn.Module:
    """(Oct-)MobileNetV1 (Howard et al. 2017); dense from the pointwise convolution that feeds the last stage.

    Args:
        num_classes: number of logits.
        alpha: low-frequency share of the channels; 0 is the dense network.
        octave: "spatial"; images have no time.
        dropout: drop rate before the last layer.
        width: multiplier of all numbers of channels, above 0; the paper's are .75 and 1.

    Shape:
        (N, 3, H, W) -> (N, num_classes), any H, W; made for 224 x 224.

    Raises:
        ValueError: for an alpha outside [0, 1], an unknown octave, or a width that is not above 0.
    """
    _check_width(width)
    net = MobileNetV1(num_classes, width, dropout)
    return finish(net, alpha, octave, lambda name, conv: name.startswith("stages.3.5.pointwise."))


@register_image
def mobilenet_v2(
    num_classes: int = 1000, alpha: float = 0, octave: str = "spatial", dropout: float = 0.2, width: float = 1.0
) -> nn.Module:
    """(Oct-)MobileNetV2 (Sandler et al. 2018) of torchvision: arguments and shapes as `mobilenet_v1`.

    The narrow maps between the blocks are dense, as in the paper: a block's first convolution splits, its last merges.
    The paper's widths are 1 and 1.125, and so channels are not rounded to multiples of 8.
    """
    _check_width(width)
    net = create_mobilenet_v2(num_classes=num_classes, dropout=dropout, width_mult=width, round_nearest=1)
    return finish(net, alpha, octave, writes_dense_map)


def writes_dense_map(name: str, conv: nn.Module) -> bool:
    """True at the lowest resolution, and for the last convolution of a block, which has no norm in its own module."""
    return int(name.split(".")[1]) >= 14 or name.endswith((".conv.1", ".conv.2"))


def _separable(channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Depthwise 3x3 and pointwise 1x1 convolution, each with norm and activation."""
    return nn.Sequential(
        OrderedDict(
            depthwise=Conv2dNormActivation(channels, channels, stride=stride, groups=channels),
            pointwise=Conv2dNormActivation(channels, out_channels, kernel_size=1),
        )
    )


def _init_weights(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


def _check_width(width: float) -> None:
    if not width > 0:
        raise ValueError(f"width must be above 0, a multiplier of all numbers of channels; got {width}")
