"""Residual and dense networks on images, built by torchvision and octavized."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models import densenet121 as create_densenet121
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import SqueezeExcitation

from octvideo.models.build import finish, register_image


class SEBottleneck(Bottleneck):
    """torchvision's bottleneck block with a squeeze-and-excitation before the sum (Hu et al. 2018, figure 3).

    Args:
        inplanes: channels of the input.
        planes: a quarter of the output's channels; the excitation squeezes to a sixteenth of those.
        args, kwargs: as in torchvision's `Bottleneck`.
    """

    def __init__(self, inplanes: int, planes: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(inplanes, planes, *args, **kwargs)
        channels = planes * self.expansion
        self.se = SqueezeExcitation(channels, channels // 16)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.se(self.bn3(self.conv3(out)))
        identity = x if self.downsample is None else self.downsample(x)
        return self.relu(out + identity)


def _resnet(
    name: str, text: str, block: type[BasicBlock | Bottleneck], depths: Sequence[int], **groups: int
) -> Callable[..., nn.Module]:
    """The registered builder of a residual network.

    Args:
        name: of the builder.
        text: its docstring.
        block: of the network.
        depths: blocks of each stage.
        groups: torchvision's `groups` and `width_per_group`.
    """

    def build(num_classes: int = 1000, alpha: float = 0, octave: str = "spatial", dropout: float = 0.0) -> nn.Module:
        net = ResNet(block, list(depths), num_classes=num_classes, **groups)
        net.avgpool = nn.Sequential(net.avgpool, nn.Dropout(dropout))  # beside a layer without parameters: same names
        return finish(net, alpha, octave)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = text
    return register_image(build)


resnet18 = _resnet(
    "resnet18",
    """(Oct-)ResNet-18 (He et al. 2016).

    Args:
        num_classes: number of logits.
        alpha: low-frequency share of the channels; 0 is torchvision's network.
        octave: "spatial"; images have no time.
        dropout: drop rate before the last layer.

    Shape:
        (N, 3, H, W) -> (N, num_classes), any H, W; made for 224 x 224.

    Raises:
        ValueError: for an alpha outside [0, 1] or an unknown octave.
    """,
    BasicBlock,
    (2, 2, 2, 2),
)
resnet26 = _resnet(
    "resnet26",
    """(Oct-)ResNet-26, two bottleneck blocks a stage (Chen et al. 2019, figure 4): as `resnet18`.

    All residual networks here add before the activation, with stride 2 in the 3x3 convolution, as torchvision's do; the
    paper's ablation has the same convolutions with norm and activation before each.
    """,
    Bottleneck,
    (2, 2, 2, 2),
)
resnet34 = _resnet("resnet34", "(Oct-)ResNet-34: as `resnet18`.", BasicBlock, (3, 4, 6, 3))
resnet50 = _resnet("resnet50", "(Oct-)ResNet-50: as `resnet18`.", Bottleneck, (3, 4, 6, 3))
resnet101 = _resnet("resnet101", "(Oct-)ResNet-101: as `resnet18`.", Bottleneck, (3, 4, 23, 3))
resnet152 = _resnet(
    "resnet152",
    """(Oct-)ResNet-152: as `resnet18`.

    The paper's has a stem of more convolutions and stride 2 in the last convolution of a block, and costs more.
    """,
    Bottleneck,
    (3, 8, 36, 3),
)
resnet200 = _resnet("resnet200", "(Oct-)ResNet-200: as `resnet18`.", Bottleneck, (3, 24, 36, 3))
se_resnet50 = _resnet("se_resnet50", "(Oct-)SE-ResNet-50 (Hu et al. 2018): as `resnet18`.", SEBottleneck, (3, 4, 6, 3))
se_resnet152 = _resnet("se_resnet152", "(Oct-)SE-ResNet-152: as `resnet18`.", SEBottleneck, (3, 8, 36, 3))
resnext50_32x4d = _resnet(
    "resnext50_32x4d",
    "(Oct-)ResNeXt-50, 32 groups of 4 channels (Xie et al. 2017): as `resnet18`.",
    Bottleneck,
    (3, 4, 6, 3),
    groups=32,
    width_per_group=4,
)
resnext101_32x4d = _resnet(
    "resnext101_32x4d",
    "(Oct-)ResNeXt-101, 32 groups of 4 channels: as `resnet18`.",
    Bottleneck,
    (3, 4, 23, 3),
    groups=32,
    width_per_group=4,
)


@register_image
def densenet121(num_classes: int = 1000, alpha: float = 0, octave: str = "spatial", dropout: float = 0.0) -> nn.Module:
    """(Oct-)DenseNet-121 (Huang et al. 2017): as `resnet18`, H, W >= 29.

    The transition to the last dense block writes a dense map, as in the paper.
    """
    net = create_densenet121(num_classes=num_classes)
    # Whole maps dropped here are elements dropped after the pooling; the names of the parameters stay.
    net.features.add_module("dropout", nn.Dropout2d(dropout))
    return finish(net, alpha, octave, lambda name, conv: name.startswith("features.transition3."))
