"""Other readings of the paper's networks, each built and counted, to tell where a printed cost comes from.

The networks of `octvideo.models` follow PyTorchVideo and torchvision. The authors' own differ in places that the paper
or the released code names, or that can only be guessed; a reading is such a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import Conv2dNormActivation

from octvideo.analysis.macs import CostReport, count_macs
from octvideo.analysis.paper import Published
from octvideo.analysis.params import count_parameters
from octvideo.analysis.shapes import ShapesOnly
from octvideo.convert import octavize
from octvideo.layers import OctConv3d, OctPair
from octvideo.models.build import find_builder
from octvideo.models.image import SEBottleneck
from octvideo.models.mobilenet import writes_dense_map


class Counted(NamedTuple):
    """What one reading costs.

    Args:
        macs: multiply-adds that the paper counts: convolutions and linear layers.
        pool_macs: of average pooling, one per element read.
        params: number of parameters.
    """

    macs: int
    pool_macs: int
    params: int


class Reading(NamedTuple):
    """One reading: what it changes, which rows it is tried on, and how it is counted."""

    text: str
    fits: Callable[[Published], bool]
    cost: Callable[[Published], Counted]


def build(row: Published, alpha: float | None = None) -> nn.Module:
    """The row's network on the meta device, at its own alpha or another."""
    with ShapesOnly(), torch.device("meta"):
        return find_builder(row.model)(alpha=row.alpha if alpha is None else alpha, **row.options)


def report_on(net: nn.Module, row: Published) -> CostReport:
    """The counts of one view of the row's size."""
    return count_macs(net, torch.empty((1, 3, *row.size), device="meta"))


def unpadded(net: nn.Module) -> nn.Module:
    """Take the padding of the first pooling away: its maps have 55x55 elements in place of 56x56."""
    pool = next(module for module in net.modules() if isinstance(module, nn.MaxPool3d))
    pool.padding = (0, 0, 0)
    return net


def last_stage_octave(row: Published) -> nn.Module:
    """The network with octaves in its last stage, too; only the very last convolution writes a dense map."""
    net = build(row, alpha=0)
    names = [name for name, module in net.named_modules() if isinstance(module, nn.Conv3d)]
    stages = sorted({".".join(name.split(".")[:2]) for name in names})[1:]  # without the stem
    last = [name for name in names if name.startswith(stages[-1]) and name.endswith("res_blocks.2.branch2.conv_c")]
    return octavize(net, dict.fromkeys(stages, row.alpha) | dict.fromkeys(last, 0.0))


def count(net: nn.Module, row: Published, attention: bool = True) -> Counted:
    """Count a network as it is; attention's products are among the matrix products."""
    report = report_on(net, row)
    macs = report.macs if attention else report.conv_macs
    return Counted(macs, report.pool_macs, count_parameters(net))


