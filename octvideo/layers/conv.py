"""Octave convolution modules. Their parameters are those of the dense convolution, in name, shape and number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from octvideo.layers.functional import Geometry, Segments, is_depthwise, octave_conv
from octvideo.layers.pair import OctPair, check_alpha, low_channels, low_size, octave_factors


class _OctaveConv:
    """What the octave convolutions of every dimension add to torch's."""

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
        set_octave(self, alpha_in, alpha_out, octave)

    def forward(self, input: OctPair | Tensor) -> OctPair | Tensor:
        if isinstance(input, Tensor) and is_dense(self, input):
            return super().forward(input)  # type: ignore[misc]
        return convolve_pair(self, input)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {describe_octave(self)}"  # type: ignore[misc]


class OctConv2d(_OctaveConv, nn.Conv2d):  # type: ignore[misc]
    """`OctConv3d` for images: octaves over H and W."""


class OctConv3d(_OctaveConv, nn.Conv3d):  # type: ignore[misc]
    """Octave convolution over video (Chen et al. 2019, section 3.2): see `octave_conv` for what it computes.

    One weight tensor of the ordinary shape serves every alpha: high channels first, its four slices are the paths
    H->H, H->L, L->H and L->L. The state dict is that of `nn.Conv3d`, and alpha_in = alpha_out = 0 is `nn.Conv3d`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            as in `nn.Conv3d`. On an octave axis the padding must keep the size, and the stride be 1 or even.
        alpha_in: share of the input channels in the low part, in [0, 1]; 0 takes a tensor.
        alpha_out: share of the output channels in the low part, in [0, 1]; 0 returns a tensor.
        octave: "spatial" (the low part is half as high and wide; the paper's), "temporal" (half as many frames) or
            "spatiotemporal" (all three).

    Shape:
        `OctPair` of size (T, H, W) -> `OctPair` of size ceil(n / stride) on the octave axes, torch's formula on others.

    Raises:
        ValueError: for an alpha outside [0, 1], an unknown octave, a padding or stride that no octave can follow, or
            channels that the groups do not divide.

    Example:
        >>> import torch
        >>> conv = OctConv3d(8, 16, 3, padding=1, alpha_in=0, alpha_out=0.25)
        >>> pair = conv(torch.zeros(1, 8, 4, 9, 9))
        >>> pair.high.shape, pair.low.shape
        (torch.Size([1, 12, 4, 9, 9]), torch.Size([1, 4, 4, 5, 5]))
    """


OctConv = OctConv2d | OctConv3d
_OCTAVE_OF: dict[type[Any], type[OctConv]] = {nn.Conv2d: OctConv2d, nn.Conv3d: OctConv3d}


def dense_kind(module: nn.Module) -> type[nn.Module] | None:
    """`nn.Conv2d` or `nn.Conv3d` where a module is that convolution (a sub-class of it that computes the same, too)."""
    for kind in _OCTAVE_OF:
        if isinstance(module, kind) and type(module).forward is kind.forward:
            return kind
    return None


def octave_from_dense(
    conv: nn.Conv2d | nn.Conv3d,
    alpha_in: float,
    alpha_out: float,
    octave: str = "spatial",
    in_segments: Segments | None = None,
) -> OctConv:
    """Return the octave convolution that shares a dense one's weight and bias.

    Args:
        conv: the dense convolution; its parameters are used, not copied.
        alpha_in, alpha_out, octave: as in `OctConv3d`.
        in_segments: (high, low) channels of the concatenated maps that the input consists of; overrides alpha_in.

    Raises:
        ValueError: as `OctConv3d`.
    """
    kind = dense_kind(conv)
    if kind is None:
        raise ValueError(f"octave_from_dense takes nn.Conv2d or nn.Conv3d; got {type(conv).__name__}")
    new = _OCTAVE_OF[kind](
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        conv.bias is not None,
        conv.padding_mode,
        alpha_in=alpha_in,
        alpha_out=alpha_out,
        octave=octave,
        device="meta",
    )
    new.weight, new.bias = conv.weight, conv.bias
    new.train(conv.training)
    if in_segments is not None:
        _set_segments(new, in_segments)
    return new


def set_octave(conv: Any, alpha_in: float, alpha_out: float, octave: str) -> None:
    """Check and store the octave arguments of a convolution module."""
    check_alpha(alpha_in, "alpha_in")
    check_alpha(alpha_out, "alpha_out")
    conv.alpha_in, conv.alpha_out, conv.octave = alpha_in, alpha_out, octave
    conv.factors = octave_factors(octave, len(conv.kernel_size))
    conv.out_low = low_channels(conv.out_channels, alpha_out)
    conv.geometry = Geometry(conv.stride, padding_of(conv), conv.dilation, conv.groups, conv.padding_mode)
    low = low_channels(conv.in_channels, alpha_in)
    _set_segments(conv, ((conv.in_channels - low, low),))
    if alpha_in or alpha_out:
        reason = why_not_octave(conv, conv.factors) or _why_not_grouped(conv)
        if reason:
            raise ValueError(f"{type(conv).__name__} with alpha_in {alpha_in} and alpha_out {alpha_out}: {reason}")


