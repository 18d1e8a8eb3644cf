"""Transposed octave convolution, for decoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from octvideo.layers.channels import HIGH, LOW, Segments, count, take
from octvideo.layers.conv import check_takes_tensor, describe_octave, group_error, has_own_filters, set_octave
from octvideo.layers.functional import columns
from octvideo.layers.pair import OctPair, check_pair, empty_low
from octvideo.layers.resize import avg_pool, crop, low_size, upsample

_CONV_TRANSPOSE: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


class _OctaveConvTranspose:
    """What the transposed octave convolutions of every dimension add to torch's."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        *args: Any,
        alpha_in: float,
        alpha_out: float,
        octave: str = "spatial",
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, *args, **kwargs)  # type: ignore[call-arg]
        set_octave(self, alpha_in, alpha_out, octave, None, None)
        if alpha_in or alpha_out:
            _check_sizes(self)
            reason = group_error(self)
            if reason:
                raise ValueError(f"{type(self).__name__} with alpha_in {alpha_in} and alpha_out {alpha_out}: {reason}")

    def forward(self, input: OctPair | Tensor, output_size: Any = None) -> OctPair | Tensor:
        if isinstance(input, Tensor):
            check_takes_tensor(self)
            if not self.alpha_out:  # type: ignore[attr-defined]
                return super().forward(input, output_size)  # type: ignore[misc]
        if output_size is not None:
            raise ValueError("output_size cannot be given for an octave pair: use output_padding")
        return _convolve_transposed(self, input)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {describe_octave(self)}"  # type: ignore[misc]


class OctConvTranspose1d(_OctaveConvTranspose, nn.ConvTranspose1d):  # type: ignore[misc]
    """`OctConvTranspose3d` for sequences (N, C, T), whose only octave is the temporal one."""

    def __init__(self, *args: Any, octave: str = "temporal", **kwargs: Any) -> None:
        super().__init__(*args, octave=octave, **kwargs)


class OctConvTranspose2d(_OctaveConvTranspose, nn.ConvTranspose2d):  # type: ignore[misc]
    """`OctConvTranspose3d` for images (N, C, H, W): octaves over H and W."""


class OctConvTranspose3d(_OctaveConvTranspose, nn.ConvTranspose3d):  # type: ignore[misc]
    """Transposed octave convolution; this project's own, after the convolution's equations.

        Y_H = f(X_H; W_HH) + upsample(f(X_L; W_LH)),      Y_L = f(X_L; W_LL) + f(pool(X_H); W_HL)

    with f the transposed convolution at the size of its input. The state dict is that of `nn.ConvTranspose3d`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, device, dtype:
            as in `nn.ConvTranspose3d`. On an octave axis the output must be `stride` times as large as the input.
            With groups all four paths are grouped; a depthwise one (groups = in_channels) exchanges nothing.
        alpha_in, alpha_out, octave: as in `OctConv3d`.

    Shape:
        `OctPair` of size n -> `OctPair`, the high part of size stride * n on the octave axes.

    Raises:
        ValueError: for an alpha outside [0, 1], an unknown octave, a size that is not multiplied by the stride, or
            channels that the groups do not divide.

    Example:
        >>> import torch
        >>> up = OctConvTranspose2d(8, 4, 4, 2, 1, alpha_in=0.25, alpha_out=0.5)
        >>> pair = up(OctPair(torch.zeros(1, 6, 5, 5), torch.zeros(1, 2, 3, 3)))
        >>> pair.high.shape, pair.low.shape
        (torch.Size([1, 2, 10, 10]), torch.Size([1, 2, 5, 5]))
    """


def _convolve_transposed(conv: Any, x: OctPair | Tensor) -> OctPair | Tensor:
    pair = x if isinstance(x, OctPair) else empty_low(x, conv.factors)
    check_pair(pair, conv.in_high, conv.in_low, conv.factors)
    high, low = _output(conv, pair, HIGH), _output(conv, pair, LOW)
    if low is None:
        return empty_low(high, conv.factors) if conv.alpha_out else high  # type: ignore[arg-type,return-value]
    if high is None:
        high = low.new_empty(low.shape[0], 0, *_high_size(conv, pair, low))
    # Of an odd size the low part grew by one cell too many.
    return OctPair(high, crop(low, low_size(high.shape[2:], conv.factors)), _out_segments(conv, pair))


def _out_segments(conv: Any, pair: OctPair) -> Segments:
    """Which output channels are high and which low; those of a depthwise convolution stay where its input's are."""
    if not has_own_filters(conv):
        return conv.out_segments
    each = conv.out_channels // conv.groups
    return tuple((high * each, low * each) for high, low in pair.segments)


def _high_size(conv: Any, pair: OctPair, out: Tensor) -> list[int]:
    """Size of the high output; `out` is a path's result, whose size holds on the axes without an octave."""
    axes = zip(pair.high.shape[2:], conv.stride, conv.factors, out.shape[2:], strict=True)
    return [n * stride if factor > 1 else m for n, stride, factor, m in axes]


def _output(conv: Any, pair: OctPair, target: int) -> Tensor | None:
    """The sum of the paths to one part; None where the part has no channels."""
    if not count(conv.out_segments, target):
        return None
    sources = [s for s in (HIGH, LOW) if count(pair.segments, s) and (s == target or not has_own_filters(conv))]
    terms = [_path(conv, pair, s, target, with_bias=s == sources[0]) for s in sources]
    return terms[0] if len(terms) == 1 else terms[0] + terms[1]


def _path(conv: Any, pair: OctPair, source: int, target: int, with_bias: bool) -> Tensor:
    x = pair.high if source == HIGH else pair.low
    if source == HIGH and target == LOW:
        x = avg_pool(x, conv.factors)
    weight, groups = take(conv.weight, pair.segments, source), conv.groups
    if has_own_filters(conv):
        groups = count(pair.segments, source)
    else:
        weight = columns(weight, conv.out_segments, target, groups)
    bias = take(conv.bias, _out_segments(conv, pair), target) if conv.bias is not None and with_bias else None
    f = _CONV_TRANSPOSE[len(conv.factors)]
    out = f(x, weight, bias, conv.stride, conv.padding, conv.output_padding, groups, conv.dilation)
    if source == target or target == LOW:
        return out
    size = _high_size(conv, pair, out)
    return upsample(crop(out, low_size(size, conv.factors)), size)


def _check_sizes(conv: Any) -> None:
    axes = zip(
        "THW"[-len(conv.factors) :], conv.factors, conv.kernel_size, conv.stride, conv.padding,
        conv.output_padding, conv.dilation, strict=True,
    )  # fmt: skip
    for name, factor, kernel, stride, padding, extra, dilation in axes:
        grown = dilation * (kernel - 1) + 1 + extra - 2 * padding
        if factor > 1 and grown != stride:
            raise ValueError(
                f"{type(conv).__name__} on octave axis {name}: the output must be stride {stride} times as large; "
                f"kernel {kernel}, padding {padding} and output_padding {extra} differ by {grown - stride}"
            )
