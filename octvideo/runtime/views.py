"""What oneDNN's kernels see of a map: views of channels-last memory on which they are fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from octvideo.layers.lowering import to_frames


class View(NamedTuple):
    """What a kernel sees of a map at a time.

    Args:
        name: image, frames (one by one), time (place by place) or video.
        axes: those of (H, W) or (T, H, W) that are kept.
    """

    name: str
    axes: tuple[int, ...]

    def of(self, x: Tensor, frame_stride: int = 1) -> Tensor:
        """The view of a map, (N, C, *kept axes); only single frames can be left out."""
        if self.name == "image":
            return x.contiguous(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        if self.name == "video":
            return x
        n, c, t, h, w = x.shape
        if self.name == "time":
            return x.as_strided((n, c, t, h * w), (c * t * h * w, 1, c * h * w, c))
        if frame_stride > 1:
            return to_frames(x[:, :, ::frame_stride])
        return x.as_strided((n * t, c, h, w), (c * h * w, 1, c * w, c))

    def map(self, out: Tensor, x: Tensor) -> Tensor:
        """The map of a view's result; x is the map that the view was of."""
        if self.name not in ("frames", "time"):
            return out
        n, (h, w) = x.shape[0], out.shape[2:] if self.name == "frames" else x.shape[3:]
        c, t = out.shape[1], out.shape[0] // n if self.name == "frames" else out.shape[2]
        return out.as_strided((n, c, t, h, w), (c * t * h * w, 1, c * h * w, c * w, c))


IMAGE, VIDEO = View("image", (0, 1)), View("video", (0, 1, 2))
FRAMES, TIME = View("frames", (1, 2)), View("time", (0, 1))


def view_for(kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> View:
    """The view on which a kernel runs: of two axes where it does not touch the third, for those are faster."""
    if len(kernel) == 2:
        return IMAGE
    if kernel[0] == 1 and not padding[0]:
        return FRAMES
    return TIME if (*kernel[1:], *stride[1:], *padding[1:]) == (1, 1, 1, 1, 0, 0) else VIDEO