def _set_segments(conv: Any, segments: Segments) -> None:
    if sum(map(sum, segments)) != conv.in_channels:
        raise ValueError(f"in_segments {segments} do not add up to the {conv.in_channels} input channels")
    conv.in_segments = segments
    conv.in_high, conv.in_low = (sum(part) for part in zip(*segments, strict=True))


def padding_of(conv: Any) -> tuple[int, ...]:
    """The padding in elements per axis; torch also allows the words "same" and "valid"."""
    if conv.padding == "valid":
        return (0,) * len(conv.kernel_size)
    if conv.padding == "same":  # an odd total, of an even kernel, would fall to one side: no octave can follow it
        return tuple(d * (k - 1) // 2 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
    return conv.padding


def why_not_octave(conv: Any, factors: Sequence[int]) -> str | None:
    """Say why a convolution cannot run on pairs, or return None where it can.

    On an octave axis the size must be kept at stride 1 (else the parts drift apart) and the stride be 1 or even.
    """
    axes = zip(
        "THW"[-len(factors) :], factors, conv.kernel_size, padding_of(conv), conv.dilation, conv.stride, strict=True
    )
    for name, factor, kernel, padding, dilation, stride in axes:
        if factor == 1:
            continue
        if dilation * (kernel - 1) != 2 * padding:
            return (
                f"on octave axis {name} kernel {kernel} with dilation {dilation} needs padding "
                f"{dilation * (kernel - 1) / 2:g} to keep the size; got {padding}"
            )
        if stride > 1 and stride % 2:
            return f"on octave axis {name} the stride must be 1 or even; got {stride}"
    return None


def _why_not_grouped(conv: Any) -> str | None:
    out_high = conv.out_channels - conv.out_low
    if is_depthwise(conv.weight, conv.groups):
        if out_high * conv.in_channels != conv.in_high * conv.out_channels:
            return f"a depthwise convolution keeps the split: {conv.in_high} high channels go in, {out_high} out"
        return None
    for name, count in (("in", conv.in_high), ("in", conv.in_low), ("out", out_high), ("out", conv.out_low)):
        if count % conv.groups:
            return f"groups {conv.groups} must divide each part's channels; {count} {name}put channels are in one part"
    return None


def is_dense(conv: Any, x: Tensor) -> bool:
    """True where the module is an ordinary convolution; raises a ValueError where it needs a pair, not a tensor."""
    if conv.in_low:
        raise ValueError(
            f"{type(conv).__name__} with alpha_in {conv.alpha_in} needs an octave pair of {conv.in_high} high and "
            f"{conv.in_low} low channels; got a tensor: octvideo.layers.split makes a pair of it"
        )
    return not conv.alpha_out


def convolve_pair(conv: Any, x: OctPair | Tensor) -> OctPair | Tensor:
    """Check the pair against the module and run `octave_conv`."""
    if isinstance(x, OctPair):
        check_pair(x, conv.in_high, conv.in_low, conv.factors)
    out = octave_conv(
        x,
        conv.weight,
        conv.bias,
        in_segments=conv.in_segments,
        out_low=conv.out_low,
        geometry=conv.geometry,
        factors=conv.factors,
    )
    if conv.alpha_out and isinstance(out, Tensor):  # an alpha too small for one low channel
        return OctPair(out, out.new_empty(out.shape[0], 0, *low_size(out.shape[2:], conv.factors)))
    return out


def check_pair(x: OctPair, high: int, low: int, factors: Sequence[int]) -> None:
    """Raise a ValueError that names the wrong part of a pair, what it has and what was expected."""
    for name, part, channels in (("high", x.high, high), ("low", x.low, low)):
        if part.dim() != len(factors) + 2 or part.shape[1] != channels:
            raise ValueError(
                f"the {name} part must be (N, {channels}, {', '.join('THW'[-len(factors) :])}); got {tuple(part.shape)}"
            )
    expected = low_size(x.high.shape[2:], factors)
    if tuple(x.low.shape[2:]) != expected:
        raise ValueError(
            f"the low part of a pair whose high part has size {tuple(x.high.shape[2:])} must have size {expected}; "
            f"got {tuple(x.low.shape[2:])}"
        )


def describe_octave(conv: Any) -> str:
    """The octave arguments as they appear in `print(model)`."""
    return f"alpha_in={conv.alpha_in:g}, alpha_out={conv.alpha_out:g}, octave={conv.octave}"
