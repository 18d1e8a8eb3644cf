"""Times of networks, over alphas and beside their peers', as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from octvideo.report.plots import COLOURS, MARKERS

OURS = "octvideo"


def plot_peers(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw one panel for each network, one bar for each form that was timed, the peers' in grey.

    Args:
        rows: as `octvideo.benchmarks.benchmark_peers` gives them.
        path: PNG file to write.
    """
    timed = [row for row in rows if row["median_ms"] is not None]
    names = list(dict.fromkeys(row["what"] for row in timed))
    counts = [sum(row["what"] == name for row in timed) for name in names]
    figure = Figure(figsize=(9, 0.3 * sum(counts) + 0.8 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(names), 1, height_ratios=counts, squeeze=False)[:, 0]
    for name, axes in zip(names, panels, strict=True):
        bars = [row for row in timed if row["what"] == name]
        labels = [f"{row['by']}, alpha {row['alpha']:g}, {row['variant']}" for row in bars]
        times = [row["median_ms"] for row in bars]
        colours = ["tab:blue" if row["by"] == OURS else "0.6" for row in bars]
        drawn = axes.barh(range(len(bars)), times, xerr=[row["iqr_ms"] / 2 for row in bars], color=colours)
        axes.bar_label(drawn, [f" {ms:.0f}" if ms >= 100 else f" {ms:.3g}" for ms in times], fontsize=8)
        axes.set_yticks(range(len(bars)), labels, fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_title(name, fontsize=10, loc="left")
    panels[-1].set_xlabel("milliseconds (median; bars of the interquartile range)")
    figure.savefig(path, dpi=150)


def plot_networks(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw time over multiply-adds, both against the dense network of the same variant, with the diagonal.

    Args:
        rows: as `octvideo.benchmarks.benchmark_networks` gives them.
        path: PNG file to write.
    """
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    least = min(row["macs_ratio"] for row in rows)
    axes.plot([least, 1], [least, 1], color="0.7", linestyle="--", label="time falls as multiply-adds do")
    variants = [v for v in dict.fromkeys(row["variant"] for row in rows) if not v.startswith("peer")]
    for variant, colour, marker in zip(variants, COLOURS, MARKERS, strict=False):
        mine = sorted((row for row in rows if row["variant"] == variant), key=lambda row: row["macs_ratio"])
        ratios = [row["time_ratio"] for row in mine]
        spread = [row["iqr_ms"] / 2 / row["median_ms"] * row["time_ratio"] for row in mine]
        axes.errorbar(
            [row["macs_ratio"] for row in mine], ratios, spread, color=colour, marker=marker, capsize=3, label=variant
        )
    for row in rows:
        if row["variant"] == variants[0] and row["alpha"]:
            place = (row["macs_ratio"], 0.02)
            axes.annotate(f"alpha {row['alpha']:g}", place, xycoords=("data", "axes fraction"), ha="center", fontsize=8)
    axes.set_xlabel("multiply-adds, of the dense network's")
    axes.set_ylabel("time, of the dense network's")
    axes.set_title("medians and interquartile ranges", fontsize=9)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
