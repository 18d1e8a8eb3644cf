"""Octave convolution modules. Their parameters are those of the dense convolution, in name, shape and number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from octvideo.layers.channels import HIGH, LOW, Segments, count, even_segments
from octvideo.layers.functional import DOWN_SAMPLINGS, EXCHANGES, Geometry, octave_conv
from octvideo.layers.lowering import conv3d, in_channels_last
from octvideo.layers.pair import OctPair, check_pair, empty_low
from octvideo.layers.replace import with_class
from octvideo.layers.resize import check_alpha, low_channels, octave_factors


class _OctaveConv:
    """What the octave convolutions of every dimension add to torch's."""

    recompute_pooled = False  # see `octvideo.layers.recompute_pooled`
    lays_channels_last = False  # see `octvideo.layers.lay_channels_last`

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        *args: Any,
        alpha_in: float,
        alpha_out: float,
        octave: str = "spatial",
        down_sampling: str = "average",
        exchange: str = "both",
        in_low: int | None = None,
        out_segments: Segments | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, *args, **kwargs)  # type: ignore[call-arg]
        set_octave(self, alpha_in, alpha_out, octave, in_low, out_segments)
        set_paths(self, down_sampling, exchange)

    @property
    def geometry(self) -> Geometry:
        """How the convolution moves, from its own attributes."""
        conv: Any = self
        return Geometry(conv.stride, padding_of(conv), conv.dilation, conv.groups, conv.padding_mode)

    def forward(self, input: OctPair | Tensor) -> OctPair | Tensor:
        if isinstance(input, Tensor):
            check_takes_tensor(self)
            if not self.alpha_out:  # type: ignore[attr-defined]
                return super().forward(input)  # type: ignore[misc]
        return convolve(self, input)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {describe_octave(self)}"  # type: ignore[misc]


class OctConv1d(_OctaveConv, nn.Conv1d):  # type: ignore[misc]
    """`OctConv3d` for sequences (N, C, T), whose only octave is the temporal one."""

    def __init__(self, *args: Any, octave: str = "temporal", **kwargs: Any) -> None:
        super().__init__(*args, octave=octave, **kwargs)


class OctConv2d(_OctaveConv, nn.Conv2d):  # type: ignore[misc]
    """`OctConv3d` for images (N, C, H, W): octaves over H and W."""


