"""C2D and I3D with non-local blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pytorchvideo.layers.nonlocal_net import create_nonlocal
from pytorchvideo.models.weight_init import init_net_weights
from torch import Tensor, nn

from octvideo.models.build import finish, register
from octvideo.models.resnet import c2d_r50, i3d_r50


class NonLocalStage(nn.Module):
    """Residual blocks, some of them followed by a non-local block (Wang et al. 2018, section 4.1).

    The residual blocks keep the names that they have in a stage without: `res_blocks.3`, then `non_local.3`.

    Args:
        res_blocks: the stage's residual blocks.
        non_local: non-local blocks by the number, as text, of the residual block that each follows.

    Shape:
        that of the residual blocks.
    """

    def __init__(self, res_blocks: nn.ModuleList, non_local: nn.ModuleDict) -> None:
        super().__init__()
        self.res_blocks = res_blocks
        self.non_local = non_local

    def forward(self, x: Tensor) -> Tensor:
        for index, res_block in enumerate(self.res_blocks):
            x = res_block(x)
            if str(index) in self.non_local:
                x = self.non_local[str(index)](x)
        return x


@register
def i3d_r50_nln(num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5) -> nn.Module:
    """(Oct-)I3D-R50 with 5 non-local blocks, 8 frames (Wang et al. 2018; Chen et al. 2019, table 8).

    Two stand in res3 and three in res4, after every second residual block; each attends over maps pooled by 1x2x2.

    Args:
        num_classes: number of logits.
        alpha: low-frequency share of the channels; 0 is the dense network.
        octave: "spatial", "temporal" or "spatiotemporal".
        dropout: drop rate before the last layer.

    Shape:
        (N, 3, T, H, W) -> (N, num_classes).

    Raises:
        ValueError: for an alpha outside [0, 1] or an unknown octave.
    """
    return _with_non_local(i3d_r50, num_classes, alpha, octave, dropout)


@register
def c2d_r50_nln(num_classes: int = 400, alpha: float = 0, octave: str = "spatial", dropout: float = 0.5) -> nn.Module:
    """(Oct-)C2D-R50 with 5 non-local blocks, 8 frames: arguments and shapes as `i3d_r50_nln`."""
    return _with_non_local(c2d_r50, num_classes, alpha, octave, dropout)


def _with_non_local(
    builder: Callable[..., nn.Module], num_classes: int, alpha: float, octave: str, dropout: float
) -> nn.Module:
    net = builder(num_classes=num_classes, dropout=dropout)
    blocks: Any = net.blocks  # stem, res2, its pooling, res3, res4, res5, head
    blocks[3] = NonLocalStage(blocks[3].res_blocks, _non_local_blocks((1, 3), dim=512))
    blocks[4] = NonLocalStage(blocks[4].res_blocks, _non_local_blocks((1, 3, 5), dim=1024))
    return finish(net, alpha, octave)


def _non_local_blocks(positions: Sequence[int], dim: int) -> nn.ModuleDict:
    blocks = {str(i): create_nonlocal(dim_in=dim, dim_inner=dim // 2, pool_size=(1, 2, 2)) for i in positions}
    for block in blocks.values():
        block.norm.block_final_bn = True  # starts at gain 0: the block adds nothing at first (section 4.1)
        init_net_weights(block)
    return nn.ModuleDict(blocks)