def count_rounded_down(net: nn.Module, row: Published) -> Counted:
    """Count as if an odd map's low part had floor(n / 2) elements on an axis in place of ceil(n / 2)."""
    saved = 0

    def add(conv: Any, args: tuple[Any, ...], out: OctPair | Tensor) -> None:
        nonlocal saved
        (high, low), (out_high, out_low) = _channels(args[0]), _channels(out)
        frames, *plane = (out.high if isinstance(out, OctPair) else out).shape[2:]
        up_sampled = low * out_high if conv.stride[-1] == 1 else 0
        fewer = math.prod(-(-n // 2) for n in plane) - math.prod(n // 2 for n in plane)
        saved += math.prod(conv.kernel_size) * frames * fewer * ((high + low) * out_low + up_sampled)

    hooks = [m.register_forward_hook(add) for m in net.modules() if isinstance(m, OctConv3d)]
    macs, pool_macs, params = count(net, row)
    for hook in hooks:
        hook.remove()
    return Counted(macs - saved, pool_macs, params)


def _channels(x: OctPair | Tensor) -> tuple[int, int]:
    return (x.high.shape[1], x.low.shape[1]) if isinstance(x, OctPair) else (x.shape[1], 0)


def released_mobilenet_v2(row: Published) -> nn.Module:
    """MobileNetV2 with a 1x1 convolution before the first block's depthwise one, as in the released code."""
    net: Any = build(row, alpha=0)
    block = net.features[1]
    channels = block.conv[-2].in_channels
    with torch.device("meta"):
        first = Conv2dNormActivation(channels, channels, 1, activation_layer=nn.ReLU6)
    block.conv = nn.Sequential(first, *block.conv)
    return octavize(net, row.alpha, keep_dense=writes_dense_map)


class LittleStem(nn.Module):
    """The residual block that stands for the first pooling in the released ResNet-152."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(_conv(64, 32, 1), _conv(32, 32, 3, 2), _conv(32, 64, 1, relu=False))
        self.shortcut = _conv(64, 64, 1, 2, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


def released_resnet152(row: Published) -> nn.Module:
    """ResNet-152 as released: a stem of three 3x3 convolutions, stride 2 in the last 1x1 of a stage's first block.

    Without squeeze-and-excitation the stem's second convolution has the stride (the first one has 8 channels, at full
    size), and a residual block replaces the first pooling.
    """
    squeezes = row.model == "se_resnet152"
    with torch.device("meta"):
        net: Any = ResNet(SEBottleneck if squeezes else Bottleneck, [3, 8, 36, 3])
        width, strides = (32, (2, 1)) if squeezes else (8, (1, 2))
        stem = nn.Sequential(_conv(3, width, 3, strides[0]), _conv(width, 32, 3, strides[1]), _conv(32, 64, 3))
        net.conv1, net.bn1 = stem, nn.Identity()
        if not squeezes:
            net.maxpool = LittleStem()
    for stage in (net.layer2, net.layer3, net.layer4):
        block: Any = stage[0]
        block.conv2.stride, block.conv3.stride = (1, 1), (2, 2)
    return octavize(net, row.alpha, keep_dense=lambda name, conv: name.startswith(("conv1.", "maxpool.")))


def _conv(channels: int, out_channels: int, kernel: int, stride: int = 1, relu: bool = True) -> nn.Module:
    return Conv2dNormActivation(channels, out_channels, kernel, stride, activation_layer=nn.ReLU if relu else None)


def _is(*models: str, octave: bool = False) -> Callable[[Published], bool]:
    return lambda row: row.model in models and (row.alpha > 0 or not octave)


READINGS = (
    Reading(
        "first pooling without padding (maps of 55x55)",
        _is("c2d_r50", "i3d_r50"),
        lambda row: count(unpadded(build(row)), row),
    ),
    Reading(
        "first pooling without padding, products of the attention not counted",
        _is("i3d_r50_nln"),
        lambda row: count(unpadded(build(row)), row, attention=False),
    ),
    Reading(
        "first pooling without padding, alpha .25",
        lambda row: row.model == "i3d_r50" and row.alpha == 0.2,
        lambda row: count(unpadded(build(row, alpha=0.25)), row),
    ),
    Reading(
        "first pooling without padding, octaves in res5, too",
        _is("i3d_r50", octave=True),
        lambda row: count(unpadded(last_stage_octave(row)), row),
    ),
    Reading(
        "first pooling without padding, octaves in res5, too, sizes of low maps rounded down (7x7 to 3x3)",
        _is("i3d_r50", octave=True),
        lambda row: count_rounded_down(unpadded(last_stage_octave(row)), row),
    ),
    Reading(
        "octaves in res5, too",
        _is("slowfast_r50_4x16", octave=True),
        lambda row: count(last_stage_octave(row), row),
    ),
    Reading(
        "as released: one 1x1 convolution more in the first block, which splits",
        _is("mobilenet_v2", octave=True),
        lambda row: count(released_mobilenet_v2(row), row),
    ),
    Reading(
        "as released: stem of three 3x3 convolutions, a residual block for the first pooling, stride in the last 1x1",
        _is("resnet152"),
        lambda row: count(released_resnet152(row), row),
    ),
    Reading(
        "as released: stem of three 3x3 convolutions, stride in a block's last 1x1",
        _is("se_resnet152"),
        lambda row: count(released_resnet152(row), row),
    ),
)
"""All readings; a row may have several."""