class OctConv3d(_OctaveConv, nn.Conv3d):  # type: ignore[misc]
    """Octave convolution over video (Chen et al. 2019, section 3.2): see `octave_conv` for what it computes.

    One weight tensor of the ordinary shape serves every alpha: high channels first, its four slices are the paths
    H->H, H->L, L->H and L->L. The state dict is that of `nn.Conv3d`, and alpha_in = alpha_out = 0 is `nn.Conv3d`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            as in `nn.Conv3d`. On an octave axis the stride must be 1 or even. With groups all four paths are grouped;
            a depthwise convolution (groups = in_channels) exchanges nothing.
        alpha_in: share of the input channels in the low part, in [0, 1]; 0 takes a tensor.
        alpha_out: share of the output channels in the low part, in [0, 1]; 0 returns a tensor.
        octave: "spatial" (the low part is half as high and wide; the paper's), "temporal" (half as many frames) or
            "spatiotemporal" (all three).
        down_sampling: "average" pools before the convolution (the paper's choice), "strided" strides in it.
        exchange: which paths between the parts run: "both", "high_to_low", "low_to_high" or "none".
        in_low: number of low input channels where it is not floor(alpha_in C), as after a concatenation.
        out_segments: (high, low) channel counts of the output, run after run; None for the high ones before the low.

    Shape:
        `OctPair` of size (T, H, W) -> `OctPair`, the high part of the size that `nn.Conv3d` gives.

    Raises:
        ValueError: for an alpha outside [0, 1], an unknown octave, down_sampling or exchange, a stride that no octave
            can follow, channels that the groups do not divide, or a part of the output that no path reaches.

    Example:
        >>> import torch
        >>> conv = OctConv3d(8, 16, 3, padding=1, alpha_in=0, alpha_out=0.25)
        >>> pair = conv(torch.zeros(1, 8, 4, 9, 9))
        >>> pair.high.shape, pair.low.shape
        (torch.Size([1, 12, 4, 9, 9]), torch.Size([1, 4, 4, 5, 5]))
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode != "zeros" or isinstance(self.padding, str) or input.dim() != 5:
            return super()._conv_forward(input, weight, bias)
        return conv3d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)


OctConv = OctConv1d | OctConv2d | OctConv3d
_OCTAVE_OF: dict[type[Any], type[OctConv]] = {nn.Conv1d: OctConv1d, nn.Conv2d: OctConv2d, nn.Conv3d: OctConv3d}


_OCTAVE_ATTRIBUTES = (
    "alpha_in", "alpha_out", "octave", "factors", "in_low", "in_high", "out_segments", "down_sampling", "exchange",
    "dense_class", "recompute_pooled", "lays_channels_last",
)  # fmt: skip


def dense_kind(module: nn.Module) -> type[nn.Module] | None:
    """`nn.Conv1d`, `2d` or `3d` where a module is that convolution: it or a sub-class that computes the same.

    One whose weight is computed from other parameters (`torch.nn.utils.parametrizations`) is none.
    """
    if hasattr(module, "parametrizations") or "forward" in vars(module) or isinstance(module, LazyModuleMixin):
        return None
    for kind in _OCTAVE_OF:
        if isinstance(module, kind) and all(
            getattr(type(module), name) is getattr(kind, name) for name in ("forward", "_conv_forward")
        ):
            return kind
    return None


def octave_from_dense(
    conv: nn.Conv1d | nn.Conv2d | nn.Conv3d,
    alpha_in: float,
    alpha_out: float,
    octave: str = "spatial",
    *,
    in_low: int | None = None,
    out_segments: Segments | None = None,
    down_sampling: str = "average",
    exchange: str = "both",
) -> OctConv:
    """Return the octave convolution that shares a dense one's weight and bias.

    A grouped one keeps the dense meaning only where every group has high and low channels of its own: pass
    `out_segments=even_segments(C_out, low, groups)`, and pairs of such segments, as `octavize` does.

    Args:
        conv: the dense convolution; its parameters are used, not copied.
        alpha_in, alpha_out, octave, down_sampling, exchange: as in `OctConv3d`.
        in_low, out_segments: as in `OctConv3d`.

    Raises:
        ValueError: as `OctConv3d`.
    """
    kind = dense_kind(conv)
    if kind is None:
        raise ValueError(f"octave_from_dense takes nn.Conv1d, nn.Conv2d or nn.Conv3d; got {type(conv).__name__}")
    new: Any = with_class(conv, _OCTAVE_OF[kind])
    new.dense_class = type(conv)
    set_octave(new, alpha_in, alpha_out, octave, in_low, out_segments)
    set_paths(new, down_sampling, exchange)
    return new


def dense_from_octave(conv: OctConv) -> nn.Module:
    """Return the dense convolution that shares an octave one's weight and bias, of the class that it was made of."""
    kind = next(dense for dense, octave in _OCTAVE_OF.items() if isinstance(conv, octave))
    new = with_class(conv, getattr(conv, "dense_class", kind))
    for name in _OCTAVE_ATTRIBUTES:
        new.__dict__.pop(name, None)
    return new


def set_octave(
    conv: Any, alpha_in: float, alpha_out: float, octave: str, in_low: int | None, out_segments: Segments | None
) -> None:
    """Check and store what every octave convolution module knows of its channels."""
    check_alpha(alpha_in, "alpha_in")
    check_alpha(alpha_out, "alpha_out")
    conv.alpha_in, conv.alpha_out, conv.octave = alpha_in, alpha_out, octave
    conv.factors = octave_factors(octave, len(conv.kernel_size))
    conv.in_low = low_channels(conv.in_channels, alpha_in) if in_low is None else in_low
    if not 0 <= conv.in_low <= conv.in_channels:
        raise ValueError(f"in_low must be from 0 to the {conv.in_channels} input channels; got {in_low}")
    conv.in_high = conv.in_channels - conv.in_low
    out_low = low_channels(conv.out_channels, alpha_out)
    conv.out_segments = out_segments or ((conv.out_channels - out_low, out_low),)
    if sum(map(sum, conv.out_segments)) != conv.out_channels or min(map(min, conv.out_segments)) < 0:
        raise ValueError(f"out_segments {conv.out_segments} do not add up to {conv.out_channels} output channels")


def set_paths(conv: Any, down_sampling: str, exchange: str) -> None:
    """Check and store how a convolution's paths run.

    Raises:
        ValueError: for an unknown option, and for what no octave can follow.
    """
    for name, given, known in (("down_sampling", down_sampling, DOWN_SAMPLINGS), ("exchange", exchange, EXCHANGES)):
        if given not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {given!r}")
    conv.down_sampling, conv.exchange = down_sampling, exchange
    if conv.alpha_in or conv.alpha_out:
        reason = octave_error(conv, conv.factors) or group_error(conv) or _reach_error(conv)
        if reason:
            alphas = f"alpha_in {conv.alpha_in} and alpha_out {conv.alpha_out}"
            raise ValueError(f"{type(conv).__name__} with {alphas}: {reason}")


