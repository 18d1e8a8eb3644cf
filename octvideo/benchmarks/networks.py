"""Time against multiply-adds: a network at several alphas, as it is and on the fast path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from octvideo.analysis import count_macs
from octvideo.analysis.macs import forward
from octvideo.analysis.timing import Progress, silent, time_in_turns
from octvideo.models import build_model
from octvideo.models.build import chosen_size, default_num_classes
from octvideo.runtime import optimize

VARIANTS = ("eager", "fast", "compiled")
STEPS = ("inference",)


def benchmark_networks(
    model: str = "i3d_r50",
    alpha: Sequence[float] = (0.125, 0.25, 0.5),
    octave: str = "spatial",
    step: Literal["inference"] = "inference",
    variants: Sequence[str] = ("eager", "fast"),
    batch_size: int = 1,
    num_frames: int | None = None,
    crop: Sequence[int] = (),
    dtype: Literal["float32", "bfloat16"] = "float32",
    device: str = "cpu",
    threads: int = 1,
    rounds: int = 7,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Time a network over alphas, in turns.

    Args:
        model: a builder's name.
        alpha: shares of low channels; 0, the dense network, is always there.
        octave: spatial, temporal or spatiotemporal.
        step: what is timed.
        variants: "eager" is the network as it is, "fast" and "compiled" are what `octvideo.runtime.optimize` makes.
        batch_size: clips at a time.
        num_frames: frames of a clip; None is the network's own number.
        crop: one number, or height and width, in pixels; empty is the network's own.
        dtype: of the fast variants; eager is float32.
        device: cpu or cuda.
        threads: threads of the CPU.
        rounds: passes of each that are timed.
        progress: called as work goes on.

    Returns:
        One row for each variant and alpha: its time, and the ratios of time and multiply-adds to the dense network of
        the same variant.

    Raises:
        ValueError: for an unknown variant, or a batch size or number of threads below 1.
    """
    unknown = set(variants) - set(VARIANTS)
    if unknown or batch_size < 1 or threads < 1:
        raise ValueError(
            f"variants must be of {', '.join(VARIANTS)}, batch_size and threads 1 or more; "
            f"got {list(variants)}, {batch_size} and {threads}"
        )
    torch.set_num_threads(threads)
    clips = torch.randn(batch_size, 3, *chosen_size(model, num_frames, crop), device=device)
    alphas = list(dict.fromkeys([0.0, *alpha]))
    calls: dict[str, Callable[[], Any]] = {}
    rows = []
    for done, one in enumerate(alphas):
        network = _network(model, one, octave).to(device)
        gmacs = count_macs(network, clips[:1]).gmacs
        for variant in variants:
            calls[f"{variant} {one:g}"] = inference(_variant(variant, network, clips, dtype), clips)
            rows.append({"variant": variant, "alpha": one, "gmacs_per_view": gmacs})
        progress("building", done + 1, len(alphas))
    times = time_in_turns(calls, device=device, rounds=rounds, progress=progress)
    for row in rows:
        row |= vars(times[f"{row['variant']} {row['alpha']:g}"])
    return [_with_ratios(row, rows) for row in rows]


def inference(network: nn.Module, inputs: Any) -> Callable[[], Any]:
    """A call of a network in evaluation mode, without gradients; a tuple is passed as positional arguments."""
    network.eval()

    def call() -> Any:
        with torch.no_grad():
            return forward(network, inputs)

    return call


def _network(model: str, alpha: float, octave: str) -> nn.Module:
    torch.manual_seed(0)
    return awake(build_model(model, num_classes=default_num_classes(model), alpha=alpha, octave=octave))


def awake(network: nn.Module) -> nn.Module:
    """Put a network in evaluation mode, no block silent: PyTorchVideo starts the last norm of a block with 0."""
    for module in network.eval().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.ones_(module.weight)
    return network


def _variant(variant: str, network: nn.Module, clips: Tensor, dtype: str) -> nn.Module:
    if variant == "eager":
        return network
    return optimize(network, clips, dtype=getattr(torch, dtype), compile=variant == "compiled")


def _with_ratios(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Time and multiply-adds against the dense network of the same variant, and time against the eager dense one."""
    dense = next(r for r in rows if r["variant"] == row["variant"] and r["alpha"] == 0)
    eager = next((r for r in rows if r["variant"] == "eager" and r["alpha"] == 0), None)
    ratios = {
        "time_ratio": row["median_ms"] / dense["median_ms"],
        "macs_ratio": row["gmacs_per_view"] / dense["gmacs_per_view"],
        "speedup_over_eager_dense": eager["median_ms"] / row["median_ms"] if eager else None,
    }
    return row | ratios | {"time_over_macs_ratio": ratios["time_ratio"] / ratios["macs_ratio"]}
