"""Which octave convolutions of a network take longer than the dense ones that share their weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from octvideo.analysis import count_macs
from octvideo.analysis.macs import nested_tensors
from octvideo.analysis.timing import Progress, Timing, silent, time_in_turns
from octvideo.benchmarks.checks import check_alphas, check_at_least, check_timing, suiting
from octvideo.benchmarks.layers import check_variants, layer_call
from octvideo.benchmarks.networks import inference
from octvideo.convert import octavize
from octvideo.layers import OctConv1d, OctConv2d, OctConv3d, dense_from_octave, merge
from octvideo.layers.calls import call, evaluating
from octvideo.models import build_model
from octvideo.models.build import chosen_size, default_num_classes
from octvideo.runtime import optimize
from octvideo.runtime.device import check_device


@dataclass(frozen=True)
class LayerTime:
    """Time of an octave convolution, and of the dense one that shares its weights, on an input of one size.

    Args:
        names: the network's modules that are this convolution, once for each call of them; "" is the network itself.
        layer: channels, kernel, stride and size of the input.
        dense: one call on the dense map.
        octave: one call on what the network gives it, a pair or a map.
        macs_ratio: multiply-adds of the octave convolution over those of the dense one.
    """

    names: tuple[str, ...]
    layer: str
    dense: Timing
    octave: Timing
    macs_ratio: float

    @property
    def lost_ms(self) -> float:
        """What all calls take longer than dense ones, in milliseconds; negative where they gain."""
        return len(self.names) * (self.octave.median_ms - self.dense.median_ms)

    @property
    def time_ratio(self) -> float:
        """Time of the octave convolution over that of the dense one."""
        return self.octave.median_ms / self.dense.median_ms


def time_layers(
    network: nn.Module, inputs: Any, *, variant: str = "eager", rounds: int = 7, progress: Progress = silent
) -> list[LayerTime]:
    """Time each distinct octave convolution of a network against its dense one, in turns, without gradients.

    The network runs once to record what its convolutions are given. Equal convolutions on equal sizes are timed once.

    Args:
        network: an octave network.
        inputs: a tuple is passed as positional arguments, all else as the one argument.
        variant: "eager" is the layer as it is, "fast" is what `octvideo.runtime.optimize` makes of it.
        rounds: calls of each that are timed.
        progress: called as work goes on.

    Returns:
        The distinct convolutions in the order of their first use.

    Raises:
        ValueError: for an unknown variant or a network without octave convolutions.

    Example:
        >>> from octvideo.models import resnet3d_tiny
        >>> network = resnet3d_tiny(num_classes=8, alpha=0.25)
        >>> times = time_layers(network, torch.zeros(1, 3, 4, 24, 24), rounds=2)
        >>> set(slow_names(times)) <= set(dict(network.named_modules()))
        True
    """
    check_variants([variant])
    groups = _record(network, inputs)
    if not groups:
        raise ValueError(f"{type(network).__name__} has no octave convolutions: octavize it first")
    times = []
    for done, (names, conv, x) in enumerate(groups):
        times.append(_time_layer(tuple(names), conv, x, variant, rounds))
        progress("timing layers", done + 1, len(groups))
    return times


def slow_names(times: Iterable[LayerTime]) -> list[str]:
    """Names of the convolutions that take longer than dense ones, over all of their calls; for `keep_dense`."""
    lost: defaultdict[str, float] = defaultdict(float)
    for time in times:
        for name in time.names:
            lost[name] += time.lost_ms / len(time.names)
    return [name for name, ms in lost.items() if ms > 0]


def benchmark_slow_layers(
    model: str = "i3d_r50",
    alpha: Sequence[float] = (0.125,),
    octave: str = "spatial",
    variant: Literal["eager", "fast"] = "eager",
    batch_size: int = 1,
    num_frames: int | None = None,
    crop: Sequence[int] = (),
    device: str = "cpu",
    threads: int = 1,
    rounds: int = 7,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Time a network's octave convolutions against dense ones, and the network with the slow ones kept dense.

    Args:
        model: a builder's name.
        alpha: shares of low channels, above 0.
        octave: spatial, temporal or spatiotemporal.
        variant: "eager" is the network as it is, "fast" is what `octvideo.runtime.optimize` makes of it.
        batch_size: clips at a time.
        num_frames: frames of a clip; None is the network's own number.
        crop: one number, or height and width, in pixels; empty is the network's own.
        device: cpu or cuda.
        threads: threads of the CPU.
        rounds: calls of each that are timed.
        progress: called as work goes on.

    Returns:
        For each alpha one row per distinct convolution, and rows for whole networks, whose name is "": the octave one,
        and the one that `octavize` makes with `keep_dense` for the convolutions that take longer than dense ones.

    Raises:
        ValueError: for an unknown variant, an alpha that makes no octave layers, a number that is too small, a size of
            clips that the network cannot take, or a device that is not there.
    """
    check_variants([variant])
    check_at_least(1, batch_size=batch_size)
    check_timing(rounds, threads)
    check_alphas(alpha)
    check_device(device)
    torch.set_num_threads(threads)
    size = chosen_size(model, num_frames, crop)
    clips = torch.randn(batch_size, 3, *size, device=device)
    rows = []
    for one in alpha:
        network = _build(model, one, octave).to(device)
        with suiting(model, size):
            inference(network, clips[:1])()
        times = time_layers(network, clips, variant=variant, rounds=rounds, progress=progress)
        slow = set(slow_names(times))
        networks = {"dense": _build(model, 0, octave), "network": network}
        if slow:
            networks["network, slow layers dense"] = _with_dense(model, one, octave, network, slow)
        times += _time_networks(networks, clips, variant, rounds, progress)
        rows += [_row(one, time, slow) for time in times]
    return rows


