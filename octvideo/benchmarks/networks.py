"""Time and memory against multiply-adds: a network at several alphas, as it is and on the fast path."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from octvideo.analysis import count_macs, published_figures
from octvideo.analysis.timing import Progress, silent, time_in_turns
from octvideo.benchmarks.checks import check_alphas, check_at_least, check_choices, check_timing, suiting
from octvideo.benchmarks.training import peak_bytes, training_step
from octvideo.layers import recompute_pooled, to_channels_last
from octvideo.layers.calls import call
from octvideo.models import build_model
from octvideo.models.build import chosen_size, default_num_classes
from octvideo.runtime import keep_freed_memory, optimize
from octvideo.runtime.device import check_device
from octvideo.runtime.optimize import channels_last
from octvideo.runtime.work import count_work

PEERS = ("peer", "peer_compiled")
VARIANTS = ("eager", "channels_last", "fast", "lean", "compiled", *PEERS)
STEPS = ("inference", "training")
DTYPES = ("float32", "bfloat16")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")

Call = Callable[[], Any]


def benchmark_networks(
    model: str = "i3d_r50",
    alpha: Sequence[float] = (0.125, 0.25, 0.5),
    octave: str = "spatial",
    step: Literal["inference", "training"] = "inference",
    variants: Sequence[str] = ("eager", "fast"),
    batch_size: int = 1,
    num_frames: int | None = None,
    crop: Sequence[int] = (),
    dtype: Literal["float32", "bfloat16"] = "float32",
    device: str = "cpu",
    threads: int = 1,
    compile_mode: str = "default",
    rounds: int = 7,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Time a network over alphas, in turns.

    Args:
        model: a builder's name.
        alpha: shares of low channels; 0, the dense network, is always there.
        octave: spatial, temporal or spatiotemporal.
        step: inference, or training, which is forward, cross-entropy, backward and SGD.
        variants: "eager" is the network as it is. For inference "channels_last" is the same in channels-last memory
            (`octvideo.layers.to_channels_last`), "fast" and "compiled" are the fast path, what
            `octvideo.runtime.optimize` makes. Training has no fast path: there "fast" is channels-last memory, with
            bfloat16 by autocast, "lean" pools again in the backward pass as well (`octvideo.layers.recompute_pooled`),
            and "compiled" is "fast" after torch.compile. "peer" and "peer_compiled" are octvideo's own dense network
            (alpha 0), which has PyTorchVideo's or torchvision's layers and results, as it is and after torch.compile,
            bfloat16 by autocast; `benchmark_peers` times the other packages themselves.
        batch_size: clips at a time.
        num_frames: frames of a clip; None is the network's own number.
        crop: one number, or height and width, in pixels; empty is the network's own.
        dtype: of all variants but eager and channels_last, which are float32.
        device: cpu or cuda.
        threads: threads of the CPU.
        compile_mode: torch.compile's, of compiled training steps and peers: default, reduce-overhead (with CUDA
            graphs), max-autotune or max-autotune-no-cudagraphs.
        rounds: passes of each that are timed.
        progress: called as work goes on.

    Returns:
        One row for each variant and alpha: its time, and the ratios of time and multiply-adds to the dense network of
        the same variant; of fast networks on a CPU also the multiply-adds that instructions execute and the bytes of
        maps (`octvideo.runtime.work.Work`), which it follows. Of a training step also its peak memory beyond
        weights, optimizer state and clips (see `octvideo.benchmarks.training.peak_bytes`) and the ratio of that.

    Raises:
        ValueError: for an unknown step, variant, type or mode, a number that is too small, an alpha outside [0, 1], a
            size of clips that the network cannot take, or a GPU that is not there.
    """
    _check_variants(step, variants)
    check_choices("dtype", [dtype], DTYPES)
    check_choices("compile_mode", [compile_mode], COMPILE_MODES)
    check_at_least(1, batch_size=batch_size)
    check_timing(rounds, threads)
    check_alphas(alpha)
    check_device(device)
    torch.set_num_threads(threads)
    keep_freed_memory()  # for all variants alike
    size = chosen_size(model, num_frames, crop)
    clips = torch.randn(batch_size, 3, *size, device=device)
    alphas = list(dict.fromkeys([0.0, *alpha]))
    calls: dict[tuple[str, float], Call] = {}
    counted: dict[tuple[str, float], dict[str, float]] = {}
    for done, one in enumerate(alphas):
        network = _network(model, one, octave).to(device)
        with suiting(model, size):
            gmacs = count_macs(network, clips[:1]).gmacs
        for variant in variants:
            if one and variant in PEERS:
                continue
            given = variant, network, clips, getattr(torch, dtype), compile_mode
            counted[variant, one] = {"gmacs_per_view": gmacs}
            if step == "inference":
                form = _inference_form(*given)
                calls[variant, one] = inference(*form)
                if variant == "fast":
                    counted[variant, one] |= _work_per_view(*form)
            else:
                calls[variant, one] = _training(*given, num_classes=default_num_classes(model))
                with suiting(model, size):  # batch norms refuse what a network takes without training
                    calls[variant, one]()
        progress("building", done + 1, len(alphas))
    # The C library finds places for a training step's many maps only after some steps; until then it asks for more.
    warmup = 3 if step == "training" else 1
    by_name = {f"{variant} {one:.12g}": run for (variant, one), run in calls.items()}
    times = time_in_turns(by_name, device=device, rounds=rounds, warmup=warmup, progress=progress)
    rows = []
    for (variant, one), name in zip(calls, by_name, strict=True):
        rows.append({"variant": variant, "alpha": one, **counted[variant, one], **vars(times[name])})
        if step == "training":
            rows[-1]["peak_memory_mb"] = peak_bytes(by_name[name], torch.device(device)) / 1e6
    return [_with_ratios(row, rows, octave) for row in rows]


