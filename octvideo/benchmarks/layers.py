"""Where the octave layer pays: a convolution on a pair against its dense one, over kernels, channels and sizes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from octvideo.analysis import count_macs
from octvideo.analysis.timing import Progress, silent, time_in_turns
from octvideo.benchmarks.checks import check_at_least, check_choices, check_timing
from octvideo.benchmarks.networks import DTYPES, inference
from octvideo.layers import octave_from_dense, split
from octvideo.runtime import optimize
from octvideo.runtime.device import check_device
from octvideo.runtime.optimize import channels_last

LAYER_VARIANTS = ("eager", "fast")


def benchmark_layers(
    kernels: Sequence[str] = ("1x1x1", "3x1x1", "1x3x3", "3x3x3"),
    channels: Sequence[int] = (64, 128, 256),
    sizes: Sequence[str] = ("8x56x56", "8x28x28", "8x14x14", "8x7x7"),
    alpha: Sequence[float] = (0.125, 0.25, 0.5),
    octave: str = "spatial",
    variants: Sequence[str] = LAYER_VARIANTS,
    batch_size: int = 1,
    dtype: Literal["float32", "bfloat16"] = "float32",
    device: str = "cpu",
    threads: int = 1,
    rounds: int = 7,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Time single convolutions from pair to pair against the dense ones of the same shape, in turns.

    Args:
        kernels: sizes over T, H and W, odd, such as 1x3x3; the padding keeps the map's size.
        channels: of the input and of the output.
        sizes: of the map over T, H and W, such as 8x56x56.
        alpha: shares of low channels, of the input and of the output, above 0.
        octave: spatial, temporal or spatiotemporal.
        variants: "eager" is the layer as it is on contiguous memory, "fast" is what `octvideo.runtime.optimize` makes.
        batch_size: maps at a time.
        dtype: of maps and weights.
        device: cpu or cuda.
        threads: threads of the CPU.
        rounds: calls of each that are timed.
        progress: called as work goes on.

    Returns:
        One row for each kernel, number of channels, size, variant and alpha: times of the dense and of the octave
        layer, the ratios of time and of multiply-adds between them, and "pays", whether the octave layer is faster.

    Raises:
        ValueError: for a kernel or size that is not three numbers, an unknown variant or type, an alpha that is not
            above 0 and at most 1, a number that is too small, or a device that is not there.
    """
    check_variants(variants)
    check_choices("dtype", [dtype], DTYPES)
    check_at_least(1, channels=channels, batch_size=batch_size)
    check_timing(rounds, threads)
    _check_alphas(alpha)
    check_device(device)
    shapes = {text: three_numbers(text, "sizes") for text in sizes}
    reaches = {text: three_numbers(text, "kernels", odd=True) for text in kernels}
    torch.set_num_threads(threads)
    grid = list(itertools.product(kernels, channels, sizes))
    rows = []
    for done, (kernel, width, size) in enumerate(grid):
        case = _Case(reaches[kernel], width, shapes[size], octave, batch_size, getattr(torch, dtype), device)
        for row in _time_case(case, alpha, variants, rounds):
            rows.append({"kernel": kernel, "channels": width, "size": size, **row})
        progress("timing layers", done + 1, len(grid))
    return rows


def three_numbers(text: str, name: str, odd: bool = False) -> tuple[int, int, int]:
    """Sizes over T, H and W from words such as 8x56x56.

    Raises:
        ValueError: for any other text, naming the argument.
    """
    numbers = text.split("x")
    if len(numbers) != 3 or any(not n.isdecimal() or int(n) < 1 or (odd and int(n) % 2 == 0) for n in numbers):
        form = "odd numbers over T, H and W, such as 1x3x3" if odd else "numbers over T, H and W, such as 8x56x56"
        raise ValueError(f"{name} must be three {form}; got {text!r}")
    t, h, w = map(int, numbers)
    return t, h, w


def layer_call(variant: str, layer: nn.Module, x: Any) -> Callable[[], Any]:
    """A call of one layer without gradients: as it is, or made fast for maps in channels-last memory.

    Args:
        variant: one of `LAYER_VARIANTS`.
        layer: a convolution; it is not changed.
        x: its input, a map or a pair.
    """
    if variant == "fast":
        # Within a network on the fast path every map lies so already.
        x = channels_last(x)
        layer = optimize(nn.Sequential(layer), x)
    return inference(layer, x)


def _check_alphas(alpha: Sequence[float]) -> None:
    if any(not 0 < a <= 1 for a in alpha):
        raise ValueError(f"alpha must be above 0 and at most 1: each is timed against the dense layer; got {[*alpha]}")


def check_variants(variants: Sequence[str]) -> None:
    """Raise a ValueError for a variant that layers do not have."""
    check_choices("variants of a layer", variants, LAYER_VARIANTS)


@dataclass(frozen=True)
class _Case:
    """A convolution and its input, at any alpha."""

    kernel: tuple[int, int, int]
    channels: int
    size: tuple[int, int, int]
    octave: str
    batch_size: int
    dtype: torch.dtype
    device: str

    def layer(self, alpha: float) -> nn.Module:
        options: dict[str, Any] = {"padding": tuple(k // 2 for k in self.kernel), "bias": False}
        options |= {"device": self.device, "dtype": self.dtype}
        dense = nn.Conv3d(self.channels, self.channels, self.kernel, **options)
        return octave_from_dense(dense, alpha, alpha, self.octave) if alpha else dense

    def input(self, alpha: float) -> Any:
        x = torch.randn(self.batch_size, self.channels, *self.size, dtype=self.dtype, device=self.device)
        return tree_map(Tensor.contiguous, split(x, alpha, self.octave)) if alpha else x

    def macs(self, alpha: float) -> int:
        one = replace(self, batch_size=1, device="meta")
        return count_macs(one.layer(alpha), one.input(alpha)).macs


def _time_case(case: _Case, alphas: Sequence[float], variants: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    calls = {
        f"{variant} {alpha:g}": layer_call(variant, case.layer(alpha), case.input(alpha))
        for variant in variants
        for alpha in (0, *alphas)
    }
    times = time_in_turns(calls, device=case.device, rounds=rounds)
    rows = []
    for variant, alpha in itertools.product(variants, alphas):
        dense, octave = times[f"{variant} 0"], times[f"{variant} {alpha:g}"]
        macs_ratio = case.macs(alpha) / case.macs(0)
        time_ratio = octave.median_ms / dense.median_ms
        row = {"variant": variant, "alpha": alpha, "dense_ms": dense.median_ms, "dense_iqr_ms": dense.iqr_ms}
        row |= {"octave_ms": octave.median_ms, "octave_iqr_ms": octave.iqr_ms, "time_ratio": time_ratio}
        row |= {"macs_ratio": macs_ratio, "time_over_macs_ratio": time_ratio / macs_ratio, "pays": time_ratio < 1}
        rows.append(row)
    return rows
