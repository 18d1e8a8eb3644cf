"""`octvideo benchmark`: time against multiply-adds, dense and octave networks in one run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn

from octvideo.analysis import MACS_TOOL, count_macs
from octvideo.analysis.benchmark import time_in_turns
from octvideo.cli.options import chosen_size, default_num_classes, new_parser
from octvideo.models import build_model
from octvideo.report import collect_metadata
from octvideo.runtime import optimize

VARIANTS = ("eager", "fast", "compiled")


def run(arguments: Sequence[str]) -> int:
    """Benchmark from command-line arguments."""
    parser = new_parser("benchmark", "Time inference of a network over alphas, as it is and on the fast path.")
    parser.add_argument("--model", type=str, default="i3d_r50", help="a builder's name")
    parser.add_argument("--alpha", type=float, nargs="+", default=[0, 0.125, 0.25, 0.5], help="0 is always there")
    parser.add_argument("--octave", type=str, default="spatial")
    parser.add_argument("--variants", type=str, nargs="+", default=["eager", "fast"], help=", ".join(VARIANTS))
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--num_frames", type=int | None, default=None, help="the network's own where not given")
    parser.add_argument("--crop", type=int, nargs="+", default=[], help="one number, or height and width")
    parser.add_argument("--dtype", type=Literal["float32", "bfloat16"], default="float32", help="eager is float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=str | None, default=None, help="JSON file for the result")
    options = parser.parse_args(list(arguments))
    unknown = set(options.variants) - set(VARIANTS)
    if unknown or options.batch_size < 1 or options.threads < 1:
        raise ValueError(
            f"variants must be of {', '.join(VARIANTS)}, batch_size and threads 1 or more; "
            f"got {options.variants}, {options.batch_size} and {options.threads}"
        )
    torch.set_num_threads(options.threads)
    alphas = list(dict.fromkeys([0.0, *options.alpha]))
    rows = _measure(options, alphas, (3, *chosen_size(options.model, options.num_frames, options.crop)))
    Console(width=120).print(_table(rows, options))
    print(f"times are medians of {options.rounds} rounds, all networks in turn; GMACs per view by {MACS_TOOL}")
    if options.output:
        _write(Path(options.output), rows, options)
    return 0


def _measure(options: Any, alphas: Sequence[float], size: tuple[int, ...]) -> list[dict[str, Any]]:
    """One row for each variant and alpha."""
    clips = torch.randn(options.batch_size, *size)
    networks: dict[str, nn.Module] = {}
    rows = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        building = progress.add_task("building", total=len(alphas) * len(options.variants))
        for alpha in alphas:
            network = _network(options, alpha)
            gmacs = count_macs(network, clips[:1]).gmacs
            for variant in options.variants:
                networks[f"{variant} {alpha:g}"] = _variant(variant, network, clips, options.dtype)
                rows.append({"variant": variant, "alpha": alpha, "gmacs_per_view": gmacs})
                progress.advance(building)
        timing = progress.add_task("timing", total=options.rounds + 1)
        times = time_in_turns(
            networks, clips, rounds=options.rounds, progress=lambda done: progress.update(timing, completed=done)
        )
    for row in rows:
        row |= vars(times[f"{row['variant']} {row['alpha']:g}"])
    return [_with_ratios(row, rows) for row in rows]


def _network(options: Any, alpha: float) -> nn.Module:
    """The network with every block awake: PyTorchVideo's start with last norms of 0."""
    torch.manual_seed(0)
    classes = default_num_classes(options.model)
    network = build_model(options.model, num_classes=classes, alpha=alpha, octave=options.octave).eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.ones_(module.weight)
    return network


class _Cast(nn.Module):
    """A network of another type between float32 clips and float32 logits."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.network(clips.to(self.dtype)).float()


def _variant(variant: str, network: nn.Module, clips: torch.Tensor, dtype: str) -> nn.Module:
    if variant == "eager":
        return network
    kind = getattr(torch, dtype)
    compiled = variant == "compiled"
    fast = optimize(network.to(kind), clips.to(kind), compile=compiled)
    network.float()
    return fast if kind == torch.float32 else _Cast(fast, kind)


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


def _table(rows: Sequence[dict[str, Any]], options: Any) -> Table:
    table = Table(
        title=f"{options.model}, {options.octave} octave, batch {options.batch_size}, {options.threads} threads, "
        f"fast path in {options.dtype}"
    )
    for name in ("variant", "alpha", "GMACs", "ms", "+- IQR", "time ratio", "MACs ratio", "time / MACs", "speed-up"):
        table.add_column(name, justify="right")
    for row in rows:
        speedup = row["speedup_over_eager_dense"]
        table.add_row(
            row["variant"],
            f"{row['alpha']:g}",
            f"{row['gmacs_per_view']:.2f}",
            f"{row['median_ms']:.1f}",
            f"{row['iqr_ms']:.1f}",
            f"{row['time_ratio']:.3f}",
            f"{row['macs_ratio']:.3f}",
            f"{row['time_over_macs_ratio']:.3f}",
            "" if speedup is None else f"{speedup:.2f}",
        )
    return table


def _write(path: Path, rows: list[dict[str, Any]], options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {
        name: options[name]
        for name in ("model", "octave", "batch_size", "num_frames", "crop", "dtype", "threads", "rounds")
    }
    content = {"settings": settings, "macs_tool": MACS_TOOL, "metadata": collect_metadata(), "rows": rows}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}")