def _check_variants(step: str, variants: Sequence[str]) -> None:
    check_choices("step", [step], STEPS)
    check_choices("variants", variants, VARIANTS)
    if step == "inference" and "lean" in variants:
        raise ValueError("variant lean is for step training: inference keeps nothing for a backward pass")
    if step == "training" and "channels_last" in variants:
        raise ValueError("variant channels_last is for step inference: a training step has that in variant fast")


def inference(network: nn.Module, inputs: Any) -> Callable[[], Any]:
    """A call of a network in evaluation mode, without gradients; a tuple is passed as positional arguments."""
    network.eval()

    def run() -> Any:
        with torch.no_grad():
            return call(network, inputs)

    return run


def _network(model: str, alpha: float, octave: str) -> nn.Module:
    torch.manual_seed(0)
    return awake(build_model(model, num_classes=default_num_classes(model), alpha=alpha, octave=octave))


def awake(network: nn.Module) -> nn.Module:
    """Put a network in evaluation mode, no block silent: PyTorchVideo starts the last norm of a block with 0."""
    for module in network.eval().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.ones_(module.weight)
    return network


def _inference_form(
    variant: str, network: nn.Module, clips: Tensor, dtype: torch.dtype, compile_mode: str
) -> tuple[nn.Module, Tensor]:
    if variant == "eager":
        return network, clips
    if variant == "channels_last":
        return _in_channels_last(copy.deepcopy(network), clips)
    if variant in PEERS:
        return _peer(variant, network, clips.device, dtype, compile_mode), clips
    return optimize(network, clips, dtype=dtype, compile=variant == "compiled"), clips


def _work_per_view(network: nn.Module, clips: Tensor) -> dict[str, float]:
    """What a fast network has to do beside its multiply-adds, where octvideo's kernel does all of it."""
    work = count_work(network, clips)
    if work is None:
        return {}
    views = len(clips)
    return {
        "executed_gmacs_per_view": work.executed_macs / views / 1e9,
        "map_mb_per_view": work.map_bytes / views / 1e6,
    }


def _training(
    variant: str, network: nn.Module, clips: Tensor, dtype: torch.dtype, compile_mode: str, num_classes: int
) -> Call:
    network = copy.deepcopy(network)
    if variant in ("fast", "lean", "compiled"):
        network, clips = _in_channels_last(network, clips)
    if variant == "lean":
        recompute_pooled(network)
    if variant in ("compiled", "peer_compiled"):
        network = torch.compile(network, dynamic=False, mode=compile_mode)  # type: ignore[assignment]
    return training_step(network, clips, num_classes, torch.float32 if variant == "eager" else dtype)


def _in_channels_last(network: nn.Module, clips: Tensor) -> tuple[nn.Module, Tensor]:
    return to_channels_last(network), channels_last(clips)


class _Autocast(nn.Module):
    """A network under autocast."""

    def __init__(self, network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.device, self.dtype = network, device, dtype

    def forward(self, clips: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.network(clips)


def _peer(variant: str, network: nn.Module, device: torch.device, dtype: torch.dtype, compile_mode: str) -> nn.Module:
    compiled = torch.compile(network, dynamic=False, mode=compile_mode) if variant == "peer_compiled" else network
    return _Autocast(compiled, device, dtype)  # type: ignore[arg-type]


def _with_ratios(row: dict[str, Any], rows: Sequence[dict[str, Any]], octave: str) -> dict[str, Any]:
    """Time, multiply-adds and memory against the dense network of that variant; time against the eager dense one."""
    dense = next(r for r in rows if r["variant"] == row["variant"] and r["alpha"] == 0)
    eager = next((r for r in rows if r["variant"] == "eager" and r["alpha"] == 0), None)
    ratios = {
        "time_ratio": row["median_ms"] / dense["median_ms"],
        "min_time_ratio": row["min_ms"] / dense["min_ms"],
        "macs_ratio": row["gmacs_per_view"] / dense["gmacs_per_view"],
        "speedup_over_eager_dense": eager["median_ms"] / row["median_ms"] if eager else None,
    }
    ratios["time_over_macs_ratio"] = ratios["time_ratio"] / ratios["macs_ratio"]
    if "map_mb_per_view" in row and "map_mb_per_view" in dense:
        ratios["executed_macs_ratio"] = row["executed_gmacs_per_view"] / dense["executed_gmacs_per_view"]
        ratios["map_bytes_ratio"] = row["map_mb_per_view"] / dense["map_mb_per_view"]
    if "peak_memory_mb" in row:
        ratios["memory_ratio"] = row["peak_memory_mb"] / dense["peak_memory_mb"]
        ratios["paper_memory_ratio"] = _paper_memory_ratio(row["alpha"], octave)
    return row | ratios


def _paper_memory_ratio(alpha: float, octave: str) -> float | None:
    """Memory of one layer against a dense one's as table 1 of the paper prints it; None where it does not."""
    layer = published_figures()["layer"]
    printed = dict(zip(layer["alpha"], layer["memory_percent"], strict=True)) if octave == "spatial" else {}
    return printed[alpha] / 100 if alpha in printed else None
