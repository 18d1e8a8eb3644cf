"""octvideo's networks and layer beside the peers', in one run."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pytorchvideo.models import hub
from torch import Tensor, nn
from torchvision.models import video

from octvideo.analysis import count_macs
from octvideo.analysis.timing import Progress, silent, time_in_turns
from octvideo.benchmarks.checks import check_alphas, check_choices, check_timing
from octvideo.benchmarks.networks import awake, inference
from octvideo.layers import OctConv2d, split
from octvideo.models import build_model
from octvideo.models.build import view_size
from octvideo.runtime import optimize

NETWORKS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "c2d_r50": ("PyTorchVideo", lambda: hub.c2d_r50()),
    "i3d_r50": ("PyTorchVideo", lambda: hub.i3d_r50()),
    "slowfast_r50_8x8": ("PyTorchVideo", lambda: hub.slowfast_r50()),
    "r3d_18": ("torchvision", lambda: video.r3d_18()),
}
"""Network of ours -> whose it is, and their builder."""
LAYER = "layer"
LAYER_CHANNELS, LAYER_SIZE = 64, (112, 112)
_WAYS: dict[str, Callable[[nn.Module, Any], nn.Module]] = {
    "eager": lambda network, x: network,
    "compiled": lambda network, x: torch.compile(network, dynamic=False),  # type: ignore[dict-item,return-value]
    "fast": optimize,
    "fast, compiled": lambda network, x: optimize(network, x, compile=True),
}


@dataclass
class _Entry:
    """One network or layer in one form; a text in its place says why it is not there."""

    what: str
    by: str
    alpha: float
    variant: str
    network: nn.Module | str
    input: Any


def benchmark_peers(
    networks: Sequence[str] = ("i3d_r50", "slowfast_r50_8x8", "r3d_18", "layer"),
    alpha: Sequence[float] = (0.25, 0.5),
    compiled: bool = True,
    threads: int = 1,
    rounds: int = 7,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Time PyTorchVideo's and torchvision's networks and PyPI's octconv layer beside octvideo's, one clip in float32.

    Args:
        networks: of c2d_r50, i3d_r50, slowfast_r50_8x8, r3d_18, and "layer": a 2-D convolution 3 x 3 of 64 channels on
            a map of 112 x 112, by torch, by the octconv package (where it is installed) and by octvideo.
        alpha: shares of low channels of octvideo's networks, beside 0.
        compiled: time compiled forms, too; each takes a minute or more to compile.
        threads: threads of the CPU.
        rounds: passes of each that are timed.
        progress: called as work goes on.

    Returns:
        One row for each network, maker, alpha and form. Its speed-up is over the peer's dense network as it is. A form
        that fails has no time, and a reason.

    Raises:
        ValueError: for an unknown network, a number that is too small, or an alpha outside [0, 1].
    """
    check_choices("networks", networks, (*NETWORKS, LAYER))
    check_timing(rounds, threads)
    check_alphas(alpha)
    torch.set_num_threads(threads)
    rows = []
    for done, name in enumerate(networks):
        rows += _time(list(_layer_entries() if name == LAYER else _network_entries(name, alpha)), compiled, rounds)
        progress("networks", done + 1, len(networks))
    return rows


def _network_entries(name: str, alphas: Sequence[float]) -> Iterator[_Entry]:
    by, build = NETWORKS[name]
    peer = awake(build())
    clip = torch.randn(1, 3, *view_size(name))
    yield from _forms(name, by, 0, peer, _peer_input(name, clip), ("eager", "compiled"))
    for alpha in (0, *alphas):
        ours = build_model(name, num_classes=400, alpha=alpha)
        ours.load_state_dict(peer.state_dict())
        yield from _forms(name, "octvideo", alpha, ours.eval(), clip, ("eager", "fast", "fast, compiled"))


def _layer_entries() -> Iterator[_Entry]:
    channels, alpha = LAYER_CHANNELS, 0.5
    x = torch.randn(1, channels, *LAYER_SIZE)
    pair = split(x, alpha)
    yield from _forms(LAYER, "torch", 0, nn.Conv2d(channels, channels, 3, padding=1), x, ("eager", "compiled"))
    peer: nn.Module | str = "not installed: pip install 'octvideo[peers]'"
    with contextlib.suppress(ImportError):
        peer = importlib.import_module("octconv").OctConv2d(channels, channels, 3, padding=1, alpha=alpha)
    yield from _forms(LAYER, "octconv", alpha, peer, (pair.parts,), ("eager", "compiled"))
    ours = nn.Sequential(OctConv2d(channels, channels, 3, padding=1, alpha_in=alpha, alpha_out=alpha))
    yield from _forms(LAYER, "octvideo", alpha, ours, pair, ("eager", "fast", "fast, compiled"))


def _forms(
    what: str, by: str, alpha: float, network: nn.Module | str, x: Any, variants: Sequence[str]
) -> Iterator[_Entry]:
    for variant in variants:
        yield _Entry(what, by, alpha, variant, network, x)


def _time(entries: Sequence[_Entry], compiled: bool, rounds: int) -> list[dict[str, Any]]:
    entries = [entry for entry in entries if compiled or "compiled" not in entry.variant]
    calls: dict[str, Callable[[], Any]] = {}
    rows: list[dict[str, Any]] = []
    for number, entry in enumerate(entries):
        row = {"what": entry.what, "by": entry.by, "alpha": entry.alpha, "variant": entry.variant}
        rows.append(row | {"gmacs": None, "median_ms": None, "iqr_ms": None, "speedup": None, "reason": None})
        if isinstance(entry.network, str):
            rows[-1]["reason"] = entry.network
            continue
        try:
            rows[-1]["gmacs"] = count_macs(entry.network, entry.input).gmacs
            calls[str(number)] = inference(_WAYS[entry.variant](entry.network, entry.input), entry.input)
            calls[str(number)]()
        except Exception as error:  # a peer may fail in any way, and then the row says how
            calls.pop(str(number), None)
            rows[-1]["reason"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    times = time_in_turns(calls, rounds=rounds)
    for key, timing in times.items():
        rows[int(key)] |= vars(timing)
        rows[int(key)]["speedup"] = times["0"].median_ms / timing.median_ms if "0" in times else None
    return rows


def _peer_input(name: str, clip: Tensor) -> Any:
    """The clip as the peer takes it: PyTorchVideo's SlowFast takes its pathways' frames."""
    if name != "slowfast_r50_8x8":
        return clip
    frames = torch.linspace(0, clip.shape[2] - 1, clip.shape[2] // 4).long()
    return [clip[:, :, frames], clip]