def padding_of(conv: Any) -> tuple[tuple[int, int], ...]:
    """The padding in elements per axis, before and after; torch also allows the words "same" and "valid"."""
    if conv.padding == "valid":
        return ((0, 0),) * len(conv.kernel_size)
    if conv.padding == "same":
        reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        return tuple((r // 2, r - r // 2) for r in reach)
    return tuple((p, p) for p in conv.padding)


def octave_error(conv: Any, factors: Sequence[int]) -> str | None:
    """Say why a convolution cannot run on pairs, or return None where it can."""
    for name, factor, stride in zip("THW"[-len(factors) :], factors, conv.stride, strict=True):
        if stride < 1 or (factor > 1 and stride > 1 and stride % 2):
            return f"on octave axis {name} the stride must be 1 or even; got {stride}"
    return None


def group_error(conv: Any) -> str | None:
    """Say why a convolution's groups do not fit its parts, or return None where they do."""
    out_low = count(conv.out_segments, LOW)
    if has_own_filters(conv):
        out_high = count(conv.out_segments, HIGH)
        if out_high * conv.in_channels != conv.in_high * conv.out_channels:
            return f"a depthwise convolution keeps the split: {conv.in_high} high channels go in, {out_high} out"
        return None
    try:
        even_segments(conv.in_channels, conv.in_low, conv.groups)
        even_segments(conv.out_channels, out_low, conv.groups)
    except ValueError as error:
        return str(error)
    return None


def has_own_filters(conv: Any) -> bool:
    """`is_depthwise` of a module, transposed or not: every input channel is a group."""
    return conv.groups > 1 and conv.groups == conv.in_channels


def _reach_error(conv: Any) -> str | None:
    """A part of the output must be reached by some path."""
    out = {"high": count(conv.out_segments, HIGH), "low": count(conv.out_segments, LOW)}
    if out["low"] and not conv.in_low and conv.exchange not in ("both", "high_to_low"):
        return f"exchange {conv.exchange!r} leaves the low output without an input: use 'both' or 'high_to_low'"
    if out["high"] and not conv.in_high and conv.exchange not in ("both", "low_to_high"):
        return f"exchange {conv.exchange!r} leaves the high output without an input: use 'both' or 'low_to_high'"
    return None


def check_takes_tensor(conv: Any) -> None:
    """Raise a ValueError where the module needs a pair, not a tensor."""
    if conv.in_low:
        raise ValueError(
            f"{type(conv).__name__} with alpha_in {conv.alpha_in} needs an octave pair of {conv.in_high} high and "
            f"{conv.in_low} low channels; got a tensor: octvideo.layers.split makes a pair of it"
        )


def convolve(conv: Any, x: OctPair | Tensor) -> OctPair | Tensor:
    """Check the input against the module and run `octave_conv`."""
    if isinstance(x, OctPair):
        check_pair(x, conv.in_high, conv.in_low, conv.factors)
    elif x.dim() != len(conv.factors) + 2 or x.shape[1] != conv.in_channels:
        axes = ", ".join("THW"[-len(conv.factors) :])
        raise ValueError(f"the input must be (N, {conv.in_channels}, {axes}); got {tuple(x.shape)}")
    if conv.lays_channels_last:
        laid = partial(in_channels_last, kernel=conv.kernel_size)
        x = x.map(laid) if isinstance(x, OctPair) else laid(x)
    out = octave_conv(
        x,
        conv.weight,
        conv.bias,
        out_segments=conv.out_segments,
        geometry=conv.geometry,
        factors=conv.factors,
        down_sampling=conv.down_sampling,
        exchange=conv.exchange,
        recompute_pooled=conv.recompute_pooled and conv.training,
    )
    # An alpha too small for one low channel still gives a pair.
    return empty_low(out, conv.factors) if conv.alpha_out and isinstance(out, Tensor) else out


def describe_octave(conv: Any) -> str:
    """The octave arguments as they appear in `print(model)`."""
    text = f"alpha_in={conv.alpha_in:g}, alpha_out={conv.alpha_out:g}, octave={conv.octave}"
    for name, usual in (("down_sampling", "average"), ("exchange", "both")):
        if getattr(conv, name, usual) != usual:
            text += f", {name}={getattr(conv, name)}"
    return text
