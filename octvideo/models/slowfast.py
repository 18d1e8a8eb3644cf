"""SlowFast networks, built by PyTorchVideo and octavized; they take one clip and split it inside."""

from __future__ import annotations

import torch
from pytorchvideo.models.slowfast import create_slowfast
from torch import Tensor, nn

from octvideo.models.build import finish, register


class SlowFast(nn.Module):
    """PyTorchVideo's SlowFast for one clip tensor: the fast pathway sees every frame, the slow one every alpha-th.

    The slow frames are spread from the first to the last, as in PySlowFast's `pack_pathway_output`. The state dict is
    that of PyTorchVideo's network.

    In an octave SlowFast both pathways are octave networks of the same alpha. A lateral connection is an octave
    convolution from fast pair to fast pair; its output joins the slow pair part by part (high beside high, low beside
    low). The dense channel order is then (slow, fast), each with high and low channels, and the next stage's first
    convolutions pick their weights' columns accordingly, so that a dense checkpoint keeps its meaning. The lateral
    connection after the stem is dense, as the stem is.

    Args:
        blocks: PyTorchVideo's blocks.
        frame_ratio: fast frames per slow frame (alpha in Feichtenhofer et al. 2019, section 3.2).

    Shape:
        (N, 3, T, H, W) -> (N, num_classes), T a multiple of frame_ratio.

    Raises:
        ValueError: when the clip's frames are no multiple of frame_ratio.
    """

    def __init__(self, blocks: nn.ModuleList, frame_ratio: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.frame_ratio = frame_ratio

    def forward(self, clip: Tensor) -> Tensor:
        x = [clip[:, :, slow_frames(clip.shape[2], self.frame_ratio)], clip]
        for block in self.blocks:
            x = block(x)
        return x  # type: ignore[return-value]  # the last block joins both pathways


@torch.fx.wrap
def slow_frames(num_frames: int, frame_ratio: int) -> list[int]:
    """Indices of the slow pathway's frames among the clip's.

    Raises:
        ValueError: when num_frames is no multiple of frame_ratio.
    """
    if num_frames % frame_ratio:
        raise ValueError(
            f"SlowFast takes clips whose number of frames is a multiple of {frame_ratio}; got {num_frames}"
        )
    slow = num_frames // frame_ratio
    return [i * (num_frames - 1) // max(slow - 1, 1) for i in range(slow)]


@register(view=(32, 224, 224))
def slowfast_r50_4x16(
    num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5
) -> nn.Module:
    """(Oct-)SlowFast-R50, 4 slow of 32 fast frames (Feichtenhofer et al. 2019, table 5).

    Args:
        num_classes: number of logits.
        alpha: low-frequency share of the channels; 0 is PyTorchVideo's network.
        octave: "spatial", "temporal" or "spatiotemporal".
        dropout: drop rate before the last layer.

    Shape:
        (N, 3, T, H, W), T a multiple of 8 (here) or of 4 -> (N, num_classes).

    Raises:
        ValueError: for an alpha outside [0, 1] or an unknown octave.
    """
    return _slowfast(50, 8, 5, num_classes, alpha, octave, dropout)


@register(view=(32, 224, 224))
def slowfast_r50_8x8(
    num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5
) -> nn.Module:
    """(Oct-)SlowFast-R50, 8 slow of 32 fast frames: arguments and shapes as `slowfast_r50_4x16`."""
    return _slowfast(50, 4, 7, num_classes, alpha, octave, dropout)


@register(view=(32, 224, 224))
def slowfast_r101_8x8(
    num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5
) -> nn.Module:
    """(Oct-)SlowFast-R101, 8 slow of 32 fast frames: arguments and shapes as `slowfast_r50_4x16`."""
    return _slowfast(101, 4, 5, num_classes, alpha, octave, dropout)


def _slowfast(
    depth: int, frame_ratio: int, fusion_kernel: int, num_classes: int, alpha: float, octave: str, dropout: float
) -> nn.Module:
    net = create_slowfast(
        model_depth=depth,
        model_num_class=num_classes,
        dropout_rate=dropout,
        slowfast_fusion_conv_kernel_size=(fusion_kernel, 1, 1),
        slowfast_fusion_conv_stride=(frame_ratio, 1, 1),
        head_pool_kernel_sizes=((32 // frame_ratio, 7, 7), (32, 7, 7)),
    )
    return finish(SlowFast(net.blocks, frame_ratio), alpha, octave)
