"""The tables that `octvideo benchmark` prints: what each times, and its columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octvideo.analysis import MACS_TOOL
from octvideo.benchmarks import (
    benchmark_decoding,
    benchmark_layers,
    benchmark_networks,
    benchmark_packing,
    benchmark_peers,
    benchmark_slow_layers,
)
from octvideo.report import layer_lines, plot_layers, plot_networks, plot_peers, slow_layer_lines

Row = dict[str, Any]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


@dataclass(frozen=True)
class Benchmark:
    """One table of times.

    Args:
        description: what it times.
        measure: function whose arguments are the command's options, and which returns rows.
        columns: header -> text of a row's cell.
        note: what the reader of the table must know.
        summary: lines below the table, from the rows.
        plot: draws the rows to a PNG file, which is written beside the JSON file.
        packages: those whose versions are named beside the table.
    """

    description: str
    measure: Callable[..., list[Row]]
    columns: Mapping[str, Callable[[Row], str]]
    note: str = ""
    summary: Callable[[list[Row]], list[str]] | None = None
    plot: Callable[[list[Row], Path], None] | None = None
    packages: tuple[str, ...] = ()


_RATIOS: dict[str, Callable[[Row], str]] = {
    "time ratio": lambda row: f"{row['time_ratio']:.3f}",
    "MACs ratio": lambda row: f"{row['macs_ratio']:.3f}",
}
_LAYER_TIMES: dict[str, Callable[[Row], str]] = {
    "dense ms": lambda row: f"{row['dense_ms']:.2f}",
    "octave ms": lambda row: f"{row['octave_ms']:.2f}",
    "+- IQR": lambda row: f"{row['octave_iqr_ms']:.2f}",
}

BENCHMARKS = {
    "networks": Benchmark(
        "a network over alphas, as it is and on the fast path",
        benchmark_networks,
        {
            "variant": lambda row: row["variant"],
            "alpha": lambda row: f"{row['alpha']:g}",
            "GMACs": lambda row: f"{row['gmacs_per_view']:.2f}",
            "ms": lambda row: f"{row['median_ms']:.1f}",
            "+- IQR": lambda row: f"{row['iqr_ms']:.1f}",
            **_RATIOS,
            "of minima": lambda row: f"{row['min_time_ratio']:.3f}",
            "time / MACs": lambda row: f"{row['time_over_macs_ratio']:.3f}",
            "executed": lambda row: f"{row['executed_macs_ratio']:.3f}" if "executed_macs_ratio" in row else "",
            "bytes": lambda row: f"{row['map_bytes_ratio']:.3f}" if "map_bytes_ratio" in row else "",
            "speed-up": lambda row: (
                "" if row["speedup_over_eager_dense"] is None else f"{row['speedup_over_eager_dense']:.2f}"
            ),
            "peak MB": lambda row: f"{row['peak_memory_mb']:.0f}" if "peak_memory_mb" in row else "",
            "memory ratio": lambda row: f"{row['memory_ratio']:.3f}" if "memory_ratio" in row else "",
            "paper's": lambda row: f"{row['paper_memory_ratio']:.2f}" if row.get("paper_memory_ratio") else "",
        },
        f"GMACs: 10^9 multiply-adds for one view by {MACS_TOOL}; ratios are to alpha 0 of the same variant, also of "
        "the least times; executed, bytes: multiply-adds with what the fast path's instructions pad, and its maps' "
        "bytes, against alpha 0 (blank where another kernel does part of the work); peak MB: "
        "10^6 bytes that a training step allocates at its peak; paper's: memory of one layer, its table 1",
        plot=plot_networks,
    ),
    "peers": Benchmark(
        "networks and a layer beside those of PyTorchVideo, torchvision and octconv",
        benchmark_peers,
        {
            "what": lambda row: row["what"],
            "by": lambda row: row["by"],
            "alpha": lambda row: f"{row['alpha']:g}",
            "form": lambda row: row["variant"],
            "GMACs": lambda row: _number(row["gmacs"], 2),
            "ms": lambda row: row["reason"] or _number(row["median_ms"], 1),
            "+- IQR": lambda row: _number(row["iqr_ms"], 1),
            "speed-up": lambda row: _number(row["speedup"], 2),
        },
        f"GMACs: 10^9 multiply-adds by {MACS_TOOL}; speed-ups are over the peer's dense form as it is",
        plot=plot_peers,
    ),
    "layers": Benchmark(
        "single convolutions against dense ones, over kernels, channels, sizes and alphas",
        benchmark_layers,
        {
            "kernel": lambda row: row["kernel"],
            "channels": lambda row: str(row["channels"]),
            "size": lambda row: row["size"],
            "variant": lambda row: row["variant"],
            "alpha": lambda row: f"{row['alpha']:g}",
            **_LAYER_TIMES,
            **_RATIOS,
            "time / MACs": lambda row: f"{row['time_over_macs_ratio']:.3f}",
            "pays": lambda row: "yes" if row["pays"] else "",
        },
        f"ratios are to the dense layer of the same variant; MACs by {MACS_TOOL}",
        layer_lines,
        plot_layers,
    ),
    "slow_layers": Benchmark(
        "the octave convolutions of a network against dense ones, and the network with the slow ones kept dense",
        benchmark_slow_layers,
        {
            "alpha": lambda row: f"{row['alpha']:g}",
            "convolution": lambda row: row["layer"],
            "calls": lambda row: str(len(row["names"])),
            **_LAYER_TIMES,
            **_RATIOS,
            "lost ms": lambda row: f"{row['lost_ms']:.2f}",
        },
        "lost ms: of all calls together, negative where the octave layer gains; convolutions kept dense may still read "
        "pairs, so only the last row tells what keeping them dense gains",
        slow_layer_lines,
    ),
    "decoding": Benchmark(
        "clips from file to normalised tensor, beside other loaders",
        benchmark_decoding,
        {
            "videos": lambda row: row["videos"],
            "clips x crops": lambda row: f"{row['clips']} x {row['crops']}",
            "workers": lambda row: str(row["workers"]),
            "loader": lambda row: row["loader"],
            "clips/s": lambda row: row["problem"] or f"{row['clips_per_second']:.1f}",
            "+- IQR %": lambda row: "" if row["problem"] else f"{100 * row['iqr_ms'] / row['median_ms']:.0f}",
            "octvideo is faster by": lambda row: (
                "" if row["octvideo_ratio"] is None else f"{row['octvideo_ratio']:.2f}"
            ),
        },
        "a clip is one view (C, T, H, W), float32; one thread for each process",
        packages=("octvideo", "av", "torchcodec", "decord", "pytorchvideo"),
    ),
    "packing": Benchmark(
        "clips from videos as they are, from packed ones and from shards",
        benchmark_packing,
        {
            "videos": lambda row: row["videos"],
            "clips x crops": lambda row: f"{row['clips']} x {row['crops']}",
            "workers": lambda row: str(row["workers"]),
            "form": lambda row: row["form"],
            "kB a video": lambda row: f"{row['video_bytes'] / 1e3:.0f}",
            "clips/s": lambda row: f"{row['clips_per_second']:.1f}",
            "+- IQR %": lambda row: f"{100 * row['iqr_ms'] / row['median_ms']:.0f}",
            "faster by": lambda row: f"{row['files_ratio']:.2f}",
        },
        "a clip is one view (C, T, H, W), float32; one thread for each process; 1 x 1 are random clips as in training",
    ),
}