def _record(network: nn.Module, inputs: Any) -> list[tuple[list[str], Any, Any]]:
    """(names, convolution, input) of each distinct octave convolution."""
    groups: dict[Any, tuple[list[str], Any, Any]] = {}
    convs = octave_convs(network)
    names = {conv: name for name, conv in convs.items()}

    def record(conv: Any, args: Any, kwargs: Any) -> None:
        x = tree_map(Tensor.detach, (*args, *kwargs.values())[0])  # a pair of its own: the network's may change
        shapes = tuple(tuple(part.shape) for part in nested_tensors(x))
        key = (repr(conv), conv.in_low, conv.out_segments, shapes, getattr(x, "segments", None))
        groups.setdefault(key, ([], conv, x))[0].append(names[conv])

    hooks = [conv.register_forward_pre_hook(record, with_kwargs=True) for conv in convs.values()]
    try:
        with evaluating(network), torch.no_grad():
            call(network, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return list(groups.values())


def octave_convs(network: nn.Module) -> dict[str, Any]:
    """The convolutions of a network that read or write low channels, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, OctConv1d | OctConv2d | OctConv3d) and (module.alpha_in or module.alpha_out)
    }


def _time_layer(names: tuple[str, ...], conv: Any, x: Any, variant: str, rounds: int) -> LayerTime:
    dense, dense_x = dense_from_octave(conv), merge(x)
    calls = {"dense": layer_call(variant, dense, dense_x), "octave": layer_call(variant, conv, x)}
    times = time_in_turns(calls, device=dense_x.device, rounds=rounds)
    one_x, one_dense_x = (tree_map(lambda part: part[:1], each) for each in (x, dense_x))
    macs_ratio = count_macs(conv, one_x).macs / count_macs(dense, one_dense_x).macs
    return LayerTime(names, _describe(conv, dense_x), times["dense"], times["octave"], macs_ratio)


def _describe(conv: Any, x: Tensor) -> str:
    kernel, stride, size = ("x".join(map(str, sizes)) for sizes in (conv.kernel_size, conv.stride, x.shape[2:]))
    moves = f" stride {stride}" if any(s != 1 for s in conv.stride) else ""
    groups = f" groups {conv.groups}" if conv.groups > 1 else ""
    return f"{conv.in_channels}->{conv.out_channels} {kernel}{moves}{groups} on {size}"


def _build(model: str, alpha: float, octave: str) -> nn.Module:
    return build_model(model, num_classes=default_num_classes(model), alpha=alpha, octave=octave).eval()


def _with_dense(model: str, alpha: float, octave: str, network: nn.Module, slow: set[str]) -> nn.Module:
    """The octave network with the output of some convolutions kept dense; also of those that its builder keeps so."""
    writes_low = {name for name, conv in octave_convs(network).items() if conv.alpha_out} - slow
    dense = _build(model, 0, octave)
    if not writes_low:
        return dense
    return octavize(dense, alpha, octave, keep_dense=lambda name, conv: name not in writes_low)


def _time_networks(
    networks: dict[str, nn.Module], clips: Tensor, variant: str, rounds: int, progress: Progress
) -> list[LayerTime]:
    """Whole networks against the dense one."""
    calls, macs = {}, {}
    for name, network in networks.items():
        network.to(clips.device)
        macs[name] = count_macs(network, clips[:1]).macs
        calls[name] = inference(optimize(network, clips) if variant == "fast" else network, clips)
    times = time_in_turns(calls, device=clips.device, rounds=rounds, progress=progress)
    return [
        LayerTime(("",), name, times["dense"], times[name], macs[name] / macs["dense"])
        for name in networks
        if name != "dense"
    ]


def _row(alpha: float, time: LayerTime, slow: set[str]) -> dict[str, Any]:
    row = {"alpha": alpha, "layer": time.layer, "names": list(time.names)}
    row |= {"slow_names": sorted(slow.intersection(time.names))}
    row |= {"dense_ms": time.dense.median_ms, "dense_iqr_ms": time.dense.iqr_ms}
    row |= {"octave_ms": time.octave.median_ms, "octave_iqr_ms": time.octave.iqr_ms}
    return row | {"time_ratio": time.time_ratio, "macs_ratio": time.macs_ratio, "lost_ms": time.lost_ms}
