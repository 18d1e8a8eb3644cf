"""A small network that sees where and when something moves, for few videos from still cameras."""

from __future__ import annotations

from pytorchvideo.models.net import Net
from pytorchvideo.models.resnet import create_bottleneck_block, create_res_stage
from pytorchvideo.models.stem import create_res_basic_stem
from torch import Tensor, nn

from octvideo.models.build import finish, register
from octvideo.models.small import wake_blocks


class MotionEnergy(nn.Module):
    """Square root of the mean absolute change from frame to frame, scaled to a root mean square of 1 per clip.

    What stands still is 0, whatever it looks like. No parameters.

    Args:
        steps: neighbouring changes that are averaged to one output frame.

    Shape:
        (N, C, T, H, W) -> (N, 1, ceil((T - 1) / steps), H, W), T of 2 or more.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.mean = nn.AvgPool3d((steps, 1, 1), ceil_mode=True, count_include_pad=False)

    def forward(self, clip: Tensor) -> Tensor:
        grey = clip.mean(1, keepdim=True)
        change = (grey[:, :, 1:] - grey[:, :, :-1]).abs()
        energy = (self.mean(change) + 1e-8).sqrt()
        power = energy.square().mean((1, 2, 3, 4), keepdim=True)
        return energy / (power + 1e-6).sqrt() - 0.7  # 0.7: about the mean, which the first convolution need not learn


class GridHead(nn.Module):
    """Logits from a coarse grid of averages, which keeps where and when something happened.

    Args:
        channels: of the map.
        grid: cells along T, H and W.
        num_classes: number of logits.
        dropout: drop rate before the linear layer.

    Shape:
        (N, channels, T, H, W) -> (N, num_classes).
    """

    def __init__(self, channels: int, grid: tuple[int, int, int], num_classes: int, dropout: float) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool3d(grid)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.proj = nn.Linear(channels * grid[0] * grid[1] * grid[2], num_classes)
        nn.init.normal_(self.proj.weight, std=0.01)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.dropout(self.flatten(self.pool(x))))


@register(view=(65, 72, 96))
def energy_resnet3d(num_classes: int = 8, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5) -> nn.Module:
    """`MotionEnergy`, a stem, three stages of bottleneck blocks (3x1x1, 1x3x3, 1x1x1) and a `GridHead` of 2x3x4 cells.

    Args:
        num_classes: number of logits.
        alpha: low-frequency share of the channels; 0 is the dense network.
        octave: "spatial", "temporal" or "spatiotemporal".
        dropout: drop rate before the last layer.

    Shape:
        (N, 3, T, H, W) -> (N, num_classes), any T of 2 or more; made for clips of 65 x 72 x 96 that span a whole video.

    Raises:
        ValueError: for an alpha outside [0, 1] or an unknown octave.
    """
    stem = create_res_basic_stem(
        in_channels=1, out_channels=24, conv_kernel_size=(3, 5, 5), conv_stride=(2, 2, 2), conv_padding=(1, 2, 2)
    )
    blocks = [MotionEnergy(steps=4), stem]
    dim_in = 24
    for dim_out, depth, stride in ((32, 1, (1, 1, 1)), (64, 2, (1, 2, 2)), (128, 1, (2, 2, 2))):
        blocks.append(
            create_res_stage(
                depth=depth,
                dim_in=dim_in,
                dim_inner=dim_out // 2,
                dim_out=dim_out,
                bottleneck=create_bottleneck_block,
                conv_a_kernel_size=(3, 1, 1),
                conv_a_stride=(stride[0], 1, 1),
                conv_a_padding=(1, 0, 0),
                conv_b_kernel_size=(1, 3, 3),
                conv_b_stride=(1, *stride[1:]),
                conv_b_padding=(0, 1, 1),
            )
        )
        dim_in = dim_out
    blocks.append(GridHead(128, (2, 3, 4), num_classes, dropout))
    net = wake_blocks(Net(blocks=nn.ModuleList(blocks)))
    return finish(net, alpha, octave)
