"""Convolution and pooling of channels-last maps through 2-D views, the faster ones, and right on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from octvideo.kernels import LAYOUTS


def conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv3d`; of a channels-last map through a 2-D view where the kernel allows one.

    A kernel of (1, k, k) is a 2-D convolution over frames, one of (k, 1, 1) a 2-D convolution over (T, H W). Both are
    views of a map in channels-last memory. torch's own 3-D kernels on a CPU reach a sixth to all of their speed,
    depending on the number of channels.

    Shape:
        as `torch.nn.functional.conv3d`; a channels-last map gives a channels-last map.
    """
    x, stride, padding = settled(x, weight, stride, padding, dilation)
    if not is_channels_last(x):
        return F.conv3d(x, weight, bias, tuple(stride), tuple(padding), tuple(dilation), groups)
    if weight.shape[2] == 1 and padding[0] == 0:
        kernel = weight.squeeze(2)
        out = _over_frames(
            x[:, :, :: stride[0]] if stride[0] > 1 else x,
            lambda frames: F.conv2d(frames, kernel, bias, stride[1:], padding[1:], dilation[1:], groups),
        )
    elif tuple(weight.shape[3:]) == (1, 1) and not any(padding[1:]) and tuple(stride[1:]) == (1, 1):
        kernel = weight.squeeze(4)  # flatten gives its last axis a stride of which the backward pass is in two minds
        out = F.conv2d(to_places(x), kernel, bias, (stride[0], 1), (padding[0], 0), (dilation[0], 1), groups)
        out = from_places(out, x.shape[3:])
    else:
        out = F.conv3d(x, weight, bias, tuple(stride), tuple(padding), tuple(dilation), groups)
    return out.contiguous(memory_format=torch.channels_last_3d)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv2d`, right on a CPU in every layout and type: see `settled`."""
    x, stride, padding = settled(x, weight, stride, padding, dilation)
    return F.conv2d(x, weight, bias, tuple(stride), tuple(padding), tuple(dilation), groups)


class _Axis(NamedTuple):
    """How a kernel moves over one axis of a map; torch's terms."""

    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int

    @property
    def span(self) -> int:
        return self.dilation * (self.kernel - 1) + 1

    @property
    def places(self) -> int:
        return (self.size + 2 * self.padding - self.span) // self.stride + 1


def settled(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[Tensor, Sequence[int], Sequence[int]]:
    """The same convolution in a form in which torch's kernels on a CPU are right.

    Those for 16 bits, and for channels-last maps in other types, too, read and write beyond their memory or give noise

    - where a padded map is smaller than the kernel or the stride, and where the padding is as wide as the kernel: the
      zeros are laid around the map here;
    - where a kernel with a stride has one place to go to: this needs no stride;
    - in 16 bits, and where one of these holds, where a kernel that spans or strides over frames has size 1 and a stride
      on an axis: the places that are skipped are left out here.

    Returns:
        The map, stride and padding that are left to the convolution.
    """
    channels_last = LAYOUTS.get(x.dim())
    is_last = channels_last is not None and _lies(x, channels_last)
    if x.device.type != "cpu" or not (is_last or _in_half(x)):
        return x, stride, padding
    axes = [_Axis(*numbers) for numbers in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)]
    wide = any(padding) and any(a.size < max(a.span, a.stride) or a.padding >= a.span for a in axes)
    single = [axis for axis, a in enumerate(axes) if a.places == 1 and a.stride > 1]
    skips = len(axes) == 3 and max(axes[0].kernel, axes[0].stride) > 1 and bool(_in_half(x) or wide or single)
    skipping = [axis for axis, a in enumerate(axes) if skips and a.kernel == 1 and a.stride > 1]
    if not (wide or single or skipping) or min(a.places for a in axes) < 1:
        return x, stride, padding
    x = F.pad(x, [p for p in reversed(padding) for _ in range(2)]) if any(padding) else x
    for axis in single:
        x = x.narrow(2 + axis, 0, axes[axis].span)
    if skipping:
        steps = [slice(None, None, s if axis in skipping else 1) for axis, s in enumerate(stride)]
        x = x[tuple([slice(None)] * 2 + steps)]
    layout = channels_last if channels_last is not None and is_last else torch.contiguous_format
    settled_stride = [1 if axis in {*single, *skipping} else s for axis, s in enumerate(stride)]
    return x.contiguous(memory_format=layout), settled_stride, [0] * len(padding)


def _in_half(x: Tensor) -> bool:
    """True where a CPU convolves in a type of 16 bits, the map's own or autocast's."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return dtype in (torch.bfloat16, torch.float16)


def avg_pool3d(x: Tensor, factors: Sequence[int], divisor: int | None = None) -> Tensor:
    """Mean over windows of `factors`, those at the end over what lies inside; with divisor 1 their sum.

    A mean over a box is a mean of means: frames are pooled first, then time. `torch`'s own 3-D pooling costs several
    times as much on a CPU and has no bfloat16 there.
    """
    t, *plane = factors
    if any(f != 1 for f in plane):
        x = planar(x, lambda frames: avg_pool2d(frames, plane, divisor))
    if t != 1:
        x = from_places(avg_pool2d(to_places(x), (t, 1), divisor), x.shape[3:])
    return x


def pool_planar(
    x: Tensor, pool2d: Callable[..., Tensor], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """Pool a channels-last map by a mean or a maximum over boxes: first within frames, then over time."""
    if (*kernel[1:], *stride[1:]) != (1, 1, 1, 1):
        x = _over_frames(x, lambda frames: pool2d(frames, kernel[1:], stride[1:], padding[1:]))
    if (kernel[0], stride[0]) != (1, 1):
        x = from_places(pool2d(to_places(x), (kernel[0], 1), (stride[0], 1), (padding[0], 0)), x.shape[3:])
    return x


def planar(x: Tensor, func: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function of single-channel planes, (N, C, H, W) -> (N, C, H', W'), to every frame of (N, C, T, H, W)."""
    if is_channels_last(x):
        return _over_frames(x, func)
    return func(x.flatten(1, 2)).unflatten(1, x.shape[1:3])


def is_channels_last(x: Tensor) -> bool:
    """True for a video map that lies in memory with its channels side by side."""
    return x.dim() == 5 and _lies(x, torch.channels_last_3d) and not x.is_contiguous()


def _lies(x: Tensor, layout: torch.memory_format) -> bool:
    """True for a map in this layout; `torch.func.vmap` cannot be asked."""
    return not torch._C._are_functorch_transforms_active() and x.is_contiguous(memory_format=layout)


def in_channels_last(x: Tensor, kernel: Sequence[int]) -> Tensor:
    """A map that an octave convolution reads, with its channels side by side where that is faster; else as it is.

    It is in float32 and bfloat16 on a CPU, but for kernels over time and space at once in training, whose gradients are
    slow there. Compilers, tracers and transforms choose for themselves.
    """
    layout = LAYOUTS.get(x.dim())
    known = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
    slow = torch.is_grad_enabled() and len(kernel) == 3 and kernel[0] > 1 and max(kernel[1:]) > 1
    chosen_elsewhere = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if layout is None or not known or slow or chosen_elsewhere or torch._C._are_functorch_transforms_active():
        return x
    return x.contiguous(memory_format=layout)


def to_frames(x: Tensor) -> Tensor:
    """View a channels-last map frame by frame: (N, C, T, H, W) -> (N T, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)


def from_frames(frames: Tensor, num_clips: int) -> Tensor:
    """The inverse of `to_frames`."""
    return frames.unflatten(0, (num_clips, -1)).transpose(1, 2)


def to_places(x: Tensor) -> Tensor:
    """View a channels-last map place by place: (N, C, T, H, W) -> (N, C, T, H W).

    By way of (N, T, H, W, C): for one clip `flatten` of the map itself gives a stride that torch takes for contiguous.
    """
    return x.permute(0, 2, 3, 4, 1).flatten(2, 3).permute(0, 3, 1, 2)


def from_places(places: Tensor, size: Sequence[int]) -> Tensor:
    """The inverse of `to_places` for a map whose frames have this size."""
    return places.permute(0, 2, 3, 1).unflatten(2, tuple(size)).permute(0, 4, 1, 2, 3)


def _over_frames(x: Tensor, func: Callable[[Tensor], Tensor]) -> Tensor:
    if x.shape[2] == 1:  # else the view gives this axis a stride that torch's batch norm misreads in its backward pass
        return func(x.squeeze(2)).unsqueeze(2)
    return from_frames(func(to_frames(x)), x.shape[0])


def avg_pool2d(x: Tensor, factors: Sequence[int], divisor: int | None = None) -> Tensor:
    """`avg_pool3d` of planes."""
    return F.avg_pool2d(x, tuple(factors), ceil_mode=True, count_include_pad=False, divisor_override=divisor)
